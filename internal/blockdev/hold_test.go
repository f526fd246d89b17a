package blockdev

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
)

// hanging is a store in which the first opening of an object, to hold it, takes until it
// is released.
type hanging struct {
	objectstore.Store
	key     string
	tries   atomic.Int64
	held    atomic.Int64 // objects that are held now
	entered chan struct{}
	release chan struct{}
}

func (h *hanging) Hold(ctx context.Context, loc objectstore.Location, cond objectstore.Condition) (objectstore.Held, error) {
	if loc.Key == h.key && h.tries.Add(1) == 1 {
		close(h.entered)
		<-h.release // whatever becomes of ctx, as it is with a file
	}
	held, err := objectstore.Hold(context.WithoutCancel(ctx), h.Store, loc, cond)
	if err != nil || held == nil {
		return nil, err
	}
	h.held.Add(1)
	return &hangingHeld{held, h}, nil
}

func newHanging(t *testing.T) (h *hanging, f fixture) {
	f = newFixtureOf(t, func(s objectstore.Store) objectstore.Store {
		h = &hanging{Store: s, entered: make(chan struct{}), release: make(chan struct{})}
		return h
	})
	return h, f
}

// shut closes the cache, after which nothing may be held.
func (h *hanging) shut(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if n := h.held.Load(); n != 0 {
		t.Errorf("%d files are still held", n)
	}
}

type hangingHeld struct {
	objectstore.Held
	of *hanging
}

func (h *hangingHeld) Close() error {
	h.of.held.Add(-1)
	return h.Held.Close()
}

// While the opening of one image's file hangs, other images are opened, read and closed,
// and so is this one. What comes of the opening is held only by who still wants it.
func TestOpeningThatHangsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	h, f := newHanging(t)
	slow, other := f.image(t, "raw", disk), f.image(t, "raw with bitmap", disk)
	h.key = slow.Key
	c, err := NewCache(f.store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(d *Device) {
		t.Helper()
		p := make([]byte, 8192)
		if _, err := d.ReadAt(p, 2<<20); err != nil || !bytes.Equal(p, disk[2<<20:2<<20+8192]) {
			t.Errorf("error %v, or other bytes", err)
		}
	}
	open := func(key string) *Device {
		t.Helper()
		data := other
		if key == slow.Key {
			data = slow
		}
		d, err := c.Open(t.Context(), key, at(data))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	shut := func(d *Device) {
		t.Helper()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	first := open(slow.Key)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := make([]byte, 8192)
		if n, err := first.ReadAt(p, 1<<20); err == nil && !bytes.Equal(p[:n], disk[1<<20:1<<20+8192]) {
			t.Error("other bytes were read")
		}
	}()
	<-h.entered
	d := open(other.Key)
	read(d)
	shut(d)
	shut(first) // the last that uses the image
	second := open(slow.Key)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := second.ReadAtContext(ctx, make([]byte, 4096), 3<<20)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; err == nil {
		t.Error("a read that was called off succeeded")
	}
	close(h.release)
	<-ended
	read(second)
	if !second.local() {
		t.Error("the file is not held for who uses the image")
	}
	shut(second)
	h.shut(t, c)
}

// What was opened for a read that was called off meanwhile serves the next reads: it is
// not opened once more beside it.
func TestOpenedForWhoHasLeft(t *testing.T) {
	t.Parallel()
	disk := benchDisk(4 << 20)
	h, f := newHanging(t)
	data := f.image(t, "raw with bitmap", disk) // nothing of the disk is read to open it
	h.key = data.Key
	c, err := NewCache(f.store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Open(t.Context(), data.Key, at(data))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := d.ReadAtContext(ctx, make([]byte, 4096), 0)
		left <- err
	}()
	<-h.entered
	cancel()
	if err := <-left; err == nil {
		t.Error("a read that was called off succeeded")
	}
	close(h.release)
	p := make([]byte, 4096)
	for _, off := range []int64{0, 1 << 20, 3 << 20} {
		if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:off+4096]) {
			t.Errorf("at %d: error %v, or other bytes", off, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	h.shut(t, c)
}
