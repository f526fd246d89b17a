package nbd

import (
	"context"
	"sync"
)

// reserve is what a connection may hold in bytes beyond the pool.
const reserve = 64 << 10

// pool bounds the bytes that all connections hold. A connection may hold as much of it
// as is left free, so that clients that do not take their answers leave room for others:
// one of them can hold a half, two of them two thirds, and so on.
type pool struct {
	mu      sync.Mutex
	free    int64
	waiting []*budget
}

// take takes n bytes for a connection that holds some; if there is no room the
// connection's budget is woken when there may be.
func (p *pool) take(b *budget, held, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.free || held > 0 && held+n > p.free {
		p.waiting = append(p.waiting, b)
		return false
	}
	p.free -= n
	return true
}

func (p *pool) give(n int64) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free += n
	for i, b := range p.waiting {
		b.signal()
		p.waiting[i] = nil
	}
	p.waiting = p.waiting[:0]
}

// leave forgets a connection that waits.
func (p *pool) leave(b *budget) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.waiting[:0]
	for _, w := range p.waiting {
		if w != b {
			kept = append(kept, w)
		}
	}
	clear(p.waiting[len(kept):])
	p.waiting = kept
}

// budget bounds the requests under way of one connection in number and in bytes. One
// goroutine takes, any gives back.
type budget struct {
	pool      *pool
	maxNumber int
	maxBytes  int64

	mu       sync.Mutex
	number   int
	own      int64 // held of the reserve
	shared   int64 // held of the pool
	idle     []chan struct{}
	mayRetry chan struct{} // of capacity 1
}

// grant is what one request holds, in bytes.
type grant struct {
	own, shared int64
}

func newBudget(p *pool, number int, bytes int64) *budget {
	return &budget{pool: p, maxNumber: number, maxBytes: bytes, mayRetry: make(chan struct{}, 1)}
}

// tryTake begins a request of n bytes if there is room.
func (b *budget) tryTake(n int64) (grant, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.own + b.shared
	if b.number >= b.maxNumber || held > 0 && held+n > b.maxBytes {
		return grant{}, false
	}
	g := grant{shared: n}
	if b.own == 0 && n <= reserve {
		g = grant{own: n}
	}
	if g.shared > 0 && !b.pool.take(b, b.shared, g.shared) {
		return grant{}, false
	}
	b.number++
	b.own += g.own
	b.shared += g.shared
	return g, true
}

// take waits until one more request of n bytes may begin.
func (b *budget) take(ctx context.Context, n int64) (grant, error) {
	for {
		if g, ok := b.tryTake(n); ok {
			return g, nil
		}
		select {
		case <-b.mayRetry:
		case <-ctx.Done():
			b.pool.leave(b)
			return grant{}, ctx.Err()
		}
	}
}

// shrink gives back what of the grant exceeds n bytes.
func (b *budget) shrink(g *grant, n int64) {
	back := grant{own: max(0, g.own-n), shared: max(0, g.shared-n)}
	if back == (grant{}) {
		return
	}
	g.own -= back.own
	g.shared -= back.shared
	b.back(back, 0)
}

// give ends the request that holds the grant.
func (b *budget) give(g grant) { b.back(g, 1) }

func (b *budget) back(g grant, number int) {
	b.mu.Lock()
	b.number -= number
	b.own -= g.own
	b.shared -= g.shared
	b.tellIdle()
	b.mu.Unlock()
	b.pool.give(g.shared)
	b.signal()
}

// signal wakes the goroutine that waits in take, if one does; else the next take tries
// once more than it needed to.
func (b *budget) signal() {
	select {
	case b.mayRetry <- struct{}{}:
	default:
	}
}

// whenIdle is closed once no request is under way.
func (b *budget) whenIdle() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan struct{})
	b.idle = append(b.idle, c)
	b.tellIdle()
	return c
}

func (b *budget) tellIdle() {
	if b.number > 0 {
		return
	}
	for _, c := range b.idle {
		close(c)
	}
	b.idle = nil
}
