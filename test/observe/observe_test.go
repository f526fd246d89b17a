// Package observe checks what operators watch: the figures of a service that has
// worked, and the alert rules and the dashboard that are made of them.
package observe

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	rules     = "../../deploy/prometheus/quickims.rules.yml"
	dashboard = "../../deploy/grafana/quickims.json"
)

// worked is the figures of a service that has made an image, failed at one and
// answered requests.
func worked(t *testing.T) (*harness.Server, string) {
	t.Helper()
	s := harness.Start(t, harness.Options{NBD: true, S3: true, Config: "require_bitmap: false\n"})
	s.Bucket(t, "disks")
	s.PutFile(t, "disks", "a.raw", harness.Disk(7, 2))
	s.PutFile(t, "disks", "bad.raw", []byte(strings.Repeat("no disk", 1000)))
	s.Import(t, harness.Request("a", "disks:a.raw"))
	if job := s.Wait(t, s.Accept(t, harness.Request("bad", "disks:bad.raw"))); job.Status != "FAIL" {
		t.Fatalf("the job of a file that is no disk: %+v", job)
	}
	return s, s.Metrics(t)
}

// names are the metrics that a text speaks of.
var names = regexp.MustCompile(`\b(?:quickims|go_sql|process)_[a-z_]+`)

// exists tells whether the service has a metric. A histogram's parts count.
func exists(figures, name string) bool {
	return strings.Contains(figures, "\n"+name+"{") || strings.Contains(figures, "\n"+name+" ")
}

// Each metric that an alert or the dashboard speaks of exists, and Prometheus's own
// tool finds no fault in the rules and in the figures.
func TestRulesAndDashboard(t *testing.T) {
	t.Parallel()
	_, figures := worked(t)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatalf("%s: %v", dashboard, err)
	}
	var exprs []string
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
		if p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("a panel without a title or an expression: %+v", p)
		}
	}
	alerts, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(alerts)) {
		if expr, ok := strings.CutPrefix(strings.TrimSpace(line), "expr: "); ok {
			exprs = append(exprs, expr)
		}
	}
	if len(exprs) < 20 {
		t.Fatalf("%d expressions", len(exprs))
	}
	for _, expr := range exprs {
		for _, name := range names.FindAllString(expr, -1) {
			if !exists(figures, name) {
				t.Errorf("%s: the service has no metric %s", expr, name)
			}
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus); the rules' names are checked without it")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rules).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(figures)
	if out, err := check.CombinedOutput(); err != nil || strings.Contains(string(out), "quickims_") {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	// The dashboard's expressions are rules of recording for the tool.
	var recorded strings.Builder
	recorded.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, expr := range exprs {
		quoted, _ := json.Marshal(expr)
		recorded.WriteString("  - record: expr" + strings.Repeat("a", i+1) + "\n    expr: " + string(quoted) + "\n")
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(recorded.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules of the dashboard: %v\n%s", err, out)
	}
}

// The figures of jobs say how they ended, and lists of jobs say the same of each.
func TestJobs(t *testing.T) {
	t.Parallel()
	s, figures := worked(t)
	for _, want := range []string{
		`quickims_jobs_ended_total{code="OK",type="imsImportImageJob"} 1`,
		`quickims_jobs_ended_total{code="IMG.0057",type="imsImportImageJob"} 1`,
		`quickims_job_seconds_count{type="imsImportImageJob"} 2`,
		"quickims_job_wait_seconds_count 2",
		"quickims_job_oldest_seconds 0",
	} {
		if !strings.Contains(figures, want+"\n") {
			t.Errorf("the figures lack %s:\n%s", want, grep(figures, "quickims_job"))
		}
	}
	list := func(query string) (names []string) {
		t.Helper()
		var page struct {
			Jobs []struct {
				ID       string `json:"job_id"`
				Status   string
				Entities struct {
					ImageName string `json:"image_name"`
				}
			}
		}
		s.Get(t, "/v1/"+harness.ProjectID+"/jobs"+query, &page)
		for _, job := range page.Jobs {
			names = append(names, job.Entities.ImageName+" "+job.Status)
		}
		return names
	}
	if got := list(""); !slices.Equal(got, []string{"bad FAIL", "a SUCCESS"}) {
		t.Errorf("all jobs: %q", got)
	}
	if got := list("?status=FAIL"); !slices.Equal(got, []string{"bad FAIL"}) {
		t.Errorf("failed jobs: %q", got)
	}
	if got := list("?limit=1"); !slices.Equal(got, []string{"bad FAIL"}) {
		t.Errorf("one job: %q", got)
	}
	for _, query := range []string{"?status=DONE", "?limit=0", "?limit=1001", "?marker=x"} {
		if a := s.Do(t, http.MethodGet, "/v1/"+harness.ProjectID+"/jobs"+query, nil); a.Status != http.StatusBadRequest {
			t.Errorf("%s: status %d", query, a.Status)
		}
	}
}

func grep(text, word string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// /readyz says that the disk is nearly full while the service still works, and a metric
// tells how much is free.
func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{Config: "disk_reserve: 100TiB\n"})
	a, err := s.Send(http.MethodGet, "/readyz", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != http.StatusOK || !strings.Contains(string(a.Body), "nearly full") {
		t.Errorf("/readyz: %d %s", a.Status, a.Body)
	}
	if figures := s.Metrics(t); !exists(figures, "quickims_disk_free_bytes") || !strings.Contains(figures, "\nquickims_disk_reserve_bytes 1.09951162") {
		t.Errorf("the figures of the disk:\n%s", grep(figures, "quickims_disk"))
	}
	other := harness.Start(t, harness.Options{Config: "disk_reserve: 1\n"})
	if a, err := other.Send(http.MethodGet, "/readyz", "", nil); err != nil || strings.Contains(string(a.Body), "warnings") {
		t.Errorf("with free space: %s, %v", a.Body, err)
	}
}
