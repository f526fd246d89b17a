package zvhd2

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// File is an open ZVHD2 file. It may be used by many goroutines at once. It
// holds no resources besides memory and need not be closed.
type File struct {
	r    io.ReaderAt
	size int64 // of the file
	h    header
	x    *index

	footer    [zdisk.HeaderSize]byte // as it is in the file
	extended  bool                   // the footer carries our extension
	frames    *frameParts            // nil: the file is not framed
	frameSums []uint32               // of a framed file, one for each stored block

	kept    sync.Pool // *[]byte of a unit of a framed file, else of a block
	records sync.Pool // *[]byte, each long enough for what it held last

	// The unit or block that ReadAt decoded last in part, so that small reads in
	// sequence do not decode it again and again, and the frame table's entry.
	mu          sync.Mutex
	lastAt      int64   // its number
	last        *[]byte // nil: none
	lastEntryOf uint32  // block
	lastEntry   *[FrameEntrySize]byte
}

var _ diskformat.Image = (*File)(nil)

func newFile(r io.ReaderAt, size int64, h header, x *index) *File {
	f := &File{r: r, size: size, h: h, x: x}
	f.kept.New = func() any {
		n := f.BlockSize()
		if f.Framed() {
			n = UnitSize
		}
		b := make([]byte, n, n+DecodeSlack)
		return &b
	}
	f.records.New = func() any { b := make([]byte, 0); return &b }
	return f
}

// Size is the virtual size in bytes: that of the source disk rounded up to
// 1 GiB by a tail of zeros.
func (f *File) Size() int64 { return int64(f.h.CurrSize) }

// OrigSize is the size in bytes of the disk that the file was made from, a
// multiple of 512.
func (f *File) OrigSize() int64 { return int64(f.h.OrigSize) }

// FileSize is the size in bytes of the file itself.
func (f *File) FileSize() int64 { return f.size }

// BlockSize is the size in bytes of a block, a power of two from 1 to 32 MiB.
func (f *File) BlockSize() int64 { return int64(f.h.blockSize) }

// Blocks is the number of blocks that OrigSize fills, the last maybe in part.
// The virtual disk may go on beyond them; what lies there is zero.
func (f *File) Blocks() uint32 { return f.h.maxBlocks }

// DataBlocks is the number of blocks that are stored.
func (f *File) DataBlocks() uint32 { return f.h.dataBlocks }

// MaxRecord is the greatest length in bytes that [File.Record] can return.
func (f *File) MaxRecord() int64 { return f.x.maxRecord }

// UUID is what the writer drew for the file.
func (f *File) UUID() [16]byte { return f.h.UUID }

// Created is when the writer says it wrote the file.
func (f *File) Created() time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(f.h.Timestamp) * time.Second)
}

// Compression names the method of all records: "zstd" or "zlib".
func (f *File) Compression() string {
	if f.h.compression == methodZlib {
		return "zlib"
	}
	return "zstd"
}

// Record tells where in the file the record of block lies, in bytes: at most
// MaxRecord of them. ok is false for a block that is not stored, which is
// zero, and for one beyond the disk. It takes constant time and does no I/O.
func (f *File) Record(block uint32) (off, length int64, ok bool) {
	if !f.x.stored.Has(block) {
		return 0, 0, false
	}
	off, length = f.x.at(f.x.stored.Rank(block))
	return off, length, true
}

// DecodeRecord decodes rec, which is the whole record of block as [File.Record]
// gave it, into dst, which has the length BlockSize. It is faster when dst has
// DecodeSlack bytes of capacity behind that, which it then overwrites. In the last
// block, what lies beyond OrigSize is zero. Any fault in rec is an ErrCorrupt and leaves
// dst unspecified. It holds no memory that rec asks for; rec is not changed.
func (f *File) DecodeRecord(dst, rec []byte, block uint32) error {
	if int64(len(dst)) != f.BlockSize() || block >= f.h.maxBlocks {
		return fmt.Errorf("decoding block %d of %d into %d bytes, a block has %d", block, f.h.maxBlocks, len(dst), f.BlockSize())
	}
	if err := decodeRecord(f.h.compression, dst, rec, block); err != nil {
		return fmt.Errorf("decoding block %d: %w", block, err)
	}
	f.clearTail(dst, int64(block)*f.BlockSize())
	return nil
}

// clearTail clears what of p, which lies at off on the disk, is beyond OrigSize.
func (f *File) clearTail(p []byte, off int64) {
	if end := max(f.OrigSize()-off, 0); end < int64(len(p)) {
		clear(p[end:])
	}
}

// readBlock reads and decodes a stored block into dst.
func (f *File) readBlock(dst []byte, block uint32) error {
	buf := f.records.Get().(*[]byte)
	defer f.records.Put(buf)
	rec, err := f.readRecord(*buf, block)
	if err != nil {
		return err
	}
	*buf = rec
	return f.DecodeRecord(dst, rec, block)
}

// readRecord reads the record of a stored block, into buf if that is large enough.
func (f *File) readRecord(buf []byte, block uint32) ([]byte, error) {
	off, length, _ := f.Record(block)
	if int64(cap(buf)) < length {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	if err := diskformat.ReadFull(f.r, buf, off); err != nil {
		return nil, fmt.Errorf("reading block %d: %w", block, err)
	}
	return buf, nil
}

// ReadAt reads the virtual disk, Size bytes of it. It reads and decodes whole blocks,
// or of a framed file units where p has no whole block, and keeps the one that it
// decoded last; a reader of many small pieces all over the disk wants a cache above this.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a ZVHD2 disk: the offset %d is negative", off)
	}
	if off >= f.Size() {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var atEnd error
	if rest := f.Size() - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		block, within := uint32(at/f.BlockSize()), at%f.BlockSize()
		part := p[n:]
		if int64(len(part)) > f.BlockSize()-within {
			part = part[:f.BlockSize()-within]
		}
		if err := f.readPart(part, block, within); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, atEnd
}

// readPart fills p from within a block.
func (f *File) readPart(p []byte, block uint32, within int64) error {
	switch {
	case !f.x.stored.Has(block):
		clear(p)
		return nil
	case int64(len(p)) == f.BlockSize():
		return f.readBlock(p[:len(p):len(p)], block) // what lies behind p is the caller's
	case f.Framed():
		return f.readUnits(p, block, within)
	}
	return f.readKept(p, int64(block), within, func(dst []byte) error { return f.readBlock(dst, block) })
}

// readKept fills p from within unit or block number at, which read decodes if it is not
// the one that was decoded last.
func (f *File) readKept(p []byte, at, within int64, read func(dst []byte) error) error {
	f.mu.Lock()
	if f.last != nil && f.lastAt == at {
		copy(p, (*f.last)[within:])
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	buf := f.kept.Get().(*[]byte)
	if err := read(*buf); err != nil {
		f.kept.Put(buf)
		return err
	}
	copy(p, (*buf)[within:])
	f.mu.Lock()
	old := f.last
	f.last, f.lastAt = buf, at
	f.mu.Unlock()
	if old != nil {
		f.kept.Put(old)
	}
	return nil
}

// Map is [File.Extents] as [diskformat.Image] wants it.
func (f *File) Map(context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Known(f.Extents())
}

// Extents covers the virtual disk. Stored blocks are data, all else is a hole;
// adjacent blocks of a kind are one extent.
func (f *File) Extents() iter.Seq[diskformat.Extent] { return f.ExtentsFrom(0) }

// ExtentsFrom is [File.Extents] without what lies before off, which is not negative.
// To begin anywhere takes constant time.
func (f *File) ExtentsFrom(off int64) iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		for at := off; at < f.Size(); {
			block := at / f.BlockSize()
			end := f.Size()
			data := block < int64(f.h.maxBlocks) && f.x.stored.Has(uint32(block))
			if data {
				end = min(end, int64(f.x.stored.NextNot(uint32(block)))*f.BlockSize())
			} else if next := f.x.stored.Next(uint32(min(block, int64(f.h.maxBlocks)))); next < f.h.maxBlocks {
				end = int64(next) * f.BlockSize()
			}
			if !yield(diskformat.Extent{Offset: at, Length: end - at, Data: data}) {
				return
			}
			at = end
		}
	}
}
