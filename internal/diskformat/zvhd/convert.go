package zvhd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/flate"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/ordered"
	"github.com/quickims/quickims/internal/diskformat/internal/zdisk"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/ims"
)

// Options are those of writing a file. The zero value is the published default.
type Options struct {
	// Level is zlib's compression level, 1 to 9; 0 is the published writer's, 1.
	Level int
	// Concurrency is the number of blocks that are compressed at once; 0 is one
	// for each core. Each takes about 10 MiB of memory.
	Concurrency int
	// Now is when the file says it was made; zero is the present.
	Now time.Time
	// UUID goes into the header; zero draws one.
	UUID [16]byte
	// Data are the ranges of the source that may be other than zero, in order;
	// all else is taken for zero without being read. nil asks the file system
	// if the source is an [*os.File], and else takes the whole.
	Data iter.Seq2[diskformat.Extent, error]
	// Progress, if set, is told in one goroutine at a time how many of the
	// disk's bytes are done. done never decreases.
	Progress func(done, total int64)
}

// zlibHeader opens the one stream of a file: deflate with a window of 32 KiB, no
// dictionary, compressed for speed, as the published writer's does.
var zlibHeader = []byte{0x78, 0x01}

// Summary is what a conversion made.
type Summary struct {
	Blocks     uint32 // of the disk
	DataBlocks uint32 // stored
	FileSize   int64  // in bytes
}

// Convert writes the RAW disk src of size bytes to dst as ZVHD. Blocks are
// compressed on all cores although one stream runs through the file: none refers
// to what precedes it. Blocks that are all zeros are left out, and holes are not
// even read. size is a multiple of 512 and at most 1 TiB. What was written is a
// file only if the error is nil.
func Convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts Options) (Summary, error) {
	s, err := convert(ctx, dst, src, size, opts)
	if err != nil {
		return Summary{}, fmt.Errorf("converting a disk to ZVHD: %w", err)
	}
	return s, nil
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.ZVHD, diskformat.ErrUnsupported, field, problem, args...)
}

// newHeader makes the block that a file begins and ends with.
func newHeader(size int64, opts Options) ([]byte, error) {
	if size <= 0 || size%zdisk.SectorSize != 0 || size > ims.MaxDiskSize {
		return nil, unsupported("disk size", "it is %d, right is a multiple of %d up to %d (1 TiB)", size, zdisk.SectorSize, int64(ims.MaxDiskSize))
	}
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	if opts.UUID == ([16]byte{}) {
		id, err := uuid.NewRandom()
		if err != nil {
			return nil, fmt.Errorf("drawing the file's UUID: %w", err)
		}
		opts.UUID = id
	}
	front := zdisk.Front{
		Timestamp: zdisk.Timestamp(opts.Now),
		OrigSize:  uint64(size),
		CurrSize:  zdisk.VirtualSize(uint64(size)),
		UUID:      opts.UUID,
	}
	copy(front.Cookie[:], cookie)
	page := make([]byte, zdisk.PageSize)
	front.Put(page)
	zdisk.Seal(page)
	return page, nil
}

// job is a block on its way.
type job struct {
	block uint32
	plain []byte
	rec   bytes.Buffer // a spare head and the deflated block; empty: it is zero
	z     *flate.Writer
}

func convert(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts Options) (s Summary, err error) {
	header, err := newHeader(size, opts)
	if err != nil {
		return s, err
	}
	if opts.Level == 0 {
		opts.Level = 1
	}
	if opts.Level < 1 || opts.Level > 9 {
		return s, unsupported("level", "it is %d, right is 1 to 9", opts.Level)
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = runtime.GOMAXPROCS(0)
	}
	if opts.Data == nil {
		opts.Data = sparse.Data(src, size)
	}
	write := func(p []byte) error {
		if _, err := dst.Write(p); err != nil {
			return fmt.Errorf("writing a ZVHD file at byte %d: %w", s.FileSize, err)
		}
		s.FileSize += int64(len(p))
		return nil
	}
	if err := write(header); err != nil {
		return s, err
	}
	next, stop := iter.Pull2(sparse.Blocks(opts.Data, size, BlockSize))
	defer stop()
	jobs := make([]*job, 2*opts.Concurrency)
	for i := range jobs {
		jobs[i] = new(job)
	}
	err = ordered.Run(ctx, jobs, opts.Concurrency, func(j *job) error {
		block, err, ok := next()
		if !ok {
			return io.EOF
		}
		j.block = uint32(block)
		return err
	}, func(j *job) error {
		return j.deflate(src, size, opts.Level)
	}, func(j *job) error {
		if rec := j.rec.Bytes(); len(rec) > 0 {
			if s.DataBlocks == 0 {
				rec = append(append(make([]byte, zdisk.RecordHeadSize), zlibHeader...), rec[zdisk.RecordHeadSize:]...)
			}
			if err := write(zdisk.FinishRecord(rec, j.block)); err != nil {
				return err
			}
			s.DataBlocks++
		}
		if opts.Progress != nil {
			opts.Progress(min(size, (int64(j.block)+1)*BlockSize), size)
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	if err := write(header); err != nil {
		return s, err
	}
	if opts.Progress != nil {
		opts.Progress(size, size)
	}
	s.Blocks = uint32(zdisk.Blocks(uint64(size), BlockSize))
	return s, nil
}

// deflate reads the job's block and compresses it, up to a sync flush: the
// stream goes on behind it, on a whole byte.
func (j *job) deflate(src io.ReaderAt, size int64, level int) (err error) {
	j.rec.Reset()
	if j.plain == nil {
		j.plain = make([]byte, BlockSize)
		if j.z, err = flate.NewWriter(&j.rec, level); err != nil {
			return err
		}
		j.rec.Grow(int(BlockSize + BlockSize/256 + zdisk.PageSize))
	}
	off := int64(j.block) * BlockSize
	n := min(BlockSize, size-off)
	if err := diskformat.ReadFull(src, j.plain[:n], off); err != nil {
		return fmt.Errorf("reading block %d: %w", j.block, err)
	}
	if sparse.IsZero(j.plain[:n]) {
		return nil
	}
	clear(j.plain[n:]) // a short last block is filled up with zeros
	j.rec.Write(make([]byte, zdisk.RecordHeadSize))
	j.z.Reset(&j.rec)
	_, err = j.z.Write(j.plain)
	if err = errors.Join(err, j.z.Flush()); err != nil {
		return fmt.Errorf("compressing block %d: %w", j.block, err)
	}
	return nil
}
