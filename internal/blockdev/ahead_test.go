package blockdev

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/unit"
)

// How much is fetched ahead of reads that no store slows down.
func aheadOf(l unit.Layout, reads []int64, n int64) (fetched int64) {
	var s streams
	var upTo int64
	for _, off := range reads {
		if id, from, want := s.note(l, off, n, maxAhead); want > 0 {
			upTo = max(upTo, from+want)
			s.fetched(id, from+want)
			fetched += want
		}
	}
	return fetched
}

// A sequential reader has more and more fetched ahead, up to the limit, also when its
// reads arrive in another order; and never more than twice what it has read.
func TestAheadOfSequentialReads(t *testing.T) {
	t.Parallel()
	l := unit.Plain(0, 1<<40)
	rapid.Check(t, func(t *rapid.T) {
		n := int64(512) << rapid.IntRange(0, 12).Draw(t, "length")
		flight := rapid.IntRange(1, inFlight).Draw(t, "in flight")
		start := rapid.Int64Range(0, 1<<39).Draw(t, "start") / 512 * 512
		count := min(int(128<<20/n)+100, 3000)
		var reads []int64
		for i := range count {
			reads = append(reads, start+int64(i)*n)
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		for i := 0; i < len(reads); i += flight { // those in flight overtake each other
			part := reads[i:min(len(reads), i+flight)]
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		}
		total := n * int64(count)
		got := aheadOf(l, reads, n)
		if most := 2*total + maxAhead; got > most {
			t.Fatalf("%d bytes were fetched ahead of %d that were read", got, total)
		}
		if got < total/2 {
			t.Fatalf("only %d bytes were fetched ahead of %d that were read", got, total)
		}
	})
}

// Ahead of random reads next to nothing is fetched.
func TestAheadOfRandomReads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := int64(1) << rapid.IntRange(28, 40).Draw(t, "disk")
		n := int64(512) << rapid.IntRange(0, 8).Draw(t, "length")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "places"), 0))
		var reads []int64
		for range 2000 {
			reads = append(reads, r.Int64N(size/n)*n)
		}
		if got, read := aheadOf(unit.Plain(0, size), reads, n), 2000*n; got > read/10 {
			t.Fatalf("%d bytes were fetched ahead of %d that were read at random", got, read)
		}
	})
}

// Several sequential readers of one device are told apart.
func TestAheadOfSeveralReaders(t *testing.T) {
	t.Parallel()
	const n = 64 << 10
	var reads []int64
	for i := range int64(1000) {
		for s := range int64(maxStreams) {
			reads = append(reads, s<<36+i*n)
		}
	}
	if got, read := aheadOf(unit.Plain(0, 1<<40), reads, n), int64(len(reads))*n; got < read/2 {
		t.Errorf("%d bytes were fetched ahead of %d that %d readers read", got, read, maxStreams)
	}
}

// What is fetched ahead is what is read next: a whole sequential read fetches each byte
// once, and waits for few.
func TestAheadFetchesOnce(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	for _, form := range forms {
		f := newFarFixture(t)
		c := newCache(t, f.store, Options{Memory: 64 << 20})
		d := f.open(t, c, f.image(t, form, disk))
		before := f.store.ImageReads()
		p := make([]byte, 64<<10)
		for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
			if _, err := d.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		s := c.Stats()
		if fetched := f.store.ImageReads().Bytes - before.Bytes; fetched > int64(len(disk))+1<<20 {
			t.Errorf("%s: %d bytes were fetched for a disk of %d", form, fetched, len(disk))
		}
		if s.AheadUsed < int64(len(disk))/2 || s.AheadWaste > 0 {
			t.Errorf("%s: of %d bytes that were fetched ahead %d were used and %d wasted", form, s.Ahead, s.AheadUsed, s.AheadWaste)
		}
	}
}

// Many that begin to read an image in order and stop leave room for what is fetched
// ahead of the reader of another.
func TestAheadBesideReadersThatStop(t *testing.T) {
	t.Parallel()
	disk := benchDisk(96 << 20)
	f := newFarFixture(t)
	data := f.image(t, "raw", disk)
	c := newCache(t, f.store, Options{Memory: 128 << 20})
	p := make([]byte, 256<<10)
	read := func(d *Device, from int64, reads int) {
		t.Helper()
		for i := range int64(reads) {
			if _, err := d.ReadAt(p, from+i*int64(len(p))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range int64(20) {
		read(f.openAs(t, c, "stops", data), i*4<<20, 8)
	}
	c.settled()
	// 32 MiB may lie there unread, of one image half of it.
	if got := c.mem.Unread(); got < 8<<20 || got > 16<<20 {
		t.Errorf("%d bytes were fetched ahead of readers that stop", got)
	}
	before := c.Stats()
	read(f.openAs(t, c, "goes on", data), 0, 4*16)
	c.settled()
	if used := c.Stats().AheadUsed - before.AheadUsed; used < 12<<20 {
		t.Errorf("of 16 MiB that a reader went through %d bytes were fetched ahead", used)
	}
}
