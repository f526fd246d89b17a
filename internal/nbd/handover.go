package nbd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// State is what a client in transmission and the server agreed on, and what the client
// sent that nobody has looked at: all that another process needs to go on.
type State struct {
	// Export is the name that the client gave.
	Export string `json:"export"`
	// Size in bytes, Flags and MaxRequestBytes are what the client was told of it.
	Size            uint64 `json:"size"`
	Flags           uint16 `json:"flags"`
	MaxRequestBytes int    `json:"max_request_bytes"`
	// Structured, Extended and Allocation are the forms of replies that it chose.
	Structured bool `json:"structured"`
	Extended   bool `json:"extended"`
	Allocation bool `json:"allocation"`
	// Unread is at most a read buffer's worth of requests.
	Unread []byte `json:"unread,omitempty"`
}

// errPassed ends the service of a connection that another process serves from now on.
var errPassed = errors.New("the connection was passed on")

// Parked is a connection in clear that rests between two requests: all earlier ones are
// answered, and nothing is read from it.
type Parked struct {
	State State
	// Conn is the connection. It may have been closed meanwhile.
	Conn net.Conn

	c       *conn
	verdict chan bool // true: passed on; of capacity 1
	decided bool      // under Server.mu
}

// parking is what a server knows of connections that are to be passed on.
type parking struct {
	called  bool
	parked  []*Parked // that Park or Next did not return yet
	given   []*Parked // that they did, and nobody has decided about
	changed chan struct{}
}

// Exports are the names of the exports that clients in clear read, one for each.
func (s *Server) Exports() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for c, transmits := range s.conns {
		if transmits && !c.secure {
			names = append(names, c.export.name)
		}
	}
	return names
}

// Park makes connections in clear rest between two requests, those that transmit and
// those that begin to. It returns those that rest once all do that transmit, or after
// patience; Next returns the others. Until Resume or Pass, none of them is served.
func (s *Server) Park(ctx context.Context, patience time.Duration) []*Parked {
	s.mu.Lock()
	s.parking.called = true
	for c := range s.conns {
		c.call()
	}
	s.mu.Unlock()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		s.mu.Lock()
		busy := false
		for c, transmits := range s.conns {
			busy = busy || transmits && !c.secure && !c.resting
		}
		if !busy {
			defer s.mu.Unlock()
			return s.give(len(s.parking.parked))
		}
		s.mu.Unlock()
		select {
		case <-s.parking.changed:
		case <-limit.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.give(len(s.parking.parked))
		case <-ctx.Done():
			return nil
		}
	}
}

// give returns n connections that rest. The caller holds the lock.
func (s *Server) give(n int) []*Parked {
	list := s.parking.parked[:n:n]
	s.parking.parked = s.parking.parked[n:]
	s.parking.given = append(s.parking.given, list...)
	return list
}

// Next waits for a connection that came to rest since Park. It returns nil when no
// client in clear is left that could, or when ctx ends.
func (s *Server) Next(ctx context.Context) *Parked {
	for {
		s.mu.Lock()
		if len(s.parking.parked) > 0 {
			defer s.mu.Unlock()
			return s.give(1)[0]
		}
		left := false
		for c := range s.conns {
			left = left || !c.secure && !c.resting
		}
		s.mu.Unlock()
		if !left {
			return nil
		}
		select {
		case <-s.parking.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Pass says that another process serves a connection from now on.
func (s *Server) Pass(p *Parked) { s.decide(p, true) }

func (s *Server) decide(p *Parked, passed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.decided {
		p.decided = true
		p.c.resting = passed // until it is forgotten
		p.verdict <- passed
	}
}

// Resume serves all connections again that were not passed on.
func (s *Server) Resume() {
	s.mu.Lock()
	all := append(s.parking.parked, s.parking.given...)
	s.parking.called, s.parking.parked, s.parking.given = false, nil, nil
	for c := range s.conns {
		c.uncall()
	}
	s.mu.Unlock()
	for _, p := range all {
		s.decide(p, false)
	}
}

// note counts a connection, and forget ends that. note calls it to rest if Park did so
// with the others.
func (s *Server) note(c *conn, transmits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = transmits
	if s.parking.called {
		c.call()
	}
	s.change()
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.change()
}

// secured notes that a connection is not in clear any more.
func (s *Server) secured(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.secure = true
	c.uncall()
	s.change()
}

// passing reports whether connections are to be passed on.
func (s *Server) passing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parking.called
}

// change wakes who waits for connections. The caller holds the lock.
func (s *Server) change() {
	select {
	case s.parking.changed <- struct{}{}:
	default:
	}
}

// call makes the read that waits for the next request fail, now or when it begins, but
// none within a request. The caller holds the server's lock.
func (c *conn) call() {
	if c.secure {
		return
	}
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.called.Store(true)
	if c.endless {
		_ = c.raw.SetReadDeadline(past)
	}
}

func (c *conn) uncall() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.called.Store(false)
	if c.endless && !c.woken {
		_ = c.raw.SetReadDeadline(never)
	}
}

// rest waits, once all requests are answered, until the connection is passed on, which
// is errPassed, or served again. The reader of requests calls it.
func (t *transmission) rest() error {
	t.out.flush()
	select {
	case <-t.budget.atMost(0):
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
	if err := t.out.failed(); err != nil {
		return err
	}
	unread, _ := t.in.Peek(t.in.Buffered())
	p := &Parked{Conn: t.raw, c: t.conn, verdict: make(chan bool, 1), State: State{
		Export: t.export.name, Size: t.export.size, Flags: t.export.flags(t.structured), MaxRequestBytes: t.s.opts.MaxRequestBytes,
		Structured: t.structured, Extended: t.extended, Allocation: t.allocation && t.contexts == t.export.name,
		Unread: bytes.Clone(unread),
	}}
	s := t.s
	s.mu.Lock()
	if !t.called.Load() { // meanwhile
		s.mu.Unlock()
		return nil
	}
	t.resting = true
	s.parking.parked = append(s.parking.parked, p)
	s.change()
	s.mu.Unlock()
	select {
	case passed := <-p.verdict:
		if passed {
			return errPassed
		}
		return nil
	case <-t.ending.Done():
		return errGone
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

// Taken is a connection that another process passed on.
type Taken struct{ c *conn }

// Take prepares to serve a connection that another process passed on: it opens the
// export, which must be what the client was told. It reads and writes nothing. Start
// serves the connection, Close drops it. After an error raw is the caller's.
func (s *Server) Take(ctx context.Context, raw net.Conn, st State) (*Taken, error) {
	c := s.newConn(raw)
	if len(st.Unread) > 0 {
		c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(st.Unread), raw), inBuffer)
	}
	c.noZeroes, c.structured, c.extended, c.allocation, c.contexts = true, st.Structured, st.Extended, st.Allocation, st.Export
	if err := c.open(ctx, st.Export); err != nil {
		c.release()
		return nil, err
	}
	flags := c.export.flags(st.Structured)
	if c.export.size != st.Size || st.Flags&^flags != 0 || st.MaxRequestBytes > s.opts.MaxRequestBytes {
		err := fmt.Errorf("the client was told of %d bytes, flags %#x and reads of %d bytes; there are %d, %#x and %d",
			st.Size, st.Flags, st.MaxRequestBytes, c.export.size, flags, s.opts.MaxRequestBytes)
		c.release()
		return nil, err
	}
	return &Taken{c}, nil
}

// Start serves the connection, as soon as Serve runs, or drops it when ctx ends before.
func (t *Taken) Start(ctx context.Context) {
	select {
	case t.c.s.taken <- t.c:
	case <-ctx.Done():
		t.Close()
	}
}

// Close drops a connection that was not started.
func (t *Taken) Close() {
	t.c.release()
	t.c.raw.Close()
}

// serveTaken serves what Take took until accepting ends.
func (s *Server) serveTaken(accepting context.Context, serve func(*conn)) {
	for {
		select {
		case c := <-s.taken:
			serve(c)
		case <-accepting.Done():
			return
		}
	}
}
