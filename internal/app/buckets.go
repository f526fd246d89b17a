package app

import (
	"context"
	"path/filepath"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/catalog"
)

func (c Config) bucketsDir() string { return filepath.Join(c.Data, "buckets") }

// bucketKeeper keeps the directory store's buckets and their owners.
func (c Config) bucketKeeper(rows *catalog.Catalog) *buckets.Keeper {
	return buckets.New(rows, c.bucketsDir())
}

// openBuckets gives the folders without an owner of an older installation to its first
// project, once, and tells the operator of those that belong to nobody.
func (s *Service) openBuckets(ctx context.Context) error {
	s.buckets = s.cfg.bucketKeeper(s.catalog)
	if s.cfg.S3 != nil {
		return nil
	}
	names, err := s.buckets.Folders()
	if err != nil {
		return err
	}
	adopted, err := s.catalog.AdoptBuckets(ctx, names, s.seed.ProjectID)
	if err != nil {
		return err
	}
	if adopted > 0 {
		s.log.Info("gave the buckets' folders without an owner to the first project", "buckets", adopted, "project_id", s.seed.ProjectID)
	}
	all, err := s.buckets.List(ctx)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.ProjectID == "" {
			s.log.Warn("a bucket's folder belongs to no project; give it to one with quickims account bucket", "bucket", b.Name)
		}
	}
	return nil
}
