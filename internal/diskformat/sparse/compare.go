package sparse

import (
	"bytes"
	"context"
	"io"
	"iter"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
)

// Compare reads two disks of size bytes on all cores and returns an ErrMismatch
// that names the first byte of a difference, not always of the first one. dataA and
// dataB are the ranges of each that may be other than zero, in order; what is in
// neither is not read.
func Compare(ctx context.Context, a, b io.ReaderAt, size int64, dataA, dataB iter.Seq2[diskformat.Extent, error], progress func(done, total int64)) error {
	bufs := sync.Pool{New: func() any { p := make([]byte, pieceSize); return &p }}
	opts := CopyOptions{Data: union(dataA, dataB, size), Progress: progress}
	return Each(ctx, a, size, opts, func(off int64, p []byte) error {
		buf := bufs.Get().(*[]byte)
		defer bufs.Put(buf)
		q := (*buf)[:len(p)]
		if err := diskformat.ReadFull(b, q, off); err != nil {
			return err
		}
		if bytes.Equal(p, q) {
			return nil
		}
		i := 0
		for p[i] == q[i] {
			i++
		}
		return diskformat.Errorf("", diskformat.ErrMismatch, "", "byte %d of the disk is %#02x in one and %#02x in the other", off+int64(i), p[i], q[i])
	}, false)
}

// union yields the pieces that two lists of ranges touch, in order.
func union(a, b iter.Seq2[diskformat.Extent, error], size int64) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		nextA, stopA := iter.Pull2(Blocks(a, size, pieceSize))
		defer stopA()
		nextB, stopB := iter.Pull2(Blocks(b, size, pieceSize))
		defer stopB()
		i, errA, okA := nextA()
		j, errB, okB := nextB()
		for okA || okB {
			if errA != nil || errB != nil {
				if errA == nil {
					errA = errB
				}
				yield(diskformat.Extent{}, errA)
				return
			}
			at := i
			if !okA || okB && j < i {
				at = j
			}
			if !yield(diskformat.Extent{Offset: at * pieceSize, Length: min(pieceSize, size-at*pieceSize), Data: true}, nil) {
				return
			}
			if okA && i == at {
				i, errA, okA = nextA()
			}
			if okB && j == at {
				j, errB, okB = nextB()
			}
		}
	}
}
