package objectstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
)

// flaky is a directory store whose operations fail as often as planned before
// they work.
type flaky struct {
	dirStore
	failures map[string]int
	with     error
	calls    map[string]int
}

func newFlaky(t *testing.T, failures int, with error) *flaky {
	f := &flaky{dirStore: newDirStore(t, t.TempDir()), with: with, calls: map[string]int{}, failures: map[string]int{}}
	for _, op := range []string{"StatBucket", "Stat", "Open", "Adopt", "Put", "List", "Delete"} {
		f.failures[op] = failures
	}
	return f
}

func (f *flaky) fault(op string) error {
	f.calls[op]++
	if f.calls[op] <= f.failures[op] {
		return &objectstore.Error{Op: op, Err: f.with}
	}
	return nil
}

func (f *flaky) StatBucket(ctx context.Context, bucket string) (objectstore.BucketInfo, error) {
	if err := f.fault("StatBucket"); err != nil {
		return objectstore.BucketInfo{}, err
	}
	return f.dirStore.StatBucket(ctx, bucket)
}

func (f *flaky) Stat(ctx context.Context, loc objectstore.Location) (objectstore.ObjectInfo, error) {
	if err := f.fault("Stat"); err != nil {
		return objectstore.ObjectInfo{}, err
	}
	return f.dirStore.Stat(ctx, loc)
}

func (f *flaky) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	if err := f.fault("Open"); err != nil {
		return nil, err
	}
	return f.dirStore.Open(ctx, loc, cond, off, n)
}

func (f *flaky) Adopt(ctx context.Context, from objectstore.Location, cond objectstore.Condition, to objectstore.Location, opts objectstore.AdoptOptions) (objectstore.ObjectInfo, error) {
	if opts.Progress != nil {
		opts.Progress(int64(10-f.calls["Adopt"]), 100) // each attempt gets less far
	}
	if err := f.fault("Adopt"); err != nil {
		return objectstore.ObjectInfo{}, err
	}
	return f.dirStore.Adopt(ctx, from, cond, to, opts)
}

func (f *flaky) Put(ctx context.Context, to objectstore.Location, r io.Reader, size int64, opts objectstore.PutOptions) (objectstore.ObjectInfo, error) {
	if err := f.fault("Put"); err != nil {
		_, _ = io.CopyN(io.Discard, r, 2) // it had got somewhere
		return objectstore.ObjectInfo{}, err
	}
	return f.dirStore.Put(ctx, to, r, size, opts)
}

func (f *flaky) List(ctx context.Context, bucket, prefix, after string, limit int) ([]objectstore.ListedObject, error) {
	if err := f.fault("List"); err != nil {
		return nil, err
	}
	return f.dirStore.List(ctx, bucket, prefix, after, limit)
}

func (f *flaky) Delete(ctx context.Context, loc objectstore.Location) error {
	if err := f.fault("Delete"); err != nil {
		return err
	}
	return f.dirStore.Delete(ctx, loc)
}

// everyOperation runs each operation of a store once.
func everyOperation(ctx context.Context, s objectstore.Store) map[string]error {
	errs := map[string]error{}
	_, errs["StatBucket"] = s.StatBucket(ctx, src.Bucket)
	_, errs["Stat"] = s.Stat(ctx, src)
	_, errs["Adopt"] = s.Adopt(ctx, src, objectstore.Condition{}, image("1/data"), objectstore.AdoptOptions{})
	_, errs["Put"] = s.Put(ctx, image("put"), strings.NewReader("content"), 7, objectstore.PutOptions{})
	_, errs["List"] = s.List(ctx, src.Bucket, "", "", 10)
	errs["Delete"] = s.Delete(ctx, image("1/data"))
	body, err := s.Open(ctx, src, objectstore.Condition{}, 0, 4)
	if errs["Open"] = err; err == nil {
		body.Close()
	}
	return errs
}

func TestRetry(t *testing.T) {
	t.Parallel()
	var waits []time.Duration
	policy := objectstore.RetryPolicy{
		Attempts: 4, First: 100 * time.Millisecond, Longest: 150 * time.Millisecond,
		Random: func() float64 { return 1 },
		Wait:   func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil },
	}
	for _, c := range []struct {
		failures int
		with     error
		calls    int
		works    bool
	}{
		{0, objectstore.ErrUnavailable, 1, true},
		{3, objectstore.ErrUnavailable, 4, true},
		{4, objectstore.ErrUnavailable, 4, false},
		{1, objectstore.ErrNotFound, 1, false},
		{1, objectstore.ErrChanged, 1, false},
		{1, objectstore.ErrNoSpace, 1, false},
		{1, errors.New("unclassified"), 1, false},
	} {
		f := newFlaky(t, c.failures, c.with)
		f.write(t, src.Bucket, src.Key, []byte("content"))
		for op, err := range everyOperation(t.Context(), objectstore.Retry(f, policy)) {
			if (err == nil) != c.works || err != nil && !errors.Is(err, c.with) {
				t.Errorf("%d failures with %v: %s ended with %v", c.failures, c.with, op, err)
			}
			if f.calls[op] != c.calls {
				t.Errorf("%d failures with %v: %s was tried %d times, want %d", c.failures, c.with, op, f.calls[op], c.calls)
			}
		}
		if c.works {
			if got, err := read(t, f.dirStore, image("put"), objectstore.ObjectInfo{Size: 7}); string(got) != "content" {
				t.Errorf("Put after %d failures stored %q, %v", c.failures, got, err)
			}
		}
	}

	waits = nil
	_, _ = objectstore.Retry(newFlaky(t, 9, objectstore.ErrUnavailable), policy).Stat(t.Context(), src)
	if want := []time.Duration{100 * time.Millisecond, 150 * time.Millisecond, 150 * time.Millisecond}; !slices.Equal(waits, want) {
		t.Errorf("waited %v, want %v", waits, want)
	}
}

func TestRetryStopsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFlaky(t, 100, objectstore.ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	s := objectstore.Retry(f, objectstore.RetryPolicy{Attempts: 100, Wait: func(ctx context.Context, _ time.Duration) error {
		cancel()
		return ctx.Err()
	}})
	if _, err := s.Stat(ctx, src); !errors.Is(err, objectstore.ErrUnavailable) {
		t.Errorf("Stat: %v", err)
	}
	if f.calls["Stat"] != 1 {
		t.Errorf("tried %d times", f.calls["Stat"])
	}
}

func TestRetryOfPutNeedsSeeking(t *testing.T) {
	t.Parallel()
	f := newFlaky(t, 1, objectstore.ErrUnavailable)
	s := objectstore.Retry(f, objectstore.RetryPolicy{First: 1})
	_, err := s.Put(t.Context(), image("k"), io.LimitReader(strings.NewReader("content"), 7), 7, objectstore.PutOptions{})
	if !errors.Is(err, objectstore.ErrUnavailable) || f.calls["Put"] != 1 {
		t.Errorf("Put of a stream: %v after %d calls", err, f.calls["Put"])
	}
}

func TestRetriedAdoptionsProgressGoesUp(t *testing.T) {
	t.Parallel()
	f := newFlaky(t, 3, objectstore.ErrUnavailable)
	f.write(t, src.Bucket, src.Key, bytes.Repeat([]byte("x"), 100))
	var told []int64
	_, err := objectstore.Retry(f, objectstore.RetryPolicy{First: 1}).Adopt(t.Context(), src, objectstore.Condition{}, image("1"), objectstore.AdoptOptions{
		Progress: func(done, _ int64) { told = append(told, done) },
	})
	must(t, err)
	if !slices.IsSorted(told) || fmt.Sprint(told) != "[10 10 10 10 100]" {
		t.Errorf("progress %v", told)
	}
}
