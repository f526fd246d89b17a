package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one client.
type conn struct {
	s      *Server
	raw    net.Conn // as it was accepted
	stream net.Conn // raw, or TLS over it
	under  *batched // between raw and TLS
	in     *bufio.Reader
	log    *slog.Logger
	leave  func()          // gives back the place of a client that has named an export; nil before
	ending context.Context // ends when the server stops

	deadlines sync.Mutex
	woken     bool        // reads fail from now on
	endless   bool        // reads have no deadline
	called    atomic.Bool // to rest before the next request
	resting   bool        // under s.mu

	// What the client negotiated.
	noZeroes   bool
	secure     bool // TLS; changes under s.mu
	structured bool // replies in chunks
	extended   bool // and headers with 64 bits of length
	export     *opened
	contexts   string // the export that base:allocation was chosen for
	allocation bool   // base:allocation was chosen
}

// inBuffer is the read buffer of a connection in bytes; many requests fit in.
const inBuffer = 4096

var (
	past  = time.Unix(1, 0)
	never = time.Time{}
)

// errGone ends a connection that came to its proper end.
var errGone = errors.New("the client left")

func (s *Server) newConn(raw net.Conn) *conn {
	return &conn{s: s, raw: raw, stream: raw, in: bufio.NewReaderSize(raw, inBuffer), log: s.opts.Logger.With("remote", raw.RemoteAddr())}
}

// release gives back what the connection has of the server.
func (c *conn) release() {
	c.closeExport()
	if c.leave != nil {
		c.leave()
	}
}

// serve is the life of a connection, from the handshake on unless that is done. ctx ends
// when the server stops, work when its patience does.
func (s *Server) serve(ctx, work context.Context, c *conn) {
	c.ending = ctx
	defer context.AfterFunc(work, func() { c.raw.Close() })()
	work, cancel := context.WithCancel(work)
	defer cancel()
	// Every read waits for the client: it must be woken when the server stops.
	defer context.AfterFunc(ctx, c.wake)()
	defer c.release()
	defer s.forget(c)

	var err error
	if taken := c.export != nil; !taken {
		err = c.handshake(work)
	}
	if err == nil {
		s.note(c, true)
		c.visit()
		defer c.cutWhenEnded()()
		err = c.transmit(work, cancel)
	}
	switch {
	case errors.Is(err, errPassed):
	case err == nil, errors.Is(err, errGone), errors.Is(err, io.EOF), ctx.Err() != nil:
		c.linger()
	default:
		c.log.Debug("NBD: connection cut", "error", err)
		if c.secure {
			_ = c.raw.SetWriteDeadline(time.Now().Add(time.Second))
			_ = c.stream.Close()
		}
	}
}

func (c *conn) closeExport() {
	if c.export == nil {
		return
	}
	if err := c.export.Close(); err != nil {
		c.log.Warn("NBD: closing an export failed", "error", err)
	}
	c.export = nil
}

// wake makes the read under way and all later ones fail.
func (c *conn) wake() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.woken = true
	_ = c.raw.SetReadDeadline(past)
}

// sleep undoes wake.
func (c *conn) sleep() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.woken, c.endless = false, true
	_ = c.raw.SetReadDeadline(never)
}

// recalled reports whether a read that failed at its deadline did so because of call.
func (c *conn) recalled() bool {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	return c.endless && !c.woken
}

// readUntil sets the deadline of reads, unless they fail anyway.
func (c *conn) readUntil(t time.Time) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.woken || c.endless && t.IsZero() {
		return
	}
	c.endless = t.IsZero()
	if c.endless && c.called.Load() {
		t = past
	}
	_ = c.raw.SetReadDeadline(t)
}

// lingerTime and lingerBytes bound what is read from a client after the last answer.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// linger ends our side and waits for the client to end its own: an answer may be lost
// if a connection is closed while bytes of the client are unread.
func (c *conn) linger() {
	_ = c.raw.SetDeadline(time.Now().Add(lingerTime))
	half, ok := c.stream.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.secure { // CloseWrite told TLS's end only
		if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	_, _ = io.CopyN(io.Discard, c.raw, lingerBytes)
}
