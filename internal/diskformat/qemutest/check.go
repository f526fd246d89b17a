package qemutest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Check compares img with the RAW disk in the file raw: the size; the extents;
// everything that raw stores; then so many reads at random places and of
// random lengths, as seed says, by several goroutines at once; and reads at
// and beyond the disk's end. It returns the first difference.
func Check(img diskformat.Image, raw string, seed uint64, reads int) error {
	f, err := os.Open(raw)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if img.Size() != st.Size() {
		return fmt.Errorf("the disk has %d bytes, QEMU says %d", img.Size(), st.Size())
	}
	if err := CheckExtents(img.Map(context.Background()), f, st.Size()); err != nil {
		return err
	}
	if err := checkAll(img, f, st.Size()); err != nil {
		return err
	}
	if err := checkEnd(img, st.Size()); err != nil {
		return err
	}
	// Several goroutines, so that the race detector and shared caches get
	// their share.
	const readers = 4
	var wg sync.WaitGroup
	errs := make([]error, readers)
	for i := range readers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for k := i; k < reads && errs[i] == nil; k += readers {
				off, n := place(r, st.Size())
				errs[i] = same(img, f, off, n)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// place draws a range of a disk of size bytes: anywhere, or near a multiple of
// a power of two, or near the end.
func place(r *rand.Rand, size int64) (off, n int64) {
	if size == 0 {
		return 0, 0
	}
	off = r.Int64N(size)
	switch r.IntN(4) {
	case 0:
		off = off &^ (1<<r.IntN(bits.Len64(uint64(size))) - 1)
	case 1:
		off = off&^(1<<r.IntN(bits.Len64(uint64(size)))-1) - r.Int64N(1025)
	case 2:
		off = size - r.Int64N(min(size, 70000)+1)
	}
	off = max(off, 0)
	n = r.Int64N(1 << (1 + r.IntN(21)))
	return off, min(n, size-off)
}

// same compares n bytes at off.
func same(img io.ReaderAt, raw io.ReaderAt, off, n int64) error {
	want, got := make([]byte, n), bytes.Repeat([]byte{0xee}, int(n))
	if err := diskformat.ReadFull(raw, want, off); err != nil {
		return fmt.Errorf("the RAW disk: %w", err)
	}
	if err := diskformat.ReadFull(img, got, off); err != nil {
		return fmt.Errorf("%d bytes at %d: %w", n, off, err)
	}
	if at := differ(got, want); at >= 0 {
		return fmt.Errorf("%d bytes at %d: byte %d of them (%d of the disk) is %#02x, QEMU says %#02x",
			n, off, at, off+int64(at), got[at], want[at])
	}
	return nil
}

// differ is the first place where a and b differ, or -1.
func differ(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// checkAll compares everything that raw stores.
func checkAll(img diskformat.Image, raw *os.File, size int64) error {
	const piece = 1<<20 + 512
	for e, err := range sparse.Data(raw, size) {
		if err != nil {
			return err
		}
		for off := e.Offset; off < e.End(); off += piece {
			if err := same(img, raw, off, min(piece, e.End()-off)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEnd checks what [io.ReaderAt] promises at the end.
func checkEnd(img diskformat.Image, size int64) error {
	p := make([]byte, 100)
	tail := min(size, 50)
	if n, err := img.ReadAt(p, size-tail); int64(n) != tail || err != io.EOF {
		return fmt.Errorf("100 bytes at %d of %d: %d, %v; right is %d and io.EOF", size-tail, size, n, err, tail)
	}
	if n, err := img.ReadAt(p, size); n != 0 || err != io.EOF {
		return fmt.Errorf("100 bytes at the end: %d, %v; right is io.EOF", n, err)
	}
	if n, err := img.ReadAt(p, size+1<<40); n != 0 || err != io.EOF {
		return fmt.Errorf("100 bytes far beyond the end: %d, %v; right is io.EOF", n, err)
	}
	if n, err := img.ReadAt(p, -1); n != 0 || err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("100 bytes at -1: %d, %v; right is an error", n, err)
	}
	if n, err := img.ReadAt(nil, 0); n != 0 || (err != nil && err != io.EOF) {
		return fmt.Errorf("no bytes at 0: %d, %v", n, err)
	}
	return nil
}

// CheckExtents checks that extents cover a disk of size bytes from its
// beginning to its end without gaps, data and holes in turn, and that raw, the
// same disk as QEMU read it, is zero in every hole.
func CheckExtents(extents iter.Seq2[diskformat.Extent, error], raw *os.File, size int64) error {
	var holes []diskformat.Extent
	at, first, last := int64(0), true, false
	for e, err := range extents {
		switch {
		case err != nil:
			return err
		case e.Offset != at || e.Length <= 0:
			return fmt.Errorf("the extent %+v follows what ends at %d", e, at)
		case !first && e.Data == last:
			return fmt.Errorf("the extent %+v is of the same kind as the one before", e)
		}
		at, first, last = e.End(), false, e.Data
		if !e.Data {
			holes = append(holes, e)
		}
	}
	if at != size {
		return fmt.Errorf("the extents end at %d, the disk at %d", at, size)
	}
	buf := make([]byte, 256<<10)
	for e, err := range sparse.Data(raw, size) {
		if err != nil {
			return err
		}
		for len(holes) > 0 && holes[0].End() <= e.Offset {
			holes = holes[1:]
		}
		for _, h := range holes {
			if h.Offset >= e.End() {
				break
			}
			from, to := max(h.Offset, e.Offset), min(h.End(), e.End())
			for off := from; off < to; off += int64(len(buf)) {
				p := buf[:min(int64(len(buf)), to-off)]
				if err := diskformat.ReadFull(raw, p, off); err != nil {
					return err
				}
				if !sparse.IsZero(p) {
					return fmt.Errorf("the extent %+v is called a hole, but between %d and %d the disk is not zero", h, off, off+int64(len(p)))
				}
			}
		}
	}
	return nil
}

// RawDisk is a RAW file as an image.
type RawDisk struct {
	*os.File
	size int64
}

// OpenRaw opens the RAW file at path, and closes it when the test ends.
func OpenRaw(t TB, path string) *RawDisk {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &RawDisk{f, st.Size()}
}

// Size is the size of the file.
func (d *RawDisk) Size() int64 { return d.size }

// Map is what the file system tells of holes.
func (d *RawDisk) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		_, err := sparse.NewHoles(ctx, d.File, d.size).Range(0, d.size, add)
		return err
	})
}
