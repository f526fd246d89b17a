package nbd

import (
	"context"
	"net"
	"testing"
)

// late is a listener that is closed, but for one client that came before.
type late struct {
	net.Listener
	client net.Conn
}

func (l *late) Accept() (net.Conn, error) {
	c := l.client
	if l.client = nil; c == nil {
		return nil, net.ErrClosed
	}
	return c, nil
}

// A client that is accepted after the server began to stop is cut, not greeted.
func TestAcceptsNobodyOnceItStops(t *testing.T) {
	t.Parallel()
	client, accepted := net.Pipe()
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := New(Options{Open: func(context.Context, string) (Export, error) { return nil, ErrUnknownExport }})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.accept(ctx, &late{client: accepted}, func(c net.Conn) {
		t.Error("it was served")
		c.Close()
	})
	expectCut(t, client)
}
