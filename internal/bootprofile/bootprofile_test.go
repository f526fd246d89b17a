package bootprofile

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/fuzztest"
)

const gib = 1 << 30

// drawProfile merges a few made-up recordings.
func drawProfile(t *rapid.T) *Profile {
	p := New(rapid.Int64Range(1, 1<<40).Draw(t, "size"))
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for range rapid.IntRange(0, 4).Draw(t, "recordings") {
		list := make([]uint32, rapid.IntRange(0, maxChunks).Draw(t, "chunks"))
		for i := range list {
			list[i] = r.Uint32N(p.count())
		}
		p.Merge(list)
	}
	return p
}

func TestCodec(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawProfile(t)
		b := p.Bytes()
		q, err := Parse(b, p.size)
		if err != nil || q.recordings != p.recordings || !slices.Equal(q.chunks, p.chunks) || len(b) > MaxSize {
			t.Fatalf("%d chunks in %d bytes: %v", len(p.chunks), len(b), err)
		}
		if _, err := Parse(b, p.size+1); !errors.Is(err, ErrDamaged) {
			t.Errorf("for another disk: %v", err)
		}
		bit := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := Parse(b, p.size); !errors.Is(err, ErrDamaged) {
			t.Errorf("with bit %d flipped: %v", bit, err)
		}
	})
}

// What is fetched lies in the disk, each byte once, within the bounds.
func TestReplayStaysWithinTheDisk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawProfile(t)
		total, chunks := int64(0), map[int64]bool{}
		for _, r := range p.Replay() {
			if r.Off < 0 || r.Len <= 0 || r.Len > maxRange || r.Off%ChunkSize != 0 || r.Off+r.Len > p.size {
				t.Fatalf("%+v of a disk of %d", r, p.size)
			}
			total += r.Len
			for off := r.Off; off < r.Off+r.Len; off += ChunkSize {
				if chunks[off] {
					t.Fatalf("%d twice", off)
				}
				chunks[off] = true
			}
		}
		if total > maxReplay {
			t.Fatalf("%d bytes", total)
		}
	})
}

// chunksOf are those that a profile fetches, in order.
func chunksOf(p *Profile) (list []uint32) {
	for _, r := range p.Replay() {
		for off := r.Off; off < r.Off+r.Len; off += ChunkSize {
			list = append(list, uint32(off/ChunkSize))
		}
	}
	return list
}

// One recording suffices; what one start alone reads is not fetched after the next, and
// forgotten after two.
func TestWeights(t *testing.T) {
	t.Parallel()
	p := New(gib)
	p.Merge([]uint32{5, 9, 3, 3})
	if got := chunksOf(p); !slices.Equal(got, []uint32{5, 9, 3}) {
		t.Errorf("after one: %v", got)
	}
	p.Merge([]uint32{5, 3})
	if got := chunksOf(p); !slices.Equal(got, []uint32{5, 3}) || len(p.chunks) != 3 {
		t.Errorf("after two: %v of %v", got, p.chunks)
	}
	p.Merge([]uint32{5, 3, 7, 1 << 30})
	if got := chunksOf(p); !slices.Equal(got, []uint32{5, 3, 7}) || len(p.chunks) != 3 {
		t.Errorf("after three: %v of %v", got, p.chunks)
	}
}

// Starts that differ by a tenth converge to what they have in common, in its order.
func TestNoisyStartsConverge(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	common := make([]uint32, 300)
	for i, c := range r.Perm(10000)[:300] {
		common[i] = uint32(c)
	}
	p := New(gib)
	for range 20 {
		list := slices.Clone(common)
		for i := range list[1:] { // neighbours change places
			if r.IntN(4) == 0 {
				list[i], list[i+1] = list[i+1], list[i]
			}
		}
		for range 30 { // what no other start reads
			list = slices.Insert(list, r.IntN(len(list)), 10000+r.Uint32N(6000))
		}
		p.Merge(list)
	}
	got := chunksOf(p)
	foreign, before := 0, map[uint32]int{}
	for i, c := range got {
		if c >= 10000 {
			foreign++
		}
		before[c] = i
	}
	misplaced := 0
	for i, c := range common {
		at, ok := before[c]
		if !ok {
			t.Fatalf("chunk %d, which all starts read, is not fetched", c)
		}
		if d := at - i; d < -40 || d > 40 {
			misplaced++
		}
	}
	if foreign > 35 || misplaced > 10 {
		t.Errorf("%d of %d are fetched in vain, %d at another place", foreign, len(got), misplaced)
	}
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	start := func() *Recorder {
		r := NewRecorder(gib)
		for i := range int64(20) {
			r.Read((i*37%100)*ChunkSize+100, 4096)
			r.Read((i*37%100)*ChunkSize, ChunkSize) // again
		}
		return r
	}
	if got := start().Chunks(); len(got) != 20 || got[1] != 37 {
		t.Errorf("a start: %v", got)
	}
	r := NewRecorder(gib)
	r.Read(ChunkSize-1, 2)
	if len(r.order) != 2 || r.Chunks() != nil {
		t.Errorf("two chunks: %v", r.order)
	}
	copied := NewRecorder(gib)
	more := true
	for off := int64(0); more && off < gib; off += 1 << 20 {
		more = copied.Read(off, 1<<20)
	}
	if copied.Chunks() != nil || more || len(copied.order) != maxRecorded/ChunkSize {
		t.Errorf("a copy counts as a start: %d chunks", len(copied.order))
	}
	wide := NewRecorder(1 << 40)
	for i := range int64(20000) {
		more = wide.Read(i*3*ChunkSize, 1)
	}
	if more || len(wide.Chunks()) != maxChunks {
		t.Errorf("%d chunks", len(wide.order))
	}
}

func FuzzBootProfile(f *testing.F) {
	p := New(gib)
	f.Add(p.Bytes())
	p.Merge([]uint32{1, 2, 3, 9999, 4, 5})
	p.Merge([]uint32{1, 2, 3, 9999, 4, 7})
	f.Add(p.Bytes())
	f.Add([]byte(magic))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		if len(b) >= headerSize { // a checksum that holds lets all else be reached
			b = bytes.Clone(b)
			clear(b[offSum : offSum+4])
			sum := crc32.Checksum(b, castagnoli)
			copy(b[offSum:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
		}
		p, err := Parse(b, gib)
		if err != nil {
			return
		}
		q, err := Parse(p.Bytes(), gib)
		if err != nil || !slices.Equal(q.chunks, p.chunks) {
			t.Fatalf("encoded again: %v", err)
		}
		for _, r := range p.Replay() {
			if r.Off < 0 || r.Len <= 0 || r.Off+r.Len > gib {
				t.Fatalf("%+v", r)
			}
		}
	})
}
