package vhdx

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
)

// The log, from [MS-VHDX] 2.3: a ring of entries, each a header, descriptors
// and sectors of data. A file that was closed has none that counts; of one
// that was not, the changes that the log holds may or may not be in the file
// yet, so they must be applied before anything else is read.
const (
	logSector     = 4 << 10
	entryHeader   = 64
	descriptorLen = 32

	// maxLog is how long a log may be to be applied here. Hyper-V and QEMU
	// make logs of 1 MiB; all of it is read.
	maxLog = 4 << 20
	// maxZeros is how many ranges of zeros it may hold, since each read looks
	// at all of them.
	maxZeros = 1024
)

const replayHelp = "attach the disk once on Windows (Mount-VHD, Dismount-VHD) or run qemu-img check -r all on a copy of it, which apply the log"

// logged is the file with the log applied to what is read of it.
type logged struct {
	r        io.ReaderAt
	fileSize int64 // of r
	size     int64 // once the log is applied
	entries  int

	zeros   []region
	sectors map[int64][]byte // by offset, logSector bytes each; what is in zeros too was written later
}

// entry is a sound entry of the log.
type entry struct {
	at       int64 // in the log
	size     int64
	tail     int64 // where the oldest entry lies that must be applied with it
	sequence uint64
	flushed  uint64 // how long the file was when the entry was written
	last     uint64 // how long it must be
	b        []byte
	count    uint32 // of descriptors
}

// rings are where logs are read to; what is to be applied is copied.
var rings = sync.Pool{New: func() any { return new([]byte) }}

// readLog reads the log of a file that was not closed.
func readLog(r io.ReaderAt, size int64, h *header) (*logged, error) {
	if h.logLen == 0 || h.logLen > maxLog {
		return nil, unsupported("header.LogLength", "the file was not closed and its log has %d bytes; one of at most %d is applied here: %s",
			h.logLen, maxLog, replayHelp)
	}
	if h.logOff > size-h.logLen {
		return nil, incomplete("header.LogOffset", "the log, %d bytes at %d, lies beyond the file's %d", h.logLen, h.logOff, size)
	}
	room := rings.Get().(*[]byte)
	defer rings.Put(room)
	*room = slices.Grow((*room)[:0], int(h.logLen))[:h.logLen]
	ring := *room
	if err := diskformat.ReadFull(r, ring, h.logOff); err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	active, err := activeSequence(ring, h.log)
	if err != nil {
		return nil, err
	}
	if len(active) == 0 {
		return nil, corrupt("log", "the header says that there are changes to be applied, and no sound ones are there: %s", replayHelp)
	}
	head := active[len(active)-1]
	if head.flushed > uint64(size) {
		return nil, incomplete("log entry.FlushedFileOffset", "the file has %d bytes, and had %d when the log was written: it was cut off", size, head.flushed)
	}
	if head.last > maxFile {
		return nil, corrupt("log entry.LastFileOffset", "it is %d", head.last)
	}
	l := &logged{r: r, fileSize: size, size: max(size, int64(head.last)), entries: len(active), sectors: make(map[int64][]byte)}
	for _, e := range active {
		if err := l.apply(e, h); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// activeSequence finds the entries that must be applied, oldest first: of all
// runs of sound entries with consecutive numbers the one that ends with the
// greatest number, from the entry on that the last one calls the tail.
func activeSequence(ring []byte, log guid) ([]entry, error) {
	// Each sound entry is checked at most a few times, whatever the ring holds.
	budget := 8 * int64(len(ring))
	var best []entry
	for start := int64(0); start < int64(len(ring)); {
		var run []entry
		used := int64(0)
		for used < int64(len(ring)) {
			e, ok := parseEntry(ring, (start+used)%int64(len(ring)), log, &budget)
			if budget < 0 {
				return nil, unsupported("log", "its entries overlap; %s", replayHelp)
			}
			if !ok || used+e.size > int64(len(ring)) || len(run) > 0 && e.sequence != run[len(run)-1].sequence+1 {
				break
			}
			run, used = append(run, e), used+e.size
		}
		if len(run) == 0 {
			start += logSector
			continue
		}
		start += used
		head := run[len(run)-1]
		for i, e := range run {
			if e.at == head.tail && (len(best) == 0 || head.sequence > best[len(best)-1].sequence) {
				best = run[i:]
				break
			}
		}
	}
	return best, nil
}

// parseEntry checks the entry at a place of the ring, and takes what that cost
// from budget.
func parseEntry(ring []byte, at int64, log guid, budget *int64) (entry, bool) {
	le := binary.LittleEndian
	b := ring[at:]
	if string(b[:4]) != "loge" {
		return entry{}, false
	}
	e := entry{
		at: at, size: int64(le.Uint32(b[8:])), tail: int64(le.Uint32(b[12:])), sequence: le.Uint64(b[16:]),
		count: le.Uint32(b[24:]), flushed: le.Uint64(b[48:]), last: le.Uint64(b[56:]),
	}
	if e.size == 0 || e.size%logSector != 0 || e.size > int64(len(ring)) || e.tail%logSector != 0 || e.tail >= int64(len(ring)) ||
		e.sequence == 0 || guid(b[32:48]) != log || e.descriptorsEnd() > e.size {
		return entry{}, false
	}
	if *budget -= e.size; *budget < 0 {
		return entry{}, false
	}
	if e.b = b[:min(e.size, int64(len(b)))]; int64(len(e.b)) < e.size { // it goes on at the front
		e.b = append(e.b[:len(e.b):len(e.b)], ring[:e.size-int64(len(e.b))]...)
	}
	return e, checksum(e.b) == le.Uint32(e.b[4:]) && e.dataMatches()
}

// descriptorsEnd is where the sectors of data begin.
func (e *entry) descriptorsEnd() int64 {
	return (entryHeader + int64(e.count)*descriptorLen + logSector - 1) / logSector * logSector
}

// dataMatches checks that the descriptors and sectors of data are as many as
// they should be and of this entry.
func (e *entry) dataMatches() bool {
	le := binary.LittleEndian
	data := e.b[e.descriptorsEnd():]
	for d := e.b[entryHeader : entryHeader+int64(e.count)*descriptorLen]; len(d) > 0; d = d[descriptorLen:] {
		if le.Uint64(d[24:]) != e.sequence {
			return false
		}
		switch string(d[:4]) {
		case "zero":
		case "desc":
			if len(data) < logSector || string(data[:4]) != "data" ||
				le.Uint32(data[4:]) != uint32(e.sequence>>32) || le.Uint32(data[logSector-4:]) != uint32(e.sequence) {
				return false
			}
			data = data[logSector:]
		default:
			return false
		}
	}
	return len(data) == 0
}

// apply makes the changes of e.
func (l *logged) apply(e entry, h *header) error {
	le := binary.LittleEndian
	data := e.b[e.descriptorsEnd():]
	for d := e.b[entryHeader : entryHeader+int64(e.count)*descriptorLen]; len(d) > 0; d = d[descriptorLen:] {
		off, n := le.Uint64(d[16:]), uint64(logSector)
		zero := string(d[:4]) == "zero"
		if zero {
			n = le.Uint64(d[8:])
		}
		// The headers are not written through the log, nor is the log itself.
		if off%logSector != 0 || n%logSector != 0 || off < regionOff1 || off > maxFile || n > maxFile-off ||
			(region{off: h.logOff, size: h.logLen}).overlaps(int64(off), int64(n)) {
			return corrupt("log descriptor.FileOffset", "an entry changes %d bytes at %d; right are whole sectors of 4096 bytes "+
				"after the headers and not in the log", n, off)
		}
		l.size = max(l.size, int64(off+n))
		if zero {
			if err := l.zero(region{off: int64(off), size: int64(n)}); err != nil {
				return err
			}
			continue
		}
		// The first 8 and the last 4 bytes of a sector make room for its
		// signature and number; the descriptor has them.
		s := make([]byte, logSector)
		copy(s, data[:logSector])
		copy(s, d[8:16])
		copy(s[logSector-4:], d[4:8])
		l.sectors[int64(off)], data = s, data[logSector:]
	}
	return nil
}

func (l *logged) zero(z region) error {
	if z.size == 0 {
		return nil
	}
	if len(l.zeros) == maxZeros {
		return unsupported("log", "it has more than %d descriptors of zeros; %s", maxZeros, replayHelp)
	}
	l.zeros = append(l.zeros, z)
	for off := range l.sectors {
		if z.overlaps(off, logSector) {
			delete(l.sectors, off)
		}
	}
	return nil
}

// ReadAt reads the file as it is once the log is applied. It ends at size; what
// is beyond the file's present end is zeros.
func (l *logged) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > l.size || int64(len(p)) > l.size-off {
		return 0, io.ErrUnexpectedEOF // callers stay within size
	}
	n := max(0, min(int64(len(p)), l.fileSize-off))
	if err := diskformat.ReadFull(l.r, p[:n], off); err != nil {
		return 0, err
	}
	clear(p[n:])
	for _, z := range l.zeros {
		if z.overlaps(off, int64(len(p))) {
			clear(p[max(0, z.off-off):min(int64(len(p)), z.end()-off)])
		}
	}
	if len(l.sectors) == 0 {
		return len(p), nil
	}
	for at := off &^ (logSector - 1); at < off+int64(len(p)); at += logSector {
		if s, ok := l.sectors[at]; ok {
			copy(p[max(0, at-off):], s[max(0, off-at):])
		}
	}
	return len(p), nil
}
