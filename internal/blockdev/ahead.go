package blockdev

import "sync"

const (
	// maxAhead is how much is fetched ahead of one sequential reader, in bytes of the
	// disk: at 50 ms a request enough for 300 MB/s.
	maxAhead = 16 << 20
	// aheadRange is the longest range that is fetched ahead with one request, so that
	// several are under way at once; a block longer than that is one all the same.
	aheadRange = 4 << 20
	// aheadReads is how many reads in order tell a sequential reader.
	aheadReads = 3
	// maxStreams is how many sequential readers of one device are told apart.
	maxStreams = 8
	// inFlight is how many reads of a sequential reader may overtake each other.
	inFlight = 16
	// nearby is how far from where it is expected a read may be in any case, in bytes.
	nearby = 64 << 10
)

// streams finds the sequential ones among a device's reads.
type streams struct {
	mu    sync.Mutex
	all   [maxStreams]stream
	clock uint64
}

// stream is a reader that goes through the disk from the front to the back, with
// several reads in flight that arrive in any order.
type stream struct {
	id     uint64 // of the read that began it
	seen   uint64 // 0: none
	front  int64  // the end of what was read
	data   int64  // where data begins at or after front
	run    int64  // bytes that came in order
	reads  int
	missed int64 // bytes before front that were passed over and may still come
	issued int64 // up to where it was fetched ahead
}

// note takes a read of n bytes at off, and says what to fetch ahead for it, which is at
// most as much as most: want bytes of data from the offset from on. fetched tells the
// stream id afterwards how far that went.
func (s *streams) note(l layout, off, n, most int64) (id uint64, from, want int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	reach := inFlight*n + nearby
	oldest := &s.all[0]
	for i := range s.all {
		t := &s.all[i]
		if t.seen != 0 && off <= t.data+reach && off+n+reach > t.front {
			t.seen = s.clock
			return t.next(l, off, n, reach, most)
		}
		if t.seen < oldest.seen {
			oldest = t
		}
	}
	*oldest = stream{id: s.clock, seen: s.clock, run: n, reads: 1}
	oldest.pass(l, off+n)
	return 0, 0, 0
}

// next continues the stream with a read.
func (t *stream) next(l layout, off, n, reach, most int64) (id uint64, from, want int64) {
	end := off + n
	switch {
	case end > t.front:
		t.missed += max(0, off-max(t.front, t.data))
		t.pass(l, end)
	case t.missed >= n:
		t.missed -= n
	default:
		return 0, 0, 0 // read before
	}
	t.run += n
	t.reads++
	if t.missed > reach { // it skips more than it reads
		t.run, t.reads, t.missed, t.issued = 0, 0, 0, 0
	}
	// As much ahead as twice what was read in order: a reader that stops leaves no more
	// than that fetched for nothing.
	window := min(2*t.run, most)
	t.issued = max(t.issued, t.front)
	if t.reads < aheadReads || 2*t.missed > t.run || t.front+window/2 < t.issued {
		return 0, 0, 0
	}
	from = t.issued
	t.issued = t.front + window
	return t.id, from, t.issued - from
}

// pass moves the front.
func (t *stream) pass(l layout, front int64) {
	t.front, t.data = front, front
	if u := front / l.unit(); front < l.size() && l.hole(u) {
		t.data = l.nextData(u) * l.unit()
	}
}

func (s *streams) fetched(id uint64, upTo int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.all {
		if s.all[i].id == id {
			s.all[i].issued = max(s.all[i].issued, upTo)
		}
	}
}

// ahead fetches ahead of a reader, as far as there is memory for it that nobody reads.
func (d *Device) ahead(off, n int64) {
	l, c := d.im.layout, d.im.cache
	id, from, want := d.streams.note(l, off, n, d.most)
	if want <= 0 {
		return
	}
	unit := l.unit()
	if upTo, ok := d.fetchFrom((from+unit-1)/unit, units(l), want, c.mem.limit/4); ok {
		d.streams.fetched(id, upTo)
	}
}

// fetchFrom starts to fetch what nobody has of want bytes of data in the units from u to
// end, as long as no more than most bytes lie there unread, and of its image no more
// than it leaves to others: readers that stop must not keep it from those who go on. It
// says how far it came; false if there was no memory now.
func (d *Device) fetchFrom(u, end, want, most int64) (upTo int64, ok bool) {
	l, c := d.im.layout, d.im.cache
	unit := l.unit()
	var list []*block
	for u = l.nextData(u); want > 0 && u < end; u = l.nextData(u + 1) {
		want -= unit
		if d.im.unread.Load()+unit > most-c.counts.aheadUnread.Load()-unit {
			break
		}
		if b := c.wantAlone(d.im.keyOf(u), u, true); b != nil {
			b.of = d.im
			c.unread(b, 1)
			list = append(list, b)
		}
		if int64(len(list))*unit >= aheadRange {
			if !d.im.fetchAhead(list) {
				return 0, false
			}
			list = nil
		}
	}
	return min(u*unit, l.size()), d.im.fetchAhead(list)
}

// unread counts a block that was asked for ahead of a reader: 1, or -1 when it was read
// or given up.
func (c *Cache) unread(b *block, n int64) {
	c.counts.aheadUnread.Add(n * b.size())
	b.of.unread.Add(n * b.size())
}

// fetchAhead starts to fetch blocks that nobody waits for yet; false if there is no
// memory for them now.
func (im *image) fetchAhead(blocks []*block) bool {
	for len(blocks) > 0 {
		n := im.joined(blocks)
		f := im.cache.newFetch(im, blocks[:n:n], true)
		if !im.cache.mem.try(f.need()) {
			f.giveUp()
			f.fail(blocks, errAbandoned)
			return false
		}
		f.start(true)
		blocks = blocks[n:]
	}
	return true
}
