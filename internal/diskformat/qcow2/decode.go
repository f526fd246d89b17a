package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
)

// packed are buffers for compressed bytes: of a cluster of 2 MiB, which an
// entry may give twice as much room.
var packed = sync.Pool{New: func() any { return new([]byte) }}

// decode fills dst, which has the length of a cluster, from the compressed
// bytes at r. The entry tells their length in whole sectors only: other
// clusters may begin in the last of them, and the file may end in it.
func (f *File) decode(dst []byte, r run) error {
	if r.host >= f.fileSize {
		return incomplete("cluster", "its compressed bytes lie at %d of the file, which has %d bytes: the file was cut off", r.host, f.fileSize)
	}
	n := min(r.sectors*sectorSize-r.host%sectorSize, f.fileSize-r.host)
	buf := packed.Get().(*[]byte)
	defer packed.Put(buf)
	if int64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	b := (*buf)[:n]
	if err := diskformat.ReadFull(f.file, b, r.host); err != nil {
		return fmt.Errorf("reading a compressed cluster: %w", err)
	}
	var err error
	if f.h.compression == compressionZstd {
		err = decodeZstd(dst, b)
	} else {
		err = decodeDeflate(dst, b)
	}
	if err != nil {
		if r.host+r.sectors*sectorSize-r.host%sectorSize-f.fileSize >= sectorSize {
			return incomplete("cluster", "its compressed bytes at %d do not end within the file's %d bytes: the file was cut off (%v)", r.host, f.fileSize, err)
		}
		return corrupt("cluster", "its compressed bytes at %d: %v", r.host, err)
	}
	return nil
}

// inflater inflates one cluster at a time.
type inflater struct {
	in  bytes.Reader
	out io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// decodeDeflate takes raw deflate data (RFC 1951), as much as fills dst. What
// follows is not looked at, as in QEMU.
func decodeDeflate(dst, b []byte) error {
	z := inflaters.Get().(*inflater)
	defer inflaters.Put(z)
	z.in.Reset(b)
	if z.out == nil {
		z.out = flate.NewReader(&z.in)
	} else if err := z.out.(flate.Resetter).Reset(&z.in, nil); err != nil {
		return err
	}
	if n, err := io.ReadFull(z.out, dst); err != nil {
		return fmt.Errorf("deflate: they make %d bytes, a cluster has %d: %w", n, len(dst), err)
	}
	return nil
}

// decoder decodes single frames for all files. Its memory is bounded by what
// the callers hand in: it never makes a destination of its own, and a frame's
// window lies in that destination. At most GOMAXPROCS frames at a time.
var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxWindow), // below it, windows are refused too
		zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecodeAllCapLimit(true))
})

// maxWindow is the largest window that libzstd takes, and so QEMU, unless told
// otherwise: a writer that does not know the length beforehand may ask for more
// than a cluster. It costs no memory here.
const maxWindow = 128 << 20

// decodeZstd takes one zstd frame (RFC 8878) that makes exactly dst.
func decodeZstd(dst, b []byte) error {
	n, err := frameLen(b)
	if err != nil {
		return err
	}
	d, err := decoder()
	if err != nil {
		return err
	}
	out, err := d.DecodeAll(b[:n], dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("zstd: they make %d bytes, a cluster has %d", len(out), len(dst))
	}
	return nil
}

var errFrameCut = errors.New("zstd: the frame does not end within the sectors of the cluster")

// frameLen is the length of the zstd frame that b begins with, without decoding
// it. The decoder itself would take what follows for another frame.
func frameLen(b []byte) (int, error) {
	var h zstd.Header
	rest, err := h.DecodeAndStrip(b)
	switch {
	case err != nil:
		return 0, fmt.Errorf("zstd frame header: %w", err)
	case h.Skippable:
		return 0, errors.New("a skippable zstd frame")
	case h.DictionaryID != 0:
		return 0, fmt.Errorf("the zstd frame wants the dictionary %d, a cluster is compressed alone", h.DictionaryID)
	}
	for last := false; !last; {
		if len(rest) < 3 {
			return 0, errFrameCut
		}
		block := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		last = block&1 != 0
		n := int(block >> 3)
		if block>>1&3 == 1 {
			n = 1 // one byte, repeated
		}
		if rest = rest[3:]; len(rest) < n {
			return 0, errFrameCut
		}
		rest = rest[n:]
	}
	if h.HasCheckSum {
		if len(rest) < 4 {
			return 0, errFrameCut
		}
		rest = rest[4:]
	}
	return len(b) - len(rest), nil
}
