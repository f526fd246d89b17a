package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func str(s string) []byte { return cat(u32(uint32(len(s))), []byte(s)) }

// option is an option with its data; claim is one that says it has more than it sends.
func option(o wire.Option, data ...[]byte) []byte { return nbdtest.AppendOption(nil, o, cat(data...)) }

func claim(o wire.Option, length uint32, data ...[]byte) []byte {
	b := nbdtest.AppendOption(nil, o, nil)
	binary.BigEndian.PutUint32(b[12:], length)
	return append(b, cat(data...)...)
}

// queries is the data of an option about metadata contexts.
func queries(export string, number uint32, q ...string) []byte {
	b := cat(str(export), u32(number))
	for _, s := range q {
		b = append(b, str(s)...)
	}
	return b
}

var flags = u32(wire.FlagFixedNewstyle | wire.FlagNoZeroes)

const (
	unsupported = wire.RepErrUnsupported
	invalid     = wire.RepErrInvalid
	tooBig      = wire.RepErrTooBig
	unknown     = wire.RepErrUnknown
)

// handshakes are what a client should not say, with the types of the answers. A cut
// connection has no more answers; of the others the next option is answered.
var handshakes = []struct {
	name string
	send []byte // behind the greeting
	want []wire.OptionReply
	cut  bool
}{
	{"unknown client flag", u32(1 << 2), nil, true},
	{"all client flags", u32(1<<32 - 1), nil, true},
	{"not fixed newstyle, another option", cat(u32(0), option(wire.OptList)), nil, true},
	{"not fixed newstyle, unknown export", cat(u32(0), option(wire.OptExportName, []byte("guess"))), nil, true},
	{"bad option magic", cat(flags, []byte("IHAVEOPX"), make([]byte, 8)), nil, true},
	{"a request in place of an option", cat(flags, nbdtest.AppendRequest(nil, wire.Request{Magic: wire.RequestMagic}, false)), nil, true},
	{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil, true},
	{"a TLS hello in clear", cat([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), make([]byte, 64)), nil, true},
	{"option of 4 GiB", cat(flags, claim(wire.OptGo, 1<<32-1)), nil, true},
	{"option just beyond what is skipped", cat(flags, claim(99, maxOptionSkip+1)), nil, true},
	{"longest option that is skipped", cat(flags, option(99, make([]byte, maxOptionSkip))), []wire.OptionReply{tooBig}, false},
	{"option beyond what is held", cat(flags, option(wire.OptGo, make([]byte, maxOptionData+1))), []wire.OptionReply{tooBig}, false},
	{"unknown option", cat(flags, option(99)), []wire.OptionReply{unsupported}, false},
	{"unknown option with data", cat(flags, option(1<<32-1, make([]byte, 4096))), []wire.OptionReply{unsupported}, false},
	{"option 0", cat(flags, option(0)), []wire.OptionReply{unsupported}, false},
	{"withdrawn option", cat(flags, option(wire.OptPeekExport)), []wire.OptionReply{unsupported}, false},
	{"list with data", cat(flags, option(wire.OptList, []byte("x"))), []wire.OptionReply{invalid}, false},
	{"list", cat(flags, option(wire.OptList)), []wire.OptionReply{wire.RepAck}, false},
	{"TLS with data", cat(flags, option(wire.OptStartTLS, []byte("x"))), []wire.OptionReply{invalid}, false},
	{"TLS where there is none", cat(flags, option(wire.OptStartTLS), option(wire.OptStartTLS)), []wire.OptionReply{wire.RepErrPolicy, wire.RepErrPolicy}, false},
	{"structured replies with data", cat(flags, option(wire.OptStructuredReply, []byte("x"))), []wire.OptionReply{invalid}, false},
	{"structured replies twice", cat(flags, option(wire.OptStructuredReply), option(wire.OptStructuredReply)), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"extended headers with data", cat(flags, option(wire.OptExtendedHeaders, []byte{0})), []wire.OptionReply{invalid}, false},
	{"extended headers twice", cat(flags, option(wire.OptExtendedHeaders), option(wire.OptExtendedHeaders)), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"structured replies after extended headers", cat(flags, option(wire.OptExtendedHeaders), option(wire.OptStructuredReply)), []wire.OptionReply{wire.RepAck, wire.RepErrExtendedHeaders}, false},
	{"export by name after extended headers", cat(flags, option(wire.OptExtendedHeaders), option(wire.OptExportName, []byte(secret))), []wire.OptionReply{wire.RepAck}, true},

	{"unknown export by name", cat(flags, option(wire.OptExportName, []byte("guess"))), nil, true},
	{"no export by name", cat(flags, option(wire.OptExportName)), nil, true},
	{"export by a name of 4097 bytes", cat(flags, option(wire.OptExportName, make([]byte, 4097))), nil, true},
	{"export by a name of 4 GiB", cat(flags, claim(wire.OptExportName, 1<<32-1)), nil, true},
	{"export by a name with NUL", cat(flags, option(wire.OptExportName, []byte(secret+"\x00"))), nil, true},
	{"export by a name that is no UTF-8", cat(flags, option(wire.OptExportName, []byte("\xff\xfe"))), nil, true},

	{"go without data", cat(flags, option(wire.OptGo)), []wire.OptionReply{invalid}, false},
	{"go with three bytes", cat(flags, option(wire.OptGo, []byte{0, 0, 0})), []wire.OptionReply{invalid}, false},
	{"go without a number of requests", cat(flags, option(wire.OptGo, str(secret))), []wire.OptionReply{invalid}, false},
	{"go, name longer than the option", cat(flags, option(wire.OptGo, u32(100), []byte(secret), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, name of 4 GiB", cat(flags, option(wire.OptGo, u32(1<<32-1), []byte(secret), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, name of 4097 bytes", cat(flags, option(wire.OptGo, str(strings.Repeat("a", 4097)), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, longest unknown name", cat(flags, option(wire.OptGo, str(strings.Repeat("a", 4096)), u16(0))), []wire.OptionReply{unknown}, false},
	{"go, name with NUL", cat(flags, option(wire.OptGo, str("a\x00"), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, name that is no UTF-8", cat(flags, option(wire.OptGo, str("\xc3\x28"), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, no name", cat(flags, option(wire.OptGo, str(""), u16(0))), []wire.OptionReply{unknown}, false},
	{"go, unknown name", cat(flags, option(wire.OptGo, str("guess"), u16(0))), []wire.OptionReply{unknown}, false},
	{"go, fewer requests than said", cat(flags, option(wire.OptGo, str(secret), u16(3), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, more requests than said", cat(flags, option(wire.OptGo, str(secret), u16(0), u16(0))), []wire.OptionReply{invalid}, false},
	{"go, half a request", cat(flags, option(wire.OptGo, str(secret), u16(1), []byte{0})), []wire.OptionReply{invalid}, false},
	{"go, 65535 requests in 0 bytes", cat(flags, option(wire.OptGo, str(secret), u16(65535))), []wire.OptionReply{invalid}, false},
	{"go, 1000 requests", cat(flags, option(wire.OptGo, str(secret), u16(1000), make([]byte, 2000))), []wire.OptionReply{tooBig}, false},
	{"info, unknown kinds and one twice", cat(flags, option(wire.OptInfo, str(secret), u16(4), u16(77), u16(1), u16(1), u16(65535))), []wire.OptionReply{wire.RepInfo, wire.RepInfo, wire.RepInfo, wire.RepAck}, false},
	{"info, unknown name", cat(flags, option(wire.OptInfo, str("guess"), u16(0))), []wire.OptionReply{unknown}, false},

	{"contexts before structured replies", cat(flags, option(wire.OptSetMetaContext, queries(secret, 1, "base:allocation"))), []wire.OptionReply{invalid}, false},
	{"listing contexts before structured replies", cat(flags, option(wire.OptListMetaContext, queries(secret, 0))), []wire.OptionReply{invalid}, false},
	{"contexts without data", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext)), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts without a number", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, str(secret))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, fewer queries than said", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 2, "base:allocation"))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, more queries than said", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:allocation", "base:"))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, 2^32-1 queries", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1<<32-1))), []wire.OptionReply{wire.RepAck, tooBig}, false},
	{"contexts, a query of 4 GiB", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, str(secret), u32(1), u32(1<<32-1))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, a query of 4097 bytes", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:"+strings.Repeat("a", 4092)))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, a query without a colon", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base"))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, a query that is no UTF-8", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:\xff"))), []wire.OptionReply{wire.RepAck, invalid}, false},
	{"contexts, unknown namespace and leaf", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 2, "qemu:dirty-bitmap:x", "base:future"))), []wire.OptionReply{wire.RepAck, wire.RepAck}, false},
	{"contexts, the wildcard chooses none", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries(secret, 1, "base:"))), []wire.OptionReply{wire.RepAck, wire.RepAck}, false},
	{"listing contexts, the wildcard", cat(flags, option(wire.OptStructuredReply), option(wire.OptListMetaContext, queries(secret, 1, "base:"))), []wire.OptionReply{wire.RepAck, wire.RepMetaContext, wire.RepAck}, false},
	{"listing contexts, no query", cat(flags, option(wire.OptStructuredReply), option(wire.OptListMetaContext, queries(secret, 0))), []wire.OptionReply{wire.RepAck, wire.RepMetaContext, wire.RepAck}, false},
	{"contexts of an unknown export", cat(flags, option(wire.OptStructuredReply), option(wire.OptSetMetaContext, queries("guess", 1, "base:allocation"))), []wire.OptionReply{wire.RepAck, unknown}, false},

	{"abort with data", cat(flags, option(wire.OptAbort, []byte("bye"))), []wire.OptionReply{wire.RepAck}, true},
	{"options after abort", cat(flags, option(wire.OptAbort), option(wire.OptList), option(wire.OptGo, nbdtest.InfoData(secret))), []wire.OptionReply{wire.RepAck}, true},
	{"one option too many", cat(flags, bytes.Repeat(option(wire.OptList), maxOptions+1)), repeat(wire.RepAck, maxOptions), true},
}

func repeat(r wire.OptionReply, n int) []wire.OptionReply {
	all := make([]wire.OptionReply, n)
	for i := range all {
		all[i] = r
	}
	return all
}

func TestHostileHandshakes(t *testing.T) {
	t.Parallel()
	s := start(t, "tcp", newMemory(30, 1<<20), Options{})
	for _, h := range handshakes {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			go func() { _, _ = c.Write(h.send) }() // the server may cut before it has all
			if _, err := io.ReadFull(c, make([]byte, wire.GreetingSize)); err != nil {
				t.Fatal(err)
			}
			for i, want := range h.want {
				if got, err := optionReply(c); err != nil || got != want {
					t.Fatalf("answer %d is %#x, %v; want %#x", i, got, err, want)
				}
			}
			if h.cut {
				expectCut(t, c)
				return
			}
			if _, err := c.Write(option(wire.OptAbort)); err != nil {
				t.Fatal(err)
			}
			if got, err := optionReply(c); err != nil || got != wire.RepAck {
				t.Fatalf("the option behind is answered %#x, %v", got, err)
			}
		})
	}
}

// optionReply reads one answer to an option.
func optionReply(r io.Reader) (wire.OptionReply, error) {
	var b [wire.OptionReplySize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint64(b[:]) != wire.OptionReplyMagic {
		return 0, fmt.Errorf("an answer begins with %x", b[:8])
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(b[16:])))
	return wire.OptionReply(binary.BigEndian.Uint32(b[12:])), err
}

// expectCut expects that the server ends the connection without another byte.
func expectCut(t *testing.T, c net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(c)
	var timeout net.Error
	if len(rest) > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection is not cut: %q, %v", rest, err)
	}
}
