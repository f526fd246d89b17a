package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// What a stranger can send before it named an export.
const (
	maxOptions     = 128      // in one handshake
	maxOptionData  = 16 << 10 // held in memory
	maxOptionSkip  = 1 << 20  // read and thrown away with an answer; beyond it the connection is cut
	maxQueries     = 128      // of metadata contexts in one option
	maxInfoRequest = 64       // kinds of information in one option
)

// handshake greets the client and answers its options until one of them begins the
// transmission (nil), or the connection is to end.
func (c *conn) handshake(ctx context.Context) error {
	until := time.Now().Add(c.s.opts.HandshakeTimeout)
	c.readUntil(until)
	_ = c.raw.SetWriteDeadline(until)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()

	greeting := binary.BigEndian.AppendUint64(nil, wire.InitMagic)
	greeting = binary.BigEndian.AppendUint64(greeting, wire.OptionMagic)
	greeting = binary.BigEndian.AppendUint16(greeting, wire.FlagFixedNewstyle|wire.FlagNoZeroes)
	if _, err := c.stream.Write(greeting); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(wire.FlagFixedNewstyle|wire.FlagNoZeroes) != 0 {
		return fmt.Errorf("unknown client flags %#x", flags)
	}
	c.noZeroes = flags&wire.FlagNoZeroes != 0
	fixed := flags&wire.FlagFixedNewstyle != 0
	for range maxOptions {
		if begin, err := c.option(ctx, fixed); begin || err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d options", maxOptions)
}

// option answers one option. It reports whether the transmission begins.
func (c *conn) option(ctx context.Context, fixed bool) (begin bool, err error) {
	var b [wire.OptionHeaderSize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return false, err
	}
	h := wire.ParseOption(b[:])
	switch {
	case h.Magic != wire.OptionMagic:
		return false, fmt.Errorf("an option begins with %#x", h.Magic)
	case h.Length > maxOptionSkip:
		return false, fmt.Errorf("option %d has %d bytes", h.Option, h.Length)
	case !fixed && h.Option != wire.OptExportName:
		return false, fmt.Errorf("option %d without fixed newstyle", h.Option)
	case h.Option == wire.OptExportName && (h.Length > wire.MaxString || c.ending.Err() != nil):
		return false, errors.New("an export name that can't be answered")
	case h.Length > maxOptionData || h.Option == wire.OptAbort:
		if _, err := c.in.Discard(int(h.Length)); err != nil {
			return false, err
		}
		if h.Option == wire.OptAbort {
			return false, errors.Join(errGone, c.reply(h.Option, wire.RepAck, nil))
		}
		return false, c.refuse(h.Option, wire.RepErrTooBig, "the option is too long")
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return false, err
	}
	switch {
	case c.ending.Err() != nil:
		return false, errors.Join(errGone, c.refuse(h.Option, wire.RepErrShutdown, "the server stops"))
	case c.s.opts.RequireTLS && !c.secure && h.Option != wire.OptStartTLS:
		if h.Option == wire.OptExportName {
			return false, errors.New("an export was named before TLS was started")
		}
		return false, c.refuse(h.Option, wire.RepErrTLSRequired, "start TLS first")
	}
	switch h.Option {
	case wire.OptExportName:
		return true, c.exportName(ctx, data)
	case wire.OptInfo, wire.OptGo:
		return c.info(ctx, h.Option, data)
	case wire.OptSetMetaContext, wire.OptListMetaContext:
		return false, c.metaContext(ctx, h.Option, data)
	case wire.OptList:
		if len(data) > 0 {
			return false, c.refuse(h.Option, wire.RepErrInvalid, "the option takes no data")
		}
		return false, c.reply(h.Option, wire.RepAck, nil)
	case wire.OptStartTLS:
		return false, c.startTLS(ctx, data)
	case wire.OptStructuredReply, wire.OptExtendedHeaders:
		return false, c.replyForm(h.Option, data)
	}
	return false, c.refuse(h.Option, wire.RepErrUnsupported, "unknown option")
}

func (c *conn) reply(option wire.Option, reply wire.OptionReply, data []byte) error {
	_, err := c.stream.Write(wire.AppendOptionReply(nil, option, reply, data))
	return err
}

func (c *conn) refuse(option wire.Option, reply wire.OptionReply, text string) error {
	return c.reply(option, reply, []byte(text))
}

// replyForm answers the options that choose the form of replies.
func (c *conn) replyForm(option wire.Option, data []byte) error {
	switch {
	case len(data) > 0:
		return c.refuse(option, wire.RepErrInvalid, "the option takes no data")
	case option == wire.OptStructuredReply && c.extended:
		return c.refuse(option, wire.RepErrExtendedHeaders, "extended headers are in use")
	case option == wire.OptStructuredReply && c.structured, option == wire.OptExtendedHeaders && c.extended:
		return c.refuse(option, wire.RepErrInvalid, "the option was given before")
	}
	c.structured = true
	c.extended = c.extended || option == wire.OptExtendedHeaders
	return c.reply(option, wire.RepAck, nil)
}

// startTLS goes on over TLS. Nothing that was said or sent before counts afterwards.
func (c *conn) startTLS(ctx context.Context, data []byte) error {
	switch {
	case len(data) > 0:
		return c.refuse(wire.OptStartTLS, wire.RepErrInvalid, "the option takes no data")
	case c.secure:
		return c.refuse(wire.OptStartTLS, wire.RepErrInvalid, "TLS was started before")
	case c.s.opts.TLS == nil:
		return c.refuse(wire.OptStartTLS, wire.RepErrPolicy, "there is no TLS here")
	case c.in.Buffered() > 0:
		return errors.New("bytes in clear after the start of TLS")
	}
	if err := c.reply(wire.OptStartTLS, wire.RepAck, nil); err != nil {
		return err
	}
	c.under = &batched{Conn: c.raw}
	over := tls.Server(c.under, c.s.opts.TLS)
	if err := over.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.stream = over
	c.s.secured(c)
	c.in.Reset(over)
	c.structured, c.extended, c.allocation, c.contexts = false, false, false, ""
	c.closeExport()
	return nil
}

// validString says whether b can be a string of the protocol ("Conventions").
func validString(b []byte) bool {
	if len(b) > wire.MaxString || !utf8.Valid(b) {
		return false
	}
	for _, x := range b {
		if x == 0 {
			return false
		}
	}
	return true
}
