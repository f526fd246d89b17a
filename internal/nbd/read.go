package nbd

import (
	"encoding/binary"
	"errors"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// zeros are what holes consist of where they must be sent.
var zeros [64 << 10]byte

// maxAtOnce is the longest read in bytes that the reader of requests answers itself.
const maxAtOnce = 256 << 10

// errCold says that a read can't be answered at once.
var errCold = errors.New("the data is not at hand")

// source reads a part of the export's data.
type source func(p []byte, off int64) error

func (t *transmission) fromExport(p []byte, off int64) error {
	return t.export.ReadAtContext(t.ctx, p, off)
}

func (t *transmission) atOnce(p []byte, off int64) error {
	if t.warm == nil || !t.warm.ReadWarm(p, off) {
		return errCold
	}
	return nil
}

// readAtOnce answers a read whose bytes are at hand, without anybody being woken for
// it. It reports whether it did; the answer is queued, not sent.
func (t *transmission) readAtOnce(j *job) bool {
	if t.warm == nil || j.Length > maxAtOnce {
		return false
	}
	a, _, err := t.readInto(j, t.atOnce)
	if err != nil {
		a.drop()
		return false
	}
	t.out.add(a)
	return true
}

// handleRead answers NBD_CMD_READ.
func (t *transmission) handleRead(j job) {
	a, at, err := t.readInto(&j, t.fromExport)
	if err != nil {
		t.readFailed(a, j, at, err)
		return
	}
	t.out.send(a)
}

// readInto makes the answer to a read. Holes are neither read nor, with chunks, sent.
// After an error the answer has what was read before, and at is where it happened.
func (t *transmission) readInto(j *job, read source) (a *answer, at int64, err error) {
	a = newAnswer()
	off, n := int64(j.Offset), int64(j.Length)
	if n == 0 {
		t.addSuccess(a, *j)
		return a, off, nil
	}
	a.splitter.split(t.export, off, n, a)
	data := a.dataBytes
	switch {
	case len(a.parts) == 1 && data > 0, t.structured && j.Flags&wire.CmdFlagDF != 0 && data > 0:
		// With DF zeros stand in the one chunk, as the export reads them.
		at, err = off, t.readPlain(a, j, read)
	case t.structured:
		at, err = t.readChunks(a, j, data, read)
	default:
		at, err = t.readSimple(a, j, data, read)
	}
	return a, at, err
}

// readPlain answers with one piece of data, behind its header in one buffer.
func (t *transmission) readPlain(a *answer, j *job, read source) error {
	n := int(j.Length)
	a.grant, a.data = j.grant, getBuffer(n)
	if err := read(a.data.data(n), int64(j.Offset)); err != nil {
		return err
	}
	size := wire.SimpleReplySize
	if t.structured {
		size = wire.ChunkHeaderSize(t.extended) + 8
	}
	b := a.data.whole[headroom-size : headroom+n]
	if t.structured {
		t.putChunk(b, *j, wire.ChunkOffsetData, wire.ReplyFlagDone, 8+n)
		binary.BigEndian.PutUint64(b[size-8:], j.Offset)
	} else {
		wire.PutSimpleReply(b, j.Cookie, 0)
	}
	a.pieces, a.dataBytes = append(a.pieces, b), int64(n)
	return nil
}

// readFailed sends the answer with an error at off as its end.
func (t *transmission) readFailed(a *answer, j job, off int64, err error) {
	if t.ctx.Err() == nil {
		t.failures.log(t.log, "read", j.Offset, j.Length, err)
	}
	if t.structured {
		t.addErrorOffset(a, j, wire.EIO, told(err, exportFailed), off)
	} else {
		wire.PutSimpleReply(a.small[:], j.Cookie, wire.EIO)
		a.pieces = append(a.pieces[:0], a.small[:wire.SimpleReplySize])
	}
	t.out.send(a)
}

// hold gives back what the answer does not need and takes a buffer for the rest.
func (t *transmission) hold(a *answer, j *job, data int64) []byte {
	t.budget.shrink(&j.grant, charge(int(data)))
	a.grant = j.grant
	if data == 0 {
		return nil
	}
	a.data = getBuffer(int(data))
	return a.data.data(int(data))
}

// readSimple answers with a simple reply to a range with holes: nothing is sent before
// all has been read, or all of a run.
func (t *transmission) readSimple(a *answer, j *job, data int64, read source) (int64, error) {
	rest := t.hold(a, j, data)
	if !j.begun {
		t.beginWhole(a, j)
	}
	for _, x := range a.parts {
		if x.Hole {
			for n := x.Length; n > 0; n -= int64(len(zeros)) {
				a.pieces = append(a.pieces, zeros[:min(n, int64(len(zeros)))])
			}
			continue
		}
		if err := read(rest[:x.Length], x.Offset); err != nil {
			return x.Offset, err
		}
		a.pieces = append(a.pieces, rest[:x.Length])
		rest = rest[x.Length:]
	}
	return 0, nil
}

// readChunks answers with a chunk for each part. What was read before an error is sent,
// and the error says where it happened.
func (t *transmission) readChunks(a *answer, j *job, data int64, read source) (int64, error) {
	rest := t.hold(a, j, data)
	h := wire.ChunkHeaderSize(t.extended)
	headers := a.small[:]
	if need := len(a.parts) * (h + 12); need > len(headers) {
		headers = make([]byte, need)
	}
	for i, x := range a.parts {
		flags := uint16(0)
		if i == len(a.parts)-1 && !j.more {
			flags = wire.ReplyFlagDone
		}
		if x.Hole {
			binary.BigEndian.PutUint64(headers[h:], uint64(x.Offset))
			binary.BigEndian.PutUint32(headers[h+8:], uint32(x.Length))
			t.chunk(a, *j, headers, wire.ChunkOffsetHole, flags, 12)
			headers = headers[h+12:]
			continue
		}
		if err := read(rest[:x.Length], x.Offset); err != nil {
			return x.Offset, err
		}
		t.putChunk(headers, *j, wire.ChunkOffsetData, flags, 8+int(x.Length))
		binary.BigEndian.PutUint64(headers[h:], uint64(x.Offset))
		a.pieces = append(a.pieces, headers[:h+8], rest[:x.Length])
		headers = headers[h+8:]
		rest = rest[x.Length:]
	}
	return 0, nil
}
