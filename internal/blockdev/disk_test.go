package blockdev

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// faultyFile is the real file of a cache folder, whose reads and writes go wrong while
// they are told to.
type faultyFile struct {
	diskFile
	failRead, failWrite, shortRead atomic.Bool
	room                           atomic.Int64 // if not 0: the disk is full behind it
	hits                           atomic.Int32
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if f.failRead.Load() {
		f.hits.Add(1)
		return 0, syscall.EIO
	}
	if f.shortRead.Load() {
		f.hits.Add(1)
		n, _ := f.diskFile.ReadAt(p[:len(p)/2], off)
		return n, io.EOF
	}
	return f.diskFile.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if f.failWrite.Load() {
		f.hits.Add(1)
		n, _ := f.diskFile.WriteAt(p[:len(p)/2], off) // as a disk that fills up
		return n, syscall.ENOSPC
	}
	if room := f.room.Load(); room > 0 && off+int64(len(p)) > room {
		f.hits.Add(1)
		return 0, syscall.ENOSPC
	}
	return f.diskFile.WriteAt(p, off)
}

// A cache disk that is full, fails, was cut short or overwritten makes reads slower,
// never wrong, and fails none.
func TestBrokenCacheDisk(t *testing.T) {
	t.Parallel()
	disk := benchDisk(8 << 20)
	overwrite := func(dir string, from int64) {
		file, err := os.OpenFile(filepath.Join(dir, diskBlocks), os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		fi, err := file.Stat()
		if err == nil {
			_, err = io.CopyN(io.NewOffsetWriter(file, from), zeros{}, fi.Size()-from)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for name, tc := range map[string]struct {
		before, after func(dir string, f *faultyFile)
		errors        bool
	}{
		"sound":           {},
		"full":            {before: func(_ string, f *faultyFile) { f.failWrite.Store(true) }, errors: true},
		"reads fail":      {after: func(_ string, f *faultyFile) { f.failRead.Store(true) }, errors: true},
		"reads short":     {after: func(_ string, f *faultyFile) { f.shortRead.Store(true) }, errors: true},
		"overwritten":     {after: func(dir string, _ *faultyFile) { overwrite(dir, 0) }, errors: true},
		"partly":          {after: func(dir string, _ *faultyFile) { overwrite(dir, 3<<20+5) }, errors: true},
		"cut":             {after: func(dir string, _ *faultyFile) { os.Truncate(filepath.Join(dir, diskBlocks), 1<<20+7) }, errors: true},
		"vanished":        {after: func(dir string, _ *faultyFile) { os.RemoveAll(dir) }},
		"vanished before": {before: func(dir string, _ *faultyFile) { os.RemoveAll(dir) }},
	} {
		for _, form := range forms {
			t.Run(name+"/"+form, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				var file *faultyFile
				dir := filepath.Join(t.TempDir(), "cache")
				c := newCache(t, CacheOptions{Dir: dir, wrapFile: func(d diskFile) diskFile {
					file = &faultyFile{diskFile: d}
					return file
				}})
				d := f.open(t, c, f.image(t, form, disk))
				if tc.before != nil {
					tc.before(dir, file)
				}
				read := func() {
					t.Helper()
					p := make([]byte, len(disk))
					if _, err := d.ReadAt(p, 0); err != nil && err != io.EOF || !bytes.Equal(p, disk) {
						t.Fatalf("the read ended with error %v, or with other bytes", err)
					}
				}
				read()
				c.disk.flush()
				c.dropMemory()
				if tc.after != nil {
					tc.after(dir, file)
				}
				read()
				s := c.Stats()
				if (s.DiskErrors > 0) != tc.errors {
					t.Errorf("%d errors of the cache folder were counted", s.DiskErrors)
				}
				if !tc.errors && s.DiskHits == 0 {
					t.Error("nothing was read from the cache folder")
				}
				if (file.failRead.Load() || file.failWrite.Load() || file.shortRead.Load()) && file.hits.Load() == 0 {
					t.Error("the planned fault was not hit")
				}
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// The folder holds no more than it may, and what it holds is what was read last.
func TestDiskGoesAround(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	f := newFixture(t)
	dir := t.TempDir()
	c := newCache(t, CacheOptions{Dir: dir, DirSize: MinDir})
	var devices []*Device
	for _, form := range forms {
		devices = append(devices, f.open(t, c, f.image(t, form, disk)))
	}
	p := make([]byte, 2<<20)
	for range 3 {
		for _, d := range devices {
			for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
				if _, err := d.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p, disk[off:off+int64(len(p))]) {
					t.Fatalf("the read ended with error %v, or with other bytes", err)
				}
				c.disk.flush()
				c.dropMemory()
			}
		}
	}
	s := c.Stats()
	fi, err := os.Stat(filepath.Join(dir, diskBlocks))
	if err != nil {
		t.Fatal(err)
	}
	if s.DiskErrors > 0 || fi.Size() > MinDir || s.Disk > MinDir || s.Disk < MinDir/2 || s.DiskWrites < 2*MinDir-MinDir/2 {
		t.Errorf("the folder holds %d bytes in a file of %d, %d were written, %d errors", s.Disk, fi.Size(), s.DiskWrites, s.DiskErrors)
	}
}

// On a disk that fills up the cache goes around in the room that there is.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	const room = 9 << 20
	f := newFixture(t)
	var file *faultyFile
	c := newCache(t, CacheOptions{Dir: t.TempDir(), wrapFile: func(d diskFile) diskFile {
		file = &faultyFile{diskFile: d}
		file.room.Store(room)
		return file
	}})
	d := f.open(t, c, f.image(t, "raw with bitmap", disk))
	p := make([]byte, 2<<20)
	for range 2 {
		for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
			if _, err := d.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p, disk[off:off+int64(len(p))]) {
				t.Fatalf("the read ended with error %v, or with other bytes", err)
			}
			c.disk.flush()
		}
		c.dropMemory()
	}
	if s := c.Stats(); file.hits.Load() != 1 || s.Disk > room || s.Disk < room/2 {
		t.Errorf("the disk was full %d times; %d bytes lie in room for %d", file.hits.Load(), s.Disk, room)
	}
	last := int64(len(disk)) - 2<<20
	if _, err := d.ReadAt(p, last); err != nil && err != io.EOF || !bytes.Equal(p, disk[last:]) || c.Stats().DiskHits == 0 {
		t.Errorf("what was written last was read with error %v; %d hits", err, c.Stats().DiskHits)
	}
}

// Whose folder it is: the cache makes one that nobody else can read, takes over what an
// earlier process left, and leaves everything else alone.
func TestCacheFolder(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "a", "cache")
	open := func(dir string) (*Cache, error) { return NewCache(CacheOptions{Dir: dir}) }
	c, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v (%v)", fi.Mode(), err)
	}
	if other, err := open(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two caches took one folder (%v)", err)
		if err == nil {
			other.Close()
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a closed cache left %v (%v)", left, err)
	}
	// As after a kill.
	old := filepath.Join(dir, diskBlocks)
	if err := os.WriteFile(old, bytes.Repeat([]byte("old"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = open(dir); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(old); err != nil || fi.Size() != 0 {
		t.Errorf("what an earlier process left is still there (%v)", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"foreign file":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600) },
		"foreign folder": func(dir string) error { return os.Mkdir(filepath.Join(dir, diskBlocks), 0o755) },
		"link":           func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, diskBlocks)) },
		"no folder": func(dir string) error {
			if err := os.Remove(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		},
	} {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if c, err := open(dir); err == nil {
			t.Errorf("%s: the folder was taken", name)
			c.Close()
		}
		if fi, err := os.Stat(dir); name != "no folder" && (err != nil || fi.Mode().Perm() != 0o755) {
			t.Errorf("%s: the folder was changed (%v)", name, err)
		}
	}
	for _, opts := range []CacheOptions{{Memory: MinMemory - 1}, {Dir: top, DirSize: MinDir - 1}} {
		if c, err := NewCache(opts); err == nil {
			t.Errorf("%+v was taken", opts)
			c.Close()
		}
	}
}
