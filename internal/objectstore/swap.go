package objectstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"
)

// maxSmall bounds what Load reads and Swap writes, in bytes.
const maxSmall = 64 << 10

// Load reads a small object whole. An object of more than 64 KiB is ErrInvalid.
func Load(ctx context.Context, store Store, loc Location) ([]byte, error) {
	data, _, err := load(ctx, store, loc)
	return data, err
}

func load(ctx context.Context, store Store, loc Location) ([]byte, ObjectInfo, error) {
	info, err := store.Stat(ctx, loc)
	if err != nil {
		return nil, info, err
	}
	if info.Size > maxSmall {
		return nil, info, fail("load", loc, fmt.Errorf("%w: %d bytes, at most %d are expected", ErrInvalid, info.Size, maxSmall))
	}
	body, err := store.Open(ctx, loc, info.Condition(), 0, info.Size)
	if err != nil {
		return nil, info, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return data, info, err
}

// checkSwap checks the arguments of Swap.
func checkSwap(loc Location, now []byte) error {
	if err := checkTarget(loc); err != nil {
		return err
	}
	if len(now) == 0 || len(now) > maxSmall {
		return fmt.Errorf("%w: %d bytes to write, want 1 to %d", ErrInvalid, len(now), maxSmall)
	}
	return nil
}

// errSwapped is what Swap says of an object that is not what the caller knows.
var errSwapped = fmt.Errorf("%w: another writer was quicker", ErrChanged)

// Swap implements Store. Writers of all processes that share the folder wait for each
// other at a lock on it.
func (d *Dir) Swap(ctx context.Context, loc Location, was, now []byte) error {
	return fail("swap", loc, d.swap(ctx, loc, was, now))
}

func (d *Dir) swap(ctx context.Context, loc Location, was, now []byte) error {
	if err := checkSwap(loc, now); err != nil {
		return err
	}
	folder, err := openFolderAt(d.images, ".")
	if err != nil {
		return classify(err)
	}
	defer folder.Close() // gives the lock back
	if _, err := retryEINTR(func() (struct{}, error) {
		return struct{}{}, unix.Flock(int(folder.Fd()), unix.LOCK_EX)
	}); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOLCK) {
		return classify(err) // a file system without locks: a link decides who creates, at least
	}
	there, err := Load(ctx, d, loc)
	switch {
	case errors.Is(err, ErrNotFound) && was == nil:
	case errors.Is(err, ErrNotFound):
		return errSwapped
	case err != nil:
		return err
	case bytes.Equal(there, now):
		return nil
	case was == nil || !bytes.Equal(there, was):
		return errSwapped
	}
	_, err = d.put(ctx, loc, bytes.NewReader(now), int64(len(now)))
	return err
}

// Swap implements Store. Where the store has no conditional writes, the object is
// compared just before it is written and read again afterwards.
func (s *S3) Swap(ctx context.Context, loc Location, was, now []byte) error {
	return fail("swap", loc, s.swap(ctx, loc, was, now))
}

func (s *S3) swap(ctx context.Context, loc Location, was, now []byte) error {
	err := checkSwap(loc, now)
	if err == nil {
		err = s.checkTarget(loc)
	}
	if err != nil {
		return err
	}
	there, info, err := load(ctx, s, loc)
	opts := minio.PutObjectOptions{ContentType: objectType, DisableMultipart: true}
	switch {
	case errors.Is(err, ErrNotFound) && was == nil:
		opts.SetMatchETagExcept("*")
	case errors.Is(err, ErrNotFound):
		return errSwapped
	case err != nil:
		return err
	case bytes.Equal(there, now):
		return nil
	case was == nil || !bytes.Equal(there, was):
		return errSwapped
	default:
		opts.SetMatchETag(info.ETag)
	}
	bucket, key, err := s.place(loc)
	if err != nil {
		return err
	}
	put := func(opts minio.PutObjectOptions) error {
		return s.putWhole(ctx, bucket, key, now, opts)
	}
	err = put(opts)
	if errors.Is(err, errNotImplemented) {
		err = put(minio.PutObjectOptions{ContentType: objectType, DisableMultipart: true})
	}
	if errors.Is(err, ErrChanged) {
		return errSwapped
	}
	if err != nil {
		return err
	}
	there, _, err = load(ctx, s, loc) // the store may have ignored the condition
	if err == nil && !bytes.Equal(there, now) {
		return errSwapped
	}
	return err
}
