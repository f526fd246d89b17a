// Package blockwise feeds the writers of disk formats. It reads the blocks of a
// disk that hold data, has them encoded on all cores, and hands them on in the
// order of the disk.
//
// Most formats keep tables at the front that say where the blocks lie, and the
// blocks follow. [Write] writes such a file in two ways. A destination that can
// be written at any place gets the blocks first and the front at the end; blocks
// that turn out to be zero are left out. A destination that is a stream gets the
// front first, made from the ranges of the source that hold data; a block of
// zeros in such a range is stored.
package blockwise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/internal/ordered"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// pieceSize is how many bytes of the disk are read at once, at least.
const pieceSize = 2 << 20

// Summary is what was written.
type Summary struct {
	Blocks     int64 // of the disk
	DataBlocks int64 // stored
	FileSize   int64 // in bytes
}

// Encoder makes what the file stores of one block. It is used by one goroutine.
type Encoder interface {
	// Encode appends what is stored of the block plain to dst. It may not keep
	// either.
	Encode(dst, plain []byte) ([]byte, error)
}

// piece is a run of blocks on its way.
type piece struct {
	first  int64  // number of the first block
	plain  []byte // whole blocks, zeros beyond the disk's end
	stored []byte // encoded blocks, one after the other
	blocks []block
	enc    Encoder
}

type block struct {
	index  int64
	stored []byte
}

// Each reads the blocks of blockSize bytes of the disk src of size bytes that o.Data touches and calls
// put for each in the order of the disk. zeros says whether a block of zeros
// among them is handed on, too. newEncoder makes an encoder for each piece under
// way; nil hands on the blocks as they are. put may not keep what it gets.
func Each(ctx context.Context, src io.ReaderAt, size, blockSize int64, o sparse.CopyOptions, zeros bool, newEncoder func() (Encoder, error), put func(index int64, stored []byte) error) error {
	each := max(1, pieceSize/blockSize) // blocks of a piece
	workers := o.Concurrency
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	next, stop := iter.Pull2(pieces(dataOf(o, src, size), size, blockSize, each))
	defer stop()
	jobs := make([]*piece, 2*workers)
	for i := range jobs {
		jobs[i] = new(piece)
	}
	err := ordered.Run(ctx, jobs, workers, func(j *piece) error {
		run, err, ok := next()
		if !ok {
			return io.EOF
		}
		j.first, j.blocks = run.from, j.blocks[:0]
		if j.plain == nil {
			j.plain = make([]byte, each*blockSize)
		}
		j.plain = j.plain[:(run.to-run.from)*blockSize]
		return err
	}, func(j *piece) error {
		return j.encode(src, size, blockSize, zeros, newEncoder)
	}, func(j *piece) error {
		for _, b := range j.blocks {
			if err := put(b.index, b.stored); err != nil {
				return err
			}
		}
		if o.Progress != nil {
			o.Progress(min(size, j.first*blockSize+int64(len(j.plain))), size)
		}
		return nil
	})
	if err == nil && o.Progress != nil {
		o.Progress(size, size)
	}
	return err
}

func dataOf(o sparse.CopyOptions, src io.ReaderAt, size int64) iter.Seq2[diskformat.Extent, error] {
	if o.Data != nil {
		return o.Data
	}
	return sparse.Data(src, size)
}

// run are the blocks from one to before another.
type run struct{ from, to int64 }

// pieces joins neighbouring blocks of data to runs of at most the given number. A
// run does not cross a multiple of that number.
func pieces(data iter.Seq2[diskformat.Extent, error], size, blockSize, most int64) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		var r run
		for i, err := range sparse.Blocks(data, size, blockSize) {
			if err != nil {
				yield(run{}, err)
				return
			}
			if r.to == i && i%most != 0 {
				r.to++
				continue
			}
			if r.to > r.from && !yield(r, nil) {
				return
			}
			r = run{i, i + 1}
		}
		if r.to > r.from {
			yield(r, nil)
		}
	}
}

// encode reads the piece and encodes its blocks.
func (j *piece) encode(src io.ReaderAt, size, blockSize int64, zeros bool, newEncoder func() (Encoder, error)) (err error) {
	off := j.first * blockSize
	n := min(int64(len(j.plain)), size-off)
	if err := diskformat.ReadFull(src, j.plain[:n], off); err != nil {
		return fmt.Errorf("read %d bytes of the disk at byte %d: %w", n, off, err)
	}
	clear(j.plain[n:])
	if j.enc == nil && newEncoder != nil {
		if j.enc, err = newEncoder(); err != nil {
			return err
		}
	}
	j.stored = j.stored[:0]
	ends := 0
	for i := int64(0); i*blockSize < int64(len(j.plain)); i++ {
		p := j.plain[i*blockSize : (i+1)*blockSize]
		if !zeros && sparse.IsZero(p) {
			continue
		}
		b := block{index: j.first + i, stored: p}
		if j.enc != nil {
			if j.stored, err = j.enc.Encode(j.stored, p); err != nil {
				return fmt.Errorf("compress block %d: %w", b.index, err)
			}
			b.stored = j.stored[ends:len(j.stored):len(j.stored)]
			ends = len(j.stored)
		}
		j.blocks = append(j.blocks, b)
	}
	return nil
}

// Out is the file that is written. It writes in sequence and knows its place.
type Out struct {
	w    *bufio.Writer
	file File // nil: a stream
	off  int64
}

// File is a destination that can be written at any place, such as an
// [*os.File] that is empty.
type File interface {
	io.Writer
	io.WriterAt
	io.Seeker
}

// NewOut writes to dst. If dst is a [File] that can seek, which a pipe cannot,
// the front of the file may be written last.
func NewOut(dst io.Writer) *Out {
	o := &Out{w: bufio.NewWriterSize(dst, 1<<20)}
	if f, ok := dst.(File); ok {
		if at, err := f.Seek(0, io.SeekCurrent); err == nil && at == 0 {
			o.file = f
		}
	}
	return o
}

// Seekable tells whether the front can be written last.
func (o *Out) Seekable() bool { return o.file != nil }

// Offset is where the next byte goes.
func (o *Out) Offset() int64 { return o.off }

// Write appends p.
func (o *Out) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.off += int64(n)
	if err != nil {
		return n, fmt.Errorf("write %d bytes at byte %d: %w", len(p), o.off-int64(n), err)
	}
	return n, nil
}

// cover makes the file as long as what was skipped and written, if a skip ended
// it.
func (o *Out) cover() error {
	t, ok := o.file.(interface{ Truncate(int64) error })
	if !ok {
		return nil
	}
	if err := t.Truncate(o.off); err != nil {
		return fmt.Errorf("give the file its %d bytes: %w", o.off, err)
	}
	return nil
}

var zeroPage [64 << 10]byte

// Align fills up with zeros to a multiple of n bytes.
func (o *Out) Align(n int64) error {
	return o.Zeros((n - o.off%n) % n)
}

// Zeros appends n bytes of zeros.
func (o *Out) Zeros(n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeroPage)))
		if _, err := o.Write(zeroPage[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// Flush hands all that was written to the destination.
func (o *Out) Flush() error {
	if err := o.w.Flush(); err != nil {
		return fmt.Errorf("write up to byte %d: %w", o.off, err)
	}
	return nil
}

// skip leaves n bytes out, which are written by patch.
func (o *Out) skip(n int64) error {
	if err := o.Flush(); err != nil {
		return err
	}
	if _, err := o.file.Seek(n, io.SeekCurrent); err != nil {
		return fmt.Errorf("seek to byte %d: %w", o.off+n, err)
	}
	o.off += n
	return nil
}

// Layout is how a format's file with a front is made.
type Layout struct {
	// BlockSize is the unit of allocation in bytes.
	BlockSize int64
	// FrontSize is the length of the front in bytes.
	FrontSize int64
	// Front writes the front, FrontSize bytes, of a file that stores these blocks.
	Front func(w io.Writer, stored *bitset.Set) error
	// Put appends a block. It is called in the order of the disk.
	Put func(index int64, stored []byte) error
	// End appends what follows the blocks; nil is nothing.
	End func(stored *bitset.Set) error
	// Encoder makes encoders; nil stores blocks as they are.
	Encoder func() (Encoder, error)
	// Measured says that where a block lies depends on how the blocks before it
	// were encoded, so that the front cannot be made first.
	Measured bool
}

// ErrNeedsFile says that a file cannot be written to a stream.
var ErrNeedsFile = errors.New("the front of the file is known only at the end, and the destination is a stream: write to a file")

// Write makes a file by the layout l of the disk src of size bytes. What was
// written is a file only if the error is nil.
func Write(ctx context.Context, out *Out, src io.ReaderAt, size int64, o sparse.CopyOptions, l Layout) (Summary, error) {
	stored := bitset.New(uint32((size + l.BlockSize - 1) / l.BlockSize))
	write := l.backToFront
	if !out.Seekable() {
		if write = l.inSequence; l.Measured {
			return Summary{}, ErrNeedsFile
		}
	}
	if err := write(ctx, out, src, size, o, stored); err != nil {
		return Summary{}, err
	}
	return Summary{Blocks: int64(stored.Len()), DataBlocks: int64(stored.Count()), FileSize: out.Offset()}, ctx.Err()
}

// backToFront writes the blocks, what follows them, and then the front.
func (l Layout) backToFront(ctx context.Context, out *Out, src io.ReaderAt, size int64, o sparse.CopyOptions, stored *bitset.Set) error {
	if err := out.skip(l.FrontSize); err != nil {
		return err
	}
	err := Each(ctx, src, size, l.BlockSize, o, false, l.Encoder, func(index int64, p []byte) error {
		stored.Add(uint32(index))
		return l.Put(index, p)
	})
	if err != nil {
		return err
	}
	stored.Index()
	if err := l.end(out, stored); err != nil {
		return err
	}
	front := bufio.NewWriterSize(io.NewOffsetWriter(out.file, 0), 1<<20)
	if err := l.front(front, stored); err != nil {
		return err
	}
	if err := front.Flush(); err != nil {
		return fmt.Errorf("write the front of the file: %w", err)
	}
	return out.cover()
}

// inSequence writes the front, the blocks and what follows them.
func (l Layout) inSequence(ctx context.Context, out *Out, src io.ReaderAt, size int64, o sparse.CopyOptions, stored *bitset.Set) error {
	for i, err := range sparse.Blocks(dataOf(o, src, size), size, l.BlockSize) {
		if err != nil {
			return err
		}
		stored.Add(uint32(i))
	}
	stored.Index()
	if err := l.front(out, stored); err != nil {
		return err
	}
	put := uint32(0)
	err := Each(ctx, src, size, l.BlockSize, o, true, l.Encoder, func(index int64, p []byte) error {
		// The ranges of data were asked for twice, and the source may have changed.
		if !stored.Has(uint32(index)) || stored.Rank(uint32(index)) != put {
			return fmt.Errorf("block %d of the disk became data while the disk was read", index)
		}
		put++
		return l.Put(index, p)
	})
	if err == nil && put != stored.Count() {
		err = errors.New("the disk lost data while it was read")
	}
	if err != nil {
		return err
	}
	return l.end(out, stored)
}

func (l Layout) end(out *Out, stored *bitset.Set) error {
	if l.End != nil {
		if err := l.End(stored); err != nil {
			return err
		}
	}
	return out.Flush()
}

// front writes the front and sees to it that it is as long as it was said to be.
func (l Layout) front(w io.Writer, stored *bitset.Set) error {
	c := &counter{w: w}
	if err := l.Front(c, stored); err != nil {
		return err
	}
	if c.n != l.FrontSize {
		return fmt.Errorf("the front of the file has %d bytes; %d were set aside", c.n, l.FrontSize)
	}
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
