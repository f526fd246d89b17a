package api

import (
	"context"
	"sync"
	"time"
)

// right is the right to go on with an answer that takes long. It is asked about again and
// again, also while the answer waits for a disk or for its reader.
type right struct {
	end  context.CancelFunc
	done chan struct{} // closed when nothing is asked any more

	mu    sync.Mutex
	fault error // why it was lost
}

// watchRight asks check every so often until ctx ends or stop is called. When check finds
// a fault the right is lost: cut is called, which must break off what hangs.
func (s *server) watchRight(ctx context.Context, every time.Duration, check func(context.Context) error, cut func()) *right {
	ctx, end := context.WithCancel(ctx)
	r := &right{end: end, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			fault := check(ctx)
			if ctx.Err() != nil {
				return // the answer has ended meanwhile
			}
			if fault != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.fault = fault
				cut()
				return
			}
		}
	}()
	return r
}

// lost is why the right was lost, nil while it lasts.
func (r *right) lost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// unless calls f while the right is not lost, and before it can be.
func (r *right) unless(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil {
		f()
	}
}

// stop ends the questions and waits until none is asked. It may be called twice.
func (r *right) stop() {
	r.end()
	<-r.done
}
