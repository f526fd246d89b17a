package blockdev

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
)

// What is in memory is read at once, what is not is left alone: nothing is fetched for
// it, and nothing is counted.
func TestTryRead(t *testing.T) {
	t.Parallel()
	const block = 2 << 20
	disk := make([]byte, 4*block) // data, hole, data, data
	rand.NewChaCha8([32]byte{9}).Read(disk[:block])
	rand.NewChaCha8([32]byte{10}).Read(disk[2*block:])
	f := newFarFixture(t)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			c := newCache(t, f.store, Options{})
			d := f.open(t, c, f.image(t, form, disk))
			p := make([]byte, 8192)
			warm := func(off int64, want bool) {
				t.Helper()
				before := c.Stats()
				for i := range p {
					p[i] = 0x5a
				}
				got := d.TryRead(p, off)
				after := c.Stats()
				switch {
				case got != want:
					t.Errorf("at %d: warm %t, want %t", off, got, want)
				case got && !bytes.Equal(p, disk[off:off+int64(len(p))]):
					t.Errorf("at %d: the bytes differ", off)
				case !got && (after.Hits != before.Hits || after.Delivered != before.Delivered || after.Misses != before.Misses || after.Fetches != before.Fetches):
					t.Errorf("at %d: a read that was not warm counts: %+v, before %+v", off, after, before)
				case got && after.Delivered-before.Delivered != int64(len(p)):
					t.Errorf("at %d: %d bytes were counted", off, after.Delivered-before.Delivered)
				}
			}
			unit := d.BlockSize()
			warm(0, false)
			warm(2*block+unit-4096, false)
			if _, err := d.ReadAt(make([]byte, 1), 2*block+unit-1); err != nil {
				t.Fatal(err)
			}
			warm(0, false)
			warm(2*block+unit-8192, true)
			warm(2*block+unit-4096, false) // into a unit that is cold
			if form != "raw" {
				warm(block+4096, true)   // a hole
				warm(2*block-4096, true) // a hole and what is held behind it
				warm(block-4096, false)
			}
			warm(-1, false)
			warm(d.Size()-100, false)
			other, err := c.Open(t.Context(), d.im.id, at(f.image(t, form, disk)))
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if other.TryRead(p, 2*block+unit-8192) {
				t.Error("a closed device is read")
			}
			if _, err := other.ReadAt(p, 2*block+unit-8192); err == nil {
				t.Error("a closed device is read")
			}
		})
	}
}

// partly is a store whose open files have in memory what lies before a byte.
type partly struct {
	*objectstore.Dir
	end int64
}

type partlyHeld struct {
	objectstore.Held
	end int64
}

func (s partly) Hold(ctx context.Context, loc objectstore.Location, cond objectstore.Condition) (objectstore.Held, error) {
	h, err := s.Dir.Hold(ctx, loc, cond)
	return partlyHeld{h, s.end}, err
}

func (h partlyHeld) ReadReady(v [][]byte, off int64) int {
	return min(h.Held.ReadReady(v, off), int(max(h.end-off, 0)))
}

// A read that is at hand in part is not counted: of a file that the machine has in memory
// up to the middle of the read.
func TestTryReadInPart(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	for _, form := range raws {
		const end = 2 << 20
		f := newFixtureOf(t, func(s objectstore.Store) objectstore.Store { return partly{s.(*objectstore.Dir), end} })
		c := newCache(t, f.store, Options{})
		d := f.open(t, c, f.image(t, form, disk))
		d.touchAll(t)
		unit := d.BlockSize()
		if !d.TryRead(make([]byte, unit), 0) {
			t.Fatal("the file is not at hand")
		}
		before := c.Stats()
		if d.TryRead(make([]byte, 4*unit), end-2*unit) {
			t.Fatal("what the machine has not was read")
		}
		if s := c.Stats(); s.Delivered != before.Delivered || s.Ready != before.Ready || s.Hits != before.Hits || s.Misses != before.Misses {
			t.Errorf("%s: a read that was not at hand counts: %+v, before %+v", form, s, before)
		}
	}
}
