package blockdev

import (
	"context"
	"fmt"
	"sync"

	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

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
func (s *streams) note(l unit.Layout, off, n, most int64) (id uint64, from, want int64) {
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
func (t *stream) next(l unit.Layout, off, n, reach, most int64) (id uint64, from, want int64) {
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
func (t *stream) pass(l unit.Layout, front int64) {
	t.front, t.data = front, front
	if u := front / l.Unit(); front < l.Size() && l.Hole(u) {
		t.data = l.NextData(u) * l.Unit()
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

// readAhead fetches ahead of a reader of n bytes at off, as far as there is memory for it
// that nobody reads. Of local files the machine reads ahead, unless a read had to wait.
func (d *Device) readAhead(off, n int64, waits bool) {
	if d.most == 0 || !waits && d.local() {
		return
	}
	id, from, want := d.streams.note(d.im.layout, off, n, d.most)
	if want <= 0 {
		return
	}
	if upTo, ok := d.want(from, d.Size(), want, d.im.cache.mem.Limit()/4); ok {
		d.streams.fetched(id, upTo)
	}
}

// Prefetch starts to fetch the data of a range, from the front, and does not wait for it.
// Of all that was asked for so and was not read yet no more is kept than an eighth of the
// memory, of one image half as much, which leaves some for what is fetched ahead of
// sequential readers; what there is no room for is fetched when it is read. Of a local
// file that is read as it is nothing is fetched: the machine keeps and reads ahead what it
// holds.
func (d *Device) Prefetch(_ context.Context, off, n int64) error {
	if d.closed.Load() {
		return fmt.Errorf("prefetch image %s: %w", d.im.id, errClosed)
	}
	if off < 0 || n < 0 || n > d.Size()-off {
		return fmt.Errorf("prefetch image %s: %d bytes at %d are not in a disk of %d", d.im.id, n, off, d.Size())
	}
	if n > 0 && !d.local() {
		first := off / d.BlockSize() * d.BlockSize()
		d.want(first, off+n, off+n-first, d.im.cache.mem.Limit()/8)
	}
	return nil
}

// maxWanted is how many fetches of an image run at a time that Want has started.
const maxWanted = 32

// Want starts to fetch the data of a range before anybody reads it, from the front, as far
// as a quarter of the memory and 32 fetches at a time allow, and does not wait for it. It
// says how far it came; the caller may go on from there later. Of a local file nothing is
// fetched. After Close it fails.
func (d *Device) Want(off, n int64) (upTo int64, err error) {
	end := off + n
	switch {
	case d.closed.Load():
		return off, fmt.Errorf("want %d bytes of image %s: %w", n, d.im.id, errClosed)
	case off < 0 || n < 0 || n > d.Size()-off:
		return off, fmt.Errorf("want image %s: %d bytes at %d are not in a disk of %d", d.im.id, n, off, d.Size())
	case d.local():
		return end, nil
	case d.im.unasked.Load() >= maxWanted:
		return off, nil
	}
	first := off / d.BlockSize() * d.BlockSize()
	upTo, ok := d.want(first, end, end-first, d.im.cache.mem.Limit()/4)
	if !ok {
		return off, nil
	}
	return min(max(upTo, off), end), nil
}

// want starts to fetch units that are absent, until bytes of data between from and to are
// on their way that no read waits for. No more than most bytes lie unread, of one image no
// more than it leaves to others: readers that stop must not keep it from those who go on.
// It never waits. It says how far it came; false if there was no memory now.
func (d *Device) want(from, to, bytes, most int64) (upTo int64, ok bool) {
	l, mem := d.im.layout, d.im.cache.mem
	size := l.Unit()
	end := (to + size - 1) / size
	var list []*resident.Unit
	u := l.NextData((from + size - 1) / size)
	for ; bytes > 0 && u < end; u = l.NextData(u + 1) {
		bytes -= size
		if d.im.ahead.Unread()+size > most-mem.Unread()-size {
			break
		}
		if x := mem.Reserve(d.im.key(u), u, unit.Len(l, u), &d.im.ahead); x != nil {
			list = append(list, x)
		}
		if int64(len(list))*size >= aheadRange {
			if !d.im.fetchAhead(list) {
				return 0, false
			}
			list = nil
		}
	}
	return min(u*size, l.Size()), d.im.fetchAhead(list)
}

// fetchAhead starts to fetch units that no read waits for; false if there is no memory for
// them now.
func (im *image) fetchAhead(units []*resident.Unit) bool {
	for len(units) > 0 {
		n := im.joined(units)
		g := im.cache.mem.TryGrant(fetchMemory(im.layout, n))
		if g == nil {
			var asked []*resident.Unit
			for _, u := range units {
				if !im.cache.mem.Unasked(u) { // a read waits for it meanwhile
					asked = append(asked, u)
				}
			}
			im.fetch(asked)
			return false
		}
		im.start(units[:n:n], g, true)
		units = units[n:]
	}
	return true
}
