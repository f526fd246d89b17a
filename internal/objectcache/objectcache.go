// Package objectcache keeps pages of objects in a folder on a disk of this machine, as the
// store sent them. It survives restarts and kill -9.
//
// A page is 4 KiB of an object. An object is named by the generation of its image and its
// role there, so that a page never passes for one of other bytes. The folder has
//
//	quickims-cache.lock   flock: one process at a time
//	GENERATION-ROLE.data  sparse; byte x is the object's byte x
//	GENERATION-ROLE.map   a page of header, then 4 bytes for each page of the object
//
// The entry of a page in the map is 0 if the page is absent, else the CRC-32C of
// generation, role, page number and content (1 in place of 0). The page is written first
// and its entry after it, and nothing is synced: an entry proves its page. Whatever a
// crash, a full or failing disk, or anybody else makes of the files, a page is right or
// absent.
//
// A page of the map covers a region of 4 MiB. Regions are evicted as a whole, by a clock
// with a bit for each region, by punching holes. There is no index: a start takes the
// lock, and looks up in the background what there is.
//
// A few workers do all I/O. A read waits for them for a quarter of a second and then goes
// without the folder; the worker stays with its own buffer until the disk answers. While
// all are stuck so, the folder is off.
//
// Whoever can write to the folder can forge pages: it belongs to the service's user alone.
package objectcache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultSize is what a folder may take when nothing is said, in bytes.
	DefaultSize = 10 << 30
	// MinSize is the least that a folder can do with, in bytes.
	MinSize = 64 << 20

	// PageSize is what is cached or absent as a whole, in bytes.
	PageSize = 4096
	// regionSize is what is evicted as a whole, in bytes: as much as a page of the map
	// tells of.
	regionSize = PageSize / entrySize * PageSize
	entrySize  = 4
	// pieceSize is the most that a worker reads or writes at a time. Regions are a
	// multiple of it.
	pieceSize = 1 << 20

	// maxObjects bounds the files in the folder.
	maxObjects = 4096
	// maxOpen bounds the objects whose files are open.
	maxOpen = 128
	workers = 8
	// writers is how many of the workers write, too.
	writers = 2
)

const (
	// patience is how long a read waits for the folder.
	patience = 250 * time.Millisecond
	// hang is how long a write, the start or the end may take before it is not waited for.
	hang = 2 * time.Second
	// failurePause is how long the folder is not used after an error of its disk.
	failurePause = time.Minute
	// fullPause is how long the bound stays what a full disk has made it.
	fullPause = time.Hour
)

// Name names the bytes of an object for ever: no other bytes have it.
type Name struct {
	Generation string // of the image: 32 digits of 0-9 and a-f; other names are not cached
	Role       string // of the object in the image: 1 to 8 lower-case letters
	Size       int64  // in bytes
}

// Options say where a Cache is and what it may take.
type Options struct {
	Dir  string
	Size int64 // most bytes on the disk; 0 is DefaultSize
	// Queue is how many bytes may wait to be written; more are not cached. 0 is 4 MiB.
	Queue int64
	// WaitForOther takes the folder over from another process when that ends, instead of
	// being refused.
	WaitForOther bool
	Logger       *slog.Logger

	disk     func(dir string) (disk, error) // tests: nil is openFolder
	patience time.Duration                  // tests: 0 is the constant
	hang     time.Duration                  // tests: 0 is the constant
}

// Stats is what a Cache has done since it was made, and what it holds. Bytes unless it
// says otherwise.
type Stats struct {
	Read    int64 // delivered from the folder
	Hits    int64 // reads that the folder answered
	Misses  int64 // reads that it did not
	Written int64
	Dropped int64 // not written: the disk is slower than what is offered
	Evicted int64
	Bad     int64 // pages that were not what their entry says
	Errors  int64 // calls of the disk that failed or took too long
	Used    int64 // on the disk now
	Objects int64 // in the folder now
	Off     bool  // the folder is not used at present
}

// Cache is a folder. It may be used by many goroutines at once.
type Cache struct {
	opts  Options
	log   *slog.Logger
	disk  atomic.Pointer[disk] // nil: not opened yet
	born  time.Time
	reads chan *read
	write chan *write
	quit  chan struct{}
	ended sync.WaitGroup

	queued atomic.Int64 // bytes
	late   atomic.Int32 // workers whose disk does not answer
	pause  atomic.Int64 // time since born until which nothing is tried
	limit  atomic.Int64 // bytes
	full   atomic.Int64 // time since born until which the limit is less than Size

	listed chan struct{} // closed when objects has all that is in the folder

	mu      sync.Mutex // never held during I/O
	closed  bool
	objects map[name]*object
	ring    []*object // those of which there are files, in the order in which the clock's hand passes
	open    []*object // those whose files are open, and maybe some whose are not

	evicting sync.Mutex // held by the one that evicts, also during I/O
	hand     int64      // region of the first of ring

	used  atomic.Int64
	stats struct{ read, hits, misses, written, dropped, evicted, bad, errors atomic.Int64 }
}

// RefusedError says that a folder cannot be a cache's because of what it is or holds, or
// because another process uses it.
type RefusedError struct{ text string }

func (e *RefusedError) Error() string { return e.text }

// Open opens the folder, which it makes if there is none. A folder that cannot be used
// because of what it is or who uses it is a [*RefusedError]; one that does not work now is
// done without. It takes 2 seconds at most; a disk that needs longer is used when it has
// answered. Close must be called.
func Open(opts Options) (*Cache, error) {
	if opts.Size == 0 {
		opts.Size = DefaultSize
	}
	if opts.Size < MinSize && opts.disk == nil {
		return nil, &RefusedError{fmt.Sprintf("the cache folder may take %d bytes; it needs at least %d", opts.Size, int64(MinSize))}
	}
	if opts.Queue == 0 {
		opts.Queue = 4 << 20
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.disk == nil {
		opts.disk = openFolder
	}
	if opts.patience == 0 {
		opts.patience = patience
	}
	if opts.hang == 0 {
		opts.hang = hang
	}
	c := &Cache{
		opts: opts, log: opts.Logger.With("dir", opts.Dir), born: time.Now(),
		reads: make(chan *read), write: make(chan *write, 1024), quit: make(chan struct{}),
		listed: make(chan struct{}), objects: map[name]*object{},
	}
	c.limit.Store(opts.Size)
	began := make(chan error, 1)
	c.ended.Add(1)
	go c.start(began)
	select {
	case err := <-began:
		var refused *RefusedError
		if errors.As(err, &refused) {
			c.ended.Wait()
			return nil, err
		}
	case <-time.After(opts.hang):
		c.failed("open", errSlow)
	}
	return c, nil
}

// errSlow says that the disk does not answer.
var errSlow = errors.New("it does not answer")

// start opens the folder, starts the workers and lists what is there. It tells began when
// the folder can be used or cannot.
func (c *Cache) start(began chan<- error) {
	defer c.ended.Done()
	d, err := c.opts.disk(c.opts.Dir)
	for errors.Is(err, errInUse) && c.opts.WaitForOther {
		select {
		case began <- nil: // the other process may need until after our start
		default:
		}
		select {
		case <-c.quit:
			return
		case <-time.After(100 * time.Millisecond):
		}
		d, err = c.opts.disk(c.opts.Dir)
	}
	if err != nil {
		if errors.Is(err, errInUse) {
			err = &RefusedError{fmt.Sprintf("another process uses the cache folder %s", c.opts.Dir)}
		}
		c.failed("open", err)
		select {
		case began <- err:
		default:
		}
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		_ = d.Close()
		return
	}
	c.disk.Store(&d)
	for i := range workers {
		c.ended.Add(1)
		go c.work(d, i < writers)
	}
	c.mu.Unlock()
	select {
	case began <- nil:
	default:
	}
	for {
		err := c.list(d)
		if err == nil {
			return
		}
		c.fail("list", err)
		select {
		case <-c.quit:
			return
		case <-time.After(failurePause):
		}
	}
}

// list finds what is in the folder. Files that are not the cache's stay as they are.
func (c *Cache) list(d disk) error {
	files, err := d.List()
	if err != nil {
		return err
	}
	found := map[name]*object{}
	whole := map[name]bool{}
	for _, f := range files {
		n, ending, ok := parseName(f.name)
		if !ok {
			continue
		}
		o := found[n]
		if o == nil {
			o = newObject(n)
			found[n] = o
		}
		o.allocated += f.allocated
		if ending == mapEnding {
			whole[n], o.used = true, f.used
		}
	}
	var old []*object
	for n, o := range found {
		if !whole[n] { // a removal that was cut short
			_ = o.remove(d)
			continue
		}
		old = append(old, o)
	}
	slices.SortFunc(old, func(a, b *object) int { return a.used.Compare(b.used) })
	for _, o := range old[:max(0, len(old)-maxObjects)] {
		_ = o.remove(d)
	}
	old = old[max(0, len(old)-maxObjects):]
	c.mu.Lock()
	for _, o := range old {
		c.objects[o.name], o.ringed = o, true
		c.used.Add(o.allocated)
	}
	c.ring = old
	c.mu.Unlock()
	close(c.listed)
	return nil
}

// isListed reports whether it is known what is in the folder. It waits for that a little.
func (c *Cache) isListed() bool {
	select {
	case <-c.listed:
		return true
	default:
	}
	if c.now() > int64(c.opts.hang) {
		return false // a disk that is slow to tell is not waited for again and again
	}
	select {
	case <-c.listed:
		return true
	case <-time.After(c.opts.patience):
		return false
	}
}

// now is the time since the Cache was made, which no change of the clock moves.
func (c *Cache) now() int64 { return int64(time.Since(c.born)) }

// off reports whether the folder is not used at present.
func (c *Cache) off() bool {
	return c.disk.Load() == nil || c.late.Load() >= workers || c.now() < c.pause.Load()
}

// failed counts an error of the disk.
func (c *Cache) failed(what string, err error) {
	c.stats.errors.Add(1)
	c.log.Warn("cache folder: "+what+" failed; images are read without it", "error", err)
}

// fail deals with an error of the disk.
func (c *Cache) fail(what string, err error) {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		c.limit.Store(min(c.limit.Load(), c.used.Load()))
		c.full.Store(c.now() + int64(fullPause))
	case errors.Is(err, fs.ErrClosed): // the cache is being closed
		return
	default:
		c.pause.Store(c.now() + int64(failurePause))
	}
	c.failed(what, err)
}

// object is that of n, which is made if there is none and create is set; else nil. What is
// in the folder must be known.
func (c *Cache) object(n Name, create bool) *object {
	key := name{n.Generation, n.Role}
	if !key.valid() || n.Size <= 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[key]
	if o == nil && create && !c.closed {
		o = newObject(key)
		c.objects[key] = o
	}
	return o
}

// ReadAt fills p with cached bytes of the object from off on and reports true, or reports
// false; then p is unspecified. Nobody writes to p after it has returned.
func (c *Cache) ReadAt(n Name, p []byte, off int64) bool {
	if c.off() || !c.isListed() {
		return false
	}
	o := c.object(n, false)
	if o == nil || off < 0 || int64(len(p)) > n.Size-off {
		c.stats.misses.Add(1)
		return false
	}
	length := int64(len(p))
	for len(p) > 0 {
		part := p[:min(int64(len(p)), pieceSize-off%pieceSize)]
		if !c.readPiece(o, n.Size, part, off) {
			c.stats.misses.Add(1)
			return false
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	c.stats.hits.Add(1)
	c.stats.read.Add(length)
	return true
}

// Offer gives the cache bytes of an object that the store sent: parts, one after the other,
// from off on. Whole pages of them, and the object's last page, are written, if the disk
// has time for that. No part is kept.
func (c *Cache) Offer(n Name, off int64, parts ...[]byte) {
	length := int64(0)
	for _, p := range parts {
		length += int64(len(p))
	}
	from, to := (off+PageSize-1)/PageSize*PageSize, off+length
	if to < n.Size {
		to = to / PageSize * PageSize
	}
	if from >= to || to > n.Size || c.off() || !c.isListed() {
		return
	}
	o := c.object(n, true)
	if o == nil {
		return
	}
	c.enqueue(&write{o: o, size: n.Size, off: from}, to-from, func(w *write) {
		w.data = make([]byte, 0, to-from)
		at := off
		for _, p := range parts {
			if lo, hi := max(from, at), min(to, at+int64(len(p))); lo < hi {
				w.data = append(w.data, p[lo-at:hi-at]...)
			}
			at += int64(len(p))
		}
	})
}

// enqueue hands w to a writer, when one has time for it, and does not wait for that. If the
// queue has no room for its n bytes, fill, which copies them, is not called.
func (c *Cache) enqueue(w *write, n int64, fill func(*write)) {
	cost := max(PageSize, n)
	if c.queued.Add(cost) <= c.opts.Queue {
		fill(w)
		select {
		case c.write <- w:
			return
		default:
		}
	}
	c.queued.Add(-cost)
	c.stats.dropped.Add(n)
}

// Drop makes pages absent that touch a range: their bytes did not pass a check of what
// they mean.
func (c *Cache) Drop(n Name, off, length int64) {
	if o := c.object(n, false); o != nil && !c.off() && length > 0 {
		from := off / PageSize * PageSize
		c.enqueue(&write{o: o, size: n.Size, off: from, drop: off + length - from}, 0, func(*write) {})
	}
}

// Remove removes what there is of the objects of a generation, soon.
func (c *Cache) Remove(generation string) {
	for _, o := range c.known() {
		if o.name.generation == generation {
			c.enqueue(&write{o: o, remove: true}, 0, func(*write) {})
		}
	}
}

// Generations lists the generations of which there is something, in no order. It returns
// nil until all of the folder has been looked at.
func (c *Cache) Generations() []string {
	var all []string
	for _, o := range c.known() {
		all = append(all, o.name.generation)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *Cache) known() []*object {
	select {
	case <-c.listed:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*object, 0, len(c.objects))
	for _, o := range c.objects {
		all = append(all, o)
	}
	return all
}

// Stats returns what was counted so far.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	objects := len(c.objects)
	c.mu.Unlock()
	s := &c.stats
	return Stats{
		Read: s.read.Load(), Hits: s.hits.Load(), Misses: s.misses.Load(), Written: s.written.Load(), Dropped: s.dropped.Load(),
		Evicted: s.evicted.Load(), Bad: s.bad.Load(), Errors: s.errors.Load(), Used: c.used.Load(), Objects: int64(objects), Off: c.off(),
	}
}

// Close writes what waits to be written and closes the folder. If the disk does not answer
// in 2 seconds, the error says so and the rest goes on in the background.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	close(c.quit)
	done := make(chan error, 1)
	go func() {
		c.ended.Wait()
		var errs []error
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, o := range c.open { // no worker uses them any more
			errs = append(errs, o.closeFiles())
		}
		if d := c.disk.Load(); d != nil {
			errs = append(errs, (*d).Close())
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(c.opts.hang):
		return fmt.Errorf("close the cache folder %s: %w; it is left as it is", c.opts.Dir, errSlow)
	}
}

// short tells an end of file that came too early from an error of the disk.
func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
