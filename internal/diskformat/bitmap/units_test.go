package bitmap

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// checkUnits compares the checksums of units in a map's file with the disk.
func checkUnits(t interface{ Fatalf(string, ...any) }, m *Map, file, raw []byte) {
	at := int64(len(m.encodeHead()))
	for i := range m.Blocks() {
		off, n, ok := m.UnitSums(i)
		if ok != m.Block(i) || ok && (off != at || n != 256) {
			t.Fatalf("block %d: %d bytes at %d, %v", i, n, off, ok)
		}
		if !ok {
			continue
		}
		at += n
		b := file[off : off+n]
		if err := m.CheckUnitSums(b, i); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		p := raw[i*BlockSize : min(int64(len(raw)), (i+1)*BlockSize)]
		for u := range BlockSize / UnitSize {
			unit := p[min(len(p), u*UnitSize):min(len(p), (u+1)*UnitSize)]
			if got, want := UnitSum(b, u), crc32.Checksum(unit, castagnoli); got != want {
				t.Fatalf("unit %d of block %d has the checksum %#08x, right is %#08x", u, i, got, want)
			}
		}
	}
	if at != int64(len(file)) {
		t.Fatalf("the file has %d bytes, the checksums of units end at %d", len(file), at)
	}
}

// Disks that end anywhere, down to the byte.
func TestLastUnit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 511, UnitSize - 1, UnitSize, UnitSize + 1, BlockSize - 1, BlockSize, BlockSize + 1,
		2*BlockSize + 5*UnitSize, 2*BlockSize + 5*UnitSize + 700} {
		raw := make([]byte, size)
		disktest.Fill(raw, uint64(size))
		m, err := Build(t.Context(), bytes.NewReader(raw), int64(size), Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := encode(t, m)
		parsed, err := parseBytes(b, int64(size))
		if err != nil {
			t.Fatal(err)
		}
		checkUnits(t, parsed, b, raw)
		if err := parsed.Verify(t.Context(), bytes.NewReader(raw), bytes.NewReader(b), Options{}); err != nil {
			t.Fatal(err)
		}
	}
}

// A unit table that is damaged in any bit is noticed where it is used, and by Verify.
func TestEveryUnitBitCounts(t *testing.T) {
	t.Parallel()
	raw := victimDisk()
	b, size := victimMF(t)
	m, err := parseBytes(b, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		block int64
		name  string
	}{{1, "block 1's units"}, {3, "block 3's units"}, {19, "block 19's units"}} {
		off, n, ok := m.UnitSums(c.block)
		if !ok {
			t.Fatalf("block %d has none", c.block)
		}
		sums := b[off : off+n]
		for bit := range 8 * int(n) {
			sums[bit/8] ^= 1 << (bit % 8)
			err := m.CheckUnitSums(sums, c.block)
			wantKind(t, err, diskformat.ErrCorrupt, c.name)
			if bit%509 == 0 {
				if _, err := parseBytes(b, size); err != nil {
					t.Fatal(err)
				}
				err := m.Verify(t.Context(), bytes.NewReader(raw), bytes.NewReader(b), Options{})
				wantKind(t, err, diskformat.ErrCorrupt, c.name)
			}
			sums[bit/8] ^= 1 << (bit % 8)
		}
	}
	if err := m.Verify(t.Context(), bytes.NewReader(raw), bytes.NewReader(b), Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestUnitSumsThatAreNotTheBlocks(t *testing.T) {
	t.Parallel()
	b, size := victimMF(t)
	m, err := parseBytes(b, size)
	if err != nil {
		t.Fatal(err)
	}
	sums := func(i int64) []byte {
		off, n, _ := m.UnitSums(i)
		return bytes.Clone(b[off : off+n])
	}
	beyond := sums(19)
	beyond[4] = 1
	exchanged := sums(1)
	copy(exchanged, exchanged[4:8])
	copy(exchanged[4:], sums(1)[:4])
	for _, c := range []struct {
		name  string
		b     []byte
		block int64
	}{
		{"nothing", nil, 1},
		{"too few", sums(1)[:252], 1},
		{"too many", append(sums(1), 0, 0, 0, 0), 1},
		{"zeros", make([]byte, 256), 1},
		{"of another block", sums(1), 19},
		{"two exchanged", exchanged, 1},
		{"beyond the disk", beyond, 19},
		{"of a zero block", sums(1), 2},
		{"of a block beyond the disk", sums(1), 20},
		{"of a block before the disk", sums(1), -1},
	} {
		t.Run(c.name, func(t *testing.T) { wantKind(t, m.CheckUnitSums(c.b, c.block), diskformat.ErrCorrupt, "units") })
	}
	for _, i := range []int64{-1, 0, 2, 20, 1 << 62} {
		if _, _, ok := m.UnitSums(i); ok {
			t.Errorf("block %d has checksums of units", i)
		}
	}
	unknown := newUnknown(size, "")
	if _, _, ok := unknown.UnitSums(1); ok {
		t.Error("an unknown map has checksums of units")
	}
	wantKind(t, unknown.CheckUnitSums(sums(1), 1), diskformat.ErrCorrupt, "units")
}

// Verify names the bytes of the disk that are not the map's, and a map's file that
// can't be read is not the disk's fault.
func TestVerifyNamesTheUnit(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 2*BlockSize+UnitSize+700)
	disktest.Fill(raw, 1)
	raw[2*BlockSize] = 1
	m, err := Build(t.Context(), bytes.NewReader(raw), int64(len(raw)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{
		BlockSize + 3*UnitSize: "bytes 2195456 to 2228224",
		len(raw) - 1:           "bytes 4227072 to 4227772",
	} {
		raw[at] ^= 1
		err := m.Verify(t.Context(), bytes.NewReader(raw), m, Options{})
		wantKind(t, err, diskformat.ErrMismatch, "block")
		if e, _ := errors.AsType[*diskformat.Error](err); !bytes.Contains([]byte(e.Problem), []byte(want)) {
			t.Errorf("byte %d was changed: %v", at, err)
		}
		raw[at] ^= 1
	}
	broken := errors.New("bad sector")
	if err := m.Verify(t.Context(), bytes.NewReader(raw), disktest.Failing{R: m, At: m.Size() - 1, Err: broken}, Options{}); !errors.Is(err, broken) {
		t.Errorf("a map that can't be read: %v", err)
	}
	if err := m.Verify(t.Context(), bytes.NewReader(raw), bytes.NewReader(nil), Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a map that was cut meanwhile: %v", err)
	}
}

// A built map is its file, wherever it is read.
func TestBuiltReadsAsItsFile(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 3*BlockSize)
	disktest.Fill(raw, 1)
	m, err := Build(t.Context(), bytes.NewReader(raw), int64(len(raw)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := encode(t, m)
	for off := range len(file) + 2 {
		for _, n := range []int{0, 1, 255, 256, 257, 600} {
			p := make([]byte, n)
			got, err := m.ReadAt(p, int64(off))
			want := file[min(off, len(file)):min(off+n, len(file))]
			if !bytes.Equal(p[:got], want) || (err != nil) != (got < n) || err != nil && err != io.EOF {
				t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
			}
		}
	}
	if _, err := m.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before its beginning")
	}
}
