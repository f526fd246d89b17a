package admit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One party gets half, the next one half of the rest; a party that holds none always
// finds some while there are any.
func TestShares(t *testing.T) {
	t.Parallel()
	s := NewShares(64, 0)
	for i, want := range []int{32, 16, 8, 4, 2, 1, 1, 0} {
		got := 0
		for s.Try(fmt.Sprint(i), 1) {
			got++
		}
		if got != want {
			t.Errorf("party %d got %d places, want %d", i, got, want)
		}
	}
	for range 32 {
		s.Give("0", 1)
	}
	if !s.Try("7", 1) {
		t.Error("nothing came back")
	}
	one := NewShares(1, 0)
	if !one.Try("a", 1) || one.Try("a", 1) || one.Try("b", 1) {
		t.Error("a single place")
	}
}

// Requests wait within bounds, parties are served in turn, and a request that gives up
// leaves nothing behind.
func TestSharesWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewShares(2, 3)
		var order []string
		var mu sync.Mutex
		var all sync.WaitGroup
		ask := func(name string, ctx context.Context) {
			all.Go(func() {
				if err := s.Take(ctx, name, 1); err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("%s: %v", name, err)
					}
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(time.Second)
				s.Give(name, 1)
			})
			synctest.Wait()
		}
		ctx := t.Context()
		ask("x", ctx)
		ask("y", ctx)
		for range 3 {
			ask("a", ctx)
		}
		if err := s.Take(ctx, "a", 1); !errors.Is(err, ErrBusy) {
			t.Errorf("a fourth request waits: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		ask("b", gone)
		ask("c", ctx)
		cancel()
		all.Wait()
		if got := fmt.Sprint(order[2:]); len(order) != 6 || got != "[a c a a]" && got != "[c a a a]" {
			t.Errorf("the order is %s", got)
		}
		if s.free != 2 || len(s.parties) != 0 || s.turns.Len() != 0 {
			t.Errorf("left: %d free, %d parties, %d turns", s.free, len(s.parties), s.turns.Len())
		}
	})
}

// Whatever many parties take, wait for and give up, no unit is lost and the rule holds.
func TestSharesUnderLoad(t *testing.T) {
	t.Parallel()
	s := NewShares(20, 50)
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			name := fmt.Sprint(i % 5)
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(300))*time.Microsecond)
				n := int64(1 + r.IntN(4))
				if s.Take(ctx, name, n) == nil {
					if r.IntN(2) == 0 {
						time.Sleep(time.Duration(r.IntN(50)) * time.Microsecond)
					}
					s.Give(name, n)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if s.free != 20 || len(s.parties) != 0 || s.turns.Len() != 0 {
		t.Errorf("left: %d free, %d parties, %d turns", s.free, len(s.parties), s.turns.Len())
	}
}
