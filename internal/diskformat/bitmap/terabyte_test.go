package bitmap

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// A sparse disk of 1 TiB: only what is allocated is read, the map is small and
// is read at once.
func TestSparseTerabyte(t *testing.T) {
	t.Parallel()
	f := disktest.SparseFile(t, 1<<40)
	for _, off := range []int64{5, 1<<40 - 1} {
		if _, err := f.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	last := int64(0)
	m, err := Build(t.Context(), f, 1<<40, Options{Progress: func(done, _ int64) { last = done }})
	if err != nil {
		t.Fatal(err)
	}
	if m.Blocks() != 524288 || m.DataBlocks() != 2 || !m.Block(0) || !m.Block(524287) || last != 1<<40 {
		t.Errorf("%d blocks, %d of them data; progress ended at %d", m.Blocks(), m.DataBlocks(), last)
	}
	b := encode(t, m)
	if len(b) != 4096+65536+2*(4+256) {
		t.Errorf("the map takes %d bytes", len(b))
	}
	r := &disktest.Counter{R: bytes.NewReader(b)}
	again, err := Parse(r, int64(len(b)), 1<<40)
	if err != nil || len(r.Reads()) != 1 {
		t.Fatal(err)
	}
	for _, i := range []int64{0, 524287} {
		off, n, ok := again.UnitSums(i)
		if !ok || again.CheckUnitSums(b[off:][:n], i) != nil {
			t.Errorf("block %d: checksums of units in %d bytes at %d, %v", i, n, off, ok)
		}
	}
	if err := again.Verify(t.Context(), f, bytes.NewReader(b), Options{}); err != nil {
		t.Error(err)
	}
}

// A full disk of 1 TiB: little is read of its map, and little needed to write it, though
// the checksums of units take 128 MiB. Not parallel: it measures.
func TestFullTerabyte(t *testing.T) {
	m := newUnknown(1<<40, "")
	m.kind, m.sums = Ours, make([]uint32, 524288)
	for i := range m.sums {
		m.sums[i] = uint32(i) * 2654435761
	}
	head := m.encodeHead()
	built := &Built{m, head, slices.Repeat([]*unitSums{{}}, len(m.sums))}
	r := &disktest.Counter{R: built}
	n := disktest.Allocated(func() {
		got, err := Parse(r, built.Size(), 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		if sum, ok := got.Checksum(400_000); !ok || sum != m.sums[400_000] {
			t.Errorf("checksum %#x, %v", sum, ok)
		}
		if off, n, ok := got.UnitSums(524287); !ok || off+n != built.Size() {
			t.Errorf("the last block's checksums of units take %d bytes at %d of %d", n, off, built.Size())
		}
	})
	reads, end := r.Reads(), int64(0)
	for _, r := range reads {
		end = max(end, r.Off+r.Len)
	}
	if len(reads) > 2 || end != int64(len(head)) || end > MaxRead || n > 6<<20 {
		t.Errorf("%d reads, up to %d of %d bytes; %d bytes allocated", len(reads), end, built.Size(), n)
	}
	n = disktest.Allocated(func() {
		if n, err := built.WriteTo(io.Discard); err != nil || n != 4096+65536+(4+256)<<19 {
			t.Errorf("%d bytes written, %v", n, err)
		}
	})
	if n > 1<<20 {
		t.Errorf("writing it allocates %d bytes", n)
	}
}
