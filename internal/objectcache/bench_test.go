package objectcache

import (
	"testing"
)

// BenchmarkStart opens a folder with as many objects as there may be, which hold 100 GiB as
// far as their names tell: the files are sparse.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	c := open(b, Options{Dir: dir, Queue: 1 << 30})
	for i := range maxObjects {
		n := named(i, 25<<20)
		offer(c, n, 0, 4096)
		if i%512 == 0 {
			settle(c)
		}
	}
	must(b, c.Close())
	for b.Loop() {
		c, err := Open(Options{Dir: dir})
		must(b, err)
		<-c.listed
		if !has(b, c, named(7, 25<<20), 0, 4096) {
			b.Fatal("it is not there")
		}
		must(b, c.Close())
	}
}

// BenchmarkRead reads as much as a frame or a unit of RAW takes.
func BenchmarkRead(b *testing.B) {
	c := open(b, Options{Dir: b.TempDir()})
	n := named(1, 64<<20)
	for off := int64(0); off < n.Size; off += 4 << 20 {
		offer(c, n, off, 4<<20)
		settle(c)
	}
	p := make([]byte, 28<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	i := int64(0)
	for b.Loop() {
		if i++; !c.ReadAt(n, p, i*7919*4096%(63<<20)) {
			b.Fatal("it is not there")
		}
	}
}
