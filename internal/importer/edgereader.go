package importer

import (
	"io"

	"github.com/quickims/quickims/internal/filesystem/probe"
)

const (
	// frontBytes covers what tells the formats and partition tables apart;
	// tailBytes the index of any ZVHD2 file with up to 64 GiB of data.
	frontBytes = 64 << 10
	tailBytes  = 1 << 20
	// middleBytes is up to where signatures of volumes lie that begin further behind.
	middleBytes = probe.Reach
)

// edgeReader reads the front, what follows it, and the end of a file once each, when
// they are asked for, and answers from them: each read of the source may be a request
// over a network. What lies between is read as it is asked for. It is not safe for concurrent use.
type edgeReader struct {
	r                   io.ReaderAt
	size                int64
	front, middle, tail []byte
}

func newEdgeReader(r io.ReaderAt, size int64) *edgeReader { return &edgeReader{r: r, size: size} }

// ReadAt implements io.ReaderAt.
func (e *edgeReader) ReadAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if off < 0 || end > e.size {
		return e.r.ReadAt(p, off)
	}
	if tail := max(0, e.size-tailBytes); off >= tail {
		return from(&e.tail, e.r, tail, e.size-tail, p, off)
	}
	if front := min(e.size, frontBytes); end <= front {
		return from(&e.front, e.r, 0, front, p, off)
	}
	if end := min(middleBytes, e.size-tailBytes); off >= frontBytes && off+int64(len(p)) <= end {
		return from(&e.middle, e.r, frontBytes, end-frontBytes, p, off)
	}
	return e.r.ReadAt(p, off)
}

// from fills the window of n bytes at start once and copies from it.
func from(window *[]byte, r io.ReaderAt, start, n int64, p []byte, off int64) (int, error) {
	if *window == nil {
		buf := make([]byte, n)
		if got, err := r.ReadAt(buf, start); int64(got) < n {
			return 0, err
		}
		*window = buf
	}
	return copy(p, (*window)[off-start:]), nil
}
