package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/s3face"
)

// serveS3 serves the directory store's buckets over S3 until ctx ends.
// It calls ready when requests are answered.
func (s *Service) serveS3(ctx context.Context, ready func()) error {
	meta := filepath.Join(s.cfg.Data, "s3meta")
	if err := os.MkdirAll(meta, 0o700); err != nil {
		return fmt.Errorf("serve S3: %w", err)
	}
	return s3face.Serve(ctx, s3face.Config{
		Listener: s.s3, Gate: s.gates.s3, BucketsDir: s.bucketsDir(), MetaDir: meta,
		TLSCert: s.cfg.TLSCert, TLSKey: s.cfg.TLSKey, Region: s.seed.Region,
		Accounts: accounts{s.identity}, Owners: owners{s}, Logger: s.log, Ready: ready,
	})
}

// accounts answers the S3 face from identity.
type accounts struct{ identity *identity.Service }

func (a accounts) SecretFor(accessKey string) (secret, projectID string, readOnly bool, err error) {
	secret, projectID, readOnly, err = a.identity.SecretFor(accessKey)
	if errors.Is(err, identity.ErrNotFound) {
		err = s3face.ErrUnknownKey
	}
	return secret, projectID, readOnly, err
}

// owners answers the S3 face from the catalog.
type owners struct{ s *Service }

func (o owners) ClaimBucket(ctx context.Context, bucket, projectID string) error {
	err := o.s.catalog.ClaimBucket(ctx, bucket, projectID)
	if errors.Is(err, catalog.ErrTaken) {
		return s3face.ErrTaken
	}
	return err
}

func (o owners) BucketOwner(ctx context.Context, bucket string) (string, error) {
	owner, err := o.s.catalog.BucketOwner(ctx, bucket)
	if !errors.Is(err, catalog.ErrNotFound) {
		return owner, err
	}
	if _, err := os.Lstat(filepath.Join(o.s.bucketsDir(), bucket)); errors.Is(err, fs.ErrNotExist) {
		return "", s3face.ErrNoOwner
	}
	return o.s.seed.ProjectID, nil // a folder that the operator made by hand
}

func (o owners) ReleaseBucket(ctx context.Context, bucket, projectID string) error {
	return o.s.catalog.ReleaseBucket(ctx, bucket, projectID)
}
