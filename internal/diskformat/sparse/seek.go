//go:build linux || freebsd

package sparse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// lseek's ways of finding data and holes; the same on Linux and FreeBSD.
const (
	seekData = 3
	seekHole = 4
)

// find tells whether byte at of f is data or in a hole, and where that ends, at size
// at the latest. at is less than size. A file system that can't tell answers EINVAL
// or ENOTSUP; then all that is left is data.
func find(f *os.File, at, size int64) (end int64, data bool, err error) {
	from, err := f.Seek(at, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return size, false, tellShort(f, size) // nothing but a hole from here
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP), err == nil && from < at:
		return size, true, nil
	case err != nil:
		return 0, false, fmt.Errorf("finding data after byte %d: %w", at, err)
	case from > at:
		return min(from, size), false, nil
	}
	to, err := f.Seek(at, seekHole)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return size, true, tellShort(f, size)
	case err != nil:
		return 0, false, fmt.Errorf("finding the hole after byte %d: %w", at, err)
	case to <= at:
		to = size // never stand still
	}
	return min(to, size), true, nil
}

// tellShort is an error if f ends before size: what lies beyond its end is missing,
// no hole.
func tellShort(f *os.File, size int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = fmt.Errorf("the file has %d bytes, %d were expected: %w", end, size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("finding the file's data: %w", err)
	}
	return nil
}
