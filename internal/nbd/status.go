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

// handleStatus answers NBD_CMD_BLOCK_STATUS with what is a hole and what is data, for
// the whole range or, with REQ_ONE, its first extent.
func (t *transmission) handleStatus(j job) {
	size := t.statusBytes(j.Request)
	a := newAnswer()
	a.grant = j.grant
	a.data = getBuffer(size)
	b := a.data.data(size)
	binary.BigEndian.PutUint32(b, allocationID)
	pos, number := 4, uint32(0)
	if t.extended {
		pos = 8
	}
	for x := range t.export.extents(int64(j.Offset), int64(j.Length)) {
		state := uint32(0)
		if x.Hole {
			state = wire.StateHole | wire.StateZero
		}
		if t.extended {
			binary.BigEndian.PutUint64(b[pos:], uint64(x.Length))
			binary.BigEndian.PutUint64(b[pos+8:], uint64(state))
			pos += 16
		} else {
			binary.BigEndian.PutUint32(b[pos:], uint32(x.Length))
			binary.BigEndian.PutUint32(b[pos+4:], state)
			pos += 8
		}
		if number++; pos >= size {
			break
		}
	}
	kind := wire.ChunkBlockStatus
	if t.extended {
		kind = wire.ChunkBlockStatusExt
		binary.BigEndian.PutUint32(b[4:], number)
	}
	h := wire.ChunkHeaderSize(t.extended)
	whole := a.data.whole[headroom-h : headroom+pos]
	t.putChunk(whole, j, kind, wire.ReplyFlagDone, pos)
	a.pieces = append(a.pieces, whole)
	t.out.send(a)
}
