package qcow2

import (
	"context"
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
)

// Map yields the extents of the disk as [diskformat.Image] describes them, and
// reads the tables (and those of the backing disk) on the way: at most all of
// them, each once. It ends with the first error, which comes with a zero
// Extent.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		m := merger{yield: yield}
		if err := f.walk(ctx, &m); err != nil {
			m.fail(fmt.Errorf("looking for the extents of a qcow2 disk: %w", err))
			return
		}
		m.flush()
	}
}

// Extents yields the extents of the disk. It reads the tables on the way, as
// [File.Map] does, but can't return an error: if a table can't be read, what is
// left of the disk counts as data, so that whoever reads it meets the error.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		m := merger{yield: func(e diskformat.Extent, _ error) bool { return yield(e) }}
		if err := f.walk(context.Background(), &m); err != nil {
			m.add(f.Size()-m.end(), true)
		}
		m.flush()
	}
}

// merger puts ranges together into extents. It does nothing any more once yield
// returned false.
type merger struct {
	yield func(diskformat.Extent, error) bool
	last  diskformat.Extent
	done  bool
}

// end is where the next range begins.
func (m *merger) end() int64 { return m.last.End() }

// add takes the next range and tells whether to go on.
func (m *merger) add(length int64, data bool) bool {
	if m.done || length == 0 {
		return !m.done
	}
	if m.last.Length > 0 && m.last.Data != data {
		m.flush()
	}
	m.last.Data = data
	m.last.Length += length
	return !m.done
}

func (m *merger) flush() {
	if !m.done && m.last.Length > 0 && !m.yield(m.last, nil) {
		m.done = true
	}
	m.last = diskformat.Extent{Offset: m.last.End()}
}

// fail ends with err, after what came before it.
func (m *merger) fail(err error) {
	m.flush()
	if !m.done {
		m.yield(diskformat.Extent{}, err)
	}
	m.done = true
}

// walk adds the whole disk to m, up to the first error.
func (f *File) walk(ctx context.Context, m *merger) error {
	below := f.newBelow(ctx)
	defer below.stop()
	for off := int64(0); off < f.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := f.lookup(off, f.Size()-off)
		if err != nil {
			return err
		}
		if r.kind == unallocated {
			if err := below.add(m, off, r.length); err != nil {
				return err
			}
		} else {
			m.add(r.length, r.kind != zero)
		}
		if m.done {
			return nil
		}
		off += r.length
	}
	return nil
}

// mapper is an image that can say why it does not know its extents.
type mapper interface {
	Map(context.Context) iter.Seq2[diskformat.Extent, error]
}

// below goes along the extents of the backing disk.
type below struct {
	next func() (diskformat.Extent, error, bool)
	stop func()
	at   diskformat.Extent
}

func (f *File) newBelow(ctx context.Context) *below {
	b := &below{stop: func() {}}
	switch {
	case f.backing == nil:
		b.next = func() (diskformat.Extent, error, bool) { return diskformat.Extent{}, nil, false }
	default:
		extents := func(yield func(diskformat.Extent, error) bool) {
			for e := range f.backing.Extents() {
				if !yield(e, nil) {
					return
				}
			}
		}
		if m, ok := f.backing.(mapper); ok {
			extents = m.Map(ctx)
		}
		b.next, b.stop = iter.Pull2(iter.Seq2[diskformat.Extent, error](extents))
	}
	return b
}

// add adds the backing disk's extents from off for length bytes; what lies
// beyond its end is a hole. off never goes back.
func (b *below) add(m *merger, off, length int64) error {
	for length > 0 && !m.done {
		for b.at.End() <= off {
			e, err, ok := b.next()
			if err != nil {
				return fmt.Errorf("the backing disk: %w", err)
			}
			if !ok {
				m.add(length, false)
				return nil
			}
			b.at = e
		}
		n := min(length, b.at.End()-off)
		m.add(n, b.at.Data)
		off, length = off+n, length-n
	}
	return nil
}
