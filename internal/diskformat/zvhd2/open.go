package zvhd2

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// How a file is read at opening. One read of the last tailSize bytes holds
// footer, bitmap and index of any file with 64 GiB of data or less; what else
// there is of index and bitmap comes with one more read if it lies within
// maxSpan bytes, which is so for every file that the published code writes
// with its block size of 2 MiB (8 MiB + 64 KiB at 1 TiB), and with the frame sums
// for every framed file (2 MiB + 4 KiB more). Else it is read in pieces of at most
// chunkSize.
const (
	tailSize  = 1 << 20
	maxSpan   = 10<<20 + 512<<10
	chunkSize = 4 << 20
)

// Open reads and checks the footer, the bitmap and the index of the file r of
// size bytes, with one read of the last 1 MiB and at most one more in a file
// of the published block size. What Open holds afterwards is about 6.2 bytes
// for each stored block, 10.2 in a framed file.
//
// Errors are those of package diskformat: ErrWrongFormat when nothing of the
// file is ZVHD2, ErrIncomplete when it was cut off, ErrUnsupported for a file
// without index or beyond a limit, ErrCorrupt for any other contradiction; or
// what r returned. r must stay readable for as long as the File is used, and
// must be safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("opening a ZVHD2 file: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt, size int64) (*File, error) {
	if size > MaxFileSize {
		return nil, unsupported("file size", "it is %d, at most %d is read", size, int64(MaxFileSize))
	}
	if size < MinFileSize || size%pageSize != 0 {
		return nil, notWhole(r, size, fmt.Sprintf("it has %d bytes; right is a multiple of %d, at least %d", size, pageSize, MinFileSize))
	}
	s := source{r: r, tail: make([]byte, min(size, tailSize))}
	s.tailOff = size - int64(len(s.tail))
	if err := diskformat.ReadFull(r, s.tail, s.tailOff); err != nil {
		return nil, fmt.Errorf("reading the file's end: %w", err)
	}
	footer := s.tail[len(s.tail)-pageSize:]
	if !hasCookie(footer) {
		return nil, notWhole(r, size, "its last 4096 bytes are no footer")
	}
	h := parseHeader(footer)
	if err := checkFooter(&h, footer, size); err != nil {
		return nil, err
	}
	ext, err := readExtension(&h, footer, size)
	if err != nil {
		return nil, err
	}
	if err := s.fetch(&h, ext); err != nil {
		return nil, err
	}
	bitmap, err := s.get(int64(h.bitmap), int64(h.bitmapSize), nil)
	if err != nil {
		return nil, fmt.Errorf("reading the bitmap: %w", err)
	}
	if ext != nil {
		if sum := crc32.Checksum(bitmap, castagnoli); sum != ext.bitmapCRC {
			return nil, corrupt("bitmap", "its bytes make the checksum %#08x, the footer extension says %#08x", sum, ext.bitmapCRC)
		}
	}
	x, err := newIndex(&h, bitmap)
	if err != nil {
		return nil, err
	}
	framed := ext != nil && ext.frames != nil
	if framed {
		x.end = ext.frames.recordsEnd()
	}
	if err := s.readIndex(&h, ext, x); err != nil {
		return nil, err
	}
	f := newFile(r, size, h, x)
	f.footer, f.extended = [zdisk.HeaderSize]byte(footer), ext != nil
	if framed {
		f.frames = ext.frames
		if f.frameSums, err = s.readFrameSums(ext.frames); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// notWhole says what a file without a sound end is. Only its first bytes tell
// whether it was ever ZVHD2.
func notWhole(r io.ReaderAt, size int64, problem string) error {
	head := make([]byte, min(max(size, 0), cookieUsed))
	if err := diskformat.ReadFull(r, head, 0); err != nil {
		return fmt.Errorf("reading the file's front: %w", err)
	}
	if hasCookie(head) {
		return incomplete("footer", "%s: the file was cut off; upload it whole", problem)
	}
	return diskformat.Errorf(diskformat.ZVHD2, diskformat.ErrWrongFormat, "",
		"neither the front nor the end of the file carries %q", cookie[:cookieUsed])
}

// source is the file with the pieces of it that were read already.
type source struct {
	r       io.ReaderAt
	tail    []byte
	tailOff int64
	span    []byte // index, bitmap and frame sums together, if that took a read of its own
	spanOff int64
}

// fetch reads what lies of index, bitmap and frame sums before the tail, if it is near
// enough together for one read.
func (s *source) fetch(h *header, ext *extension) error {
	lo := int64(h.bitmap)
	hi := lo + int64(h.bitmapSize)
	if n := int64(h.entries()) * indexEntrySize; n > 0 {
		lo, hi = min(lo, int64(h.index)), max(hi, int64(h.index)+int64(h.indexSize))
	}
	if ext != nil && ext.frames != nil { // they follow the bitmap
		hi = int64(ext.frames.sums + ext.frames.sumsLen)
	}
	if lo >= s.tailOff || hi-lo > maxSpan {
		return nil
	}
	span := make([]byte, hi-lo)
	front := min(hi, s.tailOff) - lo
	if err := diskformat.ReadFull(s.r, span[:front], lo); err != nil {
		return fmt.Errorf("reading index and bitmap: %w", err)
	}
	copy(span[front:], s.tail)
	s.span, s.spanOff = span, lo
	return nil
}

// get returns n bytes at off: of what was read already, or read into buf.
func (s *source) get(off, n int64, buf []byte) ([]byte, error) {
	if off >= s.tailOff {
		return s.tail[off-s.tailOff:][:n], nil
	}
	if s.span != nil && off >= s.spanOff && off+n <= s.spanOff+int64(len(s.span)) {
		return s.span[off-s.spanOff:][:n], nil
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	return buf, diskformat.ReadFull(s.r, buf, off)
}

// readIndex checks the index and keeps it in x.
func (s *source) readIndex(h *header, ext *extension, x *index) error {
	used := int64(h.entries()) * indexEntrySize
	end := used
	if ext != nil {
		end = int64(h.indexSize) // the checksum covers the unused entries too
	}
	var crc uint32
	var buf []byte
	step := int64(chunkSize)
	if int64(h.index) >= s.tailOff || s.span != nil {
		step = max(end, 1) // it lies in memory
	}
	for at := int64(0); at < end; at += step {
		n := min(step, end-at)
		p, err := s.get(int64(h.index)+at, n, buf)
		if err != nil {
			return fmt.Errorf("reading the index: %w", err)
		}
		if s.span == nil {
			buf = p[:0:cap(p)]
		}
		if ext != nil {
			crc = crc32.Update(crc, castagnoli, p)
		}
		if at < used {
			if err := x.add(p[:min(n, used-at)]); err != nil {
				return err
			}
		}
	}
	if ext != nil && crc != ext.indexCRC {
		return corrupt("index", "its bytes make the checksum %#08x, the footer extension says %#08x", crc, ext.indexCRC)
	}
	return nil
}

// index finds the record of a block: the set of the blocks that are stored, and
// a compact entry for each record in order.
type index struct {
	stored *bitset.Set
	// Both in pages. A record's length in pages is at most 8226.
	offsets []uint32
	lengths []uint16

	byBlock   bool
	next      uint32 // the block, or in a dense index the record, whose entry comes next
	cursor    uint32 // dense: the first block that no entry was seen for
	prevEnd   int64
	end       int64 // where the last record must end
	maxRecord int64
}

// newIndex takes the bitmap, all of it, and checks it.
func newIndex(h *header, bitmap []byte) (*index, error) {
	stored, beyond, ok := bitset.FromBytes(h.maxBlocks, bitmap)
	if !ok {
		return nil, corrupt("bitmap", "the bit of block %d is set, the disk has %d blocks", beyond, h.maxBlocks)
	}
	n := stored.Count()
	if n != h.dataBlocks {
		return nil, corrupt("footer.non_zero_blk_num", "it is %d, the bitmap has %d bits set", h.dataBlocks, n)
	}
	x := &index{
		stored:    stored,
		byBlock:   h.indexByBlk == 1,
		prevEnd:   pageSize,
		end:       h.recordsEnd(),
		maxRecord: maxRecord(int64(h.blockSize)),
	}
	// At most one for each block of a disk of at most 1 TiB, 2^20.
	x.offsets, x.lengths = make([]uint32, 0, n), make([]uint16, 0, n)
	return x, nil
}

// add checks the next entries of the index, a whole number, and keeps them.
func (x *index) add(p []byte) error {
	for ; len(p) >= indexEntrySize; p = p[indexEntrySize:] {
		e := p[:indexEntrySize]
		off := binary.LittleEndian.Uint64(e)
		block, length := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		i := x.next
		x.next++
		want := i
		if !x.byBlock {
			want = x.stored.Next(x.cursor)
			x.cursor = want + 1
		} else if !x.stored.Has(i) {
			if off != 0 || length != 0 || (block != 0 && block != i) {
				return corrupt("index", "entry %d is not empty, the bitmap says that block %d is not stored", i, i)
			}
			continue
		}
		if block != want {
			return corrupt("index", "entry %d is of block %d, the bitmap says %d", i, block, want)
		}
		if length < pageSize || int64(length) > x.maxRecord || length%pageSize != 0 {
			return corrupt("index", "entry %d (block %d) has the length %d; right is a multiple of %d up to %d", i, block, length, pageSize, x.maxRecord)
		}
		if off%pageSize != 0 {
			return corrupt("index", "entry %d (block %d) is at %d, no multiple of %d", i, block, off, pageSize)
		}
		if off < uint64(x.prevEnd) {
			return corrupt("index", "entry %d (block %d) is at %d, what precedes it ends at %d", i, block, off, x.prevEnd)
		}
		if off > uint64(x.end) || int64(length) > x.end-int64(off) {
			return corrupt("index", "entry %d (block %d), %d bytes at %d, does not end before the header's copy at %d", i, block, length, off, x.end)
		}
		x.prevEnd = int64(off) + int64(length)
		x.offsets = append(x.offsets, uint32(off/pageSize))
		x.lengths = append(x.lengths, uint16(length/pageSize))
	}
	return nil
}

// at is where record k lies, in bytes.
func (x *index) at(k uint32) (off, length int64) {
	return int64(x.offsets[k]) * pageSize, int64(x.lengths[k]) * pageSize
}
