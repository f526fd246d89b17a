package objectcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// truth is what object n has at a place: made up, and other for each object.
func truth(n Name, off, length int64) []byte {
	seed, _ := strconv.ParseUint(n.Generation[:16], 16, 64)
	p := make([]byte, 0, length+16)
	for at := off / 8; at*8 < off+length; at++ {
		word := (uint64(at) + seed) * 0x9e3779b97f4a7c15
		p = binary.LittleEndian.AppendUint64(p, word^word>>29)
	}
	return p[off%8:][:length]
}

func named(i int, size int64) Name {
	return Name{Generation: fmt.Sprintf("%016x%016x", uint64(i)*0xdeadbeefcafef00d, i), Role: "disk", Size: size}
}

func open(t testing.TB, opts Options) *Cache {
	t.Helper()
	if opts.Queue == 0 {
		opts.Queue = 64 << 20
	}
	if opts.patience == 0 { // the machine that tests is busy
		opts.patience, opts.hang = time.Minute, time.Minute
	}
	c, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// settle waits until all is written that was offered.
func settle(c *Cache) {
	for c.queued.Load() > 0 {
		runtime.Gosched()
	}
}

func offer(c *Cache, n Name, off, length int64) { c.Offer(n, off, truth(n, off, length)) }

// has reads and checks; it says whether the bytes were there.
func has(t testing.TB, c *Cache, n Name, off, length int64) bool {
	t.Helper()
	p := make([]byte, length)
	if !c.ReadAt(n, p, off) {
		return false
	}
	if !bytes.Equal(p, truth(n, off, length)) {
		t.Fatalf("%d bytes at %d of %s are not the object's", length, off, n.Generation)
	}
	return true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasOfferedIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, Options{Dir: dir})
	n := named(1, 20<<20+100)
	for _, r := range []struct{ off, n int64 }{{0, 8192}, {10000, 30000}, {4<<20 - 8192, 20000}, {10 << 20, 9 << 20}, {n.Size - 5000, 5000}} {
		offer(c, n, r.off, r.n)
	}
	settle(c)
	for _, r := range []struct {
		off, n int64
		want   bool
	}{
		{0, 8192, true}, {1, 8190, true}, {0, 8193, false}, {8192, 4096, false}, // not whole: 10000
		{12288, 24576, true}, {12288, 28000, false}, {4<<20 - 8192, 16384, true}, {4<<20 - 1, 2, true},
		{10 << 20, 9 << 20, true}, {10<<20 + 12345, 8 << 20, true}, {n.Size - 100, 100, true}, {n.Size - 4000, 4000, true}, {n.Size - 1, 1, true},
		{n.Size - 1, 2, false}, {n.Size, 1, false}, {-1, 1, false}, {9 << 20, 1, false},
	} {
		if got := has(t, c, n, r.off, r.n); got != r.want {
			t.Errorf("%d bytes at %d: there: %v", r.n, r.off, got)
		}
	}
	// In parts, as a reader has them that reads whole pages around what it wants.
	m := named(2, 1<<20)
	c.Offer(m, 4096, truth(m, 4096, 100), truth(m, 4196, 8000), truth(m, 12196, 92))
	settle(c)
	if !has(t, c, m, 4096, 8192) || has(t, c, m, 0, 1) {
		t.Error("what was offered in parts is not there as it should be")
	}
	c.Drop(n, 5000, 1)
	settle(c)
	if has(t, c, n, 4096, 1) || !has(t, c, n, 0, 4096) {
		t.Error("one page alone should have been dropped")
	}
	// The same bytes under another name are others.
	for _, other := range []Name{named(9, n.Size), {n.Generation, "mf", n.Size}, {n.Generation, "disk", n.Size + 1}, {"", "disk", n.Size}, {"../../../../../../../../../etc/pass", "disk", 10}, {n.Generation, "../a", 10}} {
		if c.ReadAt(other, make([]byte, 10), 0) {
			t.Errorf("%v has bytes", other)
		}
	}
	if s := c.Stats(); s.Errors != 0 || s.Bad != 0 || s.Off || s.Used < 9<<20 || s.Objects < 2 {
		t.Errorf("%+v", s)
	}
}

// What was written is there after a restart, at once, and after one that was no clean end.
func TestSurvivesRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := named(3, 64<<20)
	for i := range 4 {
		c := open(t, Options{Dir: dir})
		for j := range i {
			if !has(t, c, n, int64(j)*5<<20, 4<<20) {
				t.Fatalf("after %d restarts the piece of the %d. is gone", i, j)
			}
		}
		if i > 0 && (len(c.Generations()) != 1 || c.Generations()[0] != n.Generation || c.Stats().Used < int64(i)*4<<20) {
			t.Errorf("%v, %+v", c.Generations(), c.Stats())
		}
		offer(c, n, int64(i)*5<<20, 4<<20)
		must(t, c.Close()) // writes what waits
		if c.ReadAt(n, make([]byte, 10), 0) {
			t.Error("a closed cache was read from")
		}
		offer(c, n, 0, 4096)
	}
	c := open(t, Options{Dir: dir})
	c.Remove(n.Generation)
	settle(c)
	if has(t, c, n, 0, 1) || c.Stats().Used != 0 || c.Stats().Objects != 0 {
		t.Errorf("after the removal: %+v", c.Stats())
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*-disk*")); len(files) > 0 {
		t.Errorf("after the removal there are %v", files)
	}
	offer(c, n, 0, 4096) // the next read of it, if it is still read
	settle(c)
	if !has(t, c, n, 0, 4096) {
		t.Error("after a removal nothing is cached any more")
	}
}

func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, Options{Dir: dir})
	n := named(1, 1<<20)
	offer(c, n, 0, 1<<20)
	settle(c)
	var refused *RefusedError
	if _, err := Open(Options{Dir: dir}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("a second one: %v", err)
	}
	next := open(t, Options{Dir: dir, WaitForOther: true})
	if has(t, next, n, 0, 10) || !next.Stats().Off {
		t.Error("two use the folder")
	}
	must(t, c.Close())
	for next.disk.Load() == nil {
		runtime.Gosched()
	}
	if !has(t, next, n, 0, 1<<20) {
		t.Error("what the first one left is not there")
	}
	// One that never gets it ends all the same.
	third := open(t, Options{Dir: dir, WaitForOther: true})
	must(t, third.Close())
}

func TestFoldersThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o600))
	for what, opts := range map[string]Options{
		"others' files": {Dir: dir}, "a file": {Dir: filepath.Join(dir, "thesis.txt")}, "too small": {Dir: t.TempDir(), Size: MinSize - 1},
	} {
		var refused *RefusedError
		if c, err := Open(opts); !errors.As(err, &refused) {
			t.Errorf("%s: %v, %v", what, c, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "thesis.txt")); string(b) != "mine" {
		t.Error(err)
	}
	// One of a release before, on a file system of its own.
	old := t.TempDir()
	must(t, os.Mkdir(filepath.Join(old, "lost+found"), 0o700))
	must(t, os.WriteFile(filepath.Join(old, lockName), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(old, "quickims-cache.blocks"), make([]byte, 1<<20), 0o600))
	must(t, open(t, Options{Dir: old}).Close())
	if _, err := os.Stat(filepath.Join(old, "quickims-cache.blocks")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the blocks of a release before: %v", err)
	}
	// A folder cannot be made here: images are read without.
	c := open(t, Options{Dir: "/proc/nothing"})
	if has(t, c, named(1, 4096), 0, 1) || c.Stats().Errors != 1 || !c.Stats().Off {
		t.Errorf("%+v", c.Stats())
	}
}

// Whatever happens to the files between two runs, what is read is right.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		dir := filepath.Join(base, strconv.Itoa(round))
		defer os.RemoveAll(dir)
		c := open(t, Options{Dir: dir})
		names := []Name{named(1, 5<<20+77), named(2, 5<<20+77), named(3, 300)}
		for _, n := range names {
			offer(c, n, 0, min(n.Size, 9<<19))
		}
		must(t, c.Close())
		files, err := filepath.Glob(filepath.Join(dir, "*-disk*"))
		must(t, err)
		for range rapid.IntRange(1, 4).Draw(rt, "faults") {
			name := rapid.SampledFrom(files).Draw(rt, "file")
			info, err := os.Lstat(name)
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			must(t, err)
			at := rapid.Int64Range(0, max(info.Size()-1, 0)).Draw(rt, "at")
			switch rapid.IntRange(0, 8).Draw(rt, "fault") {
			case 0:
				must(t, f.Truncate(at))
			case 1:
				must(t, f.Truncate(info.Size()+at))
			case 2:
				var b [1]byte
				_, _ = f.ReadAt(b[:], at)
				b[0] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
				_, err = f.WriteAt(b[:], at)
				must(t, err)
			case 3:
				_, err = f.WriteAt(make([]byte, 8192), at)
				must(t, err)
			case 4:
				noise := make([]byte, 8192)
				for i := range noise {
					noise[i] = byte(rand.Uint32())
				}
				_, err = f.WriteAt(noise, at)
				must(t, err)
			case 5:
				must(t, os.Remove(name))
			case 6:
				other := rapid.SampledFrom(files).Draw(rt, "other")
				if _, err := os.Lstat(other); err == nil && other != name {
					must(t, os.Rename(name, name+".x"))
					must(t, os.Rename(other, name))
					must(t, os.Rename(name+".x", other))
				}
			case 7:
				must(t, os.Remove(name))
				must(t, os.Mkdir(name, 0o700))
			case 8:
				must(t, os.Remove(name))
				must(t, os.Symlink("/etc/passwd", name))
			}
			must(t, f.Close())
		}
		c = open(t, Options{Dir: dir})
		for range 2 {
			for _, n := range names {
				for off := int64(0); off < n.Size; off += 100_000 {
					has(t, c, n, off, min(50_000, n.Size-off))
				}
			}
			for _, n := range names { // it heals
				offer(c, n, 0, min(n.Size, 9<<19))
			}
			settle(c)
		}
		must(t, c.Close())
	})
}

// faulty is a disk that a test makes fail, hang or forget.
type faulty struct {
	disk
	call func(what string) error // before each call; nil passes
}

type faultyFile struct {
	file
	call func(what string) error
}

func withFaults(call func(what string) error) func(string) (disk, error) {
	return func(dir string) (disk, error) {
		if err := call("lock"); err != nil {
			return nil, err
		}
		d, err := openFolder(dir)
		if err != nil {
			return nil, err
		}
		return &faulty{d, call}, nil
	}
}

func (d *faulty) List() ([]fileInfo, error) {
	if err := d.call("list"); err != nil {
		return nil, err
	}
	return d.disk.List()
}

func (d *faulty) Open(name string, create bool) (file, error) {
	if err := d.call("open"); err != nil {
		return nil, err
	}
	f, err := d.disk.Open(name, create)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, d.call}, nil
}

func (d *faulty) Remove(name string) error {
	if err := d.call("remove"); err != nil {
		return err
	}
	return d.disk.Remove(name)
}

func (d *faulty) Free() (free, total int64, err error) {
	if err := d.call("free"); err != nil {
		return 0, 0, err
	}
	return d.disk.Free()
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.call("read"); err != nil {
		return 0, err
	}
	return f.file.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.call("write"); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], off) // as a full disk does
		return n, err
	}
	n, err := f.file.WriteAt(p, off)
	if err == nil {
		err = f.call("written")
	}
	return n, err
}

func (f *faultyFile) Allocated() (int64, error) {
	if err := f.call("stat"); err != nil {
		return 0, err
	}
	return f.file.Allocated()
}

func (f *faultyFile) NextData(off int64) (int64, error) {
	if err := f.call("seek"); err != nil {
		return 0, err
	}
	return f.file.NextData(off)
}

func (f *faultyFile) Punch(off, n int64) error {
	if err := f.call("punch"); err != nil {
		return err
	}
	return f.file.Punch(off, n)
}

func (f *faultyFile) Truncate() error {
	if err := f.call("truncate"); err != nil {
		return err
	}
	return f.file.Truncate()
}

var calls = []string{"lock", "list", "open", "remove", "free", "read", "write", "written", "stat", "seek", "punch", "truncate"}

// An error of any call, at any time, is no error of a read, and the bytes are right.
func TestEveryCallFails(t *testing.T) {
	t.Parallel()
	for _, what := range calls {
		for _, cause := range []error{unix.EIO, unix.ENOSPC, unix.ENOENT, unix.EBADF} {
			t.Run(fmt.Sprintf("%s/%v", what, cause), func(t *testing.T) {
				t.Parallel()
				for nth := int64(1); nth <= 16; nth *= 4 {
					var seen atomic.Int64
					c := open(t, Options{Dir: t.TempDir(), Size: 16 << 20, disk: withFaults(func(call string) error {
						if call == what && seen.Add(1) >= nth {
							return cause
						}
						return nil
					})})
					for i := range 10 {
						n := named(i%5, 8<<20)
						offer(c, n, 0, 5<<20)
						settle(c)
						for off := int64(0); off < 5<<20; off += 1 << 20 {
							has(t, c, n, off, 70_000)
						}
						if i == 6 {
							c.Remove(n.Generation)
						}
					}
					if s := c.Stats(); seen.Load() >= nth && s.Errors == 0 && cause != unix.ENOENT {
						t.Errorf("from call %d on: no error was counted: %+v", nth, s)
					}
					must(t, c.Close())
				}
			})
		}
	}
}

// A disk that does not answer costs each worker one wait; then the folder is off until it
// answers. Neither start nor end waits for it.
func TestEveryCallHangs(t *testing.T) {
	t.Parallel()
	for _, what := range calls {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			before := open(t, Options{Dir: dir, Size: MinSize})
			for i := range 8 {
				offer(before, named(i, 8<<20), 0, 8<<20)
			}
			must(t, before.Close())
			release, hung := make(chan struct{}), new(atomic.Int64)
			c := open(t, Options{Dir: dir, Size: MinSize, patience: 5 * time.Millisecond, hang: 20 * time.Millisecond,
				disk: withFaults(func(call string) error {
					if call == what {
						hung.Add(1)
						<-release
					}
					return nil
				})})
			offer(c, named(9, 16<<20), 0, 8<<20)
			for i := 0; i < 200 || what == "read" && !c.Stats().Off; i++ {
				has(t, c, named(i%8, 8<<20), int64(i%1000)*4096, 4096)
				if what == "read" && c.Stats().Off {
					break
				}
			}
			if n := hung.Load(); n > workers {
				t.Errorf("%d calls of a disk that does not answer, there are %d workers", n, workers)
			}
			_ = c.Close() // is not waited for
			close(release)
			c.ended.Wait()
		})
	}
}

// With a disk that answers again the folder is used again.
func TestComesBack(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	var mu sync.RWMutex
	c := open(t, Options{Dir: t.TempDir(), patience: 5 * time.Millisecond, disk: withFaults(func(call string) error {
		if call == "read" && hangs.Load() {
			mu.RLock()
			defer mu.RUnlock()
		}
		return nil
	})})
	n := named(1, 1<<20)
	offer(c, n, 0, 1<<20)
	settle(c)
	mu.Lock()
	hangs.Store(true)
	for !c.Stats().Off {
		if has(t, c, n, 0, 4096) {
			t.Fatal("a disk that hangs was read from")
		}
	}
	hangs.Store(false)
	mu.Unlock()
	for c.Stats().Off {
		runtime.Gosched()
	}
	for !has(t, c, n, 0, 1<<20) { // on a busy machine a read may take longer than this test allows
		runtime.Gosched()
	}
}

// What is on the disk stays within the bound, what is read often stays longer than what is
// not, and readers beside see right bytes.
func TestEviction(t *testing.T) {
	t.Parallel()
	c := open(t, Options{Dir: t.TempDir(), Size: MinSize})
	hot := named(1000, 8<<20)
	offer(c, hot, 0, 4<<20)
	settle(c)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for {
				select {
				case <-stop:
					return
				default:
					has(t, c, named(r.IntN(2), 32<<20), r.Int64N(31<<20), 1+r.Int64N(1<<20))
				}
			}
		})
	}
	kept := 0
	for i := range 60 {
		offer(c, named(i%10, 32<<20), int64(i/10)*5<<20, 5<<20)
		settle(c)
		if has(t, c, hot, int64(i)*4096, 4096) {
			kept++
		} else { // whoever reads it reads it from the store, and offers that
			offer(c, hot, 0, 4<<20)
			settle(c)
		}
		if used := c.Stats().Used; used > MinSize {
			t.Fatalf("%d bytes are used, the bound is %d", used, int64(MinSize))
		}
	}
	close(stop)
	wg.Wait()
	if s := c.Stats(); kept < 40 || s.Evicted < 200<<20 || s.Errors != 0 || s.Bad != 0 {
		t.Errorf("kept %d times of 60: %+v", kept, s)
	}
	// The disk agrees with what is counted.
	var taken int64
	must(t, filepath.WalkDir(c.opts.Dir, func(path string, e fs.DirEntry, err error) error {
		if info, ierr := e.Info(); ierr == nil && strings.Contains(path, "-disk") {
			taken += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	}))
	if used := c.Stats().Used; taken != used {
		t.Errorf("the files take %d bytes, %d are counted", taken, used)
	}
}

// Without holes in files objects are evicted as a whole.
func TestEvictionWithoutHoles(t *testing.T) {
	t.Parallel()
	c := open(t, Options{Dir: t.TempDir(), Size: MinSize, disk: withFaults(func(call string) error {
		if call == "punch" {
			return errors.ErrUnsupported
		}
		return nil
	})})
	for i := range 20 {
		offer(c, named(i, 16<<20), 0, 10<<20)
		settle(c)
		if used := c.Stats().Used; used > MinSize {
			t.Fatalf("%d bytes are used", used)
		}
	}
	if !has(t, c, named(19, 16<<20), 0, 10<<20) || c.Stats().Errors > 0 {
		t.Errorf("%+v", c.Stats())
	}
}

// A full disk makes the folder as large as it is; it is read and written on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	c := open(t, Options{Dir: t.TempDir(), disk: withFaults(func(call string) error {
		if call == "write" && full.CompareAndSwap(true, false) {
			return unix.ENOSPC
		}
		return nil
	})})
	n := named(1, 256<<20)
	offer(c, n, 0, 32<<20)
	settle(c)
	full.Store(true)
	offer(c, n, 40<<20, 4<<20)
	settle(c)
	was := c.limit.Load()
	for off := int64(64 << 20); off < 128<<20; off += 4 << 20 {
		offer(c, n, off, 4<<20)
		settle(c)
	}
	if s := c.Stats(); was > 35<<20 || s.Used > was || s.Off || s.Errors != 1 {
		t.Errorf("bound %d, %+v", was, s)
	}
	if !has(t, c, n, 124<<20, 4<<20) {
		t.Error("what was written last is not there")
	}
	c.full.Store(1) // an hour later
	offer(c, n, 128<<20, 4096)
	settle(c)
	if c.limit.Load() != DefaultSize {
		t.Errorf("the bound is %d", c.limit.Load())
	}
}

// The folder is removed while it is used: nothing else breaks.
func TestFolderRemovedBelow(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	c := open(t, Options{Dir: dir})
	n := named(1, 1<<20)
	offer(c, n, 0, 4096)
	settle(c)
	must(t, os.RemoveAll(dir))
	has(t, c, n, 0, 4096)
	offer(c, n, 4096, 4096)
	offer(c, named(2, 1<<20), 0, 4096)
	settle(c)
	has(t, c, n, 0, 8192)
	has(t, c, named(2, 1<<20), 0, 4096)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made anew: %v", err)
	}
}

// Files from the past and from the future, and more objects than there may be: the oldest
// go, by their order alone.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, Options{Dir: dir})
	const more = 20
	for i := range maxObjects + more {
		offer(c, named(i, 8192), 0, 8192)
		if i%512 == 0 {
			settle(c)
		}
	}
	settle(c)
	if s := c.Stats(); s.Objects > maxObjects+writers || s.Errors > 0 {
		t.Errorf("%+v", s)
	}
	if n := len(c.open); n > maxOpen+workers {
		t.Errorf("the files of %d objects are open", n)
	}
	if has(t, c, named(0, 8192), 0, 1) || !has(t, c, named(maxObjects+more-1, 8192), 0, 8192) {
		t.Error("the oldest should have gone")
	}
	for _, i := range []int{100, 200, 300} {
		if !has(t, c, named(i, 8192), 0, 8192) {
			t.Errorf("object %d is gone", i)
		}
	}
	for i := range 10 {
		c.Remove(named(1000+i, 1).Generation)
	}
	must(t, c.Close())
	for i, when := range map[int]time.Time{100: time.Unix(0, 0), 200: time.Now().AddDate(300, 0, 0), 300: time.Unix(-1e9, 0)} {
		must(t, os.Chtimes(filepath.Join(dir, name{named(i, 1).Generation, "disk"}.file(mapEnding)), when, when))
	}
	c = open(t, Options{Dir: dir})
	for _, i := range []int{100, 200, 300, maxObjects} { // the clock counts for nothing while there is room
		if !has(t, c, named(i, 8192), 0, 8192) {
			t.Errorf("object %d is gone", i)
		}
	}
}

// volatileDisk is a disk in memory that a crash of the machine makes forget: of what was
// written since, any sectors may be there, whatever their order was.
type volatileDisk struct {
	mu    sync.Mutex
	files map[string]*volatileFile
}

type volatileFile struct {
	d       *volatileDisk
	now     []byte // as programs see it
	durable []byte
	dirty   map[int64]bool // sectors that are not durable
}

const sector = 512

func (d *volatileDisk) List() (all []fileInfo, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		all = append(all, fileInfo{name: name, allocated: int64(len(f.now))})
	}
	return all, nil
}

func (d *volatileDisk) Open(name string, create bool) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil && !create {
		return nil, fs.ErrNotExist
	}
	if f == nil {
		f = &volatileFile{d: d, dirty: map[int64]bool{}}
		d.files[name] = f
	}
	return f, nil
}

func (d *volatileDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return nil
}

func (d *volatileDisk) Free() (free, total int64, err error) { return 1 << 40, 1 << 40, nil }
func (d *volatileDisk) Close() error                         { return nil }

// crash loses a random part of what is not durable.
func (d *volatileDisk) crash(r *rand.Rand) {
	for _, f := range d.files {
		for s := range f.dirty {
			if r.IntN(2) == 0 {
				need := min((s+1)*sector, int64(len(f.now)))
				for int64(len(f.durable)) < need {
					f.durable = append(f.durable, 0)
				}
				copy(f.durable[s*sector:need], f.now[s*sector:need])
			}
		}
		f.now, f.dirty = bytes.Clone(f.durable), map[int64]bool{}
	}
}

func (f *volatileFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return bytes.NewReader(f.now).ReadAt(p, off)
}

func (f *volatileFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(f.now)) {
		f.now = append(f.now, make([]byte, end-int64(len(f.now)))...)
	}
	copy(f.now[off:], p)
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		f.dirty[s] = true
	}
	return len(p), nil
}

func (f *volatileFile) Punch(off, n int64) error {
	f.d.mu.Lock()
	end := min(off+n, int64(len(f.now)))
	f.d.mu.Unlock()
	if off < end {
		_, err := f.WriteAt(make([]byte, end-off), off)
		return err
	}
	return nil
}

func (f *volatileFile) Truncate() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.now = nil // a crash may bring back what was there
	return nil
}

func (f *volatileFile) Allocated() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.now)), nil
}

func (f *volatileFile) NextData(off int64) (int64, error) { return off, nil }
func (f *volatileFile) Touch()                            {}
func (f *volatileFile) Close() error                      { return nil }

// A disk that loses and reorders what was written, and a crash at any time: what is read
// after it is right.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		d := &volatileDisk{files: map[string]*volatileFile{}}
		names := []Name{named(1, 200_000), named(2, 5<<20), {named(1, 1).Generation, "mf", 70_000}}
		for range rapid.IntRange(1, 4).Draw(rt, "crashes") {
			c := open(t, Options{Dir: "none", disk: func(string) (disk, error) { return d, nil }})
			for range 30 {
				n := names[r.IntN(len(names))]
				off := r.Int64N(n.Size)
				length := min(1+r.Int64N(40_000), n.Size-off)
				switch r.IntN(10) {
				case 0:
					c.Drop(n, off, length)
				case 1:
					c.Remove(n.Generation)
				case 2, 3, 4:
					has(t, c, n, off, length)
				default:
					offer(c, n, off, length)
				}
			}
			must(t, c.Close())
			d.crash(r)
		}
		c := open(t, Options{Dir: "none", disk: func(string) (disk, error) { return d, nil }})
		for _, n := range names {
			for off := int64(0); off < n.Size; off += PageSize {
				has(t, c, n, off, min(PageSize, n.Size-off))
			}
		}
		must(t, c.Close())
	})
}

// childVar names the folder to the process that TestKilled kills, killVar the write after
// which it dies.
const (
	childVar = "QUICKIMS_OBJECTCACHE_CHILD"
	killVar  = "QUICKIMS_OBJECTCACHE_KILL"
)

// child uses a folder until the write comes that kills it.
func child(dir string) {
	at, _ := strconv.ParseInt(os.Getenv(killVar), 10, 64)
	var writes atomic.Int64
	c, err := Open(Options{Dir: dir, Size: MinSize, Queue: 1 << 30, Logger: slog.Default(), disk: withFaults(func(call string) error {
		switch call {
		case "write", "written", "punch", "truncate", "remove":
			if writes.Add(1) == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return nil
	})})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r := rand.New(rand.NewPCG(uint64(at), 7))
	for i := 0; ; i++ {
		n := named(r.IntN(6), 24<<20+999)
		off := r.Int64N(n.Size)
		length := min(n.Size-off, 1+r.Int64N(3<<20))
		p := make([]byte, length)
		if c.ReadAt(n, p, off) && !bytes.Equal(p, truth(n, off, length)) {
			fmt.Println("other bytes in the child")
			os.Exit(1)
		}
		offer(c, n, off, length)
		if r.IntN(20) == 0 {
			c.Remove(n.Generation)
		}
		settle(c)
	}
}

// Killed at a write, and before and behind it, again and again in one folder: what the next
// process reads is right, and the folder stays within its bound.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 40
	if os.Getenv("QUICKIMS_TEST_LONG") != "" {
		rounds = 200
	}
	dir := t.TempDir()
	found := 0
	for i := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"="+dir, killVar+"="+strconv.Itoa(1+i*i%97))
		out, err := cmd.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: %v\n%s", i, err, out)
		}
		c := open(t, Options{Dir: dir, Size: MinSize})
		for j := range 6 {
			n := named(j, 24<<20+999)
			for off := int64(0); off < n.Size; off += 256 << 10 {
				if has(t, c, n, off, min(PageSize, n.Size-off)) {
					found++
				}
			}
		}
		if s := c.Stats(); s.Errors > 0 || s.Bad > int64(2*writers*regionSize/PageSize) || s.Used > MinSize+int64(writers)*(3<<20) {
			t.Errorf("round %d: %+v", i, s)
		}
		must(t, c.Close())
	}
	if found == 0 {
		t.Error("nothing survived any kill")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	n := name{strings.Repeat("0a", 16), "disk"}
	for file, want := range map[string]bool{
		n.file(dataEnding): true, n.file(mapEnding): true, n.file(".map2"): false, lockName: false, "x-disk.map": false, n.generation + ".map": false,
		strings.ToUpper(n.generation) + "-disk.map": false, n.generation + "-Disk.map": false, n.generation + "-.data": false, n.generation + "-a-b.data": false,
		n.generation + "-verylongrole.data": false, "../" + n.generation[3:] + "-disk.data": false,
	} {
		if got, _, ok := parseName(file); ok != want || ok && got != n {
			t.Errorf("%s: %v, %v", file, got, ok)
		}
	}
}

// The map's bytes, as the package comment has them.
func TestMapOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, Options{Dir: dir})
	n := named(77, 3*PageSize+5)
	offer(c, n, PageSize, 2*PageSize+5)
	must(t, c.Close())
	b, err := os.ReadFile(filepath.Join(dir, n.Generation+"-disk.map"))
	must(t, err)
	if len(b) != PageSize+4*4 || string(b[:8]) != headerMagic || binary.LittleEndian.Uint64(b[16:]) != uint64(n.Size) || binary.LittleEndian.Uint32(b[PageSize:]) != 0 {
		t.Errorf("%d bytes: % x", len(b), b[:64])
	}
	o := newObject(name{n.Generation, n.Role})
	if got := binary.LittleEndian.Uint32(b[PageSize+12:]); got != o.entry(3, truth(n, 3*PageSize, 5)) || got == o.entry(2, truth(n, 3*PageSize, 5)) {
		t.Errorf("the last entry is %08x", got)
	}
}
