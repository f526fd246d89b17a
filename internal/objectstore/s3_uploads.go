package objectstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// Uploads implements Store. It asks for whole keys alone: gateways disagree about how a
// list goes on within a key.
func (s *S3) Uploads(ctx context.Context, after string) ([]Upload, error) {
	found, err := s.uploads(ctx, after)
	return found, fail("list uploads", Location{Key: after}, err)
}

func (s *S3) uploads(ctx context.Context, after string) ([]Upload, error) {
	root, marker := s.cfg.ImagePrefix, ""
	if after != "" {
		marker = root + after
	}
	for {
		page, err := s.client.ListMultipartUploads(ctx, s.cfg.ImageBucket, root, marker, "", "", MaxList)
		if err := classifyS3(ctx, err); err != nil {
			if errors.Is(err, errNotImplemented) {
				return nil, nil
			}
			return nil, err
		}
		if n := len(page.Uploads); page.IsTruncated && n > 0 && page.Uploads[0].Key != page.Uploads[n-1].Key {
			// The last key's uploads may go on in the next page.
			cut := page.Uploads[n-1].Key
			page.Uploads = slices.DeleteFunc(page.Uploads, func(u minio.ObjectMultipartInfo) bool { return u.Key == cut })
		}
		var found []Upload
		last := marker
		for _, u := range page.Uploads {
			last = max(last, u.Key)
			if key, ok := strings.CutPrefix(u.Key, root); ok && CheckKey(key) == nil && key > after {
				found = append(found, Upload{Key: key, ID: u.UploadID, Began: u.Initiated})
			}
		}
		if len(found) > 0 || !page.IsTruncated || last == marker {
			return found, nil
		}
		marker = last
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
