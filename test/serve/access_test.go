package serve

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/test/harness"
)

// secondServer starts another process that shares a server's database and store.
func secondServer(t *testing.T, first *harness.Server, url string) *harness.Server {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"seal.key", "credentials.env"} {
		copyFile(t, filepath.Join(first.Dir, name), filepath.Join(dir, name))
	}
	for _, name := range []string{"buckets", "images"} {
		if err := os.Symlink(filepath.Join(first.Dir, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	public := strings.TrimPrefix(first.NBD, "nbd://")
	return harness.Start(t, harness.Options{NBD: true, Dir: dir, Database: url, Args: []string{"--nbd-public", public}})
}

// user is somebody in the first project.
type user struct{ name, accessKey, secretKey, token string }

// TestAccessEndsEverywhere: what ends a grant on one server cuts the disks that are read
// over NBD on another, and the downloads, also one whose client has stopped reading; and
// nobody else's.
func TestAccessEndsEverywhere(t *testing.T) {
	t.Parallel()
	url := harness.Postgres(t)
	first := harness.Start(t, harness.Options{NBD: true, Database: url, Config: "require_bitmap: false\n"})
	first.PutFile(t, "disks", "a.raw", harness.Disk(77, 8))
	// Large enough that no buffer takes in the rest of a download.
	if err := os.Truncate(filepath.Join(first.Dir, "buckets", "disks", "a.raw"), 1<<27); err != nil {
		t.Fatal(err)
	}
	image := first.Import(t, harness.Request("a", "disks:a.raw"))
	second := secondServer(t, first, url)
	account := func(args ...string) []byte {
		t.Helper()
		args = append([]string{"account", args[0], "--data", first.Dir, "--database", url}, args[1:]...)
		return []byte(run(t, harness.Binary(t), args...))
	}
	newUser := func(name string) user {
		t.Helper()
		env := map[string]string{}
		if err := json.Unmarshal(account("add", "--json", "--project", harness.ProjectID, "--user", name, "--role", "member"), &env); err != nil {
			t.Fatal(err)
		}
		u := user{name: name, accessKey: env["QUICKIMS_ACCESS_KEY"], secretKey: env["QUICKIMS_SECRET_KEY"]}
		u.token = second.TokenFor(t, name, env["QUICKIMS_PASSWORD"], harness.ProjectID)
		return u
	}
	send := func(u user, signed bool, method, path, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, second.API+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if signed {
			err = signature.Sign(req, []byte(body), u.accessKey, u.secretKey, time.Now())
		} else {
			req.Header.Set("X-Auth-Token", u.token)
		}
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for name, tc := range map[string]struct {
		signed bool
		end    func(u user)
	}{
		"user removed":   {end: func(u user) { account("remove", u.name) }},
		"out of project": {end: func(u user) { account("remove", u.name, "--project", harness.ProjectID) }},
		"key revoked":    {signed: true, end: func(u user) { account("revoke", u.accessKey) }},
		"token revoked": {end: func(u user) {
			req, err := http.NewRequestWithContext(t.Context(), "DELETE", first.API+"/v3/auth/tokens", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Auth-Token", u.token)
			req.Header.Set("X-Subject-Token", u.token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil || resp.StatusCode != http.StatusNoContent {
				t.Fatalf("revoke a token: %v, %v", resp, err)
			}
			resp.Body.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			leaves, stays := newUser(strings.ReplaceAll(name, " ", "-")), newUser("still-"+strings.ReplaceAll(name, " ", "-"))
			begin := func(u user) (reader, *http.Response) {
				t.Helper()
				resp := send(u, tc.signed, "POST", harness.AttachmentsPath, `{"image_id":"`+image+`"}`)
				var a harness.Attachment
				if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("attach: %d, %v", resp.StatusCode, err)
				}
				resp.Body.Close()
				r := open(t, a.URI) // the first server's
				r.mustRead(t)
				down := send(u, tc.signed, "GET", "/v2/images/"+image+"/file", "")
				t.Cleanup(func() { down.Body.Close() })
				if _, err := io.ReadFull(down.Body, make([]byte, 1<<20)); err != nil || down.StatusCode != http.StatusOK {
					t.Fatalf("download: %d, %v", down.StatusCode, err)
				}
				return r, down
			}
			cut, cutDown := begin(leaves)
			kept, keptDown := begin(stays)
			ended := func() int { return strings.Count(second.Log(), `"route":"/v2/images/{image_id}/file"`) }
			before := ended()
			tc.end(leaves)
			cut.isCut(t)
			harness.Eventually(t, "the download of a client that does not read has ended", func() bool { return ended() > before })
			// What comes now was on its way.
			if n, err := io.Copy(io.Discard, cutDown.Body); err == nil || n > 1<<26 {
				t.Errorf("the download went on for %d bytes: %v", n, err)
			}
			kept.mustRead(t)
			if n, err := io.Copy(io.Discard, keptDown.Body); err != nil || n != 1<<27-1<<20 {
				t.Errorf("another user's download: %d bytes, %v", n, err)
			}
			if resp := send(leaves, tc.signed, "GET", "/v2/cloudimages", ""); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("the next request: %d", resp.StatusCode)
			}
		})
	}
	if a := first.Do(t, "GET", "/v2/cloudimages", nil); a.Status != http.StatusOK || !bytes.Contains(a.Body, []byte(image)) {
		t.Errorf("the image: %d %s", a.Status, a.Body)
	}
}
