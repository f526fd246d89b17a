package ordered

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

type item struct{ n, result int }

func items(n int) []*item {
	all := make([]*item, n)
	for i := range all {
		all[i] = new(item)
	}
	return all
}

// upTo fills n items.
func upTo(n int) func(*item) error {
	next := 0
	return func(i *item) error {
		if next == n {
			return io.EOF
		}
		i.n, next = next, next+1
		return nil
	}
}

// However long each takes, what comes out is in order, and no more goes on at once
// than there are workers.
func TestOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(rt, "items")
		workers := rapid.IntRange(1, 5).Draw(rt, "workers")
		slow := rapid.SliceOfN(rapid.IntRange(0, 20), n, n).Draw(rt, "milliseconds")
		synctest.Test(t, func(*testing.T) {
			var busy, most atomic.Int32
			next := 0
			err := Run(context.Background(), items(2*workers), workers, upTo(n), func(i *item) error {
				now := busy.Add(1)
				defer busy.Add(-1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				time.Sleep(time.Duration(slow[i.n]) * time.Millisecond) // of the bubble's clock
				i.result = 3 * i.n
				return nil
			}, func(i *item) error {
				if i.n != next || i.result != 3*next {
					rt.Errorf("got %+v as number %d", *i, next)
				}
				next++
				return nil
			})
			if err != nil || next != n || int(most.Load()) > workers {
				rt.Errorf("%v; %d of %d came out, %d at once with %d workers", err, next, n, most.Load(), workers)
			}
		})
	})
}

func TestFirstErrorEndsIt(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	failAt := func(k int) func(*item) error {
		return func(i *item) error {
			if i.n == k {
				return broken
			}
			return nil
		}
	}
	fine := func(*item) error { return nil }
	fill := upTo(1000)
	for name, err := range map[string]error{
		"fill": Run(t.Context(), items(4), 2, func(i *item) error {
			if err := fill(i); err != nil || i.n == 7 {
				return broken
			}
			return nil
		}, fine, fine),
		"work":  Run(t.Context(), items(4), 2, upTo(1000), failAt(7), fine),
		"drain": Run(t.Context(), items(4), 2, upTo(1000), fine, failAt(7)),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := Run(ctx, items(4), 2, upTo(1000), fine, func(i *item) error {
		if i.n == 5 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
