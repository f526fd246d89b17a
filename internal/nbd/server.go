package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Server serves exports. It may serve several listeners at once; its limits hold for
// all of them together.
type Server struct {
	opts Options
	pool *pool

	taken chan *conn // see Take

	mu      sync.Mutex
	number  int            // of clients that have named an export
	conns   map[*conn]bool // all; true: it transmits
	parking parking
}

// New makes a server. It fails when an option is missing or contradicts another.
func New(opts Options) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{opts: opts, pool: newPool(opts.poolBytes()), taken: make(chan *conn), conns: map[*conn]bool{},
		parking: parking{changed: make(chan struct{}, 1)}}, nil
}

// Serve accepts clients until ctx ends, then closes l, lets requests under way finish
// for at most DrainTimeout, answers new ones with ESHUTDOWN, and returns nil once all
// connections are closed. It fails when l does. Connections that Take took are served, too.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	// accepting ends with ctx or with the listener; what is under way may go on a while.
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	var open sync.WaitGroup
	open.Go(func() {
		s.serveTaken(accepting, func(c *conn) { open.Go(func() { s.admit(accepting, work, c) }) })
	})
	err := s.accept(accepting, l, func(raw net.Conn) {
		c := s.newConn(raw)
		s.note(c, false)
		open.Go(func() { s.admit(accepting, work, c) })
	})
	if s.passing() { // what is left is passed on, too
		<-ctx.Done()
	}
	stop()
	defer time.AfterFunc(s.opts.DrainTimeout, cut).Stop()
	open.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) accept(ctx context.Context, l net.Listener, handle func(net.Conn)) error {
	wait := time.Duration(0)
	for {
		c, err := l.Accept()
		switch {
		case err == nil && ctx.Err() != nil: // it came while the listener was being closed
			c.Close()
		case err == nil:
			wait = 0
			handle(c)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept NBD clients: %w", err)
		default:
			// Out of file descriptors or the like: others go on, this one can be retried.
			wait = min(max(5*time.Millisecond, 2*wait), time.Second)
			s.opts.Logger.Warn("NBD: accept failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
}

// admit serves one client.
func (s *Server) admit(ctx, work context.Context, c *conn) {
	defer c.raw.Close()
	if tcp, ok := c.raw.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		// A client that vanished is noticed after two minutes of silence.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4})
	}
	s.serve(ctx, work, c)
}

// enter counts a client that has named an export. It returns nil if there are
// MaxConnections of them.
func (s *Server) enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.number >= s.opts.MaxConnections {
		return nil
	}
	s.number++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.number--
	}
}
