package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"
)

// exportMetadata is the key of an exported object's metadata that holds the token.
const exportMetadata = "Quickims-Export"

// Export implements Store: a server-side copy. That the key is free is asked before the
// copy: a store has no copy that is conditional on it.
func (s *S3) Export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error {
	return fail("export", dst, s.export(ctx, src, cond, dst, opts))
}

func (s *S3) export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error {
	if err := checkExport(src, dst); err != nil {
		return err
	}
	from, err := s.stat(ctx, src, cond)
	if err != nil {
		return err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	switch there, err := s.exported(ctx, bucket, key); {
	case err == nil && marked(there, opts.Made) && there.Size == from.Size:
		opts.report(from.Size, from.Size)
		return nil
	case err == nil:
		return ErrExists
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if err := s.beginExport(ctx, bucket, key, opts); err != nil {
		return err
	}
	metadata := map[string]string{exportMetadata: opts.Token}
	if from.Size <= s.cfg.SingleCopyLimit {
		err = s.copyWhole(ctx, src, from, dst, metadata)
	} else {
		err = s.copyParts(ctx, src, from, dst, metadata, opts.report, opts.Began)
	}
	if err != nil {
		return classifyS3(ctx, err)
	}
	made, err := s.stat(ctx, dst, Condition{})
	if err != nil {
		return err
	}
	if made.Size != from.Size {
		return fmt.Errorf("%w: the copy has %d bytes, the source %d", ErrChanged, made.Size, from.Size)
	}
	opts.report(from.Size, from.Size)
	return nil
}

// beginExport gives up what an earlier attempt left, and tells the mark.
func (s *S3) beginExport(ctx context.Context, bucket, key string, opts ExportOptions) error {
	if opts.Abandoned != "" {
		if err := s.giveUp(ctx, bucket, key, opts.Abandoned); err != nil {
			return classifyS3(ctx, err)
		}
	}
	return opts.making(ctx, opts.Token)
}

// ExportStream implements Store, as Put does, under the name from the beginning and
// visible at its end.
func (s *S3) ExportStream(ctx context.Context, r io.Reader, dst Location, opts ExportOptions) error {
	return fail("export", dst, s.exportStream(ctx, r, dst, opts))
}

func (s *S3) exportStream(ctx context.Context, r io.Reader, dst Location, opts ExportOptions) error {
	if err := checkExported(dst); err != nil {
		return err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	switch there, err := s.exported(ctx, bucket, key); {
	case err == nil && marked(there, opts.Made):
		return nil
	case err == nil:
		return ErrExists
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if err := s.beginExport(ctx, bucket, key, opts); err != nil {
		return err
	}
	body := contextReader{ctx, r}
	first, last, err := readPart(body, putPartSize(1), UnknownSize)
	if err != nil {
		return err
	}
	as := minio.PutObjectOptions{ContentType: objectType, UserMetadata: map[string]string{exportMetadata: opts.Token}}
	if last {
		as.DisableMultipart = true
		return s.putWhole(ctx, bucket, key, first, as)
	}
	return s.putUpload(ctx, bucket, key, body, first, as, opts.Began)
}

// exported says what is at the place of an exported object, with its metadata.
func (s *S3) exported(ctx context.Context, bucket, key string) (minio.ObjectInfo, error) {
	there, err := s.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	return there, classifyS3(ctx, err)
}

// marked reports whether an export made the object whose mark this is: its token.
func marked(there minio.ObjectInfo, mark string) bool {
	return mark != "" && there.UserMetadata[exportMetadata] == mark
}

// Unexport implements Store. The deletion names the ETag, and the version where there is
// one: a store that knows neither may remove what somebody writes in that moment.
func (s *S3) Unexport(ctx context.Context, dst Location, opts ExportOptions) error {
	return fail("undo export", dst, s.unexport(ctx, dst, opts))
}

func (s *S3) unexport(ctx context.Context, dst Location, opts ExportOptions) error {
	if err := checkExported(dst); err != nil {
		return err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	if opts.Abandoned != "" {
		if err := classifyS3(ctx, s.giveUp(ctx, bucket, key, opts.Abandoned)); err != nil && !gone(err) {
			return err
		}
	}
	there, err := s.exported(ctx, bucket, key)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return err
	case !marked(there, opts.Made):
		return nil
	}
	err = s.client.RemoveObject(withMatch(ctx, there.ETag), bucket, key, minio.RemoveObjectOptions{VersionID: there.VersionID})
	if err = classifyS3(ctx, err); gone(err) || errors.Is(err, ErrChanged) {
		return nil
	}
	return err
}

// gone reports whether nothing is there, not even a bucket perhaps.
func gone(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoBucket) }
