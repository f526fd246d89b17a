package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/installation"
	"github.com/quickims/quickims/internal/objectstore"
)

// listenMetrics binds the listener of /metrics. It speaks TLS where other machines
// reach it and there is a certificate: what is on this machine needs none, and would
// not know it by this name.
func (s *Service) listenMetrics() (err error) {
	if s.cfg.MetricsListen == "" {
		return nil
	}
	if s.metrics, err = s.bind("metrics_listen", s.cfg.MetricsListen); err != nil {
		return err
	}
	if config := s.certificate.config("http/1.1"); config != nil && s.metricsExposed() {
		s.metrics = tls.NewListener(s.metrics, config)
	}
	return nil
}

func (s *Service) metricsExposed() bool {
	return !s.metrics.Addr().(*net.TCPAddr).IP.IsLoopback()
}

// metricsURL is the root of the listener of /metrics; "" without one.
func (s *Service) metricsURL() string {
	if s.metrics == nil {
		return ""
	}
	scheme := "http"
	if s.certificate != nil && s.metricsExposed() {
		scheme = "https"
	}
	return scheme + "://" + s.metrics.Addr().String()
}

// Limits of the listener of the metrics, which has few clients and no secrets.
const (
	metricsTimeout  = 30 * time.Second
	metricsRequests = 4 // at once
)

// serveMetrics serves /metrics, in the form of Prometheus, until ctx ends. A listener of
// its own keeps it from the API's clients: it counts what all projects do.
func (s *Service) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelError), MaxRequestsInFlight: metricsRequests,
	}))
	mux.Handle("GET /{$}", http.RedirectHandler("/metrics", http.StatusFound))
	server := &http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), MaxHeaderBytes: 16 << 10,
		ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: 2 * metricsTimeout,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.metrics) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the metrics: %w", err)
	case <-ctx.Done():
	}
	return server.Close() // a reading that is cut is read again
}

// registerMetrics adds what the process and the store count.
func registerMetrics(r *prometheus.Registry, store *objectstore.Counter) {
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	counter("quickims_source_reads_total", "Ranged reads of callers' objects.", func() int64 { return store.SourceReads().Opens })
	counter("quickims_source_read_bytes_total", "Bytes read of callers' objects.", func() int64 { return store.SourceReads().Bytes })
	counter("quickims_image_reads_total", "Ranged reads of images' data.", func() int64 { return store.ImageReads().Opens })
	counter("quickims_image_read_bytes_total", "Bytes read of images' data.", func() int64 { return store.ImageReads().Bytes })
}

// registerCacheMetrics adds what reads of images count.
func registerCacheMetrics(r *prometheus.Registry, cache *blockdev.Cache) {
	for _, m := range []struct {
		name, help string
		value      func(blockdev.Stats) int64
	}{
		{"hits_total", "Units of disks that a read found in memory.", func(s blockdev.Stats) int64 { return s.Hits }},
		{"misses_total", "Units of disks that a read had to wait for.", func(s blockdev.Stats) int64 { return s.Misses }},
		{"fetches_total", "Ranges asked of the store.", func(s blockdev.Stats) int64 { return s.Fetches }},
		{"fetched_bytes_total", "Bytes read from the store.", func(s blockdev.Stats) int64 { return s.Fetched }},
		{"delivered_bytes_total", "Bytes of disks given to readers, holes included.", func(s blockdev.Stats) int64 { return s.Delivered }},
		{"ready_bytes_total", "Of those, bytes of RAW files that this machine had in memory, read past the cache.", func(s blockdev.Stats) int64 { return s.Ready }},
		{"ahead_bytes_total", "Bytes of disks fetched ahead of a reader.", func(s blockdev.Stats) int64 { return s.Ahead }},
		{"ahead_used_bytes_total", "Of those, bytes that were read.", func(s blockdev.Stats) int64 { return s.AheadUsed }},
		{"ahead_wasted_bytes_total", "Bytes fetched by read-ahead and evicted before any read.", func(s blockdev.Stats) int64 { return s.AheadWaste }},
		{"evictions_total", "Units evicted from memory to make room for others.", func(s blockdev.Stats) int64 { return s.Evictions }},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_cache_" + m.name, Help: m.help},
			func() float64 { return float64(m.value(cache.Stats())) }))
	}
	gauge := func(name, help string, value func(blockdev.Stats) int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_cache_" + name, Help: help},
			func() float64 { return float64(value(cache.Stats())) }))
	}
	gauge("memory_bytes", "Memory in use for images that are read.", func(s blockdev.Stats) int64 { return s.Memory })
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_store_waiting_reads",
		Help: "Reads of the object store that wait until it answers again, or for their turn to ask it."},
		func() float64 { return float64(cache.Stats().Waiting) }))
}

// countTime bounds the look at the database for a gauge.
const countTime = time.Second

// registerExportMetrics adds what is served over NBD.
func registerExportMetrics(r *prometheus.Registry, e *exports) {
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_nbd_connections", Help: "NBD connections that have opened a disk."},
			func() float64 { return float64(e.inUse()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_nbd_opens_total", Help: "Disks opened over NBD."},
			func() float64 { return float64(e.opened.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_nbd_read_bytes_total", Help: "Bytes of disks read for clients of NBD, also those prepared ahead of who reads in order; holes that are not sent do not count."},
			func() float64 { return float64(e.bytes.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_attachments", Help: "Attachments of all projects; NaN while the database does not say."},
			func() float64 {
				ctx, cancel := context.WithTimeout(context.Background(), countTime)
				defer cancel()
				n, err := e.catalog.CountAttachments(ctx)
				if err != nil {
					return math.NaN()
				}
				return float64(n)
			}),
	)
}

// registerAreaMetrics adds whose the image area is, and what the last comparison of it
// with the database found.
func registerAreaMetrics(r *prometheus.Registry, d *damage, o *installation.Owner) {
	gauge := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	gauge("quickims_area_owned", "1 if the image area belonged to this installation when that was last checked, else 0. While it is 0, nothing is imported or removed.", func() int64 {
		if o.Owned() {
			return 1
		}
		return 0
	})
	gauge("quickims_area_unknown_objects", "Objects in the image area that no row of the database explains, at the last hourly check. The service never removes them.", d.objects.Load)
	gauge("quickims_area_unknown_bytes", "Bytes of the objects in the image area that no row of the database explains, at the last hourly check.", d.bytes.Load)
	gauge("quickims_area_unknown_uploads", "Unfinished multipart uploads to the image area that no row of the database explains, at the last hourly check.", d.uploads.Load)
	gauge("quickims_images_damaged", "Active images whose data is missing or is not what was imported, as found by reads and the hourly check.", func() int64 { return int64(d.count()) })
}
