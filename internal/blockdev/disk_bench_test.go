package blockdev

import (
	"math/rand/v2"
	"testing"
)

// Reads of 4 KiB at random of what is in the folder and mostly not in memory.
func BenchmarkFolder4K(b *testing.B) {
	disk := benchDisk(benchSize)
	f := newFarFixture(b)
	for _, form := range forms[:2] {
		d := f.open(b, newCache(b, CacheOptions{Memory: MinMemory, Dir: b.TempDir()}), f.image(b, form, disk))
		c := d.im.cache
		p := make([]byte, 1<<20)
		for off := int64(0); off < benchSize; off += int64(len(p)) {
			if _, err := d.ReadAt(p, off); err != nil {
				b.Fatal(err)
			}
			c.settled()
			c.disk.flush()
		}
		b.Run(form, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			b.SetBytes(4096)
			before := c.Stats()
			for range b.N {
				if _, err := d.ReadAt(p[:4096], r.Int64N(benchSize/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.Stats().DiskHits-before.DiskHits)/float64(b.N), "hits/read")
		})
	}
}
