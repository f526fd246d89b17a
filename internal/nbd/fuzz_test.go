package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/nbd/nbdtest"
	"github.com/quickims/quickims/internal/nbd/wire"
)

// script is a connection whose other side has said all it will say, and whose answers
// are kept.
type script struct {
	in  io.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// allocated is how much was allocated since the start, in bytes.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// sessions are whole sessions of clients: the seeds of the fuzzer, and those that are
// cut short at each byte.
func sessions() [][]byte {
	ask := func(extended bool, rs ...wire.Request) []byte {
		var b []byte
		for i, r := range rs {
			r.Magic, r.Cookie = wire.RequestMagic, uint64(i)
			if extended {
				r.Magic = wire.ExtendedRequestMagic
			}
			b = nbdtest.AppendRequest(b, r, extended)
			if r.Command == wire.CmdWrite {
				b = append(b, make([]byte, r.Length)...)
			}
		}
		return b
	}
	all := []wire.Request{
		{Command: wire.CmdRead, Length: 65536},
		{Command: wire.CmdRead, Flags: wire.CmdFlagDF, Offset: 4096, Length: 8192},
		{Command: wire.CmdRead, Offset: 8191, Length: 30000},
		{Command: wire.CmdBlockStatus, Length: 1 << 17},
		{Command: wire.CmdBlockStatus, Flags: wire.CmdFlagReqOne, Offset: 12288, Length: 10},
		{Command: wire.CmdFlush},
		{Command: wire.CmdCache, Length: 100},
		{Command: wire.CmdWrite, Flags: wire.CmdFlagPayloadLength, Length: 10},
		{Command: wire.CmdTrim, Length: 1 << 30},
		{Command: 99},
		{Command: wire.CmdRead, Offset: 1 << 17, Length: 1},
		{Command: wire.CmdDisconnect},
	}
	compact := func() []wire.Request { // a compact write has no payload flag
		c := append([]wire.Request(nil), all...)
		c[7].Flags = 0
		return c
	}()
	context := option(wire.OptSetMetaContext, queries(secret, 2, "base:allocation", "qemu:x"))
	return [][]byte{
		cat(flags, option(wire.OptExportName, []byte(secret)), ask(false, compact...)),
		cat(u32(0), option(wire.OptExportName, []byte(secret)), ask(false, compact[:3]...)),
		cat(flags, option(wire.OptStructuredReply), context, option(wire.OptGo, nbdtest.InfoData(secret, 0, 1, 2, 3)), ask(false, compact...)),
		cat(flags, option(wire.OptExtendedHeaders), context, option(wire.OptInfo, nbdtest.InfoData(secret)), option(wire.OptGo, nbdtest.InfoData(secret, 3)), ask(true, all...)),
		cat(flags, option(wire.OptList), option(wire.OptStartTLS), option(wire.OptListMetaContext, queries(secret, 0)), option(wire.OptGo, nbdtest.InfoData("guess")), option(wire.OptAbort)),
	}
}

// fuzzed is the export of the fuzzer: data, holes, and what is at hand.
func fuzzed() Export {
	m := newMemory(60, 1<<17)
	m.silent = true
	return warmed{m, func(off int64) bool { return off>>12%2 == 0 }}
}

// converse lets the server answer what a client says, and returns its answers.
func converse(t testing.TB, export Export, input []byte) []byte {
	t.Helper()
	srv, err := New(Options{MaxRequestBytes: 64 << 10, MaxConnections: 2, ReserveBytes: 64 << 10, MaxConnectionBytes: 128 << 10, MaxBytes: 256 << 10, Logger: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, name string) (Export, error) {
			if name != secret {
				return nil, ErrUnknownExport
			}
			return export, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	s := &script{in: bytes.NewReader(input)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	srv.serve(context.Background(), ctx, srv.newConn(s))
	if ctx.Err() != nil {
		t.Fatal("the server hangs")
	}
	return s.out.Bytes()
}

// FuzzServer says any bytes to the server. It must end, in bounded memory, and whatever
// it answers must be what the protocol allows as an answer to just that.
func FuzzServer(f *testing.F) {
	for _, s := range sessions() {
		f.Add(s)
	}
	for _, h := range handshakes {
		if len(h.send) < 8<<10 {
			f.Add(h.send)
		}
	}
	export := fuzzed()
	f.Fuzz(func(t *testing.T, input []byte) {
		before := allocated()
		out := converse(t, export, input)
		used := allocated() - before
		transmits, err := follow(input, out, export.(warmed).data)
		if err != nil {
			t.Fatal(err)
		}
		limit := uint64(1<<20 + 4*len(input) + 4*len(out)) // the fuzzer itself allocates too
		if transmits {
			limit += 2 << 20
		}
		if used > limit {
			t.Errorf("%d bytes were allocated for %d bytes of a client and %d of answers", used, len(input), len(out))
		}
	})
}

// The same for sessions that end anywhere.
func TestSessionsCutShort(t *testing.T) {
	t.Parallel()
	export := fuzzed()
	for i, s := range sessions() {
		for n := range len(s) + 1 {
			if _, err := follow(s[:n], converse(t, export, s[:n]), export.(warmed).data); err != nil {
				t.Fatalf("session %d cut at %d: %v", i, n, err)
			}
		}
	}
}

var errEnd = errors.New("the client says no more")

// follow reads the answers beside what the client said, and fails when one does not fit.
// It reports whether the transmission began.
func follow(input, output, disk []byte) (transmits bool, err error) {
	in := bytes.NewReader(input)
	c, err := nbdtest.NewConn(&script{in: bytes.NewReader(output)})
	if err != nil {
		return false, err
	}
	begun, allocation, err := followOptions(in, c)
	if errors.Is(err, errEnd) || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // the server has no more answers than the client questions
	}
	if err != nil || !begun {
		return false, err
	}
	return true, followRequests(in, c, allocation, disk)
}

func followOptions(in *bytes.Reader, c *nbdtest.Conn) (begun, allocation bool, err error) {
	if _, err := io.CopyN(io.Discard, in, 4); err != nil {
		return false, false, errEnd
	}
	for {
		var b [wire.OptionHeaderSize]byte
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return false, false, errEnd
		}
		h := wire.ParseOption(b[:])
		if int64(h.Length) > int64(in.Len()) {
			return false, false, errEnd
		}
		data := make([]byte, h.Length)
		if _, err := io.ReadFull(in, data); err != nil {
			return false, false, errEnd
		}
		switch h.Option {
		case wire.OptExportName:
			if err := c.ExportNameReply(binary.BigEndian.Uint32(inputFlags(in))&wire.FlagNoZeroes == 0); err != nil {
				return false, false, err
			}
			return true, allocation, nil
		default:
			replies, err := c.OptionReplies(h.Option)
			var refusal *nbdtest.OptionError
			if err != nil && !errors.As(err, &refusal) {
				return false, false, err
			}
			if h.Option == wire.OptSetMetaContext {
				allocation = err == nil && len(replies) > 0
			}
			if err != nil {
				continue
			}
			switch h.Option {
			case wire.OptStructuredReply:
				c.Structured = true
			case wire.OptExtendedHeaders:
				c.Structured, c.Extended = true, true
			case wire.OptGo, wire.OptInfo:
				if err := c.ParseInfo(replies); err != nil {
					return false, false, err
				}
				if h.Option == wire.OptGo {
					return true, allocation, nil
				}
			case wire.OptAbort:
				return false, false, errEnd
			}
		}
	}
}

// inputFlags are the client's flags, the first bytes that it said.
func inputFlags(in *bytes.Reader) []byte {
	var b [4]byte
	_, _ = in.ReadAt(b[:], 0)
	return b[:]
}

func followRequests(in *bytes.Reader, c *nbdtest.Conn, allocation bool, disk []byte) error {
	asked := 0
	cookies := map[uint64]bool{}
	disconnected := false
	for !disconnected {
		size := wire.RequestSize
		if c.Extended {
			size = wire.ExtendedRequestSize
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(in, b); err != nil {
			break
		}
		r := wire.ParseRequest(b, c.Extended)
		if c.Extended && r.Magic != wire.ExtendedRequestMagic || !c.Extended && r.Magic != wire.RequestMagic {
			break
		}
		if cookies[r.Cookie] {
			return nil // two of one cookie can't be told apart
		}
		cookies[r.Cookie] = true
		disconnected = r.Command == wire.CmdDisconnect
		if c.Extended && r.Flags&wire.CmdFlagPayloadLength != 0 || !c.Extended && r.Command == wire.CmdWrite {
			if r.Length > uint64(in.Len()) && !disconnected {
				break
			}
			_, _ = in.Seek(int64(min(r.Length, uint64(in.Len()))), io.SeekCurrent)
		}
		var data []byte
		if r.Command == wire.CmdRead && r.Length <= 64<<10 {
			data = make([]byte, r.Length)
		}
		if err := c.Queue(r, data, nil); err != nil {
			return err
		}
		if !disconnected {
			asked++
		}
	}
	for n := 0; ; n++ {
		r, err := c.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return err
			}
			if disconnected && n < asked {
				return errors.New("a request was not answered before the disconnect")
			}
			return nil
		}
		q := r.Request
		inside := q.Offset <= uint64(len(disk)) && q.Length <= uint64(len(disk))-q.Offset
		switch {
		case r.Errno == wire.EIO || r.Errno == wire.ESHUTDOWN:
			return errors.New("an error that nothing gave a reason for")
		case r.Errno == 0 && q.Command == wire.CmdRead && (!inside || !bytes.Equal(r.Data, disk[q.Offset:][:q.Length])):
			return errors.New("a read gives other bytes than the disk has")
		case r.Errno != 0 && q.Command == wire.CmdRead && q.Flags == 0 && inside && q.Length <= 64<<10:
			return errors.New("a proper read is refused")
		case r.Errno == 0 && (q.Command == wire.CmdWrite || q.Command == wire.CmdTrim || q.Command == wire.CmdWriteZeroes || q.Command > wire.CmdBlockStatus):
			return errors.New("a write or an unknown command succeeds")
		case r.Errno == 0 && q.Command == wire.CmdBlockStatus && !allocation:
			return errors.New("a block status without a context")
		}
	}
}

// FuzzClient lets a server say any bytes to the client of the tests, which must neither
// crash nor hang nor hold more than it asked for.
func FuzzClient(f *testing.F) {
	export := fuzzed()
	for i, s := range sessions() {
		f.Add(byte(i), converse(f, export, s))
	}
	f.Fuzz(func(t *testing.T, form byte, output []byte) {
		before := allocated()
		cfg := forms[int(form)%len(forms)].cfg
		cfg.Export = secret
		c, _, err := nbdtest.Negotiate(t.Context(), &script{in: bytes.NewReader(output)}, cfg)
		if err != nil {
			return
		}
		for i, r := range []wire.Request{
			{Command: wire.CmdRead, Length: 65536},
			{Command: wire.CmdRead, Flags: wire.CmdFlagDF, Offset: 4096, Length: 8192},
			{Command: wire.CmdRead, Offset: 8191, Length: 30000},
			{Command: wire.CmdBlockStatus, Length: 1 << 17},
			{Command: wire.CmdBlockStatus, Flags: wire.CmdFlagReqOne, Offset: 12288, Length: 10},
			{Command: wire.CmdFlush},
			{Command: wire.CmdCache, Length: 100},
		} {
			r.Cookie = uint64(i)
			var data []byte
			if r.Command == wire.CmdRead {
				data = make([]byte, r.Length)
			}
			if err := c.Send(r, data); err != nil {
				t.Fatal(err)
			}
		}
		for range 7 {
			r, err := c.Receive()
			if err != nil {
				break
			}
			if r.Errno == 0 && r.Request.Command == wire.CmdRead && len(r.Parts) == 0 {
				t.Error("a read succeeds without a byte")
			}
		}
		if used := allocated() - before; used > uint64(2<<20+16*len(output)) {
			t.Errorf("%d bytes were allocated for %d bytes of a server", used, len(output))
		}
	})
}
