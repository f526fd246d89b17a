package blockdev

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What is in memory is read at once, what is not is left alone: nothing is fetched for
// it, and nothing is counted.
func TestReadWarm(t *testing.T) {
	t.Parallel()
	const block = 2 << 20
	disk := make([]byte, 4*block) // data, hole, data, data
	rand.NewChaCha8([32]byte{9}).Read(disk[:block])
	rand.NewChaCha8([32]byte{10}).Read(disk[2*block:])
	f := newFarFixture(t)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			c := newCache(t, CacheOptions{})
			d := f.open(t, c, f.image(t, form, disk))
			p := make([]byte, 8192)
			warm := func(off int64, want bool) {
				t.Helper()
				before := c.Stats()
				for i := range p {
					p[i] = 0x5a
				}
				got := d.ReadWarm(p, off)
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
			other, err := Open(t.Context(), f.store, c, d.im.id, at(f.image(t, form, disk)))
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if other.ReadWarm(p, 2*block+unit-8192) {
				t.Error("a closed device is read")
			}
		})
	}
}

// A read that is at hand in part is not counted: of a file that the machine has in memory
// up to a unit that somebody else is fetching.
func TestReadWarmInPart(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	for _, form := range raws {
		f := newFixture(t)
		c := newCache(t, CacheOptions{})
		d := f.open(t, c, f.image(t, form, disk))
		d.touchAll(t)
		unit := d.BlockSize()
		if !d.ReadWarm(make([]byte, unit), 0) {
			t.Fatal("the file is not at hand")
		}
		b := c.wantAlone(d.im.keyOf(2), 2, false)
		before := c.Stats()
		if d.ReadWarm(make([]byte, 8192), 2*unit-4096) {
			t.Fatal("what is being fetched was read")
		}
		if s := c.Stats(); s.Delivered != before.Delivered || s.Ready != before.Ready || s.Hits != before.Hits || s.Misses != before.Misses {
			t.Errorf("%s: a read that was not at hand counts: %+v, before %+v", form, s, before)
		}
		c.settle(b, errAbandoned)
	}
}
