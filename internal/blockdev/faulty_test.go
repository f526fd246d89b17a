package blockdev

import (
	"cmp"
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
)

// faulty is a real store whose next reads of disks, or of what of says, go wrong as a test has planned, and
// which holds nothing open. A plan that was not carried out fails the test.
type faulty struct {
	objectstore.Store
	of    string       // what the keys of objects end in that plans are for; "/disk" if empty
	opens atomic.Int64 // of those
	mu    sync.Mutex
	plans []plan
}

// plan is what happens to one Open: it does what Open does, or not.
type plan func(ctx context.Context, open func(ctx context.Context) (io.ReadCloser, error)) (io.ReadCloser, error)

func newFaulty(t testing.TB, store objectstore.Store) *faulty {
	f := &faulty{Store: store}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.plans) > 0 {
			t.Errorf("%d planned faults were not hit", len(f.plans))
		}
	})
	return f
}

// plan adds what the next Opens do.
func (f *faulty) plan(plans ...plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans = append(f.plans, plans...)
}

func (f *faulty) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	open := func(ctx context.Context) (io.ReadCloser, error) { return f.Store.Open(ctx, loc, cond, off, n) }
	if !strings.HasSuffix(loc.Key, cmp.Or(f.of, "/disk")) {
		return open(ctx)
	}
	f.opens.Add(1)
	f.mu.Lock()
	if len(f.plans) == 0 {
		f.mu.Unlock()
		return open(ctx)
	}
	next := f.plans[0]
	f.plans = f.plans[1:]
	f.mu.Unlock()
	return next(ctx, open)
}

// hold lets an Open wait until release is called; entered is closed when it is there.
func hold() (p plan, entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	return func(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
		close(in)
		select {
		case <-out:
			return open(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, in, sync.OnceFunc(func() { close(out) })
}
