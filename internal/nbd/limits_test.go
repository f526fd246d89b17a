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

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// owned is an export of an owner.
type owned struct {
	*memory
	owner string
}

func (o owned) Owner() string { return o.owner }

// Clients beyond the limits are told so, and there is room again when others leave. Who
// has named no export takes no place of those who have.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	gate := admit.NewGate(admit.Options{Limits: func() admit.Limits {
		return admit.Limits{Strangers: 100, StrangersPerAddress: 50, Known: 6}
	}})
	for _, limit := range []struct {
		opts Options
		gate *admit.Gate
		text string
	}{
		{Options{MaxConnections: 3}, nil, "too many connections"},
		{Options{}, gate, "too many connections of this project"},
	} {
		s := start(t, "tcp", owned{newMemory(50, 1<<20), "a project"}, limit.opts, limit.gate)
		for range 10 {
			s.conn(t) // names nothing
		}
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
	const each, K = 24, 1 << 10
	for _, b := range []struct {
		name      string
		opts      Options
		length    uint64
		number    int   // that get through at once
		mostBytes int64 // at once
	}{
		{"number", Options{MaxRequests: 5}, 4 * K, 15, 60 * K},
		{"bytes of a connection", Options{ReserveBytes: 64 * K, MaxConnectionBytes: 512 * K}, 256 * K, 6, 1536 * K},
		{"bytes of all", Options{MaxConnections: 3, ReserveBytes: 64 * K, MaxConnectionBytes: 512 * K, MaxBytes: 704 * K}, 256 * K, 3, 448 * K},
		{"reserves alone", Options{MaxConnections: 3, ReserveBytes: 64 * K, MaxBytes: 192 * K}, 256 * K, 3, 192 * K},
		{"small ones in the reserves", Options{MaxConnections: 3, ReserveBytes: 64 * K, MaxBytes: 192 * K}, 32 * K, 6, 192 * K},
	} {
		for _, form := range []nbdtest.Config{{Export: secret}, {Export: secret, Simple: true}} {
			t.Run(fmt.Sprintf("%s, simple %t", b.name, form.Simple), func(t *testing.T) {
				t.Parallel()
				g := &gauge{memory: &memory{data: make([]byte, 1<<20), block: 4096}, arrived: make(chan struct{}, 3*each*b.length/(4*K)), released: make(chan struct{})}
				s := start(t, "tcp", g, b.opts)
				var clients []*nbdtest.Conn
				for range 3 {
					c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), form)
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
				done := make(chan struct{})
				go func() { all.Wait(); close(done) }()
				// One by one, so that there are always as many under way as may be.
				for open := true; open; {
					select {
					case g.released <- struct{}{}:
					case <-done:
						open = false
					}
				}
				if g.mostBytes > b.mostBytes || b.opts.MaxRequests > 0 && g.most > b.number {
					t.Errorf("%d reads of %d bytes were under way at once, the limits are %d and %d", g.most, g.mostBytes, b.number, b.mostBytes)
				}
			})
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
		"ReserveBytes is": {Open: open, ReserveBytes: 32 << 10},
		"power of two be": {Open: open, ReserveBytes: 100_000},
		"ConnectionBytes": {Open: open, ReserveBytes: 1 << 20, MaxConnectionBytes: 1 << 19},
		"MaxBytes is 4":   {Open: open, MaxBytes: 4},
		"of 9 connection": {Open: open, MaxConnections: 9, MaxBytes: 9*256<<10 - 1},
	} {
		if _, err := New(opts); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
}
