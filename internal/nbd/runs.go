package nbd

import (
	"encoding/binary"
	"fmt"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// A read whose bytes are not all in memory at once is answered in runs: each is read,
// handed over to be sent, and only then is there room for the next. A client that takes
// nothing so gets no further than its connection's budget.

// maxRun is the most data of one run in bytes.
const maxRun = 1 << 20

// maxRunParts is how many parts a run has at most.
const maxRunParts = 1024

// runParts collects the parts of a run: as much data as there is room for.
type runParts struct {
	a    *answer
	room int64
	end  int64
}

func (r *runParts) part(x Extent) bool {
	if !x.Hole {
		x.Length = min(x.Length, r.room-r.a.dataBytes)
	}
	r.a.part(x)
	r.end = x.Offset + x.Length
	return r.a.dataBytes < r.room && len(r.a.parts) < maxRunParts
}

// nextRun gives the answer the parts from off on that the request's grant has room for,
// and says where they end.
func (t *transmission) nextRun(a *answer, j *job, off int64) int64 {
	r := runParts{a: a, room: j.grant.bytes()}
	end := int64(j.Offset + j.Length)
	a.splitter.split(t.export, off, end-off, &r)
	j.more = r.end < end
	return r.end
}

// again waits for room for the run from off on. It fails when the connection has ended,
// and so has the request then.
func (t *transmission) again(j *job, off int64) (err error) {
	n := min(maxRun, charge(int(j.Offset+j.Length)-int(off)))
	if j.grant, err = t.budget.more(t.ctx, j.grant.request, n); err == nil {
		err = t.out.failed()
	}
	if err != nil {
		t.budget.give(j.grant)
	}
	return err
}

// readInRuns answers with chunks, a run at a time.
func (t *transmission) readInRuns(j job) {
	if p, ok := t.export.Export.(Prefetcher); ok {
		_ = p.Prefetch(t.ctx, int64(j.Offset), int64(j.Length)) // what fails is tried again by the reads
	}
	for off := int64(j.Offset); ; {
		a := newAnswer()
		off = t.nextRun(a, &j, off)
		at, err := t.readChunks(a, &j, a.dataBytes, t.fromExport)
		switch {
		case err != nil:
			t.readFailed(a, j, at, err)
			return
		case !j.more:
			t.out.send(a)
			return
		}
		a.grant.ends = false
		t.out.post(a)
		if t.again(&j, off) != nil {
			return
		}
	}
}

// readAlone answers with a reply that is one piece, though there is no room for all of
// it. The reader of requests does it while no other is under way, so that nothing comes
// between. An error after the beginning ends the connection, as the protocol demands
// ("Simple reply message"): the client was told of success.
func (t *transmission) readAlone(j job) error {
	for off := int64(j.Offset); ; {
		a := newAnswer()
		off = t.nextRun(a, &j, off)
		at, err := t.readSimple(a, &j, a.dataBytes, t.fromExport)
		switch {
		case err != nil && !j.begun:
			clear(a.pieces)
			a.pieces = a.pieces[:0]
			t.readFailed(a, j, at, err)
			return nil
		case err != nil:
			t.failures.log(t.log, "read", j.Offset, j.Length, err)
			a.drop()
			t.budget.give(j.grant)
			return fmt.Errorf("a reply had begun when a read failed: %w", err)
		case !j.more:
			t.out.send(a)
			return nil
		}
		j.begun = true
		a.grant.ends = false
		t.out.send(a)
		if err := t.again(&j, off); err != nil {
			return err
		}
	}
}

// beginWhole appends the header of a reply in one piece.
func (t *transmission) beginWhole(a *answer, j *job) {
	if !t.structured {
		wire.PutSimpleReply(a.small[:], j.Cookie, 0)
		a.pieces = append(a.pieces, a.small[:wire.SimpleReplySize])
		return
	}
	b := a.small[:wire.ChunkHeaderSize(t.extended)+8]
	t.putChunk(b, *j, wire.ChunkOffsetData, wire.ReplyFlagDone, 8+int(j.Length))
	binary.BigEndian.PutUint64(b[len(b)-8:], j.Offset)
	a.pieces = append(a.pieces, b)
}
