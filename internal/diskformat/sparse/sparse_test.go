package sparse_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

func collect[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for x, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
}

func TestIsZero(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4096, 64 << 10, 64<<10 + 1, 200_000} {
		p := make([]byte, n)
		if !sparse.IsZero(p) {
			t.Errorf("%d zeros are none", n)
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if i >= 0 && i < n {
				p[i] = 1
				if sparse.IsZero(p) {
					t.Errorf("byte %d of %d was not seen", i, n)
				}
				p[i] = 0
			}
		}
	}
}

// What a file holds lies in the ranges that Data gives; on a file system that
// tells holes, the hole is left out.
func TestDataOfSparseFile(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	f := disktest.SparseFile(t, size)
	for _, off := range []int64{1 << 20, 50 << 20} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), off); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, sparse.Data(f, size))
	want := []diskformat.Extent{{Offset: 1 << 20, Length: 1 << 20, Data: true}, {Offset: 50 << 20, Length: 1 << 20, Data: true}}
	whole := []diskformat.Extent{{Length: size, Data: true}}
	if !slices.Equal(got, want) && !slices.Equal(got, whole) {
		t.Errorf("%v", got)
	}
	if got := collect(t, sparse.Data(f, 1<<20+4096)); len(got) != 1 || got[0].End() != 1<<20+4096 {
		t.Errorf("of the first bytes: %v", got)
	}
	if got := collect(t, sparse.Data(disktest.SparseFile(t, size), size)); len(got) != 0 && !slices.Equal(got, whole) {
		t.Errorf("of a hole: %v", got)
	}
	if got := collect(t, sparse.Data(bytes.NewReader(make([]byte, size)), size)); !slices.Equal(got, whole) {
		t.Errorf("of what is no file: %v", got)
	}
	if got := collect(t, sparse.Data(f, 0)); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for range sparse.Data(f, size) {
		break // may be left early
	}
}

func TestDataOfShortOrClosedFile(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{false, true} {
		f := disktest.SparseFile(t, 1<<20)
		if written {
			if _, err := f.WriteAt([]byte{1}, 1<<20-1); err != nil {
				t.Fatal(err)
			}
		}
		var last error
		for _, err := range sparse.Data(f, 2<<20) {
			last = err
		}
		if !errors.Is(last, io.ErrUnexpectedEOF) {
			t.Errorf("written %v: %v", written, last)
		}
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, err := range sparse.Data(f, 10) {
		if err == nil {
			t.Error("a closed file has data")
		}
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	ranges := func(e ...diskformat.Extent) iter.Seq2[diskformat.Extent, error] {
		return func(yield func(diskformat.Extent, error) bool) {
			for _, e := range e {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
	for _, c := range []struct {
		in   []diskformat.Extent
		want []int64
	}{
		{nil, nil},
		{[]diskformat.Extent{{Offset: 0, Length: 1}}, []int64{0}},
		{[]diskformat.Extent{{Offset: 9, Length: 2}}, []int64{0, 1}},
		{[]diskformat.Extent{{Offset: 10, Length: 10}, {Offset: 20, Length: 1}}, []int64{1, 2}},
		{[]diskformat.Extent{{Offset: 11, Length: 1}, {Offset: 13, Length: 1}, {Offset: 95, Length: 0}, {Offset: 99, Length: 1}}, []int64{1, 9}},
	} {
		if got := collect(t, sparse.Blocks(ranges(c.in...), 100, 10)); !slices.Equal(got, c.want) {
			t.Errorf("%v: blocks %v, right are %v", c.in, got, c.want)
		}
	}
	for _, in := range [][]diskformat.Extent{
		{{Offset: -1, Length: 5}},
		{{Offset: 5, Length: -1}},
		{{Offset: 95, Length: 6}},
		{{Offset: 101, Length: 0}},
		{{Offset: 1 << 62, Length: 1 << 62}},
		{{Offset: 50, Length: 5}, {Offset: 54, Length: 1}},
	} {
		var last error
		for _, err := range sparse.Blocks(ranges(in...), 100, 10) {
			last = err
		}
		if last == nil {
			t.Errorf("%v: taken", in)
		}
	}
	broken := errors.New("broken")
	for _, err := range sparse.Blocks(func(yield func(diskformat.Extent, error) bool) { yield(diskformat.Extent{}, broken) }, 100, 10) {
		if !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
}

// Writing with holes gives the same bytes.
func TestWriteAt(t *testing.T) {
	t.Parallel()
	f := disktest.SparseFile(t, 0)
	rapid.Check(t, func(t *rapid.T) {
		p := make([]byte, rapid.IntRange(0, 100_000).Draw(t, "length"))
		for range rapid.IntRange(0, 5).Draw(t, "bytes") {
			if len(p) > 0 {
				p[rapid.IntRange(0, len(p)-1).Draw(t, "at")] = 1
			}
		}
		off := rapid.IntRange(0, 10_000).Draw(t, "offset")
		if ok, err := sparse.Prepare(f, int64(off+len(p))); err != nil || !ok {
			t.Fatal(err)
		}
		if err := sparse.WriteAt(f, p, int64(off)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, off+len(p))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, append(make([]byte, off), p...)) {
			t.Fatalf("the bytes differ (%v)", err)
		}
	})
}

func TestZero(t *testing.T) {
	t.Parallel()
	m := &disktest.Memory{B: bytes.Repeat([]byte{1}, 300_000)}
	if err := sparse.Zero(t.Context(), m, 10, 299_000); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{1}, 300_000)
	clear(want[10:299_010])
	if !bytes.Equal(m.B, want) {
		t.Error("other bytes are zero")
	}
	if ok, err := sparse.Prepare(m, 5); ok || err != nil {
		t.Errorf("what can't be truncated: %v, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sparse.Zero(ctx, m, 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := sparse.Zero(t.Context(), m, 299_999, 10); err == nil {
		t.Error("writing over the end succeeded")
	}
	if err := sparse.WriteAt(m, []byte{1, 2}, 299_999); err == nil {
		t.Error("writing over the end succeeded")
	}
}
