package sparse

import (
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat"
)

// pieceSize is what is copied at once, in bytes: a block of most formats, or some.
const pieceSize = 2 << 20

// CopyOptions are those of [Copy] and [Each].
type CopyOptions struct {
	// Concurrency is the number of pieces of 2 MiB that are copied at once; 0 is
	// one for each core.
	Concurrency int
	// Data are the ranges of the source that may be other than zero, in order;
	// all else is taken for zero without being read. nil asks the file system
	// if the source is an [*os.File], and else takes the whole.
	Data iter.Seq2[diskformat.Extent, error]
	// Progress, if set, is told in one goroutine at a time how many of the
	// disk's bytes are done, holes included. done never decreases.
	Progress func(done, total int64)
}

func (o CopyOptions) concurrency() int {
	if o.Concurrency > 0 {
		return o.Concurrency
	}
	return runtime.GOMAXPROCS(0)
}

// Copy writes the disk src of size bytes to dst on all cores. dst is emptied and
// gets holes where there are zeros if it can be truncated (an [*os.File]), and is
// written whole if not.
func Copy(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64, opts CopyOptions) error {
	sparsely, err := Prepare(dst, size)
	if err == nil {
		err = Each(ctx, src, size, opts, func(off int64, p []byte) error {
			if sparsely {
				return WriteAt(dst, p, off)
			}
			if _, err := dst.WriteAt(p, off); err != nil {
				return fmt.Errorf("writing bytes %d to %d: %w", off, off+int64(len(p)), err)
			}
			return nil
		}, !sparsely)
	}
	if err != nil {
		return fmt.Errorf("copying a disk: %w", err)
	}
	return nil
}

// Each reads the pieces of 2 MiB of the disk src of size bytes that Data touches,
// or with all set every piece, and calls fn for each, in several goroutines, in no
// order. fn may not keep what it gets.
func Each(ctx context.Context, src io.ReaderAt, size int64, opts CopyOptions, fn func(off int64, p []byte) error, all bool) error {
	data := opts.Data
	if data == nil {
		data = Data(src, size)
	}
	if all {
		data = func(yield func(diskformat.Extent, error) bool) {
			yield(diskformat.Extent{Length: size, Data: true}, nil)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	todo := make(chan int64, opts.concurrency())
	g.Go(func() error {
		defer close(todo)
		for i, err := range Blocks(data, size, pieceSize) {
			if err != nil {
				return err
			}
			select {
			case todo <- i * pieceSize:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	var mu sync.Mutex
	reached := int64(0)
	for range opts.concurrency() {
		g.Go(func() error {
			var buf []byte
			for off := range todo {
				if err := gctx.Err(); err != nil {
					return err
				}
				if buf == nil {
					buf = make([]byte, pieceSize)
				}
				p := buf[:min(pieceSize, size-off)]
				if err := diskformat.ReadFull(src, p, off); err != nil {
					return err
				}
				if err := fn(off, p); err != nil {
					return err
				}
				if opts.Progress != nil {
					mu.Lock()
					reached = max(reached, off+int64(len(p)))
					opts.Progress(reached, size)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if opts.Progress != nil && reached < size {
		opts.Progress(size, size)
	}
	return ctx.Err()
}
