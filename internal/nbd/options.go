package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// open makes c.export the export of that name. It stays open, so that a client that
// asks before it goes costs one opening.
func (c *conn) open(ctx context.Context, name string) error {
	if c.export != nil && c.export.name == name {
		return nil
	}
	c.closeExport()
	export, err := c.s.opts.Open(ctx, name)
	if err != nil {
		return err
	}
	if err := c.admit(export); err != nil {
		_ = export.Close()
		return err
	}
	size := export.Size()
	if size < 0 {
		_ = export.Close()
		return fmt.Errorf("the export's size is %d", size)
	}
	c.export = &opened{Export: export, name: name, size: uint64(size)}
	return nil
}

// admit takes a place for a client that has named an export: one of the server's, which
// has memory for so many, and one of its listener's for the export's owner.
func (c *conn) admit(export Export) error {
	if c.leave == nil {
		if c.leave = c.s.enter(); c.leave == nil {
			return ErrTooMany
		}
	}
	owned, ok := export.(Owned)
	if gate, gated := c.raw.(Admitter); ok && gated && owned.Owner() != "" && !gate.Admit(owned.Owner()) {
		return fmt.Errorf("%w of this project", ErrTooMany)
	}
	return nil
}

// exportName answers NBD_OPT_EXPORT_NAME, which knows no errors but the end.
func (c *conn) exportName(ctx context.Context, data []byte) error {
	if c.extended {
		return errors.New("NBD_OPT_EXPORT_NAME with extended headers")
	}
	if !validString(data) {
		return errors.New("the export's name is no string")
	}
	if err := c.open(ctx, string(data)); err != nil {
		c.logOpen(err)
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, c.export.size)
	b = binary.BigEndian.AppendUint16(b, c.export.flags(c.structured))
	if !c.noZeroes {
		b = append(b, make([]byte, wire.ExportNameZeroes)...)
	}
	_, err := c.stream.Write(b)
	return err
}

// logOpen tells the operator of an export that can't be opened; unknown names are no news.
func (c *conn) logOpen(err error) {
	if !errors.Is(err, ErrUnknownExport) && !errors.Is(err, ErrTooMany) {
		c.log.Warn("NBD: an export can't be opened", "error", err)
	}
}

// refuseOpen answers an option whose export can't be opened.
func (c *conn) refuseOpen(option wire.Option, err error) error {
	c.logOpen(err)
	switch {
	case c.ending.Err() != nil:
		return errors.Join(errGone, c.refuse(option, wire.RepErrShutdown, "the server stops"))
	case errors.Is(err, ErrTooMany):
		return c.refuse(option, wire.RepErrPolicy, err.Error())
	case errors.Is(err, ErrUnknownExport):
		return c.refuse(option, wire.RepErrUnknown, "there is no such export")
	}
	return c.refuse(option, wire.RepErrUnknown, told(err, "the export is not available now"))
}

// info answers NBD_OPT_INFO and NBD_OPT_GO; after the latter the transmission begins.
func (c *conn) info(ctx context.Context, option wire.Option, data []byte) (begin bool, err error) {
	name, rest, ok := cutName(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return false, c.refuse(option, wire.RepErrInvalid, "the option's lengths contradict each other")
	}
	if !validString(name) {
		return false, c.refuse(option, wire.RepErrInvalid, "the name is longer than 4096 bytes or no UTF-8")
	}
	if len(rest) > 2+2*maxInfoRequest {
		return false, c.refuse(option, wire.RepErrTooBig, "too many information requests")
	}
	if err := c.open(ctx, string(name)); err != nil {
		return false, c.refuseOpen(option, err)
	}
	item := binary.BigEndian.AppendUint16(nil, wire.InfoExport)
	item = binary.BigEndian.AppendUint64(item, c.export.size)
	item = binary.BigEndian.AppendUint16(item, c.export.flags(c.structured))
	out := wire.AppendOptionReply(nil, option, wire.RepInfo, item)

	// Sent without being asked too: reads beyond the maximum are refused.
	item = binary.BigEndian.AppendUint16(nil, wire.InfoBlockSize)
	item = binary.BigEndian.AppendUint32(item, 1)
	item = binary.BigEndian.AppendUint32(item, c.export.preferred(c.s.opts.MaxRequestBytes))
	item = binary.BigEndian.AppendUint32(item, uint32(c.s.opts.MaxRequestBytes))
	out = wire.AppendOptionReply(out, option, wire.RepInfo, item)

	for asked := rest[2:]; len(asked) > 0; asked = asked[2:] {
		if binary.BigEndian.Uint16(asked) == wire.InfoName {
			item = append(binary.BigEndian.AppendUint16(nil, wire.InfoName), name...)
			out = wire.AppendOptionReply(out, option, wire.RepInfo, item)
			break
		}
	}
	out = wire.AppendOptionReply(out, option, wire.RepAck, nil)
	_, err = c.stream.Write(out)
	return option == wire.OptGo, err
}

// allocationID is the id of base:allocation, the one context that there is.
const allocationID = 1

// metaContext answers the options that list and choose metadata contexts.
func (c *conn) metaContext(ctx context.Context, option wire.Option, data []byte) error {
	set := option == wire.OptSetMetaContext
	if set { // also when it fails
		c.allocation, c.contexts = false, ""
	}
	if !c.structured {
		return c.refuse(option, wire.RepErrInvalid, "ask for structured replies or extended headers first")
	}
	name, rest, ok := cutName(data)
	if !ok || len(rest) < 4 {
		return c.refuse(option, wire.RepErrInvalid, "the option's lengths contradict each other")
	}
	if !validString(name) {
		return c.refuse(option, wire.RepErrInvalid, "the name is longer than 4096 bytes or no UTF-8")
	}
	number := binary.BigEndian.Uint32(rest)
	if number > maxQueries {
		return c.refuse(option, wire.RepErrTooBig, "too many queries")
	}
	found := number == 0 && !set
	rest = rest[4:]
	for range number {
		query, after, ok := cutName(rest)
		if !ok {
			return c.refuse(option, wire.RepErrInvalid, "a query is longer than the option")
		}
		if !validString(query) || !strings.Contains(string(query), ":") {
			return c.refuse(option, wire.RepErrInvalid, "a query is no string with a namespace and a colon")
		}
		found = found || string(query) == wire.BaseAllocation || !set && string(query) == "base:"
		rest = after
	}
	if len(rest) > 0 {
		return c.refuse(option, wire.RepErrInvalid, "bytes follow the last query")
	}
	if err := c.open(ctx, string(name)); err != nil {
		return c.refuseOpen(option, err)
	}
	var out []byte
	if found {
		id := uint32(0) // reserved in a list
		if set {
			id = allocationID
			c.allocation, c.contexts = true, string(name)
		}
		out = wire.AppendOptionReply(out, option, wire.RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), wire.BaseAllocation...))
	}
	_, err := c.stream.Write(wire.AppendOptionReply(out, option, wire.RepAck, nil))
	return err
}

// cutName cuts a string with its 32-bit length before it off b.
func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}
