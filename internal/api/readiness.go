package api

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// readyTimeout bounds what /readyz looks at.
	readyTimeout = 5 * time.Second
	// readyFresh is how long a result is given to further callers.
	readyFresh = time.Second
)

// errDraining is why a service that stops is not ready.
var errDraining = errors.New("the service is stopping")

// readiness asks database and store for /readyz, whose callers have shown no
// credentials: at most once in readyFresh, however many callers ask. Callers that come
// while it asks share the result.
type readiness struct {
	check    func(context.Context) error
	draining func() bool

	mu      sync.Mutex
	asked   time.Time     // when the last check began
	running chan struct{} // closed when the check in flight has its result; nil: none is
	err     error         // the result of the last check
}

// ask returns nil if the service can do its work. It waits for the check in flight, if
// there is one, or until ctx ends.
func (r *readiness) ask(ctx context.Context) error {
	if r.draining() {
		return errDraining
	}
	r.mu.Lock()
	if r.running == nil {
		if !r.asked.IsZero() && time.Since(r.asked) < readyFresh {
			defer r.mu.Unlock()
			return r.err
		}
		r.asked, r.running = time.Now(), make(chan struct{})
		go r.run(context.WithoutCancel(ctx)) // the caller may go; others wait for the result
	}
	running := r.running
	r.mu.Unlock()
	select {
	case <-running:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *readiness) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := r.check(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	close(r.running)
	r.running = nil
}
