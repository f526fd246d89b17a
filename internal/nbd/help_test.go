package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an export in memory. Its holes are those of a list.
type memory struct {
	data   []byte
	block  int64
	holes  []Extent // sorted
	failAt func(off, n int64) error
	wait   func(ctx context.Context, off int64) error
	silent bool // reads are not noted

	mu     sync.Mutex
	reads  []Extent
	closed int
}

func (m *memory) Size() int64      { return int64(len(m.data)) }
func (m *memory) BlockSize() int64 { return m.block }

func (m *memory) ReadAtContext(ctx context.Context, p []byte, off int64) error {
	if !m.silent {
		m.mu.Lock()
		m.reads = append(m.reads, Extent{Offset: off, Length: int64(len(p))})
		m.mu.Unlock()
	}
	if m.wait != nil {
		if err := m.wait(ctx, off); err != nil {
			return err
		}
	}
	if m.failAt != nil {
		if err := m.failAt(off, int64(len(p))); err != nil {
			return err
		}
	}
	if copy(p, m.data[off:]) < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (m *memory) Extents(off, n int64) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		for _, h := range m.holes {
			if h.Offset+h.Length > off && h.Offset < off+n && !yield(h) {
				return
			}
		}
	}
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed++
	return nil
}

// warmed is a memory of which some parts are at hand.
type warmed struct {
	*memory
	cold func(off int64) bool
}

func (m warmed) ReadWarm(p []byte, off int64) bool {
	return (m.cold == nil || !m.cold(off)) && copy(p, m.data[off:]) == len(p)
}

// newMemory makes a disk of random bytes with holes at random places.
func newMemory(seed uint64, size int) *memory {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &memory{data: make([]byte, size), block: 64 << 10}
	for i := 0; i+8 <= size; i += 8 {
		v := r.Uint64() | 1
		for k := range 8 {
			m.data[i+k] = byte(v >> (8 * k))
		}
	}
	for off := 0; off < size; {
		off += r.IntN(size/16 + 1)
		n := min(r.IntN(size/16+1), size-off)
		if n <= 0 {
			continue
		}
		clear(m.data[off : off+n])
		m.holes = append(m.holes, Extent{Offset: int64(off), Length: int64(n), Hole: true})
		off += n + 1
	}
	return m
}

// wholeHoles are the holes as far as they have whole sectors.
func (m *memory) wholeHoles() []Extent {
	var whole []Extent
	for _, h := range m.holes {
		from, to := (h.Offset+511)/512*512, h.Offset+h.Length
		if to < m.Size() {
			to = to / 512 * 512
		}
		if from < to {
			whole = append(whole, Extent{from, to - from, true})
		}
	}
	return whole
}

const secret = "7f3c0a" // the name of the export of the tests

// server is a running server with one export.
type server struct {
	srv              *Server
	network, address string
	stop             func()
	log              *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start serves the export on a TCP port of its own, or on a unix socket.
func start(t testing.TB, network string, export Export, opts Options, gate ...*admit.Gate) *server {
	t.Helper()
	s := &server{network: network, log: &safeBuffer{}}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "nbd.sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	for _, g := range gate {
		if g != nil {
			l = g.Listener(l)
		}
	}
	if opts.Open == nil {
		opts.Open = func(_ context.Context, name string) (Export, error) {
			if name != secret {
				return nil, ErrUnknownExport
			}
			return export, nil
		}
	}
	opts.Logger = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.srv = srv
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Serve does not end")
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial(s.network, s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *server) conn(t testing.TB) *nbdtest.Conn {
	t.Helper()
	c, err := nbdtest.NewConn(s.dial(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *server) client(t testing.TB, cfg nbdtest.Config) *nbdtest.Client {
	t.Helper()
	if cfg.Export == "" {
		cfg.Export = secret
	}
	c, err := nbdtest.Dial(t.Context(), s.network, s.address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func refused(t *testing.T, err error) *nbdtest.OptionError {
	t.Helper()
	var o *nbdtest.OptionError
	if !errors.As(err, &o) {
		t.Fatalf("the option was not refused: %v", err)
	}
	return o
}
