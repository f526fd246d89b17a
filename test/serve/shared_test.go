package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// project is another project of a server, with a user of its own.
type project struct {
	*harness.Server
	id, token string
}

func newProject(t *testing.T, s *harness.Server, name string) project {
	t.Helper()
	out, err := exec.Command(harness.Binary(t), "account", "add", "--data", s.Dir, "--project", name, "--user", name, "--role", "member").Output()
	if err != nil {
		t.Fatalf("account add: %v", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		values[key] = strings.Trim(value, `'"`)
	}
	p := project{Server: s, id: values["QUICKIMS_PROJECT_ID"]}
	p.token = s.TokenFor(t, values["QUICKIMS_USER"], values["QUICKIMS_PASSWORD"], p.id)
	return p
}

func (p project) send(t *testing.T, status int, method, path, body string) harness.Answer {
	t.Helper()
	a, err := p.Send(method, path, p.token, []byte(body))
	if err != nil || a.Status != status {
		t.Fatalf("%s %s: %v, status %d, want %d: %s", method, path, err, a.Status, status, a.Body)
	}
	return a
}

// TestSharedImage is a disk for a project that accepted it, until it is taken back.
func TestSharedImage(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	disk := harness.Disk(71, 8)
	put(t, s, "a.zvhd2", disk)
	image := s.Import(t, harness.Request("a", "disks:a.zvhd2"))
	member, stranger := newProject(t, s, "lab"), newProject(t, s, "else")
	attach := `{"image_id":"` + image + `"}`
	member.send(t, http.StatusNotFound, "POST", "/v1/"+member.id+"/attachments", attach)
	if a := s.Do(t, "POST", "/v2/images/"+image+"/members", map[string]any{"member": member.id}); a.Status != http.StatusOK {
		t.Fatalf("share: %d %s", a.Status, a.Body)
	}
	member.send(t, http.StatusForbidden, "POST", "/v1/"+member.id+"/attachments", attach)
	member.send(t, http.StatusOK, "PUT", "/v2/images/"+image+"/members/"+member.id, `{"status":"accepted"}`)
	var a harness.Attachment
	if err := json.Unmarshal(member.send(t, http.StatusOK, "POST", "/v1/"+member.id+"/attachments", attach).Body, &a); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.URI, diskFile(t, disk))
	r := open(t, a.URI)
	r.mustRead(t)
	stranger.send(t, http.StatusNotFound, "POST", "/v1/"+stranger.id+"/attachments", attach)
	stranger.send(t, http.StatusNotFound, "GET", "/v2/images/"+image+"/file", "")

	if a := s.Do(t, "DELETE", "/v2/images/"+image+"/members/"+member.id, nil); a.Status != http.StatusNoContent {
		t.Fatalf("take back: %d %s", a.Status, a.Body)
	}
	r.isCut(t)
	fails(t, "nbdinfo", a.URI)
	member.send(t, http.StatusNotFound, "POST", "/v1/"+member.id+"/attachments", attach)
}

// TestDownloadEndsWithTheRight: whoever downloads an image is cut off when it is no
// longer shared with him, and when it is deleted. The clients are slow: what is on its
// way already arrives.
func TestDownloadEndsWithTheRight(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	disk := harness.Disk(72, 64)
	put(t, s, "a.raw", disk)
	image := s.Import(t, harness.Request("a", "disks:a.raw"))
	member := newProject(t, s, "lab")
	if a := s.Do(t, "POST", "/v2/images/"+image+"/members", map[string]any{"member": member.id}); a.Status != http.StatusOK {
		t.Fatalf("share: %d %s", a.Status, a.Body)
	}
	member.send(t, http.StatusOK, "PUT", "/v2/images/"+image+"/members/"+member.id, `{"status":"accepted"}`)
	for _, c := range []struct{ token, end string }{
		{member.token, "/v2/images/" + image + "/members/" + member.id},
		{s.Token(t), "/v2/images/" + image},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.API+"/v2/images/"+image+"/file", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", c.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("download: %v, %v", resp, err)
		}
		defer resp.Body.Close()
		buf, got := make([]byte, 256<<10), 0
		pace := time.NewTicker(40 * time.Millisecond) // 10 s for all of it
		defer pace.Stop()
		for err == nil {
			var n int
			n, err = io.ReadFull(resp.Body, buf)
			if !bytes.Equal(buf[:n], disk[got:got+n]) {
				t.Fatalf("other bytes at %d", got)
			}
			if got += n; got == len(buf) {
				if a := s.Do(t, "DELETE", c.end, nil); a.Status != http.StatusNoContent {
					t.Fatalf("DELETE %s: %d %s", c.end, a.Status, a.Body)
				}
			}
			<-pace.C
		}
		if got == len(disk) || errors.Is(err, io.EOF) {
			t.Errorf("after DELETE %s: %d of %d bytes arrived, %v", c.end, got, len(disk), err)
		}
	}
}
