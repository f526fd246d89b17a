package blockdev

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// layout says how a disk lies in its object. It does no I/O, does not change, and may
// be used by many goroutines at once.
type layout interface {
	// size is the disk's, in bytes.
	size() int64
	// unit is the size of a unit in bytes, a power of two.
	unit() int64
	// hole tells whether a unit is zeros that are not stored.
	hole(u int64) bool
	// nextData is the first unit from u on that is stored, or the number of units.
	nextData(u int64) int64
	// place says where in the object a stored unit lies, in bytes.
	place(u int64) (off, length int64)
	// scratch is the longest place of a unit in bytes, 0 if what lies there is the unit
	// itself.
	scratch() int64
	// sumOf says where among the image's checksums that of a unit lies, in bytes; false if
	// fill does not need it.
	sumOf(u int64) (off int64, ok bool)
	// fill makes the unit's bytes of what lay at its place, and checks them. Without
	// scratch both are the same memory.
	fill(unit, stored []byte, u int64, sum uint32) error
	// extents covers the disk from off to its end.
	extents(off int64) iter.Seq[diskformat.Extent]
	// memory is about how many bytes the layout takes.
	memory() int64
}

// unitBytes is how many bytes of the disk a unit has: the last may be short.
func unitBytes(l layout, u int64) int64 { return min(l.unit(), l.size()-u*l.unit()) }

// units is the number of a disk's units.
func units(l layout) int64 { return (l.size() + l.unit() - 1) / l.unit() }

// rawUnit is the unit of a RAW disk, what our bitmaps have checksums of. It is what one
// random read of a few KiB fetches: little enough to cost a local store next to
// nothing, and enough that what lies beside is there when it is asked for next.
// Longer reads and sequential ones join units into long ranges.
const rawUnit = bitmap.UnitSize

// errNoData means that an image has nothing that could be read.
var errNoData = errors.New("it has no data yet")

// openLayout reads what is needed of an image's data to read any of it: of RAW nothing
// or the bitmap, of ZVHD2 the end of the file.
func openLayout(ctx context.Context, store objectstore.Store, data ims.Data) (layout, error) {
	if data.Key == "" {
		return nil, errNoData
	}
	switch diskformat.Format(data.Format) {
	case diskformat.ZVHD2:
		object := objectstore.NewReaderAt(ctx, store, diskOf(data), objectstore.ObjectInfo{Size: data.Size, ETag: data.ETag, Version: data.Version})
		f, err := zvhd2.Open(object, data.Size)
		if err != nil {
			return nil, err
		}
		if f.Size() != data.VirtualSize {
			return nil, fmt.Errorf("its disk has %d bytes, %d were imported", f.Size(), data.VirtualSize)
		}
		return zvhd2Layout{f}, nil
	case diskformat.Raw:
		if data.BitmapKey == "" {
			return newRawLayout(nil, data.Size), nil
		}
		mf := objectstore.NewReaderAt(ctx, store, objectstore.Location{Bucket: data.Bucket, Key: data.BitmapKey},
			objectstore.ObjectInfo{Size: data.BitmapSize, ETag: data.BitmapETag})
		m, err := bitmap.Parse(mf, data.BitmapSize, data.Size)
		if err != nil {
			return nil, err
		}
		return newRawLayout(m, data.Size), nil
	}
	return nil, fmt.Errorf("%q is no format that can be served", data.Format)
}

// diskOf is where an image's disk object lies.
func diskOf(data ims.Data) objectstore.Location {
	return objectstore.Location{Bucket: data.Bucket, Key: data.Key}
}

// rawLayout is a RAW disk, maybe with its bitmap.
type rawLayout struct {
	m     *bitmap.Map // nil: none, all is data
	bytes int64
	sums  bool
}

func newRawLayout(m *bitmap.Map, size int64) rawLayout {
	return rawLayout{m: m, bytes: size, sums: m != nil && m.Kind() == bitmap.Ours}
}

func (r rawLayout) size() int64    { return r.bytes }
func (r rawLayout) unit() int64    { return rawUnit }
func (r rawLayout) scratch() int64 { return 0 }

// inBlock is how many units a block of the bitmap has.
const inBlock = bitmap.BlockSize / rawUnit

func (r rawLayout) hole(u int64) bool { return r.m != nil && !r.m.Block(u/inBlock) }

func (r rawLayout) nextData(u int64) int64 {
	if r.m == nil {
		return min(u, units(r))
	}
	for e := range r.m.ExtentsFrom(u * rawUnit) {
		if e.Data {
			return e.Offset / rawUnit
		}
	}
	return units(r)
}

func (r rawLayout) place(u int64) (off, length int64) { return u * rawUnit, unitBytes(r, u) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r rawLayout) sumOf(u int64) (off int64, ok bool) {
	if !r.sums {
		return 0, false
	}
	return (r.m.DataBefore(u/inBlock)*inBlock + u%inBlock) * sumSize, true
}

func (r rawLayout) fill(unit, _ []byte, u int64, sum uint32) error {
	if !r.sums {
		return nil
	}
	if got := crc32.Checksum(unit, castagnoli); got != sum {
		return fmt.Errorf("bytes %d to %d: %w: %08x, the bitmap says %08x",
			u*rawUnit, u*rawUnit+int64(len(unit)), ErrChecksum, got, sum)
	}
	return nil
}

func (r rawLayout) extents(off int64) iter.Seq[diskformat.Extent] {
	if r.m != nil {
		return r.m.ExtentsFrom(off)
	}
	return func(yield func(diskformat.Extent) bool) {
		if off < r.bytes {
			yield(diskformat.Extent{Offset: off, Length: r.bytes - off, Data: true})
		}
	}
}

func (r rawLayout) memory() int64 {
	if r.m == nil {
		return 0
	}
	return r.m.Blocks()/4 + 4*r.m.DataBlocks()
}

// zvhd2Layout is a ZVHD2 file. Units are its blocks.
type zvhd2Layout struct{ *zvhd2.File }

func (z zvhd2Layout) size() int64    { return z.Size() }
func (z zvhd2Layout) unit() int64    { return z.BlockSize() }
func (z zvhd2Layout) scratch() int64 { return z.MaxRecord() }

func (z zvhd2Layout) hole(u int64) bool {
	if u >= int64(z.Blocks()) {
		return true // the tail of zeros
	}
	_, _, ok := z.Record(uint32(u))
	return !ok
}

func (z zvhd2Layout) nextData(u int64) int64 {
	for e := range z.ExtentsFrom(u * z.BlockSize()) {
		if e.Data {
			return e.Offset / z.BlockSize()
		}
	}
	return units(z)
}

func (z zvhd2Layout) place(u int64) (off, length int64) {
	off, length, _ = z.Record(uint32(u))
	return off, length
}

func (z zvhd2Layout) sumOf(int64) (off int64, ok bool) { return 0, false } // they are in the records

func (z zvhd2Layout) fill(unit, stored []byte, u int64, _ uint32) error {
	return z.DecodeRecord(unit, stored, uint32(u))
}

func (z zvhd2Layout) extents(off int64) iter.Seq[diskformat.Extent] { return z.ExtentsFrom(off) }

func (z zvhd2Layout) memory() int64 { return int64(z.Blocks())/4 + 7*int64(z.DataBlocks()) }

func log2(n int64) int { return bits.TrailingZeros64(uint64(n)) }
