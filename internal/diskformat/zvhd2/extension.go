package zvhd2

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// The extension protects the index, which the published format leaves without
// a checksum. It lies behind the first 512 bytes of the footer, where the published
// reader does not look:
//
//	off size field
//	  0    8 magic "IMSXTND1"
//	  8    4 version: 1, or 2 in a framed file
//	 12    4 length: 64, or 128 in a framed file
//	 16    8 size of the file in bytes
//	 24    4 CRC-32C of the index, all its segments
//	 28    4 CRC-32C of the bitmap, all its segments
//	 32    4 CRC-32C of the footer's first 512 bytes
//	 36   24 zero
//	 60    4 CRC-32C of the 60 bytes before
//
// and in a framed file, where N is the number of stored blocks:
//
//	 64    8 offset of the frame table
//	 72    8 length of the frame table, 256 N
//	 80    8 offset of the frame sums
//	 88    8 length of the frame sums, 4 N
//	 96    4 size of a unit, 65536
//	100    4 units in a block, 32
//	104    4 CRC-32C of the frame sums
//	108   16 zero
//	124    4 CRC-32C of the 124 bytes before
//
// The first 64 bytes have their own checksum in both versions, so that a reader of
// version 1 alone tells a newer file from a damaged one.
const (
	extOffset       = zdisk.HeaderSize
	extSize         = 64
	extFramedSize   = 128
	extMagic        = "IMSXTND1"
	extWholeBlocks  = 1 // version
	extFramedBlocks = 2 // version
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type extension struct {
	fileSize  uint64
	indexCRC  uint32
	bitmapCRC uint32
	frames    *frameParts // nil: the records are whole blocks
}

// put writes the extension into the footer, whose first 512 bytes are final.
func (e extension) put(footer []byte) {
	le := binary.LittleEndian
	b := footer[extOffset : extOffset+extFramedSize]
	copy(b, extMagic)
	le.PutUint32(b[8:], extWholeBlocks)
	le.PutUint32(b[12:], extSize)
	if e.frames != nil {
		le.PutUint32(b[8:], extFramedBlocks)
		le.PutUint32(b[12:], extFramedSize)
	}
	le.PutUint64(b[16:], e.fileSize)
	le.PutUint32(b[24:], e.indexCRC)
	le.PutUint32(b[28:], e.bitmapCRC)
	le.PutUint32(b[32:], crc32.Checksum(footer[:zdisk.HeaderSize], castagnoli))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	if e.frames != nil {
		e.frames.put(b)
		le.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli))
	}
}

// readExtension reads the extension of a footer that has passed checkFooter.
// Without the magic there is none: nil and no error. With it, all must hold.
func readExtension(h *header, footer []byte, size int64) (*extension, error) {
	const f = "footer extension"
	le := binary.LittleEndian
	b := footer[extOffset : extOffset+extFramedSize]
	if string(b[:8]) != extMagic {
		return nil, nil
	}
	if sum := crc32.Checksum(b[:60], castagnoli); sum != le.Uint32(b[60:]) {
		return nil, corrupt(f, "its checksum is %#08x, its bytes make %#08x", le.Uint32(b[60:]), sum)
	}
	v, n := le.Uint32(b[8:]), le.Uint32(b[12:])
	framed := v == extFramedBlocks && n == extFramedSize
	if !framed && (v != extWholeBlocks || n != extSize) {
		return nil, unsupported(f, "version %d of %d bytes; version %d of %d bytes and version %d of %d are read",
			v, n, extWholeBlocks, extSize, extFramedBlocks, extFramedSize)
	}
	if got := le.Uint64(b[16:]); got != uint64(size) {
		return nil, corrupt(f, "the file was written with %d bytes and has %d", got, size)
	}
	if sum := crc32.Checksum(footer[:zdisk.HeaderSize], castagnoli); sum != le.Uint32(b[32:]) {
		return nil, corrupt(f, "it gives the footer's checksum as %#08x, its bytes make %#08x", le.Uint32(b[32:]), sum)
	}
	// Only this package writes it, and always with the published segments, so
	// that the amount that is read for the checksum is bounded.
	if want := segments(h.entries()) * indexSegmentSize; int64(h.indexSize) != want {
		return nil, corrupt("footer.index_size", "it is %d, %d entries fill segments of %d bytes", h.indexSize, h.entries(), want)
	}
	e := &extension{
		fileSize:  uint64(size),
		indexCRC:  le.Uint32(b[24:]),
		bitmapCRC: le.Uint32(b[28:]),
	}
	if framed {
		if sum := crc32.Checksum(b[:124], castagnoli); sum != le.Uint32(b[124:]) {
			return nil, corrupt(f, "its checksum is %#08x, its %d bytes make %#08x", le.Uint32(b[124:]), extFramedSize, sum)
		}
		var err error
		if e.frames, err = readFrameParts(h, b, size); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// segments is the number of index segments that hold n entries.
func segments(n uint32) int64 {
	const each = indexSegmentSize / indexEntrySize
	return (int64(n) + each - 1) / each
}
