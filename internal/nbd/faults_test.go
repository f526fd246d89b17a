package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// An error inside an export is an I/O error at its place and no more: what was read
// before is right, nothing else is sent as data, the text tells nothing, and the
// connection goes on.
func TestExportFails(t *testing.T) {
	t.Parallel()
	const K = 1 << 10
	m := newMemory(40, 0)
	m.data = bytes.Repeat([]byte{0xee}, 64*K)
	m.block = 4096
	m.holes = []Extent{{8 * K, 8 * K, true}, {32 * K, 8 * K, true}}
	clear(m.data[8*K : 16*K])
	clear(m.data[32*K : 40*K])
	m.failAt = func(off, n int64) error {
		if off <= 20*K && 20*K < off+n {
			return errors.New("inner secret: bucket of somebody")
		}
		return nil
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, "tcp", m, Options{})
			cfg := form.cfg
			cfg.Export = secret
			c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for cookie, q := range []struct{ off, n, at uint64 }{{0, 64 * K, 16 * K}, {20 * K, 1, 20 * K}, {18 * K, 4 * K, 18 * K}, {12 * K, 52 * K, 16 * K}} {
				p := bytes.Repeat([]byte{0x55}, int(q.n))
				r, err := c.Do(wire.Request{Command: wire.CmdRead, Cookie: uint64(cookie), Offset: q.off, Length: q.n}, p)
				if err != nil {
					t.Fatal(err)
				}
				if r.Errno != wire.EIO || strings.Contains(r.Text, "secret") {
					t.Errorf("read of %d at %d: %+v", q.n, q.off, r)
				}
				if c.Structured && (!r.HasAt || r.At != q.at) {
					t.Errorf("read of %d at %d: the error is at %d, %t; want %d", q.n, q.off, r.At, r.HasAt, q.at)
				}
				sent := make([]bool, q.n)
				for _, part := range r.Parts {
					for i := range part.Length {
						sent[part.Offset-q.off+i] = true
					}
				}
				for i, ok := range sent {
					if want := m.data[q.off+uint64(i)]; ok && p[i] != want || !ok && p[i] != 0x55 {
						t.Fatalf("byte %d of the read at %d is %#x, sent %t", i, q.off, p[i], ok)
					}
				}
			}
			p := make([]byte, 8*K)
			if r, err := c.Do(wire.Request{Command: wire.CmdRead, Cookie: 99, Offset: 40 * K, Length: 8 * K}, p); err != nil || r.Err() != nil || !bytes.Equal(p, m.data[40*K:48*K]) {
				t.Errorf("the next read: %+v, %v", r, err)
			}
			if log := s.log.String(); !strings.Contains(log, "inner secret") || strings.Contains(log, cfg.Export) {
				t.Errorf("the log must have the error and not the export's name:\n%s", log)
			}
		})
	}
}

// Exports that can't be opened: the operator learns why, the client that it is so.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	s := start(t, "tcp", nil, Options{Open: func(_ context.Context, name string) (Export, error) {
		if name == "negative" {
			return negative{}, nil
		}
		return nil, errors.New("inner secret")
	}})
	for _, name := range []string{"x", "negative"} {
		c := s.conn(t)
		for _, o := range []wire.Option{wire.OptInfo, wire.OptGo} {
			_, err := c.Option(o, nbdtest.InfoData(name))
			if e := refused(t, err); e.Reply != wire.RepErrUnknown || strings.Contains(e.Text, "secret") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if log := s.log.String(); !strings.Contains(log, "inner secret") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

type negative struct{ Export }

func (negative) Size() int64  { return -1 }
func (negative) Close() error { return nil }

// A client may go away anywhere: nothing is left behind, others are served.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	m := newMemory(41, 1<<20)
	s := start(t, "tcp", m, Options{})
	whole := cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:allocation")),
		option(wire.OptGo, nbdtest.InfoData(secret, 3)),
		nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdRead, Length: 1 << 20}, false),
		nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdBlockStatus, Cookie: 1, Length: 1 << 20}, false),
		nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdWrite, Cookie: 2, Length: 9}, false), make([]byte, 9))
	var all sync.WaitGroup
	for n := range len(whole) + 1 {
		all.Go(func() {
			c := s.dial(t)
			if _, err := c.Write(whole[:n]); err != nil {
				t.Error(err)
			}
			if n%2 == 0 { // half of them wait for a first answer
				_, _ = io.ReadFull(c, make([]byte, wire.GreetingSize))
			}
			c.Close()
		})
		if n%16 == 0 {
			all.Wait()
		}
	}
	all.Wait()
	c := s.client(t, nbdtest.Config{})
	if err := c.Read(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.stop() // and TestMain sees that no goroutine is left
}

// Reads of the export end when the client that asked for them has gone.
func TestReadsEndWithTheClient(t *testing.T) {
	t.Parallel()
	m := newMemory(42, 1<<20)
	began, ended := make(chan struct{}, 4), make(chan error, 4)
	m.wait = func(ctx context.Context, _ int64) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	s := start(t, "tcp", m, Options{})
	c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), nbdtest.Config{Export: secret, Simple: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(4) {
		if err := c.Send(wire.Request{Command: wire.CmdRead, Cookie: i, Length: 4096}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		<-began
	}
	c.Stream().Close()
	for range 4 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	s.stop()
	if m.closed != 1 {
		t.Errorf("the export was closed %d times", m.closed)
	}
}

// After a disconnect requests under way are still answered.
func TestDisconnectFinishesRequests(t *testing.T) {
	t.Parallel()
	m := newMemory(43, 1<<20)
	release, began := make(chan struct{}), make(chan struct{}, 3)
	m.wait = func(context.Context, int64) error { began <- struct{}{}; <-release; return nil }
	s := start(t, "tcp", m, Options{})
	c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), nbdtest.Config{Export: secret})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := c.Queue(wire.Request{Command: wire.CmdRead, Cookie: i, Offset: 4096 * i, Length: 4096}, make([]byte, 4096), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Queue(wire.Request{Command: wire.CmdDisconnect, Cookie: 9}, nil, nil), c.Flush()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-began
	}
	close(release)
	for range 3 {
		r, err := c.Receive()
		if err != nil || r.Err() != nil || !bytes.Equal(r.Data, m.data[r.Request.Offset:][:4096]) {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	expectCut(t, c.Stream())
}

// A slow request does not hold up others: they are answered as they finish.
func TestAnsweredOutOfOrder(t *testing.T) {
	t.Parallel()
	m := newMemory(44, 1<<20)
	release := make(chan struct{})
	m.wait = func(_ context.Context, off int64) error {
		if off == 0 {
			<-release
		}
		return nil
	}
	s := start(t, "tcp", m, Options{})
	c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), nbdtest.Config{Export: secret, Simple: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(20) {
		if err := c.Queue(wire.Request{Command: wire.CmdRead, Cookie: i, Offset: 4096 * i, Length: 4096}, make([]byte, 4096), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if i == 19 {
			close(release)
		}
		r, err := c.Receive()
		if err != nil || !bytes.Equal(r.Data, m.data[r.Request.Offset:][:4096]) {
			t.Fatalf("%+v, %v", r, err)
		}
		if (r.Request.Cookie == 0) != (i == 19) {
			t.Errorf("answer %d is for request %d", i, r.Request.Cookie)
		}
	}
}

// prefetching is an export that can be told what will be read.
type prefetching struct {
	*memory
	asked chan Extent
}

func (p prefetching) Prefetch(_ context.Context, off, n int64) error {
	p.asked <- Extent{Offset: off, Length: n}
	if off > 0 {
		return errors.New("inner secret")
	}
	return nil
}

// An export that can prefetch is told so, and clients are told that it can.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	p := prefetching{newMemory(46, 1<<20), make(chan Extent, 2)}
	for _, form := range forms {
		s := start(t, "tcp", p, Options{})
		c := s.client(t, form.cfg)
		if c.Export.Flags&wire.FlagSendCache == 0 {
			t.Errorf("%s: the flags are %#x", form.name, c.Export.Flags)
		}
		if _, err := c.Do(wire.Request{Command: wire.CmdCache, Length: 1 << 20}, nil); err != nil || <-p.asked != (Extent{Length: 1 << 20}) {
			t.Errorf("%s: %v", form.name, err)
		}
		var e *nbdtest.Error
		if _, err := c.Do(wire.Request{Command: wire.CmdCache, Offset: 5, Length: 6}, nil); !errors.As(err, &e) || e.Errno != wire.EIO || strings.Contains(e.Text, "secret") {
			t.Errorf("%s: a prefetch that fails: %v", form.name, err)
		}
		<-p.asked
		if _, err := c.Do(wire.Request{Command: wire.CmdCache, Flags: wire.CmdFlagDF, Length: 6}, nil); !errors.As(err, &e) || e.Errno != wire.EINVAL {
			t.Errorf("%s: a prefetch with a flag: %v", form.name, err)
		}
	}
}

// A hundred clients read at once, each its own way.
func TestHundredConnections(t *testing.T) {
	t.Parallel()
	m := newMemory(45, 2<<20)
	s := start(t, "unix", m, Options{})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			cfg := forms[i%len(forms)].cfg
			cfg.Export = secret
			c, err := nbdtest.Dial(t.Context(), s.network, s.address, cfg)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			p := make([]byte, 100_000)
			for k := range 20 {
				off := int64((i*7919 + k*104729) % (len(m.data) - len(p)))
				if err := c.Read(p, off); err != nil || !bytes.Equal(p, m.data[off:off+int64(len(p))]) {
					t.Error(fmt.Errorf("client %d at %d: %w", i, off, err))
					return
				}
			}
		})
	}
	all.Wait()
}
