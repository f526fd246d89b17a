// Package blockdev is an image as a read-only block device: bytes are fetched from
// where the image's data lies when they are read, checked before anybody gets them, and
// kept in a cache. What can't be read or does not pass its check is an error, never
// zeros.
//
// Terms. A unit is what is fetched and kept as one: a block of ZVHD2, or a small aligned
// range of RAW, which is what our bitmaps have checksums of. A block (the type) is a
// unit in the cache. A fetch brings blocks that lie side by side with one ranged read.
// A place is where an image's data lies; it changes once, when an import ends.
package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// ErrChecksum means that an image's bytes are not those that were imported.
var ErrChecksum = errors.New("checksum mismatch")

// Damaged reports whether an error of a Device says that the image's data is not what
// was imported any more: another try won't help.
func Damaged(err error) bool {
	return errors.Is(err, ErrChecksum) || errors.Is(err, objectstore.ErrChanged) || errors.Is(err, objectstore.ErrNotFound) ||
		errors.Is(err, diskformat.ErrCorrupt) || errors.Is(err, diskformat.ErrIncomplete)
}

// Missing reports whether an error of a Device says that the image's bytes are not there.
// It is Damaged, too.
func Missing(err error) bool { return errors.Is(err, objectstore.ErrNotFound) }

// Locate says where an image's bytes lie now. It is asked when a device is opened, and
// again when the object of a read has gone or changed: if the answer is another one (the
// image was published meanwhile), the device goes on there; else the error stands. It
// may be called by many goroutines at once.
type Locate func(ctx context.Context) (ims.Data, error)

// Device is an image as a disk. It may be used by many goroutines at once.
type Device struct {
	im     *image
	window int64 // how much of the disk one read asks for at a time, in bytes
	most   int64 // how much is fetched ahead of a reader, in bytes; 0: nothing
	closed atomic.Bool

	streams streams
}

// Open makes a device of the image's data, which is where locate says. Devices of the
// same image share what is in the cache. Every read is conditional on the ETag (and the
// version) that locate names. ctx bounds the opening alone: it reads at most the end of
// a ZVHD2 file or the bitmap of a RAW one, or nothing when the image was opened before.
func Open(ctx context.Context, store objectstore.Store, cache *Cache, imageID string, locate Locate) (*Device, error) {
	im, err := cache.images.open(ctx, store, imageID, locate)
	if err != nil {
		return nil, fmt.Errorf("open the data of image %s: %w", imageID, err)
	}
	most := cache.mem.limit / 4
	unit := im.layout.unit()
	return &Device{im: im, window: max(unit, min(maxJoin, most)/unit*unit), most: min(maxAhead, most/2) / unit * unit}, nil
}

// Close ends the use of the device. Reads under way may fail.
func (d *Device) Close() error {
	if d.closed.Swap(true) {
		return errClosed
	}
	d.im.cache.images.close(d.im)
	return nil
}

// Size is the disk's size in bytes, as a machine sees it.
func (d *Device) Size() int64 { return d.im.layout.size() }

// BlockSize is the size in bytes that reads are best aligned to, a power of two.
func (d *Device) BlockSize() int64 { return d.im.layout.unit() }

// Extents tells data and holes of n bytes from off, in order and without gaps, as far as
// the disk goes. It does no I/O.
func (d *Device) Extents(off, n int64) iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		if off < 0 || n <= 0 || off >= d.Size() {
			return
		}
		end := off + min(n, d.Size()-off)
		if n <= 8*d.BlockSize() {
			d.near(off, end, yield)
			return
		}
		for e := range d.im.layout.extents(off) {
			if e.Offset >= end {
				return
			}
			e.Length = min(e.End(), end) - e.Offset
			if !yield(e) || e.End() == end {
				return
			}
		}
	}
}

// near tells the extents of a short range by its units: how far an extent goes beyond
// the range may take longer to find out than the reading takes.
func (d *Device) near(off, end int64, yield func(diskformat.Extent) bool) {
	l := d.im.layout
	unit := l.unit()
	for at := off; at < end; {
		e := diskformat.Extent{Offset: at, Data: !l.hole(at / unit)}
		for at = min((at/unit+1)*unit, end); at < end && !l.hole(at/unit) == e.Data; at = min(at+unit, end) {
		}
		e.Length = at - e.Offset
		if !yield(e) {
			return
		}
	}
}

// ReadAt is ReadAtContext without a context.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	return d.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext reads as io.ReaderAt does. A read whose ctx ends returns at once and
// does not fail others that wait for the same bytes.
func (d *Device) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case d.closed.Load():
		return 0, fmt.Errorf("read image %s: %w", d.im.id, errClosed)
	case off < 0:
		return 0, fmt.Errorf("read image %s: the offset %d is negative", d.im.id, off)
	case off >= d.Size():
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var atEnd error
	if rest := d.Size() - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		part := p[n:]
		if most := d.window - at%d.BlockSize(); int64(len(part)) > most {
			part = part[:most]
		}
		if err := d.readWindow(ctx, part, at); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), atEnd
}

// readWindow reads a part of the disk that is asked for at once: first what is there,
// then what is not, as it comes.
func (d *Device) readWindow(ctx context.Context, p []byte, off int64) error {
	l, c := d.im.layout, d.im.cache
	unit := l.unit()
	local := d.local()
	waits := false
	var r *reception
	var mine []*block
	for at := 0; at < len(p); {
		u, within := (off+int64(at))/unit, (off+int64(at))%unit
		part := p[at:]
		if int64(len(part)) > unit-within {
			part = part[:unit-within]
		}
		if l.hole(u) {
			clear(part)
			at += len(part)
			c.counts.holeBytes.Add(int64(len(part)))
			continue
		}
		k := d.im.keyOf(u)
		if b := c.hit(k, len(part)); b != nil {
			at += copy(part, b.data[within:])
			c.leave(b)
			continue
		}
		if local != nil {
			if n := d.readReady(local, p[at:], off+int64(at)); n > 0 {
				at += n
				continue
			}
		}
		waits = true
		at += len(part)
		if r == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			r = newReception(c, 1+int((int64(len(p)-at)+unit-1)/unit))
		}
		c.counts.misses.Add(1)
		c.counts.missBytes.Add(int64(len(part)))
		if b, m := c.want(k, u, r); m {
			mine = append(mine, b)
		}
	}
	if d.most > 0 && (local == nil || waits) { // else the machine reads ahead
		d.ahead(off, int64(len(p)))
	}
	if r == nil {
		return nil
	}
	d.im.fetch(mine)
	again, err := r.receive(ctx, func(b *block) {
		at := b.unit*unit - off // where the unit begins in p
		copy(p[max(at, 0):min(int64(len(p)), at+unit)], b.data[max(-at, 0):])
	})
	for _, b := range again {
		if err != nil {
			break
		}
		at := b.unit*unit - off
		err = d.readWindow(ctx, p[max(at, 0):min(int64(len(p)), at+unit)], off+max(at, 0))
	}
	return err
}

func (im *image) keyOf(u int64) key {
	unit := im.layout.unit()
	return key{im.key, uint64(u*unit) | uint64(log2(unit))}
}

// fetch starts to fetch blocks that a reader waits for, neighbours together.
func (im *image) fetch(blocks []*block) {
	for len(blocks) > 0 {
		n := im.joined(blocks)
		im.cache.newFetch(im, blocks[:n:n], false).start(false)
		blocks = blocks[n:]
	}
}

// joined is how many of the blocks one fetch takes: no more than a quarter of the
// memory holds, so that there is room for others.
func (im *image) joined(blocks []*block) int {
	n := joined(im.layout, blocks)
	return max(1, min(n, int(im.cache.mem.limit/4/unitMemory(im.layout))))
}

func sortUnits(blocks []*block) {
	slices.SortFunc(blocks, func(a, b *block) int { return int(a.unit - b.unit) })
}
