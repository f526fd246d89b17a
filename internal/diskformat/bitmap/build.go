package bitmap

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/bitset"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Built is a map that [Build] made, with all that its file holds: read the file's
// bytes from it, or write it whole. Beyond what the [Map] takes, it takes 256 bytes
// for each block that holds data, an eight thousandth of the data: 128 MiB for a
// full TiB. It is safe for concurrent use.
type Built struct {
	*Map
	head  []byte      // what lies before the checksums of units
	units []*unitSums // of each data block, in order
}

// Build reads the RAW disk src of size bytes, at most 1 TiB, on all cores, and
// makes its map: which blocks are not all zeros, and their checksums. Holes
// are not read.
func Build(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Built, error) {
	b, err := build(ctx, src, size, opts)
	if err != nil {
		return nil, fmt.Errorf("making the map of a RAW disk: %w", err)
	}
	return b, nil
}

func build(ctx context.Context, src io.ReaderAt, size int64, opts Options) (*Built, error) {
	if err := checkDiskSize(size); err != nil {
		return nil, err
	}
	m := &Map{kind: Ours, size: size, data: bitset.New(blocks(size))}
	if opts.Data == nil {
		opts.Data = sparse.Data(src, size)
	}
	var mu sync.Mutex
	// Which data block a block is, is not known before all are read. At 1 TiB these
	// take 6 MiB, as far as they are written to.
	sums, units := make([]uint32, m.data.Len()), make([]*unitSums, m.data.Len())
	err := eachBlock(ctx, src, size, sparse.Blocks(opts.Data, size, BlockSize), opts, func(i int64, c *content) error {
		if c.zero {
			return nil
		}
		kept := c.units
		sums[i], units[i] = c.sum, &kept
		mu.Lock()
		defer mu.Unlock()
		m.data.Add(uint32(i))
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.data.Index()
	n := 0
	for i := m.data.Next(0); i < m.data.Len(); i = m.data.Next(i + 1) {
		sums[n], units[n] = sums[i], units[i]
		n++
	}
	m.sums = append(make([]uint32, 0, n), sums[:n]...)
	return &Built{m, m.encodeHead(), units[:n]}, nil
}

// Size is that of the map's file in bytes.
func (b *Built) Size() int64 { return int64(len(b.head)) + unitSumsLen*int64(len(b.units)) }

// ReadAt reads the bytes of the map's file, in our layout.
func (b *Built) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("reading a map from a negative offset")
	}
	for n < len(p) {
		at := off + int64(n)
		if at < int64(len(b.head)) {
			n += copy(p[n:], b.head[at:])
			continue
		}
		at -= int64(len(b.head))
		k := at / unitSumsLen
		if k >= int64(len(b.units)) {
			return n, io.EOF
		}
		sums := b.units[k].encode()
		n += copy(p[n:], sums[at%unitSumsLen:])
	}
	return n, nil
}

// WriteTo writes the map's file, piece by piece.
func (b *Built) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		err = fmt.Errorf("writing a map: %w", err)
	}
	return n, err
}

// piece is how much of a block is read at once, in bytes, some units: what was read
// is summed while it is in the processor's cache.
const piece = 128 << 10

// content is what was found in a block.
type content struct {
	zero  bool
	sum   uint32
	units unitSums
}

// read reads the block of n bytes at off, through buf, which has a piece's length. No
// byte is summed twice: the block's checksum is made of its units'.
func (c *content) read(src io.ReaderAt, buf []byte, off, n int64) error {
	*c = content{zero: true}
	u := 0
	for end := off + n; off < end; off += piece {
		p := buf[:min(piece, end-off)]
		if err := diskformat.ReadFull(src, p, off); err != nil {
			return err
		}
		c.zero = c.zero && sparse.IsZero(p)
		for ; len(p) > 0; u++ {
			unit := p[:min(UnitSize, len(p))]
			c.units[u] = crc32.Checksum(unit, castagnoli)
			p = p[len(unit):]
		}
	}
	c.sum = c.units.join(n)
	return nil
}

// eachBlock calls fn for every block of which, in several goroutines, with its
// content, which is fn's only while it runs.
func eachBlock(ctx context.Context, src io.ReaderAt, size int64, which iter.Seq2[int64, error], opts Options, fn func(i int64, c *content) error) error {
	g, gctx := errgroup.WithContext(ctx)
	todo := make(chan int64)
	g.Go(func() error {
		defer close(todo)
		for i, err := range which {
			if err != nil {
				return err
			}
			select {
			case todo <- i:
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
			var found content
			for i := range todo {
				if err := gctx.Err(); err != nil {
					return err
				}
				if buf == nil {
					buf = make([]byte, piece)
				}
				off := i * BlockSize
				n := min(BlockSize, size-off)
				if err := found.read(src, buf, off, n); err != nil {
					return fmt.Errorf("reading block %d: %w", i, err)
				}
				if err := fn(i, &found); err != nil {
					return err
				}
				if opts.Progress != nil {
					mu.Lock()
					reached = max(reached, off+n)
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
