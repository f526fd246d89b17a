package blockdev

import (
	"sync"

	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

// A local file that the machine has in memory is read by the reader itself: whole units go
// straight into its buffer and are not kept, since the machine keeps them. A unit that is
// read in part becomes resident. What this saves is in docs/figures.md.

const (
	// localRange is about how much is read at once, in bytes: what was read is checked
	// while it is in the processor's cache.
	localRange = 256 << 10
	localUnit  = 32 << 10 // of all layouts whose pieces hold units as they are
	// localUnits is how many units that is at most, with one that is read in part before
	// and one behind.
	localUnits = localRange/localUnit + 2
)

// edges are a unit that is read in part at the beginning of a range and one at its end.
type edges [2][localUnit]byte

var allEdges = sync.Pool{New: func() any { return new(edges) }}

// local reports whether the disk is read of a file as it is.
func (d *Device) local() bool {
	return d.im.layout.Stored() == 0 && d.im.layout.Unit() == localUnit && d.im.disk.Local()
}

// readLocal fills p from within unit u on, which is data and not resident, with what the
// machine has of the disk's file in memory, as far as data goes. It returns how much that
// was; 0 if the unit has to be fetched, for whatever reason.
func (d *Device) readLocal(p []byte, u, within int64) int {
	if !d.local() {
		return 0
	}
	if whole := unit.Len(d.im.layout, u); int64(len(p)) < whole {
		return d.localPart(p[:min(int64(len(p)), whole-within)], u, within)
	}
	return d.localLong(p, u, within)
}

// localLong reads into p, which is no shorter than a unit, and no further than a hole.
func (d *Device) localLong(p []byte, u, within int64) int {
	l := d.im.layout
	var numbers [localUnits]int64
	n, count := -within, 0 // n bytes of p are in the units so far
	for at := u; at < unit.Count(l) && count < localUnits && n < int64(len(p)) && !l.Hole(at); at++ {
		numbers[count] = at
		count++
		n += unit.Len(l, at)
	}
	var pieces [localUnits]unit.Piece
	if l.Locate(d.tableNow, numbers[:count], pieces[:count]) != nil {
		return 0
	}
	e := allEdges.Get().(*edges)
	defer allEdges.Put(e)
	// The units lie in v: the whole ones in p, the others beside it.
	v := make([][]byte, 0, 3)
	from, to := int64(0), min(n, int64(len(p)))
	if within > 0 {
		v = append(v, e[0][:pieces[0].Len])
		from = pieces[0].Len - within
	}
	if n > to {
		to = n - pieces[count-1].Len
	}
	if from < to {
		v = append(v, p[from:to])
	}
	if n > int64(len(p)) {
		v = append(v, e[1][:pieces[count-1].Len])
	}
	got := int64(d.im.disk.ReadNow(v, pieces[0].Off))
	at := -within
	for _, piece := range pieces[:count] {
		if got < piece.Len {
			break
		}
		if len(v[0]) == 0 {
			v = v[1:]
		}
		stored := v[0][:piece.Len]
		if l.Fill(stored, stored, piece) != nil {
			break // a fetch reads it again and says what is wrong
		}
		if at < from || at >= to {
			copy(p[max(at, 0):], stored[max(-at, 0):])
		}
		got -= piece.Len
		at += piece.Len
		v[0] = v[0][piece.Len:]
	}
	return int(max(0, min(at, int64(len(p)))))
}

// localPart makes unit u resident and reads p from within it.
func (d *Device) localPart(p []byte, u, within int64) int {
	l, mem := d.im.layout, d.im.cache.mem
	var piece [1]unit.Piece
	if l.Locate(d.tableNow, []int64{u}, piece[:]) != nil {
		return 0
	}
	g := mem.TryGrant(resident.BufferSize(piece[0].Len))
	if g == nil {
		return 0
	}
	defer g.Release()
	data := g.Buffer(piece[0].Len)
	if got := d.im.disk.ReadNow([][]byte{data}, piece[0].Off); int64(got) < piece[0].Len || l.Fill(data, data, piece[0]) != nil {
		g.Free(data)
		return 0
	}
	n := copy(p, data[within:])
	mem.Keep(d.im.key(u), g, data)
	return n
}

// tableNow reads of the layout's table what is at hand.
func (d *Device) tableNow(p []byte, off int64) error { return d.im.tableNow(p, off) }
