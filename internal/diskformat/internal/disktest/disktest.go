// Package disktest helps the tests of the disk formats: the fixtures, disks
// made up from a seed, and readers that count, fail or stand for files too
// large to make.
package disktest

import (
	"bytes"
	"compress/gzip"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
)

// Fixture returns an unpacked file of testdata/fixtures. They were made by the
// published ims-qemu-img from one disk of 16806400 bytes: c.raw, c.zvhd2,
// c.zvhd.
func Fixture(t testing.TB, name string) []byte {
	t.Helper()
	_, self, _, _ := runtime.Caller(0)
	f, err := os.Open(filepath.Join(filepath.Dir(self), "../../testdata/fixtures", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Fill puts made-up content into p: some of it random, some repetitive, some
// zero, as seed says.
func Fill(p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(64<<10))
		switch r.IntN(3) {
		case 0:
			for i := range p[:n] {
				p[i] = byte(r.Uint32())
			}
		case 1:
			word := []byte{byte(r.Uint32()), byte(r.Uint32()), byte(n), 'x'}
			for i := range p[:n] {
				p[i] = word[i%4]
			}
		}
		p = p[n:]
	}
}

// Extents collects what an image's Map yields, up to its error.
func Extents(all iter.Seq2[diskformat.Extent, error]) (found []diskformat.Extent, err error) {
	for e, err := range all {
		if err != nil {
			return found, err
		}
		found = append(found, e)
	}
	return found, nil
}

// Read is one call of ReadAt.
type Read struct{ Off, Len int64 }

// Counter is a ReaderAt that notes what is read through it.
type Counter struct {
	R     io.ReaderAt
	mu    sync.Mutex
	reads []Read
}

// ReadAt notes and reads.
func (c *Counter) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.reads = append(c.reads, Read{off, int64(len(p))})
	c.mu.Unlock()
	return c.R.ReadAt(p, off)
}

// Reads returns what was noted since the last call.
func (c *Counter) Reads() []Read {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.reads
	c.reads = nil
	return r
}

// Patched is a file of zeros, as large as it is asked for, with pieces of
// content in it.
type Patched map[int64][]byte

// ReadAt reads zeros and pieces; it has no end.
func (s Patched) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for at, b := range s {
		if at < off+int64(len(p)) && off < at+int64(len(b)) {
			if at >= off {
				copy(p[at-off:], b)
			} else {
				copy(p, b[off-at:])
			}
		}
	}
	return len(p), nil
}

// Failing reads from R but fails with Err whatever touches the byte at At.
type Failing struct {
	R   io.ReaderAt
	At  int64
	Err error
}

// ReadAt reads or fails.
func (f Failing) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.At && f.At < off+int64(len(p)) {
		n, _ := f.R.ReadAt(p[:f.At-off], off)
		return n, f.Err
	}
	return f.R.ReadAt(p, off)
}

// Memory is a WriterAt over bytes that can't be truncated.
type Memory struct {
	mu sync.Mutex
	B  []byte
}

// WriteAt writes within B.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := copy(m.B[off:], p); n < len(p) {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}

// Allocated is how many bytes fn allocates in all, garbage included: an upper
// bound of what it needs at once. The caller must not run in parallel.
func Allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Refusing a file may take so many reads, and so many bytes in all. Time is not
// asserted, since other processes take of it: what is read bounds it.
const (
	refusalReads = 64
	refusalBytes = 16 << 20
)

// Refuse has open refuse the file r, returns its error, and fails the test if that
// allocates more than most bytes, garbage included, takes many reads, or if there is
// no error. The caller must not run in parallel: it measures.
func Refuse(t testing.TB, r io.ReaderAt, most uint64, open func(r io.ReaderAt) error) error {
	t.Helper()
	c := &Counter{R: r}
	var err error
	began := time.Now()
	allocated := Allocated(func() { err = open(c) })
	if took := time.Since(began); took > 100*time.Millisecond {
		t.Logf("it took %s, on a machine that has other work", took)
	}
	reads, n := c.Reads(), int64(0)
	for _, r := range reads {
		n += r.Len
	}
	switch {
	case err == nil:
		t.Error("it was not refused")
	case allocated > most:
		t.Errorf("refusing it allocates %d bytes, at most %d are right", allocated, most)
	case len(reads) > refusalReads || n > refusalBytes:
		t.Errorf("refusing it takes %d reads of %d bytes, at most %d of %d are right", len(reads), n, refusalReads, refusalBytes)
	}
	return err
}

// Peak is about how much memory fn needs at once: the growth of the heap that
// the runtime sees with the collector running all the time. It is less exact
// than Allocated. The caller must not run in parallel.
func Peak(t testing.TB, fn func()) uint64 {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		for {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
			select {
			case <-stop:
				peak <- most
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	fn()
	close(stop)
	most := <-peak
	if most < before.HeapAlloc {
		return 0
	}
	return most - before.HeapAlloc
}

// TempFile makes a file with the content b, of which runs of zeros become
// holes, open for reading and writing.
func TempFile(t testing.TB, b []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(len(b))); err != nil {
		t.Fatal(err)
	}
	const page = 64 << 10
	for off := 0; off < len(b); off += page {
		p := b[off:min(len(b), off+page)]
		if !bytes.Equal(p, make([]byte, len(p))) {
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// SparseFile makes a file of size bytes that is all hole.
func SparseFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f := TempFile(t, nil)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}
