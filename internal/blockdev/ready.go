package blockdev

import (
	"sync"

	"github.com/quickims/quickims/internal/objectstore"
)

// readyRange is about how much is read at once of what needs no waiting, in bytes: what
// was read is checked while it is in the processor's cache.
const readyRange = 256 << 10

// readyUnits is how many units that is at most, with one that is read in part before and
// one behind.
const readyUnits = readyRange/rawUnit + 2

// span is a part of a read, in bytes.
type span struct{ from, to int }

// local returns the open file that the disk's bytes can be read of as they are, nil if
// there is none. Then the machine's own cache of the file serves in the place of ours,
// which takes only units that are read in part.
func (d *Device) local() objectstore.Held {
	if d.im.layout.scratch() > 0 || d.im.cache.disk != nil {
		return nil
	}
	return d.im.place.Load().open()
}

// readReady fills p from off on, which lies in a unit that is data and that is not held,
// with what the machine has in memory, as far as data goes. It returns how many bytes
// that were; 0 means that they have to be fetched, for whatever reason.
func (d *Device) readReady(file objectstore.Held, p []byte, off int64) int {
	l := d.im.layout
	unit := l.unit()
	u, within := off/unit, off%unit
	n := 0
	if whole := unitBytes(l, u); int64(len(p)) < whole {
		n = d.readyPart(file, p[:min(int64(len(p)), whole-within)], u, within)
	} else {
		n = d.readyLong(file, p, u, within)
	}
	d.im.cache.counts.readyBytes.Add(int64(n))
	return n
}

// edges are a unit that is read in part at the beginning of a range and one at its end.
type edges [2][rawUnit]byte

var allEdges = sync.Pool{New: func() any { return new(edges) }}

// readyLong reads into p, which is no shorter than a unit, from within unit u on, and no
// further than a hole. Nothing of it is kept: who reads on reads other units, but for
// one that the machine has.
func (d *Device) readyLong(file objectstore.Held, p []byte, u, within int64) int {
	l := d.im.layout
	n, first := -within, u // n bytes of p are in the units so far
	for ; u < units(l) && u-first < readyUnits && n < int64(len(p)) && !l.hole(u); u++ {
		n += unitBytes(l, u)
	}
	var sums [readyUnits]uint32
	if !d.readySums(sums[:u-first], first) {
		return 0
	}
	e := allEdges.Get().(*edges)
	defer allEdges.Put(e)
	// The units lie in v: the whole ones in p, the others beside it.
	v := make([][]byte, 0, 3)
	from, to := int64(0), min(n, int64(len(p)))
	if within > 0 {
		v = append(v, e[0][:unitBytes(l, first)])
		from = unitBytes(l, first) - within
	}
	if n > to {
		to = n - unitBytes(l, u-1)
	}
	if from < to {
		v = append(v, p[from:to])
	}
	if n > int64(len(p)) {
		v = append(v, e[1][:unitBytes(l, u-1)])
	}
	off, _ := l.place(first)
	got := int64(file.ReadReady(v, off))
	d.im.cache.counts.fetched.Add(got)
	at := -within
	for i := first; i < u && got >= unitBytes(l, i); i++ {
		if len(v[0]) == 0 {
			v = v[1:]
		}
		stored := v[0][:unitBytes(l, i)]
		if l.fill(stored, stored, i, sums[i-first]) != nil {
			break // a fetch reads it again and says what is wrong
		}
		if at < from || at >= to {
			copy(p[max(at, 0):], stored[max(-at, 0):])
		}
		got -= int64(len(stored))
		at += int64(len(stored))
		v[0] = v[0][len(stored):]
	}
	return int(max(0, min(at, int64(len(p)))))
}

// readyPart reads unit u into the cache and p from within it.
func (d *Device) readyPart(file objectstore.Held, p []byte, u, within int64) int {
	l, c := d.im.layout, d.im.cache
	length := unitBytes(l, u)
	var sum [1]uint32
	if !d.readySums(sum[:], u) {
		return 0
	}
	if !c.mem.try(bufferSize(length)) {
		return 0
	}
	b := c.wantAlone(d.im.keyOf(u), u, false)
	if b == nil { // somebody fetches it
		c.mem.release(bufferSize(length))
		return 0
	}
	b.data = c.mem.get(length)
	off, _ := l.place(u)
	got := file.ReadReady([][]byte{b.data}, off)
	c.counts.fetched.Add(int64(got))
	if int64(got) < length || l.fill(b.data, b.data, u, sum[0]) != nil {
		c.release([]*block{b}, l)
		c.settle(b, errAbandoned) // who waits for it meanwhile fetches it
		return 0
	}
	n := copy(p, b.data[within:])
	c.settle(b, nil)
	return n
}

// readySums reads the checksums of the units from u on, if they are needed; false if
// that takes waiting.
func (d *Device) readySums(sums []uint32, u int64) bool {
	return d.im.sums == nil || d.im.sumsOf(sums, func(i int) int64 { return u + int64(i) }, d.im.sumsAtHand) == nil
}
