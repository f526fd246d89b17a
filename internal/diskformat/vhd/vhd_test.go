package vhd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"unicode/utf16"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/fuzztest"
)

var be = binary.BigEndian

// made is a sound file that a test pokes.
type made struct{ b []byte }

// Where the parts of a made dynamic disk lie.
const (
	madeHeader = 512
	madeTable  = 1536
	madeBlocks = 2048
	madeBlock  = 4096
	madeSize   = 6*madeBlock + 512
)

func newFooter(diskType uint32, size, dataOffset uint64) []byte {
	b := make([]byte, footerLen)
	copy(b, cookie)
	be.PutUint32(b[8:], 2)
	be.PutUint32(b[offVersion:], 1<<16)
	be.PutUint64(b[offDataOffset:], dataOffset)
	copy(b[offCreator:], "made")
	be.PutUint64(b[offSize:], size)
	be.PutUint16(b[offCylinders:], 2)
	b[offHeads], b[offSectors] = 3, 4
	be.PutUint32(b[offDiskType:], diskType)
	b[offUUID] = 0x77
	seal(b, offChecksum)
	return b
}

func seal(b []byte, off int) { be.PutUint32(b[off:], checksum(b, off)) }

// newFixed makes a fixed disk.
func newFixed() *made {
	b := make([]byte, 8192)
	disktest.Fill(b, 2)
	b[0] = 1
	return &made{append(b, newFooter(typeFixed, 8192, 1<<64-1)...)}
}

// newDynamic makes a dynamic disk of 7 blocks, the last one in part. An entry
// is the number of a stored block, in the file's order, or unused.
func newDynamic(entries ...uint32) *made {
	stored := uint32(0)
	for _, e := range entries {
		if e != unused {
			stored = max(stored, e+1)
		}
	}
	b := make([]byte, madeBlocks+int(stored)*(512+madeBlock)+footerLen)
	h := b[madeHeader:][:dynLen]
	copy(h, dynCookie)
	be.PutUint64(h[8:], 1<<64-1)
	be.PutUint64(h[dynOffTable:], madeTable)
	be.PutUint32(h[dynOffVersion:], 1<<16)
	be.PutUint32(h[dynOffEntries:], uint32(len(entries)))
	be.PutUint32(h[dynOffBlockSize:], madeBlock)
	m := &made{b}
	for i := range 128 {
		be.PutUint32(b[madeTable+4*i:], unused)
	}
	for i, e := range entries {
		if e != unused {
			e = (madeBlocks + e*(512+madeBlock)) / 512
		}
		be.PutUint32(b[madeTable+4*i:], e)
	}
	for k := range int(stored) {
		p := b[madeBlocks+k*(512+madeBlock):]
		p[0] = 0xff // eight sectors
		disktest.Fill(p[512:][:madeBlock], uint64(k))
		p[512] = byte(k + 1)
	}
	copy(b[len(b)-footerLen:], newFooter(typeDynamic, madeSize, madeHeader))
	m.seal()
	return m
}

// victim is one whose blocks lie in another order than on the disk.
func victim() *made { return newDynamic(2, 3, unused, unused, 0, unused, 1) }

func (m *made) footer() []byte { return m.b[len(m.b)-footerLen:] }
func (m *made) header() []byte { return m.b[madeHeader:][:dynLen] }

// seal makes the checksums right and the copy equal.
func (m *made) seal() {
	seal(m.footer(), offChecksum)
	copy(m.b, m.footer())
	seal(m.header(), dynOffChecksum)
}

func (m *made) open() (*File, error) { return Open(bytes.NewReader(m.b), int64(len(m.b))) }

func (m *made) mustOpen(t testing.TB) *File {
	t.Helper()
	f, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// disk is what victim's disk holds.
func (m *made) disk() []byte {
	disk := make([]byte, 7*madeBlock)
	for i, e := range []uint32{2, 3, unused, unused, 0, unused, 1} {
		if e != unused {
			copy(disk[i*madeBlock:], m.b[madeBlocks+int(e)*(512+madeBlock)+512:][:madeBlock])
		}
	}
	return disk[:madeSize]
}

func readsAs(t testing.TB, f *File, want []byte) {
	t.Helper()
	if f.Size() != int64(len(want)) {
		t.Fatalf("the disk has %d bytes, right is %d", f.Size(), len(want))
	}
	for _, piece := range []int64{f.Size(), madeBlock, 1000, 512, madeBlock + 1} {
		got := bytes.Repeat([]byte{0xee}, len(want))
		for off := int64(0); off < f.Size(); off += piece {
			if err := diskformat.ReadFull(f, got[off:min(off+piece, f.Size())], off); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("pieces of %d: other bytes", piece)
		}
	}
}

func TestDynamic(t *testing.T) {
	t.Parallel()
	m := victim()
	f := m.mustOpen(t)
	readsAs(t, f, m.disk())
	if got := slices.Collect(f.Extents()); !slices.Equal(got, []diskformat.Extent{
		{Offset: 0, Length: 8192, Data: true}, {Offset: 8192, Length: 8192}, {Offset: 16384, Length: 4096, Data: true},
		{Offset: 20480, Length: 4096}, {Offset: 24576, Length: 512, Data: true},
	}) {
		t.Errorf("%+v", got)
	}
	if info := f.Info(); info != (Info{
		Size: madeSize, Dynamic: true, BlockSize: madeBlock, Blocks: 7, DataBlocks: 4, Creator: "made", GeometrySize: 2 * 3 * 4 * 512, UUID: [16]byte{0x77},
	}) {
		t.Errorf("%+v", info)
	}
	for range f.Extents() {
		break
	}
}

func TestFixed(t *testing.T) {
	t.Parallel()
	m := newFixed()
	f := m.mustOpen(t)
	readsAs(t, f, m.b[:8192])
	if got := slices.Collect(f.Extents()); !slices.Equal(got, []diskformat.Extent{{Length: 8192, Data: true}}) {
		t.Errorf("%+v", got)
	}

	// The footer of before Virtual PC 2004 has a byte less.
	m.b = m.b[:len(m.b)-1]
	readsAs(t, m.mustOpen(t), m.b[:8192])

	// A file may have more before its footer than the disk.
	m = newFixed()
	be.PutUint64(m.footer()[offSize:], 4096)
	seal(m.footer(), offChecksum)
	readsAs(t, m.mustOpen(t), m.b[:4096])

	empty := &made{newFooter(typeFixed, 0, 0)}
	f = empty.mustOpen(t)
	if n, err := f.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	for e := range f.Extents() {
		t.Errorf("%+v", e)
	}
}

// A sector whose bit is clear is zero, whatever lies there. The first sector's
// bit is the most significant one.
func TestSectorBitmap(t *testing.T) {
	t.Parallel()
	m := victim()
	m.b[madeBlocks+2*(512+madeBlock)] = 0b1011_0001
	disk := m.disk()
	for _, sector := range []int{1, 4, 5, 6} {
		clear(disk[512*sector:][:512])
	}
	m.b[madeBlocks+3*(512+madeBlock)] = 0
	clear(disk[madeBlock : 2*madeBlock])
	readsAs(t, m.mustOpen(t), disk)
}

// A dynamic disk without its footer, or with a damaged one, can be read if all
// its blocks are there.
func TestFooterLost(t *testing.T) {
	t.Parallel()
	m := victim()
	want := m.disk()
	m.footer()[100] ^= 1
	f := m.mustOpen(t)
	readsAs(t, f, want)
	if !f.Info().NoFooter {
		t.Errorf("%+v", f.Info())
	}
	m.b = m.b[:len(m.b)-footerLen]
	f = m.mustOpen(t)
	readsAs(t, f, want)
	if !f.Info().NoFooter {
		t.Errorf("%+v", f.Info())
	}
	// A copy that is damaged, however, leaves two opinions.
	m = victim()
	m.b[100] ^= 1
	_, err := m.open()
	wantKind(t, err, diskformat.ErrCorrupt, "footer copy.checksum")
}

// QEMU takes the geometry's size for some creators; the current size counts
// here. Where both have bytes they are the same.
func TestSizeIsTheCurrentSize(t *testing.T) {
	t.Parallel()
	for _, creator := range []string{"vpc ", "vs  ", "vbox", "win ", "qemu", "qem2", "\x00\x00\x00\x00"} {
		m := victim()
		copy(m.footer()[offCreator:], creator)
		m.seal()
		f := m.mustOpen(t)
		if info := f.Info(); info.Size != madeSize || info.GeometrySize != 12288 || info.Creator != creator {
			t.Errorf("%q: %+v", creator, info)
		}
		readsAs(t, f, m.disk())
	}
}

// A bitmap is read once; opening takes four reads.
func TestReadsAreFew(t *testing.T) {
	t.Parallel()
	m := victim()
	r := &disktest.Counter{R: bytes.NewReader(m.b)}
	f, err := Open(r, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	if reads := r.Reads(); len(reads) != 4 {
		t.Errorf("%v to open", reads)
	}
	for i, n := range []int{2, 1} {
		if _, err := f.ReadAt(make([]byte, madeBlock), 0); err != nil {
			t.Fatal(err)
		}
		if reads := r.Reads(); len(reads) != n {
			t.Errorf("time %d: %v for a block", i, reads)
		}
	}
}

func TestFailingSource(t *testing.T) {
	t.Parallel()
	m := victim()
	dead := errors.New("the line is dead")
	open := func(at int) (*File, error) {
		return Open(disktest.Failing{R: bytes.NewReader(m.b), At: int64(at), Err: dead}, int64(len(m.b)))
	}
	for _, at := range []int{0, madeHeader, madeTable, len(m.b) - 1} {
		if _, err := open(at); !errors.Is(err, dead) {
			t.Errorf("failing at %d: %v", at, err)
		}
	}
	for _, at := range []int{madeBlocks, madeBlocks + 512} { // bitmap and data of block 4
		f, err := open(at)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.ReadAt(make([]byte, madeSize), 0); n != 16384 || !errors.Is(err, dead) {
			t.Errorf("failing at %d: %d, %v", at, n, err)
		}
	}
}

// differencing turns victim into a disk over another one.
func (m *made) differencing(parent string) {
	be.PutUint32(m.footer()[offDiskType:], typeDiff)
	for i, u := range utf16.Encode([]rune(parent)) {
		be.PutUint16(m.header()[dynOffParentName+2*i:], u)
	}
	m.seal()
}

func FuzzVHD(f *testing.F) {
	f.Add(victim().b)
	f.Add(newFixed().b)
	f.Add(newFixed().b[:8192+oldFooterLen])
	m := victim()
	m.b[madeBlocks] = 0b1011_0001
	f.Add(m.b)
	f.Add(bytes.Clone(m.b[:len(m.b)-footerLen]))
	m.differencing("C:\\parent.vhd")
	f.Add(m.b)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		check := func(b []byte) {
			file, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				return
			}
			p := make([]byte, 8192)
			at, n := int64(0), 0
			for e := range file.Extents() {
				if e.Offset != at || e.Length <= 0 {
					t.Fatalf("extent %+v after %d", e, at)
				}
				at = e.End()
				if n++; n > 1000 {
					continue
				}
				q := p[:min(e.Length, int64(len(p)))]
				for _, off := range []int64{e.Offset, e.End() - int64(len(q))} {
					// What is stored was checked at opening.
					if err := diskformat.ReadFull(file, q, off); err != nil {
						t.Fatalf("extent %+v, at %d: %v", e, off, err)
					}
					if !e.Data && len(bytes.Trim(q, "\x00")) != 0 {
						t.Fatalf("the extent %+v is a hole, but at %d: % x", e, off, q[:16])
					}
				}
			}
			if at != file.Size() {
				t.Fatalf("the extents end at %d of %d", at, file.Size())
			}
		}
		check(b)
		// With checksums that hold, more of the reader is reached.
		if len(b) >= madeTable {
			m := &made{bytes.Clone(b)}
			seal(m.footer(), offChecksum)
			if m.footer()[offDiskType+3] == typeFixed {
				check(m.b)
				return
			}
			m.seal()
			check(m.b)
		}
	})
}
