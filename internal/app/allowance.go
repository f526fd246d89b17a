package app

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/database"
)

// newAllowance bounds what projects store. In an outside store only images count: who
// fills its buckets is not seen here.
func (s *Service) newAllowance() (*allowance.Allowance, error) {
	o := allowance.Options{
		Bytes: int64(s.cfg.Limits.Bytes), Reserve: int64(s.cfg.DiskReserve), Images: s.catalog.ImageBytes,
		Buckets: s.catalog.BucketsOf,
	}
	if s.db.Dialect() == database.SQLite {
		o.Disk = s.cfg.Data
	}
	if s.cfg.S3 == nil {
		o.Folder = s.cfg.bucketsDir()
		var data, buckets unix.Stat_t
		for path, stat := range map[string]*unix.Stat_t{s.cfg.Data: &data, o.Folder: &buckets} {
			if err := unix.Stat(path, stat); err != nil {
				return nil, fmt.Errorf("find the disk of %s: %w", path, err)
			}
		}
		o.Apart = data.Dev != buckets.Dev
	}
	return allowance.New(o), nil
}
