package blockdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/ims"
)

// sumSize is the size of a unit's checksum in bytes.
const sumSize = 4

// sumsLayout is the part of a bitmap's file with the checksums of a RAW disk's units, as
// a disk of its own: 256 bytes for each block of data. So what is needed of them is
// fetched when it is needed and kept like the disk itself, and a whole TiB's, 128 MiB,
// need not be held.
type sumsLayout struct {
	m     *bitmap.Map
	start int64 // in the file
	each  int64 // bytes for a block
}

func newSumsLayout(m *bitmap.Map) sumsLayout {
	start, each, _ := m.UnitSums(m.DataBlock(0))
	return sumsLayout{m, start, each}
}

func (s sumsLayout) size() int64                      { return s.each * s.m.DataBlocks() }
func (s sumsLayout) unit() int64                      { return rawUnit }
func (s sumsLayout) hole(int64) bool                  { return false }
func (s sumsLayout) nextData(u int64) int64           { return min(u, units(s)) }
func (s sumsLayout) place(u int64) (off, n int64)     { return s.start + u*rawUnit, unitBytes(s, u) }
func (s sumsLayout) scratch() int64                   { return 0 }
func (s sumsLayout) sumOf(int64) (off int64, ok bool) { return 0, false }
func (s sumsLayout) memory() int64                    { return 0 } // the map is counted by the disk's own

// fill checks the checksums against those of the blocks, which the map has in memory.
func (s sumsLayout) fill(unit, _ []byte, u int64, _ uint32) error {
	for k := u * rawUnit / s.each; len(unit) > 0; k++ {
		if err := s.m.CheckUnitSums(unit[:s.each], s.m.DataBlock(k)); err != nil {
			return err
		}
		unit = unit[s.each:]
	}
	return nil
}

func (s sumsLayout) extents(off int64) iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		if off < s.size() {
			yield(diskformat.Extent{Offset: off, Length: s.size() - off, Data: true})
		}
	}
}

// dataOfSums says where the file of an image's bitmap lies.
func dataOfSums(d ims.Data) ims.Data {
	return ims.Data{Bucket: d.Bucket, Key: d.BitmapKey, ETag: d.BitmapETag, Size: d.BitmapSize, Format: "mf", VirtualSize: d.VirtualSize}
}

// newSums makes the device that has the checksums of im's units; nil if im needs none.
func newSums(im *image) *Device {
	l, ok := im.layout.(rawLayout)
	if !ok || !l.sums || l.m.DataBlocks() == 0 {
		return nil
	}
	p := im.place.Load()
	s := &image{cache: im.cache, id: im.id, key: keyOf(im.id, dataOfSums(p.data)), layout: newSumsLayout(l.m)}
	s.place.Store(p.ofSums())
	return &Device{im: s, window: maxJoin}
}

// ofSums is the place of the bitmap's file of an image whose disk is at p.
func (p *place) ofSums() *place {
	return &place{store: p.store, data: dataOfSums(p.data), locate: func(ctx context.Context) (ims.Data, error) {
		d, err := p.locate(ctx)
		return dataOfSums(d), err
	}}
}

// errNotAtHand says that checksums have to be fetched.
var errNotAtHand = errors.New("not at hand")

// sumsAtHand reads of the checksums without waiting for anybody.
func (im *image) sumsAtHand(p []byte, off int64) error {
	if im.sums.peek(p, off) || im.sums.ReadWarm(p, off) {
		return nil
	}
	return errNotAtHand
}

// sumsRead is how checksums are read, until ctx ends.
func (im *image) sumsRead(ctx context.Context) func(p []byte, off int64) error {
	r := sumsReader{im: im.sums.im, ctx: ctx, broken: -1, block: -1}
	return func(p []byte, off int64) error {
		if off/rawUnit == r.broken {
			return r.alone(p, off)
		}
		_, err := im.sums.ReadAtContext(ctx, p, off)
		if errors.Is(err, diskformat.ErrCorrupt) {
			r.broken = off / rawUnit
			return r.alone(p, off)
		}
		return err
	}
}

// sumsReader reads checksums that lie beside some that do not pass their check: those of
// one block at a time, past the cache.
type sumsReader struct {
	im     *image // of the checksums
	ctx    context.Context
	broken int64 // a unit that can't be read whole; -1: none is known
	block  int64 // whose checksums sums has, by its number among the data; -1: none's
	sums   []byte
}

func (r *sumsReader) alone(p []byte, off int64) error {
	each := r.im.layout.(sumsLayout).each
	for len(p) > 0 {
		if err := r.read(off / each); err != nil {
			return err
		}
		n := copy(p, r.sums[off%each:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// read makes sums those of data block k.
func (r *sumsReader) read(k int64) error {
	if r.block == k {
		return nil
	}
	l, at := r.im.layout.(sumsLayout), r.im.place.Load()
	r.block, r.sums = -1, make([]byte, l.each)
	body, err := at.store.Open(r.ctx, diskOf(at.data), at.condition(), l.start+k*l.each, l.each)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.ReadFull(body, r.sums); err != nil {
		return early(err)
	}
	if err := l.m.CheckUnitSums(r.sums, l.m.DataBlock(k)); err != nil {
		return err
	}
	r.block = k
	return nil
}

// peek reads what is held in memory, and counts it for nothing.
func (d *Device) peek(p []byte, off int64) bool {
	unit := d.im.layout.unit()
	for len(p) > 0 {
		b := d.im.cache.hit(d.im.keyOf(off/unit), 0)
		if b == nil {
			return false
		}
		n := copy(p, b.data[off%unit:])
		d.im.cache.leave(b)
		p, off = p[n:], off+int64(n)
	}
	return true
}

// sumsOf reads the checksums of units into dst, one for each: unit says which they are,
// in ascending order. read is how bytes are read of the layout of checksums.
func (im *image) sumsOf(dst []uint32, unit func(i int) int64, read func(p []byte, off int64) error) error {
	var buf [64 * sumSize]byte
	for i := 0; i < len(dst); {
		off, _ := im.layout.sumOf(unit(i))
		n := 1
		for ; i+n < len(dst) && n < len(buf)/sumSize; n++ {
			if next, _ := im.layout.sumOf(unit(i + n)); next != off+int64(n)*sumSize {
				break
			}
		}
		p := buf[:n*sumSize]
		if err := read(p, off); err != nil {
			return fmt.Errorf("read the checksums of image %s: %w", im.id, err)
		}
		for ; len(p) > 0; p = p[sumSize:] {
			dst[i] = binary.LittleEndian.Uint32(p)
			i++
		}
	}
	return nil
}
