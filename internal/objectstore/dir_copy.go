package objectstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyStep is how much is copied between two looks at the context.
const copyStep = 16 << 20

// copySparse makes dst, an empty file, hold the size bytes of src with src's
// holes. done is told how far it is.
func copySparse(ctx context.Context, dst, src *os.File, size int64, room func(int64) error, done func(int64)) error {
	if err := dst.Truncate(size); err != nil {
		return classify(err)
	}
	for off := int64(0); off < size; {
		data, hole, err := nextData(src, off, size)
		if err != nil {
			return err
		}
		for data < hole {
			if err := ctx.Err(); err != nil {
				return err
			}
			step := min(hole-data, copyStep)
			if room != nil {
				if err := room(step); err != nil {
					return err
				}
			}
			n, err := copyRange(dst, src, data, step)
			if err != nil {
				return err
			}
			data += n
			done(data)
		}
		off = hole
	}
	return ctx.Err()
}

// nextData returns the first range at or after off, below size, that may hold
// data. It is empty, at size, when only a hole follows.
func nextData(f *os.File, off, size int64) (data, hole int64, err error) {
	data, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return off, size, nil // no notion of holes: all of it is data
	case err != nil:
		return 0, 0, classify(err)
	}
	hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: find the end of the data at %d: %w", ErrChanged, data, err)
	}
	return min(data, size), min(hole, size), nil
}

// copyRange copies up to n bytes at off, in the kernel if it can.
func copyRange(dst, src *os.File, off, n int64) (int64, error) {
	in, out := off, off
	done, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(n), 0)
	switch {
	case err == nil && done == 0:
		return 0, fmt.Errorf("%w: it ends at %d", ErrChanged, off)
	case err == nil:
		return int64(done), nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return 0, nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EBADF):
	default:
		return 0, classify(err)
	}
	copied, err := io.Copy(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, n))
	if err != nil {
		return 0, classify(err)
	}
	if copied < n {
		return 0, fmt.Errorf("%w: it ends at %d", ErrChanged, off+copied)
	}
	return copied, nil
}

// sparseStep is the piece of what is written that becomes a hole if it is all zeros.
const sparseStep = 64 << 10

// writeSparse writes all of r to f, an empty file, with holes for zeros.
func writeSparse(f *os.File, r io.Reader) error {
	buf := make([]byte, 16*sparseStep)
	var off int64
	for {
		n, end, err := fill(r, buf)
		if err != nil {
			return err
		}
		for at := 0; at < n; at += sparseStep {
			piece := buf[at:min(at+sparseStep, n)]
			if allZero(piece) {
				continue
			}
			if _, err := f.WriteAt(piece, off+int64(at)); err != nil {
				return classify(err)
			}
		}
		if off += int64(n); end {
			return classify(f.Truncate(off))
		}
	}
}

func allZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
