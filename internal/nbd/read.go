package nbd

import (
	"encoding/binary"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// zeros are what holes consist of where they must be sent.
var zeros [64 << 10]byte

// handleRead answers NBD_CMD_READ. Holes are neither read nor, with chunks, sent.
func (t *transmission) handleRead(j job) {
	if j.Length == 0 {
		t.succeed(j)
		return
	}
	off, n := int64(j.Offset), int64(j.Length)
	var few [8]Extent
	parts := few[:0]
	data := int64(0)
	for x := range t.export.extents(off, n) {
		parts = append(parts, x)
		if !x.Hole {
			data += x.Length
		}
	}
	switch {
	case len(parts) == 1 && !parts[0].Hole:
		t.readPlain(j)
	case !t.structured:
		t.readSimple(j, parts, data)
	case j.Flags&wire.CmdFlagDF != 0 && data > 0:
		t.readPlain(j) // the zeros must stand in the one chunk
	default:
		t.readChunks(j, parts, data)
	}
}

// readPlain answers with one piece of data, behind its header in one buffer.
func (t *transmission) readPlain(j job) {
	n := int(j.Length)
	buf := getBuffer(n)
	if err := t.export.ReadAtContext(t.ctx, buf.data(n), int64(j.Offset)); err != nil {
		buf.release()
		t.budget.shrink(&j.grant, 0)
		t.readFailed(newAnswer(j), j, int64(j.Offset), err)
		return
	}
	a := newAnswer(j)
	a.data = buf
	size := wire.SimpleReplySize
	if t.structured {
		size = wire.ChunkHeaderSize(t.extended) + 8
	}
	b := buf.whole[headroom-size : headroom+n]
	if t.structured {
		t.putChunk(b, j, wire.ChunkOffsetData, wire.ReplyFlagDone, 8+n)
		binary.BigEndian.PutUint64(b[size-8:], j.Offset)
	} else {
		wire.PutSimpleReply(b, j.Cookie, 0)
	}
	a.pieces = append(a.pieces, b)
	t.out.send(a)
}

// readFailed sends the answer with an error at off as its end.
func (t *transmission) readFailed(a *answer, j job, off int64, err error) {
	if t.ctx.Err() == nil {
		t.failures.log(t.log, "read", j.Offset, j.Length, err)
	}
	if t.structured {
		t.addErrorOffset(a, j, wire.EIO, exportFailed, off)
	} else {
		wire.PutSimpleReply(a.small[:], j.Cookie, wire.EIO)
		a.pieces = append(a.pieces[:0], a.small[:wire.SimpleReplySize])
	}
	t.out.send(a)
}

// readSimple answers with a simple reply to a range with holes: nothing is sent before
// all has been read.
func (t *transmission) readSimple(j job, parts []Extent, data int64) {
	t.budget.shrink(&j.grant, charge(int(data)))
	a := newAnswer(j)
	wire.PutSimpleReply(a.small[:], j.Cookie, 0)
	a.pieces = append(a.pieces, a.small[:wire.SimpleReplySize])
	var rest []byte
	if data > 0 {
		a.data = getBuffer(int(data))
		rest = a.data.data(int(data))
	}
	for _, x := range parts {
		if x.Hole {
			for n := x.Length; n > 0; n -= int64(len(zeros)) {
				a.pieces = append(a.pieces, zeros[:min(n, int64(len(zeros)))])
			}
			continue
		}
		if err := t.export.ReadAtContext(t.ctx, rest[:x.Length], x.Offset); err != nil {
			t.readFailed(a, j, x.Offset, err)
			return
		}
		a.pieces = append(a.pieces, rest[:x.Length])
		rest = rest[x.Length:]
	}
	t.out.send(a)
}

// readChunks answers with a chunk for each part. What was read before an error is sent,
// and the error says where it happened.
func (t *transmission) readChunks(j job, parts []Extent, data int64) {
	t.budget.shrink(&j.grant, charge(int(data)))
	a := newAnswer(j)
	h := wire.ChunkHeaderSize(t.extended)
	headers := a.small[:]
	if need := len(parts) * (h + 12); need > len(headers) {
		headers = make([]byte, need)
	}
	var rest []byte
	if data > 0 {
		a.data = getBuffer(int(data))
		rest = a.data.data(int(data))
	}
	for i, x := range parts {
		flags := uint16(0)
		if i == len(parts)-1 {
			flags = wire.ReplyFlagDone
		}
		if x.Hole {
			binary.BigEndian.PutUint64(headers[h:], uint64(x.Offset))
			binary.BigEndian.PutUint32(headers[h+8:], uint32(x.Length))
			t.chunk(a, j, headers, wire.ChunkOffsetHole, flags, 12)
			headers = headers[h+12:]
			continue
		}
		if err := t.export.ReadAtContext(t.ctx, rest[:x.Length], x.Offset); err != nil {
			t.readFailed(a, j, x.Offset, err)
			return
		}
		t.putChunk(headers, j, wire.ChunkOffsetData, flags, 8+int(x.Length))
		binary.BigEndian.PutUint64(headers[h:], uint64(x.Offset))
		a.pieces = append(a.pieces, headers[:h+8], rest[:x.Length])
		headers = headers[h+8:]
		rest = rest[x.Length:]
	}
	t.out.send(a)
}
