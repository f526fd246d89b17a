package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// move passes the connections that rest in one server to another one, as the wire has them.
func move(t *testing.T, from, to *Server, parked []*Parked) {
	t.Helper()
	var taken []*Taken
	for _, p := range parked {
		text, err := json.Marshal(p.State)
		if err != nil {
			t.Fatal(err)
		}
		var st State
		if err := json.Unmarshal(text, &st); err != nil {
			t.Fatal(err)
		}
		k, err := to.Take(t.Context(), dup(t, p.Conn), st)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, k)
		from.Pass(p)
	}
	for _, k := range taken {
		k.Start(t.Context())
	}
}

// dup is another descriptor of a connection, as another process would have it.
func dup(t *testing.T, c net.Conn) net.Conn {
	t.Helper()
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPassedToAndFro: clients of every form read on, with many requests under way, while
// two servers pass their connections to each other; those over TLS stay where they are.
func TestPassedToAndFro(t *testing.T) {
	t.Parallel()
	const seed = 26
	m := newMemory(seed, 3<<20+17)
	half := warmed{m, func(off int64) bool { return off>>16%2 == 0 }}
	certificate, trust, _ := authority(t)
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			servers := []*server{start(t, network, half, Options{TLS: certificate}), start(t, network, half, Options{TLS: certificate})}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var readers sync.WaitGroup
			var reads atomic.Int64
			clients := forms
			clients = append(clients[:len(clients):len(clients)], forms[0])
			clients[len(clients)-1].cfg.TLS = trust
			for i, form := range clients {
				c := servers[0].client(t, form.cfg)
				for worker := range 4 {
					readers.Go(func() {
						r := rand.New(rand.NewPCG(seed, uint64(i*100+worker)))
						for ctx.Err() == nil {
							n := 1 + r.IntN(1<<r.IntN(20))
							off := r.IntN(len(m.data) - n + 1)
							p := bytes.Repeat([]byte{0xa5}, n)
							if err := c.Read(p, int64(off)); err != nil {
								t.Errorf("%s: %v", form.name, err)
								return
							}
							if !bytes.Equal(p, m.data[off:off+n]) {
								t.Errorf("%s: %d bytes at %d differ", form.name, n, off)
								return
							}
							reads.Add(1)
						}
					})
				}
			}
			for i := range 40 {
				from, to := servers[i%2].srv, servers[1-i%2].srv
				parked := from.Park(t.Context(), 10*time.Second)
				if len(parked) != len(forms) {
					t.Fatalf("%d connections rest, want %d", len(parked), len(forms))
				}
				if i%3 == 0 { // the other one could not take them
					from.Resume()
					parked = from.Park(t.Context(), 10*time.Second)
				}
				move(t, from, to, parked)
				if p := from.Next(t.Context()); p != nil {
					t.Fatal("there is another one")
				}
				from.Resume()
				for before := reads.Load(); reads.Load() < before+20 && !t.Failed(); {
					time.Sleep(time.Millisecond)
				}
			}
			cancel()
			readers.Wait()
		})
	}
}

// TestPassedBetweenTheBytesOfARequest: what the client has sent of its next request goes
// with the connection, and requests in flight are answered first.
func TestPassedBetweenTheBytesOfARequest(t *testing.T) {
	t.Parallel()
	m := newMemory(27, 1<<20)
	m.holes = nil
	var held sync.Map
	release := make(chan struct{})
	m.wait = func(ctx context.Context, off int64) error {
		if _, again := held.LoadOrStore("first", true); again {
			return nil
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	from, to := start(t, "tcp", m, Options{}), start(t, "tcp", m, Options{})
	raw := from.dial(t)
	_, _, err := nbdtest.Negotiate(t.Context(), raw, nbdtest.Config{Export: secret, Simple: true})
	if err != nil {
		t.Fatal(err)
	}
	request := func(cookie uint64, off uint64) []byte {
		return nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdRead, Cookie: cookie, Offset: off, Length: 512}, false)
	}
	second := request(2, 512)
	if _, err := raw.Write(append(request(1, 0), second[:10]...)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, begun := held.Load("first"); begun {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if parked := from.srv.Park(t.Context(), time.Millisecond); len(parked) != 0 {
		t.Fatal("a connection rests though a request is under way")
	}
	close(release)
	if _, err := raw.Write(second[10:]); err != nil {
		t.Fatal(err)
	}
	p := from.srv.Next(t.Context())
	if p == nil {
		t.Fatal("no connection came to rest")
	}
	move(t, from.srv, to.srv, []*Parked{p})
	from.stop()
	if _, err := raw.Write(request(3, 1024)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var b [wire.SimpleReplySize + 512]byte
		if _, err := io.ReadFull(raw, b[:]); err != nil {
			t.Fatal(err)
		}
		if n := int(binary.BigEndian.Uint64(b[8:])) - 1; n < 0 || n > 2 || !bytes.Equal(b[wire.SimpleReplySize:], m.data[n*512:n*512+512]) {
			t.Errorf("the reply to request %d differs", n+1)
		}
	}
}

// TestTakeRefuses: a connection whose export is not what its client was told is not
// taken, and stays where it is.
func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	m, other := newMemory(28, 1<<20), newMemory(28, 1<<20+512)
	from := start(t, "tcp", m, Options{})
	c := from.client(t, nbdtest.Config{})
	parked := from.srv.Park(t.Context(), 10*time.Second)
	if len(parked) != 1 {
		t.Fatalf("%d connections rest", len(parked))
	}
	for name, to := range map[string]*server{
		"another size":  start(t, "tcp", other, Options{}),
		"shorter reads": start(t, "tcp", m, Options{MaxRequestBytes: 1 << 20}),
		"no export": start(t, "tcp", m, Options{Open: func(context.Context, string) (Export, error) {
			return nil, ErrUnknownExport
		}}),
	} {
		if k, err := to.srv.Take(t.Context(), dup(t, parked[0].Conn), parked[0].State); err == nil {
			k.Close()
			t.Errorf("%s: taken", name)
		} else if name == "no export" && !errors.Is(err, ErrUnknownExport) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m.closed != 1 || other.closed != 1 {
		t.Errorf("exports were closed %d and %d times, opened once each by the others", m.closed, other.closed)
	}
	from.srv.Resume()
	p := make([]byte, 4096)
	if err := c.Read(p, 8192); err != nil || !bytes.Equal(p, m.data[8192:8192+4096]) {
		t.Errorf("after that: %v", err)
	}
}
