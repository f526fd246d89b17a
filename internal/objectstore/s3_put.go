package objectstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"
)

// putParts are the parts of an object whose size is not known: how many of which size,
// in bytes. Together they hold more than 1 TiB, and no more than 10,000, S3's limit. A
// part is held in memory while it is sent, so that it can be sent again.
var putParts = []struct {
	count int
	size  int64
}{{1000, 16 << 20}, {2000, 64 << 20}, {s3MaxParts - 3000, 144 << 20}}

// putPartSize is the size of the part with a number, which counts from 1.
func putPartSize(number int) int64 {
	for _, p := range putParts {
		if number <= p.count {
			return p.size
		}
		number -= p.count
	}
	return 0
}

// Put implements Store: in one request if all of r fits in the first part, else part by
// part.
func (s *S3) Put(ctx context.Context, dst Location, r io.Reader, size int64, opts PutOptions) (ObjectInfo, error) {
	info, err := s.put(ctx, dst, r, size, opts)
	return info, fail("put", dst, err)
}

func (s *S3) put(ctx context.Context, dst Location, r io.Reader, size int64, opts PutOptions) (ObjectInfo, error) {
	if err := s.checkTarget(dst); err != nil {
		return ObjectInfo{}, err
	}
	body, err := bodyOf(contextReader{ctx, r}, size)
	if err != nil {
		return ObjectInfo{}, err
	}
	bucket, key, err := s.place(dst)
	if err != nil {
		return ObjectInfo{}, err
	}
	first, last, err := readPart(body, putPartSize(1), size)
	if err != nil {
		return ObjectInfo{}, err
	}
	if last {
		err = s.putWhole(ctx, bucket, key, first, minio.PutObjectOptions{ContentType: objectType, DisableMultipart: true})
	} else {
		err = s.putParts(ctx, bucket, key, body, first, opts.Began)
	}
	if err != nil {
		return ObjectInfo{}, err
	}
	return s.stat(ctx, dst, Condition{})
}

// putWhole sends an object in one request.
func (s *S3) putWhole(ctx context.Context, bucket, key string, content []byte, opts minio.PutObjectOptions) error {
	var err error
	if len(content) > 0 {
		_, err = s.client.Client.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), opts)
	} else {
		// Signed piece by piece, as others are, it would be one last piece, which some
		// servers leave unread: they answer the next request on the connection with 400.
		opts.DisableContentSha256 = true
		sum := sha256.Sum256(nil)
		_, err = s.client.PutObject(ctx, bucket, key, bytes.NewReader(nil), 0, "", hex.EncodeToString(sum[:]), opts)
	}
	return classifyS3(ctx, err)
}

// readPart reads up to most bytes and tells whether they are the last. most is no more
// than is useful for an object of size bytes.
func readPart(r io.Reader, most, size int64) (part []byte, last bool, err error) {
	if size >= 0 {
		most = min(most, size+1) // so that the end is seen
	}
	part = make([]byte, most)
	n, last, err := fill(r, part)
	return part[:n], last, err
}

// putParts sends r, of which the first part is read, as a multipart upload.
func (s *S3) putParts(ctx context.Context, bucket, key string, r io.Reader, first []byte, began func(context.Context, string) error) error {
	if err := s.abortUploads(ctx, bucket, key); err != nil { // of an attempt that was killed
		return classifyS3(ctx, err)
	}
	return s.putUpload(ctx, bucket, key, r, first, minio.PutObjectOptions{ContentType: objectType}, began)
}

// putUpload is putParts of a key that has no upload of ours.
func (s *S3) putUpload(ctx context.Context, bucket, key string, r io.Reader, first []byte, as minio.PutObjectOptions, began func(context.Context, string) error) error {
	upload, err := s.client.NewMultipartUpload(ctx, bucket, key, as)
	if err != nil {
		return classifyS3(ctx, err)
	}
	if began != nil {
		err = began(ctx, upload)
	}
	if err == nil {
		err = s.sendParts(ctx, bucket, key, upload, r, first)
	}
	if err != nil {
		if aerr := s.giveUp(context.WithoutCancel(ctx), bucket, key, upload); aerr != nil {
			err = errors.Join(err, fmt.Errorf("give up the upload: %w", aerr))
		}
	}
	return err
}

func (s *S3) sendParts(ctx context.Context, bucket, key, upload string, r io.Reader, part []byte) error {
	var sent []minio.CompletePart
	for last := false; ; {
		number := len(sent) + 1
		if number > s3MaxParts {
			return fmt.Errorf("%w: more bytes than S3 can hold in an object of %d parts", ErrInvalid, s3MaxParts)
		}
		p, err := s.client.PutObjectPart(ctx, bucket, key, upload, number, bytes.NewReader(part), int64(len(part)), minio.PutObjectPartOptions{})
		if err != nil {
			return classifyS3(ctx, fmt.Errorf("send part %d: %w", number, err))
		}
		sent = append(sent, minio.CompletePart{PartNumber: number, ETag: p.ETag})
		if last {
			break
		}
		if part, last, err = readPart(r, putPartSize(number+1), UnknownSize); err != nil {
			return err
		}
		if last && len(part) == 0 {
			break
		}
	}
	_, err := s.client.CompleteMultipartUpload(ctx, bucket, key, upload, sent, minio.PutObjectOptions{})
	return classifyS3(ctx, err)
}
