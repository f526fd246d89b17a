package zvhd2

import (
	"bytes"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// layoutOf describes a file too large to make: n blocks, all stored, each in a
// record of recLen bytes.
type layoutOf struct {
	blocks    uint32
	blockSize uint32
	recLen    int64
	gap       int64 // bytes between index and bitmap
	ext       bool
	framed    bool // with ext
	byBlock   bool
	spare     int // index segments that no entry needs
	poke      func(index, bitmap []byte)
}

// file makes the file's end; the records read as zeros.
func (l layoutOf) file() (disktest.Patched, int64) {
	h := header{
		version: 1, blockSize: l.blockSize, maxBlocks: l.blocks, dataBlocks: l.blocks, compression: methodZstd,
		indexSeg: indexSegmentSize, bitmapSeg: bitmapSegmentSize,
	}
	copy(h.Cookie[:], cookie)
	h.OrigSize = uint64(l.blocks) * uint64(l.blockSize)
	h.CurrSize = zdisk.VirtualSize(h.OrigSize)
	h.indexSegs = uint32(segments(l.blocks)) + uint32(l.spare)
	h.bitmapSegs = (l.blocks + 32767) / 32768
	if l.byBlock {
		h.indexByBlk = 1
	}
	h.indexSize, h.bitmapSize = h.indexSegs*h.indexSeg, h.bitmapSegs*h.bitmapSeg
	index, bitmap := make([]byte, h.indexSize), make([]byte, h.bitmapSize)
	off := uint64(pageSize)
	for i := range l.blocks {
		e := index[16*i:]
		le.PutUint64(e, off)
		le.PutUint32(e[8:], i)
		le.PutUint32(e[12:], uint32(l.recLen))
		off += uint64(l.recLen)
		bitmap[i/8] |= 1 << (i % 8)
	}
	if l.poke != nil {
		l.poke(index, bitmap)
	}
	h.index = off + pageSize
	var frames *frameParts
	sums := make([]byte, 4*l.blocks)
	if l.framed {
		frames = &frameParts{table: off + pageSize, tableLen: uint64(l.blocks) * FrameEntrySize, sumsLen: uint64(len(sums)), sumsCRC: crcOf(sums)}
		h.index = frames.table + wholePages(frames.tableLen) + pageSize
	}
	h.bitmap = h.index + uint64(h.indexSize) + uint64(l.gap)
	size := int64(h.bitmap) + int64(h.bitmapSize) + pageSize
	parts := disktest.Patched{0: h.block(), int64(h.index): index, int64(h.bitmap): bitmap}
	if frames != nil {
		frames.sums = uint64(size) - pageSize
		parts[int64(frames.sums)] = sums
		size += int64(wholePages(frames.sumsLen))
	}
	footer := h.block()
	if l.ext {
		extension{uint64(size), crc32.Checksum(index, castagnoli), crc32.Checksum(bitmap, castagnoli), frames}.put(footer)
	}
	parts[size-pageSize] = footer
	return parts, size
}

// The number of reads does not grow with the disk, and what opening takes
// stays small: whoever asks a stranger's file for its index must not be made
// to allocate for it. Not parallel: it measures.
func TestOpeningReadsAndMemory(t *testing.T) {
	const gib = 512 // blocks of 2 MiB
	for _, c := range []struct {
		name   string
		l      layoutOf
		reads  int
		memory uint64
	}{
		{"1 GiB", layoutOf{blocks: gib, blockSize: 2 << 20, recLen: 4096}, 1, 2 << 20},
		{"64 GiB", layoutOf{blocks: 64 * gib, blockSize: 2 << 20, recLen: maxRecord(2 << 20), ext: true}, 1, 3 << 20},
		{"65 GiB", layoutOf{blocks: 65 * gib, blockSize: 2 << 20, recLen: 4096}, 2, 4 << 20},
		{"1 TiB", layoutOf{blocks: 1024 * gib, blockSize: 2 << 20, recLen: maxRecord(2 << 20)}, 2, 13 << 20},
		{"1 TiB of ours", layoutOf{blocks: 1024 * gib, blockSize: 2 << 20, recLen: 4096, ext: true}, 2, 13 << 20},
		{"64 GiB framed", layoutOf{blocks: 64 * gib, blockSize: 2 << 20, recLen: maxRecord(2 << 20), ext: true, framed: true}, 1, 3 << 20},
		{"1 TiB framed", layoutOf{blocks: 1024 * gib, blockSize: 2 << 20, recLen: 4096, ext: true, framed: true}, 2, 18 << 20},
		{"1 TiB by block", layoutOf{blocks: 1024 * gib, blockSize: 2 << 20, recLen: 4096, byBlock: true}, 2, 13 << 20},
		{"1 TiB in 32 MiB", layoutOf{blocks: 32 * gib * 2, blockSize: 32 << 20, recLen: maxRecord(32 << 20)}, 1, 3 << 20},
		{"1 TiB in 1 MiB", layoutOf{blocks: 2048 * gib, blockSize: 1 << 20, recLen: 4096}, 6, 16 << 20},
		{"index far from bitmap", layoutOf{blocks: 1024 * gib, blockSize: 2 << 20, recLen: 4096, gap: 64 << 20}, 3, 13 << 20},
		{"a giant index", layoutOf{blocks: 64 * gib, blockSize: 2 << 20, recLen: 4096, spare: 200}, 2, 8 << 20},
	} {
		src, size := c.l.file()
		counter := &disktest.Counter{R: src}
		var f *File
		var err error
		n := disktest.Allocated(func() { f, err = Open(counter, size) })
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		reads := counter.Reads()
		if len(reads) > c.reads {
			t.Errorf("%s: opened with %d reads, right are %d: %v", c.name, len(reads), c.reads, reads)
		}
		if reads[0] != (disktest.Read{Off: max(0, size-1<<20), Len: min(size, 1<<20)}) {
			t.Errorf("%s: the first read is %v of %d", c.name, reads[0], size)
		}
		if n > c.memory {
			t.Errorf("%s: %d bytes were allocated, at most %d", c.name, n, c.memory)
		}
		t.Logf("%s: %d reads, %d KiB allocated", c.name, len(reads), n>>10)
		for _, block := range []uint32{0, 1, 63, 64, 65, f.Blocks() / 2, f.Blocks() - 1} {
			if off, length, ok := f.Record(block); !ok || off != 4096+int64(block)*c.l.recLen || length != c.l.recLen {
				t.Errorf("%s: record of block %d: %d bytes at %d", c.name, block, length, off)
			}
		}
		if len(counter.Reads()) != 0 {
			t.Errorf("%s: looking up records read from the file", c.name)
		}
	}
}

// A fault in the last entry of the largest index is found, within the bounds.
func TestHostileLargeIndex(t *testing.T) {
	for name, poke := range map[string]func(index, bitmap []byte){
		"the last entry overlaps":         func(index, _ []byte) { le.PutUint64(index[len(index)-16:], 4096) },
		"the last entry of another block": func(index, _ []byte) { le.PutUint32(index[len(index)-8:], 0) },
		"a bit less":                      func(_, bitmap []byte) { bitmap[len(bitmap)-1] = 0x7f },
	} {
		for _, ext := range []bool{false, true} {
			src, size := layoutOf{blocks: 512 << 10, blockSize: 2 << 20, recLen: 4096, ext: ext, poke: poke}.file()
			n := disktest.Allocated(func() {
				if _, err := Open(src, size); !errors.Is(err, diskformat.ErrCorrupt) {
					t.Errorf("%s: %v", name, err)
				}
			})
			if n > 13<<20 {
				t.Errorf("%s: %d bytes were allocated", name, n)
			}
		}
	}
}

// What only shows where records do not lie tight: lengths and offsets that
// overlap nothing and yet are none.
func TestHostileEntriesWithRoom(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]layoutOf{
		"length not aligned":       {recLen: 8192, poke: func(index, _ []byte) { le.PutUint32(index[16*5+12:], 4096+512) }},
		"offset not aligned":       {recLen: 8192, poke: func(index, _ []byte) { index[16*5+1] |= 2; le.PutUint32(index[16*5+12:], 4096) }},
		"length below a page":      {recLen: 8192, poke: func(index, _ []byte) { le.PutUint32(index[16*5+12:], 0) }},
		"length over what is made": {recLen: maxRecord(2<<20) + 4096},
	} {
		l.blocks, l.blockSize = 100, 2<<20
		src, size := l.file()
		_, err := Open(src, size)
		t.Run(name, func(t *testing.T) { wantKind(t, err, diskformat.ErrCorrupt, "index") })
	}
	// A gap alone is no fault.
	src, size := layoutOf{blocks: 100, blockSize: 2 << 20, recLen: 8192, poke: func(index, _ []byte) { le.PutUint32(index[16*5+12:], 4096) }}.file()
	if _, err := Open(src, size); err != nil {
		t.Error(err)
	}
}

// Reads that fail are errors of the source, at each of the reads.
func TestOpeningWithFailingReads(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	for _, gap := range []int64{0, 64 << 20} {
		src, size := layoutOf{blocks: 512 << 10, blockSize: 2 << 20, recLen: 4096, gap: gap}.file()
		for _, at := range []int64{size - 1, size - gap - 2<<20, size - gap - 5<<20, size - gap - 8<<20} {
			_, err := Open(disktest.Failing{R: src, At: at, Err: broken}, size)
			var e *diskformat.Error
			if !errors.Is(err, broken) || errors.As(err, &e) {
				t.Errorf("gap %d, failing at %d: %v", gap, at, err)
			}
		}
	}
	// The one read that tells a cut-off file from no file.
	b := make([]byte, 8192)
	copy(b, cookie)
	if _, err := Open(disktest.Failing{R: bytes.NewReader(b), At: 0, Err: broken}, 8192); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// Index form 1 has an entry for every block; those of zero blocks are empty.
func TestIndexByBlock(t *testing.T) {
	t.Parallel()
	v := newVictim(t, false)
	want := extract(t, mustOpen(t, v.b), ExtractOptions{})
	dense := bytes.Clone(v.index[:4*16])
	build := func() {
		clear(v.index)
		for k := range 4 {
			block := le.Uint32(dense[16*k+8:])
			copy(v.index[16*block:], dense[16*k:][:16])
		}
		v.set8(offIndexByBlk, 1)
	}
	build()
	if !bytes.Equal(extract(t, mustOpen(t, v.b), ExtractOptions{}), want) {
		t.Error("the disk differs")
	}
	le.PutUint32(v.index[16*2+8:], 2) // a zero block may say its own number
	mustOpen(t, v.b)
	for name, poke := range map[string]func(){
		"zero block with another's number": func() { le.PutUint32(v.index[16*2+8:], 5) },
		"zero block with an offset":        func() { le.PutUint64(v.index[16*2:], 4096) },
		"zero block with a length":         func() { le.PutUint32(v.index[16*2+12:], 4096) },
		"stored block without a record":    func() { clear(v.index[16*3 : 16*4]) },
		"stored block with another number": func() { le.PutUint32(v.index[16*3+8:], 4) },
		"records not ascending":            func() { copy(v.index[16*3:][:8], dense[16*2:]); copy(v.index[16*4:][:8], dense[16:]) },
	} {
		build()
		poke()
		if _, err := Open(bytes.NewReader(v.b), int64(len(v.b))); !errors.Is(err, diskformat.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Method 0 and the other block sizes, which are read but never written.
func TestOtherMethodAndBlockSizes(t *testing.T) {
	t.Parallel()
	for _, method := range []uint8{methodZlib, methodZstd} {
		for _, blockSize := range []int64{1 << 20, 32 << 20} {
			raw := make([]byte, 2*blockSize+512)
			disktest.Fill(raw[:1<<20], 1)
			raw[0], raw[2*blockSize] = 1, 2
			b := make([]byte, pageSize)
			index, bitmap := make([]byte, indexSegmentSize), make([]byte, bitmapSegmentSize)
			h := header{
				version: 1, blockSize: uint32(blockSize), maxBlocks: 3, dataBlocks: 2, compression: method,
				indexSeg: indexSegmentSize, indexSegs: 1, indexSize: indexSegmentSize,
				bitmapSeg: bitmapSegmentSize, bitmapSegs: 1, bitmapSize: bitmapSegmentSize,
			}
			copy(h.Cookie[:], cookie)
			h.OrigSize, h.CurrSize = uint64(len(raw)), zdisk.VirtualSize(uint64(len(raw)))
			for k, block := range []uint32{0, 2} {
				plain := make([]byte, blockSize)
				copy(plain, raw[int64(block)*blockSize:])
				payload := frame(t, plain)
				if method == methodZlib {
					payload = zlibSync(t, plain)
				}
				rec := record(payload, block)
				le.PutUint64(index[16*k:], uint64(len(b)))
				le.PutUint32(index[16*k+8:], block)
				le.PutUint32(index[16*k+12:], uint32(len(rec)))
				bitmap[0] |= 1 << block
				b = append(b, rec...)
			}
			b = append(b, make([]byte, pageSize)...)
			h.index = uint64(len(b))
			h.bitmap = h.index + indexSegmentSize
			b = append(append(append(b, index...), bitmap...), h.block()...)
			f := mustOpen(t, b)
			if !bytes.Equal(extract(t, f, ExtractOptions{}), raw) {
				t.Errorf("method %d, blocks of %d: the disk differs", method, blockSize)
			}
		}
	}
}
