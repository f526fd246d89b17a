package sparse

import (
	"context"
	"io"
	"iter"
	"os"

	"github.com/quickims/quickims/internal/diskformat"
)

// Data yields the ranges of r, which has size bytes, that may be other than
// zero, in order and without overlap. Of an [*os.File] on a file system that
// tells (SEEK_DATA) these are what is allocated; of anything else the whole.
// Looking moves an os.File's own position. If the file changes meanwhile, what
// was a hole when it was looked at counts as one.
func Data(r io.ReaderAt, size int64) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		if size <= 0 {
			return
		}
		at := int64(0)
		h := NewHoles(context.Background(), r, size)
		_, err := h.Range(0, size, func(n int64, data bool) bool {
			e := diskformat.Extent{Offset: at, Length: n, Data: true}
			at += n
			return !data || yield(e, nil)
		})
		if err != nil {
			yield(diskformat.Extent{}, err)
		}
	}
}

// Holes finds the holes of a file, range by range, for what lies in it as it is. It
// remembers where it looked last, so that many small ranges in a row cost few system
// calls. It is for one goroutine.
type Holes struct {
	ctx  context.Context
	f    *os.File // nil: nothing tells of holes
	size int64
	last diskformat.Extent
}

// NewHoles looks into the file r of size bytes, as [Data] does, until ctx ends.
func NewHoles(ctx context.Context, r io.ReaderAt, size int64) *Holes {
	f, _ := r.(*os.File)
	return &Holes{ctx: ctx, f: f, size: size}
}

// Range tells add the lengths of data and holes of the file from off on, length
// bytes in all, until add returns false; it returns what add returned last. What
// lies beyond the file's end counts as data: whoever reads it meets the error.
func (h *Holes) Range(off, length int64, add func(n int64, data bool) bool) (more bool, err error) {
	for length > 0 {
		if h.f == nil || off < 0 || off >= h.size {
			return add(length, true), nil
		}
		if off < h.last.Offset || off >= h.last.End() {
			if err := h.ctx.Err(); err != nil {
				return false, err
			}
			end, data, err := find(h.f, off, h.size)
			if err != nil {
				return false, err
			}
			h.last = diskformat.Extent{Offset: off, Length: end - off, Data: data}
		}
		n := min(length, h.last.End()-off)
		if !add(n, h.last.Data) {
			return false, nil
		}
		off, length = off+n, length-n
	}
	return true, nil
}
