package nbd

import (
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// chunk writes a chunk's header to b and appends it to the answer's pieces, with
// inline bytes of payload that stand in b behind it; payload is the whole payload's
// length.
func (t *transmission) chunk(a *answer, j job, b []byte, kind wire.Chunk, flags uint16, payload int) {
	t.putChunk(b, j, kind, flags, payload)
	a.pieces = append(a.pieces, b[:wire.ChunkHeaderSize(t.extended)+payload])
}

func (t *transmission) putChunk(b []byte, j job, kind wire.Chunk, flags uint16, payload int) {
	wire.PutChunk(b, wire.ChunkHeader{Flags: flags, Type: kind, Cookie: j.Cookie, Offset: j.Offset, Length: uint64(payload)}, t.extended)
}

// addError appends the error chunk that ends a reply.
func (t *transmission) addError(a *answer, j job, errno wire.Errno, text string) {
	h := wire.ChunkHeaderSize(t.extended)
	b := make([]byte, h+6, h+6+len(text))
	binary.BigEndian.PutUint32(b[h:], uint32(errno))
	binary.BigEndian.PutUint16(b[h+4:], uint16(len(text)))
	b = append(b, text...)
	t.chunk(a, j, b, wire.ChunkError, wire.ReplyFlagDone, len(b)-h)
}

// addErrorOffset appends the error chunk that ends a reply and says where it happened.
func (t *transmission) addErrorOffset(a *answer, j job, errno wire.Errno, text string, off int64) {
	h := wire.ChunkHeaderSize(t.extended)
	b := make([]byte, h+6, h+6+len(text)+8)
	binary.BigEndian.PutUint32(b[h:], uint32(errno))
	binary.BigEndian.PutUint16(b[h+4:], uint16(len(text)))
	b = append(b, text...)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	t.chunk(a, j, b, wire.ChunkErrorOffset, wire.ReplyFlagDone, len(b)-h)
}

// seldom lets a line into the log at most once a second: strangers can cause more.
type seldom struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

// now reports whether a line may be written, and how many were not since the last.
func (s *seldom) now() (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.last) < time.Second {
		s.skipped++
		return 0, false
	}
	skipped = s.skipped
	s.last, s.skipped = now, 0
	return skipped, true
}

// failures logs errors of an export.
type failures struct{ seldom }

func (f *failures) log(l *slog.Logger, what string, off, n uint64, err error) {
	if skipped, ok := f.now(); ok {
		l.Warn("NBD: an export failed", "request", what, "offset", off, "length", n, "error", err, "unlogged", skipped)
	}
}
