package api_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims"
	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

func TestOperationRoutes(t *testing.T) {
	t.Parallel()
	draining := false
	w := newWorld(t, func(c *api.Config) { c.Draining = func() bool { return draining } })
	nobody := caller{world: w}
	if v := nobody.expect(t, http.StatusOK, "GET", "/healthz", ""); v["status"] != "ok" {
		t.Errorf("/healthz: %v", v)
	}
	nobody.expect(t, http.StatusOK, "GET", "/readyz", "")
	draining = true // at once, whatever the last answer was
	nobody.refused(t, http.StatusServiceUnavailable, "IMG.0061", "GET", "/readyz", "")
	a := nobody.send(t, "GET", "/openapi.yaml", "")
	if !bytes.Equal(a.body, quickims.OpenAPI) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("/openapi.yaml: %s, %d bytes", a.header.Get("Content-Type"), len(a.body))
	}
	nobody.refused(t, http.StatusNotFound, "IMG.0105", "GET", "/metrics", "") // they are all projects', and have a listener of their own
}

// TestNotReady: why is in the log, not in the answer to a stranger.
func TestNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) {
		c.Ready = func(context.Context) error { return errors.New("the database at /secret/place is gone") }
	})
	a := caller{world: w}.send(t, "GET", "/readyz", "")
	if details := a.refused(t, http.StatusServiceUnavailable, "IMG.0061"); strings.Contains(details, "secret") {
		t.Errorf("/readyz tells a stranger %q", details)
	}
	if waitForLog(t, w, a.header.Get("X-Request-Id")); !strings.Contains(w.logs.text(), "/secret/place") {
		t.Error("the log does not say why")
	}
}

// TestDatabaseGone: every route that needs it is a 503 that says to try again, and the
// cause stays in the log.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	id := c.active(t, systemDisk(nil))
	w.db.Close()
	values := map[string]string{"project_id": c.project, "image_id": id, "job_id": ims.NewJobID(), "key": "k", "enterprise_project_id": "0"}
	for _, r := range api.Routes() {
		if r.Public || strings.HasPrefix(r.Path, "/v3") {
			continue
		}
		a := c.send(t, r.Method, fill(r.Path, values), "")
		if a.status < 500 {
			t.Errorf("%s %s: %d %s", r.Method, r.Path, a.status, a.body)
		}
		details := a.refused(t, a.status, "IMG.0061")
		if strings.Contains(details, "sql") {
			t.Errorf("%s %s: details %q", r.Method, r.Path, details)
		}
	}
	if log := w.logs.text(); !strings.Contains(log, `"request failed"`) || !strings.Contains(log, "database is closed") {
		t.Error("the log does not say why")
	}
}

// TestDatabaseLocked: another process holds the database for longer than a request
// waits. Reading goes on, a write is a 503 and changes nothing.
func TestDatabaseLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	id := c.active(t, systemDisk(nil))
	other, err := database.Open(t.Context(), w.database, database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = other.InTx(t.Context(), func(*database.Tx) error {
		c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
		for _, r := range [][3]string{
			{"POST", quickImport, systemDisk(nil)},
			{"PATCH", "/v2/cloudimages/" + id, `[{"op":"replace","path":"/name","value":"new"}]`},
			{"DELETE", "/v2/images/" + id, ""},
		} {
			a := c.send(t, r[0], r[1], r[2])
			a.refused(t, http.StatusServiceUnavailable, "IMG.0061")
			if a.header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", r[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, ""); v["name"] != "web server" {
		t.Errorf("the name is %v", v["name"])
	}
	c.owns(t, 1)
	c.accepted(t, systemDisk(nil))
}

// panicking is an importer with a bug. No test uploads to it.
type panicking struct{ api.Importer }

func (panicking) Accept(context.Context, ims.Principal, ims.ImportSpec) (string, error) {
	panic("index out of range at /secret/place")
}
func (panicking) Nudge() {}

func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.Importer = panicking{} })
	c := w.newProject(t)
	a := c.send(t, "POST", quickImport, systemDisk(nil))
	if details := a.refused(t, http.StatusInternalServerError, "IMG.0061"); details != "" {
		t.Errorf("details %q", details)
	}
	lines := waitForLog(t, w, a.header.Get("X-Request-Id"))
	if lines[0]["msg"] != "panic" || lines[0]["stack"] == "" {
		t.Errorf("the log has %v", lines[0])
	}
	c.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")
}

// waiting is an importer whose source never answers.
type waiting struct {
	api.Importer
	entered chan struct{}
}

func (w waiting) Accept(ctx context.Context, _ ims.Principal, _ ims.ImportSpec) (string, error) {
	w.entered <- struct{}{}
	<-ctx.Done()
	return "", ctx.Err()
}
func (waiting) Nudge() {}

// TestTimeout: work that takes too long is given up, and so is waiting for a turn.
func TestTimeout(t *testing.T) {
	t.Parallel()
	importer := waiting{entered: make(chan struct{}, 2)}
	w := newWorld(t, func(c *api.Config) {
		c.Importer, c.Timeout, c.MaxRequests = importer, 300*time.Millisecond, 1
	})
	c := w.newProject(t)
	first := make(chan answer, 1)
	go func() { first <- c.send(t, "POST", quickImport, systemDisk(nil)) }()
	<-importer.entered
	nobody := caller{world: w}
	nobody.expect(t, http.StatusOK, "GET", "/healthz", "") // needs no turn
	second := c.send(t, "POST", quickImport, systemDisk(nil))
	for _, a := range []answer{<-first, second} {
		a.refused(t, http.StatusServiceUnavailable, "IMG.0061")
	}
}

// TestCallerHangsUp: the work ends, and it is no fault of the service.
func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	importer := waiting{entered: make(chan struct{}, 1)}
	w := newWorld(t, func(c *api.Config) { c.Importer = importer })
	c := w.newProject(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", w.url+quickImport, strings.NewReader(systemDisk(nil)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("X-Request-Id", "hung-up")
	go func() {
		<-importer.entered
		cancel()
	}()
	if _, err := w.server.Client().Do(req); err == nil {
		t.Error("there was an answer")
	}
	for _, line := range waitForLog(t, w, "hung-up") {
		if line["level"] != "INFO" || line["status"] != 499.0 {
			t.Errorf("logged as %v", line)
		}
	}
}

func TestOSVersions(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	count := func(query string) (platforms, versions int) {
		t.Helper()
		a := c.send(t, "GET", "/v1/cloudimages/os_version"+query, "")
		var list []struct {
			Platform string `json:"platform"`
			List     []struct {
				Platform, Key, Version, Type string
				Bit                          int `json:"os_bit"`
			} `json:"version_list"`
		}
		decode(t, a, &list)
		seen := map[string]bool{}
		for _, p := range list {
			if seen[p.Platform] || len(p.List) == 0 {
				t.Errorf("%s: platform %s occurs twice, or is empty", query, p.Platform)
			}
			seen[p.Platform] = true
			versions += len(p.List)
		}
		return len(list), versions
	}
	_, all := count("")
	_, x86 := count("?tag=x86")
	_, both := count("?tag=x86&tag=bms")
	_, commas := count("?tag=x86,bms")
	if all == 0 || x86 >= all || both >= x86 || both != commas {
		t.Errorf("all %d, x86 %d, x86 and bms %d, by commas %d", all, x86, both, commas)
	}
	if _, n := count("?tag="); n != all {
		t.Errorf("an empty tag gives %d of %d", n, all)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", "/v1/cloudimages/os_version?tag=risc", "")
	// Everything that is listed is accepted.
	a := c.send(t, "GET", "/v1/cloudimages/os_version?tag=arm", "")
	var list []struct {
		List []struct {
			Key     string `json:"os_version_key"`
			Version string `json:"os_version"`
		} `json:"version_list"`
	}
	decode(t, a, &list)
	for _, p := range list[:1] {
		for _, v := range p.List[:1] {
			if v.Key != v.Version {
				t.Errorf("os_version_key %q, os_version %q", v.Key, v.Version)
			}
			c.accepted(t, systemDisk(map[string]any{"os_version": v.Version, "architecture": "arm"}))
		}
	}
}
