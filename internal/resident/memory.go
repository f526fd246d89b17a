// Package resident holds checked units of disks in bounded memory, and sees to it that one
// fetch serves all who want a unit.
//
// A unit has one state at a time:
//
//	absent    nowhere. Join of a read, or Reserve, makes it wanted; Keep makes it resident.
//	wanted    in its shard's map, with the reads that wait for it, and one fetch works on
//	          it. Land makes it resident, or, with an error that all waiting reads are
//	          told, absent. It becomes absent as well when the last read leaves, unless it
//	          was reserved: whoever comes then starts another fetch, and what the first one
//	          brings is dropped.
//	resident  in its shard's map and ring. It becomes absent when the clock hand passes
//	          twice without a read between, or by Forget.
//
// All memory is granted before it is used, and all that a fetch needs at once. A fetch
// that has its grant waits for nothing but the store, and a read that waits pins nothing:
// its bytes are copied into its buffer by whoever lands the unit. So no two wait for each
// other.
package resident

import (
	"context"
	"errors"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
)

// ErrClosed is what waits for a closed Memory.
var ErrClosed = errors.New("closed")

const (
	// decodeSlack is how many bytes of capacity buffers have behind their length from
	// minSlack bytes on: zstd decodes half as fast again where it may write there.
	decodeSlack = 32
	minSlack    = 64 << 10
)

// Memory bounds the bytes of resident units, of fetches, and of what else is charged to
// it. It may be used by many goroutines at once.
type Memory struct {
	limit  int64
	shards [shardCount]shard
	hand   atomic.Uint32 // the shard that gives up a unit next

	turn    chan struct{} // holds a token while somebody waits for memory
	freed   chan struct{} // told when memory may have become free
	waiting atomic.Bool

	mu      sync.Mutex
	granted int64 // resident units, grants, and charges
	live    int64 // of buffers handed out, at most granted
	fixed   int64 // charged: it lies in no buffer
	free    map[int][][]byte
	idle    int64 // bytes of free
	peak    int64 // the most that live, fixed and idle were together
	arena   arena
	closed  bool

	unread                              atomic.Int64 // reserved and not read yet, in bytes
	ahead, aheadUsed, wasted, evictions atomic.Int64
}

// New makes a Memory of limit bytes. Close it.
func New(limit int64) *Memory {
	m := &Memory{limit: limit, turn: make(chan struct{}, 1), freed: make(chan struct{}, 1), free: map[int][][]byte{}, arena: newArena()}
	for i := range m.shards {
		m.shards[i].units = map[Key]*Unit{}
	}
	return m
}

// Limit is the bound in bytes.
func (m *Memory) Limit() int64 { return m.limit }

// Stats is what a Memory has done and holds, in bytes where nothing else is said.
type Stats struct {
	Ahead     int64 // landed without a read that waited
	AheadUsed int64 // of those, read later
	Wasted    int64 // of those, evicted unread
	Evictions int64 // units
	InUse     int64 // now: buffers, handed out or free, and charges
	Peak      int64 // the most that was in use
}

// Stats returns what was counted so far.
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{Ahead: m.ahead.Load(), AheadUsed: m.aheadUsed.Load(), Wasted: m.wasted.Load(), Evictions: m.evictions.Load(),
		InUse: m.live + m.fixed + m.idle, Peak: m.peak}
}

// page is what buffers are cut to, in bytes: of less the machine can't have the memory
// back without what lies beside it.
var page = int64(max(4096, os.Getpagesize()))

// BufferSize is how many bytes of a grant a buffer for n bytes takes: a multiple of a page.
// Few sizes are in use, so that buffers fit again, and of more than a few pages at most a
// quarter is wasted.
func BufferSize(n int64) int64 {
	step := max(int64(1)<<max(bits.Len64(uint64(max(n, 1)-1))-3, 0), page)
	size := (n + step - 1) / step * step
	if n >= minSlack && size-n < decodeSlack {
		size += page
	}
	return size
}

// Grant is memory that may be used. The goroutines of one fetch may use it at once.
type Grant struct {
	m    *Memory
	left int64 // bytes that are neither resident nor given back; by the lock of m
}

// Grant waits until n bytes are granted, which are at most the limit. It fails when ctx
// ends and after Close.
func (m *Memory) Grant(ctx context.Context, n int64) (*Grant, error) {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-m.turn }()
	if m.take(n) {
		return &Grant{m, n}, nil
	}
	m.waiting.Store(true)
	defer m.waiting.Store(false)
	for !m.take(n) {
		if m.isClosed() {
			return nil, ErrClosed
		}
		select {
		case <-m.freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &Grant{m, n}, nil
}

// TryGrant is Grant for a caller that can do without; nil if memory is short or another
// caller waits for it.
func (m *Memory) TryGrant(n int64) *Grant {
	select {
	case m.turn <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-m.turn }()
	if !m.take(n) {
		return nil
	}
	return &Grant{m, n}
}

func (m *Memory) take(n int64) bool {
	for {
		m.mu.Lock()
		closed := m.closed
		fits := !closed && m.granted+n <= m.limit
		if fits {
			m.granted += n
		}
		m.mu.Unlock()
		if fits || closed || !m.evict() {
			return fits
		}
	}
}

// Buffer returns a buffer of n bytes, which takes BufferSize(n) of the grant. Its content
// is unspecified.
func (g *Grant) Buffer(n int64) []byte {
	m, size := g.m, BufferSize(n)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live += size
	if l := m.free[int(size)]; len(l) > 0 {
		b := l[len(l)-1]
		l[len(l)-1] = nil
		m.free[int(size)] = l[:len(l)-1]
		m.idle -= size
		return b[:n]
	}
	m.trim()
	return m.arena.take(int(size))[:n]
}

// Free gives a buffer back to the grant.
func (g *Grant) Free(b []byte) { g.m.put(b) }

// Release gives the grant back. All its buffers are freed or resident by now.
func (g *Grant) Release() {
	n := g.left
	g.left = 0
	g.m.release(n)
}

// landed says that a buffer of the grant has become resident.
func (g *Grant) landed(b []byte) {
	n := int64(cap(b))
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	g.left -= n
}

// Charge counts n bytes that lie outside buffers. It does not fail: it evicts units, and
// others are granted less until that fits.
func (m *Memory) Charge(n int64) {
	m.mu.Lock()
	m.granted += n
	m.fixed += n
	over := m.granted > m.limit
	m.trim()
	m.mu.Unlock()
	for over && m.evict() {
		m.mu.Lock()
		over = m.granted > m.limit
		m.mu.Unlock()
	}
}

// Discharge takes a charge back.
func (m *Memory) Discharge(n int64) {
	m.mu.Lock()
	m.fixed -= n
	m.mu.Unlock()
	m.release(n)
}

// trim drops free buffers that there is no room for. The caller holds the lock.
func (m *Memory) trim() {
	for size, l := range m.free {
		for len(l) > 0 && m.live+m.fixed+m.idle > m.limit {
			m.arena.giveBack(l[len(l)-1])
			l[len(l)-1] = nil
			l = l[:len(l)-1]
			m.idle -= int64(size)
		}
		m.free[size] = l
	}
	m.peak = max(m.peak, m.live+m.fixed+m.idle)
}

func (m *Memory) put(b []byte) {
	size := cap(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live -= int64(size)
	m.idle += int64(size)
	m.free[size] = append(m.free[size], b[:0])
}

func (m *Memory) release(n int64) {
	m.mu.Lock()
	m.granted -= n
	m.mu.Unlock()
	m.wake()
}

func (m *Memory) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// wake lets the caller that waits for memory look again.
func (m *Memory) wake() {
	if m.waiting.Load() {
		select {
		case m.freed <- struct{}{}:
		default:
		}
	}
}

// Close grants nothing any more, waits until all grants are given back and no unit is
// being read, and unmaps the memory. Charges do not matter.
func (m *Memory) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.waiting.Store(true)
	m.wake() // the caller that waits in Grant
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	m.waiting.Store(true)
	for {
		m.mu.Lock()
		if m.granted == m.fixed {
			err := m.arena.close()
			clear(m.free)
			m.idle = 0
			m.mu.Unlock()
			return err
		}
		m.mu.Unlock()
		if !m.evict() {
			<-m.freed
		}
	}
}
