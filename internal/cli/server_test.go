package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const testJob = "00112233445566778899aabbccddeeff"

// callService runs a command against a service; the command's context ends when
// handle calls stop.
func callService(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, stop func()), args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	env := serviceEnv(t, func(w http.ResponseWriter, r *http.Request, _ func()) { handle(w, r, stop) })
	var out, errs bytes.Buffer
	status = Main(ctx, args, Env{Stdout: &out, Stderr: &errs, Getenv: func(key string) string { return env[key] }})
	return status, out.String(), errs.String()
}

// serviceEnv serves the handler until the test ends and returns the environment of its
// clients.
func serviceEnv(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, stop func())) map[string]string {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, func() {}) }))
	t.Cleanup(service.Close)
	return map[string]string{"QUICKIMS_ENDPOINT": service.URL, "QUICKIMS_TOKEN": "t", "QUICKIMS_PROJECT_ID": "p"}
}

func runningJob(w io.Writer) {
	fmt.Fprintf(w, `{"job_id":%q,"job_type":"imsImportImageJob","status":"RUNNING","begin_time":"2026-03-01T12:00:00.000Z","entities":{"current_task":"adopt","process_percent":40}}`, testJob)
}

func TestAnInterruptedWaitSaysThatTheJobGoesOn(t *testing.T) {
	t.Parallel()
	accept := func(w http.ResponseWriter, r *http.Request, stop func()) {
		if r.Method == http.MethodPost {
			fmt.Fprintf(w, `{"job_id":%q}`, testJob)
			return
		}
		runningJob(w)
		stop()
	}
	for _, args := range [][]string{
		{"job", "--wait", testJob},
		{"import", "b-b:k", "--name", "n", "--type", "DataImage", "--min-disk", "1"},
	} {
		status, stdout, stderr := callService(t, accept, args...)
		want := fmt.Sprintf("quickims: interrupted; job %s goes on, look at it with: quickims job --wait %s\n", testJob, testJob)
		if status != StatusFailed || stdout != "" || !strings.HasSuffix(stderr, want) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", args[0], status, stdout, stderr)
		}
	}
	_, _, stderr := callService(t, accept, "job", "--json", "--wait", testJob)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	var last struct{ Error errorDoc }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error.Code != "interrupted" {
		t.Errorf("%q, %v", stderr, err)
	}
}

func TestAnImportWithoutAnAnswerMayHaveBeenAccepted(t *testing.T) {
	t.Parallel()
	args := []string{"import", "b-b:k", "--name", "n", "--type", "DataImage", "--min-disk", "1"}
	status, _, stderr := callService(t, func(http.ResponseWriter, *http.Request, func()) {
		panic(http.ErrAbortHandler) // the connection breaks
	}, args...)
	if status != StatusFailed || !strings.Contains(stderr, `may have accepted it all the same, look with: quickims image list --name "n"`) {
		t.Errorf("status %d, %q", status, stderr)
	}
	_, _, stderr = callService(t, func(w http.ResponseWriter, _ *http.Request, _ func()) { w.WriteHeader(http.StatusServiceUnavailable) }, args...)
	if strings.Contains(stderr, "may have") {
		t.Errorf("after a refusal: %q", stderr)
	}
}

func TestAJobIsShownAsItIs(t *testing.T) {
	t.Parallel()
	handle := func(w http.ResponseWriter, _ *http.Request, _ func()) { runningJob(w) }
	status, stdout, stderr := callService(t, handle, "job", testJob)
	want := `Job     00112233445566778899aabbccddeeff
Type    imsImportImageJob
Status  RUNNING
Step    adopt
Done    40%
Began   2026-03-01 12:00:00 UTC
`
	if status != 0 || stdout != want || stderr != "" {
		t.Errorf("status %d, stderr %q, stdout\n%s", status, stderr, stdout)
	}
	_, stdout, _ = callService(t, handle, "job", "--json", testJob)
	var doc map[string]any
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc["status"] != "RUNNING" {
		t.Errorf("%q, %v", stdout, err)
	}
}

func TestASaveThatBreaksLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const id = "8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03"
	status, _, stderr := callService(t, func(w http.ResponseWriter, _ *http.Request, _ func()) {
		w.Header().Set("Content-Length", "5000000")
		w.Write(make([]byte, 4_000_000))
	}, "image", "save", id, dir+"/out.raw")
	if status != StatusFailed || !strings.Contains(stderr, "save image "+id) {
		t.Errorf("status %d, %q", status, stderr)
	}
	if left := names(t, dir); left != nil {
		t.Errorf("left %q", left)
	}
}
