package harness

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//go:embed keystone.py
var serveKeystone string

// The first user of a Keystone, which has the role admin in the project of its name.
const (
	KeystoneAdmin    = "admin"
	KeystonePassword = "a password of Keystone"
)

// Keystone is Debian's Keystone with a database of its own, as a process of the test.
type Keystone struct {
	URL  string // its root, without /v3
	dir  string
	port string
	cmd  *exec.Cmd
	log  *lockedBuffer
}

// StartKeystone starts a Keystone that ends with the test. It takes some ten seconds.
func StartKeystone(tb testing.TB) *Keystone {
	tb.Helper()
	k := &Keystone{dir: tb.TempDir(), port: "0"}
	keys := filepath.Join(k.dir, "fernet")
	if err := os.Mkdir(keys, 0o700); err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"0", "1"} {
		key := make([]byte, 32)
		rand.Read(key)
		if err := os.WriteFile(filepath.Join(keys, name), []byte(base64.URLEncoding.EncodeToString(key)), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	config := fmt.Sprintf("[database]\nconnection = sqlite:///%[1]s/keystone.db?timeout=60\nsqlite_synchronous = false\n[fernet_tokens]\nkey_repository = %[1]s/fernet\n[identity]\npassword_hash_rounds = 4\n[cache]\nenabled = false\n", k.dir)
	if err := os.WriteFile(k.config(), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	// What the command prints when it ends is a fault of its libraries; its result counts.
	for _, words := range [][]string{{"db_sync"}, {"bootstrap", "--bootstrap-password", KeystonePassword}} {
		out, err := exec.CommandContext(tb.Context(), "/usr/bin/keystone-manage", append([]string{"--config-file", k.config()}, words...)...).CombinedOutput()
		if err != nil {
			tb.Fatalf("keystone-manage %s: %v\n%s", words[0], err, out)
		}
	}
	// A thread of Keystone's goes on reading when it has answered. In this mode others can
	// write in spite of that.
	out, err := exec.CommandContext(tb.Context(), "/usr/bin/python3", "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA journal_mode = WAL')",
		filepath.Join(k.dir, "keystone.db")).CombinedOutput()
	if err != nil {
		tb.Fatalf("prepare Keystone's database: %v\n%s", err, out)
	}
	k.Start(tb)
	tb.Cleanup(func() {
		k.Stop()
		if tb.Failed() {
			tb.Logf("Keystone's log:\n%s", k.log.String())
		}
	})
	return k
}

func (k *Keystone) config() string { return filepath.Join(k.dir, "keystone.conf") }

// Start starts it again where it was, after Stop.
func (k *Keystone) Start(tb testing.TB) {
	tb.Helper()
	k.cmd = exec.Command("/usr/bin/python3", "-c", serveKeystone)
	k.cmd.Env = append(os.Environ(), "OS_KEYSTONE_CONFIG_FILES="+k.config())
	k.cmd.Stdin = strings.NewReader(k.port + "\n")
	if k.log == nil {
		k.log = &lockedBuffer{}
	}
	k.cmd.Stderr = k.log
	out, err := k.cmd.StdoutPipe()
	if err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		tb.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- strings.TrimSpace(line)
		io.Copy(io.Discard, out)
	}()
	select {
	case k.port = <-ready:
	case <-time.After(patience):
	}
	if k.port == "" || k.port == "0" {
		k.Stop()
		tb.Fatalf("Keystone does not start:\n%s", k.log.String())
	}
	k.URL = "http://127.0.0.1:" + k.port
}

// Stop ends the process.
func (k *Keystone) Stop() {
	k.cmd.Process.Kill()
	k.cmd.Wait()
}

// Asked is how many requests whose line begins so it has got, such as "GET /v3/auth/tokens".
func (k *Keystone) Asked(line string) int { return strings.Count(k.log.String(), `"`+line) }

// Login asks for a token with a body for POST /v3/auth/tokens.
func (k *Keystone) Login(tb testing.TB, body string) string {
	tb.Helper()
	res, err := http.Post(k.URL+"/v3/auth/tokens", "application/json", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusCreated {
		tb.Fatalf("log in: %d %s", res.StatusCode, answer)
	}
	return res.Header.Get("X-Subject-Token")
}

// Do sends a request with a token, which must succeed, and gives the answer. The token is
// also the subject, where a request has one.
func (k *Keystone) Do(tb testing.TB, token, method, path, body string) []byte {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, k.URL+"/v3"+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("X-Subject-Token", token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	if res.StatusCode >= http.StatusBadRequest {
		tb.Fatalf("%s %s: %d %s", method, path, res.StatusCode, answer)
	}
	return answer
}

// Make sends a POST as Do does and gives the id of what it made.
func (k *Keystone) Make(tb testing.TB, token, path, body string) string {
	tb.Helper()
	var made map[string]struct{ ID string }
	answer := k.Do(tb, token, "POST", path, body)
	if err := json.Unmarshal(answer, &made); err != nil || len(made) != 1 {
		tb.Fatalf("POST %s: %v: %s", path, err, answer)
	}
	for _, e := range made {
		return e.ID
	}
	return ""
}
