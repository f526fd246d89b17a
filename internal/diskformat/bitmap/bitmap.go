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
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

const (
	// BlockSize is the unit of a [Map] in bytes, the same as in ZVHD2.
	BlockSize = 2 << 20
	// MaxDiskSize is the largest disk, 1 TiB.
	MaxDiskSize = zdisk.MaxDiskSize
	// MaxBMAPSize is the longest block map that is read, in bytes; a longer one
	// tells nothing.
	MaxBMAPSize = 3 << 20
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

// Block tells whether block i may hold data. One that does not, or that lies
// beyond the disk, is zero.
func (m *Map) Block(i int64) bool { return i >= 0 && i < m.Blocks() && m.data.Has(uint32(i)) }

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

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checkDiskSize(size int64) error {
	if size <= 0 || size > MaxDiskSize {
		return diskformat.Errorf(formatMF, diskformat.ErrUnsupported, "disk size",
			"it is %d, right is more than 0 and at most %d (1 TiB)", size, int64(MaxDiskSize))
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

// Build reads the RAW disk src of size bytes, at most 1 TiB, on all cores, and
// makes its map: which blocks are not all zeros, and their checksums. Holes
// are not read. Write it with [Map.WriteTo].
func Build(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Map, error) {
	m, err := build(ctx, src, size, opts)
	if err != nil {
		return nil, fmt.Errorf("making the map of a RAW disk: %w", err)
	}
	return m, nil
}

func build(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Map, error) {
	if err := checkDiskSize(size); err != nil {
		return nil, err
	}
	m := &Map{kind: Ours, size: size, data: bitset.New(blocks(size))}
	if opts.Data == nil {
		opts.Data = sparse.Data(src, size)
	}
	var mu sync.Mutex
	sums := make([]uint32, m.data.Len()) // 2 MiB at 1 TiB
	err := eachBlock(ctx, src, size, sparse.Blocks(opts.Data, size, BlockSize), opts, func(i int64, sum uint32, zero bool) error {
		if zero {
			return nil
		}
		sums[i] = sum
		mu.Lock()
		defer mu.Unlock()
		m.data.Add(uint32(i))
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.data.Index()
	m.sums = make([]uint32, 0, m.data.Count())
	for i := m.data.Next(0); i < m.data.Len(); i = m.data.Next(i + 1) {
		m.sums = append(m.sums, sums[i])
	}
	return m, nil
}

// piece is how much of a block is read at once, in bytes: what was read is summed
// while it is in the processor's cache.
const piece = 128 << 10

// sumBlock reads block i, of n bytes at off, through buf, which has a piece's length.
func sumBlock(src io.ReaderAt, buf []byte, off, n int64) (sum uint32, zero bool, err error) {
	zero = true
	for end := off + n; off < end; off += piece {
		p := buf[:min(piece, end-off)]
		if err := diskformat.ReadFull(src, p, off); err != nil {
			return 0, false, err
		}
		zero = zero && sparse.IsZero(p)
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum, zero, nil
}

// eachBlock calls fn for every block of which, in several goroutines, with its
// checksum and whether it is all zeros.
func eachBlock(ctx context.Context, src io.ReaderAt, size int64, which iter.Seq2[int64, error], opts Options, fn func(i int64, sum uint32, zero bool) error) error {
	g, gctx := errgroup.WithContext(ctx)
	todo := make(chan int64)
	g.Go(func() error {
		defer close(todo)
		for i, err := range which {
			if err != nil {
				return err
			}
			select {
			case todo <- i:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	var mu sync.Mutex
	reached := int64(0)
	for range opts.concurrency() {
		g.Go(func() error {
			var buf []byte
			for i := range todo {
				if err := gctx.Err(); err != nil {
					return err
				}
				if buf == nil {
					buf = make([]byte, piece)
				}
				off := i * BlockSize
				n := min(BlockSize, size-off)
				sum, zero, err := sumBlock(src, buf, off, n)
				if err != nil {
					return fmt.Errorf("reading block %d: %w", i, err)
				}
				if err := fn(i, sum, zero); err != nil {
					return err
				}
				if opts.Progress != nil {
					mu.Lock()
					reached = max(reached, off+n)
					opts.Progress(reached, size)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if opts.Progress != nil && reached < size {
		opts.Progress(size, size)
	}
	return ctx.Err()
}

// ErrUnverifiable is what Verify returns for a map without checksums of data.
var ErrUnverifiable = errors.New("the map has no checksums of the disk's data")

// Verify reads the disk src and compares it with the map: for one of Ours
// every block, zero ones too; for a block map the ranges that have a checksum.
// A disk that differs is an ErrMismatch.
func (m *Map) Verify(ctx context.Context, src io.ReaderAt, opts Options) error {
	var err error
	switch m.kind {
	case Ours:
		err = m.verifyBlocks(ctx, src, opts)
	case BMAP:
		err = m.verifyRanges(ctx, src, opts)
	default:
		err = ErrUnverifiable
	}
	if err != nil {
		return fmt.Errorf("comparing a RAW disk with its map: %w", err)
	}
	return nil
}

func (m *Map) verifyBlocks(ctx context.Context, src io.ReaderAt, opts Options) error {
	data := opts.Data
	if data == nil {
		data = sparse.Data(src, m.size)
	}
	// What must be read is what the map takes for data and what the disk does.
	which := bitset.New(m.data.Len())
	for i := m.data.Next(0); i < m.data.Len(); i = m.data.Next(i + 1) {
		which.Add(i)
	}
	for i, err := range sparse.Blocks(data, m.size, BlockSize) {
		if err != nil {
			return err
		}
		which.Add(uint32(i))
	}
	seq := func(yield func(int64, error) bool) {
		for i := which.Next(0); i < which.Len() && yield(int64(i), nil); i = which.Next(i + 1) {
		}
	}
	return eachBlock(ctx, src, m.size, seq, opts, func(i int64, sum uint32, zero bool) error {
		want, ok := m.Checksum(i)
		if !ok {
			if !zero {
				return diskformat.Errorf(formatMF, diskformat.ErrMismatch, fmt.Sprintf("block %d", i),
					"the map takes it for zero, the disk has data there; make the map anew")
			}
			return nil
		}
		if sum != want {
			return diskformat.Errorf(formatMF, diskformat.ErrMismatch, fmt.Sprintf("block %d", i),
				"its checksum on the disk is %#08x, in the map %#08x", sum, want)
		}
		return nil
	})
}
