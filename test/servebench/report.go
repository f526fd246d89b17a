package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/quickims/quickims/test/measure"
)

// figure is what a system did in a row: medians over the turns, of the percentiles
// too.
type figure struct {
	Row     string  `json:"row"`
	System  string  `json:"system"`
	Store   string  `json:"store"`
	Seconds float64 `json:"seconds"`
	MiBs    float64 `json:"mib_per_second"` // delivered
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Fetched float64 `json:"fetched_per_delivered"` // bytes
	Gets    float64 `json:"store_requests"`
	CPU     float64 `json:"cpu_seconds"`
	PeakMiB float64 `json:"peak_memory_mib"`
}

// verdict says whether a figure is as wanted.
type verdict struct {
	What string  `json:"what"`
	Want string  `json:"want"`
	Got  float64 `json:"got"`
	OK   bool    `json:"ok"`
}

type report struct {
	Machine  string    `json:"machine"`
	Load     string    `json:"load_average"`
	DiskMiB  int64     `json:"disk_mib"`
	DataMiB  int64     `json:"data_mib"`
	ZVHD2MiB int64     `json:"zvhd2_mib"`
	Runs     int       `json:"runs"`
	Figures  []figure  `json:"figures"`
	Verdicts []verdict `json:"verdicts"`
}

func seconds(s sample) float64 { return s.seconds }

// add notes the medians of a system's samples in a row.
func (r *report) add(row string, s system, samples []sample) {
	percentile := func(p float64) float64 {
		return 1000 * measure.MedianBy(samples, func(s sample) float64 { return measure.Percentile(s.latencies, p) })
	}
	f := figure{Row: row, System: s.name, Store: s.store,
		Seconds: measure.MedianBy(samples, seconds),
		MiBs:    measure.MedianBy(samples, func(s sample) float64 { return float64(s.bytes) / float64(measure.MiB) / s.seconds }),
		Fetched: measure.MedianBy(samples, func(s sample) float64 { return float64(s.fetched) / float64(s.bytes) }),
		Gets:    measure.MedianBy(samples, func(s sample) float64 { return float64(s.gets) }),
		CPU:     measure.MedianBy(samples, func(s sample) float64 { return s.cpu }),
	}
	for _, s := range samples {
		f.PeakMiB = max(f.PeakMiB, s.peak)
	}
	if p := percentile(0.5); !math.IsNaN(p) { // nbdcopy tells no latencies
		f.P50, f.P99 = p, percentile(0.99)
	}
	r.Figures = append(r.Figures, f)
}

func (r *report) atLeast(what string, bound, got float64) {
	r.Verdicts = append(r.Verdicts, verdict{what, fmt.Sprintf("at least %.2f", bound), got, got >= bound})
}

func (r *report) atMost(what string, bound, got float64) {
	r.Verdicts = append(r.Verdicts, verdict{what, fmt.Sprintf("at most %.2f", bound), got, got <= bound})
}

// judge compares quickims with the faster of nbdkit's ways to the same store, and
// what is warm with nbdkit memory. A ratio is the median of the turns' ratios.
func (b *bench) judge(r row, systems []system, samples [][]sample) {
	for i, s := range systems {
		if s.peer {
			continue
		}
		best := -1
		for k, p := range systems {
			if p.peer && !p.extra && p.store == s.store && (best < 0 || measure.MedianBy(samples[k], seconds) < measure.MedianBy(samples[best], seconds)) {
				best = k
			}
		}
		bound := 1.0
		if s.zvhd2 && strings.HasPrefix(r.name, "sequential") {
			bound = 1.5
		}
		what := fmt.Sprintf("%s, %s: %s / %s", r.name, s.store, systems[best].name, s.name)
		b.rep.atLeast(what, bound, ratio(samples[best], samples[i]))
		for k, p := range systems {
			if p.store == inMemory {
				b.rep.atMost(fmt.Sprintf("%s, %s: %s / %s", r.name, s.store, s.name, p.name), 2, ratio(samples[i], samples[k]))
			}
		}
	}
}

// ratio is the median of the turns' ratios of time.
func ratio(a, b []sample) float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i].seconds / b[i].seconds
	}
	return measure.Median(all)
}

func (r report) print(out io.Writer) {
	fmt.Fprintf(out, "%s; load %s; a disk of %d MiB with %d MiB of data, %d MiB as ZVHD2; medians of %d turns\n",
		r.Machine, r.Load, r.DiskMiB, r.DataMiB, r.ZVHD2MiB, r.Runs)
	row := ""
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, f := range r.Figures {
		if f.Row != row {
			row = f.Row
			fmt.Fprintf(w, "\n%s\t\tseconds\tMiB/s\tp50 ms\tp99 ms\tfetched/delivered\tstore requests\tCPU s\tpeak MiB\t\n", row)
		}
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%.1f\t%.3f\t%.3f\t%.2f\t%.0f\t%.2f\t%.0f\t\n",
			f.System, f.Store, f.Seconds, f.MiBs, f.P50, f.P99, f.Fetched, f.Gets, f.CPU, f.PeakMiB)
	}
	w.Flush()
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "compared (ratios of time)\twanted\tgot\t")
	for _, v := range r.Verdicts {
		word := "missed"
		if v.OK {
			word = "kept"
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%s\n", v.What, v.Want, v.Got, word)
	}
	w.Flush()
}
