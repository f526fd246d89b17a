package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyStep is how much is copied between two looks at the context, in bytes.
const copyStep = 16 << 20

// ErrShort is what a copy fails with whose source ends early: somebody
// truncated it meanwhile.
var ErrShort = errors.New("the source became shorter while it was copied")

// CopyRange appends n bytes of src, from off, to what was written: by a clone
// of the blocks where the file system can, else in the kernel. Holes stay holes.
func (t *Temp) CopyRange(ctx context.Context, src *os.File, off, n int64) error {
	if err := t.b.store.copyRange(ctx, t.f, t.base+t.off, src, off, n); err != nil {
		return err
	}
	t.off += n
	t.flushed = t.off
	return nil
}

// copyRange copies n bytes of src at from to dst at to. The range of dst must
// hold nothing yet. Before bytes are written, the store's room is asked for.
func (s *Store) copyRange(ctx context.Context, dst *os.File, to int64, src *os.File, from, n int64) error {
	if n > 0 && from%page == 0 && to%page == 0 {
		whole := n
		if fi, err := src.Stat(); err == nil && from+n < fi.Size() {
			whole = n / page * page // a clone of less than the rest needs whole blocks
		}
		err := unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
			Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(whole), Dest_offset: uint64(to),
		})
		if err == nil {
			from, to, n = from+whole, to+whole, n-whole
		}
	}
	end := from + n
	for at := from; at < end; {
		data, hole, err := nextData(src, at, end)
		if err != nil {
			return err
		}
		for data < hole {
			if err := ctx.Err(); err != nil {
				return err
			}
			step := min(hole-data, copyStep)
			if err := s.room(step); err != nil {
				return err
			}
			m, err := copyStepOf(dst, to+data-from, src, data, step)
			if err != nil {
				return err
			}
			data += m
		}
		at = hole
	}
	return ctx.Err()
}

// nextData returns the first range at or after off, below end, that may hold
// data. It is empty, at end, when only a hole follows.
func nextData(f *os.File, off, end int64) (data, hole int64, err error) {
	data, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return 0, 0, err
		}
		if st.Size < end {
			return 0, 0, ErrShort
		}
		return end, end, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return off, end, nil // no notion of holes: all of it is data
	case err != nil:
		return 0, 0, fmt.Errorf("find data: %w", err)
	}
	hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find a hole: %w", errors.Join(err, ErrShort))
	}
	return min(data, end), min(hole, end), nil
}

func copyStepOf(dst *os.File, to int64, src *os.File, from, n int64) (int64, error) {
	in, out := from, to
	done, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(n), 0)
	switch {
	case err == nil && done == 0:
		return 0, ErrShort
	case err == nil:
		return int64(done), nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return 0, nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
	default:
		return 0, os.NewSyscallError("copy_file_range", err)
	}
	copied, err := io.Copy(io.NewOffsetWriter(dst, to), io.NewSectionReader(src, from, n))
	if err == nil && copied < n {
		err = ErrShort
	}
	return copied, err
}
