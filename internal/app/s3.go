package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
		Listener: s.s3, Gate: s.gates.s3, BucketsDir: s.cfg.bucketsDir(), MetaDir: meta,
		TLS: s.certificate.config("http/1.1"), Region: s.seed.Region, Domains: s.cfg.S3Domains,
		Accounts: accounts{s.identity}, Buckets: s.buckets, Allowance: s.allowance, Logger: s.log, Ready: ready,
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
