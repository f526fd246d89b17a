package zvhd2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDiskSizesThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{-512, 0, 1, 511, 513, 1<<40 + 512} {
		var out bytes.Buffer
		_, err := Convert(t.Context(), &out, disktest.Patched{}, size, ConvertOptions{})
		wantKind(t, err, diskformat.ErrUnsupported, "disk size")
		if out.Len() != 0 {
			t.Errorf("size %d: %d bytes were written", size, out.Len())
		}
	}
	_, err := Convert(t.Context(), io.Discard, disktest.Patched{}, 512, ConvertOptions{Options: Options{Level: 23}})
	wantKind(t, err, diskformat.ErrUnsupported, "level")
}

// The last block is filled up with zeros in the file itself, whatever was
// compressed before it: other readers see what is stored.
func TestShortLastBlockIsPadded(t *testing.T) {
	t.Parallel()
	raw := bytes.Repeat([]byte{7}, 2<<20+1024)
	f := mustOpen(t, convertBytes(t, raw, Options{Concurrency: 1}))
	f.h.OrigSize = 4 << 20 // so that nothing is cut off when it is read
	got := make([]byte, 2<<20)
	if _, err := f.ReadAt(got, 2<<20); err != nil || !bytes.Equal(got[1024:], make([]byte, 2<<20-1024)) {
		t.Errorf("what lies beyond the disk's end is not zero (%v)", err)
	}
}

// The result does not depend on how many cores made it.
func TestConversionIsDeterministic(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 20<<20+1024)
	for _, block := range []int{0, 1, 4, 9, 10} {
		p := raw[block<<21:]
		disktest.Fill(p[:min(len(p), 2<<20)], uint64(block))
		p[0] = 1
	}
	opts := Options{UUID: [16]byte{1}, Now: mustOpen(t, disktest.Fixture(t, "c.zvhd2")).Created()}
	var want []byte
	for _, n := range []int{1, 2, 7} {
		opts.Concurrency = n
		got := convertBytes(t, raw, opts)
		if want != nil && !bytes.Equal(got, want) {
			t.Errorf("%d at once make another file", n)
		}
		want = got
	}
}

// fullAfter is a disk that is full after so many bytes.
type fullAfter struct {
	bytes.Buffer
	size int
}

func (w *fullAfter) Write(p []byte) (int, error) {
	if left := w.size - w.Len(); len(p) > left {
		n, _ := w.Buffer.Write(p[:left])
		return n, syscall.ENOSPC
	}
	return w.Buffer.Write(p)
}

// A disk that is full at any point of the file ends the conversion with that
// error, and what was written until then never opens.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 12<<20)
	disktest.Fill(raw, 5)
	whole := convertBytes(t, raw, Options{})
	for left := 0; left < len(whole); left += 1 + len(whole)/40 {
		dst := &fullAfter{size: left}
		_, err := Convert(t.Context(), dst, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("full after %d bytes: %v", left, err)
		}
		if _, err := Open(bytes.NewReader(dst.Bytes()), int64(dst.Len())); err == nil {
			t.Fatalf("the first %d bytes of a file were opened", left)
		}
	}
}

func TestConversionSourceFails(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 12<<20)
	disktest.Fill(raw, 5)
	broken := errors.New("bad sector")
	for _, at := range []int64{0, 7 << 20, 12<<20 - 1} {
		_, err := Convert(t.Context(), io.Discard, disktest.Failing{R: bytes.NewReader(raw), At: at, Err: broken}, 12<<20, ConvertOptions{})
		if !errors.Is(err, broken) {
			t.Errorf("failing at %d: %v", at, err)
		}
	}
	_, err := Convert(t.Context(), io.Discard, bytes.NewReader(raw), 13<<20, ConvertOptions{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that is too short: %v", err)
	}
	// A sparse file too: what lies beyond its end is no hole.
	_, err = Convert(t.Context(), io.Discard, disktest.SparseFile(t, 1<<20), 2<<20, ConvertOptions{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a sparse source that is too short: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 12<<20)
	disktest.Fill(raw, 5)
	file := convertBytes(t, raw, Options{})
	for _, blocks := range []int64{0, 1, 3} {
		// Cancelled from within, when so many blocks are done.
		ctx, cancel := context.WithCancel(t.Context())
		opts := Options{Concurrency: 2, Progress: func(done, _ int64) {
			if done >= blocks<<21 {
				cancel()
			}
		}}
		if blocks == 0 {
			cancel()
		}
		if _, err := Convert(ctx, io.Discard, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{Options: opts}); !errors.Is(err, context.Canceled) {
			t.Errorf("converting, cancelled after %d: %v", blocks, err)
		}
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		if blocks == 0 {
			cancel()
		}
		if err := mustOpen(t, file).Extract(ctx, &disktest.Memory{B: make([]byte, len(raw))}, ExtractOptions{Options: opts}); !errors.Is(err, context.Canceled) {
			t.Errorf("extracting, cancelled after %d: %v", blocks, err)
		}
		cancel()
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 16<<20)
	disktest.Fill(raw[4<<20:9<<20], 5)
	last := int64(-1)
	opts := Options{Progress: func(done, total int64) {
		if done < last || done > total || total != int64(len(raw)) {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	}}
	file := convertBytes(t, raw, opts)
	if last != int64(len(raw)) {
		t.Errorf("converting ended at %d", last)
	}
	last = -1
	if err := mustOpen(t, file).Extract(t.Context(), &disktest.Memory{B: make([]byte, len(raw))}, ExtractOptions{Options: opts}); err != nil {
		t.Fatal(err)
	}
	if last != int64(len(raw)) {
		t.Errorf("extracting ended at %d", last)
	}
	last = -1
	raw = make([]byte, 16<<20)
	if err := mustOpen(t, convertBytes(t, raw, Options{})).Verify(t.Context(), opts); err != nil || last != int64(len(raw)) {
		t.Errorf("verifying nothing: %v, ended at %d", err, last)
	}
}

// A destination that can't get holes and holds other bytes.
func TestExtractOverOtherBytes(t *testing.T) {
	t.Parallel()
	raw, file := disktest.Fixture(t, "c.raw"), disktest.Fixture(t, "c.zvhd2")
	dst := &disktest.Memory{B: bytes.Repeat([]byte{0xee}, len(raw))}
	if err := mustOpen(t, file).Extract(t.Context(), dst, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst.B, raw) {
		t.Error("the disk differs")
	}
	// And a file that holds others.
	name := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(name, bytes.Repeat([]byte{0xee}, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := mustOpen(t, file).Extract(t.Context(), f, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the file differs (%v)", err)
	}
}

// A sparse 1 TiB disk: its holes are not read, and the disk that comes back is
// as sparse.
func TestSparseTerabyte(t *testing.T) {
	t.Parallel()
	src := disktest.SparseFile(t, 1<<40)
	for _, off := range []int64{0, 3 << 30, 1<<40 - 4096} {
		if _, err := src.WriteAt(bytes.Repeat([]byte{byte(off>>30)&0x7f + 1}, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "disk.zvhd2")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s, err := Convert(t.Context(), out, src, 1<<40, ConvertOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Blocks != 524288 || s.DataBlocks != 3 {
		t.Errorf("%+v", s)
	}
	f, err := Open(out, s.FileSize)
	if err != nil {
		t.Fatal(err)
	}
	back := disktest.SparseFile(t, 0)
	if err := f.Extract(t.Context(), back, ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	st, err := back.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); st.Size() != 1<<40 || ok && sys.Blocks*512 > 1<<20 {
		t.Errorf("the disk that came back has %d bytes, %+v", st.Size(), st.Sys())
	}
	for _, off := range []int64{0, 3 << 30, 1<<40 - 4096} {
		p := make([]byte, 4096)
		if _, err := back.ReadAt(p, off); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(off>>30)&0x7f + 1}, 4096)) {
			t.Errorf("bytes at %d differ (%v)", off, err)
		}
	}
}

// Converting and extracting take memory for a few blocks for each core, not
// for the disk. Not parallel: it measures.
func TestMemoryDoesNotGrowWithTheDisk(t *testing.T) {
	raw := make([]byte, 96<<20)
	for i := range 48 {
		disktest.Fill(raw[i<<21:][:1<<20], uint64(i))
	}
	var file bytes.Buffer
	file.Grow(100 << 20)
	opts := Options{Concurrency: 2}
	n := disktest.Allocated(func() {
		if _, err := Convert(t.Context(), &file, bytes.NewReader(raw), int64(len(raw)), ConvertOptions{Options: opts}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("converting: %d KiB", n>>10)
	if n > 40<<20 {
		t.Errorf("converting 96 MiB allocated %d bytes", n)
	}
	f := mustOpen(t, file.Bytes())
	n = disktest.Allocated(func() {
		if err := f.Extract(t.Context(), &disktest.Memory{B: raw}, ExtractOptions{Options: opts}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("extracting: %d KiB", n>>10)
	if n > 16<<20 {
		t.Errorf("extracting 96 MiB allocated %d bytes", n)
	}
}
