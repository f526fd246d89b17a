package bitmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func encode(t testing.TB, m *Built) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := m.WriteTo(&b); err != nil || n != int64(b.Len()) || n != m.Size() {
		t.Fatalf("%d bytes written of %d, %v", n, m.Size(), err)
	}
	return b.Bytes()
}

func parseBytes(b []byte, imageSize int64) (*Map, error) {
	return Parse(bytes.NewReader(b), int64(len(b)), imageSize)
}

func wantKind(t testing.TB, err, kind error, field string) {
	t.Helper()
	var e *diskformat.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || !strings.Contains(e.Field, field) {
		t.Fatalf("the error is %v; it should be %q and name %q", err, kind, field)
	}
}

// checkMap compares a map with the disk it is of.
func checkMap(t interface{ Fatalf(string, ...any) }, m *Map, raw []byte, sums bool) {
	blocks := (len(raw) + BlockSize - 1) / BlockSize
	if m.ImageSize() != int64(len(raw)) || m.Blocks() != int64(blocks) {
		t.Fatalf("a map of %d bytes, %d blocks", m.ImageSize(), m.Blocks())
	}
	data := int64(0)
	for i := range blocks {
		p := raw[i*BlockSize : min(len(raw), (i+1)*BlockSize)]
		want := !bytes.Equal(p, make([]byte, len(p)))
		if want {
			data++
		}
		if m.Block(int64(i)) != want {
			t.Fatalf("block %d counts as data: %v", i, !want)
		}
		sum, ok := m.Checksum(int64(i))
		if ok != (want && sums) || ok && sum != crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) {
			t.Fatalf("checksum of block %d: %#x, %v", i, sum, ok)
		}
	}
	if m.DataBlocks() != data {
		t.Fatalf("%d data blocks, right are %d", m.DataBlocks(), data)
	}
	at, kind := int64(0), true
	for e := range m.Extents() {
		if e.Offset != at || e.Length <= 0 || at > 0 && e.Data == kind {
			t.Fatalf("extent %+v after %d", e, at)
		}
		for off := e.Offset; off < e.End(); off += BlockSize {
			if m.Block(off/BlockSize) != e.Data {
				t.Fatalf("extent %+v, block %d", e, off/BlockSize)
			}
		}
		at, kind = e.End(), e.Data
	}
	if at != m.ImageSize() {
		t.Fatalf("the extents end at %d", at)
	}
	for _, i := range []int64{-1, m.Blocks(), 1 << 40} {
		if _, ok := m.Checksum(i); ok || m.Block(i) {
			t.Fatalf("block %d is data", i)
		}
	}
}

// Whatever the disk, its map says of each block what it is, and comes back
// from a file the same; and it knows this disk from another.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := make([]byte, rapid.IntRange(0, 5).Draw(t, "blocks")*BlockSize+rapid.IntRange(1, BlockSize).Draw(t, "rest"))
		for range rapid.IntRange(0, 3).Draw(t, "pieces") {
			off := rapid.IntRange(0, len(raw)-1).Draw(t, "offset")
			n := min(rapid.IntRange(1, 3*BlockSize).Draw(t, "length"), len(raw)-off)
			disktest.Fill(raw[off:off+n], rapid.Uint64().Draw(t, "content"))
		}
		m, err := Build(context.Background(), bytes.NewReader(raw), int64(len(raw)), Options{Concurrency: rapid.IntRange(1, 4).Draw(t, "concurrency")})
		if err != nil {
			t.Fatal(err)
		}
		checkMap(t, m.Map, raw, true)
		var file bytes.Buffer
		if _, err := m.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		checkUnits(t, m.Map, file.Bytes(), raw)
		again, err := parseBytes(file.Bytes(), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if again.Kind() != Ours || again.Reason() != "" {
			t.Fatalf("it came back as %s (%s)", again.Kind(), again.Reason())
		}
		checkMap(t, again, raw, true)
		checkUnits(t, again, file.Bytes(), raw)
		if err := again.Verify(context.Background(), bytes.NewReader(raw), m, Options{}); err != nil {
			t.Fatal(err)
		}
		raw[rapid.IntRange(0, len(raw)-1).Draw(t, "changed byte")] ^= 0x80
		if err := again.Verify(context.Background(), bytes.NewReader(raw), m, Options{}); !errors.Is(err, diskformat.ErrMismatch) {
			t.Fatalf("a changed disk: %v", err)
		}
	})
}

// The layout on disk, seen without this package's reader.
func TestLayout(t *testing.T) {
	t.Parallel()
	raw := disktest.Fixture(t, "c.raw")
	m, err := Build(t.Context(), bytes.NewReader(raw), int64(len(raw)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := encode(t, m)
	le := binary.LittleEndian
	if string(b[:8]) != "IMSMF\x00\x00\x02" || le.Uint32(b[8:]) != 4096 || le.Uint32(b[12:]) != 2<<20 || le.Uint64(b[16:]) != 16806400 ||
		le.Uint64(b[24:]) != 9 || le.Uint64(b[32:]) != 3 || le.Uint64(b[40:]) != 4096 || le.Uint64(b[48:]) != 4096 ||
		le.Uint64(b[56:]) != 8192 || le.Uint64(b[64:]) != 12 || le.Uint64(b[80:]) != 8204 || le.Uint64(b[88:]) != 3*256 ||
		le.Uint32(b[96:]) != 32<<10 || len(b) != 8204+3*256 {
		t.Errorf("header % x, %d bytes", b[:100], len(b))
	}
	// The bitmap is, bit for bit, that of the ZVHD2 of the same disk.
	zvhd2 := disktest.Fixture(t, "c.zvhd2")
	if !bytes.Equal(b[4096:8192], zvhd2[0x85000:0x86000]) {
		t.Errorf("bitmap % x, in ZVHD2 % x", b[4096:4100], zvhd2[0x85000:0x85004])
	}
	for k, block := range []int{0, 2, 5} {
		want := crc32.Checksum(raw[block*BlockSize:][:BlockSize], crc32.MakeTable(crc32.Castagnoli))
		if got := le.Uint32(b[8192+4*k:]); got != want {
			t.Errorf("checksum %d is %#x, right is %#x", k, got, want)
		}
		for u := range 64 {
			want := crc32.Checksum(raw[block*BlockSize+u*(32<<10):][:32<<10], crc32.MakeTable(crc32.Castagnoli))
			if got := le.Uint32(b[8204+256*k+4*u:]); got != want {
				t.Errorf("checksum %d of unit %d is %#x, right is %#x", k, u, got, want)
			}
		}
	}
}

// victimHead is where victimMF's unit table begins.
const victimHead = 8192 + 3*4

// victimDisk has 20 blocks, of which 1, 3 and 19 hold data.
func victimDisk() []byte {
	raw := make([]byte, 19*BlockSize+700)
	raw[BlockSize], raw[3*BlockSize], raw[len(raw)-1] = 1, 1, 1
	return raw
}

// victimMF is a sound map of victimDisk.
func victimMF(t testing.TB) (b []byte, size int64) {
	raw := victimDisk()
	m, err := Build(t.Context(), bytes.NewReader(raw), int64(len(raw)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, m), int64(len(raw))
}

// seal mends all checksums of a map, wherever its header says the parts lie.
func seal(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[offBitmapCRC:], crc32.Checksum(b[4096:8192], castagnoli))
	end := min(uint64(len(b)), 8192+4*le.Uint64(b[offDataBlocks:])%(1<<32))
	le.PutUint32(b[offTableCRC:], crc32.Checksum(b[8192:end], castagnoli))
	le.PutUint32(b[offHeaderCRC:], crc32.Checksum(b[:offHeaderCRC], castagnoli))
}

func TestHostileMapsAreRefused(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	set32 := func(off int, x uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(b[off:], x); seal(b); return b }
	}
	set64 := func(off int, x uint64) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint64(b[off:], x); seal(b); return b }
	}
	for _, c := range []struct {
		name  string
		poke  func(b []byte) []byte
		kind  error
		field string
	}{
		{"the version before", func(b []byte) []byte { b[7] = 1; seal(b); return b }, diskformat.ErrUnsupported, "magic"},
		{"another version", func(b []byte) []byte { b[7] = 3; seal(b); return b }, diskformat.ErrUnsupported, "magic"},
		{"header's checksum", func(b []byte) []byte { b[100] ^= 1; return b }, diskformat.ErrCorrupt, "header"},
		{"bitmap's checksum", func(b []byte) []byte { b[4096] ^= 1; return b }, diskformat.ErrCorrupt, "bitmap"},
		{"a zeroed bitmap", func(b []byte) []byte { clear(b[4096:8192]); return b }, diskformat.ErrCorrupt, "bitmap"},
		{"table's checksum", func(b []byte) []byte { b[8192] ^= 1; return b }, diskformat.ErrCorrupt, "table"},
		{"a bit more", func(b []byte) []byte { b[4096] |= 1; seal(b); return b }, diskformat.ErrCorrupt, "data blocks"},
		{"a bit less", func(b []byte) []byte { b[4096] &^= 2; seal(b); return b }, diskformat.ErrCorrupt, "data blocks"},
		{"a bit beyond the disk", func(b []byte) []byte { b[4096] &^= 2; b[4098] |= 0x10; seal(b); return b }, diskformat.ErrCorrupt, "bitmap"},
		{"header length", set32(offHeaderSize, 512), diskformat.ErrCorrupt, "header length"},
		{"block size 0", set32(offBlockSize, 0), diskformat.ErrCorrupt, "block size"},
		{"block size 4096", set32(offBlockSize, 4096), diskformat.ErrCorrupt, "block size"},
		{"image size 0", set64(offImageSize, 0), diskformat.ErrCorrupt, "image size"},
		{"image size over 1 TiB", set64(offImageSize, 1<<40+1), diskformat.ErrCorrupt, "image size"},
		{"image size negative", set64(offImageSize, 1<<64-1), diskformat.ErrCorrupt, "image size"},
		{"another disk's size", set64(offImageSize, 19*BlockSize+701), diskformat.ErrMismatch, "image size"},
		{"a larger disk's size", set64(offImageSize, 21*BlockSize), diskformat.ErrCorrupt, "blocks"},
		{"blocks", set64(offBlocks, 19), diskformat.ErrCorrupt, "blocks"},
		{"blocks giant", set64(offBlocks, 1<<63), diskformat.ErrCorrupt, "blocks"},
		{"data blocks less", set64(offDataBlocks, 2), diskformat.ErrCorrupt, "table length"},
		{"data blocks over the disk", set64(offDataBlocks, 21), diskformat.ErrCorrupt, "data blocks"},
		{"data blocks giant", set64(offDataBlocks, 1<<62), diskformat.ErrCorrupt, "data blocks"},
		{"bitmap offset", set64(offBitmap, 0), diskformat.ErrCorrupt, "bitmap offset"},
		{"bitmap offset giant", set64(offBitmap, 1<<64-1), diskformat.ErrCorrupt, "bitmap offset"},
		{"bitmap length", set64(offBitmapLen, 3), diskformat.ErrCorrupt, "bitmap length"},
		{"table offset", set64(offTable, 4096), diskformat.ErrCorrupt, "table offset"},
		{"table length", set64(offTableLen, 1<<40), diskformat.ErrCorrupt, "table length"},
		{"unit table offset", set64(offUnits, 8192), diskformat.ErrCorrupt, "unit table offset"},
		{"unit table offset giant", set64(offUnits, 1<<63), diskformat.ErrCorrupt, "unit table offset"},
		{"unit table offset negative", set64(offUnits, 1<<64-1), diskformat.ErrCorrupt, "unit table offset"},
		{"unit table length 0", set64(offUnitsLen, 0), diskformat.ErrCorrupt, "unit table length"},
		{"unit table length of one unit less", set64(offUnitsLen, 3*256-4), diskformat.ErrCorrupt, "unit table length"},
		{"unit table length giant", set64(offUnitsLen, 1<<62), diskformat.ErrCorrupt, "unit table length"},
		{"unit size 0", set32(offUnitSize, 0), diskformat.ErrCorrupt, "unit size"},
		{"unit size of a block", set32(offUnitSize, 2<<20), diskformat.ErrCorrupt, "unit size"},
		{"unit size giant", set32(offUnitSize, 1<<32-1), diskformat.ErrCorrupt, "unit size"},
		{"without the unit table", func(b []byte) []byte { return b[:8204] }, diskformat.ErrIncomplete, "file"},
		{"with a part of the unit table", func(b []byte) []byte { return b[:len(b)-256] }, diskformat.ErrIncomplete, "file"},
		{"a reserved byte", func(b []byte) []byte { b[4000] = 1; seal(b); return b }, diskformat.ErrCorrupt, "header"},
		{"bytes after it", func(b []byte) []byte { return append(b, 0) }, diskformat.ErrCorrupt, "file"},
	} {
		b, size := victimMF(t)
		if _, err := parseBytes(b, size); err != nil {
			t.Fatal(err)
		}
		_, err := parseBytes(c.poke(b), size)
		t.Run(c.name, func(t *testing.T) { wantKind(t, err, c.kind, c.field) })
	}
	b, size := victimMF(t)
	for _, other := range []int64{size - 1, size + 1, 512, 1 << 40} {
		_, err := parseBytes(b, other)
		wantKind(t, err, diskformat.ErrMismatch, "image size")
	}
}

// Every bit that Parse reads counts, except that without its magic the file is
// nobody's. (Those of the unit table: TestEveryUnitBitCounts.)
func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	b, size := victimMF(t)
	for bit := 8 * magicUsed; bit < 8*victimHead; bit++ {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := parseBytes(b, size); err == nil {
			t.Fatalf("bit %d flipped: taken", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for bit := range 8 * magicUsed {
		b[bit/8] ^= 1 << (bit % 8)
		if m, err := parseBytes(b, size); err != nil || m.Kind() != Unknown || m.DataBlocks() != m.Blocks() {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	t.Parallel()
	b, size := victimMF(t)
	for n := range len(b) {
		m, err := parseBytes(b[:n], size)
		if n < len(magic) {
			if err != nil || m.Kind() != Unknown {
				t.Fatalf("cut after %d: %v", n, err)
			}
		} else if !errors.Is(err, diskformat.ErrIncomplete) {
			t.Fatalf("cut after %d: %v", n, err)
		}
	}
}

// What is of neither kind tells nothing: all blocks count as data.
func TestUnknown(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte(" "), MaxRead+1)
	big[0] = '<'
	for name, b := range map[string][]byte{
		"empty":       {},
		"text":        []byte("hello"),
		"zeros":       make([]byte, 100_000),
		"XML":         []byte("<?xml version='1.0'?><other/>"),
		"broken XML":  []byte("<<<"),
		"a long file": big,
		"HTML":        []byte("<!DOCTYPE html><html></html>"),
	} {
		m, err := parseBytes(b, 5*BlockSize+1)
		if err != nil || m.Kind() != Unknown || m.Reason() == "" || m.DataBlocks() != 6 {
			t.Errorf("%s: %v, %+v", name, err, m)
			continue
		}
		var extents []diskformat.Extent
		for e := range m.Extents() {
			extents = append(extents, e)
		}
		if len(extents) != 1 || extents[0] != (diskformat.Extent{Length: 5*BlockSize + 1, Data: true}) {
			t.Errorf("%s: extents %v", name, extents)
		}
		if err := m.Verify(t.Context(), bytes.NewReader(nil), nil, Options{}); !errors.Is(err, ErrUnverifiable) {
			t.Errorf("%s: verified: %v", name, err)
		}
	}
	for _, size := range []int64{0, -1, 1<<40 + 1} {
		_, err := parseBytes(nil, size)
		wantKind(t, err, diskformat.ErrUnsupported, "disk size")
		_, err = Build(t.Context(), disktest.Patched{}, size, Options{})
		wantKind(t, err, diskformat.ErrUnsupported, "disk size")
	}
	if _, err := Parse(bytes.NewReader(nil), -1, 512); err == nil {
		t.Error("a negative size was taken")
	}
}

func TestBuildFails(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 5*BlockSize)
	broken := errors.New("bad sector")
	if _, err := Build(t.Context(), disktest.Failing{R: bytes.NewReader(raw), At: 3 * BlockSize, Err: broken}, int64(len(raw)), Options{}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := Build(t.Context(), bytes.NewReader(raw), int64(len(raw))+1, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that is too short: %v", err)
	}
	if _, err := Build(t.Context(), disktest.SparseFile(t, 1<<20), 2<<20, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a sparse disk that is too short: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, bytes.NewReader(raw), int64(len(raw)), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	if _, err := Build(ctx, bytes.NewReader(raw), int64(len(raw)), Options{Concurrency: 1, Progress: func(int64, int64) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: %v", err)
	}
	b, size := victimMF(t)
	for _, at := range []int64{0, victimHead - 1} {
		if _, err := Parse(disktest.Failing{R: bytes.NewReader(b), At: at, Err: broken}, int64(len(b)), size); !errors.Is(err, broken) {
			t.Errorf("a map that can't be read: %v", err)
		}
	}
}
