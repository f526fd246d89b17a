package s3face

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/quickims/quickims/internal/buckets"
)

// hold keeps the caller's bucket from being removed until release is called. The back
// end makes folders that it needs, that of a bucket too.
func (b *gated) hold(ctx context.Context, bucket *string) (release func(), err error) {
	account, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	octx, cancel := ownerContext()
	defer cancel()
	release, err = b.keeper.Hold(octx, strings.Clone(*bucket), account.Access)
	if errors.Is(err, buckets.ErrNotFound) {
		err = noBucket(*bucket)
	}
	return release, err
}

func set(s *string) bool { return s != nil && *s != "" }

// PutObject implements backend.Backend.
func (b *gated) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return s3response.PutObjectOutput{}, err
	}
	if set(in.Tagging) || in.ObjectLockMode != "" || in.ObjectLockLegalHoldStatus != "" {
		return s3response.PutObjectOutput{}, errNotHere
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	defer release()
	return b.files.PutObject(ctx, in)
}

// HeadObject implements backend.Backend.
func (b *gated) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toRead); err != nil {
		return nil, err
	}
	return b.files.HeadObject(ctx, in)
}

// GetObject implements backend.Backend.
func (b *gated) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toRead); err != nil {
		return nil, err
	}
	return b.files.GetObject(ctx, in)
}

// GetObjectAttributes implements backend.Backend.
func (b *gated) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (s3response.GetObjectAttributesResponse, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toRead); err != nil {
		return s3response.GetObjectAttributesResponse{}, err
	}
	return b.files.GetObjectAttributes(ctx, in)
}

// allowSource checks the source of a copy, which may lie in another bucket of
// the same project.
func (b *gated) allowSource(ctx context.Context, copySource *string) (bucket, key string, err error) {
	if copySource == nil {
		return "", "", s3err.GetInvalidArgumentErr(s3err.InvalidArgCopySourceBucket, "")
	}
	bucket, key, _, err = backend.ParseCopySource(*copySource)
	if err != nil {
		return "", "", err
	}
	return bucket, key, b.allowKey(ctx, &bucket, &key, toRead)
}

// CopyObject implements backend.Backend. A copy onto itself, which only
// replaces metadata, changes the inode: refused for one that has other names.
func (b *gated) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	srcBucket, srcKey, err := b.allowSource(ctx, in.CopySource)
	if err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	if set(in.Tagging) || in.TaggingDirective == types.TaggingDirectiveReplace || in.ObjectLockMode != "" || in.ObjectLockLegalHoldStatus != "" {
		return s3response.CopyObjectOutput{}, errNotHere
	}
	if srcBucket == *in.Bucket && srcKey == *in.Key {
		fi, err := os.Lstat(filepath.Join(b.root, srcBucket, srcKey))
		if err != nil {
			return s3response.CopyObjectOutput{}, errNoKey
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || fi.Mode().IsRegular() && st.Nlink > 1 {
			return s3response.CopyObjectOutput{}, errNotHere
		}
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	defer release()
	return b.files.CopyObject(ctx, in)
}

// ListObjects implements backend.Backend.
func (b *gated) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	if err := b.allow(ctx, in.Bucket, toRead); err != nil {
		return s3response.ListObjectsResult{}, err
	}
	if b.hidden(*in.Bucket, in.Prefix) {
		none, want := *in, in.MaxKeys
		none.MaxKeys = new(int32) // what a list of at most nothing looks like
		out, err := b.files.ListObjects(ctx, &none)
		out.MaxKeys = want
		return out, err
	}
	return b.files.ListObjects(ctx, in)
}

// ListObjectsV2 implements backend.Backend.
func (b *gated) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	if err := b.allow(ctx, in.Bucket, toRead); err != nil {
		return s3response.ListObjectsV2Result{}, err
	}
	if b.hidden(*in.Bucket, in.Prefix) {
		none, want := *in, in.MaxKeys
		none.MaxKeys = new(int32) // what a list of at most nothing looks like
		out, err := b.files.ListObjectsV2(ctx, &none)
		out.MaxKeys = want
		return out, err
	}
	return b.files.ListObjectsV2(ctx, in)
}

// DeleteObject implements backend.Backend.
func (b *gated) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return nil, err
	}
	return b.files.DeleteObject(ctx, in)
}

// DeleteObjects deletes one after the other; what fails is in the answer.
func (b *gated) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	if err := b.allow(ctx, in.Bucket, toWrite); err != nil {
		return s3response.DeleteResult{}, err
	}
	if in.Delete != nil {
		for _, o := range in.Delete.Objects {
			if err := b.allowKey(ctx, in.Bucket, o.Key, toWrite); err != nil {
				return s3response.DeleteResult{}, err
			}
		}
	}
	return b.files.DeleteObjects(ctx, in)
}

// CreateMultipartUpload implements backend.Backend.
func (b *gated) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return s3response.InitiateMultipartUploadResult{}, err
	}
	if set(in.Tagging) || in.ObjectLockMode != "" || in.ObjectLockLegalHoldStatus != "" {
		return s3response.InitiateMultipartUploadResult{}, errNotHere
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return s3response.InitiateMultipartUploadResult{}, err
	}
	defer release()
	return b.files.CreateMultipartUpload(ctx, in)
}

// UploadPart implements backend.Backend.
func (b *gated) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return nil, err
	}
	if err := allowUpload(in.UploadId); err != nil {
		return nil, err
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return nil, err
	}
	defer release()
	return b.files.UploadPart(ctx, in)
}

// UploadPartCopy implements backend.Backend.
func (b *gated) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return s3response.CopyPartResult{}, err
	}
	if err := allowUpload(in.UploadId); err != nil {
		return s3response.CopyPartResult{}, err
	}
	if _, _, err := b.allowSource(ctx, in.CopySource); err != nil {
		return s3response.CopyPartResult{}, err
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return s3response.CopyPartResult{}, err
	}
	defer release()
	return b.files.UploadPartCopy(ctx, in)
}

// ListParts implements backend.Backend.
func (b *gated) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toRead); err != nil {
		return s3response.ListPartsResult{}, err
	}
	if err := allowUpload(in.UploadId); err != nil {
		return s3response.ListPartsResult{}, err
	}
	return b.files.ListParts(ctx, in)
}

// ListMultipartUploads implements backend.Backend.
func (b *gated) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	if err := b.allow(ctx, in.Bucket, toRead); err != nil {
		return s3response.ListMultipartUploadsResult{}, err
	}
	return b.files.ListMultipartUploads(ctx, in)
}

// CompleteMultipartUpload implements backend.Backend.
func (b *gated) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	if err := allowUpload(in.UploadId); err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	if !b.uploadKnown(*in.Bucket, *in.Key, *in.UploadId) {
		return s3response.CompleteMultipartUploadResult{}, "", s3err.GetNoSuchUploadErr(*in.UploadId)
	}
	release, err := b.hold(ctx, in.Bucket)
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	defer release()
	return b.files.CompleteMultipartUpload(ctx, in)
}

// AbortMultipartUpload implements backend.Backend.
func (b *gated) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	if err := b.allowKey(ctx, in.Bucket, in.Key, toWrite); err != nil {
		return err
	}
	if err := allowUpload(in.UploadId); err != nil {
		return err
	}
	return b.files.AbortMultipartUpload(ctx, in)
}
