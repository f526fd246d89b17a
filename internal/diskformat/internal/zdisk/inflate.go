package zdisk

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/quickims/quickims/internal/diskformat"
)

// ZlibHeaderSize is the length of the header that opens a zlib stream.
const ZlibHeaderSize = 2

// syncFlush is what a deflate sync flush ends with: an empty stored block.
var syncFlush = []byte{0x00, 0x00, 0xff, 0xff}

// inflater holds about 50 KiB, most of it the decoder's tables and window.
type inflater struct {
	in  bytes.Reader
	out io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// CheckZlibHeader checks the two bytes that open a zlib stream (RFC 1950):
// deflate, a window of at most 32 KiB, no preset dictionary.
func CheckZlibHeader(f diskformat.Format, b []byte) error {
	if len(b) < ZlibHeaderSize {
		return diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload", "it ends within the zlib header")
	}
	cmf, flg := uint32(b[0]), uint32(b[1])
	if cmf&0x0f != 8 || cmf>>4 > 7 || (cmf<<8|flg)%31 != 0 || flg&0x20 != 0 {
		return diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload", "it does not begin as a zlib stream: % x", b[:2])
	}
	return nil
}

// Inflate fills dst from deflate data that ends in a sync flush. dict is what
// the stream put out before, of which the last 32 KiB are used; nil at its
// beginning. All of payload must be used and make exactly len(dst) bytes. Decoders
// are used again; at most as many exist as blocks are inflated at once.
func Inflate(f diskformat.Format, dst, payload, dict []byte) error {
	if !bytes.HasSuffix(payload, syncFlush) {
		return diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload", "it does not end in a zlib sync flush")
	}
	z := inflaters.Get().(*inflater)
	defer z.free()
	z.in.Reset(payload)
	dict = dict[max(0, len(dict)-32<<10):]
	if z.out == nil {
		z.out = flate.NewReaderDict(&z.in, dict)
	} else if err := z.out.(flate.Resetter).Reset(&z.in, dict); err != nil {
		return err
	}
	if n, err := io.ReadFull(z.out, dst); err != nil {
		return diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload",
			"it inflates to %d bytes, a block has %d: %v", n, len(dst), err)
	}
	// No final block follows a sync flush, so the stream seems to end early;
	// anything else is more than a block.
	var one [1]byte
	n, err := io.ReadFull(z.out, one[:])
	if n != 0 || z.in.Len() != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		return diskformat.Errorf(f, diskformat.ErrCorrupt, "record payload",
			"more follows the %d bytes of the block", len(dst))
	}
	return nil
}

// free keeps z for the next block, without the payload.
func (z *inflater) free() {
	z.in.Reset(nil)
	inflaters.Put(z)
}
