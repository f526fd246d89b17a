package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// noting is an export whose bytes are at hand and that notes where they were read.
type noting struct {
	*memory
	mu    sync.Mutex
	warm  []Extent
	noted chan struct{} // of capacity 1: something was
}

func newNoting(m *memory) *noting { return &noting{memory: m, noted: make(chan struct{}, 1)} }

func (n *noting) ReadWarm(p []byte, off int64) bool {
	n.mu.Lock()
	n.warm = append(n.warm, Extent{Offset: off, Length: int64(len(p))})
	n.mu.Unlock()
	select {
	case n.noted <- struct{}{}:
	default:
	}
	return copy(p, n.data[off:]) == len(p)
}

// took tells where was read since the last call.
func (n *noting) took() []Extent {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.warm = nil }()
	return n.warm
}

func whole(size int) *memory {
	m := newMemory(1, size)
	m.holes = nil
	return m
}

// Whoever reads in order finds the next read done; whatever is read instead is right too.
func TestGuess(t *testing.T) {
	t.Parallel()
	const n = 128 << 10
	export := newNoting(whole(64 * n))
	s := start(t, "tcp", export, Options{})
	c := s.client(t, nbdtest.Config{})
	read := func(off, n int64) {
		t.Helper()
		p := make([]byte, n)
		if err := c.Read(p, off); err != nil || !bytes.Equal(p, export.data[off:off+n]) {
			t.Fatalf("%d bytes at %d: error %v, or other bytes", n, off, err)
		}
	}
	guessed := func(at int64) {
		t.Helper()
		var all []Extent
		for patience := time.After(20 * time.Second); ; {
			all = append(all, export.took()...)
			if k := len(all); k > 0 && all[k-1] == (Extent{Offset: at, Length: n}) {
				return
			}
			select {
			case <-export.noted:
			case <-patience:
				t.Fatalf("the read at %d was not guessed: %+v", at, all)
			}
		}
	}
	read(0, n)
	read(n, n)
	guessed(2 * n)
	read(2*n, n)
	guessed(3 * n)
	if more := export.took(); len(more) > 0 {
		t.Errorf("what was guessed was read again: %+v", more)
	}
	read(10*n, n)    // another place
	read(11*n, n)    // in order
	guessed(12 * n)  //
	read(12*n, 4096) // less than was guessed
	read(12*n+4096, 4096)
	read(61*n, n)
	read(62*n, n)
	guessed(63 * n)
	read(63*n, n) // the end: nothing to guess
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for off, k := int64(0), int64(0); off < 60*n; off += k {
		if k == 0 || r.IntN(4) == 0 {
			k = int64(minGuess + r.IntN(maxAtOnce-minGuess))
		}
		if r.IntN(8) == 0 {
			off += r.Int64N(n)
		}
		read(off, k)
	}
	export.memory.mu.Lock()
	defer export.memory.mu.Unlock()
	if got := len(export.reads); got > 0 {
		t.Errorf("seed %d: %d reads were not answered at once", seed, got)
	}
}

// guesser is a transmission over an export whose bytes are at hand, without a client.
func guesser(t *testing.T, export *noting, reserve int64) *transmission {
	t.Helper()
	p := newPool(1 << 20)
	o, err := Options{ReserveBytes: reserve, Open: func(context.Context, string) (Export, error) { return nil, ErrUnknownExport }}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return &transmission{conn: &conn{export: &opened{Export: export, size: uint64(len(export.data))}}, warm: export,
		budget: newBudget(p, p.join(""), &o)}
}

func (t *transmission) held() int64 {
	t.budget.mu.Lock()
	defer t.budget.mu.Unlock()
	return t.budget.own
}

func reading(off, n uint64) wire.Request {
	return wire.Request{Command: wire.CmdRead, Offset: off, Length: n}
}

// What was guessed counts as the connection's own memory until it is asked for, something
// else is, or it gets old.
func TestGuessIsGivenUp(t *testing.T) {
	t.Parallel()
	const n = 128 << 10
	askedFor := func(t *testing.T, x *transmission) {
		g := x.guessed(reading(2*n, n), 0)
		if g == nil {
			t.Fatal("there is no guess")
		}
		x.drop(g)
	}
	for name, end := range map[string]func(t *testing.T, x *transmission){
		"asked for":      askedFor,
		"another place":  func(t *testing.T, x *transmission) { none(t, x, reading(3*n, n), 0) },
		"another length": func(t *testing.T, x *transmission) { none(t, x, reading(2*n, n/2), 0) },
		"refused":        func(t *testing.T, x *transmission) { none(t, x, reading(2*n, n), wire.ESHUTDOWN) },
		"no read": func(t *testing.T, x *transmission) {
			none(t, x, wire.Request{Command: wire.CmdCache, Offset: 2 * n, Length: n}, 0)
		},
		"old": func(t *testing.T, x *transmission) {
			time.Sleep(guessAge)
			synctest.Wait()
			none(t, x, reading(2*n, n), 0)
		},
		"the next one is old": func(t *testing.T, x *transmission) {
			askedFor(t, x)
			x.guesses.saw(reading(2*n, n))
			x.guessNext()
			if x.held() != n {
				t.Fatal("no second guess was made")
			}
			time.Sleep(guessAge)
			synctest.Wait()
			none(t, x, reading(3*n, n), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				export := newNoting(whole(8 * n))
				x := guesser(t, export, 0)
				x.guesses.saw(reading(0, n))
				x.guessNext()
				if got := export.took(); len(got) > 0 {
					t.Fatalf("after one read a guess was made: %+v", got)
				}
				x.guesses.saw(reading(n, n))
				x.guessNext()
				if got := export.took(); len(got) != 1 || x.held() != n {
					t.Fatalf("guessed %+v, held %d bytes", got, x.held())
				}
				end(t, x)
				if x.held() != 0 {
					t.Errorf("%d bytes are held", x.held())
				}
			})
		})
	}
}

// What is not guessed, though reads come in order.
func TestNoGuess(t *testing.T) {
	t.Parallel()
	const n = 128 << 10
	for name, tc := range map[string]struct {
		length  uint64
		reserve int64
		change  func(t *testing.T, x *transmission, export *noting)
	}{
		"short reads":          {length: minGuess / 2},
		"long reads":           {length: 2 * maxAtOnce},
		"more than is its own": {length: n, reserve: 64 << 10},
		"beyond the end":       {length: n, change: func(_ *testing.T, x *transmission, _ *noting) { x.export.size = 2*n + n/2 }},
		"a hole": {length: n, change: func(_ *testing.T, _ *transmission, export *noting) {
			export.holes = []Extent{{Offset: 2*n + 4096, Length: 4096, Hole: true}}
		}},
		"not at hand": {length: n, change: func(_ *testing.T, x *transmission, export *noting) {
			x.warm = warmed{export.memory, func(int64) bool { return true }}
		}},
		"another request is under way": {length: n, change: func(t *testing.T, x *transmission, _ *noting) {
			if _, err := x.budget.begin(t.Context(), 0, false, func() {}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			export := newNoting(whole(8 * n))
			x := guesser(t, export, tc.reserve)
			if tc.change != nil {
				tc.change(t, x, export)
			}
			x.guesses.saw(reading(0, tc.length))
			x.guesses.saw(reading(tc.length, tc.length))
			x.guessNext()
			if got := export.took(); len(got) > 0 || x.held() != 0 || x.guessed(reading(2*tc.length, tc.length), 0) != nil {
				t.Errorf("guessed %+v, held %d bytes", got, x.held())
			}
		})
	}
}

func none(t *testing.T, x *transmission, r wire.Request, errno wire.Errno) {
	t.Helper()
	if x.guessed(r, errno) != nil {
		t.Error("a guess was taken for another request")
	}
}

// Of long reads that come together one is answered beside the others: they do not wait
// for it.
func TestLongReadsShareTheWork(t *testing.T) {
	t.Parallel()
	const n = 256 << 10
	m := whole(16 * n)
	var gate atomic.Pointer[chan struct{}]
	m.wait = func(ctx context.Context, off int64) error {
		select {
		case <-*gate.Load():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s := start(t, "tcp", newNoting(m), Options{})
	stream, err := net.Dial(s.network, s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	c, _, err := nbdtest.Negotiate(t.Context(), stream, nbdtest.Config{Export: secret})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		release := make(chan struct{})
		gate.Store(&release)
		p := make([][]byte, 3)
		for i := range p {
			p[i] = make([]byte, n)
			if err := c.Queue(wire.Request{Command: wire.CmdRead, Cookie: uint64(i), Offset: uint64(i * n), Length: n}, p[i], nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(); err != nil { // in one segment
			t.Fatal(err)
		}
		for i := range p {
			if i == 2 {
				close(release)
			}
			reply, err := c.Receive()
			if err != nil || reply.Err() != nil {
				t.Fatal(err, reply)
			}
			if last := reply.Request.Cookie == 0; last != (i == 2) {
				t.Errorf("reply %d is to request %d", i, reply.Request.Cookie)
			}
		}
		for i := range p {
			if !bytes.Equal(p[i], m.data[i*n:(i+1)*n]) {
				t.Errorf("read %d brought other bytes", i)
			}
		}
	}
}
