// Package sparse finds the holes of disks and makes holes in files.
//
// A hole is a range that a file system does not store and that reads as
// zeros. What is reported as data may be zeros too.
package sparse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
)

// grain is what zeros are looked for in when a file is written: the usual page
// of a file system, below which a hole saves nothing.
const grain = 4096

var zeros [64 << 10]byte

// IsZero tells whether p is all zeros.
func IsZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// Blocks yields the numbers of the blocks of blockSize bytes that ranges touch,
// each once, ascending. Ranges out of order or beyond size are an error.
func Blocks(ranges iter.Seq2[diskformat.Extent, error], size, blockSize int64) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		next, end := int64(0), int64(0)
		for e, err := range ranges {
			if err != nil {
				yield(0, err)
				return
			}
			if e.Length < 0 || e.Offset < end || e.Offset > size || e.Length > size-e.Offset {
				yield(0, fmt.Errorf("the data range of %d bytes at %d is out of order or beyond the disk's %d", e.Length, e.Offset, size))
				return
			}
			end = e.End()
			if e.Length == 0 {
				continue
			}
			for next = max(next, e.Offset/blockSize); next*blockSize < end; next++ {
				if !yield(next, nil) {
					return
				}
			}
		}
	}
}

// WriteAt writes p at off, leaving out runs of zeros that are whole grains of
// 4096 bytes counted from off. The file must already read as zeros there.
func WriteAt(w io.WriterAt, p []byte, off int64) error {
	for at := 0; at < len(p); {
		n := min(grain, len(p)-at)
		if IsZero(p[at : at+n]) {
			at += n
			continue
		}
		from := at
		for at += n; at < len(p); at += n {
			n = min(grain, len(p)-at)
			if IsZero(p[at : at+n]) {
				break
			}
		}
		if _, err := w.WriteAt(p[from:at], off+int64(from)); err != nil {
			return fmt.Errorf("writing bytes %d to %d: %w", off+int64(from), off+int64(at), err)
		}
	}
	return nil
}

// Zero writes n zeros at off, for a destination that can't be made to read as
// zeros at once.
func Zero(ctx context.Context, w io.WriterAt, off, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(n, int64(len(zeros)))
		if _, err := w.WriteAt(zeros[:k], off); err != nil {
			return fmt.Errorf("writing zeros to bytes %d to %d: %w", off, off+k, err)
		}
		off, n = off+k, n-k
	}
	return nil
}

// Prepare makes dst read as size zeros: by cutting it to nothing and
// stretching it, if it can be (an [*os.File]), without writing a byte. Else it
// returns false, and whoever writes must write the zeros too.
func Prepare(dst io.WriterAt, size int64) (bool, error) {
	t, ok := dst.(interface{ Truncate(int64) error })
	if !ok {
		return false, nil
	}
	if err := t.Truncate(0); err != nil {
		return false, fmt.Errorf("emptying the destination: %w", err)
	}
	if err := t.Truncate(size); err != nil {
		return false, fmt.Errorf("giving the destination its %d bytes: %w", size, err)
	}
	return true, nil
}
