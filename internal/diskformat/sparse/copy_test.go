package sparse_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

const block = 2 << 20

// drawDisk is a disk with pieces of data.
func drawDisk(rt *rapid.T) []byte {
	raw := make([]byte, rapid.IntRange(0, 3).Draw(rt, "blocks")*block+rapid.IntRange(1, block).Draw(rt, "rest"))
	for range rapid.IntRange(0, 3).Draw(rt, "pieces") {
		off := rapid.IntRange(0, len(raw)-1).Draw(rt, "offset")
		disktest.Fill(raw[off:off+rapid.IntRange(1, len(raw)-off).Draw(rt, "length")], rapid.Uint64().Draw(rt, "content"))
	}
	return raw
}

// Every way of copying a disk makes the same disk.
func TestCopies(t *testing.T) {
	t.Parallel()
	f := disktest.SparseFile(t, 0)
	rapid.Check(t, func(rt *rapid.T) {
		raw := drawDisk(rt)
		size := int64(len(raw))
		check := func(how string, got []byte, err error) {
			if err != nil || !bytes.Equal(got, raw) {
				rt.Errorf("%s: %v, or another disk", how, err)
			}
		}
		last := int64(0)
		opts := sparse.CopyOptions{Concurrency: rapid.IntRange(1, 3).Draw(rt, "workers"), Progress: func(done, total int64) {
			if done < last || done > total || total != size {
				rt.Errorf("%d of %d after %d", done, total, last)
			}
			last = done
		}}
		read := func() []byte {
			b, err := os.ReadFile(f.Name())
			if err != nil {
				rt.Fatal(err)
			}
			return b
		}
		err := sparse.Copy(t.Context(), f, bytes.NewReader(raw), size, opts)
		check("Copy to a file", read(), err)
		if last != size {
			rt.Errorf("progress ended at %d of %d", last, size)
		}
		last = 0
		memory := &disktest.Memory{B: bytes.Repeat([]byte{0xee}, len(raw))}
		err = sparse.Copy(t.Context(), memory, f, size, opts)
		check("Copy to what can't have holes", memory.B, err)
		last = 0
		var out bytes.Buffer
		err = sparse.Stream(t.Context(), &out, f, size, opts)
		check("Stream", out.Bytes(), err)
		if last != size {
			rt.Errorf("progress of the stream ended at %d of %d", last, size)
		}
		for _, said := range []int64{size, -1} {
			n, err := sparse.CopyStream(t.Context(), f, bytes.NewReader(raw), said, 1<<40, nil)
			check("CopyStream", read(), err)
			if n != size {
				rt.Errorf("CopyStream: %d bytes", n)
			}
		}
	})
}

func TestCopyMakesHoles(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 8*block)
	disktest.Fill(raw[5*block:][:4096], 1)
	f := disktest.SparseFile(t, 0)
	if err := sparse.Copy(t.Context(), f, bytes.NewReader(raw), int64(len(raw)), sparse.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 64<<10 {
		t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
	}
}

func TestCopyStreamChecksTheSize(t *testing.T) {
	t.Parallel()
	raw := make([]byte, block+1000)
	for _, c := range []struct {
		size, most int64
		fine       bool
	}{{block + 1000, block + 1000, true}, {-1, block + 1000, true}, {block + 999, 1 << 40, false}, {block + 1001, 1 << 40, false}, {-1, block + 999, false}, {0, 1 << 40, false}} {
		_, err := sparse.CopyStream(t.Context(), disktest.SparseFile(t, 0), bytes.NewReader(raw), c.size, c.most, nil)
		if (err == nil) != c.fine {
			t.Errorf("%d bytes said, %d at most: %v", c.size, c.most, err)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		raw := drawDisk(rt)
		size := int64(len(raw))
		other := bytes.Clone(raw)
		at := int64(-1)
		if rapid.Bool().Draw(rt, "differ") {
			at = rapid.Int64Range(0, size-1).Draw(rt, "at")
			other[at] ^= 1
		}
		a, b := disktest.TempFile(t, raw), bytes.NewReader(other)
		for _, swapped := range []bool{false, true} {
			var err error
			if swapped {
				err = sparse.Compare(t.Context(), b, a, size, sparse.Data(b, size), sparse.Data(a, size), nil)
			} else {
				err = sparse.Compare(t.Context(), a, b, size, sparse.Data(a, size), sparse.Data(b, size), nil)
			}
			if (at < 0) != (err == nil) || err != nil && !errors.Is(err, diskformat.ErrMismatch) {
				rt.Errorf("a difference at %d (-1: none): %v", at, err)
			}
		}
	})
	// What is a hole in one alone is looked at in both.
	f, full := disktest.SparseFile(t, 3*block), make([]byte, 3*block)
	full[2*block+5] = 1
	err := sparse.Compare(t.Context(), f, bytes.NewReader(full), 3*block, sparse.Data(f, 3*block), sparse.Data(bytes.NewReader(full), 3*block), nil)
	if !errors.Is(err, diskformat.ErrMismatch) {
		t.Errorf("a hole and data: %v", err)
	}
}

func TestCopyFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	src := disktest.Failing{R: bytes.NewReader(make([]byte, 4*block)), At: 3 * block, Err: broken}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, copy := range map[string]func(context.Context, io.ReaderAt) error{
		"Copy": func(ctx context.Context, r io.ReaderAt) error {
			return sparse.Copy(ctx, &disktest.Memory{B: make([]byte, 4*block)}, r, 4*block, sparse.CopyOptions{})
		},
		"Stream": func(ctx context.Context, r io.ReaderAt) error {
			return sparse.Stream(ctx, io.Discard, r, 4*block, sparse.CopyOptions{})
		},
	} {
		if err := copy(t.Context(), src); !errors.Is(err, broken) {
			t.Errorf("%s from a broken source: %v", name, err)
		}
		if err := copy(ctx, bytes.NewReader(make([]byte, 4*block))); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
	}
}
