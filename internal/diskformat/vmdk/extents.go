package vmdk

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Map yields the extents of the disk as [diskformat.Image] describes them. It
// reads all grain directories and tables as it goes, each once, and asks the
// file system for the holes of flat files.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		more := true
		add = notingEnd(add, &more)
		for _, p := range f.parts {
			err := ctx.Err()
			if err == nil {
				err = p.mapped(ctx, add)
			}
			if err != nil {
				return fmt.Errorf("mapping a VMDK disk: %w", err)
			}
			if !more {
				return nil
			}
		}
		return nil
	})
}

// notingEnd is add, and notes in more whether it said that more is wanted.
func notingEnd(add extents.Add, more *bool) extents.Add {
	return func(n int64, data bool) bool {
		*more = add(n, data)
		return *more
	}
}

// zeros is an extent that lies in no file.
type zeros int64

func (z zeros) readAt(p []byte, _ int64) error {
	clear(p)
	return nil
}

func (z zeros) mapped(_ context.Context, add extents.Add) error {
	add(int64(z), false)
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

func (x *flatExtent) mapped(ctx context.Context, add extents.Add) error {
	_, err := sparse.NewHoles(ctx, x.r, x.off+x.size).Range(x.off, x.size, add)
	return err
}
