package blockdev

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a cache folder.
const (
	diskLock   = "quickims-cache.lock"
	diskBlocks = "quickims-cache.blocks"
)

// diskPause is how long nothing is written after a write failed, as on a full disk.
const diskPause = 10 * time.Second

// diskFile is the file of blocks.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// diskCache keeps blocks in a file that is written around and around: what is written
// takes the place of what was written longest ago. Where each block lies, and the
// checksum of what was written, is in memory, so that nothing that anybody does to the
// file can pass for a block, and nothing of it means anything to the next process.
type diskCache struct {
	c     *Cache
	dir   string
	lock  *os.File
	file  diskFile
	size  int64 // of the file at most; less when the disk turned out to be full
	queue chan diskWrite
	bytes atomic.Int64 // in the queue
	late  atomic.Int32 // reads and writes that took too long and did not return yet
	reads atomic.Int64 // bytes that are being read
	ended chan struct{}

	mu    sync.Mutex
	index *diskIndex
	head  int64 // where the next block goes
	end   int64 // of what was written before the head began anew

	paused time.Time // the writer's
}

type diskWrite struct {
	b    *block
	done chan struct{} // closed when all before it was written; b is nil then
}

// openDisk makes or takes over the cache folder. A folder that can't be used because of
// what it is or holds is an error; one that does not work now is done without.
func (c *Cache) openDisk() error {
	if c.opts.DirSize == 0 {
		c.opts.DirSize = DefaultDir
	}
	if c.opts.DirSize < MinDir {
		return fmt.Errorf("its folder may take %d bytes, at least %d are needed", c.opts.DirSize, int64(MinDir))
	}
	d := &diskCache{c: c, dir: c.opts.Dir, size: min(c.opts.DirSize, maxDir),
		queue: make(chan diskWrite, 1024), ended: make(chan struct{})}
	err := d.prepare()
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return err
	case err != nil:
		c.counts.diskErrors.Add(1)
		c.opts.Logger.Warn("the cache folder does not work, images are served without it", "dir", d.dir, "error", err)
		return nil
	}
	if c.opts.wrapFile != nil {
		d.file = c.opts.wrapFile(d.file)
	}
	d.index = newDiskIndex(c.mem, d.size, c.opts.Memory/4)
	c.disk = d
	go d.write()
	return nil
}

// refusedError says that a folder is not for the cache.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func (d *diskCache) prepare() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return &refusedError{fmt.Sprintf("%s is no folder", d.dir)}
		}
		return err
	}
	list, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if (e.Name() != diskLock && e.Name() != diskBlocks) || !e.Type().IsRegular() {
			return &refusedError{fmt.Sprintf("the folder %s holds %q, which is not the cache's; name an empty folder or one that does not exist", d.dir, e.Name())}
		}
	}
	if err := os.Chmod(d.dir, 0o700); err != nil {
		return err
	}
	if d.lock, err = os.OpenFile(filepath.Join(d.dir, diskLock), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.lock.Close()
		if d.c.opts.DirFromOther {
			return d.replace()
		}
		return &refusedError{fmt.Sprintf("another process uses the cache folder %s", d.dir)}
	}
	return d.makeBlocks()
}

// replace takes the names in the folder from the process that uses it. It goes on with
// its files, which nobody else sees any more.
func (d *diskCache) replace() (err error) {
	if err := os.Remove(filepath.Join(d.dir, diskLock)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.lock, err = os.OpenFile(filepath.Join(d.dir, diskLock), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.lock.Close()
		return err
	}
	return d.makeBlocks()
}

// makeBlocks makes the file of blocks in the locked folder.
func (d *diskCache) makeBlocks() error {
	path := filepath.Join(d.dir, diskBlocks)
	err := os.Remove(path) // an earlier process's
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		d.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		d.lock.Close()
	}
	return err
}

// close ends the writer and removes the files.
func (d *diskCache) close() error {
	<-d.ended
	for len(d.queue) > 0 { // nobody offers any more: fetches have ended
		if w := <-d.queue; w.b != nil {
			d.c.leave(w.b)
		} else {
			close(w.done)
		}
	}
	defer d.watch("close")()
	err := d.file.Close()
	for _, name := range []string{diskBlocks, diskLock} {
		if !d.ours() {
			break // another process took the folder over
		}
		if rerr := os.Remove(filepath.Join(d.dir, name)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			d.c.counts.diskErrors.Add(1) // what stays is removed by the next process
		}
	}
	return errors.Join(err, d.lock.Close())
}

// ours reports whether the folder's lock is the one that this process holds.
func (d *diskCache) ours() bool {
	held, err := d.lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(filepath.Join(d.dir, diskLock))
	return err == nil && os.SameFile(held, there)
}

// offer hands a block to the writer if that has time for it. The caller holds the lock
// of the block's shard.
func (d *diskCache) offer(b *block) {
	n := int64(len(b.data))
	if d.hangs() {
		return
	}
	if d.bytes.Add(n) > d.c.mem.limit/8 {
		d.bytes.Add(-n)
		return
	}
	b.refs.Add(1)
	select {
	case d.queue <- diskWrite{b: b}:
	default:
		b.refs.Add(-1)
		d.bytes.Add(-n)
	}
}

// write is the writer.
func (d *diskCache) write() {
	defer close(d.ended)
	for {
		select {
		case w := <-d.queue:
			if w.b == nil {
				close(w.done)
				continue
			}
			d.put(w.b)
			d.bytes.Add(-int64(len(w.b.data)))
			d.c.leave(w.b)
		case <-d.c.ctx.Done():
			return
		}
	}
}

// put writes a block in place of the oldest ones.
func (d *diskCache) put(b *block) {
	n := int64(len(b.data))
	room := (n + filePage - 1) / filePage * filePage
	if room > d.size/2 || d.hangs() || time.Now().Before(d.paused) {
		return
	}
	d.mu.Lock()
	if d.index.full() || d.index.find(b.key) != nil {
		d.mu.Unlock()
		return
	}
	if d.head+room > d.size { // around: what lies behind the head goes too
		d.drop(d.head, math.MaxInt64)
		d.head, d.end = 0, d.head
	}
	off := d.head
	d.drop(off, off+room)
	d.head += room
	d.mu.Unlock()
	end := d.watch("write to")
	_, err := d.file.WriteAt(b.data, off)
	end()
	if err != nil {
		d.failed("write to", err)
		if off > 0 && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
			// What lies before is on the disk already: it is gone around in that.
			d.mu.Lock()
			d.size, d.head = off, off
			d.mu.Unlock()
			return
		}
		d.paused = time.Now().Add(diskPause)
		return
	}
	d.c.counts.diskWritten.Add(n)
	sum := crc32.Checksum(b.data, castagnoli)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.add(b.key, off, sum)
}

// drop forgets the oldest blocks while they lie between two offsets of the file.
func (d *diskCache) drop(from, to int64) {
	for e := d.index.oldest(); e != nil && e.off() >= from && e.off() < to; e = d.index.oldest() {
		d.index.drop()
	}
}

// held is how many bytes of the file are in use: from the oldest block to the head.
func (d *diskCache) held() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.index.oldest()
	switch {
	case e == nil:
		return 0
	case e.off() < d.head:
		return d.head - e.off()
	}
	return d.end - e.off() + d.head
}

// leaveTo says how much memory the images take, which the index has to leave to them.
func (d *diskCache) leaveTo(images int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.bound(d.c.mem.limit/4 - images)
}

func (d *diskCache) failed(what string, err error) {
	d.c.counts.diskErrors.Add(1)
	d.c.opts.Logger.Warn("could not "+what+" the cache folder; images are served without it", "dir", d.dir, "error", err)
}

// has tells whether a block may be in the folder.
func (d *diskCache) has(k key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index.find(k) != nil
}

// errDiskSum says that the folder gave back other bytes than were written.
var errDiskSum = errors.New("the bytes are not those that were written")

// get reads a block from the folder; false if it is not there or not what was written.
func (d *diskCache) get(k key, p []byte) bool {
	e, ok := d.find(k)
	if !ok {
		return false
	}
	_, err := d.file.ReadAt(p, e.off())
	if err == nil && crc32.Checksum(p, castagnoli) != e.sum {
		err = errDiskSum
	}
	d.mu.Lock()
	now := d.index.find(k)
	still := now != nil && now.page == e.page && now.sum == e.sum
	if still && err != nil {
		d.index.hide(now)
	}
	d.mu.Unlock()
	if err != nil && still { // else it was being overwritten
		d.failed("read from", err)
	}
	return still && err == nil
}

func (d *diskCache) find(k key) (e diskEntry, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.index.find(k); at != nil {
		return *at, true
	}
	return e, false
}
