package blockdev

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Any mix of reads, reads that are called off, prefetches, evictions, faults of the store
// and the move to the image area gives the source's bytes or an error; a buffer is the
// reader's own again when its read has returned; counts never go down; and what was called
// off or failed leaves nothing behind.
func TestAnyMix(t *testing.T) {
	t.Parallel()
	disk := testDisk()
	for _, kind := range []string{"held", "far"} {
		for _, form := range forms {
			t.Run(kind+"/"+form, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				if kind == "far" {
					f = newFarFixture(t)
				}
				area := f.image(t, form, disk)
				source := f.source(t, area)
				for range 10 {
					anyMix(t, rand.Uint64(), f, kind == "far", source, area, disk)
				}
			})
		}
	}
}

func anyMix(t *testing.T, seed uint64, f fixture, far bool, source, area ims.Data, disk []byte) {
	store := &faulty{Store: f.store}
	var now atomic.Pointer[ims.Data]
	now.Store(&source)
	var wrapped objectstore.Store = store
	if !far {
		wrapped = f.store
	}
	c, err := NewCache(wrapped, Options{Memory: MinMemory})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Open(t.Context(), "image", func(context.Context) (ims.Data, error) { return *now.Load(), nil })
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for i := range uint64(4) {
		work.Go(func() {
			r := rand.New(rand.NewPCG(seed, i))
			type kept struct{ p, was []byte }
			var all []kept
			var last Stats
			for range 12 {
				off := r.Int64N(int64(len(disk)))
				n := min(1+r.Int64N(1<<r.IntN(22)), int64(len(disk))-off)
				p := make([]byte, n)
				switch r.IntN(10) {
				case 0:
					c.dropMemory()
					continue
				case 1:
					if err := d.Prefetch(t.Context(), off, n); err != nil {
						t.Error(err)
					}
					continue
				case 2:
					now.Store(&area)
					continue
				case 3:
					store.mu.Lock()
					store.plans = append(store.plans, []plan{refuse(objectstore.ErrNotFound), cut(r.Int64N(40_000), io.ErrUnexpectedEOF), flip(r.IntN(1000))}[r.IntN(2+min(1, len(area.BitmapKey)))])
					store.mu.Unlock()
					continue
				case 4, 5:
					if d.TryRead(p, off) && !bytes.Equal(p, disk[off:off+n]) {
						t.Errorf("seed %d: %d bytes at %d: other bytes at hand", seed, n, off)
					}
					continue
				}
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					go cancel()
				}
				got, _ := d.ReadAtContext(ctx, p, off)
				cancel()
				if !bytes.Equal(p[:got], disk[off:off+int64(got)]) {
					t.Errorf("seed %d: %d bytes at %d: other bytes", seed, got, off)
				}
				all = append(all, kept{p, bytes.Clone(p)})
				s := c.Stats()
				if s.Hits < last.Hits || s.Misses < last.Misses || s.Delivered < last.Delivered || s.Fetched < last.Fetched || s.Ahead < last.Ahead || s.MemoryPeak < last.MemoryPeak {
					t.Errorf("seed %d: a count went down: %+v, before %+v", seed, s, last)
				}
				last = s
			}
			for _, k := range all {
				if !bytes.Equal(k.p, k.was) {
					t.Errorf("seed %d: a buffer was written after its read", seed)
				}
			}
		})
	}
	work.Wait()
	c.settled()
	if n := c.mem.Unread(); n > c.Stats().Memory {
		t.Errorf("seed %d: %d bytes are unread of %d", seed, n, c.Stats().Memory)
	}
	c.dropMemory()
	if n := c.mem.Unread(); n != 0 {
		t.Errorf("seed %d: %d bytes are unread though nothing is there", seed, n)
	}
	store.mu.Lock()
	store.plans = nil
	store.mu.Unlock()
	now.Store(&area)
	p := make([]byte, len(disk))
	if n, err := d.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF || !bytes.Equal(p, disk) {
		t.Errorf("seed %d: at the end: %d bytes, error %v, or other bytes", seed, n, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// 64 readers of 32 MiB in the least memory come to their end, within its bound.
func TestManyLongReads(t *testing.T) {
	t.Parallel()
	disk := benchDisk(32 << 20)
	for _, form := range forms {
		f := newFarFixture(t)
		c := newCache(t, f.store, Options{Memory: MinMemory})
		d := f.open(t, c, f.image(t, form, disk))
		readers := 64
		if form == "zvhd2 in blocks" {
			readers = 6 // decoding takes its time
		}
		buf := make(chan []byte, 16) // as many at once
		for range cap(buf) {
			buf <- nil
		}
		var work sync.WaitGroup
		for range readers {
			work.Go(func() {
				p := <-buf
				if p == nil {
					p = make([]byte, len(disk))
				}
				if _, err := d.ReadAt(p, 0); err != nil && err != io.EOF || !bytes.Equal(p, disk) {
					t.Errorf("%s: error %v, or other bytes", form, err)
				}
				buf <- p
			})
		}
		work.Wait()
		if peak := c.Stats().MemoryPeak; peak > MinMemory {
			t.Errorf("%s: %d bytes were in use of %d", form, peak, MinMemory)
		}
	}
}
