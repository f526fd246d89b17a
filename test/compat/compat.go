// Package compat records what the clients' tests saw, for docs/compatibility.md.
//
// A test names its client and runs each case through Client.Run:
//
//	client := compat.Client{Area: "S3", Name: "minio-go", Version: compat.ModuleVersion(t, "github.com/minio/minio-go/v7")}
//	client.Run(t, compat.Case{Did: "list in pages", Over: "http"}, func(t *testing.T) { … })
//
// If the environment variable QUICKIMS_COMPATIBILITY names a directory, each case that
// ends appends a record to a file of its process there. Otherwise nothing is written.
// The program in test/compat/page merges the records into the page: see "make
// compatibility". A package whose tests record cases must be listed in
// scripts/compatibility.
package compat

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Variable is the environment variable that names the directory of the records.
const Variable = "QUICKIMS_COMPATIBILITY"

// Client is a program or library as its users install it. Every field is required.
type Client struct {
	Area    string // the heading of the page under which it is listed, such as "S3"
	Name    string // as its package is called, such as "python3-boto3"
	Version string // as its package says: DebianVersion, ModuleVersion
}

// Case is one thing that a user does with a client.
type Case struct {
	Did  string // what was run, as a noun or a verb: "upload of 200 KB". Required
	Over string // the transport, or what else the case was repeated with: "http"; may be empty
	// Result is what it means that the test passed: "works" if it is empty. A case
	// whose test asserts a refusal says so: "refused: 501 NotImplemented".
	Result string
	Report string // addresses of public reports that the case came from, with spaces between; may be empty
}

// Record is one line of a file of records: a case that ended.
type Record struct {
	Client
	Case
	// Result replaces the case's: it is "fails" if the test did.
	Result string
}

// Run runs the case as a subtest called after Did and records how it ended, parallel
// subtests of its own included. A skipped case is recorded nowhere.
func (c Client) Run(t *testing.T, k Case, test func(t *testing.T)) bool {
	t.Helper()
	return t.Run(strings.ReplaceAll(k.Did, "/", "_"), func(t *testing.T) {
		t.Cleanup(func() {
			if !t.Skipped() {
				c.Record(t, k, !t.Failed())
			}
		})
		test(t)
	})
}

// Record records a case that the test ran by other means. It is safe for concurrent use.
func (c Client) Record(tb testing.TB, k Case, passed bool) {
	tb.Helper()
	dir := os.Getenv(Variable)
	if dir == "" {
		return
	}
	if c.Area == "" || c.Name == "" || c.Version == "" || k.Did == "" {
		tb.Errorf("record %+v of %+v: area, name, version and what was run are required", k, c)
		return
	}
	r := Record{Client: c, Case: k, Result: k.Result}
	switch {
	case !passed:
		r.Result = "fails"
	case r.Result == "":
		r.Result = "works"
	}
	if err := write(dir, r); err != nil {
		tb.Errorf("record the case %q: %v", k.Did, err)
	}
}

// writing lets one case write at a time.
var writing sync.Mutex

func write(dir string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	writing.Lock()
	defer writing.Unlock()
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%d.jsonl", os.Getpid())), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// DebianVersion is the version of an installed Debian package. It fails the test if
// the package is not installed: scripts/install-packages installs it.
func DebianVersion(tb testing.TB, pkg string) string {
	tb.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil || len(out) == 0 {
		tb.Fatalf("look up the version of the Debian package %s: %v; run scripts/install-packages test", pkg, err)
	}
	return string(out)
}

// ModuleVersion is the version of a Go module that the test's module requires.
func ModuleVersion(tb testing.TB, path string) string {
	tb.Helper()
	// The build information of a test binary lists no modules.
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).CombinedOutput()
	if err != nil {
		tb.Fatalf("look up the version of the module %s: %v: %s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}
