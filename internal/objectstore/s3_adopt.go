package objectstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

// objectType is the content type of everything in the image area.
const objectType = "application/octet-stream"

// Adopt implements Store: a server-side copy, in one request where the object
// is small enough, else part by part in parallel. Each request names the
// source's ETag, so that a source which changes in between fails the copy.
func (s *S3) Adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (ObjectInfo, error) {
	info, err := s.adopt(ctx, src, cond, dst, opts)
	return info, fail("adopt", src, err)
}

func (s *S3) adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (ObjectInfo, error) {
	if err := s.checkTarget(dst); err != nil {
		return ObjectInfo{}, err
	}
	if src == dst {
		return ObjectInfo{}, fmt.Errorf("%w: %s cannot be adopted as itself", ErrInvalid, src)
	}
	from, err := s.stat(ctx, src, cond)
	if err != nil {
		return ObjectInfo{}, err
	}
	if from.Size > s3MaxObject {
		return ObjectInfo{}, fmt.Errorf("%w: %d bytes, more than S3 can hold in an object", ErrInvalid, from.Size)
	}
	progress := opts.Progress
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if from.Size <= s.cfg.SingleCopyLimit {
		err = s.copyWhole(ctx, src, from, dst, nil)
	} else {
		// Those of an attempt that was killed.
		if err = s.abandon(ctx, dst); err == nil {
			err = s.copyParts(ctx, src, from, dst, nil, progress, opts.Began)
		}
	}
	if err != nil {
		return ObjectInfo{}, classifyS3(ctx, err)
	}
	made, err := s.stat(ctx, dst, Condition{})
	if err != nil {
		return ObjectInfo{}, err
	}
	if made.Size != from.Size {
		return ObjectInfo{}, fmt.Errorf("%w: the copy has %d bytes, the source %d", ErrChanged, made.Size, from.Size)
	}
	progress(from.Size, from.Size)
	return made, nil
}

func (s *S3) checkTarget(dst Location) error {
	if err := checkTarget(dst); err != nil {
		return err
	}
	if n := len(s.cfg.ImagePrefix) + len(dst.Key); n > MaxKey {
		return fmt.Errorf("%w: key %.80q has %d bytes with the image area's prefix, more than %d", ErrInvalid, dst.Key, n, MaxKey)
	}
	return nil
}

// copySource is what the client library needs to know of a source at one
// generation. The caller has checked both locations.
func (s *S3) copySource(src Location, from ObjectInfo) (minio.CopySrcOptions, error) {
	bucket, key, err := s.place(src)
	return minio.CopySrcOptions{Bucket: bucket, Object: key, VersionID: from.Version, MatchETag: from.ETag}, err
}

func (s *S3) copyWhole(ctx context.Context, src Location, from ObjectInfo, dst Location, metadata map[string]string) error {
	source, err := s.copySource(src, from)
	if err != nil {
		return err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	// The caller's own metadata and tags are not taken over.
	_, err = s.client.Client.CopyObject(ctx, minio.CopyDestOptions{
		Bucket: bucket, Object: key, ReplaceMetadata: true, UserMetadata: metadata, ContentType: objectType,
	}, source)
	return err
}

// partSize returns the size of all parts but the last.
func (s *S3) partSize(size int64) int64 {
	const step = 1 << 20
	least := (size + s3MaxParts - 1) / s3MaxParts
	least = (least + step - 1) / step * step
	return max(s.cfg.CopyPartSize, least)
}

// abandon aborts all multipart uploads to a key of the image area.
func (s *S3) abandon(ctx context.Context, dst Location) error {
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	return s.abortUploads(ctx, bucket, key)
}

func (s *S3) copyParts(ctx context.Context, src Location, from ObjectInfo, dst Location, metadata map[string]string, progress func(done, total int64),
	began func(ctx context.Context, upload string) error,
) error {
	source, err := s.copySource(src, from)
	if err != nil {
		return err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return err
	}
	upload, err := s.client.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{ContentType: objectType, UserMetadata: metadata})
	if err != nil {
		return err
	}
	if began != nil {
		err = began(ctx, upload)
	}
	if err == nil {
		err = s.fillUpload(ctx, source, from.Size, bucket, key, upload, progress)
	}
	if err != nil {
		// The parts cost room until the upload is given up, also when ctx is
		// what ended it. An answer that was lost on completion fails here.
		if aerr := s.giveUp(context.WithoutCancel(ctx), bucket, key, upload); aerr != nil {
			err = errors.Join(err, fmt.Errorf("give up the upload: %w", aerr))
		}
	}
	return err
}

func (s *S3) fillUpload(ctx context.Context, source minio.CopySrcOptions, size int64, bucket, key, upload string, progress func(done, total int64)) error {
	partSize := s.partSize(size)
	parts := make([]minio.CompletePart, (size+partSize-1)/partSize)
	header := make(map[string]string)
	sourceHeader(source, header)

	// A part's failure begins no further ones and lets those under way end, for a
	// store goes on with a copy whose request was cut, and that would bring parts of
	// an upload back which was given up.
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.cfg.CopyParallel)
	var mu sync.Mutex
	var done int64
	for i := range parts {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			off := int64(i) * partSize
			n := min(partSize, size-off)
			part, err := s.client.CopyObjectPart(ctx, source.Bucket, source.Object, bucket, key, upload, i+1, off, n, header)
			if err != nil {
				return fmt.Errorf("copy part %d of %d: %w", i+1, len(parts), err)
			}
			if part.ETag == "" { // a failure that began as a success
				return fmt.Errorf("%w: part %d of %d was not copied", ErrUnavailable, i+1, len(parts))
			}
			parts[i] = part
			mu.Lock()
			defer mu.Unlock()
			done += n
			progress(done, size)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.client.CompleteMultipartUpload(ctx, bucket, key, upload, parts, minio.PutObjectOptions{})
	return err
}

// sourceHeader writes the headers that name a source and its generation.
func sourceHeader(source minio.CopySrcOptions, into map[string]string) {
	h := make(map[string][]string)
	source.Marshal(h)
	for name, values := range h {
		into[name] = values[0]
	}
}
