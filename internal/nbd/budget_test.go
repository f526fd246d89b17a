package nbd

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// holder is a request of TestBudgetHolds.
type holder struct {
	of     *budget
	grant  grant
	cancel context.CancelFunc
	result chan error // of what it waits for; nil: it waits for nothing
}

// wait starts to ask for something.
func (h *holder) wait(ask func(ctx context.Context) (grant, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	h.cancel, h.result = cancel, result
	go func() {
		g, err := ask(ctx)
		h.grant = g
		result <- err
	}()
}

const longest = 2 << 20 // request

// checkBudgets holds the sums against each other, and sees that nobody waits without a
// reason of its own connection.
func checkBudgets(t *testing.T, p *pool, size int64, all []*budget) {
	t.Helper()
	held := map[*share]int64{}
	for _, b := range all {
		b.mu.Lock()
		defer b.mu.Unlock()
		held[b.share] += b.shared
		if b.own < 0 || b.own > b.reserve || b.shared < 0 || b.number < 0 || b.number > b.maxNumber {
			t.Fatalf("a connection holds %d of its own, %d of the pool, %d requests", b.own, b.shared, b.number)
		}
		if b.shared > max(b.maxBytes, longest) {
			t.Fatalf("a connection holds %d bytes of the pool", b.shared)
		}
		for i, w := range b.waiting {
			if i > 0 && w.request < b.waiting[i-1].request {
				t.Fatal("a younger request waits before an older one")
			}
		}
		if len(b.waiting) > 0 && b.own == 0 && (b.shared == 0 || b.shared+b.waiting[0].bytes <= b.maxBytes) && !(b.waiting[0].whole && b.number > 1) {
			t.Fatalf("a request of %d bytes waits, while its connection holds %d of the pool", b.waiting[0].bytes, b.shared)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := p.free
	for s, n := range held {
		if s.held != n {
			t.Fatalf("a share holds %d, its connections %d", s.held, n)
		}
		sum += n
	}
	if sum != size || p.free < 0 {
		t.Fatalf("%d of %d bytes are free, %d are held", p.free, size, sum-p.free)
	}
}

// Whatever requests take, give, wait for and give up waiting for: no bound is exceeded,
// a share leaves as much free as it holds, older requests come first, who waits does so
// for its own connection alone, and in the end everybody has been served and all is
// there again.
func TestBudgetHolds(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const size, maxBytes, reserve, maxNumber = 4 << 20, 1 << 20, 64 << 10, 8
	for round := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, round))
			p := newPool(size)
			var all []*budget
			for i := range 12 {
				all = append(all, newBudget(p, p.join(string(rune('a'+i%5))), &Options{MaxRequests: maxNumber, ReserveBytes: reserve, MaxConnectionBytes: maxBytes}))
			}
			begins := map[*budget]*holder{} // one at a time for a connection
			var holders []*holder
			served, cancelled := 0, 0
			settle := func(inOrder bool) {
				t.Helper()
				synctest.Wait()
				kept := holders[:0]
				for _, h := range holders {
					if h.result != nil {
						select {
						case err := <-h.result:
							h.cancel()
							h.result = nil
							if begins[h.of] == h {
								delete(begins, h.of)
								if err != nil {
									h = nil
								}
							}
							switch {
							case err == nil:
								served++
								h.of.mu.Lock()
								w := h.of.waiting
								h.of.mu.Unlock()
								if inOrder && len(w) > 0 && w[0].request < h.grant.request {
									t.Fatal("a request is served before an older one")
								}
							case !errors.Is(err, context.Canceled):
								t.Fatal(err)
							case h != nil:
								h.of.give(h.grant)
								h = nil
							}
						default:
						}
					}
					if h != nil {
						kept = append(kept, h)
					}
				}
				holders = kept
				checkBudgets(t, p, size, all)
			}
			step := func(ending bool) {
				t.Helper()
				inOrder := true
				switch k := r.IntN(8); {
				case k < 4 && !ending:
					b := all[r.IntN(len(all))]
					if begins[b] != nil {
						return
					}
					h := &holder{of: b}
					n := charge(r.IntN(1 << (1 + r.IntN(21)))) // up to longest
					whole := r.IntN(2) == 0
					p.mu.Lock()
					free, held := p.free, b.share.held
					p.mu.Unlock()
					h.wait(func(ctx context.Context) (grant, error) { return b.begin(ctx, n, whole, func() {}) })
					begins[b] = h
					holders = append(holders, h)
					synctest.Wait()
					p.mu.Lock()
					took, left := free-p.free, p.free
					p.mu.Unlock()
					if took > 0 && held+took > left {
						t.Fatalf("a share took %d to its %d and left %d", took, held, left)
					}
				case len(holders) == 0:
				default:
					h := holders[r.IntN(len(holders))]
					switch {
					case h.result != nil:
						if k < 6 && !ending {
							h.cancel()
							// Sometimes it is granted all the same what it no longer wants.
							for i, o := range holders {
								if k == 4 && o.of == h.of && o.result == nil {
									o.of.give(o.grant)
									holders = slices.Delete(holders, i, i+1)
									break
								}
							}
							cancelled++
						}
					case k == 4 && h.grant.bytes() > 4096:
						h.of.shrink(&h.grant, 4096<<r.IntN(4))
					case k == 5 && !ending: // a run was sent, another follows
						request := h.grant.request
						inOrder = false // others are served between
						h.grant.ends = false
						h.of.give(h.grant)
						n := charge(1 + r.IntN(maxBytes))
						h.wait(func(ctx context.Context) (grant, error) { return h.of.more(ctx, request, n) })
					default:
						h.of.give(h.grant)
						i := slices.Index(holders, h)
						holders = slices.Delete(holders, i, i+1)
					}
				}
				settle(inOrder)
			}
			for range 1500 {
				step(false)
			}
			for steps := 0; len(holders) > 0; steps++ {
				if steps > 20_000 {
					t.Fatalf("%d requests are not served", len(holders))
				}
				step(true)
			}
			if p.free != size || served < 100 || cancelled < 5 {
				t.Errorf("%d of %d bytes are free; %d were served, %d cancelled", p.free, size, served, cancelled)
			}
			for _, b := range all {
				if b.own != 0 || b.shared != 0 || b.number != 0 || len(b.waiting) != 0 || len(b.marks) != 0 {
					t.Errorf("a connection is left with %d, %d, %d", b.own, b.shared, b.number)
				}
				p.leave(b.share)
			}
			if len(p.shares) != 0 {
				t.Errorf("%d shares are left", len(p.shares))
			}
		})
	}
}
