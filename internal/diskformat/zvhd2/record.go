package zvhd2

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// decoder decodes single frames for all files. Its memory is bounded by what
// the callers hand in: it never makes a destination of its own, and a frame's
// window lies in that destination. At most GOMAXPROCS frames at a time.
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
	if err := checkFrame(payload, len(dst)); err != nil {
		return err
	}
	d, err := decoder()
	if err != nil {
		return err
	}
	out, err := d.DecodeAll(payload, dst[:0:min(cap(dst), len(dst)+DecodeSlack)])
	if err != nil {
		return corrupt("record payload", "zstd: %v", err)
	}
	if len(out) != len(dst) {
		return corrupt("record payload", "it decodes to %d bytes, a block has %d", len(out), len(dst))
	}
	return nil
}

// checkFrame checks, without decoding, that payload is exactly one zstd frame
// (RFC 8878) that says it holds size bytes, and nothing else. The decoder
// alone would also take several frames in a row, and skippable ones.
func checkFrame(payload []byte, size int) error {
	const f = "record payload"
	var h zstd.Header
	rest, err := h.DecodeAndStrip(payload)
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch):
		return corrupt(f, "it does not begin as a zstd frame: % x", payload[:min(4, len(payload))])
	case err != nil:
		return corrupt(f, "zstd frame header: %v", err)
	case h.Skippable:
		return corrupt(f, "it begins with a skippable zstd frame")
	case h.DictionaryID != 0:
		return corrupt(f, "its zstd frame wants the dictionary %d, a block is compressed alone", h.DictionaryID)
	case !h.HasFCS || h.FrameContentSize != uint64(size):
		return corrupt(f, "its zstd frame does not say that it holds a block of %d bytes (it says %d)", size, h.FrameContentSize)
	}
	for last := false; !last; {
		if len(rest) < 3 {
			return corrupt(f, "it ends within a zstd frame")
		}
		b := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		last = b&1 != 0
		n := int(b >> 3)
		if b>>1&3 == 1 {
			n = 1 // one byte, repeated
		}
		if rest = rest[3:]; len(rest) < n {
			return corrupt(f, "it ends within a zstd frame")
		}
		rest = rest[n:]
	}
	sum := 0
	if h.HasCheckSum {
		sum = 4
	}
	if len(rest) != sum {
		return corrupt(f, "%d bytes follow the last block of its zstd frame, right are %d", len(rest), sum)
	}
	return nil
}
