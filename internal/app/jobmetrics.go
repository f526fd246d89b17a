package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// jobMetrics tells of jobs: those that go on in the whole installation, as the database
// knows them, and those that this process began and ended.
type jobMetrics struct {
	catalog *catalog.Catalog

	going, oldest *prometheus.Desc
	wait          prometheus.Histogram
	seconds       *prometheus.HistogramVec
	ends          *prometheus.CounterVec
}

// jobBuckets, in seconds, reach from a quick import to a copy of a day.
var jobBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400}

func newJobMetrics(c *catalog.Catalog) *jobMetrics {
	return &jobMetrics{
		catalog: c,
		going:   prometheus.NewDesc("quickims_jobs", "Jobs that have not ended, in the whole installation, by type and step; missing while the database does not answer.", []string{"type", "step"}, nil),
		oldest:  prometheus.NewDesc("quickims_job_oldest_seconds", "Age of the oldest job that has not ended, in the whole installation; 0 if there is none, missing while the database does not answer.", nil, nil),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "quickims_job_wait_seconds", Help: "Time from the acceptance of a job to its first attempt.", Buckets: jobBuckets,
		}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quickims_job_seconds", Help: "Time from the acceptance of a job to its end, by type.", Buckets: jobBuckets,
		}, []string{"type"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quickims_jobs_ended_total", Help: "Jobs that this process ended, by type and error code; the code of a job that succeeded is OK.",
		}, []string{"type", "code"}),
	}
}

func (m *jobMetrics) register(r *prometheus.Registry) { r.MustRegister(m, m.wait, m.seconds, m.ends) }

// began and ended are the importer's observers.
func (m *jobMetrics) began(job ims.Job) { m.wait.Observe(since(job)) }

func (m *jobMetrics) ended(job ims.Job, code ims.Code) {
	if code == "" {
		code = "OK"
	}
	m.seconds.WithLabelValues(string(job.Type)).Observe(since(job))
	m.ends.WithLabelValues(string(job.Type), string(code)).Inc()
}

// since is the age of a job in seconds. Clocks that differ do not make it negative.
func since(job ims.Job) float64 { return max(0, time.Since(job.BeginTime).Seconds()) }

// Describe implements [prometheus.Collector].
func (m *jobMetrics) Describe(out chan<- *prometheus.Desc) { out <- m.going; out <- m.oldest }

// Collect implements [prometheus.Collector].
func (m *jobMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	going, err := m.catalog.JobsGoingOn(ctx)
	if err != nil {
		return
	}
	oldest := 0.0
	type place struct {
		kind ims.JobType
		step ims.Step
	}
	jobs := map[place]int{} // the steps of an import are told with no jobs, too
	for _, step := range []ims.Step{ims.StepAccepted, ims.StepPin, ims.StepInspect, ims.StepAdopt, ims.StepPublish} {
		jobs[place{ims.JobImportSystem, step}] = 0
	}
	for _, g := range going {
		jobs[place{g.Type, g.Step}] = g.Jobs
		oldest = max(oldest, since(ims.Job{BeginTime: g.Oldest}))
	}
	for at, n := range jobs {
		out <- prometheus.MustNewConstMetric(m.going, prometheus.GaugeValue, float64(n), string(at.kind), string(at.step))
	}
	out <- prometheus.MustNewConstMetric(m.oldest, prometheus.GaugeValue, oldest)
}
