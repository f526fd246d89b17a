package vhdx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// A disk with a block in every state, read in pieces of all kinds.
func TestRead(t *testing.T) {
	t.Parallel()
	v := usual()
	f := v.mustOpen(t)
	want := usualDisk()
	if f.Size() != usualSize || f.BlockSize() != mib || f.Fixed() || f.LogicalSector() != 512 || f.PhysicalSector() != 4096 {
		t.Errorf("%d, %d, %v, %d, %d", f.Size(), f.BlockSize(), f.Fixed(), f.LogicalSector(), f.PhysicalSector())
	}
	for _, piece := range []int{usualSize, 4096, 100_001, mib, 3*mib + 512} {
		for off := 0; off < usualSize; off += piece {
			p := bytes.Repeat([]byte{0xee}, min(piece, usualSize-off))
			if n, err := f.ReadAt(p, int64(off)); n != len(p) || err != nil || !bytes.Equal(p, want[off:off+n]) {
				t.Fatalf("%d bytes at %d: %d, %v, or another disk", len(p), off, n, err)
			}
		}
	}
	p := make([]byte, 2000)
	if n, err := f.ReadAt(p, usualSize-1000); n != 1000 || err != io.EOF {
		t.Errorf("across the end: %d, %v", n, err)
	}
	for _, off := range []int64{usualSize, 1 << 50} {
		if n, err := f.ReadAt(p, off); n != 0 || err != io.EOF {
			t.Errorf("at %d: %d, %v", off, n, err)
		}
	}
	if _, err := f.ReadAt(p, -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("at -1: %v", err)
	}
}

// What can be wrong without harm: one of the two headers, one of the two
// region tables, regions and items that need not be known, the entries of
// bitmaps, whatever the specification calls reserved or free.
func TestWhatDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, poke := range map[string]func(v *victim){
		"the older header": func(v *victim) { v.Patched[headerOff1][0] = 0 },
		"the newer header": func(v *victim) { v.Patched[headerOff2][0] = 0 },
		"the older header's number": func(v *victim) {
			le.PutUint64(v.Patched[headerOff1][8:], 0)
			le.PutUint64(v.Patched[headerOff1][72:], 2*mib)
		},
		"the first being the newer": func(v *victim) {
			le.PutUint64(v.Patched[headerOff1][8:], 100)
			le.PutUint64(v.Patched[headerOff2][72:], 2*mib)
		},
		"two equal headers":         func(v *victim) { copy(v.Patched[headerOff1], v.Patched[headerOff2]) },
		"the first region table":    func(v *victim) { v.Patched[regionOff1][0] = 0 },
		"the second region table":   func(v *victim) { v.Patched[regionOff2][0] = 0 },
		"a region more":             func(v *victim) { v.region(unknown, 1<<40, mib, 0) },
		"an item more":              func(v *victim) { v.item(unknown, 0, []byte("x")) },
		"an item of the user":       func(v *victim) { v.item(itemDiskSize, itemUser, make([]byte, 8)) },
		"version of a log not used": func(v *victim) { set32(64, 1<<16|9)(v) },
		"no log at all":             func(v *victim) { set32(68, 0)(v) },
		"what the log held":         func(v *victim) { v.Patched[logAt] = logEntry(someLog, 5, 0, 1<<40) },
		"the creator":               func(v *victim) { v.Patched[1000] = []byte("\xff\xfe") },
		"entries beyond the disk":   func(v *victim) { bat(10, 7|1<<40)(v) },
		"the place of what is zero": func(v *victim) { bat(2, stateUnmapped|1<<60|8)(v) },
	} {
		v := usual()
		poke(v)
		f, err := v.open()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := make([]byte, f.Size())
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, usualDisk()) {
			t.Errorf("%s: another disk, %v", name, err)
		}
	}
}

// The extents are those of the blocks.
func TestExtents(t *testing.T) {
	t.Parallel()
	var want []diskformat.Extent
	for _, e := range []struct {
		from, to int64
		data     bool
	}{{0, 1, true}, {1, 3, false}, {3, 5, true}, {5, 9, false}, {9, 10, true}} {
		want = append(want, diskformat.Extent{Offset: e.from * mib, Length: (e.to - e.from) * mib, Data: e.data})
	}
	want[4].Length = 1536
	f := usual().mustOpen(t)
	if got, err := disktest.Extents(f.Map(t.Context())); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for range f.Map(t.Context()) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range f.Map(ctx) {
		if !errors.Is(err, context.Canceled) || e != (diskformat.Extent{}) {
			t.Errorf("with a context that is over: %+v, %v", e, err)
		}
	}
}

// Chunks of both sector sizes: where the entry of a bitmap lies between those
// of blocks.
func TestChunks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size   int64
		block  uint32
		sector uint32
		blocks map[int64]int64 // block to entry, worked out by hand
	}{
		// 4 GiB in a chunk: 4096 blocks of 1 MiB, 16 of 256 MiB.
		{9 << 30, 1 << 20, 512, map[int64]int64{0: 0, 4095: 4095, 4096: 4097, 8191: 8192, 8192: 8194}},
		{20 << 30, 256 << 20, 512, map[int64]int64{15: 15, 16: 17, 31: 32, 32: 34, 79: 83}},
		// 32 GiB: 32768 blocks of 1 MiB, 1024 of 32 MiB.
		{70 << 30, 1 << 20, 4096, map[int64]int64{32767: 32767, 32768: 32769, 65536: 65538}},
		{70 << 30, 32 << 20, 4096, map[int64]int64{1023: 1023, 1024: 1025, 2047: 2048, 2048: 2050}},
	} {
		v := newVictim(c.size, c.block, c.sector)
		for block, entry := range c.blocks {
			bat(int(entry), v.store([]byte{1, byte(block), byte(block >> 8)}, int64(c.block)))(v)
		}
		// What a bitmap's entry says does not count.
		bat(int(4<<30/int64(c.block)*int64(c.sector)/512), statePresent|payloadAt)(v)
		f := v.mustOpen(t)
		for block := range c.blocks {
			p := make([]byte, 4)
			off := block * int64(c.block)
			if _, err := f.ReadAt(p, off); err != nil || p[0] != 1 || p[1] != byte(block) || p[2] != byte(block>>8) {
				t.Errorf("sectors of %d, block %d of %d: % x, %v", c.sector, block, c.block, p, err)
			}
			if _, err := f.ReadAt(p[:1], off-1); off > 0 && (err != nil || p[0] != 0) {
				t.Errorf("sectors of %d, before block %d of %d: % x, %v", c.sector, block, c.block, p, err)
			}
		}
		data := int64(0)
		for e, err := range f.Map(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			if e.Data {
				data += e.Length
			}
		}
		if data != int64(len(c.blocks))*int64(c.block) {
			t.Errorf("sectors of %d, blocks of %d: the extents have %d bytes of data", c.sector, c.block, data)
		}
	}
}

// Disks that these tests build, with states that QEMU does not make: it sees in
// them what we see.
func TestQEMUReadsWhatWeBuild(t *testing.T) {
	qemutest.Run(t, 8, func(t *rapid.T, dir string) {
		const sector = 512 // QEMU reads no other
		block := uint32(mib) << rapid.IntRange(0, 4).Draw(t, "block")
		size := sector * rapid.Int64Range(1, 9<<30/sector).Draw(t, "sectors")
		v := newVictim(size, block, sector)
		blocks := (size + int64(block) - 1) / int64(block)
		for range rapid.IntRange(0, 12).Draw(t, "stored") {
			b := rapid.Int64Range(0, blocks-1).Draw(t, "number")
			entry := int(b + b/((1<<23)*sector/int64(block)))
			switch state := rapid.SampledFrom([]uint64{stateNotPresent, stateUndefined, stateZero, stateUnmapped, statePresent, statePresent}).Draw(t, "state"); state {
			case statePresent:
				content := make([]byte, rapid.IntRange(1, int(block)).Draw(t, "length"))
				disktest.Fill(content, uint64(b))
				bat(entry, v.store(content, int64(block)))(v)
			default:
				bat(entry, state)(v)
			}
		}
		path := filepath.Join(dir, "disk.vhdx")
		if err := v.write(path); err != nil {
			t.Fatal(err)
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f, err := Open(r, v.size)
		if err != nil {
			t.Fatal(err)
		}
		if err := qemutest.Check(f, qemutest.Raw(t, path, "vhdx"), rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// A large read takes few reads of the file: blocks that follow each other in
// it come at once.
func TestFewReads(t *testing.T) {
	t.Parallel()
	v := newVictim(64*mib, mib, 512)
	for b := range 64 {
		bat(b, v.store([]byte{byte(b + 1)}, mib))(v)
	}
	v.seal()
	c := &disktest.Counter{R: v.Patched}
	f, err := Open(c, v.size)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Reads()); n > 7 {
		t.Errorf("opening takes %d reads", n)
	}
	p := make([]byte, 40*mib)
	if _, err := f.ReadAt(p, 5*mib+1); err != nil || p[mib-1] != 7 {
		t.Fatal(err)
	}
	if reads := c.Reads(); len(reads) > 2 {
		t.Errorf("40 MiB take %d reads", len(reads))
	}
	if err := mapAll(f); err != nil {
		t.Error(err)
	}
	if n := len(c.Reads()); n > 0 {
		t.Errorf("mapping what was read takes %d reads", n)
	}
}

// However large the disk, what is kept is bounded: the table of this one has
// 512 MiB.
func TestMemoryOfGiant(t *testing.T) {
	v := newVictim(MaxSize, mib, 512)
	v.regions(0, func(e []byte) {
		le.PutUint64(e[16:], 16*mib)
		le.PutUint32(e[24:], 1<<30)
	})
	v.size = 2 << 30
	delete(v.Patched, batAt)
	v.seal()
	peak := disktest.Peak(t, func() {
		f := v.mustOpen(t)
		p := make([]byte, 100)
		for i := range int64(2000) {
			if _, err := f.ReadAt(p, i*(MaxSize/2000)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if peak > 8<<20 {
		t.Errorf("reading all over it takes %d bytes of memory", peak)
	}
}

// Many goroutines read a disk at once, one whose log was applied.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	v := usual()
	v.logged(0, logEntry(someLog, 5, 0, 8*mib, change{off: batAt, sector: bytes.Clone(v.Patched[batAt][:logSector])}))
	clear(v.Patched[batAt])
	f := v.mustOpen(t)
	want := usualDisk()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p := make([]byte, []int{4096, 1000, 100_000, 2 << 20}[i%4])
			for off := i * 777; off+len(p) <= len(want); off += len(p)*3 + i {
				if _, err := f.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
					t.Errorf("%d bytes at %d: %v", len(p), off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
