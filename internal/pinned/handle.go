package pinned

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/quickims/quickims/internal/objectstore"
)

// spot is a place with the handle of the object that lies there: the object kept open,
// where the store can do that.
type spot struct {
	Place
	handle atomic.Pointer[objectstore.Held]

	mu      sync.Mutex    // never held while anybody waits for the store
	opening chan struct{} // closed when the goroutine that opens the handle is done; nil: none does
	tried   bool          // to open it, since somebody reads the object
	unused  bool
	turn    int // counts the calls of use
}

// hold returns the handle, which it opens if nobody has tried; nil if the store has none.
func (s *spot) hold(ctx context.Context, store objectstore.Store) objectstore.Held {
	s.mu.Lock()
	for !s.tried && !s.unused && s.opening != nil {
		wait := s.opening
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return s.open()
		}
		s.mu.Lock()
	}
	if s.tried || s.unused {
		s.mu.Unlock()
		return s.open()
	}
	opening, turn := make(chan struct{}), s.turn
	s.opening = opening
	s.mu.Unlock()
	h, err := objectstore.Hold(ctx, store, s.Location, s.Condition)
	there := err == nil && h != nil // else a read of the store says what is wrong
	s.mu.Lock()
	s.opening = nil
	close(opening)
	if s.turn == turn {
		s.tried = there || ctx.Err() == nil
		if there {
			s.handle.Store(&h)
			there = false
		}
	}
	s.mu.Unlock()
	if there { // nobody reads the object any more, or somebody does again
		_ = h.Close()
	}
	return s.open()
}

// open is the handle, nil if it is not open. It waits for nobody.
func (s *spot) open() objectstore.Held {
	if h := s.handle.Load(); h != nil {
		return *h
	}
	return nil
}

// close closes h, unless another handle is open by now. It is not opened again before the
// object is used anew.
func (s *spot) close(h objectstore.Held) {
	if now := s.handle.Load(); now != nil && *now == h && s.handle.CompareAndSwap(now, nil) {
		_ = h.Close() // it was read from; reads say what is wrong
	}
}

func (s *spot) use(used bool) {
	s.mu.Lock()
	s.unused, s.tried = !used, false
	s.turn++
	s.mu.Unlock()
	if h := s.open(); !used && h != nil {
		s.close(h)
	}
}
