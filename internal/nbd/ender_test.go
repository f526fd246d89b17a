package nbd

import (
	"context"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
)

// ending is an export that may end.
type ending struct {
	*memory
	ended chan struct{}
}

func (e *ending) Ended() <-chan struct{} { return e.ended }

// TestExportEnds: its connections are cut, those that wait for a read and those that
// are silent, and its reads are given up before it is closed.
func TestExportEnds(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		reading := make(chan struct{}, 1)
		m := newMemory(1, 1<<20)
		m.wait = func(ctx context.Context, _ int64) error {
			reading <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		e := &ending{m, make(chan struct{})}
		s := start(t, network, e, Options{})
		silent := s.conn(t)
		if err := silent.Go(secret); err != nil {
			t.Fatal(err)
		}
		busy := s.client(t, nbdtest.Config{})
		failed := make(chan error, 1)
		go func() { failed <- busy.Read(make([]byte, 4096), m.dataAt()) }()
		<-reading
		close(e.ended)
		if err := <-failed; err == nil {
			t.Errorf("%s: a read of an export that ended succeeded", network)
		}
		if err := silent.Stream().SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := silent.Stream().Read(make([]byte, 1)); n != 0 || isTimeout(err) {
			t.Errorf("%s: the silent connection is still there: %d bytes, %v", network, n, err)
		}
		s.stop()
		m.mu.Lock()
		if m.closed != 2 {
			t.Errorf("%s: the export was closed %d times, want once for each connection", network, m.closed)
		}
		m.mu.Unlock()
	}
}

func isTimeout(err error) bool {
	e, ok := err.(interface{ Timeout() bool })
	return ok && e.Timeout()
}

// dataAt is an offset that is in no hole.
func (m *memory) dataAt() int64 {
	at := int64(0)
	for _, h := range m.holes {
		if h.Offset > at {
			break
		}
		at = h.Offset + h.Length
	}
	return at
}
