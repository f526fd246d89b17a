package nbd

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// full waits until connections of that export hold all that they may of the pool.
func (s *server) full(name string) {
	p := s.srv.pool
	for {
		p.mu.Lock()
		x := p.shares[name]
		full := x != nil && x.held+maxRun > p.free-maxRun
		p.mu.Unlock()
		if full {
			return
		}
		runtime.Gosched()
	}
}

// stall asks for as much as a connection may and takes nothing.
func (s *server) stall(t *testing.T, cfg nbdtest.Config, flags uint16) {
	t.Helper()
	c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Simple {
		flags = 0
	}
	for i := range uint64(64) {
		if err := c.Queue(wire.Request{Command: wire.CmdRead, Flags: flags, Cookie: i, Length: 32 << 20}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Clients that ask for much and take nothing hold up nobody else, whether they use one
// export or many, nor other clients of their own export: those read through while the
// time to take an answer does not pass.
func TestStalledClientsHoldUpNobody(t *testing.T) {
	t.Parallel()
	const connections, K = 30, 1 << 10
	m := newMemory(52, 32<<20)
	m.silent = true
	for _, hostile := range []struct {
		name    string
		exports int
	}{{"one export", 1}, {"an export each", 24}} {
		t.Run(hostile.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, "tcp", m, Options{MaxConnections: connections, ReserveBytes: 64 * K, MaxConnectionBytes: 4 << 20,
				MaxBytes: connections*64*K + 8<<20, WriteTimeout: time.Hour, DrainTimeout: time.Millisecond,
				Open: func(context.Context, string) (Export, error) { return m, nil }})
			for i := range 24 {
				cfg := forms[i%len(forms)].cfg
				cfg.Export = fmt.Sprint("hostile", i%hostile.exports)
				s.stall(t, cfg, uint16(i/5%2)*wire.CmdFlagDF)
				if i == 4 {
					s.full("hostile0") // what comes now finds nothing left for its kind
				}
			}
			for _, export := range []string{"honest", "hostile0"} {
				for _, form := range []nbdtest.Config{{}, {Extended: true}, {Simple: true}} {
					form.Export = export
					c := s.client(t, form)
					for _, n := range []int{64 * K, 256 * K, 32 << 20} {
						for _, flags := range []uint16{0, wire.CmdFlagDF} {
							if form.Simple {
								flags = 0
							}
							p := make([]byte, n)
							if _, err := c.Do(wire.Request{Command: wire.CmdRead, Flags: flags, Offset: uint64(len(m.data) - n), Length: uint64(n)}, p); err != nil {
								t.Fatalf("%s: %v", export, err)
							}
							if !bytes.Equal(p, m.data[len(m.data)-n:]) {
								t.Fatalf("%s: %d bytes differ from the export", export, n)
							}
						}
					}
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// A client that takes nothing makes the server read no more than its connection may
// hold, many of one export no more than their share and their reserves.
func TestStalledClientsHoldLittle(t *testing.T) {
	t.Parallel()
	const K, connections = 1 << 10, 16
	opts := Options{MaxConnections: connections, ReserveBytes: 64 * K, MaxConnectionBytes: 4 << 20, MaxBytes: connections*64*K + 32<<20, WriteTimeout: time.Hour, DrainTimeout: time.Second}
	for _, clients := range []struct {
		number int
		least  int64 // in bytes
		most   int64
	}{{1, 3 << 20, 4 << 20}, {connections, 12 << 20, 16<<20 + connections*64*K}} {
		m := &memory{data: bytes.Repeat([]byte{7}, 32<<20), block: 4096}
		inBubble(t, m, opts, func(t *testing.T, p *pipes, _ func()) {
			for range clients.number {
				stream := p.dial()
				defer stream.Close()
				c := negotiate(t, stream)
				go func() { // nothing takes the requests either once the connection is full
					for i := range uint64(64) {
						if c.Send(wire.Request{Command: wire.CmdRead, Cookie: i, Length: 32 << 20}, nil) != nil {
							return
						}
					}
				}()
			}
			synctest.Wait()
			read := int64(0)
			m.mu.Lock()
			for _, x := range m.reads {
				read += x.Length
			}
			m.mu.Unlock()
			if read < clients.least || read > clients.most {
				t.Errorf("for %d clients %d bytes were read, want %d to %d", clients.number, read, clients.least, clients.most)
			}
		})
	}
}
