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

	footer   [zdisk.HeaderSize]byte // as it is in the file
	extended bool                   // the footer carries our extension

	blocks  sync.Pool // *[]byte of the block size
	records sync.Pool // *[]byte of the longest record

	// The block that ReadAt decoded last, so that small reads in sequence do
	// not decode a block again and again.
	mu        sync.Mutex
	lastBlock uint32
	last      *[]byte // nil: none
}

var _ diskformat.Image = (*File)(nil)

func newFile(r io.ReaderAt, size int64, h header, x *index) *File {
	f := &File{r: r, size: size, h: h, x: x}
	f.blocks.New = func() any { b := make([]byte, f.BlockSize(), f.BlockSize()+DecodeSlack); return &b }
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
	if end := f.OrigSize() - int64(block)*f.BlockSize(); end < f.BlockSize() {
		clear(dst[end:])
	}
	return nil
}

// readBlock reads and decodes a stored block into dst.
func (f *File) readBlock(dst []byte, block uint32) error {
	off, length, _ := f.Record(block)
	buf := f.records.Get().(*[]byte)
	defer f.records.Put(buf)
	if int64(cap(*buf)) < length {
		*buf = make([]byte, length)
	}
	rec := (*buf)[:length]
	if err := diskformat.ReadFull(f.r, rec, off); err != nil {
		return fmt.Errorf("reading block %d: %w", block, err)
	}
	return f.DecodeRecord(dst, rec, block)
}

// ReadAt reads the virtual disk, Size bytes of it. It reads and decodes whole
// blocks and keeps the one that it decoded last; a reader of many small pieces
// all over the disk wants a cache above this.
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
	}
	f.mu.Lock()
	if f.last != nil && f.lastBlock == block {
		copy(p, (*f.last)[within:])
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	buf := f.blocks.Get().(*[]byte)
	if err := f.readBlock(*buf, block); err != nil {
		f.blocks.Put(buf)
		return err
	}
	copy(p, (*buf)[within:])
	f.mu.Lock()
	old := f.last
	f.last, f.lastBlock = buf, block
	f.mu.Unlock()
	if old != nil {
		f.blocks.Put(old)
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
