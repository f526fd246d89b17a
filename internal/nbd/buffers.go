package nbd

import (
	"math/bits"
	"sync"
)

// headroom is the space before the data of a buffer in which the header of its reply
// stands, so that both leave as one piece: an extended header and an offset.
const headroom = 40

const smallestClass = 12 // 4 KiB

// buffer holds the data of one reply. data is as long as was asked for; its capacity
// is the next power of two.
type buffer struct {
	whole []byte
	class int
}

func (b *buffer) data(n int) []byte { return b.whole[headroom : headroom+n] }

// pools has one pool for each power of two from 4 KiB on, of buffers that the garbage
// collector takes when they are not used.
var pools [32]sync.Pool

const (
	// largeClass is the smallest of buffers that are kept in spite of the collector: to
	// clear new memory and to touch it for the first time takes longer than the reading.
	largeClass = 16 // 64 KiB
	// maxKept is how much of them is kept, in bytes.
	maxKept = 16 << 20
)

// large are the buffers that are kept, of each size the one used last on top.
var large struct {
	mu    sync.Mutex
	bytes int
	free  [32][]*buffer
}

// class is the pool of buffers of n bytes; charge what such a buffer counts.
func class(n int) int { return max(smallestClass, bits.Len(uint(n-1))) }

func charge(n int) int64 {
	if n <= 0 {
		return 0
	}
	return 1 << class(n)
}

func getBuffer(n int) *buffer {
	c := class(n)
	if c >= largeClass {
		if b := takeLarge(c); b != nil {
			return b
		}
	}
	if b, ok := pools[c].Get().(*buffer); ok {
		return b
	}
	return &buffer{whole: make([]byte, headroom+1<<c), class: c}
}

func takeLarge(c int) *buffer {
	large.mu.Lock()
	defer large.mu.Unlock()
	l := large.free[c]
	if len(l) == 0 {
		return nil
	}
	b := l[len(l)-1]
	l[len(l)-1] = nil
	large.free[c] = l[:len(l)-1]
	large.bytes -= 1 << c
	return b
}

func (b *buffer) release() {
	if b.class < largeClass {
		pools[b.class].Put(b)
		return
	}
	if !b.keep() {
		pools[b.class].Put(b)
	}
}

// keep keeps a large buffer, unless there are enough.
func (b *buffer) keep() bool {
	large.mu.Lock()
	defer large.mu.Unlock()
	if large.bytes+1<<b.class > maxKept {
		return false
	}
	large.bytes += 1 << b.class
	large.free[b.class] = append(large.free[b.class], b)
	return true
}
