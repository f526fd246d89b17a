package bitmap

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// ErrUnverifiable is what Verify returns for a map without checksums of data.
var ErrUnverifiable = errors.New("the map has no checksums of the disk's data")

// Verify reads the disk src and compares it with the map and with file, of which
// [Parse] made the map: for one of Ours every unit of every block, zero ones too; for
// a block map, whose file is not read again, the ranges that have a checksum. A disk
// that differs is an ErrMismatch, checksums of units that are not those of the map's
// block are an ErrCorrupt.
func (m *Map) Verify(ctx context.Context, src, file io.ReaderAt, opts Options) error {
	var err error
	switch m.kind {
	case Ours:
		err = m.verifyBlocks(ctx, src, file, opts)
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

func (m *Map) verifyBlocks(ctx context.Context, src, file io.ReaderAt, opts Options) error {
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
	return eachBlock(ctx, src, m.size, seq, opts, func(i int64, c *content) error {
		if off, n, ok := m.UnitSums(i); ok {
			return m.verifyUnits(i, c, file, off, n)
		}
		if !c.zero {
			return diskformat.Errorf(formatMF, diskformat.ErrMismatch, fmt.Sprintf("block %d", i),
				"the map takes it for zero, the disk has data there; make the map anew")
		}
		return nil
	})
}

// verifyUnits compares a block of the disk with the checksums of its units, which lie
// in file in n bytes at off. Those that agree agree with the block's checksum too.
func (m *Map) verifyUnits(i int64, c *content, file io.ReaderAt, off, n int64) error {
	b := make([]byte, n)
	if err := diskformat.ReadFull(file, b, off); err != nil {
		return fmt.Errorf("reading the checksums of block %d's units: %w", i, err)
	}
	if err := m.CheckUnitSums(b, i); err != nil {
		return err
	}
	for u, sum := range c.units {
		if want := UnitSum(b, u); sum != want {
			from := i*BlockSize + int64(u)*UnitSize
			return diskformat.Errorf(formatMF, diskformat.ErrMismatch, fmt.Sprintf("block %d", i),
				"the checksum of bytes %d to %d is %#08x on the disk, %#08x in the map", from, min(from+UnitSize, m.size), sum, want)
		}
	}
	return nil
}
