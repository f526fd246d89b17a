package nbd

// sector is what holes are cut down to multiples of. The protocol advises it
// ("NBD_CMD_BLOCK_STATUS"), and qemu-img counts a sector that is a hole in part as a hole.
const sector = 512

// sink takes the parts of a range; false ends them.
type sink interface{ part(x Extent) bool }

// splitter tells a sink what a range of an export consists of: clipped to it, in order,
// without gaps, neighbours of one kind joined, holes in whole sectors unless the range
// itself begins or ends within one. That holds for any Extents of an export.
type splitter struct {
	to            sink
	off, end      int64 // the range
	pos           int64 // what is before has been told
	hole, holeEnd int64 // a hole that may go on; none if holeEnd is 0
	stopped       bool
}

func (s *splitter) split(e *opened, off, n int64, to sink) {
	*s = splitter{to: to, off: off, end: off + n, pos: off}
	for x := range e.Extents(off, n) {
		if !s.add(x) {
			break
		}
	}
	s.flush()
	s.emit(s.end, false)
	s.to = nil
}

// add takes an extent; what is no hole counts as data. It reports whether more may follow.
func (s *splitter) add(x Extent) bool {
	if !x.Hole || x.Length <= 0 || x.Offset >= s.end {
		return true
	}
	from, to := max(x.Offset, s.pos), s.end
	if x.Length < s.end-x.Offset {
		to = x.Offset + x.Length
	}
	if s.holeEnd == 0 || from > s.holeEnd {
		s.flush()
		s.hole = from
	}
	s.holeEnd = max(s.holeEnd, to)
	return !s.stopped && s.holeEnd < s.end
}

// flush tells the hole that was collected, as far as it has whole sectors.
func (s *splitter) flush() {
	if s.holeEnd == 0 {
		return
	}
	from, to := s.hole, s.holeEnd
	s.holeEnd = 0
	if from > s.off {
		from = (from + sector - 1) / sector * sector
	}
	if to < s.end {
		to = to / sector * sector
	}
	if from < to {
		s.emit(from, false)
		s.emit(to, true)
	}
}

// emit tells what lies between the last part and to.
func (s *splitter) emit(to int64, hole bool) {
	if to <= s.pos || s.stopped {
		return
	}
	x := Extent{Offset: s.pos, Length: to - s.pos, Hole: hole}
	s.pos = to
	s.stopped = !s.to.part(x)
}
