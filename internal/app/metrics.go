package app

import (
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
