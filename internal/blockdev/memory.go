package blockdev

import (
	"context"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// memory bounds the bytes of all buffers of a cache: blocks, what is on its way, and
// buffers that wait to be used again. Who needs memory is granted it first, all that
// the work will need at once, so that no two wait for each other with half of it.
type memory struct {
	limit int64
	// evict gives up one block that nobody reads; false if there is none.
	evict func() bool

	turn    chan struct{} // holds a token while somebody waits for memory
	freed   chan struct{} // told when memory may have become free
	waiting atomic.Bool

	mu      sync.Mutex
	granted int64 // blocks held, and work under way
	live    int64 // of buffers handed out, at most granted
	fixed   int64 // granted for what lies in no buffer
	free    map[int][][]byte
	idle    int64 // bytes of free
	peak    int64 // the most that live, fixed and idle were together
	arena   arena
	closed  bool
}

func newMemory(limit int64, evict func() bool) *memory {
	return &memory{limit: limit, evict: evict, turn: make(chan struct{}, 1), freed: make(chan struct{}, 1),
		free: map[int][][]byte{}, arena: newArena()}
}

// page is what buffers are cut to, in bytes: of less the machine can't have the memory
// back without what lies beside it.
var page = int64(max(4096, os.Getpagesize()))

// bufferSize is how many bytes the buffer for n bytes takes, a multiple of a page: few
// sizes are in use, so that buffers fit again, and of more than a few pages at most a
// quarter is wasted. Blocks that are decoded into their buffer have some room behind
// them there, see zvhd2.DecodeSlack.
func bufferSize(n int64) int64 {
	step := max(int64(1)<<max(bits.Len64(uint64(max(n, 1)-1))-3, 0), page)
	size := (n + step - 1) / step * step
	if n >= zvhd2.MinBlockSize && size-n < zvhd2.DecodeSlack {
		size += page
	}
	return size
}

// acquire waits until n bytes are granted, which are at most the limit. It fails when
// ctx ends and after close.
func (m *memory) acquire(ctx context.Context, n int64) error {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.turn }()
	if m.grant(n) {
		return nil
	}
	m.waiting.Store(true)
	defer m.waiting.Store(false)
	for !m.grant(n) {
		if m.isClosed() {
			return errClosed
		}
		select {
		case <-m.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// try is acquire for who can do without.
func (m *memory) try(n int64) bool {
	select {
	case m.turn <- struct{}{}:
	default:
		return false
	}
	defer func() { <-m.turn }()
	return m.grant(n)
}

func (m *memory) grant(n int64) bool {
	for {
		m.mu.Lock()
		closed := m.closed
		fits := m.granted+n <= m.limit && !closed
		if fits {
			m.granted += n
		}
		m.mu.Unlock()
		if fits || closed || !m.evict() {
			return fits
		}
	}
}

// charge takes n bytes for what lies in no buffer, as well as that goes: others are
// given less until blocks have made room.
func (m *memory) charge(n int64) {
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

// fix notes that n bytes of what was granted lie in no buffer; less than 0 takes it back.
func (m *memory) fix(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fixed += n
	m.trim()
}

// trim drops free buffers that there is no room for. The caller holds the lock.
func (m *memory) trim() {
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

// release gives back what was granted.
func (m *memory) release(n int64) {
	m.mu.Lock()
	m.granted -= n
	m.mu.Unlock()
	m.wake()
}

func (m *memory) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// close grants nothing any more, waits until nobody reads a block or works in a buffer,
// and gives the memory back.
func (m *memory) close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.waiting.Store(true)
	m.wake() // who waits in acquire
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

// wake lets who waits look again. It is called after a block was left by its last
// reader, too.
func (m *memory) wake() {
	if m.waiting.Load() {
		select {
		case m.freed <- struct{}{}:
		default:
		}
	}
}

// get returns a buffer of n bytes, which takes bufferSize(n) of what was granted. Its
// content is unspecified.
func (m *memory) get(n int64) []byte {
	size := bufferSize(n)
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

// put takes a buffer of get back. What was granted for it stays so until release.
func (m *memory) put(b []byte) {
	size := cap(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live -= int64(size)
	m.idle += int64(size)
	m.free[size] = append(m.free[size], b[:0])
}
