package blockdev

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// slabSize is how much address space is taken at once, in bytes.
	slabSize = 32 << 20
	// hugePage is what slabs are aligned to, in bytes: on the usual processors the size
	// of the larger pages that Linux has for who asks for them (madvise(2),
	// MADV_HUGEPAGE). Where pages are of another size nothing is lost.
	hugePage = 2 << 20
)

// arena is the memory that buffers are cut from. It lies outside the Go heap, for two
// reasons: a first touch costs a page fault, which for a block of 2 MiB in small pages
// takes as long as decoding it; and garbage collection need not be paced by a cache
// that is always full. It is guarded by the lock of its memory.
type arena struct {
	slabs [][]byte
	rest  map[int][]byte   // of the last slab for a size, what was not cut yet
	cold  map[int][][]byte // buffers whose pages the machine has back
}

func newArena() arena { return arena{rest: map[int][]byte{}, cold: map[int][][]byte{}} }

// take returns a buffer of size bytes, whole pages.
func (a *arena) take(size int) []byte {
	if l := a.cold[size]; len(l) > 0 {
		a.cold[size] = l[:len(l)-1]
		return l[len(l)-1]
	}
	if len(a.rest[size]) < size {
		slab, err := unix.Mmap(-1, 0, max(slabSize, (size+hugePage-1)/hugePage*hugePage)+hugePage,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			return make([]byte, size)
		}
		a.slabs = append(a.slabs, slab)
		slab = slab[-uintptr(unsafe.Pointer(unsafe.SliceData(slab)))%hugePage:]
		_ = unix.Madvise(slab, unix.MADV_HUGEPAGE) // a kernel without them has small pages
		a.rest[size] = slab
	}
	b := a.rest[size][:size:size]
	a.rest[size] = a.rest[size][size:]
	return b
}

// giveBack lets the machine have a buffer's pages until it is taken again.
func (a *arena) giveBack(b []byte) {
	b = b[:cap(b)]
	if a.has(b) && unix.Madvise(b, unix.MADV_DONTNEED) == nil {
		a.cold[len(b)] = append(a.cold[len(b)], b)
	}
}

func (a *arena) has(b []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	for _, s := range a.slabs {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(s))); at >= from && at < from+uintptr(len(s)) {
			return true
		}
	}
	return false
}

// close gives back all. Nobody may read a buffer afterwards.
func (a *arena) close() (err error) {
	for _, s := range a.slabs {
		if uerr := unix.Munmap(s); uerr != nil {
			err = uerr
		}
	}
	*a = newArena()
	return err
}
