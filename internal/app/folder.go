package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/pinned"
)

// sweepFolderEvery is how often each process looks for what deleted images left in its
// cache folder.
const sweepFolderEvery = 5 * time.Minute

// openCacheFolder opens the cache folder, if one is configured. A folder that another process
// hands over is used when that process has ended.
func (s *Service) openCacheFolder() (pinned.Cache, error) {
	if s.cfg.Cache.Dir == "" {
		return nil, nil
	}
	var err error
	s.folder, err = objectcache.Open(objectcache.Options{
		Dir: s.cfg.Cache.Dir, Size: int64(s.cfg.Cache.DirSize), Queue: int64(s.cfg.Cache.Memory) / 16,
		WaitForOther: s.before != nil, Logger: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up cache.dir: %w", err)
	}
	return s.folder, nil
}

// sweepFolder removes from the cache folder what no image has.
func (s *Service) sweepFolder(ctx context.Context) error {
	for some := range slices.Chunk(s.folder.Generations(), 500) {
		there, err := s.catalog.Generations(ctx, some)
		if err != nil {
			return err
		}
		for _, g := range some {
			if !slices.Contains(there, g) {
				s.folder.Remove(g)
			}
		}
	}
	return nil
}

// registerFolderMetrics adds what the cache folder counts; nothing without one.
func registerFolderMetrics(r *prometheus.Registry, folder *objectcache.Cache) {
	if folder == nil {
		return
	}
	for _, m := range []struct {
		name, help string
		value      func(objectcache.Stats) int64
	}{
		{"hits_total", "Reads that the cache folder answered.", func(s objectcache.Stats) int64 { return s.Hits }},
		{"misses_total", "Reads that the cache folder did not answer.", func(s objectcache.Stats) int64 { return s.Misses }},
		{"read_bytes_total", "Bytes of objects read from the cache folder in place of the store.", func(s objectcache.Stats) int64 { return s.Read }},
		{"written_bytes_total", "Bytes written to the cache folder.", func(s objectcache.Stats) int64 { return s.Written }},
		{"dropped_bytes_total", "Bytes not written because the disk of the cache folder is slower than the store.", func(s objectcache.Stats) int64 { return s.Dropped }},
		{"evicted_bytes_total", "Bytes evicted from the cache folder to make room for others.", func(s objectcache.Stats) int64 { return s.Evicted }},
		{"bad_pages_total", "Reads of the cache folder that found other bytes than were written.", func(s objectcache.Stats) int64 { return s.Bad }},
		{"errors_total", "Calls of the cache folder's disk that failed or took too long.", func(s objectcache.Stats) int64 { return s.Errors }},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_cache_disk_" + m.name, Help: m.help},
			func() float64 { return float64(m.value(folder.Stats())) }))
	}
	gauge := func(name, help string, value func(objectcache.Stats) int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_cache_disk_" + name, Help: help},
			func() float64 { return float64(value(folder.Stats())) }))
	}
	gauge("bytes", "Bytes that the cache folder takes on its disk.", func(s objectcache.Stats) int64 { return s.Used })
	gauge("objects", "Objects of which the cache folder has something.", func(s objectcache.Stats) int64 { return s.Objects })
	gauge("off", "1 while the cache folder is not used because its disk fails or does not answer.", func(s objectcache.Stats) int64 {
		if s.Off {
			return 1
		}
		return 0
	})
}
