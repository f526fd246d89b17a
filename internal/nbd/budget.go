package nbd

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// budget bounds the requests under way of one connection in number and in bytes. The
// connection has some bytes of its own, and takes what goes beyond from the pool. So
// whoever waits here waits for answers of the same connection to be taken by its
// client, and for nobody else.
//
// One goroutine begins requests; any may ask for more or give back.
type budget struct {
	pool      *pool
	share     *share
	maxNumber int
	reserve   int64 // its own, in bytes
	maxBytes  int64 // of the pool

	mu      sync.Mutex
	number  int
	begun   uint64 // requests since the beginning
	own     int64  // held of the reserve
	shared  int64  // held of the pool
	waiting []*waiter
	marks   []mark
}

// grant is what a request holds.
type grant struct {
	request     uint64 // which one; older ones have smaller numbers
	own, shared int64  // in bytes
	ends        bool   // the request ends when this is given back
}

func (g grant) bytes() int64 { return g.own + g.shared }

// want is what a request asks for. What is whole is not cut into pieces as long as
// other requests of the connection are under way, which will make room.
type want struct {
	request uint64
	bytes   int64
	whole   bool
}

// waiter is a want that waits; the oldest request is the first.
type waiter struct {
	want
	granted chan grant // of capacity 1
}

// mark waits until no more than that number of requests are under way.
type mark struct {
	number  int
	reached chan struct{}
}

func newBudget(p *pool, s *share, o *Options) *budget {
	return &budget{pool: p, share: s, maxNumber: o.MaxRequests, reserve: o.ReserveBytes, maxBytes: o.MaxConnectionBytes}
}

// begin begins a request that asks for n bytes; it may be granted less, but as much as
// the reserve. Before it waits it calls blocked.
func (b *budget) begin(ctx context.Context, n int64, whole bool, blocked func()) (grant, error) {
	b.mu.Lock()
	if b.number >= b.maxNumber {
		m := b.mark(b.maxNumber - 1)
		b.mu.Unlock()
		blocked()
		select {
		case <-m:
		case <-ctx.Done():
			return grant{}, ctx.Err()
		}
		b.mu.Lock()
	}
	b.number++
	b.begun++
	g, err := b.take(ctx, want{b.begun, n, whole}, blocked)
	if err != nil {
		b.give(g)
		return grant{}, err
	}
	return g, nil
}

// more asks for n bytes more, or some of them, for a request that has given away what
// it held. When ctx ends it fails, and the request goes on without any.
func (b *budget) more(ctx context.Context, request uint64, n int64) (grant, error) {
	b.mu.Lock()
	return b.take(ctx, want{request: request, bytes: n}, func() {})
}

// take waits until a want is granted. It is called locked and unlocks.
func (b *budget) take(ctx context.Context, w want, blocked func()) (grant, error) {
	if len(b.waiting) == 0 || w.request < b.waiting[0].request {
		if g, ok := b.try(w); ok {
			b.mu.Unlock()
			return g, nil
		}
	}
	q := &waiter{w, make(chan grant, 1)}
	i, _ := slices.BinarySearchFunc(b.waiting, w.request, func(o *waiter, r uint64) int { return cmp.Compare(o.request, r) })
	b.waiting = slices.Insert(b.waiting, i, q)
	b.mu.Unlock()
	blocked()
	select {
	case g := <-q.granted:
		return g, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	i = slices.Index(b.waiting, q)
	if i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		b.serve()
	}
	b.mu.Unlock()
	if i < 0 { // granted meanwhile
		g := <-q.granted
		g.ends = false
		b.give(g)
	}
	return grant{request: w.request, ends: true}, ctx.Err()
}

// try grants a want if there is room. A connection that holds nothing always has some.
// What is granted is all of the want or, when it is the others that leave no room, the reserve.
func (b *budget) try(w want) (grant, bool) {
	g := grant{request: w.request, ends: true}
	switch {
	case b.own+w.bytes <= b.reserve:
		g.own = w.bytes
	case b.shared > 0 && b.shared+w.bytes > b.maxBytes:
		return grant{}, false
	case b.pool.take(b.share, w.bytes):
		g.shared = w.bytes
	case b.own == 0 && (!w.whole || b.number == 1):
		g.own = b.reserve
	default:
		return grant{}, false
	}
	b.own += g.own
	b.shared += g.shared
	return g, true
}

// serve grants what there is room for, in order. The caller holds the lock.
func (b *budget) serve() {
	for len(b.waiting) > 0 {
		g, ok := b.try(b.waiting[0].want)
		if !ok {
			return
		}
		b.waiting[0].granted <- g
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}

// shrink gives back what of the grant exceeds n bytes.
func (b *budget) shrink(g *grant, n int64) {
	back := grant{own: max(0, g.own-n), shared: max(0, g.shared-n)}
	if back.bytes() == 0 {
		return
	}
	g.own -= back.own
	g.shared -= back.shared
	b.give(back)
}

// give gives a grant back.
func (b *budget) give(g grant) {
	b.pool.give(b.share, g.shared)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own -= g.own
	b.shared -= g.shared
	if g.ends {
		b.number--
		b.tellMarks()
	}
	b.serve()
}

// atMost is closed once no more than that number of requests are under way.
func (b *budget) atMost(number int) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mark(number)
}

func (b *budget) mark(number int) <-chan struct{} {
	m := mark{number, make(chan struct{})}
	b.marks = append(b.marks, m)
	b.tellMarks()
	return m.reached
}

func (b *budget) tellMarks() {
	b.marks = slices.DeleteFunc(b.marks, func(m mark) bool {
		if b.number > m.number {
			return false
		}
		close(m.reached)
		return true
	})
}
