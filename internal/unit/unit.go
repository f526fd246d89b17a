// Package unit knows how a disk lies in its objects: where a unit is, how it is decoded,
// and what it is checked against. A unit is the smallest range of a disk that can be
// checked. A layout is a way in which disks lie; each has a file of its own here:
//
//	raw.go     RAW, with our bitmap, with a block map, or alone
//	zvhd2.go   ZVHD2, in blocks
//	framed.go  ZVHD2 with a frame table, in 64 KiB
//	plain.go   a range of an object as it is, which is how the tables of layouts are read
package unit

import (
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
)

// Piece says where a unit lies in the disk's object, and what its bytes must hash to.
type Piece struct {
	Unit     int64  // its number
	Off, Len int64  // bytes of the object; a Len of 0: the unit is zeros
	Sum      uint32 // CRC-32C, where the layout has one outside the piece
}

// Layout says how one disk lies in its objects. All of it takes constant time and does no
// I/O, but for Locate. A Layout does not change and may be used by many goroutines.
type Layout interface {
	// Size is the disk's, in bytes.
	Size() int64
	// Unit is the size of a unit in bytes, a power of two. The last one may be short.
	Unit() int64
	// Hole reports whether a unit is zeros that are not stored.
	Hole(u int64) bool
	// NextData is the first unit from u on that is stored, or the number of units.
	NextData(u int64) int64
	// Extents covers the disk from off to its end, in order.
	Extents(off int64) iter.Seq[diskformat.Extent]
	// Memory is about how many bytes the layout takes.
	Memory() int64
	// Offset is about where in the disk's object a stored unit lies: enough to tell
	// neighbours.
	Offset(u int64) int64
	// Table is what Locate reads; Len is 0 if it reads nothing.
	Table() Table
	// Locate says where stored units lie, in ascending order; dst has as many pieces. It
	// may read the table, all through t. A table that is damaged there is an
	// ErrCorrupt, and dst is unspecified.
	Locate(t ReadTable, units []int64, dst []Piece) error
	// Stored is the greatest Len of a Piece, 0 if a piece holds its unit as it is.
	Stored() int64
	// Fill makes the unit's bytes, all of dst, of what lay at its piece, and checks them. Where
	// Stored is 0 the two are the same memory. After an error dst is unspecified. It
	// allocates nothing that the bytes ask for.
	Fill(dst, stored []byte, p Piece) error
}

// Table is a range of an object in which Locate reads: of the image's bitmap, or of its
// disk.
type Table struct {
	InBitmap bool
	Off, Len int64
}

// ReadTable fills p with the bytes of a layout's table from off on.
type ReadTable func(p []byte, off int64) error

// Len is how many bytes of the disk a unit has.
func Len(l Layout, u int64) int64 { return min(l.Unit(), l.Size()-u*l.Unit()) }

// Count is the number of a disk's units.
func Count(l Layout) int64 { return (l.Size() + l.Unit() - 1) / l.Unit() }

// Open reads what has to be known of an image's data before any of it can be read: of
// ZVHD2 the end of the disk's object, of RAW the bitmap, if it has one. The readers are of
// the two objects.
func Open(data ims.Data, disk, mf io.ReaderAt) (Layout, error) {
	switch diskformat.Format(data.Format) {
	case diskformat.ZVHD2:
		f, err := zvhd2.Open(disk, data.Size)
		if err != nil {
			return nil, err
		}
		if f.Size() != data.VirtualSize {
			return nil, fmt.Errorf("its disk has %d bytes, %d were imported", f.Size(), data.VirtualSize)
		}
		if f.Framed() {
			return framed{f}, nil
		}
		return blocks{f}, nil
	case diskformat.Raw:
		if data.BitmapKey == "" {
			return newRaw(nil, data.Size), nil
		}
		m, err := bitmap.Parse(mf, data.BitmapSize, data.Size)
		if err != nil {
			return nil, err
		}
		return newRaw(m, data.Size), nil
	}
	return nil, fmt.Errorf("%q is no format that can be served", data.Format)
}

// OpenMemory is about how many bytes Open takes, as far as sizes alone can tell: of ZVHD2
// the end of the file and the index, for blocks of 1 MiB and more.
func OpenMemory(data ims.Data) int64 {
	if diskformat.Format(data.Format) == diskformat.Raw {
		return 4 * min(data.BitmapSize, bitmap.MaxRead)
	}
	return min(data.Size, 1<<20) + 28*min(data.Size/4096, data.VirtualSize>>20)
}
