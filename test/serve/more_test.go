package serve

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/test/harness"
)

// TestAttachmentExpires: when it is too old its connections are cut, though it is in use
// and lasts without an end, and its token is as unknown as one that never was.
func TestAttachmentExpires(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(41, 4))
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	r := open(t, a.URI)
	r.mustRead(t)
	// The smallest age is a minute: the clock of the row is put forward instead.
	changeRows(t, s, "UPDATE attachments SET ttl = 0, max_at = $1, expires_at = $1", time.Now().UnixMilli())
	r.isCut(t)
	token := strings.TrimPrefix(a.URI, s.NBD+"/")
	unknown := strings.Repeat("z", len(token))
	said := strings.ReplaceAll(fails(t, "nbdinfo", a.URI), token, "TOKEN")
	if other := strings.ReplaceAll(fails(t, "nbdinfo", s.NBD+"/"+unknown), unknown, "TOKEN"); other != said {
		t.Errorf("expired: %s; unknown: %s", said, other)
	}
	var list struct{ Attachments []any }
	s.Get(t, harness.AttachmentsPath, &list)
	if len(list.Attachments) != 0 {
		t.Errorf("listed: %v", list.Attachments)
	}
	// What has ended keeps no image.
	if answer := s.Do(t, "DELETE", "/v2/images/"+a.ImageID, nil); answer.Status != 204 {
		t.Errorf("deletion: %d %s", answer.Status, answer.Body)
	}
}

// changeRows changes the server's database behind its back.
func changeRows(t *testing.T, s *harness.Server, query string, args ...any) {
	t.Helper()
	db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(s.Dir, "quickims.db"), database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// TestTwoServers share a database: what is attached on one is served by both, and ended
// on both.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	url := harness.Postgres(t)
	first := harness.Start(t, harness.Options{NBD: true, Database: url})
	put(t, first, "a.raw", harness.Disk(42, 8))
	image := first.Import(t, harness.Request("a", "disks:a.raw"))

	second := secondServer(t, first, url)
	public := strings.TrimPrefix(first.NBD, "nbd://")
	// It names the address that it was told, and listens on its own.
	a := second.Attach(t, image)
	if !strings.HasPrefix(a.URI, first.NBD+"/") {
		t.Errorf("the URI is %s, nbd_public is %s", a.URI, public)
	}
	r := open(t, a.URI)
	r.mustRead(t)
	// Who is connected to one is known to the other.
	harness.Eventually(t, "the other server knows the client", func() bool {
		return shown(t, second, a.ID).Connections == 1
	})
	path := harness.AttachmentsPath + "/" + a.ID
	if refused := second.Do(t, "DELETE", path, nil); refused.Status != 409 || !strings.Contains(string(refused.Body), "1 connection from 127.0.0.1:") {
		t.Errorf("detached in use: %d %s", refused.Status, refused.Body)
	}
	r.mustRead(t)
	second.Detach(t, a.ID)
	r.isCut(t)

	b := first.Attach(t, image)
	run(t, "nbdinfo", "--size", b.URI)
	refused := second.Do(t, "DELETE", "/v2/images/"+image, nil)
	if refused.Status != 409 {
		t.Errorf("deletion on the other server: %d %s", refused.Status, refused.Body)
	}
}

// TestTLS: where it is required a client in clear learns nothing, and one that trusts
// the certificate reads.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := certificate(t)
	s := harness.Start(t, harness.Options{NBD: true, Config: fmt.Sprintf("nbd_require_tls: true\ntls_cert: %s/server-cert.pem\ntls_key: %s/server-key.pem\n", dir, dir)})
	if !strings.HasPrefix(s.NBD, "nbds://127.0.0.1:") {
		t.Fatalf("the ready line says %q", s.NBD)
	}
	disk := harness.Disk(43, 8)
	put(t, s, "a.zvhd2", disk)
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	run(t, "nbdinfo", "--size", a.URI+"?tls-certificates="+dir)
	fails(t, "nbdinfo", strings.Replace(a.URI, "nbds://", "nbd://", 1))
	host, token, _ := strings.Cut(strings.TrimPrefix(a.URI, "nbds://"), "/")
	run(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+dir, "--image-opts",
		fmt.Sprintf("driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=%s,file.export=%s,file.tls-creds=tls0", host[strings.Index(host, ":")+1:], token),
		"driver=raw,file.driver=file,file.filename="+diskFile(t, disk))
}
