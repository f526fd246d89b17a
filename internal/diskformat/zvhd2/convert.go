package zvhd2

import (
	"context"
	"fmt"
	"io"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// ConvertOptions are those of [Convert].
type ConvertOptions struct {
	Options
	// Data are the ranges of the source that may be other than zero, in order;
	// all else is taken for zero without being read. nil asks the file system
	// if the source is an [*os.File], and else takes the whole.
	Data iter.Seq2[diskformat.Extent, error]
}

// Summary is what a conversion made.
type Summary struct {
	Blocks     uint32 // of the disk
	DataBlocks uint32 // stored
	FileSize   int64  // in bytes
}

// Convert writes the RAW disk src of size bytes to dst as ZVHD2. It compresses
// on all cores and writes in sequence; blocks that are all zeros are left out,
// and holes are not even read. size is a multiple of 512 and at most 1 TiB.
// What was written is a file only if the error is nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return Summary{}, fmt.Errorf("converting a RAW disk to ZVHD2: %w", err)
	}
	return s, nil
}

// job is a block on its way. Two sets of buffers go round for each worker.
type job struct {
	block  uint32
	rec    []byte        // the record; empty: the block is zero
	buf    []byte        // what rec lies in
	done   chan struct{} // has a place: the worker tells the writer
	failed error
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts ConvertOptions) (Summary, error) {
	z, err := newWriter(dst, size, opts.Options)
	if err != nil {
		return Summary{}, err
	}
	data := opts.Data
	if data == nil {
		data = sparse.Data(src, size)
	}
	workers := opts.concurrency()
	free := make(chan *job, 2*workers)  // jobs to be filled
	todo := make(chan *job, 2*workers)  // in any order to the workers,
	order := make(chan *job, 2*workers) // in the disk's order to the writer
	for range 2 * workers {
		free <- &job{done: make(chan struct{}, 1)}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		for block, err := range sparse.Blocks(data, size, z.BlockSize()) {
			if err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case j := <-free:
				j.block = uint32(block)
				todo <- j // both have places for all jobs
				order <- j
			}
		}
		return ctx.Err()
	})
	for range workers {
		g.Go(func() error {
			plain := make([]byte, z.BlockSize())
			for j := range todo {
				if ctx.Err() == nil {
					j.failed = j.encode(z, src, size, plain)
				}
				j.done <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range order {
			<-j.done
			if err := ctx.Err(); err != nil {
				return err
			}
			if j.failed != nil {
				return j.failed
			}
			if len(j.rec) > 0 {
				if err := z.writeRecord(j.block, j.rec); err != nil {
					return err
				}
			}
			if opts.Progress != nil {
				opts.Progress(min(size, (int64(j.block)+1)*z.BlockSize()), size)
			}
			free <- j
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return Summary{}, err
	}
	if err := z.Finish(); err != nil {
		return Summary{}, err
	}
	if opts.Progress != nil {
		opts.Progress(size, size)
	}
	return Summary{Blocks: z.h.maxBlocks, DataBlocks: z.h.dataBlocks, FileSize: z.off}, nil
}

// encode reads the job's block by way of plain and makes its record.
func (j *job) encode(z *Writer, src io.ReaderAt, size int64, plain []byte) error {
	off := int64(j.block) * z.BlockSize()
	n := min(z.BlockSize(), size-off)
	if err := diskformat.ReadFull(src, plain[:n], off); err != nil {
		return fmt.Errorf("reading block %d: %w", j.block, err)
	}
	if sparse.IsZero(plain[:n]) {
		j.rec = nil
		return nil
	}
	clear(plain[n:])
	j.rec = encodeRecord(z.enc, j.buf, j.block, plain)
	j.buf = j.rec[:0]
	return nil
}
