package unit

import (
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// blocks is a ZVHD2 file. Its units are its blocks, whose records prove themselves.
type blocks struct{ *zvhd2.File }

func (z blocks) Unit() int64                                   { return z.BlockSize() }
func (z blocks) Stored() int64                                 { return z.MaxRecord() }
func (z blocks) Table() Table                                  { return Table{} }
func (z blocks) Memory() int64                                 { return int64(z.Blocks())/4 + 7*int64(z.DataBlocks()) }
func (z blocks) Extents(off int64) iter.Seq[diskformat.Extent] { return z.ExtentsFrom(off) }

func (z blocks) Hole(u int64) bool {
	if u >= int64(z.Blocks()) {
		return true // the tail of zeros
	}
	_, _, ok := z.Record(uint32(u))
	return !ok
}

func (z blocks) NextData(u int64) int64 {
	for e := range z.ExtentsFrom(u * z.BlockSize()) {
		if e.Data {
			return e.Offset / z.BlockSize()
		}
	}
	return Count(z)
}

func (z blocks) Offset(u int64) int64 {
	off, _, _ := z.Record(uint32(u))
	return off
}

func (z blocks) Locate(_ ReadTable, units []int64, dst []Piece) error {
	for i, u := range units {
		off, length, _ := z.Record(uint32(u))
		dst[i] = Piece{Unit: u, Off: off, Len: length}
	}
	return nil
}

func (z blocks) Fill(dst, stored []byte, p Piece) error {
	return z.DecodeRecord(dst, stored, uint32(p.Unit))
}
