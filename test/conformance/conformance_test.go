// Package conformance runs "quickims conformance" against a running service, and against
// one that breaks a promise.
package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// member is the id of another project.
const member = "00000000000000000000000000000001"

type report struct {
	Checks []struct {
		Name, Promise, Reference, Outcome, Detail string
	}
	Passed, Failed, Skipped int
	Left                    []string
}

// command is the command against a service at endpoint, with the credentials of the
// server.
func command(t *testing.T, s *harness.Server, endpoint string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), append([]string{"conformance", "--json", "--endpoint", endpoint}, args...)...)
	cmd.Env = append(os.Environ(), "QUICKIMS_CREDENTIALS="+s.Dir+"/credentials.env")
	return cmd
}

// run runs it to its end and gives its report and exit status.
func run(t *testing.T, cmd *exec.Cmd) (r report, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the status says more
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("read the report: %v: %s\n%s", err, out.Bytes(), errs.Bytes())
	}
	return r, cmd.ProcessState.ExitCode()
}

// clean asserts that nothing of a run is left.
func clean(t *testing.T, s *harness.Server) {
	t.Helper()
	for _, query := range []string{"", "?status=killed", "?status=queued"} {
		if images := s.Images(t, query); len(images) != 0 {
			t.Errorf("images%s are left: %v", query, images)
		}
	}
	entries, err := os.ReadDir(s.Dir + "/buckets")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("bucket %s is left", e.Name())
		}
	}
}

// TestConforms: the service keeps every promise, whoever asks and over either database,
// and nothing of the run is left.
func TestConforms(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			opts := harness.Options{S3: true}
			if database == "postgres" {
				opts.Database = harness.Postgres(t)
			}
			s := harness.Start(t, opts)
			for _, auth := range []string{"keys", "password"} {
				r, status := run(t, command(t, s, s.API, "--auth", auth, "--member", member))
				for _, c := range r.Checks {
					if c.Outcome != "passed" {
						t.Errorf("%s, %s: %s: %s", auth, c.Name, c.Outcome, c.Detail)
					}
					if c.Promise == "" || c.Reference == "" {
						t.Errorf("%s has no promise or reference", c.Name)
					}
				}
				if status != 0 || r.Passed < 60 || len(r.Left) != 0 {
					t.Errorf("%s: status %d, %d passed, left %v", auth, status, r.Passed, r.Left)
				}
				clean(t, s)
			}
		})
	}
}

// TestReadOnly: nothing is sent that could change something, but for logins.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{S3: true})
	var changing []string
	p := proxy(t, s, func(r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.URL.Path != "/v3/auth/tokens" {
			changing = append(changing, r.Method+" "+r.URL.Path)
		}
	}, nil)
	r, status := run(t, command(t, s, p, "--auth", "password", "--read-only", "--member", member))
	if status != 0 || r.Failed != 0 || r.Passed < 20 || r.Skipped < 20 {
		t.Errorf("status %d, %d passed, %d failed, %d skipped", status, r.Passed, r.Failed, r.Skipped)
	}
	if len(changing) != 0 {
		t.Errorf("it sent %v", changing)
	}
	clean(t, s)
}

// TestBrokenPromises: a service that breaks a promise fails the check of it.
func TestBrokenPromises(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{S3: true})
	for _, tt := range []struct {
		check string // that must fail
		only  string // what is run
		spoil func(r *http.Response, body []byte) []byte
	}{
		{"error/unknown-image", "error/", func(r *http.Response, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte("IMG.0027"), []byte("IMG.9999"))
		}},
		{"access/forged-token", "access/", func(r *http.Response, body []byte) []byte {
			if r.StatusCode == http.StatusUnauthorized {
				r.StatusCode = http.StatusOK
			}
			return body
		}},
		{"list/no-match", "list/", func(r *http.Response, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte(`"images":[]`), []byte(`"images":null`))
		}},
		{"import/refuses-name-long", "import/refuses-name", func(r *http.Response, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte("IMG.0002"), []byte("IMG.0003"))
		}},
		{"job/ended", "job/", func(r *http.Response, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte(`Z","error_code`), []byte(`","error_code`))
		}},
		{"image/attributes", "image/", func(r *http.Response, body []byte) []byte {
			return bytes.ReplaceAll(body, []byte(`"min_disk":40`), []byte(`"min_disk":"40"`))
		}},
		{"download/whole", "download/", func(r *http.Response, body []byte) []byte {
			if r.StatusCode == http.StatusOK && len(body) > 1<<20 {
				body[len(body)-1] ^= 1
			}
			return body
		}},
		{"download/range", "download/", func(r *http.Response, body []byte) []byte {
			r.Header.Del("Content-Range")
			return body
		}},
		{"tag/delete", "tag/", func(r *http.Response, body []byte) []byte {
			if r.Request.Method == http.MethodDelete && r.StatusCode == http.StatusNotFound {
				r.StatusCode = http.StatusNoContent
				return nil
			}
			return body
		}},
		{"delete/image", "delete/", func(r *http.Response, body []byte) []byte {
			if r.StatusCode == http.StatusNotFound {
				r.StatusCode = http.StatusOK
			}
			return body
		}},
		{"openstack/download", "openstack/", func(r *http.Response, body []byte) []byte {
			if strings.HasSuffix(r.Request.URL.Path, "/file") && r.Request.Method == http.MethodGet {
				return body[1:]
			}
			return body
		}},
	} {
		t.Run(strings.ReplaceAll(tt.check, "/", "_"), func(t *testing.T) {
			t.Parallel()
			r, status := run(t, command(t, s, proxy(t, s, nil, tt.spoil), "--auth", "password", "--only", tt.only))
			failed := []string{}
			for _, c := range r.Checks {
				if c.Outcome == "failed" {
					failed = append(failed, c.Name)
				}
			}
			if status != 1 || !slices.Contains(failed, tt.check) {
				t.Errorf("status %d, failed: %v; %s must be among them", status, failed, tt.check)
			}
			if len(r.Left) != 0 {
				t.Errorf("left: %v", r.Left)
			}
		})
	}
	t.Cleanup(func() { clean(t, s) })
}

// TestInterrupted: after Ctrl-C nothing is left either.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{S3: true})
	cmd := command(t, s, s.API, "--member", member)
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, interrupted := bufio.NewScanner(errs), false
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"import/quick"`) { // the image is there
			interrupted = true
			cmd.Process.Signal(syscall.SIGINT)
		}
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !interrupted || !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("ended with %v: %s", err, out.Bytes())
	}
	clean(t, s)
}

// proxy is a service before the server: it tells of each request and spoils answers.
func proxy(t *testing.T, s *harness.Server, seen func(*http.Request), spoil func(*http.Response, []byte) []byte) string {
	t.Helper()
	target, err := url.Parse(s.API)
	if err != nil {
		t.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(r *http.Response) error {
		if spoil == nil {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		length := r.Header.Get("Content-Length")
		body = spoil(r, body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		if r.Request.Method == http.MethodHead {
			r.Header.Set("Content-Length", length)
		} else {
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
		}
		return nil
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen(r)
		}
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}
