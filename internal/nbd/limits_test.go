package nbd

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// Clients beyond the limits are told so, and there is room again when others leave.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for _, limit := range []struct {
		opts Options
		text string
	}{
		{Options{MaxConnections: 3}, "too many connections"},
		{Options{MaxConnectionsPerAddress: 3}, "too many connections from this address"},
	} {
		s := start(t, "tcp", newMemory(50, 1<<20), limit.opts)
		var clients []*nbdtest.Client
		for range 3 {
			clients = append(clients, s.client(t, nbdtest.Config{}))
		}
		_, err := s.conn(t).Option(wire.OptGo, nbdtest.InfoData(secret))
		if o := refused(t, err); o.Reply != wire.RepErrPolicy || o.Text != limit.text {
			t.Errorf("the fourth: %v", err)
		}
		if err := s.conn(t).GoByName(secret); err == nil {
			t.Error("the fourth got the export by name")
		}
		if err := clients[1].Close(); err != nil {
			t.Fatal(err)
		}
		for { // its place is free as soon as the server has closed it
			c, err := nbdtest.Dial(t.Context(), s.network, s.address, nbdtest.Config{Export: secret})
			if err == nil {
				c.Close()
				break
			}
			refused(t, err)
		}
		s.stop()
	}
}

// gauge is an export that measures what is asked of it at once.
type gauge struct {
	*memory
	mu                sync.Mutex
	number, most      int
	bytes, mostBytes  int64
	arrived, released chan struct{}
}

func (g *gauge) ReadAtContext(ctx context.Context, p []byte, off int64) error {
	g.mu.Lock()
	g.number++
	g.bytes += int64(len(p))
	g.most, g.mostBytes = max(g.most, g.number), max(g.mostBytes, g.bytes)
	g.mu.Unlock()
	g.arrived <- struct{}{}
	<-g.released
	g.mu.Lock()
	g.number--
	g.bytes -= int64(len(p))
	g.mu.Unlock()
	return g.memory.ReadAtContext(ctx, p, off)
}

// Requests under way are bounded in number and in bytes, for a connection and for all
// together; the rest waits, and all are answered.
func TestBudgets(t *testing.T) {
	t.Parallel()
	const each = 24
	for _, b := range []struct {
		name      string
		opts      Options
		length    uint64
		number    int   // that get through at once
		mostBytes int64 // at once
	}{
		{"number", Options{MaxRequests: 5}, 4096, 15, 15 * 4096},
		{"bytes of a connection", Options{MaxRequestBytes: 256 << 10, MaxConnectionBytes: 512 << 10, MaxBytes: 64 << 20}, 256 << 10, 6, 3 << 19},
		{"bytes of all", Options{MaxRequestBytes: 256 << 10, MaxConnectionBytes: 512 << 10, MaxBytes: 512 << 10}, 256 << 10, 2, 512 << 10},
		{"small ones when the bytes are used up", Options{MaxRequestBytes: 64 << 10, MaxConnectionBytes: 64 << 10, MaxBytes: 64 << 10}, 33 << 10, 3, 99 << 10},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			g := &gauge{memory: &memory{data: make([]byte, 1<<20), block: 4096}, arrived: make(chan struct{}, 3*each), released: make(chan struct{})}
			s := start(t, "tcp", g, b.opts)
			var clients []*nbdtest.Conn
			for range 3 {
				c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), nbdtest.Config{Export: secret, Simple: true})
				if err != nil {
					t.Fatal(err)
				}
				for i := range uint64(each) {
					if err := c.Queue(wire.Request{Command: wire.CmdRead, Cookie: i, Length: b.length}, make([]byte, b.length), nil); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
				clients = append(clients, c)
			}
			for range b.number {
				<-g.arrived
			}
			var all sync.WaitGroup
			for _, c := range clients {
				all.Go(func() {
					for range each {
						if r, err := c.Receive(); err != nil || r.Err() != nil {
							t.Errorf("%+v, %v", r, err)
							return
						}
					}
				})
			}
			// One by one, so that there are always as many under way as may be.
			for range 3 * each {
				g.released <- struct{}{}
			}
			all.Wait()
			if g.most > b.number || g.mostBytes > b.mostBytes {
				t.Errorf("%d reads of %d bytes were under way at once, the limits are %d and %d", g.most, g.mostBytes, b.number, b.mostBytes)
			}
		})
	}
}

// Clients that do not take their answers leave room for one that does.
func TestStalledClientsLeaveRoom(t *testing.T) {
	t.Parallel()
	const length = 256 << 10
	m := newMemory(52, 1<<20)
	m.silent = true
	s := start(t, "unix", m, Options{MaxRequestBytes: length, MaxConnectionBytes: 2 << 20, MaxBytes: 2 << 20, WriteTimeout: time.Hour, DrainTimeout: time.Millisecond})
	for range 2 {
		stalled, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), nbdtest.Config{Export: secret})
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(50) {
			if err := stalled.Queue(wire.Request{Command: wire.CmdRead, Cookie: i, Offset: length, Length: length}, make([]byte, length), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := stalled.Flush(); err != nil {
			t.Fatal(err)
		}
		if r, err := stalled.Receive(); err != nil || r.Err() != nil { // the rest is under way now
			t.Fatalf("%+v, %v", r, err)
		}
	}
	c := s.client(t, nbdtest.Config{})
	p := make([]byte, length)
	for range 40 {
		if err := c.Read(p, 3*length); err != nil {
			t.Fatal(err)
		}
	}
}

// A stranger that has named no export costs little memory, whatever it claims to send.
func TestStrangersCostLittle(t *testing.T) {
	s := start(t, "unix", newMemory(51, 1<<20), Options{MaxConnections: 1000})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	const strangers = 200
	for range strangers {
		c := s.dial(t)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Write(cat(flags, option(wire.OptStructuredReply), claim(wire.OptSetMetaContext, maxOptionData, make([]byte, 100)))); err != nil {
			t.Fatal(err)
		}
		// The answer to the option before shows that the server waits for the rest.
		if _, err := io.ReadFull(c, make([]byte, wire.GreetingSize+wire.OptionReplySize)); err != nil {
			t.Fatal(err)
		}
	}
	if grown := (heap() - before) / strangers; grown > 48<<10 {
		t.Errorf("a stranger costs %d KiB", grown>>10)
	} else {
		t.Logf("a stranger costs %d KiB", grown>>10)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	open := func(context.Context, string) (Export, error) { return nil, ErrUnknownExport }
	for want, opts := range map[string]Options{
		"Open":            {},
		"TLS":             {Open: open, RequireTLS: true},
		"negative":        {Open: open, MaxRequests: -1},
		"power of two":    {Open: open, MaxRequestBytes: 100_000},
		"between 64 KiB":  {Open: open, MaxRequestBytes: 1 << 30},
		"must grow: a re": {Open: open, MaxRequestBytes: 1 << 20, MaxConnectionBytes: 1 << 19},
		"the server 4":    {Open: open, MaxConnectionBytes: 64 << 20, MaxBytes: 4},
	} {
		if _, err := New(opts); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
}
