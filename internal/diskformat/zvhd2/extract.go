package zvhd2

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// ExtractOptions are those of [File.Extract].
type ExtractOptions struct {
	Options
	// Virtual asks for the virtual disk, with its zero tail, instead of the
	// disk that the file was made from.
	Virtual bool
}

// Extract writes the disk to dst: OrigSize bytes, which equal the RAW disk
// that the file was made from. It decodes on all cores and writes at offsets.
// A dst that can be truncated, such as an [*os.File], is emptied and gets
// holes where there are zeros; any other is written whole. What was written is
// the disk only if the error is nil; syncing it is the caller's.
func (f *File) Extract(ctx context.Context, dst io.WriterAt, opts ExtractOptions) error {
	size := f.OrigSize()
	if opts.Virtual {
		size = f.Size()
	}
	if err := f.extract(ctx, dst, size, opts.Options); err != nil {
		return fmt.Errorf("extracting a RAW disk from ZVHD2: %w", err)
	}
	return nil
}

func (f *File) extract(ctx context.Context, dst io.WriterAt, size int64, opts Options) error {
	sparsely, err := sparse.Prepare(dst, size)
	if err != nil {
		return err
	}
	if !sparsely {
		for e := range f.Extents() {
			if !e.Data && e.Offset < size {
				if err := sparse.Zero(ctx, dst, e.Offset, min(e.Length, size-e.Offset)); err != nil {
					return err
				}
			}
		}
	}
	return f.eachBlock(ctx, opts, size, func(block uint32, _, plain []byte) error {
		off := int64(block) * f.BlockSize()
		plain = plain[:min(int64(len(plain)), size-off)]
		if sparsely {
			return sparse.WriteAt(dst, plain, off)
		}
		if _, err := dst.WriteAt(plain, off); err != nil {
			return fmt.Errorf("writing bytes %d to %d: %w", off, off+int64(len(plain)), err)
		}
		return nil
	})
}

// eachBlock calls fn for every stored block, in several goroutines, in no
// order, with its record and its content, which fn may not keep.
// total is what Progress counts against.
func (f *File) eachBlock(ctx context.Context, opts Options, total int64, fn func(block uint32, rec, plain []byte) error) error {
	g, gctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	next, done := uint32(0), uint32(0)
	// take hands out the stored blocks in order and counts those finished.
	take := func() (uint32, bool) {
		mu.Lock()
		defer mu.Unlock()
		block := f.x.stored.Next(next)
		next = block + 1
		return block, block < f.h.maxBlocks
	}
	for range opts.concurrency() {
		g.Go(func() error {
			plain := make([]byte, f.BlockSize(), f.BlockSize()+DecodeSlack)
			var rec []byte
			for block, ok := take(); ok; block, ok = take() {
				if err := gctx.Err(); err != nil {
					return err
				}
				var err error
				if rec, err = f.readRecord(rec, block); err != nil {
					return err
				}
				if err := f.DecodeRecord(plain, rec, block); err != nil {
					return err
				}
				if err := fn(block, rec, plain); err != nil {
					return err
				}
				if opts.Progress != nil {
					mu.Lock()
					done++
					// Holes cost nothing, so they are spread over the blocks.
					opts.Progress(int64(float64(total)*(float64(done)/float64(f.h.dataBlocks))), total)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if opts.Progress != nil && f.h.dataBlocks == 0 {
		opts.Progress(total, total)
	}
	return ctx.Err()
}
