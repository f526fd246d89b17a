package resident

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
// takes about half as long as decoding it; and garbage collection need not be paced by a cache
// that is always full. It is guarded by the lock of its memory.
type arena struct {
	slabs []*slab
	rest  map[int][]byte   // of the last slab for a size, what was not cut yet
	cold  map[int][][]byte // buffers whose pages the machine has back
}

// slab is one mapping. While the machine has pages of it back, it has small ones: the
// kernel would join what is left to large pages again, with memory that nobody asked for.
type slab struct {
	mapped []byte
	used   []byte // of it, from where it is aligned
	cold   int    // buffers that were given back
}

func newArena() arena { return arena{rest: map[int][]byte{}, cold: map[int][][]byte{}} }

// take returns a buffer of size bytes, whole pages.
func (a *arena) take(size int) []byte {
	if l := a.cold[size]; len(l) > 0 {
		b := l[len(l)-1]
		a.cold[size] = l[:len(l)-1]
		s := a.slabOf(b)
		if s.cold--; s.cold == 0 {
			s.advise(unix.MADV_HUGEPAGE)
		}
		return b
	}
	if len(a.rest[size]) < size {
		mapped, err := unix.Mmap(-1, 0, max(slabSize, (size+hugePage-1)/hugePage*hugePage)+hugePage,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			return make([]byte, size)
		}
		s := &slab{mapped: mapped, used: mapped[-uintptr(unsafe.Pointer(unsafe.SliceData(mapped)))%hugePage:]}
		s.advise(unix.MADV_HUGEPAGE)
		a.slabs = append(a.slabs, s)
		a.rest[size] = s.used
	}
	b := a.rest[size][:size:size]
	a.rest[size] = a.rest[size][size:]
	return b
}

// giveBack lets the machine have a buffer's pages until it is taken again.
func (a *arena) giveBack(b []byte) {
	b = b[:cap(b)]
	s := a.slabOf(b)
	if s == nil || unix.Madvise(b, unix.MADV_DONTNEED) != nil {
		return
	}
	a.cold[len(b)] = append(a.cold[len(b)], b)
	if s.cold++; s.cold == 1 {
		s.advise(unix.MADV_NOHUGEPAGE)
	}
}

// advise tells the kernel which pages the slab should have; one that does not know has
// small ones.
func (s *slab) advise(pages int) { _ = unix.Madvise(s.used, pages) }

// slabOf is the slab that a buffer was cut from, nil if it was allocated.
func (a *arena) slabOf(b []byte) *slab {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	for _, s := range a.slabs {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(s.used))); at >= from && at < from+uintptr(len(s.used)) {
			return s
		}
	}
	return nil
}

// close gives back all. Nobody may read a buffer afterwards.
func (a *arena) close() (err error) {
	for _, s := range a.slabs {
		if uerr := unix.Munmap(s.mapped); uerr != nil {
			err = uerr
		}
	}
	*a = newArena()
	return err
}
