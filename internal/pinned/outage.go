package pinned

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// probes is how many requests at a time a store gets while it fails.
	probes = 4
	// firstPause and longestPause are in full jitter: a pause is anything up to them. The
	// longest is a second, so that a store that is back in time for a reader is asked in
	// time.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// pauseAfter is a pause after so many failures in a row.
func pauseAfter(failures int) time.Duration {
	return time.Duration(rand.Int64N(int64(min(firstPause<<min(failures, 10), longestPause)))) + 1
}

// outage is a time in which a store fails. A few requests probe it, in turns: the object
// that has waited longest for its last one comes first, so that one whose own requests
// fail, of a store that is well otherwise, does not keep the others waiting. The first
// request that succeeds ends the outage for all.
type outage struct {
	cause error
	over  chan struct{} // closed at the end

	mu       sync.Mutex
	free     int // probes that nobody makes
	failures int
	clock    uint64
	served   map[*Object]uint64 // when an object had its last turn
	line     []*turn
}

// turn is a fetch that waits to probe the store.
type turn struct {
	of   *Object
	come chan struct{} // closed when it may
}

// failed notes that the store has failed.
func (s *Store) failed(cause error) {
	if s.outage.Load() == nil {
		s.outage.CompareAndSwap(nil, &outage{cause: cause, over: make(chan struct{}), free: probes, served: map[*Object]uint64{}})
	}
}

// answered notes that the store has sent bytes.
func (s *Store) answered() {
	if u := s.outage.Load(); u != nil && s.outage.CompareAndSwap(u, nil) {
		close(u.over)
	}
}

// enter waits until the fetch may probe the store, or the outage is over: then it reports
// false.
func (u *outage) enter(ctx context.Context, o *Object) (probe bool, err error) {
	t := &turn{of: o, come: make(chan struct{})}
	u.mu.Lock()
	u.line = append(u.line, t)
	u.serve()
	u.mu.Unlock()
	select {
	case <-t.come:
		return true, nil
	case <-u.over:
		return false, nil // and so has the line
	case <-ctx.Done():
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.line {
		if u.line[i] == t {
			u.line = append(u.line[:i], u.line[i+1:]...)
			return false, ctx.Err()
		}
	}
	u.free++ // its turn came meanwhile
	u.serve()
	return false, ctx.Err()
}

// leave ends a probe. After one that failed the next waits a little.
func (u *outage) leave(failed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !failed {
		u.free++
		u.serve()
		return
	}
	u.failures++
	time.AfterFunc(pauseAfter(u.failures/probes), func() { u.leave(false) })
}

// serve gives the turns that are free. The caller holds the lock.
func (u *outage) serve() {
	for u.free > 0 && len(u.line) > 0 {
		next := 0
		for i, t := range u.line {
			if u.served[t.of] < u.served[u.line[next].of] {
				next = i
			}
		}
		t := u.line[next]
		u.line = append(u.line[:next], u.line[next+1:]...)
		u.free--
		u.clock++
		u.served[t.of] = u.clock
		close(t.come)
	}
}
