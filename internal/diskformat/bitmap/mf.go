package bitmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/ims"
)

// Our own layout. All integers are little-endian.
//
//	header, 4096 bytes:
//	   0  8  magic "IMSMF\0\0\2"; its last byte is the version
//	   8  4  length of the header, 4096
//	  12  4  block size, 2097152
//	  16  8  size of the disk in bytes
//	  24  8  number of blocks of the disk
//	  32  8  number of those that are not all zeros
//	  40  8  offset of the bitmap, 4096
//	  48  8  length of the bitmap: a bit for each block, filled up with zeros
//	         to a multiple of 4096
//	  56  8  offset of the table
//	  64  8  length of the table: four bytes for each block not all zeros
//	  72  4  CRC-32C of the bitmap
//	  76  4  CRC-32C of the table
//	  80  8  offset of the unit table
//	  88  8  length of the unit table: 256 bytes for each block not all zeros
//	  96  4  unit size, 32768
//	 100     zero
//	4092  4  CRC-32C of the header's bytes before
//	bitmap: bit i%8, least significant first, of byte i/8 for block i; 1 = not
//	        all zeros
//	table:  the CRC-32C of each block whose bit is set, in order; of the disk's
//	        last block as far as the disk goes
//	unit table:
//	        for each of these blocks, in order, the CRC-32C of its 64 units; of
//	        the disk's last unit as far as the disk goes, 0 for those beyond.
//	        It has no checksum of its own: those of a block's units make the
//	        block's, so that any part of it can be read and checked alone
const (
	magic       = "IMSMF\x00\x00\x02"
	magicUsed   = 7 // without the version
	headerSize  = 4096
	bitmapAlign = 4096

	offHeaderSize = 8
	offBlockSize  = 12
	offImageSize  = 16
	offBlocks     = 24
	offDataBlocks = 32
	offBitmap     = 40
	offBitmapLen  = 48
	offTable      = 56
	offTableLen   = 64
	offBitmapCRC  = 72
	offTableCRC   = 76
	offUnits      = 80
	offUnitsLen   = 88
	offUnitSize   = 96
	offReserved   = 100
	offHeaderCRC  = headerSize - 4

	// The first read holds all that is read of a map of 64 GiB of data. It is no
	// longer than the disk's map can need, but not so short that another read is
	// needed for a usual block map.
	mostFirstRead  = 256 << 10
	leastFirstRead = 64 << 10
)

func bitmapLen(blocks int64) int64 {
	return ((blocks+7)/8 + bitmapAlign - 1) / bitmapAlign * bitmapAlign
}

// headLen is the length of what [Parse] reads: all but the unit table.
func headLen(blocks, data int64) int64 { return headerSize + bitmapLen(blocks) + 4*data }

// encodeHead makes what lies before the unit table of the file of a map of Ours.
func (m *Map) encodeHead() []byte {
	n := bitmapLen(m.Blocks())
	b := make([]byte, headLen(m.Blocks(), m.DataBlocks()))
	bitmap, table := b[headerSize:headerSize+n], b[headerSize+n:]
	copy(bitmap, m.data.Bytes(int(n)))
	le := binary.LittleEndian
	for k, sum := range m.sums {
		le.PutUint32(table[4*k:], sum)
	}
	copy(b, magic)
	le.PutUint32(b[offHeaderSize:], headerSize)
	le.PutUint32(b[offBlockSize:], BlockSize)
	le.PutUint64(b[offImageSize:], uint64(m.size))
	le.PutUint64(b[offBlocks:], uint64(m.Blocks()))
	le.PutUint64(b[offDataBlocks:], uint64(m.DataBlocks()))
	le.PutUint64(b[offBitmap:], headerSize)
	le.PutUint64(b[offBitmapLen:], uint64(n))
	le.PutUint64(b[offTable:], uint64(headerSize+n))
	le.PutUint64(b[offTableLen:], uint64(len(table)))
	le.PutUint32(b[offBitmapCRC:], crc32.Checksum(bitmap, castagnoli))
	le.PutUint32(b[offTableCRC:], crc32.Checksum(table, castagnoli))
	le.PutUint64(b[offUnits:], uint64(len(b)))
	le.PutUint64(b[offUnitsLen:], uint64(unitSumsLen*m.DataBlocks()))
	le.PutUint32(b[offUnitSize:], UnitSize)
	le.PutUint32(b[offHeaderCRC:], crc32.Checksum(b[:offHeaderCRC], castagnoli))
	return b
}

// Parse reads the file r of size bytes that lies beside a RAW disk of
// imageSize bytes, at most 1 TiB, with at most two reads of [MaxRead] bytes
// together, without the checksums of units. A file of neither kind gives a map
// of kind Unknown and no error. Errors: ErrCorrupt, ErrIncomplete and
// ErrUnsupported for a file of a known kind that can't be trusted, ErrMismatch
// for one that was made for a disk of another size; or what r returned.
func Parse(r io.ReaderAt, size, imageSize int64) (*Map, error) {
	m, err := parse(r, size, imageSize)
	if err != nil {
		return nil, fmt.Errorf("reading the map of a RAW disk: %w", err)
	}
	return m, nil
}

func parse(r io.ReaderAt, size, imageSize int64) (*Map, error) {
	if err := checkDiskSize(imageSize); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, fmt.Errorf("the size %d is negative", size)
	}
	n := int64(blocks(imageSize))
	first := make([]byte, min(size, mostFirstRead, max(leastFirstRead, headLen(n, n))))
	if err := diskformat.ReadFull(r, first, 0); err != nil {
		return nil, err
	}
	// rest completes what was read first, n bytes in all.
	rest := func(n int64) ([]byte, error) {
		if n <= int64(len(first)) {
			return first[:n], nil
		}
		all := make([]byte, n)
		return all, diskformat.ReadFull(r, all[copy(all, first):], int64(len(first)))
	}
	if len(first) >= len(magic) && string(first[:magicUsed]) == magic[:magicUsed] {
		return parseOurs(first, size, imageSize, rest)
	}
	if text := bytes.TrimLeft(bytes.TrimPrefix(first, []byte("\xef\xbb\xbf")), " \t\r\n"); len(text) == 0 || text[0] != '<' {
		return newUnknown(imageSize, "it is neither a map of ours nor a block map"), nil
	}
	if size > MaxRead {
		return newUnknown(imageSize, fmt.Sprintf("it has %d bytes, a block map is read up to %d", size, MaxRead)), nil
	}
	all, err := rest(size)
	if err != nil {
		return nil, err
	}
	return parseBMAP(all, imageSize)
}

func corruptMF(field, problem string, args ...any) error {
	return diskformat.Errorf(formatMF, diskformat.ErrCorrupt, field, problem, args...)
}

func parseOurs(first []byte, size, imageSize int64, rest func(int64) ([]byte, error)) (*Map, error) {
	if v := first[magicUsed]; v != magic[magicUsed] {
		return nil, diskformat.Errorf(formatMF, diskformat.ErrUnsupported, "header.magic", "it is version %d, right is %d; make the map anew", v, magic[magicUsed])
	}
	if len(first) < headerSize {
		return nil, diskformat.Errorf(formatMF, diskformat.ErrIncomplete, "header",
			"the file ends after %d of its %d bytes; upload it whole", len(first), headerSize)
	}
	le := binary.LittleEndian
	h := first[:headerSize]
	if sum := crc32.Checksum(h[:offHeaderCRC], castagnoli); sum != le.Uint32(h[offHeaderCRC:]) {
		return nil, corruptMF("header", "its checksum is %#08x, its bytes make %#08x", le.Uint32(h[offHeaderCRC:]), sum)
	}
	madeFor := le.Uint64(h[offImageSize:])
	if madeFor == 0 || madeFor > ims.MaxDiskSize {
		return nil, corruptMF("header.image size", "it is %d, right is more than 0 and at most %d", madeFor, int64(ims.MaxDiskSize))
	}
	// All else follows from the size of the disk and the number of data
	// blocks; there is one writer, and it leaves no choice.
	n := int64(blocks(int64(madeFor)))
	count := le.Uint64(h[offDataBlocks:])
	if count > uint64(n) {
		return nil, corruptMF("header.data blocks", "they are %d, the disk has %d blocks", count, n)
	}
	mapLen := bitmapLen(n)
	table := headerSize + mapLen
	head := headLen(n, int64(count))
	for _, f := range []struct {
		name      string
		got, want uint64
	}{
		{"header length", uint64(le.Uint32(h[offHeaderSize:])), headerSize},
		{"block size", uint64(le.Uint32(h[offBlockSize:])), BlockSize},
		{"blocks", le.Uint64(h[offBlocks:]), uint64(n)},
		{"bitmap offset", le.Uint64(h[offBitmap:]), headerSize},
		{"bitmap length", le.Uint64(h[offBitmapLen:]), uint64(mapLen)},
		{"table offset", le.Uint64(h[offTable:]), uint64(table)},
		{"table length", le.Uint64(h[offTableLen:]), 4 * count},
		{"unit table offset", le.Uint64(h[offUnits:]), uint64(head)},
		{"unit table length", le.Uint64(h[offUnitsLen:]), unitSumsLen * count},
		{"unit size", uint64(le.Uint32(h[offUnitSize:])), UnitSize},
	} {
		if f.got != f.want {
			return nil, corruptMF("header."+f.name, "it is %d, right is %d", f.got, f.want)
		}
	}
	for _, c := range h[offReserved:offHeaderCRC] {
		if c != 0 {
			return nil, corruptMF("header", "a reserved byte is not zero")
		}
	}
	whole := head + unitSumsLen*int64(count)
	if size < whole {
		return nil, diskformat.Errorf(formatMF, diskformat.ErrIncomplete, "file",
			"it has %d bytes, the header makes %d; upload it whole", size, whole)
	}
	if size > whole {
		return nil, corruptMF("file", "it has %d bytes, the header makes %d", size, whole)
	}
	if madeFor != uint64(imageSize) {
		return nil, mismatch(formatMF, "header.image size", int64(madeFor), imageSize)
	}
	b, err := rest(head) // at most 4 KiB + 64 KiB + 2 MiB
	if err != nil {
		return nil, err
	}
	if sum := crc32.Checksum(b[headerSize:table], castagnoli); sum != le.Uint32(h[offBitmapCRC:]) {
		return nil, corruptMF("bitmap", "its checksum is %#08x, its bytes make %#08x", le.Uint32(h[offBitmapCRC:]), sum)
	}
	if sum := crc32.Checksum(b[table:], castagnoli); sum != le.Uint32(h[offTableCRC:]) {
		return nil, corruptMF("table", "its checksum is %#08x, its bytes make %#08x", le.Uint32(h[offTableCRC:]), sum)
	}
	data, beyond, ok := bitset.FromBytes(uint32(n), b[headerSize:table])
	if !ok {
		return nil, corruptMF("bitmap", "the bit of block %d is set, the disk has %d blocks", beyond, n)
	}
	if uint64(data.Count()) != count {
		return nil, corruptMF("header.data blocks", "they are %d, the bitmap has %d bits set", count, data.Count())
	}
	m := &Map{kind: Ours, size: imageSize, data: data, sums: make([]uint32, count)}
	for k := range m.sums {
		m.sums[k] = le.Uint32(b[table+4*int64(k):])
	}
	return m, nil
}

func mismatch(f diskformat.Format, field string, madeFor, imageSize int64) error {
	return diskformat.Errorf(f, diskformat.ErrMismatch, field,
		"the map was made for a disk of %d bytes, the RAW file beside it has %d; make the map anew", madeFor, imageSize)
}
