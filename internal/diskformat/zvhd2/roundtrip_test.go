package zvhd2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// drawDisk draws a small sparse disk: whole and part blocks of made-up
// content, holes between them, a size that is any number of sectors.
func drawDisk(t *rapid.T) []byte {
	blocks := rapid.IntRange(0, 5).Draw(t, "blocks")
	raw := make([]byte, blocks<<21+512*rapid.IntRange(1, 4096).Draw(t, "sectors"))
	for range rapid.IntRange(0, 4).Draw(t, "pieces") {
		off := rapid.IntRange(0, len(raw)-1).Draw(t, "offset")
		n := rapid.IntRange(1, len(raw)-off).Draw(t, "length")
		disktest.Fill(raw[off:off+n], rapid.Uint64().Draw(t, "content"))
	}
	return raw
}

// Whatever the disk: it comes back byte for byte, reads at random give what
// lies there, and what is called a hole is one.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		raw := drawDisk(t)
		var file bytes.Buffer
		_, err := Convert(context.Background(), &file, bytes.NewReader(raw), int64(len(raw)),
			ConvertOptions{Options: Options{WholeBlocks: rapid.Bool().Draw(t, "whole blocks"), Concurrency: rapid.IntRange(1, 4).Draw(t, "concurrency")}})
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := f.Extract(context.Background(), out, ExtractOptions{}); err != nil {
			t.Fatal(err)
		}
		if back, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("the disk differs (%v)", err)
		}
		for range 8 {
			off := rapid.IntRange(0, len(raw)+1<<20).Draw(t, "read offset")
			p := make([]byte, rapid.IntRange(0, 5<<20).Draw(t, "read length"))
			if n, err := f.ReadAt(p, int64(off)); n != len(p) || err != nil {
				t.Fatalf("reading %d bytes at %d: %d, %v", len(p), off, n, err)
			}
			want := make([]byte, len(p))
			if off < len(raw) {
				copy(want, raw[off:])
			}
			if !bytes.Equal(p, want) {
				t.Fatalf("%d bytes at %d differ", len(p), off)
			}
		}
		at, data := int64(0), true
		for e := range f.Extents() {
			if e.Offset != at || e.Length <= 0 || at > 0 && e.Data == data {
				t.Fatalf("extent %+v after %d", e, at)
			}
			if !e.Data && e.Offset < int64(len(raw)) {
				p := raw[e.Offset:min(e.End(), int64(len(raw)))]
				if !bytes.Equal(p, make([]byte, len(p))) {
					t.Fatalf("the hole %+v is none", e)
				}
			}
			at, data = e.End(), e.Data
		}
		if at != f.Size() {
			t.Fatalf("the extents end at %d, the disk at %d", at, f.Size())
		}
	})
}

// Sizes and blocks at their edges.
func TestEdges(t *testing.T) {
	t.Parallel()
	const b = DefaultBlockSize
	for _, size := range []int64{512, b - 512, b, b + 512, 8*b - 512, 8 * b, 8*b + 512, 9 * b} {
		for i := range 4 {
			fill, whole := i%2 == 1, i/2 == 1
			raw := make([]byte, size)
			if fill {
				raw[0], raw[size-1] = 1, 2
			}
			file := convertBytes(t, raw, Options{WholeBlocks: whole})
			f := mustOpen(t, file)
			if got := extract(t, f, ExtractOptions{}); !bytes.Equal(got, raw) {
				t.Errorf("size %d, filled %v: the disk differs", size, fill)
			}
			least := MinFileSize
			if !whole {
				least += pageSize // one more copy of the header
			}
			if !fill && (len(file) != least || f.DataBlocks() != 0) {
				t.Errorf("an all-zero disk of %d takes %d bytes", size, len(file))
			}
		}
	}
}

// The virtual disk is the source's with a tail of zeros up to a whole GiB.
func TestExtractVirtual(t *testing.T) {
	t.Parallel()
	out := disktest.SparseFile(t, 0)
	if err := mustOpen(t, disktest.Fixture(t, "c.zvhd2")).Extract(t.Context(), out, ExtractOptions{Virtual: true}); err != nil {
		t.Fatal(err)
	}
	st, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	raw := disktest.Fixture(t, "c.raw")
	want := append(raw, make([]byte, 1<<20)...)
	got := make([]byte, len(want))
	if _, err := out.ReadAt(got, 0); err != nil || st.Size() != 1<<30 || !bytes.Equal(got, want) {
		t.Errorf("the virtual disk of %d bytes differs (%v)", st.Size(), err)
	}
}

func TestReadAtTheEnd(t *testing.T) {
	t.Parallel()
	f := mustOpen(t, disktest.Fixture(t, "c.zvhd2"))
	p := []byte{1, 2, 3, 4}
	if n, err := f.ReadAt(p, f.Size()-2); n != 2 || err != io.EOF || p[0] != 0 || p[1] != 0 {
		t.Errorf("over the end: %d, %v, %v", n, err, p)
	}
	if n, err := f.ReadAt(p, f.Size()); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(p, -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
	if n, err := f.ReadAt(nil, 5); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

// A random read is one read of one record; a hole is none.
func TestReadsOfReading(t *testing.T) {
	t.Parallel()
	b := disktest.Fixture(t, "c.zvhd2")
	c := &disktest.Counter{R: bytes.NewReader(b)}
	f, err := Open(c, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	c.Reads()
	p := make([]byte, 4096)
	for _, step := range []struct {
		off  int64
		want []disktest.Read
	}{
		{5 << 21, []disktest.Read{{Off: 12288, Len: 4096}}},
		{5<<21 + 9000, nil}, // the block that was read last
		{1 << 21, nil},      // a hole
		{900 << 20, nil},    // the tail
		{2 << 21, []disktest.Read{{Off: 8192, Len: 4096}}},
	} {
		if _, err := f.ReadAt(p, step.off); err != nil {
			t.Fatal(err)
		}
		got := c.Reads()
		if len(got) != len(step.want) || len(got) == 1 && got[0] != step.want[0] {
			t.Errorf("at %d: %v, right are %v", step.off, got, step.want)
		}
	}
}

// What can't be read is an error, never zeros, and so is a damaged record.
func TestReadingFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("the line is dead")
	b := disktest.Fixture(t, "c.zvhd2")
	for _, at := range []int64{8192, 8192 + 100, 12287} {
		// The file's last MiB is all of it, so it is opened from elsewhere.
		f := mustOpen(t, b)
		f.r = disktest.Failing{R: bytes.NewReader(b), At: at, Err: broken}
		p := bytes.Repeat([]byte{0xee}, 4096)
		if n, err := f.ReadAt(p, 2<<21); n != 0 || !errors.Is(err, broken) {
			t.Errorf("failing at %d: %d, %v", at, n, err)
		}
		if err := f.Extract(t.Context(), &disktest.Memory{B: make([]byte, f.OrigSize())}, ExtractOptions{}); !errors.Is(err, broken) {
			t.Errorf("extracting, failing at %d: %v", at, err)
		}
		// Before the fault all is well, and after it again.
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Error(err)
		}
	}
	bad := bytes.Clone(b)
	bad[8192+60] ^= 0xff
	f := mustOpen(t, bad)
	for _, n := range []int{10, 2 << 20} {
		if _, err := f.ReadAt(make([]byte, n), 2<<21); !errors.Is(err, diskformat.ErrCorrupt) {
			t.Errorf("a damaged record: %v", err)
		}
	}
	if err := f.Verify(t.Context(), Options{}); !errors.Is(err, diskformat.ErrCorrupt) {
		t.Errorf("verifying a damaged record: %v", err)
	}
	f = mustOpen(t, b)
	f.r = bytes.NewReader(b[:10000])
	if _, err := f.ReadAt(make([]byte, 10), 2<<21); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that became shorter: %v", err)
	}
}

// Many readers of one file at once, each with its own bytes.
func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 10<<20)
	disktest.Fill(raw, 42)
	f := mustOpen(t, convertBytes(t, raw, Options{}))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			p := make([]byte, 100_000)
			for i := range 20 {
				off := int64((g*7919 + i*1_234_567) % (len(raw) - len(p)))
				if _, err := f.ReadAt(p, off); err != nil {
					t.Error(err)
				} else if !bytes.Equal(p, raw[off:off+int64(len(p))]) {
					t.Errorf("bytes at %d differ", off)
				}
			}
		})
	}
	wg.Wait()
}

// In the last block, what a strange writer put beyond the disk's end is zero.
func TestBeyondTheDiskIsZero(t *testing.T) {
	t.Parallel()
	f := &File{h: header{blockSize: DefaultBlockSize, maxBlocks: 1, compression: methodZstd}}
	f.h.OrigSize = 1024
	plain := bytes.Repeat([]byte{7}, DefaultBlockSize)
	dst := make([]byte, DefaultBlockSize)
	if err := f.DecodeRecord(dst, record(frame(t, plain), 0), 0); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Repeat([]byte{7}, 1024), make([]byte, DefaultBlockSize-1024)...); !bytes.Equal(dst, want) {
		t.Error("bytes beyond the disk are not zero")
	}
}
