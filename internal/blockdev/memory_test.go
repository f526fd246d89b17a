package blockdev

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
)

// Many readers of many images at random and in sequence, in memory that holds a small
// part of them: all get the source's bytes, and the memory stays within its bound.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	disk := benchDisk(16 << 20)
	f := newFixture(t)
	c := newCache(t, f.store, Options{Memory: MinMemory})
	var wg sync.WaitGroup
	for _, form := range forms {
		d := f.open(t, c, f.image(t, form, disk))
		for reader := range 16 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(reader), 5))
				p := make([]byte, 9<<20)
				off := r.Int64N(int64(len(disk)))
				for i := range 20 {
					n := 1 + r.Int64N(64<<10)
					if i%20 == 7 {
						n = int64(len(p)) // more than fetches may have at once
					}
					if reader%2 == 0 || off >= int64(len(disk)) {
						off = r.Int64N(int64(len(disk)))
					}
					n = min(n, int64(len(disk))-off)
					ctx, cancel := context.WithCancel(t.Context())
					if i%10 == 3 {
						cancel() // goes away at once
					}
					_, err := d.ReadAtContext(ctx, p[:n], off)
					gone := ctx.Err() != nil
					cancel()
					if err != nil && !gone {
						t.Errorf("%s: %d bytes at %d: %v", form, n, off, err)
						return
					}
					if err == nil && !bytes.Equal(p[:n], disk[off:off+n]) {
						t.Errorf("%s: %d bytes at %d are other bytes", form, n, off)
						return
					}
					off += n
				}
			})
		}
	}
	wg.Wait()
	c.settled()
	s := c.Stats()
	if s.MemoryPeak > MinMemory || s.MemoryPeak < MinMemory/2 {
		t.Errorf("the most memory in use was %d of %d", s.MemoryPeak, MinMemory)
	}
	c.dropMemory()
	g := c.mem.TryGrant(MinMemory - c.images.memory)
	if g == nil {
		t.Fatalf("with nothing resident %d bytes are in use, %d of them by what is known of the images", c.Stats().Memory, c.images.memory)
	}
	g.Release()
}
