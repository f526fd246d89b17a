package qcow2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// sample is a file with a cluster of each kind, and its disk.
func sample(t testing.TB, bits uint, method byte) (*made, []byte) {
	t.Helper()
	size := 1 << bits
	m := newMade(bits, 12)
	m.compression(method)
	disk := make([]byte, 12*size)
	pack := deflated
	if method == compressionZstd {
		pack = func(b []byte) []byte { return zstdStreamed(b) }
	}
	plain := func(i int) []byte {
		b := content(size, uint64(i))
		copy(disk[i*size:], b)
		return b
	}
	m.store(0, plain(0))
	m.store(1, plain(1)) // follows in the file too
	m.l2(2, flagZero)
	m.store(3, content(size, 99))
	m.l2(3, be.Uint64(m.b[2<<bits+8*3:])|flagZero) // allocated, but zero
	m.store(5, plain(5))
	m.store(4, plain(4)) // the other way round
	m.pack(7, pack(plain(7)))
	m.pack(8, pack(plain(8))) // begins where the other ends
	m.pack(11, pack(plain(11)))
	return m, disk
}

func TestReadEveryKindOfCluster(t *testing.T) {
	t.Parallel()
	for bits := uint(9); bits <= 21; bits++ {
		if bits > 12 && bits < 16 || bits > 16 && bits < 20 {
			continue
		}
		for _, method := range []byte{compressionZlib, compressionZstd} {
			m, disk := sample(t, bits, method)
			f := m.mustOpen(t)
			for _, piece := range []int64{f.Size(), 1 << bits, 1<<bits/3 + 7, 1<<bits + 1} {
				got, err := readAll(f, piece)
				if err != nil || !bytes.Equal(got, disk) {
					t.Fatalf("%d cluster bits, method %d, pieces of %d: %v", bits, method, piece, err)
				}
			}
			size := int64(1) << bits
			want := []diskformat.Extent{
				{Offset: 0, Length: 2 * size, Data: true}, {Offset: 2 * size, Length: 2 * size},
				{Offset: 4 * size, Length: 2 * size, Data: true}, {Offset: 6 * size, Length: size},
				{Offset: 7 * size, Length: 2 * size, Data: true}, {Offset: 9 * size, Length: 2 * size},
				{Offset: 11 * size, Length: size, Data: true},
			}
			if got, err := disktest.Extents(f.Map(t.Context())); err != nil || !slices.Equal(got, want) {
				t.Errorf("%d cluster bits: %+v, %v", bits, got, err)
			}
		}
	}
}

// What follows one another in the file is read at once, and reading a
// compressed cluster in small pieces decodes it once.
func TestReadsAreFew(t *testing.T) {
	t.Parallel()
	m, disk := sample(t, 16, compressionZlib)
	r := &disktest.Counter{R: bytes.NewReader(m.b)}
	f, err := Open(r, int64(len(m.b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Reads()); n != 1 {
		t.Errorf("%d reads to open", n)
	}
	p := make([]byte, 128<<10)
	for _, n := range []int{3, 1} { // the first time with two tables
		if _, err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, disk[:len(p)]) {
			t.Fatal(err)
		}
		if reads := r.Reads(); len(reads) != n {
			t.Errorf("%v for two clusters in a row", reads)
		}
	}
	for off := int64(7 << 16); off < 8<<16; off += 512 {
		if _, err := f.ReadAt(p[:512], off); err != nil || !bytes.Equal(p[:512], disk[off:off+512]) {
			t.Fatal(err)
		}
	}
	if reads := r.Reads(); len(reads) != 1 {
		t.Errorf("%d reads for one compressed cluster", len(reads))
	}
}

// zstd writers that do not tell the length, with and without a checksum, and
// with a window larger than a cluster.
func TestZstdFrames(t *testing.T) {
	t.Parallel()
	plain := content(64<<10, 3)
	for _, opts := range [][]zstd.EOption{
		{zstd.WithEncoderCRC(false)}, {zstd.WithEncoderCRC(true)}, {zstd.WithWindowSize(8 << 20)},
		{zstd.WithEncoderLevel(zstd.SpeedBestCompression)}, {zstd.WithNoEntropyCompression(true)},
	} {
		m := newMade(16, 1)
		m.compression(compressionZstd)
		m.pack(0, append(zstdStreamed(plain, opts...), "and what follows"...))
		if got, err := readAll(m.mustOpen(t), 64<<10); err != nil || !bytes.Equal(got, plain) {
			t.Error(err)
		}
	}
}

// Subclusters of all states in one cluster.
func TestSubclusters(t *testing.T) {
	t.Parallel()
	const size, sub = 1 << 14, 512
	m := newMade(14, 2)
	m.or64(offIncompatible, featureExtendedL2)
	data := content(size, 4)
	m.b = append(m.b, data...)
	m.set64(2<<14, 3<<14|flagCopied)
	m.set64(2<<14+8, 0x0000_00f0_8000_000f)
	m.set64(2<<14+16, 0)
	m.set64(2<<14+24, 0xffff_ffff_0000_0000)
	want := make([]byte, 2*size)
	copy(want[:4*sub], data)
	copy(want[31*sub:], data[31*sub:])
	f := m.mustOpen(t)
	for _, piece := range []int64{2 * size, 700, 512} {
		if got, err := readAll(f, piece); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("pieces of %d: %v", piece, err)
		}
	}
	if !f.Info().ExtendedL2 {
		t.Errorf("%+v", f.Info())
	}
}

func TestEmptyDisk(t *testing.T) {
	t.Parallel()
	m := newMade(16, 0)
	f := m.mustOpen(t)
	if n, err := f.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	for e, err := range f.Map(t.Context()) {
		t.Errorf("%+v, %v", e, err)
	}
}

// Header fields that only tell, and a file that was not closed.
func TestInfo(t *testing.T) {
	t.Parallel()
	m := newMade(12, 1)
	m.or64(offIncompatible, featureDirty|featureCorrupt|featureDataFile)
	m.set32(offSnapshots, 7)
	m.set32(offCryptMethod, cryptLUKS)
	at := m.extension(104, extBackingFormat, "vmdk")
	at = m.extension(at, extDataFile, "http://data")
	m.extension(at, extEnd, "")
	m.backing(300, 12)
	info, err := ReadInfo(bytes.NewReader(m.b), int64(len(m.b)))
	want := Info{
		Version: 3, Size: 4096, ClusterSize: 4096, Compression: "zlib", Dirty: true, Damaged: true, Encryption: "luks",
		BackingFile: "/etc/shadow!", BackingFormat: "vmdk", DataFile: true, DataFileName: "http://data", Snapshots: 7,
	}
	if err != nil || info != want {
		t.Errorf("%+v, %v", info, err)
	}

	m = victim()
	m.or64(offIncompatible, featureDirty)
	if f := m.mustOpen(t); !f.Info().Dirty {
		t.Errorf("%+v", f.Info())
	}
	m = victim()
	m.version2()
	if f := m.mustOpen(t); f.Info().Version != 2 {
		t.Errorf("%+v", f.Info())
	}
	if _, err := Open(bytes.NewReader(nil), -1, Options{}); err == nil {
		t.Error("a negative size was opened")
	}
}

// memory is a disk in memory.
type memory struct{ *bytes.Reader }

func (m memory) Map(context.Context) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		yield(diskformat.Extent{Length: m.Size(), Data: true}, nil)
	}
}

// What a header does not name is not taken either.
func TestOptionsMustMatchTheHeader(t *testing.T) {
	t.Parallel()
	m := victim()
	if _, err := Open(bytes.NewReader(m.b), int64(len(m.b)), Options{Backing: memory{bytes.NewReader(nil)}}); err == nil {
		t.Error("a backing disk was taken that the header does not name")
	}
	if _, err := Open(bytes.NewReader(m.b), int64(len(m.b)), Options{Data: bytes.NewReader(nil)}); err == nil {
		t.Error("a data file was taken that the header does not name")
	}
}

// A backing disk that ends within a cluster, and one whose extents fail.
func TestBacking(t *testing.T) {
	t.Parallel()
	m := newMade(9, 4)
	m.backing(200, 12)
	m.l2(0, flagZero)
	base := content(700, 6)
	f, err := Open(bytes.NewReader(m.b), int64(len(m.b)), Options{Backing: memory{bytes.NewReader(base)}})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 2048)
	copy(want[512:], base[512:])
	if got, err := readAll(f, 2048); err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
	if got, err := disktest.Extents(f.Map(t.Context())); err != nil || !slices.Equal(got, []diskformat.Extent{
		{Offset: 0, Length: 512}, {Offset: 512, Length: 188, Data: true}, {Offset: 700, Length: 1348},
	}) {
		t.Errorf("%+v, %v", got, err)
	}

	broken := newMade(9, 4)
	broken.l1(0, 1)
	below := broken.mustOpen(t)
	f, err = Open(bytes.NewReader(m.b), int64(len(m.b)), Options{Backing: below})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.ReadAt(make([]byte, 10), 600)
	wantKind(t, err, errCorrupt, "L1 table")
	got, err := disktest.Extents(f.Map(t.Context()))
	wantKind(t, err, errCorrupt, "L1 table")
	if !slices.Equal(got, []diskformat.Extent{{Offset: 0, Length: 512}}) {
		t.Errorf("%+v", got)
	}
}

// A source that fails is an error of its own kind, and no extent.
func TestFailingSource(t *testing.T) {
	t.Parallel()
	m, _ := sample(t, 16, compressionZlib)
	dead := errors.New("the line is dead")
	open := func(at int64) (*File, error) {
		return Open(disktest.Failing{R: bytes.NewReader(m.b), At: at, Err: dead}, int64(len(m.b)), Options{})
	}
	if _, err := open(0); !errors.Is(err, dead) {
		t.Error(err)
	}
	p := make([]byte, 12<<16)
	for name, at := range map[string]int64{"L1": 1 << 16, "L2": 2 << 16, "cluster": 3 << 16, "compressed": int64(len(m.b)) - 1} {
		f, err := open(at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 0); !errors.Is(err, dead) {
			t.Errorf("%s: %v", name, err)
		}
		if name[0] != 'L' {
			continue
		}
		if got, err := disktest.Extents(f.Map(t.Context())); !errors.Is(err, dead) || len(got) > 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestMapEnds(t *testing.T) {
	t.Parallel()
	m, _ := sample(t, 9, compressionZlib)
	f := m.mustOpen(t)
	n := 0
	for range f.Map(t.Context()) {
		if n++; n == 2 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range f.Map(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}
