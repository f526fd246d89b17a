package zvhd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
)

// How much a File keeps in memory, beside 6 bytes for each stored block.
const (
	// checkpoints is how many windows are kept, 32 KiB each: from there blocks
	// are decoded again when somebody reads backwards.
	checkpoints = 256
	// recent is how many decoded blocks are kept, 2 MiB each: readers that go
	// through the disk together are never quite in order.
	recent = 12
)

// File is an open ZVHD file as a disk. Blocks are decoded one after the other,
// whoever asks: it is quick for those that read the disk in about the order of
// its bytes, and slow for all others, since a block costs those before it, up to
// 1/256 of the disk. It holds at most about 40 MiB, may be used by many
// goroutines at once and need not be closed.
type File struct {
	r         io.ReaderAt
	front     zdisk.Front
	blockSize int64    // BlockSize but in tests
	blocks    []uint32 // the stored ones, ascending
	pages     []uint32 // where their records lie; after the last, the end

	mu      sync.Mutex
	next    int // the record that the decoder comes to next
	window  []byte
	rec     []byte
	windows [checkpoints][]byte // before record i × step
	kept    []keptBlock         // a ring
	keep    int
}

// keptBlock is a decoded block.
type keptBlock struct {
	record int // -1: none
	plain  []byte
}

var _ diskformat.Image = (*File)(nil)

// Open checks the header of the file r of size bytes and looks for its records,
// with one short read for each: there is no index. What they hold is checked
// when it is read. Errors are those of [NewReader] and [Reader.Next].
func Open(r io.ReaderAt, size int64) (*File, error) { return open(r, size, BlockSize) }

// open opens a file with blocks of that many bytes.
func open(r io.ReaderAt, size, blockSize int64) (*File, error) {
	z, err := newReader(io.NewSectionReader(r, 0, max(size, 0)), blockSize)
	if err != nil {
		return nil, err
	}
	f := &File{r: r, front: z.front, blockSize: blockSize}
	if err := f.scan(z, size); err != nil {
		return nil, fmt.Errorf("opening a ZVHD file: %w", err)
	}
	return f, nil
}

// scan finds the records.
func (f *File) scan(z *Reader, size int64) error {
	page := make([]byte, zdisk.PageSize)
	next := uint32(0)
	for off := int64(zdisk.PageSize); ; {
		head := page[:zdisk.RecordHeadSize]
		if size-off < zdisk.PageSize {
			return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrIncomplete, "record or final copy of the header",
				"the file ends at byte %d without it: it was cut off; get it whole", size)
		}
		if err := diskformat.ReadFull(f.r, head, off); err != nil {
			return err
		}
		if string(head[:len(cookie)]) == cookie {
			f.pages = append(f.pages, uint32(off/zdisk.PageSize))
			if err := diskformat.ReadFull(f.r, page, off); err != nil {
				return err
			}
			z.r = io.NewSectionReader(f.r, off+zdisk.PageSize, size-off-zdisk.PageSize)
			if err := z.finish(page); !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		h, err := zdisk.ParseHead(diskformat.ZVHD, head)
		if err != nil {
			return err
		}
		length, err := checkHead(h, next, z.blocks)
		if err != nil {
			return err
		}
		if length > size-off {
			return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrIncomplete, "record",
				"the file ends %d bytes too early: it was cut off; get it whole", length-(size-off))
		}
		f.blocks, f.pages = append(f.blocks, h.Block), append(f.pages, uint32(off/zdisk.PageSize))
		next, off = h.Block+1, off+length
	}
}

// checkHead checks what the head of a record says and returns the record's length.
func checkHead(h zdisk.RecordHead, next, blocks uint32) (int64, error) {
	if h.Block < next || h.Block >= blocks {
		return 0, corrupt("record block number", "it is %d, right is %d to %d", h.Block, next, int64(blocks)-1)
	}
	length := zdisk.RecordLen(int64(h.Payload))
	if h.Payload == 0 || length > MaxRecord {
		return 0, corrupt("record payload size", "it is %d, a record has at most %d bytes", h.Payload, MaxRecord)
	}
	return length, nil
}

// OrigSize is the size in bytes of the disk that the file was made from.
func (f *File) OrigSize() int64 { return int64(f.front.OrigSize) }

// Size is the virtual size in bytes: OrigSize rounded up by a tail of zeros.
func (f *File) Size() int64 { return int64(f.front.CurrSize) }

// Blocks is the number of blocks that OrigSize fills, DataBlocks that of those
// that are stored.
func (f *File) Blocks() uint32 { return uint32(zdisk.Blocks(f.front.OrigSize, uint64(f.blockSize))) }

// DataBlocks is the number of stored blocks.
func (f *File) DataBlocks() uint32 { return uint32(len(f.blocks)) }

// record finds the record of a block, or the next one after it.
func (f *File) record(block uint32) (k int, stored bool) {
	k = sort.Search(len(f.blocks), func(i int) bool { return f.blocks[i] >= block })
	return k, k < len(f.blocks) && f.blocks[k] == block
}

// ReadAt reads the virtual disk.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a ZVHD disk: the offset %d is negative", off)
	}
	var atEnd error
	if rest := max(f.Size()-off, 0); int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		block, within := at/f.blockSize, at%f.blockSize
		part := p[n:min(len(p), n+int(f.blockSize-within))]
		if err := f.readPart(part, uint32(block), int(within)); err != nil {
			return n, fmt.Errorf("reading a ZVHD disk: block %d: %w", block, err)
		}
		n += len(part)
	}
	return len(p), atEnd
}

func (f *File) readPart(p []byte, block uint32, within int) error {
	k, stored := f.record(block)
	if !stored {
		clear(p)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	plain, err := f.decode(k)
	if err != nil {
		return err
	}
	n := copy(p, plain[within:])
	// The last block's padding is no part of the disk.
	if end := f.OrigSize() - int64(block)*f.blockSize - int64(within); end < int64(n) {
		clear(p[max(end, 0):])
	}
	return nil
}

// step is how many records lie between two checkpoints.
func (f *File) step() int { return (len(f.blocks) + checkpoints - 1) / checkpoints }

// decode returns the plain block of record k, which is good while mu is held.
func (f *File) decode(k int) ([]byte, error) {
	for _, b := range f.kept {
		if b.record == k {
			return b.plain, nil
		}
	}
	if k < f.next {
		point := k / f.step()
		f.next, f.window = point*f.step(), append(f.window[:0], f.windows[point]...)
	}
	for {
		plain, err := f.decodeNext()
		if err != nil || f.next > k {
			return plain, err
		}
	}
}

// decodeNext decodes the next record. After an error the next call begins with
// the same record.
func (f *File) decodeNext() ([]byte, error) {
	k := f.next
	if point := k / f.step(); k%f.step() == 0 && f.windows[point] == nil {
		f.windows[point] = append([]byte{}, f.window...) // not nil, even of nothing
	}
	off := int64(f.pages[k]) * zdisk.PageSize
	length := int64(f.pages[k+1])*zdisk.PageSize - off
	if int64(cap(f.rec)) < length {
		f.rec = make([]byte, length)
	}
	rec := f.rec[:length]
	if err := diskformat.ReadFull(f.r, rec, off); err != nil {
		return nil, err
	}
	payload, err := zdisk.Payload(diskformat.ZVHD, rec, f.blocks[k])
	if err != nil {
		return nil, err
	}
	if k == 0 {
		if err := zdisk.CheckZlibHeader(diskformat.ZVHD, payload); err != nil {
			return nil, err
		}
		payload = payload[zdisk.ZlibHeaderSize:]
	}
	if len(f.kept) < recent {
		f.kept = append(f.kept, keptBlock{plain: make([]byte, f.blockSize)})
		f.keep = len(f.kept) - 1
	} else {
		f.keep = (f.keep + 1) % recent
	}
	b := &f.kept[f.keep]
	b.record = -1
	if err := zdisk.Inflate(diskformat.ZVHD, b.plain, payload, f.window); err != nil {
		return nil, err
	}
	b.record = k
	f.window = append(f.window[:0], b.plain[f.blockSize-windowSize:]...)
	f.next = k + 1
	return b.plain, nil
}

// Map is [File.Extents] as [diskformat.Image] wants it.
func (f *File) Map(context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Known(f.Extents())
}

// Extents covers the virtual disk: stored blocks are data, all else is a hole.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		at := int64(0)
		for i := 0; i < len(f.blocks); {
			from := int64(f.blocks[i]) * f.blockSize
			if from > at && !yield(diskformat.Extent{Offset: at, Length: from - at}) {
				return
			}
			last := i
			for last+1 < len(f.blocks) && f.blocks[last+1] == f.blocks[last]+1 {
				last++
			}
			at = min((int64(f.blocks[last])+1)*f.blockSize, f.Size())
			if !yield(diskformat.Extent{Offset: from, Length: at - from, Data: true}) {
				return
			}
			i = last + 1
		}
		if at < f.Size() {
			yield(diskformat.Extent{Offset: at, Length: f.Size() - at})
		}
	}
}
