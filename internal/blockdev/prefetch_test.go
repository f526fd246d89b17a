package blockdev

import (
	"bytes"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// openAs opens an image under another name than its data's.
func (f fixture) openAs(t *testing.T, c *Cache, id string, data ims.Data) *Device {
	t.Helper()
	d, err := c.Open(t.Context(), id, at(data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// settled returns when nothing is being fetched. Nobody may read meanwhile.
func (c *Cache) settled() { c.work.Wait() }

// What was prefetched is read without another fetch, what lies around it is not fetched,
// and what is there already is not fetched again.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	disk := benchDisk(12 << 20)
	clear(disk[4<<20 : 6<<20])
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFarFixture(t)
			c := newCache(t, f.store, Options{Memory: 128 << 20})
			d := f.openAs(t, c, "image", f.image(t, form, disk))
			const off, n = 2<<20 + 100, 6 << 20
			for range 2 {
				if err := d.Prefetch(t.Context(), off, n); err != nil {
					t.Fatal(err)
				}
				c.settled()
				least, most := int64(n), n+2*d.BlockSize()
				if form != "raw" { // which has no holes
					least, most = least-2<<20, most-2<<20
				}
				if got := c.Stats().Ahead; got < least || got > most {
					t.Errorf("%d bytes were fetched for a range of %d", got, n)
				}
			}
			before := c.Stats()
			p := make([]byte, n)
			if !d.TryRead(p, off) || !bytes.Equal(p, disk[off:off+n]) {
				t.Error("the range was not fetched whole, or wrong")
			}
			if after := c.Stats(); after.Fetched != before.Fetched || after.AheadUsed < n-2<<20 {
				t.Errorf("%d bytes were fetched for what was prefetched, %d of it were used", after.Fetched-before.Fetched, after.AheadUsed)
			}
		})
	}
}

// However much is asked for, no more than a 16th of the memory waits to be read of
// one image; once
// it is read there is room for more.
func TestPrefetchIsBounded(t *testing.T) {
	t.Parallel()
	disk := benchDisk(24 << 20)
	f := newFarFixture(t)
	c := newCache(t, f.store, Options{Memory: 32 << 20})
	d := f.openAs(t, c, "image", f.image(t, "raw", disk))
	prefetch := func(want int64) {
		t.Helper()
		for range 3 {
			if err := d.Prefetch(t.Context(), 0, d.Size()); err != nil {
				t.Fatal(err)
			}
		}
		c.settled()
		if got := c.Stats().Ahead; got != want {
			t.Errorf("%d bytes were fetched, want %d", got, want)
		}
	}
	prefetch(2 << 20)
	if !d.TryRead(make([]byte, 1<<20), 0) {
		t.Error("the front was not fetched")
	}
	prefetch(3 << 20)

	for _, x := range [][2]int64{{-1, 1}, {0, -1}, {1, d.Size()}, {d.Size(), 1}, {1 << 62, 1 << 62}} {
		if d.Prefetch(t.Context(), x[0], x[1]) == nil {
			t.Errorf("%d bytes at %d are prefetched", x[1], x[0])
		}
	}
	if err := d.Prefetch(t.Context(), d.Size(), 0); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
	closed := f.openAs(t, c, "closed", f.image(t, "raw", disk))
	if closed.Close() != nil || closed.Prefetch(t.Context(), 0, 1) == nil {
		t.Error("a closed device is prefetched")
	}
}

// Of a RAW file on this machine nothing is brought into the cache before it is read.
func TestPrefetchOfALocalFile(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	f := newFixture(t)
	c := newCache(t, f.store, Options{})
	d := f.open(t, c, f.image(t, "raw", disk))
	p := make([]byte, len(disk))
	if _, err := d.ReadAt(p[:1], 3<<20); err != nil { // from now on the file is held open
		t.Fatal(err)
	}
	c.settled()
	before := c.Stats()
	if err := d.Prefetch(t.Context(), 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	c.settled()
	if after := c.Stats(); after.Fetched != before.Fetched {
		t.Errorf("%d bytes were fetched", after.Fetched-before.Fetched)
	}
	if _, err := d.ReadAt(p, 0); err != nil || !bytes.Equal(p, disk) {
		t.Errorf("the bytes differ: %v", err)
	}
}

// What was prefetched and not read yet counts as what it takes: of the disk's last unit,
// which is short, no more than that.
func TestPrefetchOfTheEnd(t *testing.T) {
	t.Parallel()
	disk := append(benchDisk(1<<20), bytes.Repeat([]byte("the end "), 64)...)
	for _, form := range []string{"raw", "raw with bitmap"} {
		f := newFarFixture(t)
		store := newFaulty(t, f.store)
		c := newCache(t, store, Options{})
		d := f.openAs(t, c, "image", f.image(t, form, disk))
		d.readTable(t)
		c.settled()
		if form == "raw with bitmap" {
			store.plan(flip(999)) // of 512 bytes: they are read again
		}
		if err := d.Prefetch(t.Context(), 1<<20, 512); err != nil {
			t.Fatal(err)
		}
		c.settled()
		if n, of := c.mem.Unread(), d.im.ahead.Unread(); n != 512 || of != 512 || c.Stats().Ahead != 512 {
			t.Errorf("%s: %d bytes are unread, %d of the image, %d were fetched, want 512", form, n, of, c.Stats().Ahead)
		}
		p := make([]byte, 512)
		if n, err := d.ReadAt(p, 1<<20); n != len(p) || !bytes.Equal(p, disk[1<<20:]) {
			t.Errorf("%s: %d bytes, error %v, or other bytes", form, n, err)
		}
		if n, of := c.mem.Unread(), d.im.ahead.Unread(); n != 0 || of != 0 {
			t.Errorf("%s: %d bytes are unread, %d of the image, when all are read", form, n, of)
		}
	}
}
