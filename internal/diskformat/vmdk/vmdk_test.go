package vmdk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// What can be wrong without harm: an unclean shutdown is told, the redundant
// directory and what is beyond the tables is not looked at.
func TestWhatDoesNotCount(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		v := newVictim(stream)
		v.header[72] = 1
		if stream {
			v.footer[72] = 1
		}
		v.header[8] |= flagRedundant
		if stream {
			v.footer[8] |= flagRedundant
		}
		le.PutUint64(v.header[48:], 1<<60)                          // rgdOffset
		le.PutUint64(v.header[64:], 1<<60)                          // overHead
		disktest.Fill(v.header[79:], 1)                             // padding
		le.PutUint32(v.gt()[5*entrySize:], 0xfffffff0)              // beyond the disk
		text("CID=12345678", "CID=99999999")(v)                     // the content's number
		text("\"disk.vmdk\"", "\"/renamed/since.vmdk\"; rm -rf")(v) // its own name, which nobody opens
		if _, err := openBytes(v.b); err == nil {
			t.Errorf("stream %v: a line of too many words was read", stream)
			continue
		}
		text("\"/renamed/since.vmdk\"; rm -rf", "\"renamed since.vmdk\"")(v)
		f, err := openBytes(v.b)
		if err != nil {
			t.Errorf("stream %v: %v", stream, err)
			continue
		}
		if !f.Unclean() {
			t.Error("it is not called unclean")
		}
		got := make([]byte, f.Size())
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, victimDisk()) {
			t.Errorf("stream %v: another disk, %v", stream, err)
		}
	}
}

// The last grain may be stored whole or only as far as the disk goes.
func TestLastGrain(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		for _, short := range []bool{false, true} {
			f := mustOpen(t, build{disk: victimDisk(), grain: 32 << 10, stream: stream, short: short}.file())
			got := make([]byte, 4000)
			off := f.Size() - 1000
			if n, err := f.ReadAt(got, off); n != 1000 || err != io.EOF || !bytes.Equal(got[:n], victimDisk()[off:]) {
				t.Errorf("stream %v, short %v: %d, %v", stream, short, n, err)
			}
		}
	}
}

// The extents are those of the grains.
func TestExtents(t *testing.T) {
	t.Parallel()
	const g = 64 << 10
	var want []diskformat.Extent
	for i := range int64(5) {
		want = append(want, diskformat.Extent{Offset: i * g, Length: g, Data: i%2 == 0})
	}
	want[4].Length = 3 * sectorSize
	for _, c := range []build{{}, {stream: true}, {zeroGrains: true}, {zeroGrains: true, stream: true}} {
		c.disk, c.grain = victimDisk(), g
		f := mustOpen(t, c.file())
		if got, err := disktest.Extents(f.Map(t.Context())); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		for range f.Map(t.Context()) {
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for e, err := range f.Map(ctx) {
			if !errors.Is(err, context.Canceled) || e != (diskformat.Extent{}) {
				t.Errorf("with a context that is over: %+v, %v", e, err)
			}
		}
	}
}

// A large read takes few reads of the file, and those small ones that follow
// within a compressed grain take none.
func TestFewReads(t *testing.T) {
	t.Parallel()
	disk := make([]byte, 8<<20)
	disktest.Fill(disk, 5)
	for i := range len(disk) / 4096 {
		disk[i*4096] = 1 // no grain is zero
	}
	for _, stream := range []bool{false, true} {
		b := build{disk: disk, grain: 64 << 10, stream: stream}.file()
		c := &disktest.Counter{R: bytes.NewReader(b)}
		f, err := Open(c, int64(len(b)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Reads()); n > 4 {
			t.Errorf("stream %v: opening takes %d reads", stream, n)
		}
		got := make([]byte, 4<<20)
		if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, disk[1<<20:5<<20]) {
			t.Fatal(err)
		}
		reads := c.Reads()
		sum := int64(0)
		for _, r := range reads {
			sum += r.Len
		}
		// Directory, table; at best 1 plain or 4 compressed pieces.
		if len(reads) > 12 || sum > 5<<20 {
			t.Errorf("stream %v: 4 MiB take %d reads of %d bytes", stream, len(reads), sum)
		}
		for off := int64(2 << 20); off < 2<<20+64<<10; off += 4096 {
			if _, err := f.ReadAt(got[:4096], off); err != nil || !bytes.Equal(got[:4096], disk[off:][:4096]) {
				t.Fatal(err)
			}
		}
		if n := len(c.Reads()); stream && n > 2 {
			t.Errorf("16 pieces of one compressed grain take %d reads", n)
		}
	}
}

// giant is a disk of 62 TiB, all of whose tables lie in pages of their own and
// say that nothing is stored. It is a file of 2 TiB without content.
type giant struct{ header []byte }

const giantTables = MaxSize / (64 << 10 * tableLen)

func (g giant) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for i := range p {
		at := off + int64(i)
		switch {
		case at < int64(len(g.header)):
			p[i] = g.header[at]
		case at >= 1<<20 && at < 1<<20+giantTables*entrySize:
			table := (at - 1<<20) / entrySize
			sector := uint32(64<<20/sectorSize + table*(recent.PageSize/sectorSize))
			p[i] = byte(sector >> (8 * (at % entrySize)))
		case at > 1<<21:
			return len(p), nil
		}
	}
	return len(p), nil
}

// However large the disk, what is kept is bounded.
func TestMemoryOfGiant(t *testing.T) {
	v := newVictim(false)
	le.PutUint64(v.header[12:], MaxSize/sectorSize)
	le.PutUint64(v.header[56:], 1<<20/sectorSize)
	text("RW 515 ", "RW 133143986176 ")(v)
	g := giant{v.b[:64<<10]}
	peak := disktest.Peak(t, func() {
		f, err := Open(g, 2<<40, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 100)
		for i := range int64(3000) {
			if _, err := f.ReadAt(p, i*(MaxSize/3000)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if peak > 8<<20 {
		t.Errorf("reading all over it takes %d bytes of memory", peak)
	}
}

// Many goroutines read a disk at once, large and small pieces.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	disk := make([]byte, 3<<20)
	disktest.Fill(disk, 9)
	for _, c := range []build{{disk: disk, grain: 16 << 10}, {disk: disk, grain: 16 << 10, stream: true}} {
		f := mustOpen(t, c.file())
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				size := []int{4096, 1000, 100_000, 1 << 20}[i%4]
				p := make([]byte, size)
				for off := i * 777; off+size <= len(disk); off += size + i {
					if _, err := f.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, disk[off:off+size]) {
						t.Errorf("%d bytes at %d: %v", size, off, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
