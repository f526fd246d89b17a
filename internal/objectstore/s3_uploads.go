package objectstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// How long giveUp tries, and its pauses, each twice as long as the one before.
const (
	giveUpTime  = 30 * time.Second
	giveUpFirst = 20 * time.Millisecond
	giveUpPause = 2 * time.Second
)

// giveUp aborts an upload until the store no longer knows it, for 30 seconds at most.
// A part that is still being copied, for a request that was cut, can make an abort fail
// or come after it; S3 asks to abort again then ("AbortMultipartUpload").
func (s *S3) giveUp(ctx context.Context, bucket, key, upload string) error {
	tctx, cancel := context.WithTimeout(ctx, giveUpTime)
	defer cancel()
	for pause := giveUpFirst; ; pause = min(2*pause, giveUpPause) {
		err := s.client.AbortMultipartUpload(tctx, bucket, key, upload)
		if isNoUpload(err) {
			return nil
		}
		if err == nil {
			_, err = s.client.ListObjectParts(tctx, bucket, key, upload, 0, 1)
			switch {
			case isNoUpload(err):
				return nil
			case err == nil:
				err = fmt.Errorf("%w: the store still lists the upload", ErrUnavailable)
			case !errors.Is(classifyS3(tctx, err), ErrUnavailable) && tctx.Err() == nil:
				return nil // a store that does not list parts: its word must do
			}
		}
		err = classifyS3(ctx, err)
		if !errors.Is(err, ErrUnavailable) || wait(tctx, pause) != nil {
			return err
		}
	}
}

// isNoUpload reports whether the store says that it does not know an upload.
func isNoUpload(err error) bool {
	return err != nil && minio.ToErrorResponse(err).Code == "NoSuchUpload"
}

// abortUploads gives up the unfinished uploads of a key.
func (s *S3) abortUploads(ctx context.Context, bucket, key string) error {
	keyMarker, idMarker := "", ""
	for {
		page, err := s.client.ListMultipartUploads(ctx, bucket, key, keyMarker, idMarker, "", MaxList)
		if err != nil {
			if err := classifyS3(ctx, err); !errors.Is(err, errNotImplemented) {
				return err
			}
			return nil // no uploads to be listed, none of ours to be found
		}
		for _, u := range page.Uploads {
			if u.Key != key {
				continue
			}
			if err := s.giveUp(ctx, bucket, key, u.UploadID); err != nil {
				return err
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// Uploads implements Store.
func (s *S3) Uploads(ctx context.Context, after Upload, limit int) ([]Upload, error) {
	found, err := s.uploads(ctx, after, limit)
	return found, fail("list uploads", Location{Key: after.Key}, err)
}

func (s *S3) uploads(ctx context.Context, after Upload, limit int) ([]Upload, error) {
	if limit < 1 || limit > MaxList {
		return nil, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, limit, MaxList)
	}
	root := s.cfg.ImagePrefix
	keyMarker, idMarker := "", ""
	if after.Key != "" {
		keyMarker, idMarker = root+after.Key, after.ID
	}
	var found []Upload
	for {
		page, err := s.client.ListMultipartUploads(ctx, s.cfg.ImageBucket, root, keyMarker, idMarker, "", limit)
		if err := classifyS3(ctx, err); err != nil {
			if errors.Is(err, errNotImplemented) {
				return nil, nil
			}
			return nil, err
		}
		for _, u := range page.Uploads {
			key, ok := strings.CutPrefix(u.Key, root)
			if !ok || CheckKey(key) != nil {
				continue // not of the image area
			}
			found = append(found, Upload{Key: key, ID: u.UploadID, Began: u.Initiated})
			if len(found) == limit {
				return found, nil
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return found, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// AbortUpload implements Store.
func (s *S3) AbortUpload(ctx context.Context, loc Location, id string) error {
	err := s.checkTarget(loc)
	if err == nil {
		var bucket, key string
		if bucket, key, err = s.place(loc); err == nil {
			err = s.giveUp(ctx, bucket, key, id)
		}
	}
	return fail("abort upload", loc, err)
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, loc Location) error {
	return fail("delete", loc, s.remove(ctx, loc))
}

func (s *S3) remove(ctx context.Context, loc Location) error {
	if err := s.checkTarget(loc); err != nil {
		return err
	}
	bucket, key, err := s.place(loc)
	if err != nil {
		return err
	}
	err = s.client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
	if err := classifyS3(ctx, err); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return s.abortUploads(ctx, bucket, key)
}
