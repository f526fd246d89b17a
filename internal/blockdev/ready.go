package blockdev

import "github.com/quickims/quickims/internal/objectstore"

// readyRange is how much is read at once of what needs no waiting, in bytes: what was
// read is checked while it is in the processor's cache.
const readyRange = 256 << 10

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
// with what the machine has in memory: the rest of one unit, or whole ones as far as
// data goes. It returns how many bytes that were; 0 means that they have to be fetched,
// for whatever reason.
func (d *Device) readReady(file objectstore.Held, p []byte, off int64) int {
	l := d.im.layout
	unit := l.unit()
	u, within := off/unit, off%unit
	n := 0
	if whole := unitBytes(l, u); within > 0 || int64(len(p)) < whole {
		n = d.readyPart(file, p[:min(int64(len(p)), whole-within)], u, within)
	} else {
		n = d.readyUnits(file, p, u)
	}
	d.im.cache.counts.readyBytes.Add(int64(n))
	return n
}

// readyUnits reads whole units from u on into p, and no further than a hole.
func (d *Device) readyUnits(file objectstore.Held, p []byte, u int64) int {
	l := d.im.layout
	n, first := int64(0), u
	for most := min(int64(len(p)), readyRange); u < units(l) && n+unitBytes(l, u) <= most && !l.hole(u); u++ {
		n += unitBytes(l, u)
	}
	var sums [readyRange / rawUnit]uint32
	if !d.readySums(sums[:u-first], first) {
		return 0
	}
	off, _ := l.place(first)
	got := int64(file.ReadReady(p[:n], off))
	d.im.cache.counts.fetched.Add(got)
	n = 0
	for u = first; u < units(l) && n+unitBytes(l, u) <= got; u++ {
		part := p[n : n+unitBytes(l, u)]
		if l.fill(part, part, u, sums[u-first]) != nil {
			break // a fetch reads it again and says what is wrong
		}
		n += int64(len(part))
	}
	return int(n)
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
	got := file.ReadReady(b.data, off)
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
