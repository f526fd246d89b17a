package identity

import (
	"sync"
	"time"
)

// Failed logins that one source may make for one user: a burst, then a slow trickle.
// The count is by source and user together, so that nobody can lock a user out from
// elsewhere.
const (
	loginBurst = 10
	// LoginRefill is how long it takes until one more may fail.
	LoginRefill = 6 * time.Second
	// maxBuckets bounds the limiter's memory.
	maxBuckets = 4096
)

// limiter counts failed logins in token buckets. A bucket holds loginBurst tries.
type limiter struct {
	clock func() time.Time
	mu    sync.Mutex
	// full is, for each key, when its bucket will be full again.
	full map[string]time.Time
}

func newLimiter(clock func() time.Time) *limiter {
	return &limiter{clock: clock, full: make(map[string]time.Time)}
}

// wait is how long the key must wait for its next try, 0 if it may try now.
func (l *limiter) wait(key string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	full, known := l.full[key]
	if !known {
		return 0
	}
	return max(0, full.Sub(l.clock())-(loginBurst-1)*LoginRefill)
}

// failed counts a failed try. Tries are counted when they have failed, so that any
// number of good ones may be in flight.
func (l *limiter) failed(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	full, known := l.full[key]
	if !known && len(l.full) >= maxBuckets {
		l.evict(now)
	}
	if full.Before(now) {
		full = now
	}
	// However many fail at once, one waits no longer than for a whole bucket.
	l.full[key] = minTime(full.Add(LoginRefill), now.Add(2*loginBurst*LoginRefill))
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// evict drops the buckets that are full, or any one if none is.
func (l *limiter) evict(now time.Time) {
	for key, full := range l.full {
		if !full.After(now) {
			delete(l.full, key)
		}
	}
	for key := range l.full {
		if len(l.full) < maxBuckets {
			return
		}
		delete(l.full, key)
	}
}
