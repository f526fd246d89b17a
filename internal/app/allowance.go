package app

import (
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"

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

// registerDiskMetrics adds how full the disk of the database is.
func registerDiskMetrics(r *prometheus.Registry, a *allowance.Allowance, reserve int64) {
	if !a.Watched() {
		return
	}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_disk_free_bytes", Help: "Bytes free on the disk of the database; NaN if the system does not say."}, func() float64 {
			free, err := a.Free()
			if err != nil {
				return math.NaN()
			}
			return float64(free)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_disk_reserve_bytes", Help: "Bytes that are kept free there (disk_reserve): below, uploads and imports are refused. /readyz warns below twice as much."},
			func() float64 { return float64(reserve) }),
	)
}

// warnings are what keeps the service from nothing yet but should be known.
func (s *Service) warnings() []string {
	if s.allowance.NearlyFull() {
		return []string{"the disk of the database is nearly full"}
	}
	return nil
}
