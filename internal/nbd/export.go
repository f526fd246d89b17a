package nbd

import (
	"context"
	"errors"
	"iter"
	"math/bits"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// Extent is a range of an export in bytes. A hole reads as zeros and is stored nowhere.
type Extent struct {
	Offset, Length int64
	Hole           bool
}

// Export is a disk. Its methods may be called by many goroutines at once.
type Export interface {
	// Size is the disk's size in bytes; it does not change.
	Size() int64
	// BlockSize is the unit in bytes that reads should be aligned to. What is no power
	// of two between 512 and the largest request is not told to clients.
	BlockSize() int64
	// ReadAtContext fills p with the bytes from off on, or fails. The range lies within
	// the disk. It returns soon when ctx ends, and keeps p no longer.
	ReadAtContext(ctx context.Context, p []byte, off int64) error
	// Extents says what the range consists of, in order, without I/O. What it leaves
	// out counts as data.
	Extents(off, n int64) iter.Seq[Extent]
	// Close releases the disk. No other method is called afterwards.
	Close() error
}

// Prefetcher is an Export that can be told what will be read soon; then NBD_CMD_CACHE
// is offered to clients.
type Prefetcher interface {
	// Prefetch makes later reads of the range faster, or fails. It may return before
	// that is done.
	Prefetch(ctx context.Context, off, n int64) error
}

// Warmed is an Export that can say whether bytes are at hand: reads of those are
// answered without a switch of goroutines, several with one system call.
type Warmed interface {
	// ReadWarm fills p with the bytes from off on and reports true if that takes no
	// I/O and no waiting for anybody; else it reports false and p's content is undefined.
	ReadWarm(p []byte, off int64) bool
}

// Owned is an Export that belongs to somebody: connections that name it are the owner's.
type Owned interface {
	// Owner is "" if nobody owns the export.
	Owner() string
}

// Admitter is a connection whose listener divides places between owners.
type Admitter interface {
	// Admit says that the client has named an export of the owner. It reports false if
	// the owner has its share of connections.
	Admit(owner string) bool
}

// ErrTooMany says that there are too many connections.
var ErrTooMany = errors.New("too many connections")

// ErrUnknownExport says that there is no export of that name.
var ErrUnknownExport = errors.New("unknown export")

// Told is an error of an Export, or of Options.Open, whose Text may be told to the client.
// Of other errors a client learns nothing.
type Told struct {
	Text string
	Err  error
}

// Error implements error.
func (t *Told) Error() string { return t.Text + ": " + t.Err.Error() }

// Unwrap returns the cause.
func (t *Told) Unwrap() error { return t.Err }

// told is what a client learns of an error: its own text if it may be told, else text.
func told(err error, text string) string {
	if t, ok := errors.AsType[*Told](err); ok {
		return t.Text
	}
	return text
}

// opened is an export that a client named. It is open once for a connection.
type opened struct {
	Export
	name string
	size uint64
}

// flags are the transmission flags of the export.
func (e *opened) flags(chunks bool) uint16 {
	f := uint16(wire.FlagHasFlags | wire.FlagReadOnly | wire.FlagSendFlush | wire.FlagCanMultiConn)
	if chunks {
		f |= wire.FlagSendDF
	}
	if _, ok := e.Export.(Prefetcher); ok {
		f |= wire.FlagSendCache
	}
	return f
}

// preferred is the preferred block size, which must be a power of two of at least 512.
func (e *opened) preferred(most int) uint32 {
	n := e.BlockSize()
	if n < 512 || n > int64(most) || bits.OnesCount64(uint64(n)) != 1 {
		return wire.DefaultPreferredSize
	}
	return uint32(n)
}
