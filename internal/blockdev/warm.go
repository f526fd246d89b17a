package blockdev

import "github.com/quickims/quickims/internal/objectstore"

// ReadWarm fills p with the bytes from off on if all of them are held in memory, are
// holes, or lie in a file that the machine has in memory, without waiting for anybody or
// for a disk. Else it reports false, and p's content is undefined.
func (d *Device) ReadWarm(p []byte, off int64) bool {
	if d.closed.Load() || off < 0 || int64(len(p)) > d.Size()-off {
		return false
	}
	l, c := d.im.layout, d.im.cache
	unit := l.unit()
	holes := int64(0)
	var local objectstore.Held
	var ready []span
	for at := 0; at < len(p); {
		u, within := (off+int64(at))/unit, (off+int64(at))%unit
		part := p[at:]
		if int64(len(part)) > unit-within {
			part = part[:unit-within]
		}
		if l.hole(u) {
			clear(part)
			holes += int64(len(part))
			at += len(part)
			continue
		}
		if b := c.hit(d.im.keyOf(u), len(part)); b != nil {
			at += copy(part, b.data[within:])
			c.leave(b)
			continue
		}
		n := 0
		if local == nil {
			local = d.local()
		}
		if local != nil {
			n = d.readReady(local, p[at:], off+int64(at))
		}
		if n == 0 {
			d.uncount(p[:at], off, ready)
			return false
		}
		ready = append(ready, span{at, at + n})
		at += n
	}
	if holes > 0 {
		c.counts.holeBytes.Add(holes)
	}
	if d.most > 0 && len(ready) == 0 && d.local() == nil {
		d.ahead(off, int64(len(p)))
	}
	return true
}

// uncount takes back what was counted for p, which will be read once more: hits, and
// what was read at once.
func (d *Device) uncount(p []byte, off int64, ready []span) {
	l := d.im.layout
	unit := l.unit()
	for at := int64(0); at < int64(len(p)); {
		if len(ready) > 0 && at == int64(ready[0].from) {
			d.im.cache.counts.readyBytes.Add(at - int64(ready[0].to))
			at = int64(ready[0].to)
			ready = ready[1:]
			continue
		}
		u := (off + at) / unit
		n := min(int64(len(p)), (u+1)*unit-off) - at
		if !l.hole(u) {
			s := d.im.cache.shardOf(d.im.keyOf(u))
			s.mu.Lock()
			s.hits--
			s.bytes -= n
			s.mu.Unlock()
		}
		at += n
	}
}
