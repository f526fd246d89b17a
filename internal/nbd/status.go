package nbd

import (
	"encoding/binary"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// maxDescriptors is how many extents one answer describes, so that it fits into 64 KiB;
// clients ask again behind them.
const maxDescriptors = 4095

// statusBytes is the space that the answer to a block status takes at most.
func (t *transmission) statusBytes(r wire.Request) int {
	n := maxDescriptors
	if r.Flags&wire.CmdFlagReqOne != 0 {
		n = 1
	}
	if t.extended {
		return 8 + 16*n
	}
	return 4 + 8*n
}

// status collects the descriptors of an answer to a block status.
type status struct {
	extended bool
	b        []byte // the payload, as long as it may become
	pos      int
	splitter splitter
}

func (s *status) part(x Extent) bool {
	state := uint32(0)
	if x.Hole {
		state = wire.StateHole | wire.StateZero
	}
	if s.extended {
		binary.BigEndian.PutUint64(s.b[s.pos:], uint64(x.Length))
		binary.BigEndian.PutUint64(s.b[s.pos+8:], uint64(state))
		s.pos += 16
	} else {
		binary.BigEndian.PutUint32(s.b[s.pos:], uint32(x.Length))
		binary.BigEndian.PutUint32(s.b[s.pos+4:], state)
		s.pos += 8
	}
	return s.pos < len(s.b)
}

// handleStatus answers NBD_CMD_BLOCK_STATUS with what is a hole and what is data, for
// the whole range or, with REQ_ONE, its first extent.
func (t *transmission) handleStatus(j job) {
	size := t.statusBytes(j.Request)
	a := newAnswer()
	a.grant = j.grant
	a.data = getBuffer(size)
	s := status{extended: t.extended, b: a.data.data(size), pos: 4}
	kind := wire.ChunkBlockStatus
	if t.extended {
		s.pos, kind = 8, wire.ChunkBlockStatusExt
	}
	s.splitter.split(t.export, int64(j.Offset), int64(j.Length), &s)
	binary.BigEndian.PutUint32(s.b, allocationID)
	if t.extended {
		binary.BigEndian.PutUint32(s.b[4:], uint32(s.pos-8)/16)
	}
	h := wire.ChunkHeaderSize(t.extended)
	whole := a.data.whole[headroom-h : headroom+s.pos]
	t.putChunk(whole, j, kind, wire.ReplyFlagDone, s.pos)
	a.pieces = append(a.pieces, whole)
	t.out.send(a)
}
