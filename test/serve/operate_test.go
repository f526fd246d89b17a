package serve

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// replaceFile puts a file in the place of another, as a tool that renews certificates does.
func replaceFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// TestHangup: SIGHUP makes the service read its certificate and os_versions again. What
// runs goes on: an open connection of the API, an NBD client. Files that can't be used
// change nothing.
func TestHangup(t *testing.T) {
	t.Parallel()
	dir, renewed := certificate(t), certificate(t)
	table := filepath.Join(dir, "os.csv")
	rows := "os_version,platform,os_type,os_bit,source,tags\nTestOS 1 64bit,TestOS,Linux,64,local,x86\n"
	writeFile(t, table, rows)
	s := harness.Start(t, harness.Options{NBD: true, Config: fmt.Sprintf("os_versions: %s\ntls_cert: %s/server-cert.pem\ntls_key: %s/server-key.pem\n", table, dir, dir)})
	trusts := func(authority string) bool {
		pem, err := os.ReadFile(filepath.Join(authority, "ca-cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		for _, listener := range []string{s.API} {
			conn, err := tls.Dial("tcp", strings.TrimPrefix(listener, "https://"), &tls.Config{RootCAs: pool})
			if err != nil {
				return false
			}
			conn.Close()
		}
		return true
	}
	open, err := tls.Dial("tcp", strings.TrimPrefix(s.API, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	answers := bufio.NewReader(open)
	onOpen := func() {
		t.Helper()
		fmt.Fprint(open, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(answers, nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("a connection that was open before: %v", err)
		}
		res.Body.Close()
	}
	onOpen()
	put(t, s, "a.zvhd2", harness.Disk(71, 2))
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	nbd := "nbdinfo --size '" + a.URI + "?tls-certificates=%s'"
	run(t, "sh", "-c", fmt.Sprintf(nbd, dir))
	hangup := func(says string) {
		t.Helper()
		said := strings.Count(s.Log(), says)
		syscall.Kill(s.Pid(), syscall.SIGHUP)
		harness.Eventually(t, says, func() bool { return strings.Count(s.Log(), says) > said })
		onOpen()
	}
	const done, failed = "reloaded the certificate", "could not reload"

	for _, name := range []string{"server-cert.pem", "server-key.pem"} {
		replaceFile(t, filepath.Join(renewed, name), filepath.Join(dir, name))
	}
	writeFile(t, table, rows+"TestOS 2 64bit,TestOS,Linux,64,local,x86\n")
	if !trusts(dir) || trusts(renewed) || strings.Contains(string(s.Do(t, "GET", "/v1/cloudimages/os_version", nil).Body), "TestOS 2") {
		t.Fatal("the files count before the signal")
	}
	hangup(done)
	if trusts(dir) || !trusts(renewed) {
		t.Error("the API has the earlier certificate")
	}
	run(t, "sh", "-c", fmt.Sprintf(nbd, renewed))
	if !strings.Contains(string(s.Do(t, "GET", "/v1/cloudimages/os_version", nil).Body), "TestOS 2") {
		t.Error("the earlier table of operating systems")
	}

	writeFile(t, table, "no table")
	writeFile(t, filepath.Join(dir, "server-cert.pem"), "no certificate")
	hangup(failed)
	if !trusts(renewed) || !strings.Contains(string(s.Do(t, "GET", "/v1/cloudimages/os_version", nil).Body), "TestOS 2") {
		t.Error("files that can't be used are in use")
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDrainDelay: a service that was told to stop says so on /readyz first, and serves
// all others meanwhile. A second signal ends it at once.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true, Config: "drain_delay: 10m\n"})
	put(t, s, "a.zvhd2", harness.Disk(72, 2))
	status := func(path string) int {
		a, err := s.Send("GET", path, "", nil)
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		return a.Status
	}
	if status("/readyz") != http.StatusOK {
		t.Fatal("not ready")
	}
	syscall.Kill(s.Pid(), syscall.SIGTERM)
	harness.Eventually(t, "/readyz says 503", func() bool { return status("/readyz") == http.StatusServiceUnavailable })
	if status("/healthz") != http.StatusOK {
		t.Error("/healthz says that the process is dead")
	}
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	run(t, "nbdinfo", "--size", a.URI)
	if !strings.Contains(s.Metrics(t), "quickims_http_requests_total") {
		t.Error("no metrics while it drains")
	}
	syscall.Kill(s.Pid(), syscall.SIGTERM)
	s.Ended(t)
}

// TestMetricsListener: the figures of all projects are on a listener of their own, which
// is plain HTTP on this machine, and the API's callers do not see them.
func TestMetricsListener(t *testing.T) {
	t.Parallel()
	dir := certificate(t)
	s := harness.Start(t, harness.Options{Config: fmt.Sprintf("tls_cert: %s/server-cert.pem\ntls_key: %s/server-key.pem\n", dir, dir)})
	if !strings.HasPrefix(s.MetricsURL, "http://127.0.0.1:") {
		t.Errorf("the ready line says %q", s.MetricsURL)
	}
	if a := s.Do(t, "GET", "/metrics", nil); a.Status != http.StatusNotFound {
		t.Errorf("/metrics of the API: %d", a.Status)
	}
	for _, want := range []string{"quickims_http_requests_total", "quickims_image_reads_total", "quickims_connections_known", "go_goroutines"} {
		if !strings.Contains(s.Metrics(t), want) {
			t.Errorf("no %s", want)
		}
	}
	if a, err := http.Get(s.MetricsURL + "/v2/cloudimages"); err != nil || a.StatusCode != http.StatusNotFound {
		t.Errorf("the listener of the metrics answers other paths: %v", err)
	}
	none := harness.Start(t, harness.Options{Config: "metrics_listen: ''\n"})
	if none.MetricsURL != "" {
		t.Errorf("without an address: %q", none.MetricsURL)
	}
}

// TestPlainHTTPNeedsLeave: nobody's password crosses a network in clear because an
// operator did not think of it.
func TestPlainHTTPNeedsLeave(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{
		{"--listen", "0.0.0.0:0"}, {"--listen", "127.0.0.1:0", "--s3-listen", ":0"}, {"--listen", "127.0.0.1:0", "--metrics-listen", "[::]:0"},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		said := fails(t, harness.Binary(t), append([]string{"serve", "--data", dir}, flags...)...)
		for _, want := range []string{strings.TrimPrefix(strings.ReplaceAll(flags[len(flags)-2], "-", "_"), "__"), "tls_cert", "allow_plain_http: true", "127.0.0.1"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q: %q does not name %s", flags, said, want)
			}
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q: a start that is refused leaves a folder", flags)
		}
	}
}
