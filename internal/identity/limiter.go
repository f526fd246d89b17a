package identity

import (
	"sync"
	"time"
)

// Failed logins of one key: a burst, then a slow trickle.
const (
	loginBurst = 10
	// LoginRefill is how long it takes until one more may fail.
	LoginRefill = 6 * time.Second
	// maxBuckets bounds the limiter's memory.
	maxBuckets = 4096
)

// limiter counts what failed in token buckets. A bucket holds burst tries, and gets one
// back each refill.
type limiter struct {
	clock  func() time.Time
	burst  int
	refill time.Duration
	mu     sync.Mutex
	// full is, for each key, when its bucket will be full again.
	full map[string]time.Time
}

func newLimiter(clock func() time.Time, burst int, refill time.Duration) *limiter {
	return &limiter{clock: clock, burst: burst, refill: refill, full: make(map[string]time.Time)}
}

// wait is how long the key must wait for its next try, 0 if it may try now.
func (l *limiter) wait(key string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left(key)
}

func (l *limiter) left(key string) time.Duration {
	full, known := l.full[key]
	if !known {
		return 0
	}
	return max(0, full.Sub(l.clock())-time.Duration(l.burst-1)*l.refill)
}

// take takes a try from the key's bucket. If the bucket is empty, it takes none and
// returns how long the key must wait for its next try.
func (l *limiter) take(key string) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.left(key); wait > 0 {
		return wait
	}
	now := l.clock()
	full, known := l.full[key]
	if !known && len(l.full) >= maxBuckets {
		l.evict(now)
	}
	if full.Before(now) {
		full = now
	}
	l.full[key] = full.Add(l.refill)
	return 0
}

// give gives back a try that was taken and did not fail.
func (l *limiter) give(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full, known := l.full[key]; known {
		if full = full.Add(-l.refill); full.After(l.clock()) {
			l.full[key] = full
		} else {
			delete(l.full, key)
		}
	}
}

// evict drops the buckets that are full, or, if none is, the fullest one: keys that are
// made up to push others out push out each other.
func (l *limiter) evict(now time.Time) {
	for key, full := range l.full {
		if !full.After(now) {
			delete(l.full, key)
		}
	}
	if len(l.full) < maxBuckets {
		return
	}
	fullest := ""
	for key, full := range l.full {
		if fullest == "" || full.Before(l.full[fullest]) {
			fullest = key
		}
	}
	delete(l.full, fullest)
}
