package zvhd2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/ordered"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
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
	DiskSize   int64  // of the source, in bytes
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
		return Summary{}, fmt.Errorf("converting a disk to ZVHD2: %w", err)
	}
	return s, nil
}

// job is a block on its way.
type job struct {
	block uint32
	plain []byte // in a job of a stream, what was read
	buf   []byte // plain's memory
	rec   []byte // the record; empty: the block is zero
	out   []byte // rec's memory
	entry []byte // of the frame table
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
	next, stop := iter.Pull2(sparse.Blocks(data, size, z.BlockSize()))
	defer stop()
	fill := func(j *job) error {
		block, err, ok := next()
		if !ok {
			return io.EOF
		}
		j.block = uint32(block)
		return err
	}
	work := func(j *job) error {
		off := int64(j.block) * z.BlockSize()
		j.room(z)
		j.plain = j.buf[:min(z.BlockSize(), size-off)]
		if err := diskformat.ReadFull(src, j.plain, off); err != nil {
			return fmt.Errorf("reading block %d: %w", j.block, err)
		}
		return j.encode(z)
	}
	if err := z.pipe(ctx, opts.Options, size, fill, work); err != nil {
		return Summary{}, err
	}
	return z.end(opts.Options)
}

// ConvertStream is [Convert] of a disk that comes as a stream. size is what it
// must have, or, if dst can be written at (an [*os.File] that is a regular
// file), less than 0: the disk has what the stream has, and the header at the
// front of dst is written anew at the end. All of the stream is read. If src is an
// [io.Closer] it is closed when dst fails, so that no read is waited for that may
// never end.
func ConvertStream(ctx context.Context, dst io.Writer, src io.Reader, size int64, opts Options) (Summary, error) {
	s, err := convertStream(ctx, dst, src, size, opts)
	if err != nil {
		return Summary{}, fmt.Errorf("converting a disk to ZVHD2: %w", err)
	}
	return s, nil
}

func convertStream(ctx context.Context, dst io.Writer, src io.Reader, size int64, opts Options) (Summary, error) {
	most, front := size, io.WriterAt(nil)
	if size < 0 {
		at, ok := dst.(io.WriterAt)
		if !ok {
			return Summary{}, errors.New("the disk's size must be known first: the destination can't be written at its front again")
		}
		most, front = ims.MaxDiskSize, at
	}
	z, err := newWriter(dst, most, opts)
	if err != nil {
		return Summary{}, err
	}
	var failed atomic.Pointer[error] // what dst said
	z.failed = func(err error) {
		failed.Store(&err)
		if c, ok := src.(io.Closer); ok {
			c.Close()
		}
	}
	read, block := int64(0), uint32(0)
	fill := func(j *job) error {
		j.room(z)
		n, err := io.ReadFull(src, j.buf[:min(z.BlockSize(), most-read)])
		j.plain, j.block = j.buf[:n], block
		read, block = read+int64(n), block+1
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // the last block
		}
		if err == nil && n == 0 {
			err = io.EOF // all that is wanted was read
		}
		if because := failed.Load(); because != nil {
			return *because
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("reading the disk at byte %d: %w", read, err)
		}
		return err
	}
	work := func(j *job) error {
		return j.encode(z)
	}
	if err := z.pipe(ctx, opts, max(size, 0), fill, work); err != nil {
		return Summary{}, err
	}
	if err := checkStreamEnd(src, read, size, most); err != nil {
		return Summary{}, err
	}
	if size < 0 {
		if err := z.shrink(read, front); err != nil {
			return Summary{}, err
		}
	}
	return z.end(opts)
}

// checkStreamEnd checks that a stream of which read bytes were read had size
// bytes, or, if size is less than 0, ended at all.
func checkStreamEnd(src io.Reader, read, size, most int64) error {
	if read < size {
		return fmt.Errorf("the disk ended after %d bytes of %d: %w", read, size, io.ErrUnexpectedEOF)
	}
	if read < most {
		return nil
	}
	var one [1]byte
	switch n, err := io.ReadFull(src, one[:]); {
	case n > 0:
		return unsupported("disk size", "it has more than %d bytes", most)
	case err != io.EOF:
		return fmt.Errorf("reading the disk at byte %d: %w", read, err)
	}
	return nil
}

// pipe stores what fill and work make, in order. total is what Progress counts
// against; 0 is unknown.
func (z *Writer) pipe(ctx context.Context, opts Options, total int64, fill, work func(*job) error) error {
	jobs := make([]*job, 2*opts.concurrency())
	for i := range jobs {
		jobs[i] = new(job)
	}
	return ordered.Run(ctx, jobs, opts.concurrency(), fill, work, func(j *job) error {
		if len(j.rec) > 0 {
			if err := z.writeRecord(j.block, j.rec, j.entry); err != nil {
				if z.failed != nil {
					z.failed(err)
				}
				return err
			}
		}
		if opts.Progress != nil {
			done := (int64(j.block) + 1) * z.BlockSize()
			if total > 0 {
				done = min(done, total)
			}
			opts.Progress(done, total)
		}
		return nil
	})
}

// end finishes the file.
func (z *Writer) end(opts Options) (Summary, error) {
	if err := z.Finish(); err != nil {
		return Summary{}, err
	}
	size := int64(z.h.OrigSize)
	if opts.Progress != nil {
		opts.Progress(size, size)
	}
	return Summary{DiskSize: size, Blocks: z.h.maxBlocks, DataBlocks: z.h.dataBlocks, FileSize: z.off}, nil
}

// room gives the job memory for a block.
func (j *job) room(z *Writer) {
	if j.buf == nil {
		j.buf = make([]byte, z.BlockSize())
	}
}

// encode makes the record of the job's block, none of one that is zero.
func (j *job) encode(z *Writer) (err error) {
	if sparse.IsZero(j.plain) {
		j.rec = nil
		return nil
	}
	clear(j.buf[len(j.plain):]) // a short last block is filled up with zeros
	if j.rec, err = encodeRecord(z.enc, z.frame, j.out, j.block, j.buf); err != nil {
		return err
	}
	j.out = j.rec[:0]
	if z.framed() {
		payload, err := zdisk.Payload(diskformat.ZVHD2, j.rec, j.block)
		if err != nil {
			return err
		}
		if j.entry, err = appendFrameEntry(j.entry[:0], payload, j.buf); err != nil {
			return err
		}
	}
	return nil
}
