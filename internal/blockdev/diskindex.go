package blockdev

import (
	"math"
	"math/bits"
	"unsafe"
)

const (
	// filePage is what places in the file of a cache folder are aligned to, in bytes.
	filePage = 4096
	// maxDir is how much of a folder the index can name: 2^32 pages.
	maxDir = filePage << 32
	// indexPage is how many entries the index allocates, and gives up, at a time.
	indexPage = 1024
	// indexImage is about what the index takes for an image that has entries, in bytes.
	indexImage = 128

	entryBytes     = int64(unsafe.Sizeof(diskEntry{}))
	indexPageBytes = indexPage * entryBytes
)

// diskEntry is a unit in the file. It has no pointers and is kept small: there are
// 32768 of them for a GiB of RAW.
type diskEntry struct {
	image uint32 // its number in the index; noImage: nothing of it can be found
	unit  uint32
	page  uint32 // where it lies in the file
	sum   uint32 // of its bytes
	next  uint32 // in its bucket: the slot of another entry, plus 1; 0: none
}

const noImage = math.MaxUint32

func (e diskEntry) off() int64 { return int64(e.page) * filePage }

// diskIndex says what lies where in the file of a cache folder. Its entries are a ring in
// the order in which they were written, and are found by way of a hash table. What it
// takes counts against the cache's memory and is bounded: when that is used up the
// oldest entries go. The lock of the diskCache guards it.
type diskIndex struct {
	mem   *memory
	most  int64 // how many bytes it may take
	used  int64 // how many it takes
	fixed int64 // of these, what it can't give up

	buckets []uint32                // slots, plus 1
	pages   []*[indexPage]diskEntry // of the ring; nil where there are no entries
	first   uint64                  // counts entries from the beginning on: the oldest
	next    uint64                  // and the one to come

	numbers map[diskImage]uint32
	images  []diskImageUse // by number
	free    []uint32       // numbers that no entry has
}

// diskImage is an image in units of a size.
type diskImage struct {
	image imageKey
	log2  uint8
}

type diskImageUse struct {
	diskImage
	entries uint32
}

// newDiskIndex makes the index of a file of size bytes, which takes most bytes of memory.
func newDiskIndex(mem *memory, size, most int64) *diskIndex {
	x := &diskIndex{mem: mem, most: most, numbers: map[diskImage]uint32{}}
	entries := min(size/rawUnit, most/entryBytes) // more, if many are of short units
	x.buckets = make([]uint32, int64(1)<<(bits.Len64(uint64(entries))-1))
	x.pages = make([]*[indexPage]diskEntry, min(most/indexPageBytes, math.MaxUint32/indexPage))
	x.fixed = int64(len(x.buckets))*4 + int64(len(x.pages))*8
	x.used = x.fixed
	mem.charge(x.fixed)
	return x
}

// bound says how many bytes the index may take from now on.
func (x *diskIndex) bound(most int64) {
	x.most = most
	for x.used > x.most && x.dropPage() {
	}
}

// full tells that there is no memory for even one page of entries.
func (x *diskIndex) full() bool { return x.fixed+indexPageBytes+indexImage > x.most }

func (x *diskIndex) at(n uint64) *diskEntry {
	return &x.pages[n/indexPage%uint64(len(x.pages))][n%indexPage]
}

func (x *diskIndex) slot(n uint64) uint32 { return uint32(n % (uint64(len(x.pages)) * indexPage)) }

func (x *diskIndex) bucket(image, unit uint32) *uint32 {
	h := (uint64(image)<<32 | uint64(unit)) * 0x9e3779b97f4a7c15
	return &x.buckets[h>>32*uint64(len(x.buckets))>>32]
}

// split says what a key is to the index.
func (k key) split() (of diskImage, unit uint64) {
	log2 := k.pos & 63
	return diskImage{k.image, uint8(log2)}, k.pos >> log2
}

// find returns the entry of a unit, nil if there is none. It is valid until an entry is
// added or dropped.
func (x *diskIndex) find(k key) *diskEntry {
	of, unit := k.split()
	image, ok := x.numbers[of]
	if !ok || unit > math.MaxUint32 {
		return nil
	}
	for s := *x.bucket(image, uint32(unit)); s != 0; {
		e := x.at(uint64(s - 1))
		if e.image == image && e.unit == uint32(unit) {
			return e
		}
		s = e.next
	}
	return nil
}

// oldest is the entry that is dropped next, nil if there is none.
func (x *diskIndex) oldest() *diskEntry {
	if x.first == x.next {
		return nil
	}
	return x.at(x.first)
}

// add notes that a unit, which has no entry, was written to off. Nothing is noted if
// there is no memory for it now.
func (x *diskIndex) add(k key, off int64, sum uint32) {
	of, unit := k.split()
	if unit > math.MaxUint32 {
		return
	}
	image, ok := x.number(of)
	if !ok {
		return
	}
	use := &x.images[image]
	if x.next%indexPage == 0 && !x.newPage() {
		if use.entries == 0 {
			x.forget(image)
		}
		return
	}
	use.entries++
	b := x.bucket(image, uint32(unit))
	*x.at(x.next) = diskEntry{image: image, unit: uint32(unit), page: uint32(off / filePage), sum: sum, next: *b}
	*b = x.slot(x.next) + 1
	x.next++
}

// newPage makes the page that the next entry is the first of; false if there is no memory.
func (x *diskIndex) newPage() bool {
	page := &x.pages[x.next/indexPage%uint64(len(x.pages))]
	for *page != nil { // the ring is full
		x.dropPage()
	}
	if !x.grow(indexPageBytes) {
		return false
	}
	*page = new([indexPage]diskEntry)
	return true
}

// number is that of an image, a new one if it has none; false if there is no memory.
func (x *diskIndex) number(of diskImage) (n uint32, ok bool) {
	if n, ok = x.numbers[of]; ok {
		return n, true
	}
	if len(x.free) == 0 {
		if !x.grow(indexImage) {
			return 0, false
		}
		x.images = append(x.images, diskImageUse{})
		x.free = append(x.free, uint32(len(x.images)-1))
	}
	n = x.free[len(x.free)-1]
	x.free = x.free[:len(x.free)-1]
	x.images[n] = diskImageUse{diskImage: of}
	x.numbers[of] = n
	return n, true
}

// grow takes n bytes of memory, in place of the oldest entries if need be. It does not
// wait for any: others may wait for the blocks that are to be written.
func (x *diskIndex) grow(n int64) bool {
	for x.used+n > x.most {
		if !x.dropPage() {
			return false
		}
	}
	if !x.mem.grant(n) {
		return false
	}
	x.mem.fix(n)
	x.used += n
	return true
}

// dropPage drops the oldest page of entries; false if there is none.
func (x *diskIndex) dropPage() bool {
	if x.first == x.next {
		return false
	}
	x.drop()
	for x.first%indexPage != 0 && x.first != x.next {
		x.drop()
	}
	return true
}

// drop drops the oldest entry.
func (x *diskIndex) drop() {
	if e := x.at(x.first); e.image != noImage {
		x.hide(e)
	}
	x.first++
	switch {
	case x.first%indexPage == 0:
		x.give(x.first - 1)
	case x.first == x.next: // begin with a new page
		x.give(x.first)
		x.first = (x.first/indexPage + 1) * indexPage
		x.next = x.first
	}
}

// give gives up the page of an entry.
func (x *diskIndex) give(n uint64) {
	x.pages[n/indexPage%uint64(len(x.pages))] = nil
	x.used -= indexPageBytes
	x.mem.fix(-indexPageBytes)
	x.mem.release(indexPageBytes)
}

// hide lets an entry be found no more. It keeps its place in the ring.
func (x *diskIndex) hide(e *diskEntry) {
	for link := x.bucket(e.image, e.unit); ; {
		other := x.at(uint64(*link - 1))
		if other == e {
			*link = e.next
			break
		}
		link = &other.next
	}
	use := &x.images[e.image]
	if use.entries--; use.entries == 0 {
		x.forget(e.image)
	}
	e.image = noImage
}

// forget gives up the number of an image without entries.
func (x *diskIndex) forget(image uint32) {
	delete(x.numbers, x.images[image].diskImage)
	x.free = append(x.free, image)
}
