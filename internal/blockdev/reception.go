package blockdev

import (
	"context"
	"errors"
)

// reception is where one read receives the blocks that were not held when it came. It
// takes them in the order in which they arrive and lets go of each at once, so that
// no read holds memory while it waits for more.
type reception struct {
	cache *Cache
	left  map[*block]struct{} // asked for, and not received; the reader's alone
	ready chan *block         // has room for all of left
}

func newReception(c *Cache, most int) *reception {
	return &reception{cache: c, left: make(map[*block]struct{}, most), ready: make(chan *block, most)}
}

// errAbandoned is the end of a fetch that was given up because nobody waited for it.
// Who came too late to keep it asks anew.
var errAbandoned = errors.New("the fetch was given up")

// receive calls fill for each block as it arrives, until all have or ctx ends. It
// returns the first error, and the units whose fetch was given up.
func (r *reception) receive(ctx context.Context, fill func(*block)) (again []*block, err error) {
	for len(r.left) > 0 {
		select {
		case b := <-r.ready:
			delete(r.left, b)
			switch berr := b.failure(r.cache); {
			case errors.Is(berr, errAbandoned):
				again = append(again, b)
			case berr != nil:
				r.cancel()
				return nil, berr
			default:
				r.cache.touch(b)
				fill(b)
				r.cache.leave(b)
			}
		case <-ctx.Done():
			r.cancel()
			return nil, ctx.Err()
		}
	}
	return again, nil
}

// failure is why a block that arrived has no data; nil if it has.
func (b *block) failure(c *Cache) error {
	s := c.shardOf(b.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.err
}

// cancel stops waiting for what is left. A fetch that nobody waits for any more is
// given up.
func (r *reception) cancel() {
	for b := range r.left {
		r.cache.unwant(b, r)
	}
	for {
		select {
		case b := <-r.ready: // came in the meantime
			if b.failure(r.cache) == nil {
				r.cache.leave(b)
			}
		default:
			return
		}
	}
}

// unwant takes r off those who wait for b.
func (c *Cache) unwant(b *block, r *reception) {
	s := c.shardOf(b.key)
	s.mu.Lock()
	var f *fetch
	for i, other := range b.subs {
		if other == r {
			b.subs[i] = b.subs[len(b.subs)-1]
			b.subs = b.subs[:len(b.subs)-1]
			f = b.fetch
			break
		}
	}
	s.mu.Unlock()
	if f != nil && !f.wanted() {
		f.giveUp()
	}
}
