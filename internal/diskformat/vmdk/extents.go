package vmdk

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Map yields the extents of the disk as [diskformat.Image] describes them. It
// reads all grain directories and tables as it goes, each once, and asks the
// file system for the holes of flat files. It ends with the first error, which
// comes with a zero Extent.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		m := merger{yield: func(e diskformat.Extent) bool { return yield(e, nil) }}
		err := f.walk(ctx, &m)
		if m.flush(); err != nil && !m.done {
			yield(diskformat.Extent{}, fmt.Errorf("mapping a VMDK disk: %w", err))
		}
	}
}

// Extents yields the extents of the disk. It does what [File.Map] does but
// can't return an error: from where a table can't be read all of the disk
// counts as data, so that whoever reads it meets the error.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		m := merger{yield: yield}
		if err := f.walk(context.Background(), &m); err != nil {
			m.add(f.size-m.last.End(), true)
		}
		m.flush()
	}
}

// walk adds the disk to m, up to the first error.
func (f *File) walk(ctx context.Context, m *merger) error {
	for _, p := range f.parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.mapped(ctx, m.add); err != nil {
			return err
		}
		if m.done {
			return nil
		}
	}
	return nil
}

// merger makes extents, data and holes in turn, of ranges that follow each
// other. It does nothing any more once yield returned false.
type merger struct {
	yield func(diskformat.Extent) bool
	last  diskformat.Extent
	done  bool
}

// add takes the length of the next range and tells whether to go on.
func (m *merger) add(n int64, data bool) bool {
	if n > 0 {
		if m.last.Data != data {
			m.flush()
		}
		m.last.Length, m.last.Data = m.last.Length+n, data
	}
	return !m.done
}

// flush yields what was put together.
func (m *merger) flush() {
	if m.last.Length > 0 && !m.done {
		m.done = !m.yield(m.last)
		m.last = diskformat.Extent{Offset: m.last.End()}
	}
}

// zeros is an extent that lies in no file.
type zeros int64

func (z zeros) readAt(p []byte, _ int64) error {
	clear(p)
	return nil
}

func (z zeros) mapped(_ context.Context, emit func(int64, bool) bool) error {
	emit(int64(z), false)
	return nil
}

// flatExtent is a piece of a file, byte for byte.
type flatExtent struct {
	r         io.ReaderAt
	off, size int64
}

func (x *flatExtent) readAt(p []byte, off int64) error {
	return diskformat.ReadFull(x.r, p, x.off+off)
}

func (x *flatExtent) mapped(ctx context.Context, emit func(int64, bool) bool) error {
	at, end := x.off, x.off+x.size
	for e, err := range sparse.Data(x.r, end) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		from, to := max(e.Offset, at), e.End()
		if to <= at {
			continue
		}
		if from > at && !emit(from-at, false) || !emit(to-from, true) {
			return nil
		}
		at = to
	}
	if at < end {
		emit(end-at, false)
	}
	return nil
}
