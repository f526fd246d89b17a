package zvhd

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// convertBytes makes a file with our writer.
func convertBytes(t testing.TB, raw []byte, opts Options) []byte {
	t.Helper()
	var out bytes.Buffer
	s, err := Convert(t.Context(), &out, bytes.NewReader(raw), int64(len(raw)), opts)
	if err != nil || s.FileSize != int64(out.Len()) || int64(s.Blocks) != int64(len(raw)+BlockSize-1)/BlockSize {
		t.Fatalf("%+v, %v; %d bytes", s, err, out.Len())
	}
	return out.Bytes()
}

func TestConvertTheFixturesDisk(t *testing.T) {
	t.Parallel()
	raw, theirs := disktest.Fixture(t, "c.raw"), disktest.Fixture(t, "c.zvhd")
	last := int64(0)
	ours := convertBytes(t, raw, Options{Progress: func(done, total int64) {
		if done < last || total != int64(len(raw)) {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	}})
	if last != int64(len(raw)) {
		t.Errorf("progress ended at %d", last)
	}
	got, err := extractBytes(t, ours)
	if err != nil || !bytes.Equal(got, raw) {
		t.Fatalf("the disk differs, %v", err)
	}
	// But for time, checksum and UUID, the header is theirs.
	for _, b := range [][]byte{ours, theirs} {
		clear(b[24:28])
		clear(b[64:84])
	}
	if !bytes.Equal(ours[:512], theirs[:512]) {
		t.Errorf("%x\n%x", ours[:512], theirs[:512])
	}
}

// A decoder that knows nothing of records sees one zlib stream.
func TestPayloadsAreOneZlibStream(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 5*BlockSize+512)
	for _, block := range []int{0, 1, 3, 5} {
		disktest.Fill(raw[block*BlockSize:][:min(70_000, len(raw)-block*BlockSize)], uint64(block))
	}
	for level := 1; level <= 9; level += 4 {
		file := convertBytes(t, raw, Options{Level: level, Now: time.Unix(1e9, 0), UUID: [16]byte{1}, Concurrency: 3})
		var stream, want bytes.Buffer
		for off := zdisk.PageSize; off < len(file)-zdisk.PageSize; {
			n := int(binary.LittleEndian.Uint32(file[off+12:]))
			block := int(binary.LittleEndian.Uint32(file[off+16:]))
			stream.Write(file[off+zdisk.RecordHeadSize:][:n])
			plain := make([]byte, BlockSize)
			copy(plain, raw[block*BlockSize:])
			want.Write(plain)
			off += int(zdisk.RecordLen(int64(n)))
		}
		z, err := zlib.NewReader(&stream)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, want.Len())
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("level %d: the stream holds another disk, %v", level, err)
		}
	}
}

// drawDisk is a disk with pieces of data.
func drawDisk(rt *rapid.T) []byte {
	raw := make([]byte, rapid.IntRange(0, 4).Draw(rt, "blocks")*BlockSize+512*rapid.IntRange(1, 4096).Draw(rt, "sectors"))
	for range rapid.IntRange(0, 4).Draw(rt, "pieces") {
		off := rapid.IntRange(0, len(raw)-1).Draw(rt, "offset")
		disktest.Fill(raw[off:off+rapid.IntRange(1, len(raw)-off).Draw(rt, "length")], rapid.Uint64().Draw(rt, "content"))
	}
	return raw
}

// What Convert writes, File reads at any place, in any order, by many at once.
func TestFileReadsWhatConvertWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		raw := drawDisk(rt)
		file := convertBytes(t, raw, Options{Concurrency: rapid.IntRange(1, 4).Draw(rt, "workers")})
		f, err := Open(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			rt.Fatal(err)
		}
		checkFile(rt, f, raw, rapid.Uint64().Draw(rt, "seed"))
	})
}

// checkFile compares a file with its disk.
func checkFile(t interface {
	Errorf(string, ...any)
	Fatal(...any)
}, f *File, raw []byte, seed uint64) {
	if f.OrigSize() != int64(len(raw)) || f.Size() != 1<<30 {
		t.Errorf("sizes %d and %d", f.OrigSize(), f.Size())
	}
	at := int64(0)
	for e := range f.Extents() {
		if e.Offset != at || e.Length <= 0 {
			t.Errorf("extent %+v after %d", e, at)
		}
		at = e.End()
		if end := min(at, int64(len(raw))); !e.Data && e.Offset < end && !bytes.Equal(raw[e.Offset:end], make([]byte, end-e.Offset)) {
			t.Errorf("%+v is no hole", e)
		}
	}
	if at != f.Size() {
		t.Errorf("the extents end at %d", at)
	}
	var wg sync.WaitGroup
	for k := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, k))
			for range 8 {
				off := r.Int64N(int64(len(raw)) + 2*BlockSize)
				p := bytes.Repeat([]byte{0xee}, r.IntN(3*BlockSize))
				n, err := f.ReadAt(p, off)
				want := make([]byte, len(p))
				if off < int64(len(raw)) {
					copy(want, raw[off:])
				}
				if n != len(p) || err != nil || !bytes.Equal(p, want) {
					t.Errorf("%d bytes at %d: %d, %v, or other bytes", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFileOfTheFixture(t *testing.T) {
	t.Parallel()
	file := disktest.Fixture(t, "c.zvhd")
	f, err := Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Blocks() != 9 || f.DataBlocks() != 3 {
		t.Errorf("%d of %d blocks", f.DataBlocks(), f.Blocks())
	}
	checkFile(t, f, disktest.Fixture(t, "c.raw"), 1)
	p := make([]byte, 100)
	if n, err := f.ReadAt(p, 1<<30-50); n != 50 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := f.ReadAt(p, -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("before the front: %v", err)
	}
}

// numbered is a disk whose blocks begin with their number, and a 1.
type numbered struct{}

func (numbered) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	p[0], p[1] = byte(off/BlockSize), 1
	return len(p), nil
}

// Reading backwards through more blocks than are kept starts from a checkpoint, not
// from the front.
func TestBackwards(t *testing.T) {
	t.Parallel()
	const blocks = checkpoints + 50
	var out bytes.Buffer
	if _, err := Convert(t.Context(), &out, numbered{}, blocks*BlockSize, Options{}); err != nil {
		t.Fatal(err)
	}
	file := out.Bytes()
	count := &disktest.Counter{R: bytes.NewReader(file)}
	f, err := Open(count, int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	before := len(count.Reads())
	p := make([]byte, 2)
	for i := blocks - 1; i >= 0; i-- {
		if _, err := f.ReadAt(p, int64(i)*BlockSize); err != nil || p[0] != byte(i) {
			t.Fatalf("block %d: %v, %v", i, p, err)
		}
	}
	if n := len(count.Reads()) - before; n > 4*blocks {
		t.Errorf("%d records were read for %d blocks", n, blocks)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file, rec := sample(t)
	for n := 0; n < len(file); n += 97 {
		_, err := Open(bytes.NewReader(file[:n]), int64(n))
		kind := diskformat.ErrIncomplete
		if n < len(cookie) {
			kind = diskformat.ErrWrongFormat
		}
		if !errors.Is(err, kind) {
			t.Fatalf("cut after %d of %d: %v", n, len(file), err)
		}
	}
	_, err := Open(bytes.NewReader(append(slices.Clone(file), 0)), int64(len(file)+1))
	wantKind(t, err, diskformat.ErrCorrupt, "file")
	swapped := slices.Clone(file)
	binary.LittleEndian.PutUint32(swapped[rec[1]+16:], 3)
	_, err = Open(bytes.NewReader(swapped), int64(len(file)))
	wantKind(t, err, diskformat.ErrCorrupt, "block number")
	// Of a damaged record nothing is given out, of those before it all.
	bad := slices.Clone(file)
	bad[rec[1]+60] ^= 0xff
	f, err := Open(bytes.NewReader(bad), int64(len(bad)))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	for range 2 {
		if _, err := f.ReadAt(p, 2*BlockSize); !errors.Is(err, diskformat.ErrCorrupt) {
			t.Errorf("the damaged block: %v", err)
		}
		if _, err := f.ReadAt(p, 0); err != nil || p[0] != 1 {
			t.Errorf("the block before: %v", err)
		}
	}
}

func TestConvertFails(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, -512, 100, 1<<40 + 512} {
		if _, err := Convert(t.Context(), io.Discard, bytes.NewReader(nil), size, Options{}); !errors.Is(err, diskformat.ErrUnsupported) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := Convert(t.Context(), io.Discard, bytes.NewReader(nil), 512, Options{Level: 10}); !errors.Is(err, diskformat.ErrUnsupported) {
		t.Errorf("level 10: %v", err)
	}
	if _, err := Convert(t.Context(), io.Discard, bytes.NewReader(make([]byte, 512)), 1024, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short source: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Convert(ctx, io.Discard, bytes.NewReader(make([]byte, 512)), 512, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Holes are not read.
	none := iter.Seq2[diskformat.Extent, error](func(func(diskformat.Extent, error) bool) {})
	s, err := Convert(t.Context(), io.Discard, bytes.NewReader(nil), 1<<40, Options{Data: none})
	if err != nil || s.DataBlocks != 0 || s.FileSize != 2*zdisk.PageSize {
		t.Errorf("all holes: %+v, %v", s, err)
	}
}
