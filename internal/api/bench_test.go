package api_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/ims"
)

// BenchmarkQuickImport is the way of one accepted import over HTTP into the database,
// without the look at the source.
func BenchmarkQuickImport(b *testing.B) {
	w := newWorld(b, func(c *api.Config) { c.Limits = ims.Limits{Images: 1 << 30, Imports: 1 << 30} })
	c := w.newProject(b)
	request := systemDisk(map[string]any{"tags": []string{"env.test", "tier.1"}, "description": "a benchmark"})
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		req, err := http.NewRequestWithContext(b.Context(), "POST", w.url+quickImport, strings.NewReader(request))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", c.token)
		resp, err := w.server.Client().Do(req)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatalf("status %d", resp.StatusCode)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
