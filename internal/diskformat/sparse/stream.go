package sparse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/ordered"
)

// piece is a part of a disk on its way.
type piece struct {
	off int64
	p   []byte
}

// Stream writes the disk src of size bytes to dst in sequence, zeros too, reading
// it on all cores.
func Stream(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts CopyOptions) error {
	if err := stream(ctx, dst, src, size, opts); err != nil {
		return fmt.Errorf("copying a disk: %w", err)
	}
	return nil
}

func stream(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, opts CopyOptions) error {
	data := opts.Data
	if data == nil {
		data = Data(src, size)
	}
	next, stop := iter.Pull2(Blocks(data, size, pieceSize))
	defer stop()
	jobs := make([]*piece, 2*opts.concurrency())
	for i := range jobs {
		jobs[i] = &piece{p: make([]byte, pieceSize)}
	}
	at := int64(0)
	// upTo writes zeros where nothing was read.
	upTo := func(off int64) error {
		for at < off {
			n, err := dst.Write(zeros[:min(int64(len(zeros)), off-at)])
			at += int64(n)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return fmt.Errorf("writing byte %d: %w", at, err)
			}
		}
		return nil
	}
	err := ordered.Run(ctx, jobs, opts.concurrency(), func(j *piece) error {
		i, err, ok := next()
		if !ok {
			return io.EOF
		}
		j.off = i * pieceSize
		return err
	}, func(j *piece) error {
		j.p = j.p[:min(pieceSize, size-j.off)]
		return diskformat.ReadFull(src, j.p, j.off)
	}, func(j *piece) error {
		if err := upTo(j.off); err != nil {
			return err
		}
		n, err := dst.Write(j.p)
		if at += int64(n); err != nil {
			return fmt.Errorf("writing byte %d: %w", at, err)
		}
		if opts.Progress != nil {
			opts.Progress(at, size)
		}
		return nil
	})
	if err == nil {
		err = upTo(size)
	}
	if err == nil && opts.Progress != nil {
		opts.Progress(size, size)
	}
	return err
}

// CopyStream writes the disk that comes as a stream to dst, which is emptied and
// gets holes where there are zeros if it can be truncated (an [*os.File]). size is
// what it must have, or less than 0: it has what the stream has, at most most
// bytes. It returns the disk's size.
func CopyStream(ctx context.Context, dst io.WriterAt, src io.Reader, size, most int64, progress func(done, total int64)) (int64, error) {
	n, err := copyStream(ctx, dst, src, size, most, progress)
	if err != nil {
		return n, fmt.Errorf("copying a disk: %w", err)
	}
	return n, nil
}

func copyStream(ctx context.Context, dst io.WriterAt, src io.Reader, size, most int64, progress func(done, total int64)) (int64, error) {
	t, sparsely := dst.(interface{ Truncate(int64) error })
	if sparsely {
		if err := t.Truncate(0); err != nil {
			return 0, fmt.Errorf("emptying the destination: %w", err)
		}
	}
	buf := make([]byte, pieceSize)
	done := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		n, err := io.ReadFull(src, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return done, fmt.Errorf("reading the disk at byte %d: %w", done+int64(n), err)
		}
		if limit := most; done+int64(n) > limit || size >= 0 && done+int64(n) > size {
			if size >= 0 {
				limit = min(size, most)
			}
			return done, fmt.Errorf("the disk has more than %d bytes", limit)
		}
		if sparsely {
			if err := WriteAt(dst, buf[:n], done); err != nil {
				return done, err
			}
		} else if _, err := dst.WriteAt(buf[:n], done); err != nil {
			return done, fmt.Errorf("writing bytes %d to %d: %w", done, done+int64(n), err)
		}
		done += int64(n)
		if progress != nil {
			progress(done, max(size, 0))
		}
		if err != nil {
			break
		}
	}
	if done < size {
		return done, fmt.Errorf("the disk ended after %d bytes of %d: %w", done, size, io.ErrUnexpectedEOF)
	}
	if sparsely {
		if err := t.Truncate(done); err != nil {
			return done, fmt.Errorf("giving the destination its %d bytes: %w", done, err)
		}
	}
	return done, nil
}
