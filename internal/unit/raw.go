package unit

import (
	"errors"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
)

// ErrChecksum means that bytes are not those that were imported.
var ErrChecksum = errors.New("checksum mismatch")

const (
	// rawUnit is what our bitmaps have checksums of. A random read of a few KiB fetches as
	// much: little enough to cost a local store next to nothing, and enough that what lies
	// beside is there when it is read next.
	rawUnit = bitmap.UnitSize
	// inBlock is how many units a block of the bitmap has.
	inBlock = bitmap.BlockSize / rawUnit
	// sumsOfBlock is how many bytes their checksums take.
	sumsOfBlock = 4 * inBlock
)

// mapped is a RAW disk beside which a map tells data and holes. If the map is our bitmap,
// it has the checksum of each unit, too: 256 bytes for each block of data, which are read
// when they are needed and proved by the block's checksum, which is in memory.
type mapped struct {
	plain
	m     *bitmap.Map
	sums  bool
	table Table
}

func newRaw(m *bitmap.Map, size int64) Layout {
	if m == nil {
		return plain{0, size}
	}
	r := mapped{plain: plain{0, size}, m: m}
	if m.Kind() == bitmap.Ours && m.DataBlocks() > 0 {
		start, each, _ := m.UnitSums(m.DataBlock(0))
		r.sums, r.table = true, Table{InBitmap: true, Off: start, Len: each * m.DataBlocks()}
	}
	return r
}

func (r mapped) Hole(u int64) bool { return !r.m.Block(u / inBlock) }
func (r mapped) Table() Table      { return r.table }
func (r mapped) Memory() int64     { return r.m.Blocks()/4 + 4*r.m.DataBlocks() }

func (r mapped) NextData(u int64) int64 {
	for e := range r.m.ExtentsFrom(u * rawUnit) {
		if e.Data {
			return e.Offset / rawUnit
		}
	}
	return Count(r)
}

func (r mapped) Extents(off int64) iter.Seq[diskformat.Extent] { return r.m.ExtentsFrom(off) }

func (r mapped) Locate(t ReadTable, units []int64, dst []Piece) error {
	_ = r.plain.Locate(nil, units, dst) // does not fail
	if !r.sums {
		return nil
	}
	var buf [sumsOfBlock]byte
	block, sums := int64(-1), buf[:]
	for i, u := range units {
		if b := u / inBlock; b != block {
			if err := t(sums, r.m.DataBefore(b)*sumsOfBlock); err != nil {
				return err
			}
			if err := r.m.CheckUnitSums(sums, b); err != nil {
				return err
			}
			block = b
		}
		dst[i].Sum = bitmap.UnitSum(sums, int(u%inBlock))
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r mapped) Fill(dst, _ []byte, p Piece) error {
	if !r.sums {
		return nil
	}
	if got := crc32.Checksum(dst, castagnoli); got != p.Sum {
		return fmt.Errorf("bytes %d to %d: %w: %08x, the bitmap says %08x", p.Off, p.Off+p.Len, ErrChecksum, got, p.Sum)
	}
	return nil
}
