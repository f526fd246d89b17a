package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/quickims/quickims/internal/diskformat"
)

// A compressed grain begins with the number of its first sector (64 bits) and
// the length of the zlib stream that follows (32 bits).
const grainHead = 12

// maxWindow is how much of the file is read at once for compressed grains.
const maxWindow = 1 << 20

// maxStream bounds the stream of a grain: what deflate makes of what can't be
// compressed is longer by 5 bytes for each of its blocks, and no writer makes
// blocks so small that it doubles.
func maxStream(grain int64) int64 { return 2 * grain }

// inflater is what reading compressed grains takes. It is for one goroutine at
// a time.
type inflater struct {
	in  bytes.Reader
	z   io.ReadCloser
	buf []byte // a piece of the file
	off int64  // where buf begins
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// readCompressed fills p from within the first of the grains that lie at at;
// grain is that one's number.
func (x *sparseExtent) readCompressed(p []byte, at []int64, grain, within int64) error {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	f.buf = f.buf[:0] // it may be of another file
	for i := range at {
		n := min(x.h.grain-within, int64(len(p)))
		err := error(nil)
		switch g := grain + int64(i); {
		case at[i] == 0:
			clear(p[:n])
		case n == x.h.grain:
			err = x.inflate(f, p[:n], at[i:], g)
		default:
			err = x.readPart(f, p[:n], at[i:], g, within)
		}
		if err != nil {
			return err
		}
		p, within = p[n:], 0
	}
	return nil
}

// readPart fills p from within a grain, which it keeps.
func (x *sparseExtent) readPart(f *inflater, p []byte, at []int64, grain, within int64) error {
	k := grainKey{x.id, grain}
	b := x.plain.Get(k)
	if b == nil {
		b = make([]byte, x.h.grain)
		if err := x.inflate(f, b, at, grain); err != nil {
			return err
		}
		x.plain.Put(k, b)
	}
	copy(p, b[within:])
	return nil
}

// inflate reads the grain at at[0] and decompresses it into dst, which is a
// grain long. What at has beyond is read with it where it lies near.
func (x *sparseExtent) inflate(f *inflater, dst []byte, at []int64, grain int64) error {
	head, err := x.piece(f, at, grainHead)
	if err != nil {
		return fmt.Errorf("reading grain %d: %w", grain, err)
	}
	lba, n := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
	if want := uint64(grain * (x.h.grain / sectorSize)); lba != want {
		return corrupt("grain marker", "where grain %d should lie is the marker of sector %d, right is %d", grain, lba, want)
	}
	if n == 0 || n > maxStream(x.h.grain) {
		return corrupt("grain marker", "the data of grain %d has %d bytes; right is 1 to %d", grain, n, maxStream(x.h.grain))
	}
	if n > x.size-at[0]-grainHead {
		return incomplete("grain marker", "the data of grain %d, %d bytes at byte %d, goes beyond the file's end at %d; "+
			"it was cut off or is damaged", grain, n, at[0]+grainHead, x.size)
	}
	b, err := x.piece(f, at, grainHead+n)
	if err != nil {
		return fmt.Errorf("reading grain %d: %w", grain, err)
	}
	got, err := f.decode(dst, b[grainHead:])
	if err != nil {
		return corrupt("grain", "the data of grain %d is no sound zlib stream: %v", grain, err)
	}
	// Of the last grain a writer may leave out what is beyond the disk.
	if int64(got) < x.length(grain) {
		return corrupt("grain", "the data of grain %d makes %d bytes; right is %d", grain, got, x.h.grain)
	}
	clear(dst[got:])
	return nil
}

// piece returns n bytes at at[0], which lie in the file, reading ahead for the
// grains that follow if they lie ascending and near.
func (x *sparseExtent) piece(f *inflater, at []int64, n int64) ([]byte, error) {
	off := at[0]
	if from := off - f.off; from >= 0 && from+n <= int64(len(f.buf)) {
		return f.buf[from : from+n], nil
	}
	end := off + max(n, grainHead+x.h.grain/2) // most grains are smaller
	for prev, a := off, at[1:]; len(a) > 0; a = a[1:] {
		if a[0] == 0 {
			continue
		}
		if a[0] <= prev || a[0]-prev > 2*x.h.grain || a[0]+grainHead+x.h.grain/2-off > maxWindow {
			break
		}
		prev = a[0]
		end = max(end, prev+grainHead+x.h.grain/2)
	}
	want := min(end, x.size) - off
	if int64(cap(f.buf)) < want {
		f.buf = make([]byte, want)
	}
	f.buf = f.buf[:want]
	f.off = off
	if err := diskformat.ReadFull(x.r, f.buf, off); err != nil {
		f.buf = f.buf[:0]
		return nil, err
	}
	return f.buf[:n], nil
}

var errTooLong = errors.New("it makes more than a grain")

// decode inflates stream into dst and returns how much it made. The stream
// must end, and its checksum hold.
func (f *inflater) decode(dst, stream []byte) (int, error) {
	f.in.Reset(stream)
	var err error
	if f.z == nil {
		f.z, err = zlib.NewReader(&f.in)
	} else {
		err = f.z.(zlib.Resetter).Reset(&f.in, nil)
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for {
		part := dst[n:]
		var one [1]byte
		if len(part) == 0 {
			part = one[:]
		}
		k, err := f.z.Read(part)
		if n += k; n > len(dst) {
			return 0, errTooLong
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
