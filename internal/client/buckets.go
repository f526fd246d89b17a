package client

import (
	"context"
	"time"

	"github.com/minio/minio-go/v7"
)

// Bucket is one of the caller's buckets.
type Bucket struct {
	Name      string
	CreatedAt time.Time
}

// Buckets lists the caller's buckets.
func (s *Store) Buckets(ctx context.Context) ([]Bucket, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("GET buckets"))
	defer cancel()
	list, err := s.s3.ListBuckets(ctx)
	if err != nil {
		return nil, s.fault(ctx, "GET buckets", err)
	}
	buckets := []Bucket{}
	for _, b := range list {
		buckets = append(buckets, Bucket{b.Name, b.CreationDate})
	}
	return buckets, nil
}

// RemoveBucket deletes an empty bucket.
func (s *Store) RemoveBucket(ctx context.Context, bucket string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("DELETE "+bucket))
	defer cancel()
	if err := s.s3.RemoveBucket(ctx, bucket); err != nil {
		return s.fault(ctx, "DELETE "+bucket, err)
	}
	return nil
}

// Entry is an object of a listing.
type Entry struct {
	Object
	Modified time.Time
}

// Objects calls each for the objects of a bucket whose keys begin with prefix, in order,
// until it returns an error, which Objects returns.
func (s *Store) Objects(ctx context.Context, bucket, prefix string, each func(Entry) error) error {
	what := "GET " + bucket
	for after := ""; ; {
		page, err := s.listPage(ctx, bucket, prefix, after)
		if err != nil {
			return s.missing(ctx, bucket, "", err)
		}
		for _, o := range page.Contents {
			if err := each(Entry{Object{bucket, o.Key, o.Size, unquoted(o.ETag)}, o.LastModified}); err != nil {
				return err
			}
		}
		if !page.IsTruncated || page.NextContinuationToken == "" || page.NextContinuationToken == after {
			return nil
		}
		after = page.NextContinuationToken
		if err := context.Cause(ctx); err != nil {
			return s.fault(ctx, what, err)
		}
	}
}

func (s *Store) listPage(ctx context.Context, bucket, prefix, after string) (minio.ListBucketV2Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("GET "+bucket))
	defer cancel()
	page, err := s.s3.ListObjectsV2(bucket, prefix, "", after, "", listPage)
	if err != nil {
		return page, s.fault(ctx, "GET "+bucket, err)
	}
	return page, nil
}

// Pending is an upload in parts that was begun and neither completed nor aborted.
type Pending struct {
	Bucket, Key, ID string
	Began           time.Time
}

// Pending lists the unfinished uploads of a bucket, by key.
func (s *Store) Pending(ctx context.Context, bucket string) ([]Pending, error) {
	what := "GET " + bucket + " uploads"
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent(what))
	defer cancel()
	found := []Pending{}
	keyMarker, idMarker := "", ""
	for {
		page, err := s.s3.ListMultipartUploads(ctx, bucket, "", keyMarker, idMarker, "", listPage)
		if err != nil {
			return nil, s.missing(ctx, bucket, "", s.fault(ctx, what, err))
		}
		for _, u := range page.Uploads {
			found = append(found, Pending{bucket, u.Key, u.UploadID, u.Initiated})
		}
		if !page.IsTruncated || len(found) >= maxUploads || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return found, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
