package blockdev

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

// Device is an image as a disk. It may be used by many goroutines at once.
type Device struct {
	im     *image
	window int64         // how much of the disk one read asks for at a time, in bytes
	most   int64         // how much is fetched ahead of a reader, in bytes; 0: nothing
	wait   time.Duration // how long a read waits for a store that fails; 0: until its context ends
	counts *counts       // nil: reads are not counted
	closed atomic.Bool

	streams streams
}

// Open makes a device of the image's data, which is where locate says. Devices of the
// same image share what is in memory. Every read is conditional on the ETag (and the
// version) that locate names. ctx bounds the opening alone: it reads at most the end of
// a ZVHD2 file or the bitmap of a RAW one, or nothing when the image was opened before.
func (c *Cache) Open(ctx context.Context, imageID string, locate Locate) (*Device, error) {
	im, err := c.images.get(ctx, imageID, locate)
	if err != nil {
		return nil, fmt.Errorf("open the data of image %s: %w", imageID, err)
	}
	most, unit := c.mem.Limit()/4, im.layout.Unit()
	return &Device{im: im, wait: c.wait, counts: &c.counts,
		window: max(unit, min(maxJoin, most)/unit*unit), most: min(maxAhead, most/2) / unit * unit}, nil
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
func (d *Device) Size() int64 { return d.im.layout.Size() }

// BlockSize is the size in bytes that reads are best aligned to, a power of two.
func (d *Device) BlockSize() int64 { return d.im.layout.Unit() }

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
		for e := range d.im.layout.Extents(off) {
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
	unit := l.Unit()
	for at := off; at < end; {
		e := diskformat.Extent{Offset: at, Data: !l.Hole(at / unit)}
		for at = min((at/unit+1)*unit, end); at < end && !l.Hole(at/unit) == e.Data; at = min(at+unit, end) {
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

// ReadAtContext reads as io.ReaderAt does. A read whose ctx ends returns at once and does
// not fail others that wait for the same bytes. A read that waits for a store that fails
// waits as long as Options says. When it has returned nobody writes into p.
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
		if err := d.read(ctx, part, at); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), atEnd
}

// read is the one way to read. What is at hand is taken; for the rest it waits for the
// fetches that run, and starts those that do not.
func (d *Device) read(ctx context.Context, p []byte, off int64) error {
	im, unit := d.im, d.BlockSize()
	var t tally
	var w *resident.Waiter
	var mine []*resident.Unit
	for at := 0; at < len(p); {
		if n := d.now(p[at:], off+int64(at), &t); n > 0 {
			at += n
			continue
		}
		if w == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			w = resident.NewWaiter(p, off, unit)
		}
		u := (off + int64(at)) / unit
		if x, absent := im.cache.mem.Join(im.key(u), u, w); absent {
			mine = append(mine, x)
		}
		n := min(len(p)-at, int((u+1)*unit-off)-at)
		t.misses++
		t.waitedBytes += int64(n)
		at += n
	}
	d.readAhead(off, int64(len(p)), w != nil)
	if w != nil {
		im.fetch(mine)
		if err := d.await(ctx, w); err != nil {
			return err
		}
	}
	d.count(&t)
	return nil
}

// TryRead fills p with the bytes from off on if all of them are at hand: resident, holes,
// or in a file that the machine has in memory. It waits for nobody and for no disk. Else
// it reports false, and p's content is undefined.
func (d *Device) TryRead(p []byte, off int64) bool {
	if d.closed.Load() || off < 0 || int64(len(p)) > d.Size()-off {
		return false
	}
	var t tally
	for at := 0; at < len(p); {
		n := d.now(p[at:], off+int64(at), &t)
		if n == 0 {
			return false
		}
		at += n
	}
	d.readAhead(off, int64(len(p)), false)
	d.count(&t)
	return true
}

// now fills p, which is not empty, from off on with what is at hand there, and returns how
// much that is: the rest of a unit, or several units of a local file; 0 if the unit has to
// be fetched.
func (d *Device) now(p []byte, off int64, t *tally) int {
	l := d.im.layout
	u, within := off/l.Unit(), off%l.Unit()
	part := p[:min(int64(len(p)), unit.Len(l, u)-within)]
	if l.Hole(u) {
		clear(part)
		t.holeBytes += int64(len(part))
		return len(part)
	}
	if d.im.cache.mem.Copy(d.im.key(u), part, within) {
		t.hits++
		t.hitBytes += int64(len(part))
		return len(part)
	}
	n := d.readLocal(p, u, within)
	t.readyBytes += int64(n)
	return n
}

// await waits until the units that w has joined have come.
func (d *Device) await(ctx context.Context, w *resident.Waiter) error {
	done := w.Wait()
	var patience <-chan time.Time
	var timer *time.Timer
	if d.wait > 0 {
		timer = time.NewTimer(d.wait)
		defer timer.Stop()
		patience = timer.C
	}
	for {
		select {
		case <-done:
			return w.Leave(d.im.cache.mem)
		case <-ctx.Done():
			_ = w.Leave(d.im.cache.mem)
			return ctx.Err()
		case <-patience:
			// Waiting for memory, or for a store that is slow, is no reason to fail.
			if trouble := d.im.trouble(); trouble != nil {
				_ = w.Leave(d.im.cache.mem)
				return fmt.Errorf("read the data of image %s: the store has failed for %s: %w", d.im.id, d.wait, trouble)
			}
			timer.Reset(min(d.wait, time.Second))
		}
	}
}

func (d *Device) count(t *tally) {
	if d.counts != nil {
		d.counts.add(t)
	}
}

func (im *image) key(u int64) resident.Key { return resident.KeyOf(im.name, u, im.layout.Unit()) }
