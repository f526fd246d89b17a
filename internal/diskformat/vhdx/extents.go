package vhdx

import (
	"context"
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
)

// Map yields the extents of the disk as [diskformat.Image] describes them:
// blocks that are present, and those that are not. It reads the whole block
// allocation table as it goes. It ends with the first error, which comes with
// a zero Extent.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		m := merger{yield: func(e diskformat.Extent) bool { return yield(e, nil) }}
		err := f.walk(ctx, &m)
		if m.flush(); err != nil && !m.done {
			yield(diskformat.Extent{}, fmt.Errorf("mapping a VHDX disk: %w", err))
		}
	}
}

// Extents yields the extents of the disk. It does what [File.Map] does but
// can't return an error: from where the table can't be read all of the disk
// counts as data, so that whoever reads it meets the error.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		m := merger{yield: yield}
		if err := f.walk(context.Background(), &m); err != nil {
			m.add(f.Size()-m.last.End(), true)
		}
		m.flush()
	}
}

// walk adds the disk to m, up to the first error.
func (f *File) walk(ctx context.Context, m *merger) error {
	at := make([]int64, pageSize/entrySize)
	for block := int64(0); block < f.bat.blocks && !m.done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.places(at[:min(int64(len(at)), f.bat.blocks-block)], block)
		for _, off := range at[:n] {
			if !m.add(f.length(block), off != 0) {
				return nil
			}
			block++
		}
		if err != nil {
			return err
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
	if m.last.Data != data {
		m.flush()
	}
	m.last.Length, m.last.Data = m.last.Length+n, data
	return !m.done
}

// flush yields what was put together.
func (m *merger) flush() {
	if m.last.Length > 0 && !m.done {
		m.done = !m.yield(m.last)
		m.last = diskformat.Extent{Offset: m.last.End()}
	}
}
