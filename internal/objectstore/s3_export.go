package objectstore

import (
	"context"
	"errors"
	"fmt"

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
	switch there, err := s.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{}); {
	case err == nil && there.UserMetadata[exportMetadata] == opts.Token && there.Size == from.Size:
		opts.report(from.Size, from.Size)
		return nil // an earlier Export made it
	case err == nil:
		return ErrExists
	default:
		if err := classifyS3(ctx, err); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	if opts.Abandoned != "" {
		if err := s.giveUp(ctx, bucket, key, opts.Abandoned); err != nil {
			return classifyS3(ctx, err)
		}
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
