package objectcache

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// read is a read that a worker is asked for: n bytes at most pieceSize, within a region.
type read struct {
	o    *object
	size int64 // of the object
	off  int64
	done chan struct{} // closed when the worker is done

	mu   sync.Mutex
	p    []byte
	ok   bool // p is filled
	late bool // nobody waits any more, and p is not the worker's to write to
}

// write is what a writer is asked for: to store data, to make drop bytes absent, or to
// remove the object.
type write struct {
	o      *object
	size   int64 // of the object
	off    int64
	data   []byte
	drop   int64
	remove bool
}

// cost is what w counts as in the queue, in bytes.
func (w *write) cost() int64 { return max(PageSize, int64(len(w.data))) }

// readPiece reads p by way of a worker. It waits as long as a read may.
func (c *Cache) readPiece(o *object, size int64, p []byte, off int64) bool {
	r := &read{o: o, size: size, off: off, p: p, done: make(chan struct{})}
	patience := time.NewTimer(c.opts.patience)
	defer patience.Stop()
	select {
	case c.reads <- r:
	case <-patience.C:
		return false
	case <-c.quit:
		return false
	}
	select {
	case <-r.done:
		return r.ok
	case <-patience.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return r.ok
	default:
	}
	r.late = true
	c.late.Add(1)
	c.failed("read", errSlow)
	return false
}

// work is a worker.
func (c *Cache) work(d disk, writes bool) {
	defer c.ended.Done()
	queue := c.write
	if !writes {
		queue = nil
	}
	var scratch []byte
	for {
		select {
		case r := <-c.reads:
			// Whole pages, of which two may be needed in part, and their entries.
			if need := (len(r.p)/PageSize + 2) * (PageSize + entrySize); len(scratch) < need {
				scratch = make([]byte, need)
			}
			c.answer(d, r, scratch)
		case w := <-queue:
			c.do(d, w)
		case <-c.quit:
			for writes { // what waits is written
				select {
				case w := <-queue:
					c.do(d, w)
				default:
					return
				}
			}
			return
		}
	}
}

// answer reads for r into scratch, and from there to who waits for it, if anybody does.
func (c *Cache) answer(d disk, r *read, scratch []byte) {
	got, err := c.read(d, r, scratch)
	switch {
	case errors.Is(err, errBad):
		c.stats.bad.Add(1)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		c.fail("read", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.late {
		c.late.Add(-1)
	} else if got != nil {
		copy(r.p, got)
		r.ok = true
	}
	close(r.done)
}

func (c *Cache) read(d disk, r *read, scratch []byte) ([]byte, error) {
	r.o.last.Store(c.now())
	done, err := r.o.use(c, d, r.size, false)
	if err != nil {
		return nil, err
	}
	defer done()
	return r.o.read(scratch, r.off, int64(len(r.p)))
}

// do does what w asks for.
func (c *Cache) do(d disk, w *write) {
	defer c.queued.Add(-w.cost())
	slow := time.AfterFunc(c.opts.hang, func() {
		c.late.Add(1)
		c.failed("write", errSlow)
	})
	defer func() {
		if !slow.Stop() {
			c.late.Add(-1)
		}
	}()
	if c.now() < c.pause.Load() {
		c.stats.dropped.Add(int64(len(w.data)))
		return
	}
	var err error
	if w.remove {
		err = c.remove(d, w.o)
	} else {
		err = c.store(d, w)
	}
	if err != nil && !errors.Is(err, errNoRoom) && !errors.Is(err, errGone) {
		c.fail("write", err)
	}
}

// store stores data, or makes pages absent.
func (c *Cache) store(d disk, w *write) error {
	if len(w.data) > 0 {
		// The map grows with the data, and so may what the file system needs for it.
		if err := c.makeRoom(d, int64(len(w.data))+2*PageSize); err != nil {
			c.stats.dropped.Add(int64(len(w.data)))
			return err
		}
	}
	w.o.last.Store(c.now())
	done, err := w.o.use(c, d, w.size, len(w.data) > 0)
	if w.drop > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	for off, end := w.off, w.off+w.drop; off < end; {
		n := min(end-off, regionSize-off%regionSize)
		if err := w.o.clear(off, n); err != nil {
			return err
		}
		off += n
	}
	for p, off := w.data, w.off; len(p) > 0; {
		n := min(int64(len(p)), regionSize-off%regionSize)
		if err := w.o.write(p[:n], off); err != nil {
			return errors.Join(err, w.o.account(c)) // a part may have been written
		}
		c.stats.written.Add(n)
		p, off = p[n:], off+n
	}
	return w.o.account(c)
}

// opened notes that an object's files are open. The caller holds their lock. The files of
// an object that was not used for long are closed, if there are too many.
func (c *Cache) opened(o *object) {
	c.mu.Lock()
	if !o.ringed {
		o.ringed = true
		c.ring = append(c.ring, o)
	}
	c.open = slices.DeleteFunc(c.open, func(o *object) bool { return !o.isOpen.Load() })
	slices.SortFunc(c.open, compareUse)
	idle := slices.Clone(c.open[:max(0, len(c.open)-maxOpen+1)])
	c.open = append(c.open, o)
	c.mu.Unlock()
	for _, o := range idle {
		if o.files.TryLock() { // else it is in use
			_ = o.closeLocked()
			o.files.Unlock()
		}
	}
}

// compareUse orders objects by when they were used last.
func compareUse(a, b *object) int {
	return cmp.Or(cmp.Compare(a.last.Load(), b.last.Load()), a.used.Compare(b.used))
}

// errNoRoom says that the folder has no room for more and nothing to evict.
var errNoRoom = errors.New("the folder is full")

// makeRoom evicts until n bytes more fit, and there are not too many objects.
func (c *Cache) makeRoom(d disk, n int64) error {
	if until := c.full.Load(); until != 0 && c.now() > until && c.full.CompareAndSwap(until, 0) {
		c.limit.Store(c.opts.Size)
	}
	free, total, err := d.Free()
	if err != nil {
		return err
	}
	c.evicting.Lock()
	defer c.evicting.Unlock()
	for c.used.Load()+n > c.limit.Load() || free-n < total/20 {
		before := c.used.Load()
		if err := c.evict(d); err != nil {
			return err
		}
		free += max(0, before-c.used.Load())
	}
	for {
		c.mu.Lock()
		var oldest *object
		if len(c.ring) > maxObjects {
			oldest = slices.MinFunc(c.ring, compareUse)
		}
		c.mu.Unlock()
		if oldest == nil {
			return nil
		}
		if err := c.remove(d, oldest); err != nil {
			return err
		}
	}
}

// evict gives the space of one region back, or removes an object of which nothing is left.
// The caller holds evicting.
func (c *Cache) evict(d disk) error {
	for turns := 0; ; {
		c.mu.Lock()
		if len(c.ring) == 0 || turns > 2*len(c.ring) {
			c.mu.Unlock()
			return errNoRoom
		}
		o := c.ring[0]
		c.mu.Unlock()
		r, err := c.evictFrom(d, o)
		switch {
		case err == nil:
			c.hand = r + 1
			return nil
		case errors.Is(err, errTouched):
			c.hand = r + 1
			continue
		case errors.Is(err, io.EOF) && c.hand > 0: // the object's end
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
			// Nothing of it is left, or it can be evicted as a whole alone.
			before := c.used.Load()
			if err := c.remove(d, o); err != nil {
				return err
			}
			c.stats.evicted.Add(before - c.used.Load())
			return nil
		default:
			return err
		}
		turns++
		c.hand = 0
		c.mu.Lock()
		if len(c.ring) > 0 && c.ring[0] == o {
			c.ring = append(c.ring[1:], o)
		}
		c.mu.Unlock()
	}
}

// errTouched says that a region was used since the hand passed it last.
var errTouched = errors.New("the region is in use")

// evictFrom evicts the next region of o at or behind the hand, and says which. The error is
// io.EOF if there is none.
func (c *Cache) evictFrom(d disk, o *object) (int64, error) {
	done, err := o.use(c, d, anySize, false)
	if err != nil {
		return 0, err
	}
	defer done()
	at, err := o.data.NextData(c.hand * regionSize)
	if err != nil {
		return 0, err
	}
	r := at / regionSize
	if o.untouch(r) {
		return r, errTouched
	}
	before := c.used.Load()
	if err := o.evict(r); err != nil {
		return r, err
	}
	if err := o.account(c); err != nil {
		return r, err
	}
	c.stats.evicted.Add(max(0, before-c.used.Load()))
	return r, nil
}

// remove removes what there is of o.
func (c *Cache) remove(d disk, o *object) error {
	err := o.remove(d)
	c.mu.Lock()
	if c.objects[o.name] == o {
		delete(c.objects, o.name)
	}
	c.ring = slices.DeleteFunc(c.ring, func(other *object) bool { return other == o })
	c.mu.Unlock()
	o.accounts.Lock()
	defer o.accounts.Unlock()
	c.used.Add(-o.allocated)
	o.allocated = 0
	return err
}
