package zvhd2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/fuzztest"
)

// framedRaw is a disk with blocks that compress well, not at all and in part, zero units
// between others, and a short last block.
var framedRaw = sync.OnceValue(func() []byte {
	raw := make([]byte, 16<<20+512)
	disktest.Fill(raw[1<<21:][:9000], 1)
	disktest.Fill(raw[3<<21:][:1<<21], 3)
	copy(raw[4<<21+5*UnitSize:], text(4)[:20*UnitSize])
	disktest.Fill(raw[4<<21+7*UnitSize:][:UnitSize], 4)
	for _, at := range []int{1 << 21, 3 << 21, len(raw) - 1} {
		raw[at] = 1
	}
	return raw
})

var framedBytes = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	if _, err := Convert(context.Background(), &out, bytes.NewReader(framedRaw()), int64(len(framedRaw())), ConvertOptions{}); err != nil {
		panic(err)
	}
	return out.Bytes()
})

// framedFile is a sound framed file of framedRaw: 9 blocks, of which 1, 3, 4 and 8 are
// stored.
func framedFile() []byte { return bytes.Clone(framedBytes()) }

// readFramed reads a unit as a layer does that fetches frames itself.
func readFramed(f *File, b []byte, block uint32, u int) ([]byte, error) {
	table, length := f.FrameTable()
	at := f.FrameEntry(block)
	entry := b[table:][:length][at:][:FrameEntrySize]
	if err := f.CheckFrameEntries(entry, at); err != nil {
		return nil, err
	}
	frame := f.Frame(entry, block, u)
	dst := bytes.Repeat([]byte{0xee}, UnitSize)
	if frame.Zero {
		return make([]byte, UnitSize), nil
	}
	return dst, f.DecodeFrame(dst, b[frame.Offset:][:frame.Length], block, u, frame.Sum)
}

// Whatever the disk: each unit, fetched and decoded alone, is what lies there; what is
// said to be zeros is; and the frames of a block are its record's payload, one after the
// other.
func TestUnitsOfAnyDisk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		raw := drawDisk(rt)
		b := convertBytes(t, raw, Options{Concurrency: 1})
		f := mustOpen(t, b)
		if !f.Framed() {
			rt.Fatal("it is not framed")
		}
		if err := f.Verify(t.Context(), Options{}); err != nil {
			rt.Fatal(err)
		}
		padded := append(bytes.Clone(raw), make([]byte, DefaultBlockSize)...)
		for block := range f.Blocks() {
			record, _, ok := f.Record(block)
			if !ok {
				continue
			}
			table, _ := f.FrameTable()
			at := f.FrameEntry(block)
			entry := b[table+at:][:FrameEntrySize]
			next := record + zdisk.RecordHeadSize
			for u := range UnitsInBlock {
				got, err := readFramed(f, b, block, u)
				want := padded[int(block)*DefaultBlockSize+u*UnitSize:][:UnitSize]
				if err != nil || !bytes.Equal(got, want) {
					rt.Fatalf("unit %d of block %d: %v, or it differs", u, block, err)
				}
				frame := f.Frame(entry, block, u)
				if zero := bytes.Equal(want, make([]byte, UnitSize)); frame.Zero != zero || frame.Offset != next || frame.Sum != crcOf(want) {
					rt.Fatalf("unit %d of block %d, zeros: %v: %+v after %d", u, block, zero, frame, next)
				}
				next += frame.Length
			}
			if payload := int64(le.Uint32(b[record+12:])); next != record+zdisk.RecordHeadSize+payload {
				rt.Fatalf("the frames of block %d end at %d, its payload has %d bytes at %d", block, next, payload, record)
			}
		}
	})
}

// A file without its extension is what another reader sees: it opens, as one that is not
// framed, to the same disk. The frames of a record are one block to the zstd command.
func TestFramedFileToOthers(t *testing.T) {
	t.Parallel()
	b := framedFile()
	f := mustOpen(t, b)
	for block := range f.Blocks() {
		off, _, ok := f.Record(block)
		if !ok {
			continue
		}
		payload := b[off+zdisk.RecordHeadSize:][:le.Uint32(b[off+12:])]
		cmd := exec.CommandContext(t.Context(), "zstd", "-d", "-c")
		cmd.Stdin = bytes.NewReader(payload)
		got, err := cmd.Output()
		want := make([]byte, DefaultBlockSize)
		copy(want, framedRaw()[int(block)*DefaultBlockSize:])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("zstd -d of block %d: %d bytes, %v", block, len(got), err)
		}
	}
	clear(b[len(b)-pageSize+zdisk.HeaderSize:])
	plain := mustOpen(t, b)
	if plain.Framed() || !bytes.Equal(extract(t, plain, ExtractOptions{}), framedRaw()) {
		t.Error("without its extension the disk differs")
	}
	if err := plain.Verify(t.Context(), Options{}); err != nil {
		t.Error(err)
	}
}

// Small reads of a framed file read frames, not records, and each entry of the table once.
func TestReadsOfFramedReading(t *testing.T) {
	t.Parallel()
	b := framedFile()
	f := mustOpen(t, b)
	c := &disktest.Counter{R: bytes.NewReader(b)}
	f.r = c
	p := make([]byte, 4096)
	for _, step := range []struct {
		what        string
		off         int64
		reads, most int64
	}{
		{"a unit", 3<<21 + UnitSize, 2, UnitSize + 1024},
		{"the same unit", 3<<21 + UnitSize + 8192, 0, 0},
		{"the next unit", 3<<21 + 2*UnitSize, 1, UnitSize + 64},
		{"a unit of zeros", 4 << 21, 1, FrameEntrySize},
		{"another of text", 4<<21 + 6*UnitSize, 1, UnitSize / 2},
		{"two units", 4<<21 + 9*UnitSize - 1000, 2, UnitSize},
		{"a hole", 2 << 21, 0, 0},
	} {
		if _, err := f.ReadAt(p, step.off); err != nil || !bytes.Equal(p, framedRaw()[step.off:][:len(p)]) {
			t.Errorf("%s: %v, or the bytes differ", step.what, err)
		}
		reads, n := c.Reads(), int64(0)
		for _, r := range reads {
			n += r.Len
		}
		if int64(len(reads)) != step.reads || n > step.most {
			t.Errorf("%s: %v, right are %d reads of at most %d bytes", step.what, reads, step.reads, step.most)
		}
	}
}

// framedVictim is a framed file that a test pokes.
type framedVictim struct {
	*victim
	table, sums []byte
	parts       *frameParts
}

func newFramedVictim(t testing.TB) *framedVictim {
	b := framedFile()
	f := mustOpen(t, b)
	p := *f.frames
	return &framedVictim{
		victim: &victim{b: b, footer: b[len(b)-pageSize:], index: b[f.h.index:][:f.h.indexSize], bitmap: b[f.h.bitmap:][:f.h.bitmapSize]},
		table:  b[p.table:][:p.tableLen], sums: b[p.sums:][:p.sumsLen], parts: &p,
	}
}

func (v *framedVictim) ext() []byte { return v.footer[extOffset:][:extFramedSize] }

// seal makes every checksum hold again, up from the frame table's.
func (v *framedVictim) seal() {
	for k := range len(v.table) / FrameEntrySize {
		le.PutUint32(v.sums[4*k:], crcOf(v.table[k*FrameEntrySize:][:FrameEntrySize]))
	}
	e := v.ext()
	le.PutUint32(e[104:], crcOf(v.sums))
	v.sealFooter()
}

func (v *framedVictim) sealFooter() {
	e := v.ext()
	zdisk.Seal(v.footer)
	le.PutUint32(e[24:], crcOf(v.index))
	le.PutUint32(e[28:], crcOf(v.bitmap))
	le.PutUint32(e[32:], crcOf(v.footer[:zdisk.HeaderSize]))
	le.PutUint32(e[60:], crcOf(e[:60]))
	le.PutUint32(e[124:], crcOf(e[:124]))
}

// put32 and add64 change a field of the extension.
func put32(at int, x uint32) func(v *framedVictim) {
	return func(v *framedVictim) { le.PutUint32(v.ext()[at:], x) }
}
func add64(at int, x uint64) func(v *framedVictim) {
	return func(v *framedVictim) { le.PutUint64(v.ext()[at:], le.Uint64(v.ext()[at:])+x) }
}

// hostileFramed are files whose checksums all hold, wrong in one thing each of what the
// extension says. All must be refused at opening.
var hostileFramed = []struct {
	name  string
	poke  func(v *framedVictim)
	kind  error
	field string
}{
	{"version 0", put32(8, 0), diskformat.ErrUnsupported, "extension"},
	{"version 1 of 128 bytes", put32(8, 1), diskformat.ErrUnsupported, "extension"},
	{"version 3", put32(8, 3), diskformat.ErrUnsupported, "extension"},
	{"version giant", put32(8, math.MaxUint32), diskformat.ErrUnsupported, "extension"},
	{"length 64", put32(12, 64), diskformat.ErrUnsupported, "extension"},
	{"length 132", put32(12, 132), diskformat.ErrUnsupported, "extension"},
	{"file size a page more", add64(16, pageSize), diskformat.ErrCorrupt, "extension"},
	{"file size 0", func(v *framedVictim) { le.PutUint64(v.ext()[16:], 0) }, diskformat.ErrCorrupt, "extension"},
	{"reserved byte 36", func(v *framedVictim) { v.ext()[36] = 1 }, diskformat.ErrCorrupt, "extension"},
	{"reserved byte 59", func(v *framedVictim) { v.ext()[59] = 1 }, diskformat.ErrCorrupt, "extension"},
	{"reserved byte 108", func(v *framedVictim) { v.ext()[108] = 1 }, diskformat.ErrCorrupt, "extension"},
	{"reserved byte 123", func(v *framedVictim) { v.ext()[123] = 1 }, diskformat.ErrCorrupt, "extension"},
	{"table a byte later", add64(64, 1), diskformat.ErrCorrupt, "extension"},
	{"table a page later", add64(64, pageSize), diskformat.ErrCorrupt, "extension"},
	{"table a page earlier", add64(64, math.MaxUint64-pageSize+1), diskformat.ErrCorrupt, "extension"},
	{"table at 0", func(v *framedVictim) { le.PutUint64(v.ext()[64:], 0) }, diskformat.ErrCorrupt, "extension"},
	{"table at the index", func(v *framedVictim) { le.PutUint64(v.ext()[64:], v.get64(offIndex)) }, diskformat.ErrCorrupt, "extension"},
	{"table beyond the file", add64(64, 1<<40), diskformat.ErrCorrupt, "extension"},
	{"table so that its end overflows", func(v *framedVictim) { le.PutUint64(v.ext()[64:], math.MaxUint64-511) }, diskformat.ErrCorrupt, "extension"},
	{"table an entry shorter", add64(72, math.MaxUint64-FrameEntrySize+1), diskformat.ErrCorrupt, "extension"},
	{"table an entry longer", add64(72, FrameEntrySize), diskformat.ErrCorrupt, "extension"},
	{"table of no bytes", func(v *framedVictim) { le.PutUint64(v.ext()[72:], 0) }, diskformat.ErrCorrupt, "extension"},
	{"table giant", func(v *framedVictim) { le.PutUint64(v.ext()[72:], 1<<62) }, diskformat.ErrCorrupt, "extension"},
	{"sums a byte later", add64(80, 1), diskformat.ErrCorrupt, "extension"},
	{"sums at the bitmap", func(v *framedVictim) { le.PutUint64(v.ext()[80:], v.get64(offBitmap)) }, diskformat.ErrCorrupt, "extension"},
	{"sums at the table", func(v *framedVictim) { le.PutUint64(v.ext()[80:], v.parts.table) }, diskformat.ErrCorrupt, "extension"},
	{"sums beyond the file", add64(80, 1<<40), diskformat.ErrCorrupt, "extension"},
	{"sums negative", func(v *framedVictim) { le.PutUint64(v.ext()[80:], math.MaxUint64) }, diskformat.ErrCorrupt, "extension"},
	{"sums one shorter", add64(88, math.MaxUint64-3), diskformat.ErrCorrupt, "extension"},
	{"sums one longer", add64(88, 4), diskformat.ErrCorrupt, "extension"},
	{"sums giant", func(v *framedVictim) { le.PutUint64(v.ext()[88:], math.MaxUint64) }, diskformat.ErrCorrupt, "extension"},
	{"units of 0", put32(96, 0), diskformat.ErrUnsupported, "extension"},
	{"units of 32 KiB", put32(96, 32<<10), diskformat.ErrUnsupported, "extension"},
	{"units giant", put32(96, math.MaxUint32), diskformat.ErrUnsupported, "extension"},
	{"no units in a block", put32(100, 0), diskformat.ErrUnsupported, "extension"},
	{"64 units in a block", put32(100, 64), diskformat.ErrUnsupported, "extension"},
	{"another checksum of the sums", put32(104, 1), diskformat.ErrCorrupt, "frame sums"},
	{"a sum changed", func(v *framedVictim) { v.sums[5] ^= 1 }, diskformat.ErrCorrupt, "frame sums"},
	{"compressed by zlib", func(v *framedVictim) { v.set8(offCompression, methodZlib) }, diskformat.ErrCorrupt, "compress_method"},
	{"an index by block", func(v *framedVictim) { v.set8(offIndexByBlk, 1) }, diskformat.ErrCorrupt, "index"},
	{"blocks of 4 MiB", func(v *framedVictim) {
		v.set32(offBlockSize, 4<<20)
		v.set32(offMaxBlocks, 5)
	}, diskformat.ErrCorrupt, "block_size"},
	{"blocks of 1 MiB", func(v *framedVictim) {
		v.set32(offBlockSize, 1<<20)
		v.set32(offMaxBlocks, 17)
	}, diskformat.ErrCorrupt, "block_size"},
	{"a stored block less", func(v *framedVictim) { v.set32(offDataBlocks, 3) }, diskformat.ErrCorrupt, ""},
	{"a stored block more, in the table too", func(v *framedVictim) {
		v.set32(offDataBlocks, 5)
		add64(72, FrameEntrySize)(v)
		add64(88, 4)(v)
	}, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"no stored blocks at all", func(v *framedVictim) {
		v.set32(offDataBlocks, 0)
		v.set32(offIndexSegs, 0)
		v.set32(offIndexSize, 0)
	}, diskformat.ErrCorrupt, ""},
	{"an index a page earlier", func(v *framedVictim) { v.set64(offIndex, v.get64(offIndex)-pageSize) }, diskformat.ErrCorrupt, ""},
	{"a bitmap before the index", func(v *framedVictim) { v.set64(offBitmap, v.parts.table) }, diskformat.ErrCorrupt, ""},
	{"an index at the front", func(v *framedVictim) { v.set64(offIndex, 2*pageSize) }, diskformat.ErrCorrupt, ""},
	{"a record over the first copy", func(v *framedVictim) { o, b, n := v.entryAt(3); v.entry(3, o, b, n+pageSize) }, diskformat.ErrCorrupt, "index"},
	{"a record in the table", func(v *framedVictim) { _, b, n := v.entryAt(3); v.entry(3, v.parts.table, b, n) }, diskformat.ErrCorrupt, "index"},
}

func TestHostileFramedFiles(t *testing.T) {
	for _, c := range hostileFramed {
		t.Run(c.name, func(t *testing.T) {
			v := newFramedVictim(t)
			mustOpen(t, v.b)
			c.poke(v)
			v.sealFooter()
			err := disktest.Refuse(t, bytes.NewReader(v.b), 2<<20, func(r io.ReaderAt) error {
				_, err := Open(r, int64(len(v.b)))
				return err
			})
			wantKind(t, err, c.kind, c.field)
		})
	}
}

// entryFaults are entries wrong in one thing each, under sums that hold. e is that of
// block 4, the third: no data in units 0 to 4, text, and in unit 7 noise.
var entryFaults = []struct {
	name string
	poke func(e []byte)
}{
	{"ends descending", func(e []byte) { setEnd(e, 6, end(e, 5)-1) }},
	{"ends equal", func(e []byte) { setEnd(e, 6, end(e, 5)) }},
	{"the first end 0", func(e []byte) { setEnd(e, 0, 0) }},
	{"all ends 0", func(e []byte) {
		for u := range UnitsInBlock {
			setEnd(e, u, 0)
		}
	}},
	{"an end beyond the record", func(e []byte) { setEnd(e, UnitsInBlock-1, 3<<20) }},
	{"an end huge", func(e []byte) { setEnd(e, 9, maxFrameEnd) }},
	{"the last end a page more", func(e []byte) { setEnd(e, UnitsInBlock-1, end(e, UnitsInBlock-1)+pageSize) }},
	{"the last end a page less", func(e []byte) {
		for u := range UnitsInBlock {
			if n := end(e, u); n > pageSize {
				setEnd(e, u, n-pageSize)
			}
		}
	}},
	{"a frame of 14 bytes", func(e []byte) { setEnd(e, 1, end(e, 0)+minFrame-1) }},
	{"a frame over its bound", func(e []byte) {
		more := MaxFrame + 1 - (end(e, 7) - end(e, 6)) // by how much the frame of noise grows
		for u := 7; u < UnitsInBlock; u++ {
			setEnd(e, u, end(e, u)+more)
		}
	}},
	{"bit 28", func(e []byte) { e[3] |= 0x10 }},
	{"bit 29", func(e []byte) { e[8*5+3] |= 0x20 }},
	{"bit 30", func(e []byte) { e[8*31+3] |= 0x40 }},
	{"text that is said to be zeros", func(e []byte) { e[8*5+3] |= 0x80 }},
	{"noise that is said to be zeros", func(e []byte) { e[8*7+3] |= 0x80 }},
	{"text that is said to be zeros, sum and all", func(e []byte) { e[8*7+3] |= 0x80; le.PutUint32(e[8*7+4:], zeroUnitCRC) }},
	{"zeros with another sum", func(e []byte) { e[4]++ }},
	{"an empty entry", func(e []byte) { clear(e) }},
}

func end(e []byte, u int) uint32 { return le.Uint32(e[8*u:]) & maxFrameEnd }
func setEnd(e []byte, u int, x uint32) {
	le.PutUint32(e[8*u:], le.Uint32(e[8*u:])&^uint32(maxFrameEnd)|x)
}

// A faulty entry is an error for its block, however it is read, and for no other. The
// record can be decoded all the same.
func TestHostileFrameEntries(t *testing.T) {
	t.Parallel()
	for _, c := range entryFaults {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newFramedVictim(t)
			c.poke(v.table[2*FrameEntrySize:][:FrameEntrySize])
			v.seal()
			f := mustOpen(t, v.b)
			_, err := readFramed(f, v.b, 4, 5)
			wantKind(t, err, diskformat.ErrCorrupt, "frame table")
			p := make([]byte, 4096)
			_, err = f.ReadAt(p, 4<<21+5*UnitSize)
			wantKind(t, err, diskformat.ErrCorrupt, "frame table")
			wantKind(t, f.Verify(t.Context(), Options{}), diskformat.ErrCorrupt, "frame table")
			if _, err := f.ReadAt(p, 3<<21+UnitSize); err != nil || !bytes.Equal(p, framedRaw()[3<<21+UnitSize:][:4096]) {
				t.Errorf("another block: %v", err)
			}
			if !bytes.Equal(extract(t, f, ExtractOptions{}), framedRaw()) {
				t.Error("the disk differs")
			}
		})
	}
}

// Entries that could be true but are not: a sum of other bytes, a boundary elsewhere,
// zeros that are not said to be. Reads fail or are right, and Verify finds each.
func TestTableThatDisagreesWithTheRecords(t *testing.T) {
	t.Parallel()
	for name, poke := range map[string]func(v *framedVictim){
		"a sum":                      func(v *framedVictim) { v.table[2*FrameEntrySize+8*9+4]++ },
		"a boundary a byte later":    func(v *framedVictim) { e := v.table[2*FrameEntrySize:]; setEnd(e, 9, end(e, 9)+1) },
		"a boundary a byte earlier":  func(v *framedVictim) { e := v.table[2*FrameEntrySize:]; setEnd(e, 9, end(e, 9)-1) },
		"zeros that are not said so": func(v *framedVictim) { v.table[2*FrameEntrySize+3] &^= 0x80 },
		"the last boundary":          func(v *framedVictim) { e := v.table[2*FrameEntrySize:]; setEnd(e, 31, end(e, 31)+1) },
		"two sums swapped": func(v *framedVictim) {
			e := v.table[2*FrameEntrySize:]
			a, b := le.Uint32(e[8*9+4:]), le.Uint32(e[8*10+4:])
			le.PutUint32(e[8*9+4:], b)
			le.PutUint32(e[8*10+4:], a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newFramedVictim(t)
			poke(v)
			v.seal()
			f := mustOpen(t, v.b)
			wantKind(t, f.Verify(t.Context(), Options{}), diskformat.ErrCorrupt, "frame table")
			for u := range UnitsInBlock {
				got, err := readFramed(f, v.b, 4, u)
				if err == nil && !bytes.Equal(got, framedRaw()[4<<21+u*UnitSize:][:UnitSize]) {
					t.Errorf("unit %d: other bytes", u)
				}
				if err != nil && !errors.Is(err, diskformat.ErrCorrupt) {
					t.Error(err)
				}
			}
		})
	}
}

// Frames that are wrong in one thing each, under the sum of what they decode to.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	unit := text(3)[:UnitSize]
	good := frame(t, unit, zstd.WithSingleSegment(true))
	f := &File{h: header{blockSize: DefaultBlockSize, maxBlocks: 9, compression: methodZstd}}
	f.h.OrigSize = 9 * DefaultBlockSize
	dst := make([]byte, UnitSize, UnitSize+DecodeSlack)
	for name, ok := range map[string][]byte{
		"one segment": good, "a window": window(good, 6<<3), // 64 KiB
		"no checksum":   frame(t, unit, zstd.WithEncoderCRC(false)),
		"stored":        frame(t, madeUpBlock(1)[:UnitSize]),
		"of zstd's own": zstdCommand(t, unit),
	} {
		want := unit
		if name == "stored" {
			want = madeUpBlock(1)[:UnitSize]
		}
		if err := f.DecodeFrame(dst, ok, 1, 2, crcOf(want)); err != nil || !bytes.Equal(dst, want) {
			t.Errorf("a sound frame, %s: %v", name, err)
		}
	}
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0x10
	for _, c := range []struct {
		name  string
		frame []byte
		sum   uint32
	}{
		{"nothing", nil, 0},
		{"of half a unit", frame(t, unit[:UnitSize/2]), crcOf(unit[:UnitSize/2])},
		{"of two units", frame(t, text(3)[:2*UnitSize]), crcOf(unit)},
		{"of a byte less", frame(t, unit[1:]), crcOf(unit[1:])},
		{"that lies about its size", lieOf(t, unit[:UnitSize/2]), crcOf(unit)},
		{"a bomb that lies", lieOf(t, make([]byte, 64<<20)), zeroUnitCRC},
		{"content size unknown", streamed(t, unit), crcOf(unit)},
		{"skippable", skippable, 0},
		{"skippable first", append(bytes.Clone(skippable), good...), crcOf(unit)},
		{"skippable behind", append(bytes.Clone(good), skippable...), crcOf(unit)},
		{"a dictionary", dictionary(good), crcOf(unit)},
		{"two in a range", append(bytes.Clone(good), good...), crcOf(unit)},
		{"two halves in a range", append(frame(t, unit[:UnitSize/2]), frame(t, unit[UnitSize/2:])...), crcOf(unit)},
		{"an empty one behind", append(bytes.Clone(good), frame(t, nil, zstd.WithZeroFrames(true))...), crcOf(unit)},
		{"a window of 128 KiB", window(good, 7<<3), crcOf(unit)},
		{"a window of 1 GiB", window(good, 20<<3), crcOf(unit)},
		{"the largest window", window(good, 0xff), crcOf(unit)},
		{"a byte less", good[:len(good)-1], crcOf(unit)},
		{"a byte more", append(bytes.Clone(good), 0), crcOf(unit)},
		{"a bit flipped", flipped, crcOf(unit)},
		{"no magic", unit[:1000], crcOf(unit)},
		{"another sum", good, crcOf(unit) + 1},
		{"of another unit", frame(t, text(4)[:UnitSize]), crcOf(unit)},
	} {
		err := f.DecodeFrame(dst, c.frame, 1, 2, c.sum)
		if !errors.Is(err, diskformat.ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := f.DecodeFrame(dst[1:], good, 1, 2, crcOf(unit)); err == nil {
		t.Error("a short destination was taken")
	}
	// Beyond the disk's end there are zeros, whatever the frame holds.
	f.h.OrigSize = DefaultBlockSize + 2*UnitSize + 512
	if err := f.DecodeFrame(dst, good, 1, 2, crcOf(unit)); err != nil || !bytes.Equal(dst, append(bytes.Clone(unit[:512]), make([]byte, UnitSize-512)...)) {
		t.Errorf("bytes beyond the disk are not zero (%v)", err)
	}
}

// lieOf is a frame of p whose header says that it holds a unit.
func lieOf(t testing.TB, p []byte) []byte {
	b := frame(t, p, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	var h zstd.Header
	rest, err := h.DecodeAndStrip(b)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 1, 0}, rest...)
}

func zstdCommand(t testing.TB, p []byte) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "zstd", "-c", "--stream-size=65536")
	cmd.Stdin = bytes.NewReader(p)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Every bit of the extension, of the frame sums and of an entry, flipped: the file is
// refused, or every byte that it gives is right.
func TestEveryBitOfFramesCounts(t *testing.T) {
	t.Parallel()
	v := newFramedVictim(t)
	flip := func(what string, p []byte) {
		for bit := range 8 * len(p) {
			p[bit/8] ^= 1 << (bit % 8)
			f, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
			if err == nil {
				for u := range 10 {
					part := make([]byte, 1000)
					off := 4<<21 + u*UnitSize + 100
					if _, err := f.ReadAt(part, int64(off)); err == nil && !bytes.Equal(part, framedRaw()[off:][:len(part)]) {
						t.Fatalf("%s, bit %d: other bytes", what, bit)
					}
				}
				if what != "entry" && f.Framed() {
					t.Fatalf("%s, bit %d: opened", what, bit)
				}
			} else if !errors.Is(err, diskformat.ErrCorrupt) {
				t.Fatalf("%s, bit %d: %v", what, bit, err)
			}
			p[bit/8] ^= 1 << (bit % 8)
		}
	}
	flip("extension", v.ext())
	flip("sums", v.sums)
	flip("entry", v.table[2*FrameEntrySize:][:FrameEntrySize])
	mustOpen(t, v.b)
}

// Reads of a framed file that fail, at each of them, are errors and never zeros.
func TestFramedReadingFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	b := framedFile()
	sound := mustOpen(t, b)
	table, _ := sound.FrameTable()
	frame := sound.Frame(b[table+FrameEntrySize:][:FrameEntrySize], 3, 1)
	for _, at := range []int64{table + FrameEntrySize, frame.Offset, frame.Offset + frame.Length - 1} {
		f := mustOpen(t, b)
		f.r = disktest.Failing{R: bytes.NewReader(b), At: at, Err: broken}
		for range 2 {
			if n, err := f.ReadAt(make([]byte, 100), 3<<21+2*UnitSize-50); !errors.Is(err, broken) || n != 0 {
				t.Errorf("failing at %d: %d, %v", at, n, err)
			}
		}
	}
	f := mustOpen(t, b)
	if err := f.CheckFrameEntries(make([]byte, FrameEntrySize), 4*FrameEntrySize); err == nil {
		t.Error("an entry beyond the table was taken")
	}
	if err := f.CheckFrameEntries(make([]byte, FrameEntrySize-1), 0); err == nil {
		t.Error("a part of an entry was taken")
	}
}

// FuzzZVHD2Framed opens framed files with another footer, frame sums and index; a first
// time as they are, then with checksums that hold.
func FuzzZVHD2Framed(f *testing.F) {
	v := newFramedVictim(f)
	f.Add(v.footer[:extOffset+extFramedSize], v.sums, v.index[:64])
	zeros := convertBytes(f, make([]byte, 512), Options{})
	f.Add(zeros[len(zeros)-pageSize:][:extOffset+extFramedSize], []byte{}, []byte{})
	sound := framedFile()
	fuzztest.Fuzz(f, func(t *testing.T, footer, sums, index []byte) {
		copy(v.b, sound[:pageSize])
		copy(v.footer[:extOffset+extFramedSize], footer)
		copy(v.sums, sums)
		clear(v.index[:64])
		copy(v.index, index)
		check := func() {
			file, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
			if err != nil || !file.Framed() {
				return
			}
			table, length := file.FrameTable()
			if table%pageSize != 0 || table < 2*pageSize || length != int64(file.DataBlocks())*FrameEntrySize || table+length > int64(len(v.b)) {
				t.Fatalf("a frame table of %d bytes at %d", length, table)
			}
			for block := range file.Blocks() {
				off, n, ok := file.Record(block)
				if !ok {
					continue
				}
				if off+n > table-pageSize {
					t.Fatalf("the record of block %d, %d bytes at %d, reaches into the copy before the table at %d", block, n, off, table)
				}
				at := file.FrameEntry(block)
				entry := v.b[table+at:][:FrameEntrySize]
				if file.CheckFrameEntries(entry, at) != nil {
					continue
				}
				for u := range UnitsInBlock {
					if fr := file.Frame(entry, block, u); fr.Length < minFrame || fr.Length > MaxFrame || fr.Offset < off || fr.Offset+fr.Length > off+n {
						t.Fatalf("unit %d of block %d: %+v in a record of %d bytes at %d", u, block, fr, n, off)
					}
				}
			}
		}
		check()
		le.PutUint32(v.ext()[104:], crcOf(v.sums))
		v.sealFooter()
		check()
	})
}

// FuzzZVHD2Frame takes an entry of a frame table and the frame of a unit.
func FuzzZVHD2Frame(f *testing.F) {
	v := newFramedVictim(f)
	unit := text(5)[:UnitSize]
	f.Add(v.table[:FrameEntrySize], frame(f, unit))
	f.Add(v.table[2*FrameEntrySize:3*FrameEntrySize], frame(f, unit, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)))
	f.Add(v.table[FrameEntrySize:2*FrameEntrySize], frame(f, make([]byte, UnitSize)))
	f.Add(slices.Repeat([]byte{0x40, 0, 0, 0, 1, 2, 3, 4}, UnitsInBlock), lieOf(f, unit[:1000]))
	file := &File{h: header{blockSize: DefaultBlockSize, maxBlocks: 1, compression: methodZstd}}
	file.h.OrigSize = DefaultBlockSize
	dst := bytes.Repeat([]byte{0xee}, UnitSize+DecodeSlack+64)
	fuzztest.Fuzz(f, func(t *testing.T, entry, stored []byte) {
		if len(entry) >= FrameEntrySize {
			entry = entry[:FrameEntrySize]
			last := int64(end(entry, UnitsInBlock-1))
			if checkFrameEntry(entry, 0, zdisk.RecordLen(last)) == nil {
				prev := uint32(0)
				for u := range UnitsInBlock {
					if n := end(entry, u) - prev; end(entry, u) <= prev || n > MaxFrame {
						t.Fatalf("unit %d ends at %d after %d", u, end(entry, u), prev)
					}
					prev = end(entry, u)
				}
			}
		}
		if len(stored) > MaxFrame {
			return
		}
		// A sum that holds lets all else be reached: it is that of what is decoded.
		err := decodeFrame(dst[:UnitSize:UnitSize+DecodeSlack], stored, 0)
		sum := crcOf(dst[:UnitSize])
		if again := decodeFrame(dst[:UnitSize:UnitSize+DecodeSlack], stored, sum); again == nil {
			if crcOf(dst[:UnitSize]) != sum || err == nil && sum != 0 {
				t.Fatal("it decodes to something else the second time")
			}
		}
		if guard := dst[UnitSize+DecodeSlack:]; bytes.Count(guard, []byte{0xee}) != len(guard) {
			t.Fatal("the decoder wrote behind its room")
		}
	})
}
