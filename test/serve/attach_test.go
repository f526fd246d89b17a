package serve

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/test/harness"
)

// TestAttach: an import is a disk that NBD clients read, byte for byte, over TCP and
// over a unix socket, and to nobody else.
func TestAttach(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]harness.Options{"tcp": {NBD: true}, "unix": {NBDUnix: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, opts)
			for _, key := range []string{"a.raw", "a.zvhd2"} {
				disk := harness.Disk(11, 24)
				put(t, s, key, disk)
				image := s.Import(t, harness.Request(key, "disks:"+key))
				a := s.Attach(t, image)

				var info struct {
					Exports []struct {
						Size     int64 `json:"export-size"`
						ReadOnly bool  `json:"is_read_only"`
						Multi    bool  `json:"can_multi_conn"`
						Cache    bool  `json:"can_cache"`
						Contexts []string
					}
				}
				if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", a.URI)), &info); err != nil || len(info.Exports) != 1 {
					t.Fatalf("nbdinfo: %v, %+v", err, info)
				}
				if e := info.Exports[0]; e.Size < int64(len(disk)) || !e.ReadOnly || !e.Multi || !e.Cache || len(e.Contexts) != 1 || e.Contexts[0] != "base:allocation" {
					t.Errorf("nbdinfo says %+v", e)
				}
				file := diskFile(t, disk)
				run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.URI, file)
				out := filepath.Join(t.TempDir(), "copy.raw")
				run(t, "nbdcopy", a.URI, out)
				run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", out, file)

				// Who has no token learns nothing, whatever is wrong with it.
				token := a.URI[strings.LastIndex(strings.SplitN(a.URI, "?", 2)[0], "/")+1:][:32]
				flipped := "a" + token[1:]
				if token[0] == 'a' {
					flipped = "b" + token[1:]
				}
				refusals := map[string]bool{}
				for _, wrong := range []string{"", flipped, token[:31], token + "a", strings.ToUpper(token)} {
					said := fails(t, "nbdinfo", strings.Replace(a.URI, token, wrong, 1))
					if wrong != "" {
						said = strings.ReplaceAll(said, wrong, "TOKEN")
					}
					refusals[strings.ReplaceAll(said, a.URI, "URI")] = true
				}
				if len(refusals) > 2 { // one for the empty name, which libnbd words otherwise
					t.Errorf("wrong tokens are told apart: %v", refusals)
				}
				if said := run(t, "nbdinfo", "--list", strings.Replace(a.URI, token, "", 1)); strings.Contains(said, "export") {
					t.Errorf("a stranger is shown exports: %s", said)
				}
				if strings.Contains(s.Log(), token) {
					t.Error("the token is in the log")
				}
				s.Detach(t, a.ID)
				if said := strings.ReplaceAll(fails(t, "nbdinfo", a.URI), token, "TOKEN"); !refusals[strings.ReplaceAll(said, a.URI, "URI")] {
					t.Errorf("a token that ended is refused with %q, unknown ones with %v", said, refusals)
				}
			}
		})
	}
}

// TestAttachedImageStays: deletion is refused while an image is read, and force cuts
// the readers off.
func TestAttachedImageStays(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(12, 8))
	image := s.Import(t, harness.Request("a", "disks:a.zvhd2"))
	a := s.Attach(t, image)
	reader := open(t, a.URI)
	reader.mustRead(t)

	refused := s.Do(t, "DELETE", "/v2/images/"+image, nil)
	if code, _, details := refused.Error(); refused.Status != http.StatusConflict || code != "IMG.0035" || !strings.Contains(details, "attachments: 1,") {
		t.Fatalf("deletion of an attached image: %d %s", refused.Status, refused.Body)
	}
	reader.mustRead(t)
	if done := s.Do(t, "DELETE", "/v2/images/"+image, map[string]any{"force": true}); done.Status != http.StatusNoContent {
		t.Fatalf("by force: %d %s", done.Status, done.Body)
	}
	reader.isCut(t)
	fails(t, "nbdinfo", a.URI)
	harness.Eventually(t, "the image's bytes are gone", func() bool {
		return len(harness.Files(t, filepath.Join(s.Dir, "images"), imagearea.MarkKey)) == 0
	})
}

// TestAttachmentEnds: an open connection is cut when its attachment ends.
func TestAttachmentEnds(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(13, 8))
	image := s.Import(t, harness.Request("a", "disks:a.zvhd2"))
	kept, ended := s.Attach(t, image), s.Attach(t, image)
	keptReader, endedReader := open(t, kept.URI), open(t, ended.URI)
	keptReader.mustRead(t)
	endedReader.mustRead(t)
	s.Detach(t, ended.ID)
	endedReader.isCut(t)
	keptReader.mustRead(t)
}

// TestUnixSocket: a stale socket is replaced, one in use and what is none are not.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBDUnix: true})
	path := filepath.Join(s.Dir, "nbd.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v %v", info.Mode(), err)
	}
	refused := func(want string, listen string) {
		t.Helper()
		said := fails(t, harness.Binary(t), "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--nbd-listen", listen)
		if !strings.Contains(said, want) {
			t.Errorf("%s: %q, want %q in it", listen, said, want)
		}
	}
	refused("another process listens", "unix:"+path)
	refused("is no socket", "unix:"+diskFile(t, nil))
	refused("needs the path", "unix:")
	refused("a socket's may have 107", "unix:/"+strings.Repeat("x", 120))
	s.Kill(t)
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("a killed server leaves its socket: %v", err)
	}
	s.Restart(t, "")
}

// TestNBDNeedsTLS on an address that strangers reach, unless the operator says otherwise.
func TestNBDNeedsTLS(t *testing.T) {
	t.Parallel()
	said := fails(t, harness.Binary(t), "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--nbd-listen", "0.0.0.0:0")
	for _, want := range []string{"tls_cert", "nbd_require_tls: false", "127.0.0.1"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q does not name %s", said, want)
		}
	}
	s := harness.Start(t, harness.Options{Config: "nbd_listen: 0.0.0.0:0\nnbd_public: disks.example.com:10809\nnbd_require_tls: false\n"})
	if s.NBD != "nbd://disks.example.com:10809" {
		t.Errorf("the ready line says %q", s.NBD)
	}
}
