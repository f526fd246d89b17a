package blockdev

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hangingFile is the real file of a cache folder, whose reads or writes do not return
// while they are told not to. Such a read brings other bytes in the end.
type hangingFile struct {
	diskFile
	reads, writes atomic.Pointer[chan struct{}] // closed when they may return
	hung          atomic.Int32                  // how many did not return at once
}

func (f *hangingFile) ReadAt(p []byte, off int64) (int, error) {
	if wait := f.reads.Load(); wait != nil {
		f.hung.Add(1)
		<-*wait
		return copy(p, bytes.Repeat([]byte{0xee}, len(p))), nil
	}
	return f.diskFile.ReadAt(p, off)
}

func (f *hangingFile) WriteAt(p []byte, off int64) (int, error) {
	if wait := f.writes.Load(); wait != nil {
		f.hung.Add(1)
		<-*wait
	}
	return f.diskFile.WriteAt(p, off)
}

// hang lets reads or writes hang until release is called.
func hang(t *testing.T, of *atomic.Pointer[chan struct{}]) (release func()) {
	wait := make(chan struct{})
	of.Store(&wait)
	release = sync.OnceFunc(func() {
		of.Store(nil)
		close(wait)
	})
	t.Cleanup(release)
	return release
}

// An hour never passes in a test; soon does at once for what hangs.
const (
	never = time.Hour
	soon  = 10 * time.Millisecond
)

func wrapHanging(file **hangingFile) func(diskFile) diskFile {
	return func(d diskFile) diskFile {
		*file = &hangingFile{diskFile: d}
		return *file
	}
}

// returned waits until all that hung has returned.
func (d *diskCache) returned() {
	for d.hangs() {
		runtime.Gosched()
	}
}

// A cache disk whose reads do not return: the store serves, the disk is left alone until
// they have, and what they bring then gets into no block.
func TestCacheDiskHangsReading(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var file *hangingFile
			c := newCache(t, CacheOptions{Dir: t.TempDir(), hang: never, wrapFile: wrapHanging(&file)})
			d := f.open(t, c, f.image(t, form, disk))
			p := make([]byte, len(disk))
			read := func() {
				t.Helper()
				clear(p)
				if _, err := d.ReadAt(p, 0); err != nil && err != io.EOF || !bytes.Equal(p, disk) {
					t.Fatalf("the read ended with error %v, or with other bytes", err)
				}
			}
			forget := func() {
				c.settled()
				c.disk.flush()
				c.dropMemory()
			}
			read()
			forget()
			c.opts.hang = soon
			release := hang(t, &file.reads)
			read()
			c.settled()
			hung := file.hung.Load()
			if s := c.Stats(); hung == 0 || s.DiskHits > 0 || s.DiskErrors < int64(hung) {
				t.Fatalf("%d reads hang, %d blocks came from the folder, %d errors were counted", hung, s.DiskHits, s.DiskErrors)
			}
			forget()
			read()
			if n := file.hung.Load(); n != hung {
				t.Errorf("a disk that hangs was asked %d times more", n-hung)
			}
			c.settled()
			release()
			c.disk.returned()
			read() // of memory
			c.opts.hang = never
			forget()
			read()
			if c.Stats().DiskHits == 0 {
				t.Error("the folder is not used any more")
			}
			forget()
			c.mem.mu.Lock()
			defer c.mem.mu.Unlock()
			if c.mem.live != 0 || c.mem.granted != c.mem.fixed || c.disk.reads.Load() != 0 {
				t.Errorf("with nothing held %d bytes of buffers are in use and %d granted (%d fixed)", c.mem.live, c.mem.granted, c.mem.fixed)
			}
		})
	}
}

// Reads that hang take no more than an eighth of the memory, however many there are.
func TestHangingReadsAreBounded(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	f := newFixture(t)
	var file *hangingFile
	c := newCache(t, CacheOptions{Memory: MinMemory, Dir: t.TempDir(), hang: never, wrapFile: wrapHanging(&file)})
	d := f.open(t, c, f.image(t, "raw", disk))
	p := make([]byte, 1<<20)
	for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
		if _, err := d.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
		c.settled()
		c.disk.flush()
	}
	c.dropMemory()
	release := hang(t, &file.reads)
	var wg sync.WaitGroup
	var done atomic.Int64
	all, most := int64(len(disk)/rawUnit), int64(MinMemory/8/rawUnit)
	for u := range all { // one fetch each, and nobody is late yet
		wg.Go(func() {
			p := make([]byte, 512)
			if _, err := d.ReadAt(p, u*rawUnit); err != nil || !bytes.Equal(p, disk[u*rawUnit:u*rawUnit+512]) {
				t.Errorf("unit %d: error %v, or other bytes", u, err)
			}
			done.Add(1)
		})
	}
	for done.Load()+int64(file.hung.Load()) < all {
		runtime.Gosched()
	}
	if n := int64(file.hung.Load()); n == 0 || n > most {
		t.Errorf("%d reads hang, %d may", n, most)
	}
	release()
	wg.Wait()
}

// A cache disk whose writes do not return holds up nobody who reads, and no more memory
// than what waits to be written may take.
func TestCacheDiskHangsWriting(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	for _, form := range forms {
		for name, late := range map[string]time.Duration{"late": soon, "not late yet": never} {
			t.Run(form+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				var file *hangingFile
				c := newCache(t, CacheOptions{Memory: MinMemory, Dir: t.TempDir(), hang: late, wrapFile: wrapHanging(&file)})
				d := f.open(t, c, f.image(t, form, disk))
				release := hang(t, &file.writes)
				p := make([]byte, 2<<20)
				for range 2 {
					for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
						if _, err := d.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p, disk[off:off+int64(len(p))]) {
							t.Fatalf("the read at %d ended with error %v, or with other bytes", off, err)
						}
					}
				}
				for file.hung.Load() == 0 {
					runtime.Gosched()
				}
				if n := c.disk.bytes.Load(); file.hung.Load() != 1 || n > MinMemory/8 {
					t.Errorf("%d writes hang, %d bytes wait", file.hung.Load(), n)
				}
				release()
				c.disk.returned()
				c.settled()
				c.disk.flush()
			})
		}
	}
}

// A cache whose folder hangs is closed all the same, and tidies up when it can.
func TestCloseWhileCacheDiskHangs(t *testing.T) {
	t.Parallel()
	disk := benchDisk(2 << 20)
	for name, of := range map[string]func(*hangingFile) *atomic.Pointer[chan struct{}]{
		"reading": func(f *hangingFile) *atomic.Pointer[chan struct{}] { return &f.reads },
		"writing": func(f *hangingFile) *atomic.Pointer[chan struct{}] { return &f.writes },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var file *hangingFile
			dir := t.TempDir()
			c, err := NewCache(CacheOptions{Dir: dir, hang: never, wrapFile: wrapHanging(&file)})
			if err != nil {
				t.Fatal(err)
			}
			d := f.open(t, c, f.image(t, "raw", disk))
			p := make([]byte, 4096)
			read := func(off int64) {
				t.Helper()
				if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
					t.Fatalf("the read ended with error %v, or with other bytes", err)
				}
			}
			read(0)
			c.settled()
			c.disk.flush()
			c.dropMemory()
			c.opts.hang = soon
			release := hang(t, of(file))
			read(0)
			read(1 << 20)
			if err := c.Close(); !errors.Is(err, errDiskHangs) {
				t.Errorf("the cache was closed with error %v", err)
			}
			release()
			for {
				if _, err := os.Stat(filepath.Join(dir, diskLock)); errors.Is(err, fs.ErrNotExist) {
					break
				}
				runtime.Gosched()
			}
		})
	}
}
