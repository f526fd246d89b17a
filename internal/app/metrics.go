package app

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/quickims/quickims/internal/objectstore"
)

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

// countTime bounds the look at the database for a gauge.
const countTime = time.Second

// registerExportMetrics adds what is served over NBD.
func registerExportMetrics(r *prometheus.Registry, e *exports) {
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_nbd_connections", Help: "NBD connections that have opened a disk."},
			func() float64 { return float64(e.inUse()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_nbd_opens_total", Help: "Disks opened over NBD."},
			func() float64 { return float64(e.opened.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_nbd_read_bytes_total", Help: "Bytes of disks read over NBD; holes that are not sent do not count."},
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
