//go:build linux || freebsd

package sparse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/quickims/quickims/internal/diskformat"
)

// lseek's ways of finding data and holes; the same on Linux and FreeBSD.
const (
	seekData = 3
	seekHole = 4
)

// data looks for the allocated ranges of a file. A file system that can't tell
// answers EINVAL or ENOTSUP; then the rest of the file counts as data.
func data(r io.ReaderAt, size int64, yield func(diskformat.Extent, error) bool) {
	f, ok := r.(*os.File)
	if !ok {
		yield(diskformat.Extent{Length: size, Data: true}, nil)
		return
	}
	for at := int64(0); at < size; {
		from, err := f.Seek(at, seekData)
		switch {
		case errors.Is(err, syscall.ENXIO):
			tellShort(f, size, yield) // nothing but a hole from here
			return
		case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP), err == nil && from < at:
			yield(diskformat.Extent{Offset: at, Length: size - at, Data: true}, nil)
			return
		case err != nil:
			yield(diskformat.Extent{}, fmt.Errorf("finding data after byte %d: %w", at, err))
			return
		case from >= size:
			return
		}
		to, err := f.Seek(from, seekHole)
		if errors.Is(err, syscall.ENXIO) {
			tellShort(f, size, yield)
			return
		}
		if err != nil {
			yield(diskformat.Extent{}, fmt.Errorf("finding the hole after byte %d: %w", from, err))
			return
		}
		if to <= from {
			to = size // never stand still
		}
		to = min(to, size)
		if !yield(diskformat.Extent{Offset: from, Length: to - from, Data: true}, nil) {
			return
		}
		at = to
	}
}

// tellShort yields an error if f ends before size: what lies beyond its end is
// missing, no hole.
func tellShort(f *os.File, size int64, yield func(diskformat.Extent, error) bool) {
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = fmt.Errorf("the file has %d bytes, %d were expected: %w", end, size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		yield(diskformat.Extent{}, fmt.Errorf("finding the file's data: %w", err))
	}
}
