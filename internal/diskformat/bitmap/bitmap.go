// Package bitmap reads and writes the file that lies beside a RAW disk, with
// the suffix .mf, and says which blocks of the disk hold data.
//
// Two kinds count: ours, written by [Build], and bmap, the block map XML of
// Yocto's bmaptool, when it carries a checksum of itself. Any other content is
// accepted and tells nothing, so that the whole disk counts as data: the
// layout that Huawei's tool writes is not public. A block is never taken for
// zero on the word of a file whose own checksums do not hold; a file that is
// one of the two kinds but damaged is an error.
package bitmap

import (
	"iter"
	"runtime"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/ims"
)

const (
	// BlockSize is the unit of a [Map] in bytes, the same as in ZVHD2.
	BlockSize = 2 << 20
	// MaxRead is the most that [Parse] reads of a file, in bytes. A block map that is
	// longer tells nothing; of Ours no more is read even of a full TiB.
	MaxRead = 3 << 20
)

// Kind is what a file turned out to be.
type Kind string

// The kinds of files.
const (
	Ours    Kind = "ims-mf"  // written by Build, its checksums hold
	BMAP    Kind = "bmap"    // a block map, its checksum holds
	Unknown Kind = "unknown" // anything else: all blocks count as data
)

// Format names the formats of this package in errors.
const (
	formatMF   diskformat.Format = "mf"
	formatBMAP diskformat.Format = "bmap"
)

// Map tells for each block of a disk whether it may hold data. It is safe for
// concurrent use and takes an eighth of a byte for each block, and four bytes
// for each that has a checksum.
type Map struct {
	kind   Kind
	reason string
	size   int64
	data   *bitset.Set
	sums   []uint32 // Ours: CRC-32C of each data block, in order
	ranges []bmapRange
	hash   func() hasher
}

// Kind tells where the map's knowledge comes from.
func (m *Map) Kind() Kind { return m.kind }

// Reason says why a map is Unknown, in words for people; else it is empty.
func (m *Map) Reason() string { return m.reason }

// ImageSize is the size of the disk in bytes.
func (m *Map) ImageSize() int64 { return m.size }

// Blocks is the number of blocks of the disk, the last maybe in part.
func (m *Map) Blocks() int64 { return int64(m.data.Len()) }

// DataBlocks is the number of blocks that may hold data.
func (m *Map) DataBlocks() int64 { return int64(m.data.Count()) }

// DataBlock is the number of the block that may hold data with k such blocks before it;
// k is at least 0 and less than DataBlocks.
func (m *Map) DataBlock(k int64) int64 { return int64(m.data.Select(uint32(k))) }

// DataBefore is how many blocks before block i, one of the disk's, may hold data.
func (m *Map) DataBefore(i int64) int64 { return int64(m.data.Rank(uint32(i))) }

// Block tells whether block i may hold data. One that does not, or that lies
// beyond the disk, is zero.
func (m *Map) Block(i int64) bool { return i >= 0 && i < m.Blocks() && m.data.Has(uint32(i)) }

// blockLen is how many bytes of the disk block i has: the last may be short.
func (m *Map) blockLen(i int64) int64 { return min(BlockSize, m.size-i*BlockSize) }

// Checksum returns the CRC-32C (Castagnoli) of block i: of its BlockSize bytes
// or, in the last block, of those that are left. ok is false where none is
// known: in a map that is not Ours, and for a block that is zero.
func (m *Map) Checksum(i int64) (sum uint32, ok bool) {
	if m.sums == nil || !m.Block(i) {
		return 0, false
	}
	return m.sums[m.data.Rank(uint32(i))], true
}

// Extents covers the disk: runs of blocks that may hold data, and holes.
func (m *Map) Extents() iter.Seq[diskformat.Extent] { return m.ExtentsFrom(0) }

// ExtentsFrom is [Map.Extents] without what lies before off, which is not negative.
// To begin anywhere takes constant time.
func (m *Map) ExtentsFrom(off int64) iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		for i := uint32(min(off/BlockSize, m.Blocks())); i < m.data.Len(); {
			e := diskformat.Extent{Offset: max(off, int64(i)*BlockSize), Data: m.data.Has(i)}
			if e.Data {
				i = m.data.NextNot(i)
			} else {
				i = m.data.Next(i)
			}
			e.Length = min(m.size, int64(i)*BlockSize) - e.Offset
			if !yield(e) {
				return
			}
		}
	}
}

// Options are those of work on a disk.
type Options struct {
	// Concurrency is the number of blocks read at once; 0 is one
	// for each core.
	Concurrency int
	// Data are the ranges of the disk that may be other than zero, in order;
	// all else is taken for zero without being read. nil asks the file system
	// if the disk is an [*os.File], and else takes the whole.
	Data iter.Seq2[diskformat.Extent, error]
	// Progress, if set, is told in one goroutine at a time how many of the
	// disk's bytes are done, holes included. done never decreases.
	Progress func(done, total int64)
}

func (o Options) concurrency() int {
	if o.Concurrency > 0 {
		return o.Concurrency
	}
	return runtime.GOMAXPROCS(0)
}

func checkDiskSize(size int64) error {
	if size <= 0 || size > ims.MaxDiskSize {
		return diskformat.Errorf(formatMF, diskformat.ErrUnsupported, "disk size",
			"it is %d, right is more than 0 and at most %d (1 TiB)", size, int64(ims.MaxDiskSize))
	}
	return nil
}

func blocks(size int64) uint32 { return uint32(zdisk.Blocks(uint64(size), BlockSize)) }

// newUnknown makes the map that takes everything for data.
func newUnknown(size int64, reason string) *Map {
	m := &Map{kind: Unknown, reason: reason, size: size, data: bitset.New(blocks(size))}
	m.data.AddRange(0, m.data.Len())
	m.data.Index()
	return m
}
