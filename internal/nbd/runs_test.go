package nbd

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// tight leaves connections nothing but 64 KiB each, so that longer reads are answered in runs.
var tight = Options{MaxConnections: 8, ReserveBytes: 64 << 10, MaxBytes: 8 * 64 << 10}

// Reads that are answered in runs give the export's bytes in every form, with other
// requests under way at once.
func TestRunsEqualTheExport(t *testing.T) {
	t.Parallel()
	const seed = 60
	m := newMemory(seed, 5<<20+333)
	for kind, export := range map[string]Export{"cold": m, "warm": warmed{memory: m}} {
		for _, form := range forms {
			t.Run(kind+"/"+form.name, func(t *testing.T) {
				t.Parallel()
				s := start(t, "tcp", export, tight)
				c := s.client(t, form.cfg)
				var all sync.WaitGroup
				for worker := range 6 {
					all.Go(func() {
						r := rand.New(rand.NewPCG(seed, uint64(worker)))
						for range 25 {
							n := 1 + r.IntN(1<<(12+r.IntN(11)))
							off := r.IntN(len(m.data) - n + 1)
							q := wire.Request{Command: wire.CmdRead, Offset: uint64(off), Length: uint64(n)}
							if r.IntN(3) == 0 && c.Export.Flags&wire.FlagSendDF != 0 {
								q.Flags = wire.CmdFlagDF
							}
							p := bytes.Repeat([]byte{0xa5}, n)
							if _, err := c.Do(q, p); err != nil || !bytes.Equal(p, m.data[off:off+n]) {
								t.Errorf("%d bytes at %d, flags %d: %v, equal %t", n, off, q.Flags, err, bytes.Equal(p, m.data[off:off+n]))
								return
							}
							if _, err := c.Do(wire.Request{Command: wire.CmdFlush}, nil); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// A long hole is one chunk, though its request is longer than what may be held at once.
func TestHoleIsOneRun(t *testing.T) {
	t.Parallel()
	m := &memory{data: make([]byte, 8<<20), block: 4096, holes: []Extent{{1000, 7 << 20, true}}}
	s := start(t, "tcp", m, tight)
	c := s.client(t, nbdtest.Config{})
	r, err := c.Do(wire.Request{Command: wire.CmdRead, Length: 8 << 20}, make([]byte, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Parts); n > 3+16 || !r.Parts[1].Hole || r.Parts[1].Length != 7<<20-512 {
		t.Errorf("%d chunks: %v", n, r.Parts)
	}
}

// An error in a later run: with chunks what was read before is right, the error says
// where it happened, and the connection goes on. A reply in one piece has told success
// by then: it breaks off, and so does the connection. In the first run it is an error as
// always.
func TestRunFails(t *testing.T) {
	t.Parallel()
	m := newMemory(61, 0)
	m.data, m.block = bytes.Repeat([]byte{0xee}, 1<<20), 4096
	const bad = 300_000
	m.failAt = func(off, n int64) error {
		if off <= bad && bad < off+n {
			return errors.New("broken")
		}
		return nil
	}
	for _, form := range forms {
		for _, flags := range []uint16{0, wire.CmdFlagDF} {
			s := start(t, "tcp", m, tight)
			cfg := form.cfg
			cfg.Export = secret
			c, _, err := nbdtest.Negotiate(t.Context(), s.dial(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			whole := !c.Structured || flags != 0
			if !c.Structured && flags != 0 {
				continue
			}
			p := make([]byte, 1<<20)
			r, err := c.Do(wire.Request{Command: wire.CmdRead, Flags: flags, Cookie: 1, Offset: bad - 10, Length: 200_000}, p)
			if err != nil || r.Errno != wire.EIO || len(r.Parts) > 0 {
				t.Fatalf("%s: an error in the first run: %+v, %v", form.name, r, err)
			}
			r, err = c.Do(wire.Request{Command: wire.CmdRead, Flags: flags, Cookie: 2, Length: 1 << 20}, p)
			if whole {
				if err == nil {
					t.Errorf("%s, flags %d: the reply is %+v, though a read failed", form.name, flags, r)
				}
				continue
			}
			if err != nil || r.Errno != wire.EIO || !r.HasAt || r.At != bad/(64<<10)*(64<<10) {
				t.Fatalf("%s: %+v, %v", form.name, r, err)
			}
			for _, x := range r.Parts {
				if !bytes.Equal(p[x.Offset:x.Offset+x.Length], m.data[x.Offset:x.Offset+x.Length]) || x.Offset+x.Length > r.At {
					t.Errorf("%s: the chunk %v is wrong", form.name, x)
				}
			}
			if r, err := c.Do(wire.Request{Command: wire.CmdRead, Cookie: 3, Offset: 1 << 19, Length: 1 << 19}, p[:1<<19]); err != nil || r.Err() != nil {
				t.Errorf("%s: the next read: %+v, %v", form.name, r, err)
			}
		}
	}
}
