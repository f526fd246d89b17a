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

// pools has one pool for each power of two from 4 KiB on.
var pools [32]sync.Pool

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
	if b, ok := pools[c].Get().(*buffer); ok {
		return b
	}
	return &buffer{whole: make([]byte, headroom+1<<c), class: c}
}

func (b *buffer) release() { pools[b.class].Put(b) }
