package vhdx

import (
	"context"
	"fmt"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Map yields the extents of the disk as [diskformat.Image] describes them:
// blocks that are present, and those that are not. It reads the whole block
// allocation table as it goes. Where the file is an [*os.File] to which no log had to
// be applied, its holes are holes of the disk too.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		if err := f.walk(ctx, add); err != nil {
			return fmt.Errorf("mapping a VHDX disk: %w", err)
		}
		return nil
	})
}

// walk adds the whole disk, up to the first error or until add says false.
func (f *File) walk(ctx context.Context, add extents.Add) error {
	holes := sparse.NewHoles(ctx, f.r, f.size)
	at := make([]int64, min(recent.PageSize/entrySize, f.bat.blocks))
	for block := int64(0); block < f.bat.blocks; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.places(at[:min(int64(len(at)), f.bat.blocks-block)], block)
		for _, off := range at[:n] {
			more, err := true, error(nil)
			if off != 0 {
				more, err = holes.Range(off, f.length(block), add)
			} else {
				more = add(f.length(block), false)
			}
			if err != nil || !more {
				return err
			}
			block++
		}
		if err != nil {
			return err
		}
	}
	return nil
}
