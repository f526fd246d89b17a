package api

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadinessAsksOnceASecond however many callers there are, also while the answer
// takes its time, and a caller that goes takes the answer from nobody.
func TestReadinessAsksOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, gone, slow := 0, error(nil), time.Duration(0)
		set := func(err error, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			gone, slow = err, d
		}
		r := readiness{draining: func() bool { return false }, check: func(ctx context.Context) error {
			mu.Lock()
			asked++
			err, d := gone, slow
			mu.Unlock()
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
			return err
		}}
		all := func(want error) {
			t.Helper()
			var done sync.WaitGroup
			for range 100 {
				done.Go(func() {
					if err := r.ask(t.Context()); !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
				})
			}
			done.Wait()
		}
		times := func(want int) {
			t.Helper()
			if asked != want {
				t.Errorf("asked %d times, want %d", asked, want)
			}
		}
		all(nil)
		all(nil)
		times(1)

		broken := errors.New("broken")
		set(broken, 0)
		all(nil) // not a second later
		time.Sleep(time.Second)
		all(broken)
		times(2)

		time.Sleep(time.Second)
		set(nil, 3*time.Second)
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.ask(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that goes got %v", err)
		}
		all(nil)
		times(3)

		time.Sleep(time.Second)
		set(nil, time.Hour)
		all(context.DeadlineExceeded) // a store that hangs
		times(4)
	})
}

func TestDrainingIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	draining := false
	r := readiness{draining: func() bool { return draining }, check: func(context.Context) error { return nil }}
	if err := r.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	draining = true
	if err := r.ask(t.Context()); !errors.Is(err, errDraining) {
		t.Errorf("got %v", err)
	}
}
