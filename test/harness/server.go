// Package harness starts the real quickims binary on a temporary folder and speaks
// to it as a client would. It is for tests alone.
package harness

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Credentials of the project that the first start makes.
const (
	ProjectID = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	DomainID  = "f9e8d7c6b5a4938271605f4e3d2c1b0a"
	User      = "tester"
	Password  = "a password for tests only"
	AccessKey = "AKTESTAKTESTAKTEST01"
	SecretKey = "sktestsktestsktestsktestsktestsktestsk01"
	Region    = "eu-test"
)

// patience is how long anything that must happen may take; a test that waits this
// long has failed.
const patience = 60 * time.Second

// Options of a server.
type Options struct {
	Dir      string   // data folder; "" makes one
	S3       bool     // serve the buckets over S3
	NBD      bool     // serve attachments over NBD
	NBDUnix  bool     // serve them at a unix socket in the data folder
	Database string   // postgres:// URL; "" means SQLite
	Config   string   // YAML for --config
	Faults   string   // QUICKIMS_FAULTPOINT
	Args     []string // further flags of serve
	Env      []string // further environment
}

// Server is a running quickims.
type Server struct {
	API, S3URL string
	// NBD is the root of the URIs of attachments, such as nbd://127.0.0.1:10809.
	NBD string
	// MetricsURL is the root of the listener of the metrics.
	MetricsURL string
	Dir        string
	opts       Options
	cmd        *exec.Cmd
	done       chan struct{} // closed when the process has ended
	log        *lockedBuffer
	token      string
	nbdAddr    string // of the first start, for the later ones
}

var (
	buildOnce sync.Once
	buildPath string
	buildErr  error
)

// Binary is the path of quickims: that of QUICKIMS_TEST_BINARY, or one built once
// for the test process with the fault points in it.
func Binary(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("QUICKIMS_TEST_BINARY"); path != "" {
		return path
	}
	buildOnce.Do(func() {
		_, self, _, _ := runtime.Caller(0)
		dir, err := os.MkdirTemp("", "quickims-test-bin-")
		if err != nil {
			buildErr = err
			return
		}
		buildPath = filepath.Join(dir, "quickims")
		cmd := exec.Command("go", "build", "-tags", "faultpoint", "-o", buildPath, "./cmd/quickims")
		cmd.Dir = filepath.Join(filepath.Dir(self), "..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("build quickims: %w\n%s", err, out)
		}
	})
	if buildErr != nil {
		tb.Fatal(buildErr)
	}
	return buildPath
}

// Main runs the tests and removes the binary: call it from TestMain.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if buildPath != "" {
		os.RemoveAll(filepath.Dir(buildPath))
	}
	os.Exit(code)
}

// Start starts a server and waits until it is ready. It ends with the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if opts.Dir == "" {
		opts.Dir = tb.TempDir()
	}
	s := &Server{Dir: opts.Dir, opts: opts}
	s.start(tb)
	tb.Cleanup(func() {
		s.Stop(tb)
		if tb.Failed() {
			tb.Logf("the server's log:\n%s", s.Log())
		}
	})
	return s
}

// Refused starts a server that must end before it is ready, and returns its log.
func Refused(tb testing.TB, opts Options) string {
	tb.Helper()
	if opts.Dir == "" {
		opts.Dir = tb.TempDir()
	}
	s := &Server{Dir: opts.Dir, opts: opts}
	ready := s.launch(tb)
	select {
	case line := <-ready:
		s.Stop(tb)
		tb.Fatalf("the server started: %s\n%s", line, s.Log())
	case <-s.done:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		tb.Fatalf("the server neither is ready nor has ended after %s:\n%s", patience, s.Log())
	}
	if s.cmd.ProcessState.ExitCode() != 1 {
		tb.Errorf("the refused server ended with %v, want status 1", s.cmd.ProcessState)
	}
	return s.Log()
}

// Killed starts a server that a fault point kills before it is ready.
func Killed(tb testing.TB, opts Options) {
	tb.Helper()
	s := &Server{Dir: opts.Dir, opts: opts}
	ready := s.launch(tb)
	select {
	case line := <-ready:
		s.Stop(tb)
		tb.Fatalf("the server started: %s", line)
	case <-s.done:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		tb.Fatalf("the server was not killed within %s:\n%s", patience, s.Log())
	}
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		tb.Fatalf("the server ended with %v:\n%s", s.cmd.ProcessState, s.Log())
	}
}

// Options are those that the server was started with.
func (s *Server) Options() Options { return s.opts }

// Command runs another command of the binary and returns what it printed and its exit
// status.
func Command(tb testing.TB, args ...string) (stdout, stderr string, status int) {
	tb.Helper()
	cmd := exec.Command(Binary(tb), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// launch starts the process. The channel gets the first line of its stdout.
func (s *Server) launch(tb testing.TB, more ...string) <-chan string {
	tb.Helper()
	args := []string{"serve", "--data", s.opts.Dir, "--listen", "127.0.0.1:0"}
	if s.opts.S3 {
		args = append(args, "--s3-listen", "127.0.0.1:0")
	}
	switch {
	case s.opts.NBDUnix:
		args = append(args, "--nbd-listen", "unix:"+filepath.Join(s.opts.Dir, "nbd.sock"))
	case s.nbdAddr != "":
		// Clients that reconnect come back to where they were.
		args = append(args, "--nbd-listen", s.nbdAddr)
	case s.opts.NBD:
		args = append(args, "--nbd-listen", "127.0.0.1:0")
	}
	if s.opts.Database != "" {
		args = append(args, "--database", s.opts.Database)
	}
	if s.opts.Config != "" {
		path := filepath.Join(tb.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(s.opts.Config), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	cmd := exec.Command(Binary(tb), append(append(args, s.opts.Args...), more...)...)
	cmd.Env = append(os.Environ(),
		"QUICKIMS_PROJECT_ID="+ProjectID, "QUICKIMS_DOMAIN_ID="+DomainID, "QUICKIMS_USER="+User, "QUICKIMS_PASSWORD="+Password,
		"QUICKIMS_ACCESS_KEY="+AccessKey, "QUICKIMS_SECRET_KEY="+SecretKey, "QUICKIMS_REGION="+Region, "QUICKIMS_FAULTPOINT="+s.opts.Faults)
	cmd.Env = append(cmd.Env, s.opts.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if s.log == nil {
		s.log = &lockedBuffer{}
	}
	cmd.Stderr = s.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s.cmd, s.done = cmd, make(chan struct{})
	done := s.done
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			select {
			case ready <- lines.Text():
			default:
			}
		}
		cmd.Wait()
		close(done)
	}()
	return ready
}

func (s *Server) start(tb testing.TB) {
	tb.Helper()
	ready := s.launch(tb)
	select {
	case line := <-ready:
		var msg struct{ Msg, API, S3, NBD, Metrics string }
		if err := json.Unmarshal([]byte(line), &msg); err != nil || msg.Msg != "ready" {
			tb.Fatalf("the first line is %q, want the ready line", line)
		}
		s.API, s.S3URL, s.NBD, s.MetricsURL = msg.API, msg.S3, msg.NBD, msg.Metrics
		if u, err := url.Parse(msg.NBD); err == nil {
			s.nbdAddr = u.Host
		}
	case <-s.done:
		tb.Fatalf("the server ended before it was ready:\n%s", s.Log())
	case <-time.After(patience):
		s.cmd.Process.Kill()
		tb.Fatalf("the server is not ready after %s:\n%s", patience, s.Log())
	}
}

// Restart starts the server again on the same folder, with other fault points. Its NBD
// listener has the port it had before.
func (s *Server) Restart(tb testing.TB, faults string) {
	tb.Helper()
	s.opts.Faults = faults
	s.start(tb)
}

// TakeOver starts another process that takes over from the server, with fault points, and
// reports whether it did. From then on the server is that process; the one before is
// waited for. If not, the one before is the server still.
func (s *Server) TakeOver(tb testing.TB, faults string, args ...string) bool {
	tb.Helper()
	cmd, done := s.cmd, s.done
	s.opts.Faults = faults
	ready := s.launch(tb, append([]string{"--take-over"}, args...)...)
	select {
	case line := <-ready:
		if !strings.Contains(line, `"msg":"ready"`) {
			tb.Fatalf("the first line is %q, want the ready line", line)
		}
	case <-s.done:
		s.cmd, s.done = cmd, done
		return false
	case <-time.After(patience):
		s.cmd.Process.Kill()
		tb.Fatalf("the server did not take over within %s:\n%s", patience, s.Log())
	}
	select {
	case <-done:
	case <-time.After(patience):
		cmd.Process.Kill()
		tb.Fatalf("the server before still runs %s after it handed over:\n%s", patience, s.Log())
	}
	return true
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.cmd.Process.Kill()
	s.Ended(tb)
}

// Stop asks the server to end, as an operator would.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	select {
	case <-s.done:
		return
	default:
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-s.done
		tb.Errorf("the server did not end within %s of SIGTERM", patience)
	}
}

// Ended waits until the process has ended.
func (s *Server) Ended(tb testing.TB) {
	tb.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		tb.Fatalf("the server still runs after %s", patience)
	}
}

// Pid is the server's process id.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Log is what the server wrote to stderr, over all its starts.
func (s *Server) Log() string { return s.log.String() }

// Answer is what the API said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Error is the code, message and details of an error answer.
func (a Answer) Error() (code, message, details string) {
	var body struct {
		Error struct{ Code, Message, Details string }
	}
	json.Unmarshal(a.Body, &body)
	return body.Error.Code, body.Error.Message, body.Error.Details
}

// Token is a token of the first project, fetched once.
func (s *Server) Token(tb testing.TB) string {
	tb.Helper()
	if s.token == "" {
		s.token = s.TokenFor(tb, User, Password, ProjectID)
	}
	return s.token
}

// TokenFor fetches a project-scoped token of a user of the first domain.
func (s *Server) TokenFor(tb testing.TB, user, password, project string) string {
	tb.Helper()
	return s.TokenIn(tb, DomainID, user, password, project)
}

// TokenIn fetches a project-scoped token of a user of a domain.
func (s *Server) TokenIn(tb testing.TB, domain, user, password, project string) string {
	tb.Helper()
	body := fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q,"domain":{"id":%q}}}},"scope":{"project":{"id":%q}}}}`,
		user, password, domain, project)
	a, err := s.Send("POST", "/v3/auth/tokens", "", []byte(body))
	if err != nil || a.Status != http.StatusCreated {
		tb.Fatalf("issue a token: %v, status %d: %s", err, a.Status, a.Body)
	}
	return a.Header.Get("X-Subject-Token")
}

// client takes any certificate: a test's own authority is nobody's.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{
	MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
}}

// Send sends a request. The body may be nil. An error means that no answer came.
func (s *Server) Send(method, path, token string, body []byte) (Answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.API+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return Answer{Status: res.StatusCode, Header: res.Header, Body: data}, err
}

// Do sends a request with the first project's token. The body may be nil, bytes, a
// string, or anything that JSON can hold.
func (s *Server) Do(tb testing.TB, method, path string, body any) Answer {
	tb.Helper()
	data, err := encode(body)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := s.Send(method, path, s.Token(tb), data)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Metrics is what the service counts, in the form of Prometheus.
func (s *Server) Metrics(tb testing.TB) string {
	tb.Helper()
	res, err := client.Get(s.MetricsURL + "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		tb.Fatalf("GET %s/metrics: status %d, %v", s.MetricsURL, res.StatusCode, err)
	}
	return string(body)
}

// Get sends a GET and decodes the answer, which must be 200.
func (s *Server) Get(tb testing.TB, path string, into any) {
	tb.Helper()
	a := s.Do(tb, "GET", path, nil)
	if a.Status != http.StatusOK {
		tb.Fatalf("GET %s: status %d: %s", path, a.Status, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		tb.Fatalf("GET %s: %v in %s", path, err, a.Body)
	}
}

func encode(body any) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case []byte:
		return b, nil
	case string:
		return []byte(b), nil
	}
	return json.Marshal(body)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Eventually asks check until it says true or patience runs out. It is how a test
// waits for another process: there is no signal to wait on.
func Eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-deadline.C:
			tb.Fatalf("after %s still not: %s", patience, what)
		case <-tick.C:
		}
	}
}

// Files lists the regular files below a folder, without those whose path contains
// one of the parts in except.
func Files(tb testing.TB, dir string, except ...string) []string {
	tb.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		for _, part := range except {
			if strings.Contains(rel, part) {
				return nil
			}
		}
		out = append(out, rel)
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return out
}
