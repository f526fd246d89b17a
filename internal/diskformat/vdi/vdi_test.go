package vdi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/fuzztest"
)

var le = binary.LittleEndian

// made is a sound file that a test pokes: 7 blocks of 4 KiB, the last one in
// part, of which some are stored.
type made struct{ b []byte }

const (
	madeMap  = 512
	madeData = 1024
	madeSize = 6*4096 + 512
)

func newMade(entries ...uint32) *made {
	stored := uint32(0)
	for _, e := range entries {
		if e < blockZero {
			stored = max(stored, e+1)
		}
	}
	m := &made{make([]byte, madeData+int(stored)*4096)}
	copy(m.b, "<<< a made-up disk image >>>\n")
	copy(m.b[offSignature:], signature)
	for off, x := range map[int]uint32{
		offVersion: version, offHeaderSize: minHeaderSize, offImageType: typeDynamic, offMap: madeMap, offData: madeData,
		offSectorSize: 512, offBlockSize: 4096, offBlocks: uint32(len(entries)), offBlocksInUse: stored,
	} {
		m.set32(off, x)
	}
	m.set64(offDiskSize, madeSize)
	m.b[offUUID] = 0x77
	for i, e := range entries {
		m.set32(madeMap+4*i, e)
	}
	disktest.Fill(m.b[madeData:], 3)
	return m
}

// victim is the one whose blocks lie in another order than on the disk.
func victim() *made { return newMade(2, 3, blockFree, blockZero, 0, blockFree, 1) }

func (m *made) set32(off int, x uint32) { le.PutUint32(m.b[off:], x) }
func (m *made) set64(off int, x uint64) { le.PutUint64(m.b[off:], x) }
func (m *made) open() (*File, error)    { return Open(bytes.NewReader(m.b), int64(len(m.b))) }

func (m *made) mustOpen(t testing.TB) *File {
	t.Helper()
	f, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRead(t *testing.T) {
	t.Parallel()
	m := victim()
	f := m.mustOpen(t)
	want := make([]byte, 7*4096)
	for i, e := range []uint32{2, 3, blockFree, blockZero, 0, blockFree, 1} {
		if e < blockZero {
			copy(want[i*4096:(i+1)*4096], m.b[madeData+4096*int(e):])
		}
	}
	want = want[:madeSize]
	for _, piece := range []int64{madeSize, 4096, 1000, 4097} {
		got := make([]byte, madeSize)
		for off := int64(0); off < madeSize; off += piece {
			if err := diskformat.ReadFull(f, got[off:min(off+piece, madeSize)], off); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("pieces of %d: other bytes", piece)
		}
	}
	if got := slices.Collect(f.Extents()); !slices.Equal(got, []diskformat.Extent{
		{Offset: 0, Length: 8192, Data: true}, {Offset: 8192, Length: 8192}, {Offset: 16384, Length: 4096, Data: true},
		{Offset: 20480, Length: 4096}, {Offset: 24576, Length: 512, Data: true},
	}) {
		t.Errorf("%+v", got)
	}
	if info := f.Info(); info != (Info{Size: madeSize, BlockSize: 4096, Blocks: 7, DataBlocks: 4, UUID: [16]byte{0x77}}) {
		t.Errorf("%+v", info)
	}
	for range f.Extents() {
		break
	}
}

// Blocks that follow one another are read at once.
func TestReadsAreFew(t *testing.T) {
	t.Parallel()
	m := victim()
	r := &disktest.Counter{R: bytes.NewReader(m.b)}
	f, err := Open(r, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	if reads := r.Reads(); len(reads) != 2 {
		t.Errorf("%v to open", reads)
	}
	if _, err := f.ReadAt(make([]byte, 12000), 100); err != nil {
		t.Fatal(err)
	}
	if reads := r.Reads(); len(reads) != 1 {
		t.Errorf("%v for two blocks in a row", reads)
	}
}

func TestEmptyDisk(t *testing.T) {
	t.Parallel()
	m := newMade()
	m.set64(offDiskSize, 0)
	f := m.mustOpen(t)
	if n, err := f.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	for e := range f.Extents() {
		t.Errorf("%+v", e)
	}
}

func TestFailingSource(t *testing.T) {
	t.Parallel()
	m := victim()
	dead := errors.New("the line is dead")
	open := func(at int64) (*File, error) {
		return Open(disktest.Failing{R: bytes.NewReader(m.b), At: at, Err: dead}, int64(len(m.b)))
	}
	for _, at := range []int64{0, madeMap} {
		if _, err := open(at); !errors.Is(err, dead) {
			t.Error(err)
		}
	}
	f, err := open(madeData)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, madeSize), 0); n != 16384 || !errors.Is(err, dead) {
		t.Error(n, err)
	}
}

// hostile are files that are wrong in one thing each. All must be refused at
// opening, whatever the rest of the file holds.
var hostile = []struct {
	name  string
	poke  func(m *made)
	kind  error
	field string
}{
	{"no bytes", func(m *made) { m.b = nil }, diskformat.ErrWrongFormat, "signature"},
	{"cut before the signature", func(m *made) { m.b = m.b[:64] }, diskformat.ErrWrongFormat, "signature"},
	{"signature", func(m *made) { m.b[offSignature] ^= 1 }, diskformat.ErrWrongFormat, "signature"},
	{"cut in the header", func(m *made) { m.b = m.b[:headerLen-1] }, diskformat.ErrIncomplete, "header"},
	{"version 0.1", func(m *made) { m.set32(offVersion, 1) }, diskformat.ErrUnsupported, "version"},
	{"version 2.0", func(m *made) { m.set32(offVersion, 2<<16) }, diskformat.ErrUnsupported, "version"},
	{"header_size 0", func(m *made) { m.set32(offHeaderSize, 0) }, diskformat.ErrCorrupt, "header_size"},
	{"header_size short", func(m *made) { m.set32(offHeaderSize, minHeaderSize-1) }, diskformat.ErrCorrupt, "header_size"},
	{"type 0", func(m *made) { m.set32(offImageType, 0) }, diskformat.ErrUnsupported, "image_type"},
	{"undo", func(m *made) { m.set32(offImageType, 3) }, diskformat.ErrUnsupported, "image_type"},
	{"differencing", func(m *made) { m.set32(offImageType, 4) }, diskformat.ErrUnsupported, "image_type"},
	{"type giant", func(m *made) { m.set32(offImageType, math.MaxUint32) }, diskformat.ErrUnsupported, "image_type"},
	{"parent", func(m *made) { m.b[offParentUUID+15] = 1 }, diskformat.ErrUnsupported, "uuid_parent"},
	{"link", func(m *made) { m.b[offLinkUUID] = 1 }, diskformat.ErrUnsupported, "uuid_link"},

	{"sectors of 4096", func(m *made) { m.set32(offSectorSize, 4096) }, diskformat.ErrUnsupported, "sector_size"},
	{"sectors of 0", func(m *made) { m.set32(offSectorSize, 0) }, diskformat.ErrUnsupported, "sector_size"},
	{"blocks of 0", func(m *made) { m.set32(offBlockSize, 0) }, diskformat.ErrUnsupported, "block_size"},
	{"blocks of 2 KiB", func(m *made) { m.set32(offBlockSize, 2048) }, diskformat.ErrUnsupported, "block_size"},
	{"blocks of 128 MiB", func(m *made) { m.set32(offBlockSize, 128<<20) }, diskformat.ErrUnsupported, "block_size"},
	{"blocks of 12 KiB", func(m *made) { m.set32(offBlockSize, 12<<10) }, diskformat.ErrUnsupported, "block_size"},
	{"blocks giant", func(m *made) { m.set32(offBlockSize, math.MaxUint32) }, diskformat.ErrUnsupported, "block_size"},
	{"block_extra", func(m *made) { m.set32(offBlockExtra, 512) }, diskformat.ErrUnsupported, "block_extra"},

	{"blocks_in_image 0", func(m *made) { m.set32(offBlocks, 0) }, diskformat.ErrCorrupt, "disk_size"},
	{"blocks_in_image one less", func(m *made) { m.set32(offBlocks, 6) }, diskformat.ErrCorrupt, "disk_size"},
	{"blocks_in_image over the limit", func(m *made) { m.set32(offBlocks, MaxBlocks+1) }, diskformat.ErrUnsupported, "blocks_in_image"},
	{"blocks_in_image giant", func(m *made) { m.set32(offBlocks, math.MaxUint32) }, diskformat.ErrUnsupported, "blocks_in_image"},
	{"blocks_in_image more than the file has", func(m *made) { m.set32(offBlocks, MaxBlocks) }, diskformat.ErrIncomplete, "offset_bmap"},
	{"disk_size odd", func(m *made) { m.set64(offDiskSize, 4097) }, diskformat.ErrCorrupt, "disk_size"},
	{"disk_size one sector more", func(m *made) { m.set64(offDiskSize, 7*4096+512) }, diskformat.ErrCorrupt, "disk_size"},
	{"disk_size all ones", func(m *made) { m.set64(offDiskSize, math.MaxUint64) }, diskformat.ErrCorrupt, "disk_size"},
	{"disk_size negative", func(m *made) { m.set64(offDiskSize, 1<<63) }, diskformat.ErrCorrupt, "disk_size"},

	{"offset_bmap 0", func(m *made) { m.set32(offMap, 0) }, diskformat.ErrCorrupt, "offset_bmap"},
	{"offset_bmap in the header", func(m *made) { m.set32(offMap, headerLen-4) }, diskformat.ErrCorrupt, "offset_bmap"},
	{"offset_bmap beyond the file", func(m *made) { m.set32(offMap, math.MaxUint32) }, diskformat.ErrIncomplete, "offset_bmap"},
	{"offset_data 0", func(m *made) { m.set32(offData, 0) }, diskformat.ErrCorrupt, "offset_data"},
	{"offset_data in the map", func(m *made) { m.set32(offData, madeMap+27) }, diskformat.ErrCorrupt, "offset_data"},
	{"offset_data beyond the file", func(m *made) { m.set32(offData, math.MaxUint32) }, diskformat.ErrIncomplete, "block map"},
	{"an entry beyond the file", func(m *made) { m.set32(madeMap+8, 4) }, diskformat.ErrIncomplete, "block map"},
	{"an entry far beyond the file", func(m *made) { m.set32(madeMap+8, blockZero-1) }, diskformat.ErrIncomplete, "block map"},
	{"cut in the map", func(m *made) { m.b = m.b[:madeMap+10] }, diskformat.ErrIncomplete, "offset_bmap"},
	{"cut before the last block", func(m *made) { m.b = m.b[:len(m.b)-4096] }, diskformat.ErrIncomplete, "block map"},
}

// Not parallel: it measures.
func TestHostile(t *testing.T) {
	victim().mustOpen(t)
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			m := victim()
			c.poke(m)
			err := disktest.Refuse(t, bytes.NewReader(m.b), 1<<20, func(r io.ReaderAt) error {
				_, err := Open(r, int64(len(m.b)))
				return err
			})
			var e *diskformat.Error
			if !errors.As(err, &e) || !errors.Is(err, c.kind) || !strings.Contains(e.Field, c.field) {
				t.Fatalf("the error is %v; it should be %q and name %q", err, c.kind, c.field)
			}
		})
	}
	if _, err := Open(bytes.NewReader(nil), -1); err == nil {
		t.Error("a negative size was opened")
	}
}

// The refusal of a differencing image names its parent.
func TestParentIsNamed(t *testing.T) {
	t.Parallel()
	m := victim()
	m.set32(offImageType, typeDiff)
	copy(m.b[offParentUUID:], "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	if _, err := m.open(); err == nil || !strings.Contains(err.Error(), "00112233-4455-6677-8899-aabbccddeeff") {
		t.Error(err)
	}
}

// The largest map that is read. Not parallel: it measures.
func TestLargestMap(t *testing.T) {
	m := victim()
	m.set32(offBlocks, MaxBlocks)
	m.set64(offDiskSize, MaxBlocks*4096)
	m.set32(offData, madeMap+4*MaxBlocks)
	file := disktest.Patched{0: m.b[:madeMap]} // every block is stored block 0
	n := disktest.Allocated(func() {
		f, err := Open(file, 1<<32)
		if err != nil {
			t.Error(err)
			return
		}
		for e := range f.Extents() {
			if e.Length != MaxBlocks*4096 || !e.Data {
				t.Errorf("%+v", e)
			}
		}
	})
	if n > 16<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func FuzzVDI(f *testing.F) {
	f.Add(victim().b)
	m := victim()
	m.set32(offImageType, typeStatic)
	f.Add(m.b)
	f.Add(newMade(blockFree, blockZero, blockFree, blockFree, blockFree, blockFree, 0).b[:madeData+512])
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
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
	})
}
