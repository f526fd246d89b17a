package zvhd2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// victim is a sound file that a test pokes: 9 blocks, of which 1, 3, 4 and 8
// are stored. It is the published form unless ext asks for our extension.
type victim struct {
	b      []byte
	footer []byte
	index  []byte
	bitmap []byte
}

func newVictim(t testing.TB, ext bool) *victim {
	t.Helper()
	v := &victim{b: bytes.Clone(victimFile())}
	v.footer = v.b[len(v.b)-pageSize:]
	h := parseHeader(v.footer)
	v.index, v.bitmap = v.b[h.index:][:h.indexSize], v.b[h.bitmap:][:h.bitmapSize]
	if !ext {
		clear(v.footer[zdisk.HeaderSize:])
	}
	return v
}

var victimFile = sync.OnceValue(func() []byte {
	raw := make([]byte, 16<<20+512)
	for _, block := range []int{1, 3, 4} {
		disktest.Fill(raw[block<<21:][:9000], uint64(block))
		raw[block<<21] = 1
	}
	raw[len(raw)-1] = 1
	var out bytes.Buffer
	if _, err := Convert(context.Background(), &out, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{Options: Options{WholeBlocks: true}}); err != nil {
		panic(err)
	}
	return out.Bytes()
})

func (v *victim) set8(off int, x uint8)   { v.footer[off] = x; zdisk.Seal(v.footer) }
func (v *victim) set32(off int, x uint32) { le.PutUint32(v.footer[off:], x); zdisk.Seal(v.footer) }
func (v *victim) set64(off int, x uint64) { le.PutUint64(v.footer[off:], x); zdisk.Seal(v.footer) }
func (v *victim) get32(off int) uint32    { return le.Uint32(v.footer[off:]) }
func (v *victim) get64(off int) uint64    { return le.Uint64(v.footer[off:]) }

// entry changes entry k of the index.
func (v *victim) entry(k int, off uint64, block, length uint32) {
	e := v.index[16*k:]
	le.PutUint64(e, off)
	le.PutUint32(e[8:], block)
	le.PutUint32(e[12:], length)
}

func (v *victim) entryAt(k int) (off uint64, block, length uint32) {
	e := v.index[16*k:]
	return le.Uint64(e), le.Uint32(e[8:]), le.Uint32(e[12:])
}

var le = binary.LittleEndian

// wantKind checks that err is of a kind and names a field.
func wantKind(t testing.TB, err, kind error, field string) {
	t.Helper()
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(e.Field, field) {
		t.Fatalf("the error is %v; it should be %q and name %q", err, kind, field)
	}
}

// hostile are files that are wrong in one thing each. All must be refused at
// opening, whatever the rest of the file holds.
var hostile = []struct {
	name  string
	poke  func(v *victim)
	kind  error
	field string
}{
	{"checksum of the footer", func(v *victim) { v.footer[200] ^= 1 }, diskformat.ErrCorrupt, "checksum"},
	{"checksum field", func(v *victim) { v.footer[64] ^= 1 }, diskformat.ErrCorrupt, "checksum"},
	{"version 0", func(v *victim) { v.set8(offVersion, 0) }, diskformat.ErrUnsupported, "zvhd2_version"},
	{"version 2", func(v *victim) { v.set8(offVersion, 2) }, diskformat.ErrUnsupported, "zvhd2_version"},
	{"version 255", func(v *victim) { v.set8(offVersion, 255) }, diskformat.ErrUnsupported, "zvhd2_version"},
	{"compression 2", func(v *victim) { v.set8(offCompression, 2) }, diskformat.ErrUnsupported, "compress_method"},
	{"index form 2", func(v *victim) { v.set8(offIndexByBlk, 2) }, diskformat.ErrUnsupported, "index_contains_zero_blk"},
	{"index form 1 over a dense index", func(v *victim) { v.set8(offIndexByBlk, 1) }, diskformat.ErrCorrupt, "index"},

	{"block size 0", func(v *victim) { v.set32(offBlockSize, 0) }, diskformat.ErrCorrupt, "block_size"},
	{"block size 512 KiB", func(v *victim) { v.set32(offBlockSize, 512<<10) }, diskformat.ErrCorrupt, "block_size"},
	{"block size 64 MiB", func(v *victim) { v.set32(offBlockSize, 64<<20) }, diskformat.ErrCorrupt, "block_size"},
	{"block size 3 MiB", func(v *victim) { v.set32(offBlockSize, 3<<20) }, diskformat.ErrCorrupt, "block_size"},
	{"block size negative", func(v *victim) { v.set32(offBlockSize, 1<<31) }, diskformat.ErrCorrupt, "block_size"},
	{"block size 4 MiB, count not", func(v *victim) { v.set32(offBlockSize, 4<<20) }, diskformat.ErrCorrupt, "max_blk_num"},

	{"orig_size 0", func(v *victim) { v.set64(40, 0) }, diskformat.ErrCorrupt, "orig_size"},
	{"orig_size odd", func(v *victim) { v.set64(40, v.get64(40)-1) }, diskformat.ErrCorrupt, "orig_size"},
	{"orig_size over 1 TiB", func(v *victim) { v.set64(40, 1<<40+512) }, diskformat.ErrUnsupported, "orig_size"},
	{"orig_size negative", func(v *victim) { v.set64(40, math.MaxUint64-511) }, diskformat.ErrUnsupported, "orig_size"},
	{"curr_size below orig_size", func(v *victim) { v.set64(48, v.get64(40)-512) }, diskformat.ErrCorrupt, "curr_size"},
	{"curr_size 1 GiB more", func(v *victim) { v.set64(48, v.get64(40)+1<<30) }, diskformat.ErrCorrupt, "curr_size"},
	{"curr_size negative", func(v *victim) { v.set64(48, math.MaxUint64) }, diskformat.ErrCorrupt, "curr_size"},
	{"max_blk_num one less", func(v *victim) { v.set32(offMaxBlocks, v.get32(offMaxBlocks)-1) }, diskformat.ErrCorrupt, "max_blk_num"},
	{"max_blk_num one more", func(v *victim) { v.set32(offMaxBlocks, v.get32(offMaxBlocks)+1) }, diskformat.ErrCorrupt, "max_blk_num"},
	{"max_blk_num giant", func(v *victim) { v.set32(offMaxBlocks, math.MaxUint32) }, diskformat.ErrCorrupt, "max_blk_num"},
	{"non_zero_blk_num one less", func(v *victim) { v.set32(offDataBlocks, 3) }, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"non_zero_blk_num one more", func(v *victim) { v.set32(offDataBlocks, 5) }, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"non_zero_blk_num over the blocks", func(v *victim) { v.set32(offDataBlocks, 10) }, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"non_zero_blk_num giant", func(v *victim) { v.set32(offDataBlocks, math.MaxUint32) }, diskformat.ErrCorrupt, "non_zero_blk_num"},

	{"index_lba 0", func(v *victim) { v.set64(offIndex, 0) }, diskformat.ErrIncomplete, "index_lba"},
	{"index_lba not aligned", func(v *victim) { v.set64(offIndex, v.get64(offIndex)+16) }, diskformat.ErrCorrupt, "index_lba"},
	{"index_lba in the header", func(v *victim) { v.set64(offIndex, pageSize) }, diskformat.ErrCorrupt, "index_lba"},
	{"index_lba beyond the file", func(v *victim) { v.set64(offIndex, 1<<40) }, diskformat.ErrCorrupt, "index_lba"},
	{"index_lba at the footer", func(v *victim) { v.set64(offIndex, uint64(len(v.b)-pageSize)) }, diskformat.ErrCorrupt, "index_lba"},
	{"index_lba so that the end overflows", func(v *victim) { v.set64(offIndex, math.MaxUint64-4095) }, diskformat.ErrCorrupt, "index_lba"},
	{"index_lba a page later", func(v *victim) { v.set64(offIndex, v.get64(offIndex)+pageSize) }, diskformat.ErrCorrupt, "bitmap_lba"},
	{"bitmap_lba 0", func(v *victim) { v.set64(offBitmap, 0) }, diskformat.ErrCorrupt, "bitmap_lba"},
	{"bitmap_lba not aligned", func(v *victim) { v.set64(offBitmap, v.get64(offBitmap)+8) }, diskformat.ErrCorrupt, "bitmap_lba"},
	{"bitmap_lba at the footer", func(v *victim) { v.set64(offBitmap, uint64(len(v.b)-pageSize)) }, diskformat.ErrCorrupt, "bitmap_lba"},
	{"bitmap_lba negative", func(v *victim) { v.set64(offBitmap, math.MaxUint64-4095) }, diskformat.ErrCorrupt, "bitmap_lba"},
	{"bitmap in the index", func(v *victim) { v.set64(offBitmap, v.get64(offIndex)+pageSize) }, diskformat.ErrCorrupt, "bitmap_lba"},

	{"index_size not segments", func(v *victim) { v.set32(offIndexSize, v.get32(offIndexSize)-pageSize) }, diskformat.ErrCorrupt, "index_size"},
	{"index_size giant", func(v *victim) { v.set32(offIndexSize, math.MaxUint32) }, diskformat.ErrCorrupt, "index_size"},
	{"index segments overflow 32 bits", func(v *victim) { v.set32(offIndexSegs, 1<<13+1) }, diskformat.ErrCorrupt, "index_size"},
	{"index segments more than the file", func(v *victim) { v.set32(offIndexSegs, 4096); v.set32(offIndexSize, 4096*indexSegmentSize) }, diskformat.ErrCorrupt, "index_lba"},
	{"index without room for its entries", func(v *victim) {
		v.set32(offIndexSeg, 48)
		v.set32(offIndexSize, 48)
	}, diskformat.ErrCorrupt, "index_size"},
	{"no index for blocks there are", func(v *victim) { v.set32(offIndexSegs, 0); v.set32(offIndexSize, 0) }, diskformat.ErrCorrupt, "index_size"},
	{"bitmap_size not segments", func(v *victim) { v.set32(offBitmapSize, 2*4096) }, diskformat.ErrCorrupt, "bitmap_size"},
	{"bitmap without room for its bits", func(v *victim) { v.set32(offBitmapSeg, 1); v.set32(offBitmapSize, 1) }, diskformat.ErrCorrupt, "bitmap_size"},
	{"bitmap segments overflow 32 bits", func(v *victim) { v.set32(offBitmapSegs, 1<<20+1) }, diskformat.ErrCorrupt, "bitmap_size"},
	{"bitmap_size giant", func(v *victim) {
		v.set32(offBitmapSeg, 1<<31)
		v.set32(offBitmapSize, 1<<31)
	}, diskformat.ErrUnsupported, "bitmap_size"},

	{"a bit more", func(v *victim) { v.bitmap[0] |= 1 }, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"a bit less", func(v *victim) { v.bitmap[0] &^= 2 }, diskformat.ErrCorrupt, "non_zero_blk_num"},
	{"a bit beyond the disk", func(v *victim) { v.bitmap[1] |= 2 }, diskformat.ErrCorrupt, "bitmap"},
	{"the bitmap's last bit", func(v *victim) { v.bitmap[4095] = 0x80 }, diskformat.ErrCorrupt, "bitmap"},
	{"another block's bit", func(v *victim) { v.bitmap[0] ^= 2 | 1 }, diskformat.ErrCorrupt, "index"},
	{"bits most significant first", func(v *victim) { v.bitmap[0], v.bitmap[1] = 0x58, 0x01 }, diskformat.ErrCorrupt, "index"},

	{"entry of another block", func(v *victim) { o, _, n := v.entryAt(1); v.entry(1, o, 2, n) }, diskformat.ErrCorrupt, "index"},
	{"entry of a block beyond", func(v *victim) { o, _, n := v.entryAt(3); v.entry(3, o, math.MaxUint32, n) }, diskformat.ErrCorrupt, "index"},
	{"entry twice", func(v *victim) { o, b, n := v.entryAt(0); v.entry(1, o, b, n) }, diskformat.ErrCorrupt, "index"},
	{"two entries swapped", func(v *victim) {
		o1, b1, n1 := v.entryAt(1)
		o2, b2, n2 := v.entryAt(2)
		v.entry(1, o2, b2, n2)
		v.entry(2, o1, b1, n1)
	}, diskformat.ErrCorrupt, "index"},
	{"two records swapped", func(v *victim) {
		o1, b1, n1 := v.entryAt(1)
		o2, b2, n2 := v.entryAt(2)
		v.entry(1, o2, b1, n2)
		v.entry(2, o1, b2, n1)
	}, diskformat.ErrCorrupt, "index"},
	{"two blocks share a record", func(v *victim) { o, _, n := v.entryAt(1); v.entry(2, o, 4, n) }, diskformat.ErrCorrupt, "index"},
	{"records overlap by a page", func(v *victim) { o, b, n := v.entryAt(0); v.entry(0, o, b, n+pageSize) }, diskformat.ErrCorrupt, "index"},
	{"entry at 0", func(v *victim) { _, b, n := v.entryAt(0); v.entry(0, 0, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry not aligned", func(v *victim) { o, b, n := v.entryAt(3); v.entry(3, o+512, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry over the copy", func(v *victim) { o, b, n := v.entryAt(3); v.entry(3, o, b, n+pageSize) }, diskformat.ErrCorrupt, "index"},
	{"entry at the copy", func(v *victim) { _, b, n := v.entryAt(3); v.entry(3, v.get64(offIndex)-pageSize, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry beyond the file", func(v *victim) { _, b, n := v.entryAt(3); v.entry(3, 1<<43, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry so that the end overflows", func(v *victim) { _, b, n := v.entryAt(3); v.entry(3, math.MaxUint64-4095, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry negative", func(v *victim) { _, b, n := v.entryAt(3); v.entry(3, 1<<63, b, n) }, diskformat.ErrCorrupt, "index"},
	{"entry empty", func(v *victim) { v.entry(3, 0, 0, 0) }, diskformat.ErrCorrupt, "index"},
	{"length 0", func(v *victim) { o, b, _ := v.entryAt(3); v.entry(3, o, b, 0) }, diskformat.ErrCorrupt, "index"},
	{"length below a page", func(v *victim) { o, b, _ := v.entryAt(3); v.entry(3, o, b, 512) }, diskformat.ErrCorrupt, "index"},
	{"length not aligned", func(v *victim) { o, b, n := v.entryAt(2); v.entry(2, o, b, n+1) }, diskformat.ErrCorrupt, "index"},
	{"length giant", func(v *victim) { o, b, _ := v.entryAt(3); v.entry(3, o, b, math.MaxUint32&^4095) }, diskformat.ErrCorrupt, "index"},
	{"length over a block's bound", func(v *victim) { o, b, _ := v.entryAt(3); v.entry(3, o, b, uint32(maxRecord(2<<20))+pageSize) }, diskformat.ErrCorrupt, "index"},
}

func TestHostileFilesAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, false)
			mustOpen(t, v.b)
			c.poke(v)
			_, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
			wantKind(t, err, c.kind, c.field)
		})
	}
}

// The same, but for what memory and reads it takes. Not parallel: it measures.
func TestHostileFilesTakeLittle(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			v := newVictim(t, false)
			c.poke(v)
			_ = disktest.Refuse(t, bytes.NewReader(v.b), 2<<20, func(r io.ReaderAt) error {
				_, err := Open(r, int64(len(v.b)))
				return err
			})
		})
	}
}

// Every byte of the footer that counts, every byte of the index that is used
// and the bitmap, flipped bit by bit: the file is refused, or else opens to
// the same disk because the bit tells nothing (a time, a UUID).
func TestEveryBitOfTheFooterCounts(t *testing.T) {
	t.Parallel()
	b := small(t, false, false)
	v := &victim{b: b, footer: b[len(b)-pageSize:]}
	want := mustOpen(t, v.b)
	sound := bytes.Clone(v.footer)
	for bit := range 8 * zdisk.HeaderSize {
		if bit/8 >= 64 && bit/8 < 68 {
			continue // the checksum itself, which sealing would mend
		}
		copy(v.footer, sound)
		v.footer[bit/8] ^= 1 << (bit % 8)
		if _, err := Open(bytes.NewReader(v.b), int64(len(v.b))); err == nil {
			t.Fatalf("bit %d flipped: opened", bit)
		}
		zdisk.Seal(v.footer)
		f, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
		if err != nil {
			continue
		}
		for block := range want.Blocks() {
			o1, n1, ok1 := want.Record(block)
			o2, n2, ok2 := f.Record(block)
			if o1 != o2 || n1 != n2 || ok1 != ok2 {
				t.Fatalf("bit %d flipped: block %d has another record", bit, block)
			}
		}
	}
}

// Our own files have checksums over the index, so that every bit counts.
func TestExtensionProtectsIndexAndBitmap(t *testing.T) {
	t.Parallel()
	v := newVictim(t, true)
	mustOpen(t, v.b)
	refused := func(what string, i int, b *byte) {
		bit := byte(1) << (i % 8)
		*b ^= bit
		_, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
		if !errors.Is(err, diskformat.ErrCorrupt) || !strings.Contains(err.Error(), what) {
			t.Fatalf("%s, byte %d: %v", what, i, err)
		}
		*b ^= bit
	}
	for i := 0; i < len(v.index); i += 1 + i/64*101 {
		refused("index", i, &v.index[i])
	}
	for i := 0; i < len(v.bitmap); i += 1 + i/16*37 {
		refused("bitmap: its bytes make the checksum", i, &v.bitmap[i])
	}
	for i := 8; i < extSize; i++ {
		refused("extension", i, &v.footer[extOffset+i])
	}
	// The footer, even if somebody mended its checksum: byte 30 is the
	// creator, which no other check looks at.
	v.set8(30, 'X')
	_, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
	wantKind(t, err, diskformat.ErrCorrupt, "extension")
}

// A sound extension in a file of another size, or with other segments than
// those that its writer makes.
func TestExtensionOfAnotherFile(t *testing.T) {
	t.Parallel()
	v := newVictim(t, true)
	le.PutUint64(v.footer[extOffset+16:], uint64(len(v.b)+pageSize))
	resealExtension(v)
	_, err := Open(bytes.NewReader(v.b), int64(len(v.b)))
	wantKind(t, err, diskformat.ErrCorrupt, "extension")

	b := small(t, true, false)
	_, err = Open(bytes.NewReader(b), int64(len(b)))
	wantKind(t, err, diskformat.ErrCorrupt, "index_size")

	v = newVictim(t, true)
	le.PutUint32(v.footer[extOffset+8:], 2)
	resealExtension(v)
	_, err = Open(bytes.NewReader(v.b), int64(len(v.b)))
	wantKind(t, err, diskformat.ErrUnsupported, "extension")
}

func resealExtension(v *victim) {
	b := v.footer[extOffset:]
	le.PutUint32(b[60:], crcOf(b[:60]))
}

// A file that ends too early anywhere is refused as incomplete, and below six
// bytes as nothing known.
func TestTruncatedAtEveryByte(t *testing.T) {
	t.Parallel()
	b := small(t, false, false)
	mustOpen(t, b)
	for n := range len(b) {
		_, err := Open(bytes.NewReader(b[:n]), int64(n))
		kind := diskformat.ErrIncomplete
		if n < cookieUsed {
			kind = diskformat.ErrWrongFormat
		}
		if !errors.Is(err, kind) {
			t.Fatalf("cut after %d of %d bytes: %v", n, len(b), err)
		}
	}
}

// A source shorter than the size that was given is a failed read, not a disk.
func TestSourceShorterThanItsSize(t *testing.T) {
	t.Parallel()
	v := newVictim(t, true)
	_, err := Open(bytes.NewReader(v.b[:len(v.b)-pageSize]), int64(len(v.b)))
	var e *diskformat.Error
	if err == nil || errors.As(err, &e) {
		t.Fatalf("%v", err)
	}
}

func TestNotZVHD2(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"empty":       {},
		"short":       []byte("z2str"),
		"zeros":       make([]byte, 64<<10),
		"odd zeros":   make([]byte, 64<<10+1),
		"the RAW one": disktest.Fixture(t, "c.raw"),
		"ZVHD":        disktest.Fixture(t, "c.zvhd"),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, diskformat.ErrWrongFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Open(disktest.Patched{}, MaxFileSize+pageSize)
	wantKind(t, err, diskformat.ErrUnsupported, "file size")
	if _, err := Open(bytes.NewReader(nil), -4096); err == nil {
		t.Error("a negative size was opened")
	}
}

// The published writer leaves bytes 512 to 4095 of its header blocks as they
// were in memory; so does a record with its padding.
func TestUnspecifiedBytesDoNotCount(t *testing.T) {
	t.Parallel()
	v := newVictim(t, false)
	want := extract(t, mustOpen(t, v.b), ExtractOptions{})
	disktest.Fill(v.footer[zdisk.HeaderSize:], 3)
	disktest.Fill(v.b[zdisk.HeaderSize:pageSize], 4)
	off, _, _ := v.entryAt(3)
	rec := v.b[off:]
	end := 48 + le.Uint32(rec[12:])
	disktest.Fill(rec[end:pageSize-4], 5)
	disktest.Fill(rec[20:48], 6)
	if !bytes.Equal(extract(t, mustOpen(t, v.b), ExtractOptions{}), want) {
		t.Error("the disk changed")
	}
}
