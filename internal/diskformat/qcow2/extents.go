package qcow2

import (
	"context"
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Map yields the extents of the disk as [diskformat.Image] describes them. It
// reads the tables (and those of the backing disk) on the way: at most all of them,
// each once. Where clusters lie as they are in an [*os.File], a hole of that file is
// one of the disk, as in files whose clusters were allocated beforehand.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		if err := f.walk(ctx, add); err != nil {
			return fmt.Errorf("looking for the extents of a qcow2 disk: %w", err)
		}
		return nil
	})
}

// walk adds the whole disk, up to the first error or until add says false.
func (f *File) walk(ctx context.Context, add extents.Add) error {
	below := f.newBelow(ctx)
	defer below.stop()
	holes := sparse.NewHoles(ctx, f.data.r, f.data.size)
	for off := int64(0); off < f.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := f.lookup(off, f.Size()-off)
		if err != nil {
			return err
		}
		more := true
		switch r.kind {
		case unallocated:
			more, err = below.add(add, off, r.length)
		case standard:
			f.noteEnd(r)
			more, err = holes.Range(r.host, r.length, add)
		default:
			more = add(r.length, r.kind != zero)
		}
		if err != nil || !more {
			return err
		}
		off += r.length
	}
	return nil
}

// below goes along the extents of the backing disk.
type below struct {
	next func() (diskformat.Extent, error, bool)
	stop func()
	at   diskformat.Extent
}

func (f *File) newBelow(ctx context.Context) *below {
	if f.backing == nil {
		return &below{
			next: func() (diskformat.Extent, error, bool) { return diskformat.Extent{}, nil, false },
			stop: func() {},
		}
	}
	b := new(below)
	b.next, b.stop = iter.Pull2(f.backing.Map(ctx))
	return b
}

// add adds the backing disk's extents from off for length bytes; what lies
// beyond its end is a hole. off never goes back. It tells whether more is wanted.
func (b *below) add(add extents.Add, off, length int64) (bool, error) {
	for length > 0 {
		for b.at.End() <= off {
			e, err, ok := b.next()
			if err != nil {
				return false, fmt.Errorf("the backing disk: %w", err)
			}
			if !ok {
				return add(length, false), nil
			}
			b.at = e
		}
		n := min(length, b.at.End()-off)
		if !add(n, b.at.Data) {
			return false, nil
		}
		off, length = off+n, length-n
	}
	return true, nil
}
