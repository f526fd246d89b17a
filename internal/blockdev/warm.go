package blockdev

// ReadWarm fills p with the bytes from off on if all of them are held in memory or are
// holes, without I/O and without waiting for anybody. Else it reports false, p's content
// is undefined, and nothing is counted or fetched.
func (d *Device) ReadWarm(p []byte, off int64) bool {
	if d.closed.Load() || off < 0 || int64(len(p)) > d.Size()-off {
		return false
	}
	l, c := d.im.layout, d.im.cache
	unit := l.unit()
	holes := int64(0)
	for at := 0; at < len(p); {
		u, within := (off+int64(at))/unit, (off+int64(at))%unit
		part := p[at:]
		if int64(len(part)) > unit-within {
			part = part[:unit-within]
		}
		if l.hole(u) {
			clear(part)
			holes += int64(len(part))
		} else if b := c.hit(d.im.keyOf(u), len(part)); b != nil {
			copy(part, b.data[within:])
			c.leave(b)
		} else {
			d.uncount(p[:at], off)
			return false
		}
		at += len(part)
	}
	if holes > 0 {
		c.counts.holeBytes.Add(holes)
	}
	if d.most > 0 {
		d.ahead(off, int64(len(p)))
	}
	return true
}

// uncount takes back what was counted for p, which will be read once more.
func (d *Device) uncount(p []byte, off int64) {
	l := d.im.layout
	unit := l.unit()
	for at := int64(0); at < int64(len(p)); {
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
