package zvhd2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// A framed file stores each block not in one zstd frame but in 32, of a unit of 64 KiB
// each, one after the other. To a decoder that goes on after the end of a frame, as
// zstd's own does, that is the same block. A frame table, which other readers do
// not see, says where each frame ends and what its unit must hash to, so that a unit
// is read, decoded and checked without the rest of its block.
//
//	header
//	records
//	copy of the header            ends the records
//	frame table                   256 bytes for each record, then zeros to a whole page
//	copy of the header            ends right before the index, as in other files
//	index
//	bitmap
//	frame sums                    4 bytes for each record, then zeros to a whole page
//	footer
//
// An entry of the frame table has 8 bytes for each unit of the block:
//
//	bits 0-27   where the unit's frame ends, in bytes of the record's payload
//	bits 28-30  zero
//	bit 31      1: the unit is all zeros. It has a frame all the same
//	bits 32-63  CRC-32C of the unit's 65536 bytes
//
// In the last block of a disk the units go on beyond the disk's end, with zeros. The
// frame sums are the CRC-32C of each entry. They lie within the file's last MiB, are
// checked at opening, and stay in memory, so that one entry, read alone, proves itself.
const (
	// UnitSize is what a frame of a framed file holds, in bytes.
	UnitSize = 64 << 10
	// UnitsInBlock is the number of units, and of frames, of a stored block.
	UnitsInBlock = DefaultBlockSize / UnitSize
	// FrameEntrySize is the size in bytes of a block's entry in the frame table.
	FrameEntrySize = UnitsInBlock * unitEntrySize

	unitEntrySize = 8
	unitIsZero    = 1 << 31
	maxFrameEnd   = 1<<28 - 1

	// MaxFrame is the length in bytes of the longest frame that is read. One that
	// stores its unit as it is takes 65550 bytes.
	MaxFrame = UnitSize + 64
	// minFrame is that of the shortest: magic, descriptor, content size, one block
	// that repeats a byte, checksum.
	minFrame = 4 + 1 + 2 + 3 + 1 + 4
	// maxZeroFrame bounds the frame of a unit of zeros, which takes 15 bytes.
	maxZeroFrame = 64
)

// zeroUnitCRC is the CRC-32C of a unit of zeros.
var zeroUnitCRC = crc32.Checksum(make([]byte, UnitSize), castagnoli)

// frameParts says where frame table and frame sums lie.
type frameParts struct {
	table, tableLen uint64
	sums, sumsLen   uint64
	sumsCRC         uint32
}

// wholePages is n bytes rounded up to whole pages.
func wholePages(n uint64) uint64 { return (n + pageSize - 1) / pageSize * pageSize }

// put writes the second half of the extension b.
func (p *frameParts) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[64:], p.table)
	le.PutUint64(b[72:], p.tableLen)
	le.PutUint64(b[80:], p.sums)
	le.PutUint64(b[88:], p.sumsLen)
	le.PutUint32(b[96:], UnitSize)
	le.PutUint32(b[100:], UnitsInBlock)
	le.PutUint32(b[104:], p.sumsCRC)
}

// readFrameParts reads the second half of the extension b, whose checksums hold, in a
// file of size bytes. The order of the parts leaves nothing open: each offset and
// length must be the one that follows from the number of stored blocks.
func readFrameParts(h *header, b []byte, size int64) (*frameParts, error) {
	const f = "footer extension"
	le := binary.LittleEndian
	p := &frameParts{
		table: le.Uint64(b[64:]), tableLen: le.Uint64(b[72:]),
		sums: le.Uint64(b[80:]), sumsLen: le.Uint64(b[88:]),
		sumsCRC: le.Uint32(b[104:]),
	}
	if unit, n := le.Uint32(b[96:]), le.Uint32(b[100:]); unit != UnitSize || n != UnitsInBlock {
		return nil, unsupported(f, "%d units of %d bytes in a block; %d of %d are read", n, unit, UnitsInBlock, UnitSize)
	}
	for _, c := range b[36:60] {
		if c != 0 {
			return nil, corrupt(f, "reserved bytes 36 to 59 are not zero")
		}
	}
	for _, c := range b[108:124] {
		if c != 0 {
			return nil, corrupt(f, "reserved bytes 108 to 123 are not zero")
		}
	}
	switch {
	case h.compression != methodZstd:
		return nil, corrupt("footer.compress_method", "it is %d; a framed file has %d (zstd)", h.compression, methodZstd)
	case h.blockSize != DefaultBlockSize:
		return nil, corrupt("footer.block_size", "it is %d; a framed file has blocks of %d bytes", h.blockSize, DefaultBlockSize)
	case h.indexByBlk != 0:
		return nil, corrupt("footer.index_contains_zero_blk", "it is %d; the index of a framed file is dense (0)", h.indexByBlk)
	}
	// index, bitmap and their lengths were checked to lie within the file, and there are
	// at most 2^19 blocks: nothing below overflows, but what p itself says is not added
	// to before it was compared.
	n := uint64(h.dataBlocks)
	tableLen, sumsLen := n*FrameEntrySize, n*4
	sums := h.bitmap + uint64(h.bitmapSize)
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"length of the frame table", p.tableLen, tableLen},
		{"length of the frame sums", p.sumsLen, sumsLen},
		{"offset of the bitmap", h.bitmap, h.index + uint64(h.indexSize)},
		{"offset of the frame sums", p.sums, sums},
		{"offset of the footer", uint64(size) - pageSize, sums + wholePages(sumsLen)},
	} {
		if c.got != c.want {
			return nil, corrupt(f, "the %s is %d; %d stored blocks make it %d", c.what, c.got, n, c.want)
		}
	}
	// Before the table are the header and a copy at least, behind it another copy.
	before := pageSize + wholePages(tableLen)
	if h.index < before+2*pageSize || p.table != h.index-before {
		return nil, corrupt(f, "the offset of the frame table is %d; its %d bytes and a copy of the header lie before the index at %d",
			p.table, tableLen, h.index)
	}
	return p, nil
}

// recordsEnd is where the copy of the header begins that all records precede.
func (p *frameParts) recordsEnd() int64 { return int64(p.table) - pageSize }

// readFrameSums reads the frame sums and checks them.
func (s *source) readFrameSums(p *frameParts) ([]uint32, error) {
	b, err := s.get(int64(p.sums), int64(p.sumsLen), nil)
	if err != nil {
		return nil, fmt.Errorf("reading the frame sums: %w", err)
	}
	if sum := crc32.Checksum(b, castagnoli); sum != p.sumsCRC {
		return nil, corrupt("frame sums", "their bytes make the checksum %#08x, the footer extension says %#08x", sum, p.sumsCRC)
	}
	sums := make([]uint32, len(b)/4)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return sums, nil
}

// Framed tells whether the file has a frame table, so that each unit of UnitSize bytes
// can be read without the rest of its block. The other methods about frames are for
// such files alone.
func (f *File) Framed() bool { return f.frames != nil }

// FrameTable tells where in the file the frame table lies, in bytes: FrameEntrySize for
// each stored block, in order.
func (f *File) FrameTable() (off, length int64) {
	return int64(f.frames.table), int64(f.frames.tableLen)
}

// FrameEntry tells where in the frame table the entry of a block begins, in bytes. The
// block must be stored. It takes constant time and does no I/O.
func (f *File) FrameEntry(block uint32) int64 {
	return int64(f.x.stored.Rank(block)) * FrameEntrySize
}

// CheckFrameEntries checks p, whole entries as they lie in the frame table from its byte
// off on, which is a multiple of FrameEntrySize: against the frame sums, and against what
// an entry can say of its record. Any fault is an ErrCorrupt.
func (f *File) CheckFrameEntries(p []byte, off int64) error {
	for k := off / FrameEntrySize; len(p) >= FrameEntrySize; k, p = k+1, p[FrameEntrySize:] {
		e := p[:FrameEntrySize]
		if k < 0 || k >= int64(len(f.frameSums)) {
			return fmt.Errorf("checking entry %d of a frame table that has %d", k, len(f.frameSums))
		}
		if sum := crc32.Checksum(e, castagnoli); sum != f.frameSums[k] {
			return corrupt("frame table", "the bytes of entry %d make the checksum %#08x, the frame sums say %#08x", k, sum, f.frameSums[k])
		}
		_, length := f.x.at(uint32(k))
		if err := checkFrameEntry(e, k, length); err != nil {
			return err
		}
	}
	if len(p) != 0 {
		return fmt.Errorf("checking a frame table: %d bytes are no whole entry of %d", len(p), FrameEntrySize)
	}
	return nil
}

// checkFrameEntry checks what entry e, the k-th, says of a record of length bytes.
func checkFrameEntry(e []byte, k, length int64) error {
	prev := uint32(0)
	for u := range UnitsInBlock {
		bits, sum := binary.LittleEndian.Uint32(e[u*unitEntrySize:]), binary.LittleEndian.Uint32(e[u*unitEntrySize+4:])
		end := bits & maxFrameEnd
		n := int64(end) - int64(prev)
		switch {
		case bits&^(unitIsZero|maxFrameEnd) != 0:
			return corrupt("frame table", "entry %d, unit %d: reserved bits are set: %#08x", k, u, bits)
		case n < minFrame || n > MaxFrame:
			return corrupt("frame table", "entry %d, unit %d: its frame ends at %d, the one before at %d; a frame has %d to %d bytes", k, u, end, prev, minFrame, MaxFrame)
		case bits&unitIsZero != 0 && n > maxZeroFrame:
			return corrupt("frame table", "entry %d, unit %d: a frame of %d bytes is said to be zeros, which take %d at most", k, u, n, maxZeroFrame)
		case bits&unitIsZero != 0 && sum != zeroUnitCRC:
			return corrupt("frame table", "entry %d, unit %d: it is said to be zeros, whose checksum is %#08x, not %#08x", k, u, zeroUnitCRC, sum)
		}
		prev = end
	}
	if want := zdisk.RecordLen(int64(prev)); want != length {
		return corrupt("frame table", "entry %d: frames of %d bytes make a record of %d, the index says %d", k, prev, want, length)
	}
	return nil
}

// Frame is where in the file a unit lies, in bytes, and what it must hash to.
type Frame struct {
	Offset, Length int64  // Length is at most MaxFrame
	Sum            uint32 // CRC-32C of the unit's UnitSize bytes
	Zero           bool   // the unit is zeros; its frame need not be read
}

// Frame tells where unit u of a stored block lies, from 0 to less than UnitsInBlock.
// entry is the block's, which CheckFrameEntries has passed.
func (f *File) Frame(entry []byte, block uint32, u int) Frame {
	record, _, _ := f.Record(block)
	start := uint32(0)
	if u > 0 {
		start = binary.LittleEndian.Uint32(entry[(u-1)*unitEntrySize:]) & maxFrameEnd
	}
	bits := binary.LittleEndian.Uint32(entry[u*unitEntrySize:])
	return Frame{
		Offset: record + zdisk.RecordHeadSize + int64(start),
		Length: int64(bits&maxFrameEnd) - int64(start),
		Sum:    binary.LittleEndian.Uint32(entry[u*unitEntrySize+4:]),
		Zero:   bits&unitIsZero != 0,
	}
}

// DecodeFrame decodes stored, the frame of unit u of block, into dst, which has UnitSize
// bytes and maybe, as for [File.DecodeRecord], a capacity of DecodeSlack more, and checks
// that it hashes to sum. What lies beyond OrigSize is zero. Any fault is an ErrCorrupt
// and leaves dst unspecified. It holds no memory that stored asks for.
func (f *File) DecodeFrame(dst, stored []byte, block uint32, u int, sum uint32) error {
	if err := decodeFrame(dst, stored, sum); err != nil {
		return fmt.Errorf("decoding unit %d of block %d: %w", u, block, err)
	}
	f.clearTail(dst, int64(block)*DefaultBlockSize+int64(u)*UnitSize)
	return nil
}

func decodeFrame(dst, stored []byte, sum uint32) error {
	const field = "frame"
	if len(dst) != UnitSize {
		return fmt.Errorf("decoding a unit of %d bytes into %d", UnitSize, len(dst))
	}
	h, frame, err := nextFrame(stored)
	switch {
	case err != nil:
		return err
	case len(frame) != len(stored):
		return corrupt(field, "%d bytes follow it within its range", len(stored)-len(frame))
	case h.FrameContentSize != UnitSize:
		return corrupt(field, "it says that it holds %d bytes, a unit has %d", h.FrameContentSize, UnitSize)
	case !h.SingleSegment && h.WindowSize > UnitSize:
		return corrupt(field, "it wants a window of %d bytes for a unit of %d", h.WindowSize, UnitSize)
	}
	if err := decodeZstd(dst, stored); err != nil {
		return err
	}
	if got := crc32.Checksum(dst, castagnoli); got != sum {
		return corrupt(field, "its unit has the checksum %#08x, the frame table says %#08x", got, sum)
	}
	return nil
}

// appendFrameEntry appends to dst the entry of a block whose record has the payload and whose
// content is plain.
func appendFrameEntry(dst, payload, plain []byte) ([]byte, error) {
	rest := payload
	for u := range UnitsInBlock {
		_, frame, err := nextFrame(rest)
		if err != nil {
			return nil, err
		}
		rest = rest[len(frame):]
		unit := plain[u*UnitSize:][:UnitSize]
		bits := uint32(len(payload) - len(rest))
		if sparse.IsZero(unit) {
			bits |= unitIsZero
		}
		dst = binary.LittleEndian.AppendUint32(dst, bits)
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(unit, castagnoli))
	}
	if len(rest) != 0 {
		return nil, corrupt("record payload", "%d bytes follow its %d frames", len(rest), UnitsInBlock)
	}
	return dst, nil
}

// nextFrame tells the zstd frame (RFC 8878) at the front of p, without decoding it: one
// that says how much it holds, more than nothing, and needs nothing else to be decoded.
// The decoder alone would also take others, and skippable ones.
func nextFrame(p []byte) (h zstd.Header, frame []byte, err error) {
	const f = "record payload"
	rest, err := h.DecodeAndStrip(p)
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch):
		return h, nil, corrupt(f, "it does not begin as a zstd frame: % x", p[:min(4, len(p))])
	case err != nil:
		return h, nil, corrupt(f, "zstd frame header: %v", err)
	case h.Skippable:
		return h, nil, corrupt(f, "it has a skippable zstd frame")
	case h.DictionaryID != 0:
		return h, nil, corrupt(f, "its zstd frame wants the dictionary %d, a block is compressed alone", h.DictionaryID)
	case !h.HasFCS || h.FrameContentSize == 0:
		return h, nil, corrupt(f, "its zstd frame does not say how much it holds, or nothing")
	}
	for last := false; !last; {
		if len(rest) < 3 {
			return h, nil, corrupt(f, "it ends within a zstd frame")
		}
		b := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		last = b&1 != 0
		n := int(b >> 3)
		if b>>1&3 == 1 {
			n = 1 // one byte, repeated
		}
		if rest = rest[3:]; len(rest) < n {
			return h, nil, corrupt(f, "it ends within a zstd frame")
		}
		rest = rest[n:]
	}
	if h.HasCheckSum {
		if len(rest) < 4 {
			return h, nil, corrupt(f, "it ends within the checksum of a zstd frame")
		}
		rest = rest[4:]
	}
	return h, p[:len(p)-len(rest)], nil
}

// readUnits fills p from within a stored block of a framed file, unit by unit.
func (f *File) readUnits(p []byte, block uint32, within int64) error {
	for len(p) > 0 {
		u, from := int(within/UnitSize), within%UnitSize
		part := p[:min(int64(len(p)), UnitSize-from)]
		err := f.readKept(part, int64(block)*UnitsInBlock+int64(u), from, func(dst []byte) error {
			return f.readUnit(dst, block, u)
		})
		if err != nil {
			return err
		}
		p, within = p[len(part):], within+int64(len(part))
	}
	return nil
}

// readUnit reads, decodes and checks a unit of a stored block.
func (f *File) readUnit(dst []byte, block uint32, u int) error {
	entry, err := f.frameEntry(block)
	if err != nil {
		return fmt.Errorf("reading block %d: %w", block, err)
	}
	frame := f.Frame(entry[:], block, u)
	if frame.Zero {
		clear(dst)
		return nil
	}
	buf := f.records.Get().(*[]byte)
	defer f.records.Put(buf)
	if int64(cap(*buf)) < frame.Length {
		*buf = make([]byte, MaxFrame)
	}
	stored := (*buf)[:frame.Length]
	if err := diskformat.ReadFull(f.r, stored, frame.Offset); err != nil {
		return fmt.Errorf("reading unit %d of block %d: %w", u, block, err)
	}
	return f.DecodeFrame(dst, stored, block, u, frame.Sum)
}

// frameEntry returns the entry of a stored block, checked. The last one is kept.
func (f *File) frameEntry(block uint32) (entry [FrameEntrySize]byte, err error) {
	f.mu.Lock()
	if f.lastEntry != nil && f.lastEntryOf == block {
		entry = *f.lastEntry
		f.mu.Unlock()
		return entry, nil
	}
	f.mu.Unlock()
	if err := f.readFrameEntry(entry[:], f.FrameEntry(block)); err != nil {
		return entry, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastEntry, f.lastEntryOf = &entry, block
	return entry, nil
}

// readFrameEntry reads and checks the entry at byte off of the frame table.
func (f *File) readFrameEntry(entry []byte, off int64) error {
	if err := diskformat.ReadFull(f.r, entry, int64(f.frames.table)+off); err != nil {
		return fmt.Errorf("reading the frame table: %w", err)
	}
	return f.CheckFrameEntries(entry, off)
}
