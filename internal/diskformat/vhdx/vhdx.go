// Package vhdx reads the virtual disks of Hyper-V, version 2.
//
// Read are disks of dynamic and of fixed size, with sectors of 512 and of 4096
// bytes. Refused, with what to do, are differencing disks, which hold only
// what differs from a parent.
//
// Terms. A block is the unit of allocation, 1 to 256 MiB. The block allocation
// table (BAT) says for each whether and where in the file it lies. It is read
// when it is needed, and what is kept of it is bounded. The log holds changes
// to the tables of a file that was not closed; they are applied to what is
// read, in memory: see [File.Replayed].
//
// The facts are from Microsoft's open specification [MS-VHDX], whose names of
// fields the errors use; where it is silent, qemu-img is the judge.
package vhdx

import (
	"fmt"
	"io"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// tableMemory bounds what is kept of the block allocation table, in bytes.
const tableMemory = 2 << 20

// File is an open disk. It may be used by many goroutines at once. It holds no
// resources besides memory, at most 2 MiB and what the log changes, and need
// not be closed.
type File struct {
	r       io.ReaderAt // with the log applied
	size    int64       // of the file
	meta    metadata
	regions *regions
	bat     table
	pages   recent.Pages // of the block allocation table, each of 8192 blocks
	applied int
}

var _ diskformat.Image = (*File)(nil)

// Notes implements [diskformat.Noted].
func (f *File) Notes() []diskformat.Note {
	if f.meta.logicalSector == diskformat.SectorSize {
		return nil
	}
	return []diskformat.Note{{ID: diskformat.NoteSectorSize, Text: fmt.Sprintf(
		"the file says that its disk has sectors of %d bytes, for which a partition table on it was made; ", f.meta.logicalSector) + diskformat.LargeSectors}}
}

// Open reads and checks the headers, the region table, the metadata and, if
// there is one to be applied, the log of the file r of size bytes.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no VHDX,
// ErrIncomplete when something lies beyond its end, ErrUnsupported for what is
// not read, ErrCorrupt for a contradiction; or what r said. What is wrong in
// the block allocation table shows when it is read. r must stay readable for
// as long as the File is used, and must be safe for concurrent use if the File
// is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("opening a VHDX file: %w", err)
	}
	return f, nil
}

// fronts are where header sections are read to; nothing of them is kept.
var fronts = sync.Pool{New: func() any { return new([frontSize]byte) }}

func open(r io.ReaderAt, size int64) (*File, error) {
	if size < 0 || size > maxFile {
		return nil, unsupported("file size", "it is %d; right is 0 to %d", size, int64(maxFile))
	}
	room := fronts.Get().(*[frontSize]byte)
	defer fronts.Put(room)
	front := room[:min(size, frontSize)]
	if err := diskformat.ReadFull(r, front, 0); err != nil {
		return nil, fmt.Errorf("reading the header section: %w", err)
	}
	if len(front) < len(identifier) || string(front[:len(identifier)]) != identifier {
		return nil, diskformat.Errorf(diskformat.VHDX, diskformat.ErrWrongFormat, "", "the file does not begin with %q", identifier)
	}
	if len(front) < frontSize {
		return nil, incomplete("file size", "it is %d, the headers alone take %d", size, frontSize)
	}
	h, err := currentHeader(front)
	if err != nil {
		return nil, err
	}
	f := &File{r: r, size: size, pages: recent.NewPages(tableMemory)}
	if h.log != (guid{}) {
		l, err := readLog(r, size, h)
		if err != nil {
			return nil, err
		}
		f.r, f.size, f.applied = l, l.size, l.entries
		if err := diskformat.ReadFull(f.r, front[regionOff1:], regionOff1); err != nil { // no log changes what is before
			return nil, fmt.Errorf("reading the region tables: %w", err)
		}
	}
	if f.regions, err = readRegions(front, h); err != nil {
		return nil, err
	}
	m, err := readMetadata(f.r, f.size, f.regions.metadata, front[:metadataTable])
	if err != nil {
		return nil, err
	}
	f.meta = *m
	if f.bat, err = layTable(m, f.regions.bat, f.size); err != nil {
		return nil, err
	}
	return f, nil
}

// Size is the virtual size in bytes, a multiple of LogicalSector and at most
// MaxSize.
func (f *File) Size() int64 { return f.meta.size }

// BlockSize is the size in bytes of a block, a power of two.
func (f *File) BlockSize() int64 { return f.meta.blockSize }

// Fixed tells whether all blocks are to stay allocated.
func (f *File) Fixed() bool { return f.meta.leaveAllocated }

// LogicalSector is the size in bytes of the sectors that the machine sees, 512
// or 4096. Partition tables count in them.
func (f *File) LogicalSector() int64 { return f.meta.logicalSector }

// PhysicalSector is the size in bytes that the disk says its medium has, 512
// or 4096.
func (f *File) PhysicalSector() int64 { return f.meta.physicalSector }

// Replayed is how many entries of the log were applied: 0 for a file that was
// closed.
func (f *File) Replayed() int { return f.applied }

// ReadAt reads the disk. It checks what it reads of the block allocation table.
// Blocks that follow each other in the file are read at once.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a VHDX disk: the offset %d is negative", off)
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
		k, err := f.readRun(p[n:], off+int64(n))
		if err != nil {
			return n, fmt.Errorf("reading a VHDX disk at byte %d: %w", off+int64(n), err)
		}
		n += k
	}
	return n, atEnd
}

// readRun fills the front of p from off: blocks that are zeros, or that follow
// each other in the file.
func (f *File) readRun(p []byte, off int64) (int, error) {
	size := f.meta.blockSize
	block, within := off/size, off%size
	var room [64]int64
	at := room[:min(int64(len(room)), (within+int64(len(p))+size-1)/size)]
	count, err := f.places(at, block)
	if count == 0 {
		return 0, err
	}
	// An error of a later block is met again when that is read.
	n := size - within
	for i := 1; i < count; i++ {
		if at[0] == 0 && at[i] != 0 || at[0] != 0 && at[i] != at[0]+int64(i)*size {
			break
		}
		n += size
	}
	n = min(n, int64(len(p)))
	if at[0] == 0 {
		clear(p[:n])
		return int(n), nil
	}
	return int(n), diskformat.ReadFull(f.r, p[:n], at[0]+within)
}
