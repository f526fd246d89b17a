package nbd

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// reserve is what a connection may hold in bytes beyond the server's budget.
const reserve = 64 << 10

// budget bounds the requests under way of one connection in number and in bytes, and
// takes the bytes from the server's budget too. One goroutine takes, any gives back.
type budget struct {
	server    *semaphore.Weighted
	maxNumber int
	maxBytes  int64

	mu       sync.Mutex
	number   int
	bytes    int64
	reserved bool
	waiting  bool
	whenNone []chan struct{}
	wake     chan struct{} // of capacity 1
}

// grant is what one request holds.
type grant struct {
	bytes    int64
	reserved bool
}

func newBudget(server *semaphore.Weighted, number int, bytes int64) *budget {
	return &budget{server: server, maxNumber: number, maxBytes: bytes, wake: make(chan struct{}, 1)}
}

// take waits until one more request of n bytes may begin.
func (b *budget) take(ctx context.Context, n int64) (grant, error) {
	for {
		if g, ok := b.takeOwn(n); ok {
			if g.reserved || n == 0 {
				return g, nil
			}
			if err := b.server.Acquire(ctx, n); err != nil {
				b.back(n, false)
				return grant{}, err
			}
			return g, nil
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return grant{}, ctx.Err()
		}
	}
}

// tryTake takes without waiting.
func (b *budget) tryTake(n int64) (grant, bool) {
	g, ok := b.takeOwn(n)
	if ok && !g.reserved && n > 0 && !b.server.TryAcquire(n) {
		b.back(n, false)
		return grant{}, false
	}
	return g, ok
}

// takeOwn takes from the connection's part of the budget.
func (b *budget) takeOwn(n int64) (grant, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.number >= b.maxNumber || b.bytes > 0 && b.bytes+n > b.maxBytes {
		b.waiting = true
		return grant{}, false
	}
	g := grant{bytes: n, reserved: n > 0 && n <= reserve && !b.reserved}
	b.number++
	b.bytes += n
	b.reserved = b.reserved || g.reserved
	return g, true
}

// shrink gives back what of the grant exceeds n bytes.
func (b *budget) shrink(g *grant, n int64) {
	if n >= g.bytes {
		return
	}
	back := g.bytes - n
	g.bytes = n
	if !g.reserved {
		b.server.Release(back)
	}
	b.mu.Lock()
	b.bytes -= back
	b.signal()
	b.mu.Unlock()
}

// give ends the request that holds the grant.
func (b *budget) give(g grant) {
	if !g.reserved && g.bytes > 0 {
		b.server.Release(g.bytes)
	}
	b.back(g.bytes, g.reserved)
}

func (b *budget) back(n int64, reserved bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.number--
	b.bytes -= n
	if reserved {
		b.reserved = false
	}
	b.none()
	b.signal()
}

// whenIdle is closed once no request is under way.
func (b *budget) whenIdle() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan struct{})
	b.whenNone = append(b.whenNone, c)
	b.none()
	return c
}

// none tells those who wait for it that no request is under way.
func (b *budget) none() {
	if b.number > 0 {
		return
	}
	for _, c := range b.whenNone {
		close(c)
	}
	b.whenNone = nil
}

// signal wakes the goroutine that waits in take, if one does.
func (b *budget) signal() {
	if b.waiting {
		b.waiting = false
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}
