package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	testImage      = "8f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f03"
	testAttachment = "3f1c9a5e-3b7d-4c21-9e60-5a4d2b7c1f04"
	testURI        = "nbd://127.0.0.1:10809/abcdefghijklmnopqrstuvwxyz234567"
)

// attachments answers as the service does and notes what was asked.
type attachments struct {
	mu     sync.Mutex
	asked  []string
	detach int // status of the answer to a DELETE
}

func (a *attachments) handle(w http.ResponseWriter, r *http.Request, _ func()) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.asked = append(a.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	a.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		fmt.Fprintf(w, `{"attachment_id":%q,"image_id":%q,"image_name":"web","created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z","uri":%q}`,
			testAttachment, testImage, testURI)
	case http.MethodDelete:
		w.WriteHeader(a.detach)
	default:
		fmt.Fprintf(w, `{"attachments":[{"attachment_id":%q,"image_id":%q,"image_name":"web","created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-02T12:00:00Z"}]}`,
			testAttachment, testImage)
	}
}

// TestAttachWritesQemusConfiguration: the secret is in a file that only its owner can
// read, and not in what is printed to be run.
func TestAttachWritesQemusConfiguration(t *testing.T) {
	t.Parallel()
	a := &attachments{detach: http.StatusNoContent}
	path := filepath.Join(t.TempDir(), "web.cfg")
	must(t, os.WriteFile(path, []byte("before"), 0o644))
	_, token, _ := strings.Cut(strings.TrimPrefix(testURI, "nbd://"), "/")
	status, stdout, stderr := callService(t, a.handle, "attach", testImage, "--qemu-config", path)
	if status != statusOK || strings.Contains(stdout, token) || !strings.Contains(stdout, "-readconfig '"+path+"'") || !strings.Contains(stdout, testAttachment) {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	text, err := os.ReadFile(path)
	must(t, err)
	for _, want := range []string{"[drive]", `file.export = "` + token + `"`, `file.server.host = "127.0.0.1"`, `file.server.port = "10809"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if _, stdout, _ := callService(t, a.handle, "attach", testImage, "--qemu-config", "-"); stdout != string(text) {
		t.Errorf("to standard output: %q", stdout)
	}
	// An attachment that nobody can know of does not stay.
	a.asked = nil
	status, _, stderr = callService(t, a.handle, "attach", testImage, "--qemu-config", filepath.Join(path, "no-folder"))
	if status != StatusFailed || !strings.Contains(stderr, "no-folder") || len(a.asked) != 2 || !strings.HasPrefix(a.asked[1], "DELETE") {
		t.Errorf("status %d, %q, asked %q", status, stderr, a.asked)
	}
	for _, args := range [][]string{{"--json", "attach", testImage, "--qemu-config", "-"}, {"attach", testImage, "--qemu-config", "x", "--exec", "true"}} {
		if status, _, _ := callService(t, a.handle, args...); status != statusUsage {
			t.Errorf("%q: status %d", args, status)
		}
	}
	for uri, want := range map[string]string{
		"nbd+unix:///" + token + "?socket=/run/quickims/nbd.sock": `file.server.path = "/run/quickims/nbd.sock"`,
		"nbds://h:1/" + token:  `file.tls-creds = "tls0"`,
		"nbd://[::1]/" + token: `file.server.host = "::1"`,
	} {
		if text, err := qemuDrive(uri, "n"); err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %v, no %s in\n%s", uri, err, want, text)
		}
	}
	if text, err := qemuDrive("nbd+unix:///t?socket=/a%22b", "n"); err == nil {
		t.Errorf("a path that qemu can't read: %s", text)
	}
}

func TestAttachPrintsTheURI(t *testing.T) {
	t.Parallel()
	a := &attachments{}
	status, stdout, stderr := callService(t, a.handle, "attach", testImage, "--ttl", "90m")
	for _, want := range []string{testAttachment, testURI + "\n", `-b 'json:{"driver":"raw","file":{"driver":"nbd","export":"`, "<backingStore type='network'>", "nbdinfo '" + testURI + "'", "2026-03-02 12:00:00 UTC", "qemu-system-x86_64"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("status %d, stderr %q, no %q in\n%s", status, stderr, want, stdout)
		}
	}
	if want := `POST /v1/p/attachments {"image_id":"` + testImage + `","ttl_seconds":5400}`; len(a.asked) != 1 || a.asked[0] != want {
		t.Errorf("asked %q, want %q", a.asked, want)
	}
	_, stdout, _ = callService(t, a.handle, "attach", "--json", testImage)
	var doc struct{ URI string }
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc.URI != testURI {
		t.Errorf("%v: %s", err, stdout)
	}
}

// TestQEMUBacking: QEMU is told to wait for the service, over TLS with what that takes.
func TestQEMUBacking(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"nbds://disks.example.com:10809/abcd": `json:{"driver":"raw","file":{"driver":"nbd","export":"abcd","reconnect-delay":300,"server":{"host":"disks.example.com","port":"10809","type":"inet"},"tls-creds":"tls0"}}`,
		"nbd://[::1]/abcd":                    `json:{"driver":"raw","file":{"driver":"nbd","export":"abcd","reconnect-delay":300,"server":{"host":"::1","port":"10809","type":"inet"}}}`,
		"nbd+unix:///abcd?socket=/run/a%20b":  `json:{"driver":"raw","file":{"driver":"nbd","export":"abcd","reconnect-delay":300,"server":{"path":"/run/a b","type":"unix"}}}`,
	} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		tool, system, backing := qemuBacking(u)
		if backing != want {
			t.Errorf("%s: backing %s", uri, backing)
		}
		if strings.Contains(uri, "nbds") {
			if !strings.HasPrefix(tool, "--object tls-creds-x509,id=tls0,") || !strings.HasSuffix(tool, "dir=/etc/pki/qemu ") || "-"+system != tool {
				t.Errorf("%q for a machine, %q for a tool", system, tool)
			}
		} else if tool != "" || system != "" {
			t.Errorf("in clear: %q, %q", tool, system)
		}
	}
}

// TestLibvirtDisk: libvirt's own schema takes the element.
func TestLibvirtDisk(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"nbds://disks.example.com:1/abcd":      "<source protocol='nbd' name='abcd' tls='yes'>\n      <host name='disks.example.com' port='1'/>\n      <!-- libvirt later than 9.0: <reconnect delay='300'/> -->\n",
		"nbd://[::1]/abcd":                     "<host name='::1' port='10809'/>\n",
		"nbd+unix:///abcd?socket=/run/a%27%26": "<source protocol='nbd' name='abcd'>\n      <host transport='unix' socket='/run/a&#39;&amp;'/>\n",
	} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		text := libvirtDisk(u)
		if !strings.Contains(text, want) {
			t.Errorf("%s:\n%s", uri, text)
		}
		domain := filepath.Join(t.TempDir(), "domain.xml")
		if err := os.WriteFile(domain, []byte("<domain type='kvm'><name>x</name><memory>1048576</memory><os><type>hvm</type></os><devices>"+text+"</devices></domain>"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("virt-xml-validate", domain, "domain").CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s\n%s", uri, err, out, text)
		}
	}
}

// TestAttachExec: the command has the URI and our standard output; its status is ours;
// the attachment ends whatever becomes of it.
func TestAttachExec(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command []string
		status  int
		stdout  string
	}{
		"a line":                 {[]string{`printf "%s\n" "$NBD_URI"`}, 0, testURI + "\n"},
		"a command":              {[]string{"printenv", "NBD_URI"}, 0, testURI + "\n"},
		"its flags are its own":  {[]string{"printf", "%s %s", "--json", "--ttl"}, 0, "--json --ttl"},
		"it fails":               {[]string{"exit 7"}, 7, ""},
		"it fails with our own":  {[]string{"exit 2"}, 2, ""},
		"a signal ends it":       {[]string{"kill -TERM $$"}, 128 + 15, ""},
		"after two hyphens":      {[]string{"--", "printf", "%s", "--"}, 0, "--"},
		"there is no such thing": {[]string{"/nowhere/to/be/found", "x"}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &attachments{detach: http.StatusNoContent}
			status, stdout, stderr := callService(t, a.handle, append([]string{"attach", testImage, "--exec"}, tc.command...)...)
			if status != tc.status || stdout != tc.stdout {
				t.Errorf("status %d, want %d; stdout %q, want %q; stderr %q", status, tc.status, stdout, tc.stdout, stderr)
			}
			if len(a.asked) != 2 || a.asked[1] != "DELETE /v1/p/attachments/"+testAttachment+` {"force":true}` {
				t.Errorf("asked %q", a.asked)
			}
			if strings.Contains(stderr, testURI) {
				t.Errorf("the URI is in %q", stderr)
			}
		})
	}
}

// TestAttachExecCannotDetach: the command's status stays, and the user is told.
func TestAttachExecCannotDetach(t *testing.T) {
	t.Parallel()
	a := &attachments{detach: http.StatusInternalServerError}
	status, _, stderr := callService(t, a.handle, "attach", testImage, "--exec", "exit 3")
	if status != 3 || !strings.Contains(stderr, "lasts until 2026-03-02 12:00:00 UTC") {
		t.Errorf("status %d, %q", status, stderr)
	}
	a = &attachments{detach: http.StatusNotFound} // it ended before
	if status, _, stderr := callService(t, a.handle, "attach", testImage, "--exec", "exit 3"); status != 3 || stderr != "" {
		t.Errorf("status %d, %q", status, stderr)
	}
}

func TestAttachUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"attach":                                   `expected "<image>`,
		"attach " + testImage + " --exec":          "name the command",
		"attach " + testImage + " true":            "--exec alone",
		"attach " + testImage + " --ttl 59s":       "--ttl 59s: it is 1m to 720h, or 0 (see",
		"attach " + testImage + " --max-age 59s":   "--max-age 59s: it is 1m to 87600h, or 0 (see",
		"attach " + testImage + " --exec --":       "name the command",
		"attach " + testImage + " --ttl 721h":      "--ttl 721h: it is 1m to 720h, or 0 (see",
		"attach " + testImage + " --ttl 720h0m30s": "--ttl 720h0m30s: it is 1m to 720h, or 0 (see",
		"attach " + testImage + " --ttl x":         "--ttl",
		"attach " + testImage + " --json --exec x": "standard output",
		"detach":                       "attachment",
		"detach web":                   "no attachment's id",
		"attachments renew":            "attachment",
		"attachments renew web":        "no attachment's id",
		"attachments renew x --ttl 1s": "--ttl 1s: it is 1m",
	} {
		a := &attachments{}
		status, stdout, stderr := callService(t, a.handle, strings.Fields(args)...)
		if status != statusUsage || stdout != "" || !strings.Contains(stderr, want) || len(a.asked) != 0 {
			t.Errorf("%s: status %d, asked %q, stderr %q, want %q in it", args, status, a.asked, stderr, want)
		}
	}
}

func TestAttachmentsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	a := &attachments{detach: http.StatusNoContent}
	if status, stdout, _ := callService(t, a.handle, "attachments"); status != statusOK || !strings.Contains(stdout, testAttachment+"  "+testImage+"  web") {
		t.Errorf("status %d, %q", status, stdout)
	}
	if status, stdout, _ := callService(t, a.handle, "detach", testAttachment); status != statusOK || stdout != "detached "+testAttachment+"\n" {
		t.Errorf("status %d, %q", status, stdout)
	}
	_, stdout, _ := callService(t, a.handle, "--json", "detach", testAttachment)
	var doc struct{ Detached []string }
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || len(doc.Detached) != 1 {
		t.Errorf("%v: %s", err, stdout)
	}
	a.asked = nil
	callService(t, a.handle, "image", "delete", "--force", testImage)
	callService(t, a.handle, "image", "delete", testImage)
	get, del := "GET /v2/images/"+testImage, "DELETE /v2/images/"+testImage
	if want := []string{get, del + ` {"force":true}`, get, del}; !slices.Equal(a.asked, want) {
		t.Errorf("asked %q", a.asked)
	}
}
