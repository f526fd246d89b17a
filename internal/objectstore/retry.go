package objectstore

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how often and how patiently Retry tries. The zero value of a
// field is its default.
type RetryPolicy struct {
	// Attempts is how often one operation is tried in all; default 4.
	Attempts int
	// First is the pause after the first failure; default 100 ms. Each further
	// pause is twice as long, up to Longest; default 5 s. The pause taken is
	// between half of that and all of it, so that many workers do not come
	// back at once.
	First, Longest time.Duration
	// Wait waits d, or returns the context's error when that is done first;
	// default a timer. Tests bring their own.
	Wait func(ctx context.Context, d time.Duration) error
	// Random returns a number in [0, 1) for the pause; default math/rand.
	Random func() float64
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.Attempts <= 0 {
		p.Attempts = 4
	}
	if p.First <= 0 {
		p.First = 100 * time.Millisecond
	}
	if p.Longest <= 0 {
		p.Longest = 5 * time.Second
	}
	if p.Wait == nil {
		p.Wait = wait
	}
	if p.Random == nil {
		p.Random = rand.Float64
	}
	return p
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Retry returns store with every operation that may be repeated tried again
// while it fails with ErrUnavailable. The driver alone says what that is. A
// reader that was opened under a condition resumes where it was cut off. Put is
// tried again when its reader can seek.
func Retry(store Store, policy RetryPolicy) Store {
	return &retrying{Store: store, policy: policy.withDefaults()}
}

type retrying struct {
	Store
	policy RetryPolicy
}

func (r *retrying) do(ctx context.Context, op func() error) error {
	pause := r.policy.First
	for attempt := 1; ; attempt++ {
		err := op()
		if err == nil || attempt >= r.policy.Attempts || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		d := pause/2 + time.Duration(r.policy.Random()*float64(pause/2))
		if r.policy.Wait(ctx, d) != nil {
			return err // why it was tried again says more than that time ran out
		}
		pause = min(2*pause, r.policy.Longest)
	}
}

func retried[T any](ctx context.Context, r *retrying, op func() (T, error)) (T, error) {
	var result T
	err := r.do(ctx, func() (err error) {
		result, err = op()
		return err
	})
	return result, err
}

// StatBucket implements Store.
func (r *retrying) StatBucket(ctx context.Context, bucket string) (BucketInfo, error) {
	return retried(ctx, r, func() (BucketInfo, error) { return r.Store.StatBucket(ctx, bucket) })
}

// Stat implements Store.
func (r *retrying) Stat(ctx context.Context, loc Location) (ObjectInfo, error) {
	return retried(ctx, r, func() (ObjectInfo, error) { return r.Store.Stat(ctx, loc) })
}

// Adopt implements Store.
func (r *retrying) Adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (ObjectInfo, error) {
	if report := opts.Progress; report != nil {
		var most int64 // a new attempt begins at nothing; what is reported does not
		opts.Progress = func(done, total int64) {
			most = max(most, done)
			report(most, total)
		}
	}
	return retried(ctx, r, func() (ObjectInfo, error) { return r.Store.Adopt(ctx, src, cond, dst, opts) })
}

// Export implements Store.
func (r *retrying) Export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error {
	if making := opts.Making; making != nil {
		opts.Making = func(ctx context.Context, mark string) error {
			opts.Made = mark // what a further try may find
			return making(ctx, mark)
		}
	}
	return r.do(ctx, func() error { return r.Store.Export(ctx, src, cond, dst, opts) })
}

// Unexport implements Store.
func (r *retrying) Unexport(ctx context.Context, dst Location, opts ExportOptions) error {
	return r.do(ctx, func() error { return r.Store.Unexport(ctx, dst, opts) })
}

// List implements Store.
func (r *retrying) List(ctx context.Context, bucket, prefix, after string, limit int) ([]ListedObject, error) {
	return retried(ctx, r, func() ([]ListedObject, error) { return r.Store.List(ctx, bucket, prefix, after, limit) })
}

// Delete implements Store.
func (r *retrying) Delete(ctx context.Context, loc Location) error {
	return r.do(ctx, func() error { return r.Store.Delete(ctx, loc) })
}

// Swap implements Store.
func (r *retrying) Swap(ctx context.Context, loc Location, was, now []byte) error {
	return r.do(ctx, func() error { return r.Store.Swap(ctx, loc, was, now) })
}

// Uploads implements Store.
func (r *retrying) Uploads(ctx context.Context, after string) ([]Upload, error) {
	return retried(ctx, r, func() ([]Upload, error) { return r.Store.Uploads(ctx, after) })
}

// AbortUpload implements Store.
func (r *retrying) AbortUpload(ctx context.Context, loc Location, id string) error {
	return r.do(ctx, func() error { return r.Store.AbortUpload(ctx, loc, id) })
}

// Put implements Store.
func (r *retrying) Put(ctx context.Context, dst Location, body io.Reader, size int64, opts PutOptions) (ObjectInfo, error) {
	seeker, ok := body.(io.Seeker)
	if !ok {
		return r.Store.Put(ctx, dst, body, size, opts)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return r.Store.Put(ctx, dst, body, size, opts)
	}
	return retried(ctx, r, func() (ObjectInfo, error) {
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return ObjectInfo{}, fail("put", dst, err)
		}
		return r.Store.Put(ctx, dst, body, size, opts)
	})
}

// Open implements Store.
func (r *retrying) Open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error) {
	open := func(off, n int64) (io.ReadCloser, error) {
		return retried(ctx, r, func() (io.ReadCloser, error) { return r.Store.Open(ctx, loc, cond, off, n) })
	}
	body, err := open(off, n)
	if err != nil || cond.ETag == "" {
		return body, err // unconditional: what a second Open returns may be another generation
	}
	return &resumingBody{ctx: ctx, policy: r.policy, open: open, body: body, off: off, left: n}, nil
}

// Hold implements Holder. Reads of what is held are not repeated: who holds can open.
func (r *retrying) Hold(ctx context.Context, loc Location, cond Condition) (Held, error) {
	return Hold(ctx, r.Store, loc, cond)
}

// resumingBody opens the object again, under the same condition, where a reader
// was cut off. Progress gives it its attempts back.
type resumingBody struct {
	ctx       context.Context
	policy    RetryPolicy
	open      func(off, n int64) (io.ReadCloser, error)
	body      io.ReadCloser
	off, left int64
	cuts      int
}

func (b *resumingBody) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.off += int64(n)
		b.left -= int64(n)
		if n > 0 {
			b.cuts = 0
		}
		if err == nil || !errors.Is(err, ErrUnavailable) || b.ctx.Err() != nil {
			return n, err
		}
		if n > 0 {
			return n, nil // the error comes again with the next Read
		}
		if b.cuts++; b.cuts >= b.policy.Attempts {
			return 0, err
		}
		if b.policy.Wait(b.ctx, b.policy.First) != nil {
			return 0, err
		}
		body, operr := b.open(b.off, b.left)
		if operr != nil {
			return 0, operr
		}
		_ = b.body.Close() // it has failed; nothing more is to be learnt from it
		b.body = body
	}
}

func (b *resumingBody) Close() error { return b.body.Close() }
