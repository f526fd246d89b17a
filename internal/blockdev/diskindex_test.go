package blockdev

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// A folder that is larger than the memory for its index holds what was written last: the
// memory stays within its bound, and what is read is right.
func TestDiskIndexBound(t *testing.T) {
	t.Parallel()
	disk := benchDisk(128 << 20) // 4096 units
	f := newFixture(t)
	c := newCache(t, CacheOptions{Memory: MinMemory, Dir: t.TempDir(), DirSize: 1 << 40})
	x := c.disk.index
	const pages = 2
	most := x.fixed + pages*indexPageBytes + 4*indexImage
	c.disk.mu.Lock()
	x.bound(most)
	c.disk.mu.Unlock()
	d := f.open(t, c, f.image(t, "raw", disk))
	c.disk.mu.Lock()
	x.bound(most) // opening has said what the images leave
	c.disk.mu.Unlock()
	p := make([]byte, 1<<20)
	read := func(off int64) {
		t.Helper()
		if _, err := d.ReadAt(p, off); err != nil && err != io.EOF || !bytes.Equal(p, disk[off:off+int64(len(p))]) {
			t.Fatalf("the read at %d ended with error %v, or with other bytes", off, err)
		}
		c.settled()
		c.disk.flush()
	}
	for off := int64(0); off < int64(len(disk)); off += int64(len(p)) {
		read(off)
		c.disk.mu.Lock()
		used := x.used
		c.disk.mu.Unlock()
		if s := c.Stats(); used > most || s.MemoryPeak > MinMemory {
			t.Fatalf("the index takes %d bytes of %d; the most memory in use was %d of %d", used, most, s.MemoryPeak, MinMemory)
		}
	}
	s := c.Stats()
	if held := s.Disk / rawUnit; s.DiskErrors > 0 || held <= (pages-1)*indexPage || held > pages*indexPage {
		t.Errorf("%d units are held in the folder, %d errors", held, s.DiskErrors)
	}
	kept := func(u int64) bool { return c.disk.has(d.im.keyOf(u)) }
	if kept(0) || kept(1000) || !kept(units(d.im.layout)-1) || !kept(units(d.im.layout)-1000) {
		t.Error("it is not the oldest units that were dropped")
	}
	c.dropMemory()
	before := c.Stats()
	read(int64(len(disk) - len(p)))
	if s := c.Stats(); s.DiskHits-before.DiskHits < int64(len(p))/rawUnit || s.Fetched > before.Fetched {
		t.Errorf("of what was written last %d units came from the folder, %d bytes were fetched", s.DiskHits-before.DiskHits, s.Fetched-before.Fetched)
	}
	c.dropMemory()
	read(0)
}

// What images need the index gives up, and may take again afterwards.
func TestDiskIndexLeavesToImages(t *testing.T) {
	t.Parallel()
	c := newCache(t, CacheOptions{Memory: MinMemory, Dir: t.TempDir()})
	fill := func() (used int64) {
		c.disk.mu.Lock()
		defer c.disk.mu.Unlock()
		for u := range uint64(MinMemory/4) / uint64(entryBytes) {
			if k := (key{pos: u*rawUnit | 15}); c.disk.index.find(k) == nil {
				c.disk.index.add(k, int64(u*rawUnit), 0)
			}
		}
		return c.disk.index.used
	}
	images := func(n int64) {
		c.images.mu.Lock()
		defer c.images.mu.Unlock()
		c.images.add(n)
	}
	for _, n := range []int64{0, 1 << 20, 2 << 20, 0} {
		images(n)
		c.disk.mu.Lock()
		left := c.disk.index.used
		c.disk.mu.Unlock()
		if used := fill(); left > MinMemory/4-n || used > MinMemory/4-n || used < MinMemory/4-n-indexPageBytes-indexImage {
			t.Errorf("when images take %d bytes the index takes %d, and then %d", n, left, used)
		}
		images(-n)
	}
}

// The index finds what was added and not dropped, and nothing else.
func TestDiskIndexModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		mem := newMemory(1<<20, func() bool { return false })
		x := newDiskIndex(mem, 64<<20, 200<<10)
		type written struct {
			k   key
			off int64
		}
		var ring []written // those that can be found
		seq := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				x.bound(rapid.Int64Range(0, 200<<10).Draw(t, "bound"))
			case 1:
				for range rapid.IntRange(1, 3000).Draw(t, "drops") {
					if x.oldest() != nil {
						x.drop()
					}
				}
			case 2:
				if len(ring) > 0 {
					i := rapid.IntRange(0, len(ring)-1).Draw(t, "hidden")
					if e := x.find(ring[i].k); e != nil {
						x.hide(e)
					}
				}
			default:
				image := rapid.Byte().Draw(t, "image")
				unit := rapid.Uint64Range(0, 1000).Draw(t, "unit")
				for range rapid.IntRange(1, 1500).Draw(t, "adds") {
					k := key{image: imageKey{image}, pos: unit*rawUnit | 15}
					unit++
					if x.find(k) == nil {
						x.add(k, seq*filePage, uint32(seq))
						ring = append(ring, written{k, seq * filePage})
						seq++
					}
				}
			}
			if x.used > max(x.most, x.fixed+indexImage*int64(len(x.images))) || mem.fixed != x.used || mem.granted != x.used {
				t.Fatalf("%d bytes are used of %d; %d and %d are granted", x.used, x.most, mem.fixed, mem.granted)
			}
			// Only the oldest are missing, or what was hidden.
			oldest := int64(-1)
			if e := x.oldest(); e != nil {
				oldest = e.off()
			}
			var left []written
			for _, w := range ring {
				e := x.find(w.k)
				if e != nil && e.off() == w.off && (oldest < 0 || w.off < oldest || e.sum != uint32(w.off/filePage)) {
					t.Fatalf("unit %v at %d is found; the oldest is at %d", w.k, w.off, oldest)
				}
				if e != nil && e.off() == w.off {
					left = append(left, w)
				}
			}
			ring = left
			found := 0
			for n := x.first; n < x.next; n++ {
				if x.at(n).image != noImage {
					found++
				}
			}
			if found != len(ring) {
				t.Fatalf("%d entries are in the ring, %d of them can be found", found, len(ring))
			}
		}
	})
}

// What the index says that it takes is what it takes, for a GiB of each kind of unit.
func TestDiskIndexHeap(t *testing.T) { // not parallel: it measures the heap
	for name, log2 := range map[string]uint64{"raw": 15, "zvhd2": 21} {
		const size, gib = 16 << 30, 1 << 30
		mem := newMemory(1<<30, func() bool { return false })
		before := heap()
		x := newDiskIndex(mem, size, mem.limit/4)
		for off := uint64(0); off < size; off += 1 << log2 {
			x.add(key{pos: off | log2}, int64(off), 0)
		}
		took := heap() - before
		t.Logf("%s: %d bytes for a GiB; %d say the counts", name, took/(size/gib), x.used/(size/gib))
		if took > x.used+64<<10 || took < x.used-64<<10 {
			t.Errorf("%s: it takes %d bytes and says %d", name, took, x.used)
		}
		runtime.KeepAlive(x)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Looking up units of a folder of 8 GiB.
func BenchmarkDiskIndexFind(b *testing.B) {
	mem := newMemory(1<<30, func() bool { return false })
	const size = 8 << 30
	x := newDiskIndex(mem, size, mem.limit/4)
	for off := uint64(0); off < size; off += rawUnit {
		x.add(key{pos: off | 15}, int64(off), 0)
	}
	b.ResetTimer()
	n := uint64(0)
	for range b.N {
		n = (n*5 + 12345) % (size / rawUnit)
		if x.find(key{pos: n*rawUnit | 15}) == nil {
			b.Fatal("a unit is not found")
		}
	}
}
