// Package bootprofile learns what a machine reads of its disk when it starts, so that the
// next one finds it fetched. It does no I/O and knows no clock.
//
// A [Recorder] notes the chunks of a disk in the order in which they are read first. A
// [Profile] merges recordings: each chunk has a weight, which halves with each recording
// and grows by 128 if the chunk was in it, and a place in the order, the mean of what it
// was and is. So one recording suffices, what one start alone reads is gone after two
// more, and the order follows the machine. Chunks are of the disk, not of the object: a
// profile outlives a change of format.
package bootprofile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
)

const (
	// ChunkSize is the size of a chunk in bytes.
	ChunkSize = 64 << 10
	// maxChunks bounds a recording and a profile, minChunks is the least that counts as a
	// start.
	maxChunks = 12000
	minChunks = 16
	// maxRecorded is how many bytes a recording lasts, those that are read again included.
	maxRecorded = 512 << 20

	seen         = 128 // what a recording adds to a weight
	leastWeight  = 64  // of a chunk in a profile
	replayWeight = 96  // of one that is fetched

	// maxRange bounds a range that is fetched at once, maxReplay all of them, in bytes.
	maxRange  = 4 << 20
	maxReplay = 256 << 20
)

// Recorder notes what is read first. It may be used by many goroutines at once.
type Recorder struct {
	mu    sync.Mutex
	size  int64
	bytes int64
	seen  map[uint32]struct{}
	order []uint32
}

// NewRecorder makes one for a disk of size bytes.
func NewRecorder(size int64) *Recorder {
	return &Recorder{size: size, seen: map[uint32]struct{}{}}
}

// Read notes that n bytes at off were read, which lie in the disk. It reports whether
// more is to be noted.
func (r *Recorder) Read(off, n int64) (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n <= 0 || r.full() {
		return !r.full()
	}
	for c := off / ChunkSize; c <= (off+n-1)/ChunkSize && !r.full(); c++ {
		if _, ok := r.seen[uint32(c)]; !ok {
			r.seen[uint32(c)] = struct{}{}
			r.order = append(r.order, uint32(c))
		}
	}
	r.bytes += n
	return !r.full()
}

func (r *Recorder) full() bool { return r.bytes >= maxRecorded || len(r.order) >= maxChunks }

// Chunks returns the chunks in the order in which they were read, or nil if they are not
// those of a start: too few, or for the most part one run, as a copy reads.
func (r *Recorder) Chunks() []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	longest, run := 0, 0
	for i, c := range r.order {
		if i > 0 && c == r.order[i-1]+1 {
			run++
		} else {
			run = 1
		}
		longest = max(longest, run)
	}
	if len(r.order) < minChunks || longest > len(r.order)/2 {
		return nil
	}
	return slices.Clone(r.order)
}

// Profile is what was learned of a disk.
type Profile struct {
	size       int64
	recordings uint32
	chunks     []chunk // in order
}

type chunk struct {
	index  uint32
	weight uint8
}

// New makes a profile of a disk of size bytes of which nothing is known.
func New(size int64) *Profile { return &Profile{size: size} }

// Merge adds a recording of the same disk.
func (p *Profile) Merge(recording []uint32) {
	type ranked struct {
		chunk
		rank int // twice the place in the order
	}
	all := make(map[uint32]ranked, len(p.chunks)+len(recording))
	for i, c := range p.chunks {
		c.weight /= 2
		all[c.index] = ranked{c, 2 * i}
	}
	for i, index := range recording {
		c, old := all[index]
		switch {
		case old && c.weight >= seen: // twice in the recording
		case old:
			all[index] = ranked{chunk{index, c.weight + seen}, c.rank/2 + i}
		case index < p.count():
			all[index] = ranked{chunk{index, seen}, 2 * i}
		}
	}
	list := make([]ranked, 0, len(all))
	for _, c := range all {
		if c.weight >= leastWeight {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.index, b.index)) })
	p.chunks = p.chunks[:0]
	for _, c := range list[:min(len(list), maxChunks)] {
		p.chunks = append(p.chunks, c.chunk)
	}
	p.recordings++
}

// count is the number of the disk's chunks.
func (p *Profile) count() uint32 { return uint32((p.size + ChunkSize - 1) / ChunkSize) }

// Range is a part of a disk, in bytes.
type Range struct{ Off, Len int64 }

// Replay returns what to fetch ahead of a start, in the order in which it will be read:
// ranges of at most 4 MiB, at most 256 MiB together.
func (p *Profile) Replay() []Range {
	var ranges []Range
	total := int64(0)
	for _, c := range p.chunks {
		if c.weight < replayWeight {
			continue
		}
		off := int64(c.index) * ChunkSize
		n := min(ChunkSize, p.size-off)
		if total += n; total > maxReplay {
			break
		}
		if k := len(ranges) - 1; k >= 0 && ranges[k].Off+ranges[k].Len == off && ranges[k].Len+n <= maxRange {
			ranges[k].Len += n
		} else {
			ranges = append(ranges, Range{off, n})
		}
	}
	return ranges
}

// The bytes of a profile:
//
//	off size field
//	  0    8 magic "QIBOOT1\0"
//	  8    8 size of the disk
//	 16    4 number of chunks
//	 20    4 number of recordings
//	 24    4 CRC-32C of all bytes, with this field taken as zero
//	 28    4 zero
//
// then for each chunk, in order: the signed varint of the step from the chunk before (from
// 0 for the first), and a byte of weight. Numbers are little-endian.
const (
	magic      = "QIBOOT1\x00"
	headerSize = 32
	offSum     = 24
	// MaxSize is the most that a profile takes, in bytes.
	MaxSize = headerSize + maxChunks*(binary.MaxVarintLen32+2)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bytes encodes the profile.
func (p *Profile) Bytes() []byte {
	b := make([]byte, headerSize, headerSize+4*len(p.chunks))
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint64(b[8:], uint64(p.size))
	le.PutUint32(b[16:], uint32(len(p.chunks)))
	le.PutUint32(b[20:], p.recordings)
	before := int64(0)
	for _, c := range p.chunks {
		b = append(binary.AppendVarint(b, int64(c.index)-before), c.weight)
		before = int64(c.index)
	}
	le.PutUint32(b[offSum:], crc32.Checksum(b, castagnoli))
	return b
}

// ErrDamaged is returned for bytes that are no profile.
var ErrDamaged = errors.New("damaged boot profile")

// Parse decodes a profile of a disk of size bytes. Whatever is wrong, also another size,
// is an ErrDamaged.
func Parse(b []byte, size int64) (*Profile, error) {
	damaged := func(what string, args ...any) (*Profile, error) {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(what, args...))
	}
	le := binary.LittleEndian
	if len(b) < headerSize || len(b) > MaxSize || string(b[:len(magic)]) != magic {
		return damaged("%d bytes without its magic", len(b))
	}
	zeroed := bytes.Clone(b[:headerSize])
	clear(zeroed[offSum : offSum+4])
	if sum := crc32.Update(crc32.Checksum(zeroed, castagnoli), castagnoli, b[headerSize:]); sum != le.Uint32(b[offSum:]) {
		return damaged("checksum is %#08x; its bytes make %#08x", le.Uint32(b[offSum:]), sum)
	}
	n := le.Uint32(b[16:])
	switch {
	case le.Uint64(b[8:]) != uint64(size) || size <= 0:
		return damaged("disk size is %d; it must be %d", le.Uint64(b[8:]), size)
	case n > maxChunks || le.Uint32(b[28:]) != 0:
		return damaged("%d chunks; at most %d", n, maxChunks)
	}
	p := &Profile{size: size, recordings: le.Uint32(b[20:]), chunks: make([]chunk, 0, n)}
	known := make(map[int64]struct{}, n)
	rest, at := b[headerSize:], int64(0)
	for range n {
		step, used := binary.Varint(rest)
		if used <= 0 || len(rest) <= used {
			return damaged("it ends within a chunk")
		}
		if step < -int64(p.count()) || step > int64(p.count()) {
			return damaged("a step of %d chunks", step)
		}
		at += step
		weight := rest[used]
		_, twice := known[at]
		if at < 0 || at >= int64(p.count()) || weight < leastWeight || twice {
			return damaged("chunk %d of %d, weight %d, known: %v", at, p.count(), weight, twice)
		}
		known[at] = struct{}{}
		p.chunks = append(p.chunks, chunk{uint32(at), weight})
		rest = rest[used+1:]
	}
	if len(rest) > 0 {
		return damaged("%d bytes follow its chunks", len(rest))
	}
	return p, nil
}
