package nbdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// Config says how a client connects.
type Config struct {
	Export   string
	TLS      *tls.Config // start TLS first
	Simple   bool        // simple replies
	Extended bool        // extended headers
	ByName   bool        // NBD_OPT_EXPORT_NAME in place of NBD_OPT_GO
}

// Client is a connection that many goroutines may use at once.
type Client struct {
	Export ExportInfo
	// Allocation reports whether the server tells holes from data.
	Allocation bool

	conn    *Conn
	sending sync.Mutex

	mu     sync.Mutex
	cookie uint64
	waits  map[uint64]chan *Reply
	err    error
	done   chan struct{} // closed when receiving ended
}

// Dial connects and begins the transmission.
func Dial(ctx context.Context, network, address string, cfg Config) (*Client, error) {
	var d net.Dialer
	stream, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	c, err := NewClient(ctx, stream, cfg)
	if err != nil {
		stream.Close()
	}
	return c, err
}

// Negotiate does the handshake on a fresh connection. ctx bounds TLS alone.
func Negotiate(ctx context.Context, stream net.Conn, cfg Config) (c *Conn, allocation bool, err error) {
	if c, err = NewConn(stream); err != nil {
		return nil, false, err
	}
	if cfg.TLS != nil {
		if err := c.StartTLS(ctx, cfg.TLS); err != nil {
			return nil, false, err
		}
	}
	switch {
	case cfg.Extended:
		err = c.AskExtended()
	case !cfg.Simple:
		err = c.AskStructured()
	}
	if err != nil {
		return nil, false, err
	}
	if c.Structured {
		contexts, err := c.Contexts(true, cfg.Export, wire.BaseAllocation)
		if err != nil {
			return nil, false, err
		}
		allocation = len(contexts) == 1 && contexts[0].Name == wire.BaseAllocation
	}
	if cfg.ByName {
		err = c.GoByName(cfg.Export)
	} else {
		err = c.Go(cfg.Export)
	}
	return c, allocation, err
}

// NewClient does the handshake and begins the transmission.
func NewClient(ctx context.Context, stream net.Conn, cfg Config) (*Client, error) {
	conn, allocation, err := Negotiate(ctx, stream, cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{Export: conn.Export, Allocation: allocation, conn: conn, waits: map[uint64]chan *Reply{}, done: make(chan struct{})}
	go c.receive()
	return c, nil
}

// Do sends a request and waits for its reply. The cookie is chosen here.
func (c *Client) Do(r wire.Request, data []byte) (*Reply, error) {
	wait := make(chan *Reply, 1)
	c.mu.Lock()
	err := c.err
	c.cookie++
	r.Cookie = c.cookie
	c.waits[r.Cookie] = wait
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c.sending.Lock()
	err = c.conn.Send(r, data)
	c.sending.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case reply := <-wait:
		return reply, reply.Err()
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case reply := <-wait:
			return reply, reply.Err()
		default:
			return nil, c.err
		}
	}
}

// receive hands replies to those who wait for them. It alone reads.
func (c *Client) receive() {
	defer close(c.done)
	for {
		r, err := c.conn.Receive()
		c.mu.Lock()
		if err != nil {
			c.err = fmt.Errorf("NBD connection: %w", err)
			c.mu.Unlock()
			c.conn.stream.Close()
			return
		}
		c.waits[r.Request.Cookie] <- r
		delete(c.waits, r.Request.Cookie)
		c.mu.Unlock()
	}
}

// Read fills p from off on.
func (c *Client) Read(p []byte, off int64) error {
	_, err := c.Do(wire.Request{Command: wire.CmdRead, Offset: uint64(off), Length: uint64(len(p))}, p)
	return err
}

// BlockStatus tells holes from data in a range, or in the front of it.
func (c *Client) BlockStatus(off, n uint64, flags uint16) ([]Status, error) {
	r, err := c.Do(wire.Request{Command: wire.CmdBlockStatus, Offset: off, Length: n, Flags: flags}, nil)
	if err != nil {
		return nil, err
	}
	return r.Status, nil
}

// Close disconnects and waits until the server has closed the connection.
func (c *Client) Close() error {
	c.sending.Lock()
	err := c.conn.Send(wire.Request{Command: wire.CmdDisconnect}, nil)
	c.sending.Unlock()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
