package nbdtest

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// Part is a content chunk of a reply.
type Part struct {
	Offset, Length uint64
	Hole           bool
}

// Status is an extent of a block status, with its flags.
type Status struct {
	Length, Flags uint64
}

// Reply is the whole answer to a request.
type Reply struct {
	Request wire.Request
	Data    []byte // what was given to Send, filled
	Parts   []Part // in the order of arrival; with simple replies one
	Status  []Status
	Context uint32
	Errno   wire.Errno // 0: success
	At      uint64     // where the error happened, if HasAt
	HasAt   bool
	Text    string
}

// Error is the error that a server answered a request with.
type Error struct {
	Request wire.Request
	Errno   wire.Errno
	Text    string
}

func (e *Error) Error() string {
	return fmt.Sprintf("command %d, offset %d, length %d: error %d: %s", e.Request.Command, e.Request.Offset, e.Request.Length, e.Errno, e.Text)
}

// Err is the reply's error or nil.
func (r *Reply) Err() error {
	if r.Errno == 0 {
		return nil
	}
	return &Error{r.Request, r.Errno, r.Text}
}

// request is a request without its last answer.
type request struct {
	Reply
	statuses int
}

// Queue prepares a request; Flush sends what was queued. The magic number is filled in
// when it is 0. data takes what is read; payload follows the header.
func (c *Conn) Queue(r wire.Request, data, payload []byte) error {
	if r.Magic == 0 {
		r.Magic = wire.RequestMagic
		if c.Extended {
			r.Magic = wire.ExtendedRequestMagic
		}
	}
	if r.Command != wire.CmdDisconnect {
		c.mu.Lock()
		_, used := c.pending[r.Cookie]
		if !used {
			c.pending[r.Cookie] = &request{Reply: Reply{Request: r, Data: data}}
		}
		c.mu.Unlock()
		if used {
			return fmt.Errorf("cookie %d is in use", r.Cookie)
		}
	}
	c.out = append(AppendRequest(c.out, r, c.Extended), payload...)
	return nil
}

// Flush sends the queued requests.
func (c *Conn) Flush() error {
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

// Idle reports whether no byte of a reply has arrived that Receive has not taken yet: a
// good moment to send what was queued.
func (c *Conn) Idle() bool { return c.in.Buffered() == 0 }

// Send queues and sends one request.
func (c *Conn) Send(r wire.Request, data []byte) error {
	if err := c.Queue(r, data, nil); err != nil {
		return err
	}
	return c.Flush()
}

// Do sends one request and waits for its reply; no other may be under way.
func (c *Conn) Do(r wire.Request, data []byte) (*Reply, error) {
	if err := c.Send(r, data); err != nil {
		return nil, err
	}
	return c.Receive()
}

// Receive reads until a request is answered whole, and returns that reply. It fails
// when the server breaks the protocol or the connection.
func (c *Conn) Receive() (*Reply, error) {
	for {
		r, err := c.message()
		if err != nil {
			return nil, err
		}
		if r != nil {
			return &r.Reply, nil
		}
	}
}

// message reads one message. It returns the request if that was its last.
func (c *Conn) message() (*request, error) {
	b, err := c.in.Peek(4)
	if err != nil {
		return nil, err
	}
	magic := binary.BigEndian.Uint32(b)
	switch {
	case magic == wire.SimpleReplyMagic && !c.Extended:
		return c.simple()
	case magic == wire.StructuredReplyMagic && c.Structured && !c.Extended, magic == wire.ExtendedReplyMagic && c.Extended:
		return c.chunk()
	}
	return nil, fmt.Errorf("a reply begins with %#x", magic)
}

func (c *Conn) lookup(cookie uint64) (*request, error) {
	c.mu.Lock()
	r := c.pending[cookie]
	c.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("a reply to cookie %d, which is not in use", cookie)
	}
	return r, nil
}

func (c *Conn) forget(r *request) {
	c.mu.Lock()
	delete(c.pending, r.Request.Cookie)
	c.mu.Unlock()
}

func checkErrno(e wire.Errno) error {
	switch e {
	case wire.EPERM, wire.EIO, wire.ENOMEM, wire.EINVAL, wire.ENOSPC, wire.EOVERFLOW, wire.ENOTSUP, wire.ESHUTDOWN:
		return nil
	}
	return fmt.Errorf("error value %d, which the protocol does not have", e)
}

func (c *Conn) simple() (*request, error) {
	var b [wire.SimpleReplySize]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return nil, err
	}
	r, err := c.lookup(binary.BigEndian.Uint64(b[8:]))
	if err != nil {
		return nil, err
	}
	r.Errno = wire.Errno(binary.BigEndian.Uint32(b[4:]))
	if r.Errno != 0 {
		if err := checkErrno(r.Errno); err != nil {
			return nil, err
		}
	}
	command := r.Request.Command
	switch {
	case c.Structured && command == wire.CmdRead:
		return nil, errors.New("a simple reply to a read, though structured replies were agreed on")
	case r.Errno == 0 && command == wire.CmdBlockStatus:
		return nil, errors.New("a simple reply to a block status")
	case r.Errno == 0 && command == wire.CmdRead && r.Request.Length > 0:
		if _, err := io.ReadFull(c.in, r.Data[:r.Request.Length]); err != nil {
			return nil, err
		}
		r.Parts = append(r.Parts, Part{Offset: r.Request.Offset, Length: r.Request.Length})
	}
	c.forget(r)
	return r, nil
}

func (c *Conn) chunk() (*request, error) {
	var space [wire.ExtendedReplySize]byte
	b := space[:wire.ChunkHeaderSize(c.Extended)]
	if _, err := io.ReadFull(c.in, b); err != nil {
		return nil, err
	}
	h := ParseChunk(b, c.Extended)
	r, err := c.lookup(h.Cookie)
	if err != nil {
		return nil, err
	}
	if c.Extended && h.Offset != r.Request.Offset {
		return nil, fmt.Errorf("a reply's offset is %d, the request's was %d", h.Offset, r.Request.Offset)
	}
	done := h.Flags&wire.ReplyFlagDone != 0
	switch {
	case h.Type == wire.ChunkNone:
		if h.Length != 0 || !done {
			err = fmt.Errorf("an empty chunk with %d bytes, done %t", h.Length, done)
		}
	case h.Type == wire.ChunkOffsetData && r.Request.Command == wire.CmdRead:
		err = c.content(r, h.Length)
	case h.Type == wire.ChunkOffsetHole && r.Request.Command == wire.CmdRead:
		err = c.hole(r, h.Length)
	case (h.Type == wire.ChunkBlockStatus || h.Type == wire.ChunkBlockStatusExt && c.Extended) && r.Request.Command == wire.CmdBlockStatus:
		err = c.status(r, h)
	case isErrorChunk(h.Type):
		err = c.failure(r, h)
	default:
		err = fmt.Errorf("a chunk of type %d to command %d", h.Type, r.Request.Command)
	}
	if err != nil {
		return nil, err
	}
	if !done {
		return nil, nil
	}
	c.forget(r)
	return r, r.complete()
}

// complete checks a whole reply.
func (r *request) complete() error {
	if r.Errno != 0 {
		return nil
	}
	switch r.Request.Command {
	case wire.CmdRead:
		total := uint64(0)
		for _, p := range r.Parts {
			total += p.Length
		}
		if total != r.Request.Length { // parts do not overlap
			return fmt.Errorf("a read of %d bytes was answered with %d", r.Request.Length, total)
		}
	case wire.CmdBlockStatus:
		if r.statuses != 1 {
			return fmt.Errorf("a block status has %d chunks for one context", r.statuses)
		}
	}
	return nil
}

// add notes a content chunk after checking it.
func (r *request) add(p Part) error {
	q := r.Request
	if p.Length == 0 || p.Offset < q.Offset || p.Offset-q.Offset > q.Length || p.Length > q.Length-(p.Offset-q.Offset) {
		return fmt.Errorf("a chunk of %d bytes at %d, the request was for %d at %d", p.Length, p.Offset, q.Length, q.Offset)
	}
	for _, o := range r.Parts {
		if p.Offset < o.Offset+o.Length && o.Offset < p.Offset+p.Length {
			return fmt.Errorf("chunks overlap at %d", max(o.Offset, p.Offset))
		}
	}
	if q.Flags&wire.CmdFlagDF != 0 && len(r.Parts) > 0 {
		return errors.New("two chunks though the request said don't fragment")
	}
	r.Parts = append(r.Parts, p)
	return nil
}

func (c *Conn) content(r *request, length uint64) error {
	if length < 9 || length > 8+r.Request.Length {
		return fmt.Errorf("a data chunk of %d bytes for a request of %d", length, r.Request.Length)
	}
	var b [8]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	p := Part{Offset: binary.BigEndian.Uint64(b[:]), Length: length - 8}
	if err := r.add(p); err != nil {
		return err
	}
	_, err := io.ReadFull(c.in, r.Data[p.Offset-r.Request.Offset:][:p.Length])
	return err
}

func (c *Conn) hole(r *request, length uint64) error {
	if length != 12 {
		return fmt.Errorf("a hole chunk of %d bytes", length)
	}
	var b [12]byte
	if _, err := io.ReadFull(c.in, b[:]); err != nil {
		return err
	}
	p := Part{Offset: binary.BigEndian.Uint64(b[:]), Length: uint64(binary.BigEndian.Uint32(b[8:])), Hole: true}
	if err := r.add(p); err != nil {
		return err
	}
	clear(r.Data[p.Offset-r.Request.Offset:][:p.Length])
	return nil
}

func (c *Conn) status(r *request, h wire.ChunkHeader) error {
	prefix, each := uint64(4), uint64(8)
	if h.Type == wire.ChunkBlockStatusExt {
		prefix, each = 8, 16
	}
	if h.Length < prefix+each || (h.Length-prefix)%each != 0 || h.Length > maxStatus {
		return fmt.Errorf("a block status of %d bytes", h.Length)
	}
	if c.Extended && h.Type != wire.ChunkBlockStatusExt {
		return errors.New("a compact block status with extended headers")
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return err
	}
	r.statuses++
	r.Context = binary.BigEndian.Uint32(b)
	if n := binary.BigEndian.Uint32(b[4:]); prefix == 8 && n != 0 && uint64(n) != (h.Length-8)/16 {
		return fmt.Errorf("a block status says it has %d descriptors in %d bytes", n, h.Length)
	}
	sum := uint64(0)
	for b = b[prefix:]; len(b) > 0; b = b[each:] {
		s := Status{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))}
		if each == 16 {
			s = Status{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		}
		if s.Length == 0 || s.Length > 1<<63 || s.Flags > 1<<32-1 {
			return fmt.Errorf("an extent of %d bytes with flags %#x", s.Length, s.Flags)
		}
		if sum >= r.Request.Length {
			return errors.New("an extent begins behind the range that was asked for")
		}
		sum += s.Length
		r.Status = append(r.Status, s)
	}
	if r.Request.Flags&wire.CmdFlagReqOne != 0 && (len(r.Status) != 1 || sum > r.Request.Length) {
		return fmt.Errorf("%d extents of %d bytes, one of at most %d was asked for", len(r.Status), sum, r.Request.Length)
	}
	if sum > c.Export.Size-r.Request.Offset {
		return fmt.Errorf("extents of %d bytes from %d on in an export of %d", sum, r.Request.Offset, c.Export.Size)
	}
	return nil
}

func (c *Conn) failure(r *request, h wire.ChunkHeader) error {
	tail := uint64(0)
	if h.Type == wire.ChunkErrorOffset {
		tail = 8
	}
	if h.Length < 6+tail || h.Length > 6+tail+wire.MaxString {
		return fmt.Errorf("an error chunk of %d bytes", h.Length)
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return err
	}
	errno := wire.Errno(binary.BigEndian.Uint32(b))
	text := uint64(binary.BigEndian.Uint16(b[4:]))
	if text > h.Length-6-tail {
		return fmt.Errorf("an error's text has %d bytes in a chunk of %d", text, h.Length)
	}
	if err := checkErrno(errno); err != nil {
		return err
	}
	if r.Errno == 0 {
		r.Errno, r.Text = errno, string(b[6:6+text])
	}
	if h.Type == wire.ChunkErrorOffset {
		r.At, r.HasAt = binary.BigEndian.Uint64(b[6+text:]), true
		if r.At < r.Request.Offset || r.At-r.Request.Offset >= max(1, r.Request.Length) {
			return fmt.Errorf("an error at %d, the request was for %d at %d", r.At, r.Request.Length, r.Request.Offset)
		}
	}
	return nil
}

// SortParts sorts the content chunks by offset.
func (r *Reply) SortParts() {
	slices.SortFunc(r.Parts, func(a, b Part) int { return cmp.Compare(a.Offset, b.Offset) })
}
