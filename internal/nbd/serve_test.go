package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// forms are the forms of the protocol that a client can choose.
var forms = []struct {
	name string
	cfg  nbdtest.Config
}{
	{"simple", nbdtest.Config{Simple: true}},
	{"by-name", nbdtest.Config{Simple: true, ByName: true}},
	{"structured-by-name", nbdtest.Config{ByName: true}},
	{"structured", nbdtest.Config{}},
	{"extended", nbdtest.Config{Extended: true}},
}

// Every read gives the export's bytes, in every form, whatever it spans, with many
// requests under way at once.
func TestReadsEqualTheExport(t *testing.T) {
	t.Parallel()
	const seed = 20
	m := newMemory(seed, 3<<20+17)
	half := warmed{m, func(off int64) bool { return off>>16%2 == 0 }}
	for _, kind := range []struct {
		name, network string
		export        Export
	}{{"tcp", "tcp", m}, {"unix", "unix", m}, {"warm", "tcp", half}} {
		s := start(t, kind.network, kind.export, Options{})
		for _, form := range forms {
			t.Run(kind.name+"/"+form.name, func(t *testing.T) {
				c := s.client(t, form.cfg)
				if c.Export.Size != uint64(len(m.data)) {
					t.Fatalf("the size is %d, want %d", c.Export.Size, len(m.data))
				}
				var all sync.WaitGroup
				for worker := range 8 {
					all.Go(func() {
						r := rand.New(rand.NewPCG(seed, uint64(worker)))
						for range 60 {
							n := 1 + r.IntN(1<<r.IntN(20))
							off := r.IntN(len(m.data) - n + 1)
							flags := uint16(0)
							if r.IntN(2) == 0 && c.Export.Flags&wire.FlagSendDF != 0 {
								flags = wire.CmdFlagDF
							}
							p := bytes.Repeat([]byte{0xa5}, n)
							if _, err := c.Do(wire.Request{Command: wire.CmdRead, Flags: flags, Offset: uint64(off), Length: uint64(n)}, p); err != nil {
								t.Error(err)
								return
							}
							if !bytes.Equal(p, m.data[off:off+n]) {
								t.Errorf("%d bytes at %d differ from the export", n, off)
								return
							}
						}
					})
				}
				all.Wait()
				whole := make([]byte, len(m.data))
				if err := c.Read(whole, 0); err != nil || !bytes.Equal(whole, m.data) {
					t.Errorf("the whole in one read: %v, equal %t", err, bytes.Equal(whole, m.data))
				}
			})
		}
	}
}

// Holes are not read from the export, and with chunks not sent either; the map says where they are.
func TestHoles(t *testing.T) {
	t.Parallel()
	const K = 1 << 10
	for _, form := range forms[3:] {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			m := &memory{data: make([]byte, 64*K), block: 4096, holes: []Extent{{0, 8 * K, true}, {16 * K, 32 * K, true}}}
			copy(m.data[8*K:], bytes.Repeat([]byte{1}, 8*K))
			copy(m.data[48*K:], bytes.Repeat([]byte{2}, 16*K))
			s := start(t, "tcp", m, Options{})
			c := s.client(t, form.cfg)
			p := bytes.Repeat([]byte{9}, 64*K)
			r, err := c.Do(wire.Request{Command: wire.CmdRead, Length: 64 * K}, p)
			if err != nil {
				t.Fatal(err)
			}
			r.SortParts()
			want := []nbdtest.Part{{Offset: 0, Length: 8 * K, Hole: true}, {Offset: 8 * K, Length: 8 * K}, {Offset: 16 * K, Length: 32 * K, Hole: true}, {Offset: 48 * K, Length: 16 * K}}
			if fmt.Sprint(r.Parts) != fmt.Sprint(want) {
				t.Errorf("the chunks are %v, want %v", r.Parts, want)
			}
			if !bytes.Equal(p, m.data) {
				t.Error("the bytes differ from the export")
			}
			m.mu.Lock()
			reads := fmt.Sprint(m.reads)
			m.mu.Unlock()
			if got := reads; got != fmt.Sprint([]Extent{{8 * K, 8 * K, false}, {48 * K, 16 * K, false}}) {
				t.Errorf("reads of the export: %s", got)
			}
			got, err := c.BlockStatus(4*K, 50*K, 0)
			if err != nil {
				t.Fatal(err)
			}
			if want := []nbdtest.Status{{Length: 4 * K, Flags: 3}, {Length: 8 * K}, {Length: 32 * K, Flags: 3}, {Length: 6 * K}}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the map is %v, want %v", got, want)
			}
			got, err = c.BlockStatus(4*K, 50*K, wire.CmdFlagReqOne)
			if err != nil || fmt.Sprint(got) != fmt.Sprint([]nbdtest.Status{{Length: 4 * K, Flags: 3}}) {
				t.Errorf("one extent: %v, %v", got, err)
			}
		})
	}
}
