package blockdev

import (
	"errors"
	"fmt"
	"time"
)

// diskHang is how long a read or write of the cache folder may take. A disk that takes
// longer, as one that is failing or a dead server's may, is not used until it has
// returned, which may be never.
const diskHang = 2 * time.Second

// errDiskHangs says that a read or write of the folder does not return.
var errDiskHangs = errors.New("it does not answer")

// hangs tells whether something that was asked of the folder did not return in time.
func (d *diskCache) hangs() bool { return d.late.Load() > 0 }

// watch notes when what begins now takes too long; end says that it has returned.
func (d *diskCache) watch(what string) (end func()) {
	t := time.AfterFunc(d.c.opts.hang, func() { d.isLate(what) })
	return func() {
		if !t.Stop() {
			d.late.Add(-1)
		}
	}
}

func (d *diskCache) isLate(what string) {
	d.late.Add(1)
	d.failed(what, errDiskHangs)
}

// enter begins a read of n bytes, false if it can't be: at most an eighth of the memory
// is read into at a time, since a disk that hangs keeps that.
func (d *diskCache) enter(k key, n int64) bool {
	if d.hangs() || !d.has(k) {
		return false
	}
	if d.reads.Add(n) > d.c.mem.limit/8 {
		d.reads.Add(-n)
		return false
	}
	return true
}

// fromDisk fills what the cache folder has, and returns the rest. Not ok, the folder
// hung: another fetch has taken over, and this one holds nothing any more. Nothing can
// end a read of a file; so this goroutine stays with it and with its buffer, and that
// of the timer does what is left.
func (f *fetch) fromDisk(blocks []*block) (_ []*block, ok bool) {
	d, mem := f.cache.disk, f.cache.mem
	if d == nil {
		return blocks, true
	}
	var left []*block
	var watch *time.Timer
	i := 0 // neither changes while the timer runs
	for ; i < len(blocks); i++ {
		if f.ctx.Err() != nil {
			return append(left, blocks[i:]...), true
		}
		b := blocks[i]
		n := unitBytes(f.im.layout, b.unit)
		if !d.enter(b.key, n) {
			left = append(left, b)
			continue
		}
		data := mem.get(n)
		if watch == nil {
			watch = time.AfterFunc(f.cache.opts.hang, func() {
				d.isLate("read from")
				f.handOver(append(left, blocks[i+1:]...), blocks[i])
			})
		} else {
			watch.Reset(f.cache.opts.hang)
		}
		found := d.get(b.key, data)
		inTime := watch.Stop()
		d.reads.Add(-n)
		if !inTime {
			mem.put(data)
			mem.release(int64(cap(data)))
			d.late.Add(-1)
			return nil, false
		}
		b.data = data
		if !found {
			left = append(left, b)
			continue
		}
		b.fromDisk = true
		f.cache.counts.diskHits.Add(1)
		f.done(b)
	}
	return left, true
}

// handOver ends the fetch in favour of another one for what is left and for the block
// whose read hangs. That read keeps what was granted for the block, all else is given
// back: the other fetch is granted all that it needs at once.
func (f *fetch) handOver(left []*block, hung *block) {
	c := f.cache
	c.release(left, f.im.layout)
	c.mem.release(f.scratchNeed())
	left = append(left, hung)
	sortUnits(left)
	c.newFetch(f.im, left, f.ahead).start(false)
	f.end()
}

// closeWithDisk closes the folder and the memory. If the folder hangs that goes on in
// the background.
func (c *Cache) closeWithDisk() error {
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(c.disk.close(), c.mem.close()) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(c.opts.hang):
		}
		if c.disk.hangs() {
			return fmt.Errorf("close the cache folder %s: %w; it is left as it is", c.disk.dir, errDiskHangs)
		}
	}
}
