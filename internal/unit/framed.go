package unit

import (
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// framed is a ZVHD2 file with a frame table. Its units are the frames' 64 KiB. The table
// has 256 bytes for each stored block, which prove themselves against the frame sums that
// the file has in memory. A table that is damaged is an error for its block: the record
// could be decoded whole, and that would hide what an operator must know.
type framed struct{ *zvhd2.File }

func (z framed) Unit() int64                                   { return zvhd2.UnitSize }
func (z framed) Stored() int64                                 { return zvhd2.MaxFrame }
func (z framed) Memory() int64                                 { return int64(z.Blocks())/4 + 11*int64(z.DataBlocks()) }
func (z framed) Extents(off int64) iter.Seq[diskformat.Extent] { return z.ExtentsFrom(off) }

func (z framed) Hole(u int64) bool { return blocks(z).Hole(u / zvhd2.UnitsInBlock) }

func (z framed) NextData(u int64) int64 {
	if u < Count(z) && !z.Hole(u) {
		return u
	}
	return blocks(z).NextData(u/zvhd2.UnitsInBlock) * zvhd2.UnitsInBlock
}

func (z framed) Offset(u int64) int64 {
	off, length, _ := z.Record(uint32(u / zvhd2.UnitsInBlock))
	return off + u%zvhd2.UnitsInBlock*length/zvhd2.UnitsInBlock
}

func (z framed) Table() Table {
	off, n := z.FrameTable()
	return Table{Off: off, Len: n}
}

func (z framed) Locate(t ReadTable, units []int64, dst []Piece) error {
	entry, of := make([]byte, zvhd2.FrameEntrySize), int64(-1)
	for i, u := range units {
		block := u / zvhd2.UnitsInBlock
		if block != of {
			off := z.FrameEntry(uint32(block))
			if err := t(entry, off); err != nil {
				return err
			}
			if err := z.CheckFrameEntries(entry, off); err != nil {
				return err
			}
			of = block
		}
		f := z.Frame(entry, uint32(block), int(u%zvhd2.UnitsInBlock))
		dst[i] = Piece{Unit: u, Off: f.Offset, Len: f.Length, Sum: f.Sum}
		if f.Zero {
			dst[i].Len = 0
		}
	}
	return nil
}

func (z framed) Fill(dst, stored []byte, p Piece) error {
	if p.Len == 0 {
		clear(dst)
		return nil
	}
	return z.DecodeFrame(dst, stored, uint32(p.Unit/zvhd2.UnitsInBlock), int(p.Unit%zvhd2.UnitsInBlock), p.Sum)
}
