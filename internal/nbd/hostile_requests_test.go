package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

const hostileSize = 1<<20 + 3 // of the export

// requests are what a client should not ask for, with the error it gets. Of a cut
// connection nothing more comes; on others the next read is answered.
var requests = []struct {
	name  string
	forms string // of the client: s imple, c hunks, e xtended; empty: all
	r     wire.Request
	body  []byte
	errno wire.Errno
	cut   bool
}{
	{"read beyond the end", "", wire.Request{Command: wire.CmdRead, Offset: hostileSize - 1, Length: 2}, nil, wire.EINVAL, false},
	{"read from beyond the end", "", wire.Request{Command: wire.CmdRead, Offset: hostileSize + 1, Length: 1}, nil, wire.EINVAL, false},
	{"read at 2^64-1", "", wire.Request{Command: wire.CmdRead, Offset: math.MaxUint64, Length: 1}, nil, wire.EINVAL, false},
	{"read whose end overflows", "", wire.Request{Command: wire.CmdRead, Offset: math.MaxUint64 - 511, Length: 1024}, nil, wire.EINVAL, false},
	{"read at 2^63", "", wire.Request{Command: wire.CmdRead, Offset: 1 << 63, Length: 4096}, nil, wire.EINVAL, false},
	{"read of 4 GiB", "", wire.Request{Command: wire.CmdRead, Length: math.MaxUint32}, nil, wire.EINVAL, false},
	{"read of more than the maximum", "", wire.Request{Command: wire.CmdRead, Length: 1<<20 + 1}, nil, wire.EINVAL, false},
	{"read of 2^64-1", "e", wire.Request{Command: wire.CmdRead, Length: math.MaxUint64}, nil, wire.EINVAL, false},
	{"read of 2^63", "e", wire.Request{Command: wire.CmdRead, Offset: 1 << 63, Length: 1 << 63}, nil, wire.EINVAL, false},
	{"empty read", "", wire.Request{Command: wire.CmdRead, Offset: 5}, nil, 0, false},
	{"empty read at the end", "", wire.Request{Command: wire.CmdRead, Offset: hostileSize}, nil, 0, false},
	{"empty read beyond the end", "", wire.Request{Command: wire.CmdRead, Offset: hostileSize + 1}, nil, wire.EINVAL, false},
	{"read, unfragmented, without chunks", "s", wire.Request{Command: wire.CmdRead, Flags: wire.CmdFlagDF, Length: 512}, nil, wire.EINVAL, false},
	{"read with FUA", "", wire.Request{Command: wire.CmdRead, Flags: wire.CmdFlagFUA, Length: 512}, nil, wire.EINVAL, false},
	{"read with all other flags", "", wire.Request{Command: wire.CmdRead, Flags: 0xffff &^ wire.CmdFlagPayloadLength, Length: 512}, nil, wire.EINVAL, false},
	{"read with a payload", "e", wire.Request{Command: wire.CmdRead, Flags: wire.CmdFlagPayloadLength, Length: 7}, []byte("payload"), wire.EINVAL, false},
	{"payload flag without extended headers", "sc", wire.Request{Command: wire.CmdRead, Flags: wire.CmdFlagPayloadLength, Length: 7}, nil, wire.EINVAL, false},

	{"write", "sc", wire.Request{Command: wire.CmdWrite, Length: 512}, make([]byte, 512), wire.EPERM, false},
	{"write", "e", wire.Request{Command: wire.CmdWrite, Flags: wire.CmdFlagPayloadLength, Length: 512}, make([]byte, 512), wire.EPERM, false},
	{"write without its payload flag", "e", wire.Request{Command: wire.CmdWrite, Length: 512}, nil, wire.EPERM, false},
	{"empty write", "sc", wire.Request{Command: wire.CmdWrite}, nil, wire.EPERM, false},
	{"write beyond the end", "sc", wire.Request{Command: wire.CmdWrite, Offset: math.MaxUint64, Length: 3}, []byte("abc"), wire.EPERM, false},
	{"write of 5 MiB", "sc", wire.Request{Command: wire.CmdWrite, Length: 5 << 20}, make([]byte, 5<<20), wire.EPERM, false},
	{"write of 32 MiB and one", "sc", wire.Request{Command: wire.CmdWrite, Length: 1<<25 + 1}, nil, 0, true},
	{"write of 4 GiB", "sc", wire.Request{Command: wire.CmdWrite, Length: math.MaxUint32}, nil, 0, true},
	{"write of 2^64-1", "e", wire.Request{Command: wire.CmdWrite, Flags: wire.CmdFlagPayloadLength, Length: math.MaxUint64}, nil, 0, true},
	{"a payload of 4 GiB to a flush", "e", wire.Request{Command: wire.CmdFlush, Flags: wire.CmdFlagPayloadLength, Length: 1 << 32}, nil, 0, true},
	{"trim", "", wire.Request{Command: wire.CmdTrim, Length: 4096}, nil, wire.EPERM, false},
	{"trim of everything", "e", wire.Request{Command: wire.CmdTrim, Length: math.MaxUint64}, nil, wire.EPERM, false},
	{"write zeroes", "", wire.Request{Command: wire.CmdWriteZeroes, Flags: wire.CmdFlagNoHole, Length: 4096}, nil, wire.EPERM, false},
	{"write zeroes, fast", "", wire.Request{Command: wire.CmdWriteZeroes, Flags: wire.CmdFlagFastZero, Length: 4096}, nil, wire.EPERM, false},

	{"flush", "", wire.Request{Command: wire.CmdFlush}, nil, 0, false},
	{"flush of a range", "", wire.Request{Command: wire.CmdFlush, Offset: 1, Length: 1}, nil, wire.EINVAL, false},
	{"flush with a flag", "", wire.Request{Command: wire.CmdFlush, Flags: wire.CmdFlagFUA}, nil, wire.EINVAL, false},
	{"prefetch where there is none", "", wire.Request{Command: wire.CmdCache, Length: 4096}, nil, wire.EINVAL, false},

	{"status without a context", "s", wire.Request{Command: wire.CmdBlockStatus, Length: 4096}, nil, wire.EINVAL, false},
	{"status of nothing", "ce", wire.Request{Command: wire.CmdBlockStatus}, nil, wire.EINVAL, false},
	{"status beyond the end", "ce", wire.Request{Command: wire.CmdBlockStatus, Offset: hostileSize - 1, Length: 2}, nil, wire.EINVAL, false},
	{"status whose end overflows", "ce", wire.Request{Command: wire.CmdBlockStatus, Offset: math.MaxUint64, Length: math.MaxUint32}, nil, wire.EINVAL, false},
	{"status of 2^64-1", "e", wire.Request{Command: wire.CmdBlockStatus, Length: math.MaxUint64}, nil, wire.EINVAL, false},
	{"status whose end wraps to 0", "e", wire.Request{Command: wire.CmdBlockStatus, Offset: 512, Length: math.MaxUint64 - 511}, nil, wire.EINVAL, false},
	{"read whose end wraps to 0", "e", wire.Request{Command: wire.CmdRead, Offset: 512, Length: math.MaxUint64 - 511}, nil, wire.EINVAL, false},
	{"status, unfragmented", "ce", wire.Request{Command: wire.CmdBlockStatus, Flags: wire.CmdFlagDF, Length: 4096}, nil, wire.EINVAL, false},
	{"status with a payload that was not offered", "e", wire.Request{Command: wire.CmdBlockStatus, Flags: wire.CmdFlagPayloadLength, Length: 12}, make([]byte, 12), wire.EINVAL, false},

	{"resize", "", wire.Request{Command: 8, Length: 4096}, nil, wire.EINVAL, false},
	{"unknown command", "", wire.Request{Command: 0xffff, Offset: math.MaxUint64, Length: math.MaxUint32}, nil, wire.EINVAL, false},
	{"unknown command with a payload", "e", wire.Request{Command: 77, Flags: wire.CmdFlagPayloadLength, Length: 100}, make([]byte, 100), wire.EINVAL, false},
	{"bad magic", "", wire.Request{Magic: 0x25609514, Length: 512}, nil, 0, true},
	{"magic of before 1998", "", wire.Request{Magic: 0x12560953, Length: 512}, nil, 0, true},
	{"extended magic without extended headers", "sc", wire.Request{Magic: wire.ExtendedRequestMagic, Length: 512}, nil, 0, true},
	{"compact magic with extended headers", "e", wire.Request{Magic: wire.RequestMagic, Length: 512}, nil, 0, true},
	{"a reply in place of a request", "", wire.Request{Magic: wire.SimpleReplyMagic}, nil, 0, true},
	{"an option in place of a request", "", wire.Request{Magic: 0x49484156}, nil, 0, true},
	{"disconnect with a range", "", wire.Request{Command: wire.CmdDisconnect, Offset: 1, Length: 1}, nil, 0, true},
}

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	m := newMemory(31, hostileSize)
	s := start(t, "tcp", m, Options{MaxRequestBytes: 1 << 20})
	for _, q := range requests {
		for letter, cfg := range map[string]nbdtest.Config{"s": {Simple: true}, "c": {}, "e": {Extended: true}} {
			if q.forms != "" && !bytes.Contains([]byte(q.forms), []byte(letter)) {
				continue
			}
			t.Run(letter+" "+q.name, func(t *testing.T) {
				t.Parallel()
				stream := s.dial(t)
				_ = stream.SetDeadline(time.Now().Add(20 * time.Second))
				cfg := cfg
				cfg.Export = secret
				c, _, err := nbdtest.Negotiate(t.Context(), stream, cfg)
				if err != nil {
					t.Fatal(err)
				}
				r := q.r
				r.Cookie = 0xfeed
				if err := c.Queue(r, nil, q.body); err != nil {
					t.Fatal(err)
				}
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
				if q.cut {
					expectCut(t, stream)
					return
				}
				reply, err := c.Receive()
				if err != nil || reply.Errno != q.errno {
					t.Fatalf("the answer is %+v, %v; want error %d", reply, err, q.errno)
				}
				p := make([]byte, 4099)
				reply, err = c.Do(wire.Request{Command: wire.CmdRead, Cookie: 1, Offset: hostileSize - 4099, Length: 4099}, p)
				if err != nil || reply.Err() != nil || !bytes.Equal(p, m.data[hostileSize-4099:]) {
					t.Fatalf("the next read: %+v, %v", reply, err)
				}
			})
		}
	}
}

// A context that was chosen for one export is none of another's, and one that was taken
// back is gone.
func TestContextOfAnotherExport(t *testing.T) {
	t.Parallel()
	s := start(t, "tcp", nil, Options{Open: func(_ context.Context, name string) (Export, error) {
		if name == "guess" {
			return nil, ErrUnknownExport
		}
		return newMemory(32, 1<<20), nil
	}})
	for _, last := range []string{"other", "guess"} {
		c := s.conn(t)
		if err := c.AskStructured(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Contexts(true, secret, wire.BaseAllocation); err != nil {
			t.Fatal(err)
		}
		enter := secret
		if last == "guess" {
			_, err := c.Contexts(true, last, wire.BaseAllocation)
			if o := refused(t, err); o.Reply != wire.RepErrUnknown {
				t.Errorf("contexts of an unknown export: %v", err)
			}
		} else {
			enter = last
		}
		if err := c.Go(enter); err != nil {
			t.Fatal(err)
		}
		r, err := c.Do(wire.Request{Command: wire.CmdBlockStatus, Length: 512}, nil)
		if err != nil || r.Errno != wire.EINVAL {
			t.Errorf("a status of %q after contexts of %q: %+v, %v", enter, secret, r, err)
		}
	}
}

// A cookie is the client's: the server answers each request with its own, also when two
// are the same.
func TestCookiesAreOpaque(t *testing.T) {
	t.Parallel()
	s := start(t, "tcp", newMemory(33, 1<<20), Options{})
	stream := s.dial(t)
	c, _, err := nbdtest.Negotiate(t.Context(), stream, nbdtest.Config{Export: secret, Simple: true})
	if err != nil {
		t.Fatal(err)
	}
	same := nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic, Command: wire.CmdFlush, Cookie: math.MaxUint64}, false)
	if _, err := c.Stream().Write(cat(same, same)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b := make([]byte, wire.SimpleReplySize)
		if _, err := io.ReadFull(stream, b); err != nil {
			t.Fatal(err)
		}
		if binary.BigEndian.Uint64(b[8:]) != math.MaxUint64 {
			t.Errorf("a reply with cookie %x", b[8:])
		}
	}
}
