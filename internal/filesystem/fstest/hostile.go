package fstest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/filesystem"
)

// Disk is a sparse disk in memory: a few pieces, zeros between them.
type Disk struct {
	Size   int64
	pieces map[int64]*[piece]byte // by their number
	spare  []*[piece]byte         // of what the disk was before
}

const (
	piece = 4096 // of memory
	unit  = 64   // of a packed disk
)

// maxDisk bounds what a fuzzer may ask for; no memory goes with it.
const maxDisk = 1 << 40

// ReadAt implements [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), d.Size-off))
	for done := 0; done < n; {
		at := off + int64(done)
		within := int(at % piece)
		step := min(n-done, piece-within)
		if b, ok := d.pieces[at/piece]; ok {
			copy(p[done:done+step], b[within:])
		} else {
			clear(p[done : done+step])
		}
		done += step
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Put changes bytes of the disk; what lies beyond its end is dropped.
func (d *Disk) Put(off int64, b ...byte) {
	for len(b) > 0 && off >= 0 && off < d.Size {
		changed := new([piece]byte)
		if old, ok := d.pieces[off/piece]; ok {
			*changed = *old // other disks may share it
		}
		n := copy(changed[off%piece:], b)
		d.pieces[off/piece] = changed
		b, off = b[n:], off+int64(n)
	}
}

// Clone copies the disk; Put on one does not show in the other.
func (d *Disk) Clone() *Disk { return &Disk{Size: d.Size, pieces: maps.Clone(d.pieces)} }

// Load reads a file but for skip bytes at skipAt, where a journal lies that no
// reader looks at.
func Load(t testing.TB, name string, skipAt, skip int64) *Disk {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[skipAt : skipAt+skip])
	d := &Disk{Size: int64(len(b)), pieces: map[int64]*[piece]byte{}}
	for at := int64(0); at < d.Size; at += piece {
		if part := b[at:min(at+piece, d.Size)]; !bytes.Equal(part, make([]byte, len(part))) {
			d.Put(at, part...)
		}
	}
	return d
}

// Pack writes a disk down, short, and so that a fuzzer can change it: the size
// in KiB, then for each stretch of 64-byte units that are not zeros its first
// unit, their number as one byte, and their bytes. Unpack is total: any bytes
// make a disk of at most 1 TiB.
func (d *Disk) Pack() []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(d.Size>>10))
	for _, no := range slices.Sorted(maps.Keys(d.pieces)) {
		b := d.pieces[no][:]
		for at := 0; at < piece; {
			end := at
			for end < piece && !bytes.Equal(b[end:end+unit], make([]byte, unit)) {
				end += unit
			}
			if end > at {
				out = binary.LittleEndian.AppendUint32(out, uint32(no*(piece/unit))+uint32(at/unit))
				out = append(out, byte((end-at)/unit))
				out = append(out, b[at:end]...)
			}
			at = end + unit
		}
	}
	return out
}

// Unpack is the reverse of Pack.
func Unpack(b []byte) *Disk {
	d := new(Disk)
	d.Refill(b)
	return d
}

// Refill makes what Unpack makes, in the memory of d, whose content is lost. No other
// disk may have been cloned from d.
func (d *Disk) Refill(b []byte) {
	for _, p := range d.pieces {
		d.spare = append(d.spare, p)
	}
	if clear(d.pieces); d.pieces == nil {
		d.pieces = map[int64]*[piece]byte{}
	}
	d.Size = 0
	if len(b) < 4 {
		return
	}
	d.Size = min(int64(binary.LittleEndian.Uint32(b))<<10, maxDisk)
	for b = b[4:]; len(b) > 5; {
		at, n := int64(binary.LittleEndian.Uint32(b))*unit, int(b[4])*unit
		b = b[5:]
		n = min(n, len(b))
		d.fill(at, b[:n])
		b = b[n:]
	}
}

// fill is Put where no other disk shares a piece.
func (d *Disk) fill(off int64, b []byte) {
	for len(b) > 0 && off < d.Size {
		p := d.pieces[off/piece]
		if p == nil {
			if last := len(d.spare) - 1; last >= 0 {
				p, d.spare = d.spare[last], d.spare[:last]
				*p = [piece]byte{}
			} else {
				p = new([piece]byte)
			}
			d.pieces[off/piece] = p
		}
		n := copy(p[off%piece:], b)
		b, off = b[n:], off+int64(n)
	}
}

// Seeds adds the packed disks in testdata/seeds to a fuzz target.
func Seeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/seeds/*")
	if err != nil || len(files) == 0 {
		f.Fatalf("testdata/seeds has no files (%v)", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// Opener opens a volume.
type Opener func(*filesystem.Source) (filesystem.Volume, error)

// Exercise does to a hostile disk what a user of the readers would: opens it,
// walks it, reads files and links. It fails the test if an error is of no known
// kind, and returns the first error that was met.
func Exercise(t testing.TB, open Opener, disk io.ReaderAt, size, budget int64) error {
	t.Helper()
	var first error
	note := func(err error) {
		if err == nil || errors.Is(err, io.EOF) {
			return
		}
		if !errors.Is(err, filesystem.ErrCorrupt) && !errors.Is(err, filesystem.ErrUnsupported) && !errors.Is(err, filesystem.ErrLimit) {
			t.Errorf("an error of no known kind: %v", err)
		}
		if first == nil {
			first = err
		}
	}
	src := filesystem.NewSource(context.Background(), disk, size, budget)
	defer src.Release()
	v, err := open(src)
	if note(err); err != nil {
		return first
	}
	_, err = filesystem.NewTree(v)
	note(err)
	v.Info()
	todo, buf := []uint64{v.Root()}, make([]byte, 8<<10)
	for visits := 0; len(todo) > 0 && visits < 200; visits++ {
		n, err := v.Node(todo[0])
		todo = todo[1:]
		if note(err); err != nil {
			continue
		}
		if n.Size < 0 {
			t.Errorf("node %d has %d bytes", n.ID, n.Size)
		}
		switch n.Kind {
		case filesystem.Directory:
			for e, err := range v.Entries(n) {
				if note(err); err == nil && len(todo) < 200 {
					todo = append(todo, e.ID)
				}
			}
		case filesystem.Symlink:
			s, err := v.Target(n)
			if note(err); len(s) > filesystem.MaxTarget {
				t.Errorf("a target of %d bytes", len(s))
			}
		case filesystem.Regular:
			for _, off := range []int64{0, n.Size / 2, n.Size - 1} {
				if off >= 0 {
					_, err := v.ReadAt(n, buf, off)
					note(err)
				}
			}
		}
	}
	return first
}

// Cheap fails the test if f takes more than 16 MiB of memory, the Source's pages
// included, or three times in a row more than a hundred milliseconds. Tests that
// use it are not parallel.
func Cheap(t testing.TB, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	var took time.Duration
	for range 3 {
		runtime.ReadMemStats(&before)
		start := time.Now()
		f()
		took = time.Since(start)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("it took %d bytes of memory", n)
			return
		}
		if took <= 100*time.Millisecond {
			return
		}
	}
	t.Errorf("it took %v", took)
}
