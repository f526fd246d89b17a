package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// pipes is a listener of connections in memory, for tests in which time is not real.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// inBubble serves the export over pipes in a bubble of its own time.
func inBubble(t *testing.T, export Export, opts Options, test func(t *testing.T, p *pipes, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.Open = func(_ context.Context, name string) (Export, error) {
			if name != secret {
				return nil, ErrUnknownExport
			}
			return export, nil
		}
		opts.Logger = slog.New(slog.DiscardHandler)
		srv, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := srv.Serve(ctx, p); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		test(t, p, func() { cancel(); serving.Wait() })
		cancel()
		serving.Wait()
	})
}

func negotiate(t *testing.T, stream net.Conn) *nbdtest.Conn {
	t.Helper()
	c, _, err := nbdtest.Negotiate(t.Context(), stream, nbdtest.Config{Export: secret})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cutAfter measures in the bubble's time how long the server keeps the connection.
func cutAfter(t *testing.T, stream net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := io.Copy(io.Discard, stream); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	return time.Since(began)
}

// Whatever part of the handshake a client leaves out, it is cut at the same time.
func TestHandshakeHasATime(t *testing.T) {
	t.Parallel()
	whole := cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:allocation")))
	for _, n := range []int{0, 1, 3, 4, 5, 19, 20, 21, 40, len(whole) - 1, len(whole)} {
		inBubble(t, newMemory(1, 1<<20), Options{HandshakeTimeout: 7 * time.Second}, func(t *testing.T, p *pipes, _ func()) {
			c := p.dial()
			defer c.Close()
			go c.Write(whole[:n])
			if d := cutAfter(t, c); d != 7*time.Second {
				t.Errorf("after %d bytes the connection was cut after %v", n, d)
			}
		})
	}
	// Nor does it help to start TLS and say nothing more.
	server, _, _ := authority(t)
	inBubble(t, newMemory(1, 1<<20), Options{HandshakeTimeout: 7 * time.Second, TLS: server}, func(t *testing.T, p *pipes, _ func()) {
		c := p.dial()
		defer c.Close()
		go func() {
			_, _ = c.Write(cat(flags, option(wire.OptStartTLS)))
			_, _ = c.Write([]byte{0x16, 3, 1}) // is not taken before the option was answered
		}()
		if d := cutAfter(t, c); d != 7*time.Second {
			t.Errorf("in the start of TLS the connection was cut after %v", d)
		}
	})
	// Or to send options for ever.
	inBubble(t, newMemory(1, 1<<20), Options{HandshakeTimeout: 7 * time.Second}, func(t *testing.T, p *pipes, _ func()) {
		c := p.dial()
		defer c.Close()
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			_, err := c.Write(flags)
			for err == nil {
				time.Sleep(time.Second)
				_, err = c.Write(option(wire.OptList))
			}
		})
		if d := cutAfter(t, c); d != 7*time.Second {
			t.Errorf("the connection was cut after %v", d)
		}
	})
}

// Between requests a client may be silent for days; a request that has begun must go on.
func TestSilence(t *testing.T) {
	t.Parallel()
	m := newMemory(2, 1<<20)
	inBubble(t, m, Options{RequestTimeout: 9 * time.Second}, func(t *testing.T, p *pipes, _ func()) {
		stream := p.dial()
		defer stream.Close()
		c := negotiate(t, stream)
		for range 3 {
			time.Sleep(48 * time.Hour)
			b := make([]byte, 1000)
			if r, err := c.Do(wire.Request{Command: wire.CmdRead, Offset: 7, Length: 1000}, b); err != nil || r.Err() != nil || !bytes.Equal(b, m.data[7:1007]) {
				t.Fatalf("a read after two days: %v, %v", r, err)
			}
		}
		write := nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdWrite, Length: 5000}, false)
		for _, half := range [][]byte{{0x25}, write[:27], append(write, make([]byte, 4999)...)} {
			stream := p.dial()
			negotiate(t, stream)
			time.Sleep(time.Hour)
			go stream.Write(half)
			if d := cutAfter(t, stream); d != 9*time.Second {
				t.Errorf("after %d bytes of a request the connection was cut after %v", len(half), d)
			}
			stream.Close()
		}
	})
}

// A client that does not take its answers is cut; one that takes them slowly is not.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	m := &memory{data: bytes.Repeat([]byte("slow"), 1<<20), block: 4096, silent: true}
	inBubble(t, m, Options{WriteTimeout: 10 * time.Second}, func(t *testing.T, p *pipes, _ func()) {
		stream := p.dial()
		c := negotiate(t, stream)
		for i := range uint64(4) {
			if err := c.Send(wire.Request{Command: wire.CmdRead, Cookie: i, Length: 1 << 20}, nil); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		time.Sleep(time.Minute)
		if d := cutAfter(t, stream); d != 0 {
			t.Errorf("a client that reads nothing was cut after %v", time.Since(began))
		}
		stream.Close()

		slow := p.dial()
		defer slow.Close()
		c = negotiate(t, slow)
		if err := c.Send(wire.Request{Command: wire.CmdRead, Length: 4 << 20}, nil); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 4<<20; {
			time.Sleep(4 * time.Second) // half a MiB each, so a MiB in 8 s
			n, err := io.CopyN(io.Discard, slow, min(512<<10, int64(4<<20+28-got)))
			if err != nil {
				t.Fatalf("a slow client was cut after %d bytes: %v", got, err)
			}
			got += int(n)
		}
	})
}

// At its end the server lets reads under way finish, refuses new ones, and does not wait
// for ever.
func TestDrain(t *testing.T) {
	t.Parallel()
	server, client, _ := authority(t)
	for name, secure := range map[string]bool{"clear": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			began := make(chan struct{}, 8)
			m := newMemory(3, 1<<20)
			m.wait = func(ctx context.Context, _ int64) error {
				began <- struct{}{}
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			s := start(t, "tcp", m, Options{DrainTimeout: time.Minute, TLS: server})
			idle, haggling, busy := s.conn(t), s.conn(t), s.conn(t)
			for _, c := range []*nbdtest.Conn{idle, busy} {
				if secure {
					if err := c.StartTLS(t.Context(), client); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(c.AskStructured(), c.Go(secret)); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 4096)
			if err := busy.Send(wire.Request{Command: wire.CmdRead, Cookie: 1, Length: 4096}, b); err != nil {
				t.Fatal(err)
			}
			<-began
			stopped := make(chan struct{})
			go func() { s.stop(); close(stopped) }()
			// The end of the idle ones shows that the server has begun to stop.
			expectCut(t, idle.Stream())
			expectCut(t, haggling.Stream())
			if c, err := net.Dial(s.network, s.address); err == nil {
				expectCut(t, c)
				c.Close()
			}
			r, err := busy.Do(wire.Request{Command: wire.CmdRead, Cookie: 2, Length: 4096}, make([]byte, 4096))
			if err != nil || r.Errno != wire.ESHUTDOWN {
				t.Fatalf("a new read: %+v, %v", r, err)
			}
			close(release)
			r, err = busy.Receive()
			if err != nil || r.Err() != nil || r.Request.Cookie != 1 || !bytes.Equal(b, m.data[:4096]) {
				t.Fatalf("the read under way: %+v, %v", r, err)
			}
			expectCut(t, busy.Stream())
			<-stopped
			if m.closed != 2 {
				t.Errorf("the export was closed %d times", m.closed)
			}
		})
	}
}

// An export that hangs does not hold up the server's end.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory(4, 1<<20)
	m.wait = func(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }
	inBubble(t, m, Options{DrainTimeout: 5 * time.Second}, func(t *testing.T, p *pipes, stop func()) {
		stream := p.dial()
		defer stream.Close()
		c := negotiate(t, stream)
		if err := c.Send(wire.Request{Command: wire.CmdRead, Length: 4096}, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		stop()
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("the server stopped after %v", d)
		}
	})
}
