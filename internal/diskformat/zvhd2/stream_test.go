package zvhd2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
)

// A stream makes the file that the same disk makes, whether its size was said or not.
func TestConvertStreamMakesTheSameFile(t *testing.T) {
	t.Parallel()
	f := disktest.SparseFile(t, 0)
	rapid.Check(t, func(rt *rapid.T) {
		raw := make([]byte, rapid.IntRange(0, 3).Draw(rt, "blocks")*DefaultBlockSize+512*rapid.IntRange(1, 4096).Draw(rt, "sectors"))
		for range rapid.IntRange(0, 3).Draw(rt, "pieces") {
			off := rapid.IntRange(0, len(raw)-1).Draw(rt, "offset")
			disktest.Fill(raw[off:off+rapid.IntRange(1, len(raw)-off).Draw(rt, "length")], rapid.Uint64().Draw(rt, "content"))
		}
		opts := Options{Now: time.Unix(1e9, 0), UUID: [16]byte{7}, Concurrency: rapid.IntRange(1, 3).Draw(rt, "workers")}
		want := convertBytes(t, raw, opts)
		var got bytes.Buffer
		s, err := ConvertStream(t.Context(), &got, bytes.NewReader(raw), int64(len(raw)), opts)
		if err != nil || s.DiskSize != int64(len(raw)) || !bytes.Equal(got.Bytes(), want) {
			rt.Errorf("with its size: %+v, %v, or another file", s, err)
		}
		if err := f.Truncate(0); err != nil {
			rt.Fatal(err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			rt.Fatal(err)
		}
		s, err = ConvertStream(t.Context(), f, bytes.NewReader(raw), -1, opts)
		b, readErr := os.ReadFile(f.Name())
		if err != nil || readErr != nil || s.DiskSize != int64(len(raw)) || !bytes.Equal(b, want) {
			rt.Errorf("without its size: %+v, %v, or another file", s, err)
		}
	})
}

func TestConvertStreamChecksTheSize(t *testing.T) {
	t.Parallel()
	raw := make([]byte, DefaultBlockSize+1024)
	raw[5] = 1
	n := int64(len(raw))
	for _, c := range []struct {
		size int64
		kind error
	}{{n - 512, diskformat.ErrUnsupported}, {n + 512, io.ErrUnexpectedEOF}, {100, diskformat.ErrUnsupported}, {0, diskformat.ErrUnsupported}} {
		if _, err := ConvertStream(t.Context(), io.Discard, bytes.NewReader(raw), c.size, Options{}); !errors.Is(err, c.kind) {
			t.Errorf("%d bytes: %v", c.size, err)
		}
	}
	if _, err := ConvertStream(t.Context(), &bytes.Buffer{}, bytes.NewReader(raw), -1, Options{}); err == nil {
		t.Error("a file of unknown size was written to what can't be written at")
	}
	for _, raw := range [][]byte{nil, raw[:1000]} {
		if _, err := ConvertStream(t.Context(), disktest.SparseFile(t, 0), bytes.NewReader(raw), -1, Options{}); !errors.Is(err, diskformat.ErrUnsupported) {
			t.Errorf("a disk of %d bytes: %v", len(raw), err)
		}
	}
}

// A destination that fails ends it at once, also while the next read waits for a
// producer that writes nothing more and does not end.
func TestConvertStreamOutOfRoom(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	produced := make(chan error, 1)
	go func() {
		_, err := w.Write(bytes.Repeat([]byte("data"), 2*DefaultBlockSize/4))
		produced <- err
	}()
	_, err := ConvertStream(t.Context(), &fullAfter{size: pageSize}, r, 100*DefaultBlockSize, Options{Concurrency: 1})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if err := <-produced; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
