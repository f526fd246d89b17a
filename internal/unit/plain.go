package unit

import (
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
)

// plain is a range of an object as it is. Nothing is checked: reads of the object are
// conditional on its generation, and an entry of a table proves itself to the layout that
// reads it.
type plain struct{ start, bytes int64 }

// Plain is the layout of n bytes of an object from off on.
func Plain(off, n int64) Layout { return plain{off, n} }

func (p plain) Size() int64                     { return p.bytes }
func (p plain) Unit() int64                     { return rawUnit }
func (p plain) Hole(int64) bool                 { return false }
func (p plain) NextData(u int64) int64          { return min(u, Count(p)) }
func (p plain) Offset(u int64) int64            { return p.start + u*rawUnit }
func (p plain) Memory() int64                   { return 0 }
func (p plain) Table() Table                    { return Table{} }
func (p plain) Stored() int64                   { return 0 }
func (p plain) Fill(_, _ []byte, _ Piece) error { return nil }

func (p plain) Locate(_ ReadTable, units []int64, dst []Piece) error {
	for i, u := range units {
		dst[i] = Piece{Unit: u, Off: p.Offset(u), Len: Len(p, u)}
	}
	return nil
}

func (p plain) Extents(off int64) iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		if off < p.bytes {
			yield(diskformat.Extent{Offset: off, Length: p.bytes - off, Data: true})
		}
	}
}
