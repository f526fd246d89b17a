package zvhd2

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// decoder decodes frames for all files. Its memory is bounded by what the callers hand
// in: it never makes a destination of its own, and a frame's window lies in that
// destination. At most GOMAXPROCS calls at a time.
var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxBlockSize),
		zstd.WithDecoderMaxWindow(MaxBlockSize),
		zstd.WithDecodeAllCapLimit(true))
})

// DecodeSlack is how many bytes of capacity behind a block let zstd copy in strides
// that may end behind it: that makes decoding half as fast again. The decoder's
// strides are of 16 bytes (compressedBlockOverAlloc in klauspost/compress).
const DecodeSlack = 32

// decodeRecord decodes rec, the whole record of block, into dst, which has the
// length of a block. Up to DecodeSlack bytes of its capacity behind that are
// overwritten.
func decodeRecord(method uint8, dst, rec []byte, block uint32) error {
	payload, err := zdisk.Payload(diskformat.ZVHD2, rec, block)
	if err != nil {
		return err
	}
	if method == methodZlib {
		if err := zdisk.CheckZlibHeader(diskformat.ZVHD2, payload); err != nil {
			return err
		}
		return zdisk.Inflate(diskformat.ZVHD2, dst, payload[zdisk.ZlibHeaderSize:], nil)
	}
	if err := checkFrames(payload, len(dst)); err != nil {
		return err
	}
	return decodeZstd(dst, payload)
}

// decodeZstd decodes zstd frames that were checked into dst, which they must fill.
func decodeZstd(dst, frames []byte) error {
	d, err := decoder()
	if err != nil {
		return err
	}
	out, err := d.DecodeAll(frames, dst[:0:min(cap(dst), len(dst)+DecodeSlack)])
	if err != nil {
		return corrupt("record payload", "zstd: %v", err)
	}
	if len(out) != len(dst) {
		return corrupt("record payload", "it decodes to %d bytes instead of %d", len(out), len(dst))
	}
	return nil
}

// checkFrames checks, without decoding, that payload is zstd frames that together say
// they hold size bytes, and nothing else: one of the whole block, or the 32 of a framed
// file, whose table is not needed for this.
func checkFrames(payload []byte, size int) error {
	left := uint64(size)
	for len(payload) > 0 {
		h, frame, err := nextFrame(payload)
		if err != nil {
			return err
		}
		if h.FrameContentSize > left {
			return corrupt("record payload", "its zstd frames say that they hold more than the %d bytes of a block", size)
		}
		left -= h.FrameContentSize
		payload = payload[len(frame):]
	}
	if left > 0 {
		return corrupt("record payload", "its zstd frames say that they hold %d bytes, a block has %d", uint64(size)-left, size)
	}
	return nil
}
