// Package nbdtest is an NBD client for tests and benchmarks. It believes nothing: what
// a server sends against the protocol is an error that says what and where.
//
// Conn speaks the protocol step by step, for one goroutine; Client is for many.
package nbdtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// What a server may make the client hold.
const (
	maxOptionReply = 64 << 10
	maxStatus      = 16<<20 + 8 // 2^20 descriptors, as the protocol advises
	maxOptionCount = 1024       // answers to one option
)

// Conn is a connection to a server, for one goroutine; in the transmission one may send
// while another receives.
type Conn struct {
	stream net.Conn
	in     *bufio.Reader
	out    []byte

	Structured, Extended bool
	Export               ExportInfo

	mu      sync.Mutex // of pending: one goroutine may send while another receives
	pending map[uint64]*request
}

// ExportInfo is what a server says of an export.
type ExportInfo struct {
	Size                        uint64
	Flags                       uint16
	Name                        string // "" when it was not told
	Minimum, Preferred, Maximum uint32 // 0 when they were not told
}

// NewConn starts on a fresh connection: it reads the greeting and sends the flags.
func NewConn(stream net.Conn) (*Conn, error) {
	c := &Conn{stream: stream, in: bufio.NewReaderSize(stream, 64<<10), pending: map[uint64]*request{}}
	if err := c.greeting(); err != nil {
		return nil, err
	}
	return c, c.write(binary.BigEndian.AppendUint32(nil, wire.FlagFixedNewstyle|wire.FlagNoZeroes))
}

func (c *Conn) greeting() error {
	var b [wire.GreetingSize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return fmt.Errorf("read the greeting: %w", err)
	}
	if m := binary.BigEndian.Uint64(b[:]); m != wire.InitMagic {
		return fmt.Errorf("the server begins with %#x", m)
	}
	if m := binary.BigEndian.Uint64(b[8:]); m != wire.OptionMagic {
		return fmt.Errorf("the server is not newstyle: %#x", m)
	}
	if f := binary.BigEndian.Uint16(b[16:]); f != wire.FlagFixedNewstyle|wire.FlagNoZeroes {
		return fmt.Errorf("the handshake flags are %#x", f)
	}
	return nil
}

func (c *Conn) write(b []byte) error {
	_, err := c.stream.Write(b)
	return err
}

// Stream is the connection below, TLS if that was started.
func (c *Conn) Stream() net.Conn { return c.stream }

// OptionReply is one answer to an option.
type OptionReply struct {
	Type wire.OptionReply
	Data []byte
}

// OptionError is the error that a server answered an option with.
type OptionError struct {
	Option wire.Option
	Reply  wire.OptionReply
	Text   string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("option %d: error %d: %s", e.Option, uint32(e.Reply)&^(1<<31), e.Text)
}

// Option sends an option and reads the answers up to the last, which is not among
// those it returns. A refusal is an *OptionError.
func (c *Conn) Option(option wire.Option, data []byte) ([]OptionReply, error) {
	if err := c.write(AppendOption(nil, option, data)); err != nil {
		return nil, err
	}
	return c.OptionReplies(option)
}

// OptionReplies reads the answers to an option that was sent.
func (c *Conn) OptionReplies(option wire.Option) ([]OptionReply, error) {
	var all []OptionReply
	for range maxOptionCount {
		var b [wire.OptionReplySize]byte
		if _, err := io.ReadFull(c.in, b[:]); err != nil {
			return nil, fmt.Errorf("read the answer to option %d: %w", option, err)
		}
		if m := binary.BigEndian.Uint64(b[:]); m != wire.OptionReplyMagic {
			return nil, fmt.Errorf("an answer begins with %#x", m)
		}
		if o := wire.Option(binary.BigEndian.Uint32(b[8:])); o != option {
			return nil, fmt.Errorf("an answer to option %d came for option %d", option, o)
		}
		kind, size := wire.OptionReply(binary.BigEndian.Uint32(b[12:])), binary.BigEndian.Uint32(b[16:])
		if size > maxOptionReply {
			return nil, fmt.Errorf("an answer has %d bytes", size)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(c.in, data); err != nil {
			return nil, fmt.Errorf("read the answer to option %d: %w", option, err)
		}
		switch {
		case isErrorReply(kind):
			return all, &OptionError{Option: option, Reply: kind, Text: string(data)}
		case kind == wire.RepAck && size > 0:
			return nil, fmt.Errorf("an acknowledgement has %d bytes of data", size)
		case kind == wire.RepAck:
			return all, nil
		}
		all = append(all, OptionReply{kind, data})
	}
	return nil, fmt.Errorf("more than %d answers to one option", maxOptionCount)
}

// StartTLS goes on over TLS.
func (c *Conn) StartTLS(ctx context.Context, config *tls.Config) error {
	if _, err := c.Option(wire.OptStartTLS, nil); err != nil {
		return err
	}
	if n := c.in.Buffered(); n > 0 {
		return fmt.Errorf("%d bytes in clear follow the start of TLS", n)
	}
	over := tls.Client(c.stream, config)
	if err := over.HandshakeContext(ctx); err != nil {
		return err
	}
	c.stream = over
	c.in.Reset(over)
	c.Structured, c.Extended = false, false
	return nil
}

// AskStructured asks for structured replies, AskExtended for extended headers.
func (c *Conn) AskStructured() error {
	_, err := c.Option(wire.OptStructuredReply, nil)
	c.Structured = c.Structured || err == nil
	return err
}

// AskExtended asks for extended headers.
func (c *Conn) AskExtended() error {
	_, err := c.Option(wire.OptExtendedHeaders, nil)
	if err == nil {
		c.Structured, c.Extended = true, true
	}
	return err
}

// Context is a metadata context of a server.
type Context struct {
	ID   uint32
	Name string
}

// Contexts lists metadata contexts, or chooses them.
func (c *Conn) Contexts(set bool, export string, queries ...string) ([]Context, error) {
	option := wire.OptListMetaContext
	if set {
		option = wire.OptSetMetaContext
	}
	data := appendString(nil, export)
	data = binary.BigEndian.AppendUint32(data, uint32(len(queries)))
	for _, q := range queries {
		data = appendString(data, q)
	}
	replies, err := c.Option(option, data)
	if err != nil {
		return nil, err
	}
	var all []Context
	for _, r := range replies {
		if r.Type != wire.RepMetaContext || len(r.Data) < 5 {
			return nil, fmt.Errorf("answer %d with %d bytes to a question for contexts", r.Type, len(r.Data))
		}
		all = append(all, Context{binary.BigEndian.Uint32(r.Data), string(r.Data[4:])})
	}
	return all, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// Info asks for an export with NBD_OPT_INFO, Go begins the transmission with NBD_OPT_GO.
func (c *Conn) Info(export string) error { return c.info(wire.OptInfo, export) }

// Go begins the transmission.
func (c *Conn) Go(export string) error { return c.info(wire.OptGo, export) }

// InfoData is the data of NBD_OPT_INFO and NBD_OPT_GO.
func InfoData(export string, asked ...uint16) []byte {
	data := appendString(nil, export)
	data = binary.BigEndian.AppendUint16(data, uint16(len(asked)))
	for _, a := range asked {
		data = binary.BigEndian.AppendUint16(data, a)
	}
	return data
}

func (c *Conn) info(option wire.Option, export string) error {
	replies, err := c.Option(option, InfoData(export, wire.InfoExport, wire.InfoName, wire.InfoDescription, wire.InfoBlockSize))
	if err != nil {
		return err
	}
	return c.ParseInfo(replies)
}

// ParseInfo takes what the server says of an export into c.Export.
func (c *Conn) ParseInfo(replies []OptionReply) error {
	c.Export = ExportInfo{}
	found := false
	for _, r := range replies {
		if r.Type != wire.RepInfo || len(r.Data) < 2 {
			return fmt.Errorf("answer %d with %d bytes to a question for an export", r.Type, len(r.Data))
		}
		kind, data := binary.BigEndian.Uint16(r.Data), r.Data[2:]
		switch {
		case kind == wire.InfoExport && len(data) == 10 && !found:
			found = true
			c.Export.Size, c.Export.Flags = binary.BigEndian.Uint64(data), binary.BigEndian.Uint16(data[8:])
		case kind == wire.InfoName:
			c.Export.Name = string(data)
		case kind == wire.InfoBlockSize && len(data) == 12:
			c.Export.Minimum, c.Export.Preferred, c.Export.Maximum = binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
			if err := checkBlockSizes(c.Export); err != nil {
				return err
			}
		case kind == wire.InfoExport, kind == wire.InfoBlockSize:
			return fmt.Errorf("information %d with %d bytes", kind, len(data))
		}
	}
	if !found {
		return errors.New("the server accepts an export without saying its size")
	}
	return c.checkFlags()
}

func checkBlockSizes(e ExportInfo) error {
	power := func(n uint32) bool { return n > 0 && n&(n-1) == 0 }
	if !power(e.Minimum) || e.Minimum > 1<<16 || !power(e.Preferred) || e.Preferred < max(512, e.Minimum) ||
		e.Maximum%e.Minimum != 0 && e.Maximum != 1<<32-1 || uint64(e.Maximum) < min(uint64(e.Preferred), e.Size) {
		return fmt.Errorf("block sizes of %d, %d, %d", e.Minimum, e.Preferred, e.Maximum)
	}
	return nil
}

func (c *Conn) checkFlags() error {
	f := c.Export.Flags
	if f&wire.FlagHasFlags == 0 {
		return fmt.Errorf("transmission flags %#x", f)
	}
	if f&wire.FlagSendDF != 0 && !c.Structured {
		return errors.New("don't-fragment is offered without structured replies")
	}
	return nil
}

// GoByName begins the transmission with NBD_OPT_EXPORT_NAME. A server that refuses cuts
// the connection.
func (c *Conn) GoByName(export string) error {
	if err := c.write(AppendOption(nil, wire.OptExportName, []byte(export))); err != nil {
		return err
	}
	return c.ExportNameReply(false)
}

// ExportNameReply reads the answer to NBD_OPT_EXPORT_NAME; with zeroes they follow it.
func (c *Conn) ExportNameReply(zeroes bool) error {
	var b [wire.ExportNameReplySize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return fmt.Errorf("read the answer to the name of the export: %w", err)
	}
	c.Export = ExportInfo{Size: binary.BigEndian.Uint64(b[:]), Flags: binary.BigEndian.Uint16(b[8:])}
	if zeroes {
		var z [wire.ExportNameZeroes]byte
		if _, err := io.ReadFull(c.in, z[:]); err != nil {
			return fmt.Errorf("read the zeroes: %w", err)
		}
		if z != [wire.ExportNameZeroes]byte{} {
			return errors.New("the zeroes are not zero")
		}
	}
	return c.checkFlags()
}
