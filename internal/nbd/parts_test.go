package nbd

import (
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
)

// anyExtents is an export that says of its extents what it likes.
type anyExtents struct {
	Export
	all []Extent
}

func (a anyExtents) Extents(int64, int64) iter.Seq[Extent] { return slices.Values(a.all) }

type parts []Extent

func (p *parts) part(x Extent) bool { *p = append(*p, x); return true }

// Whatever an export says of its extents, the parts cover the range in order, kinds take
// turns, holes are holes of the export and have whole sectors; and a proper export's
// sectors that are whole holes are holes.
func TestParts(t *testing.T) {
	t.Parallel()
	const seed = 70
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 20000 {
		const size = 8 * sector
		var a anyExtents
		proper := round%2 == 0
		var hole [size]bool
		for at := int64(0); len(a.all) < 6; {
			x := Extent{Offset: at + r.Int64N(sector), Length: r.Int64N(3 * sector), Hole: r.IntN(3) > 0}
			if !proper {
				x.Offset, x.Length = r.Int64N(2*size)-size/2, r.Int64N(size)-sector
			}
			at = x.Offset + x.Length
			a.all = append(a.all, x)
			for i := max(0, x.Offset); x.Hole && i < min(size, at); i++ {
				hole[i] = true
			}
		}
		off := r.Int64N(size)
		end := off + 1 + r.Int64N(size-off)
		var got parts
		new(splitter).split(&opened{Export: a}, off, end-off, &got)
		pos := off
		for i, x := range got {
			if x.Offset != pos || x.Length <= 0 || i > 0 && x.Hole == got[i-1].Hole {
				t.Fatalf("round %d of seed %d: extents %v in %d..%d give %v", round, seed, a.all, off, end, got)
			}
			pos += x.Length
			whole := func(b int64) bool { return b%sector == 0 || b == off || b == end }
			if x.Hole && (!whole(x.Offset) || !whole(pos) || slices.Contains(hole[x.Offset:pos], false)) {
				t.Fatalf("round %d of seed %d: extents %v in %d..%d give the hole %v", round, seed, a.all, off, end, x)
			}
			for s := (x.Offset + sector - 1) / sector * sector; proper && !x.Hole && s+sector <= pos; s += sector {
				if !slices.Contains(hole[s:s+sector], false) {
					t.Fatalf("round %d of seed %d: extents %v in %d..%d give the data %v", round, seed, a.all, off, end, x)
				}
			}
		}
		if pos != end {
			t.Fatalf("round %d of seed %d: extents %v in %d..%d give %v", round, seed, a.all, off, end, got)
		}
	}
}
