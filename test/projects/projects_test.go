// Package projects checks on a running server that a project sees, changes and
// infers nothing of another's, and that roles bound what a user may do.
package projects

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// account is a user that `quickims account add` made while the server runs.
type account struct {
	project, accessKey, secretKey, token string
}

func addAccount(t *testing.T, s *harness.Server, project, user, role string) account {
	t.Helper()
	return addIn(t, s, harness.DomainID, project, user, role)
}

func addIn(t *testing.T, s *harness.Server, domain, project, user, role string) account {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), "account", "add", "--json", "--data", s.Dir, "--domain", domain, "--project", project, "--user", user, "--role", role)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("account add: %v: %s", err, stderr.String())
	}
	env := map[string]string{}
	if err := json.Unmarshal(out, &env); err != nil {
		t.Fatal(err)
	}
	a := account{project: env["QUICKIMS_PROJECT_ID"], accessKey: env["QUICKIMS_ACCESS_KEY"], secretKey: env["QUICKIMS_SECRET_KEY"]}
	a.token = s.TokenIn(t, env["QUICKIMS_DOMAIN_ID"], user, env["QUICKIMS_PASSWORD"], a.project)
	return a
}

func s3Client(t *testing.T, s *harness.Server, accessKey, secretKey string) *minio.Client {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(s.S3URL, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: harness.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, s *harness.Server, token, method, path, body string) harness.Answer {
	t.Helper()
	var data []byte
	if body != "" {
		data = []byte(body)
	}
	a, err := s.Send(method, path, token, data)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

const (
	unknownImage = "00000000-1111-4222-8333-444444444444"
	unknownJob   = "00000000111142228333444444444444"
)

func TestAnotherProjectsThingsAreUnknown(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{S3: true})
	disk := harness.Disk(2, 2)
	s.PutFile(t, "handmade", "disk.raw", disk)
	s.PutFile(t, "handmade", "disk.mf", []byte("of another tool"))
	job := s.Accept(t, harness.Request("mine", "handmade:disk.raw"))
	image := s.Wait(t, job).Entities.ImageID
	b := addAccount(t, s, "other", "bob", "admin")

	// Every request names a thing of the first project once, and once one that nobody has.
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/v1/" + b.project + "/jobs/JOB", ""},
		{"GET", "/v2/images/IMAGE", ""},
		{"GET", "/v2/images/IMAGE/file", ""},
		{"DELETE", "/v2/images/IMAGE", ""},
		{"PATCH", "/v2/cloudimages/IMAGE", `[{"op":"replace","path":"/name","value":"stolen"}]`},
		{"GET", "/v2/cloudimages?id=IMAGE", ""},
		{"GET", "/v2/" + b.project + "/images/IMAGE/tags", ""},
		{"POST", "/v2/" + b.project + "/images/IMAGE/tags", `{"tag":{"key":"k","value":"v"}}`},
		{"POST", "/v2/" + b.project + "/images/IMAGE/tags/action", `{"action":"create","tags":[{"key":"k","value":"v"}]}`},
		{"DELETE", "/v2/" + b.project + "/images/IMAGE/tags/k", ""},
		{"POST", "/v1.0/enterprise-projects/0/resources-migrate", `{"project_id":"` + b.project + `","resource_id":"IMAGE","resource_type":"images"}`},
	} {
		foreign := strings.NewReplacer("IMAGE", image, "JOB", job)
		unknown := strings.NewReplacer("IMAGE", unknownImage, "JOB", unknownJob)
		got := send(t, s, b.token, r.method, foreign.Replace(r.path), foreign.Replace(r.body))
		want := send(t, s, b.token, r.method, unknown.Replace(r.path), unknown.Replace(r.body))
		body := bytes.ReplaceAll(bytes.ReplaceAll(got.Body, []byte(image), []byte(unknownImage)), []byte(job), []byte(unknownJob))
		if got.Status != want.Status || !bytes.Equal(body, want.Body) {
			t.Errorf("%s %s: a foreign id answers %d %s, an unknown one %d %s", r.method, r.path, got.Status, got.Body, want.Status, want.Body)
		}
	}
	for path, want := range map[string]string{
		"/v2/cloudimages":                           `{"images":[]}`,
		"/v2/" + b.project + "/images/tags":         `{"tags":[]}`,
		"/v1/" + harness.ProjectID + "/jobs/" + job: string(ims.CodeProjectMismatch),
	} {
		if a := send(t, s, b.token, "GET", path, ""); !strings.Contains(string(a.Body), want) {
			t.Errorf("GET %s: %d %s, want %s in it", path, a.Status, a.Body, want)
		}
	}

	// A bucket of another project answers as one that does not exist.
	importFrom := func(bucket string) harness.Answer {
		return send(t, s, b.token, "POST", harness.QuickImportPath,
			`{"name":"x","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"`+bucket+`:disk.raw","min_disk":1}`)
	}
	foreign, unknown := importFrom("handmade"), importFrom("nowhere1")
	if foreign.Status != http.StatusBadRequest || string(bytes.ReplaceAll(foreign.Body, []byte("handmade"), []byte("nowhere1"))) != string(unknown.Body) {
		t.Errorf("a foreign bucket answers %d %s, an unknown one %s", foreign.Status, foreign.Body, unknown.Body)
	}
	if code, _, _ := foreign.Error(); code != string(ims.CodeBucketAccess) {
		t.Errorf("code %s, want %s", code, ims.CodeBucketAccess)
	}

	// Over S3 too; and nobody can take a bucket over that the operator made.
	theirs := s3Client(t, s, b.accessKey, b.secretKey)
	if list, err := theirs.ListBuckets(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the other project lists %v (%v), want no bucket", list, err)
	}
	if err := theirs.MakeBucket(t.Context(), "handmade", minio.MakeBucketOptions{}); err == nil {
		t.Error("the other project made a bucket that was there")
	}
	if _, err := theirs.StatObject(t.Context(), "handmade", "disk.raw", minio.StatObjectOptions{}); err == nil {
		t.Error("the other project stats an object of the first")
	}
	if err := theirs.MakeBucket(t.Context(), "theirs", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.PutObject(t.Context(), "theirs", "disk.raw", bytes.NewReader(disk), int64(len(disk)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	refusedMine := s.Do(t, "POST", harness.QuickImportPath, harness.Request("x", "theirs:disk.raw"))
	if code, _, _ := refusedMine.Error(); code != string(ims.CodeBucketAccess) {
		t.Errorf("the first project imports from the other's bucket: %d %s", refusedMine.Status, refusedMine.Body)
	}
	mine := s3Client(t, s, harness.AccessKey, harness.SecretKey)
	if list, err := mine.ListBuckets(t.Context()); err != nil || len(list) != 1 || list[0].Name != "handmade" {
		t.Errorf("the first project lists %v (%v), want handmade alone", list, err)
	}
	s.CheckBytes(t, image, disk)
}

func TestReaderLooksOnly(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{S3: true})
	s.PutFile(t, "bucket", "disk.raw", harness.Disk(2, 2))
	s.PutFile(t, "bucket", "disk.mf", []byte("of another tool"))
	image := s.Import(t, harness.Request("image", "bucket:disk.raw"))
	r := addAccount(t, s, harness.ProjectID, "rita", "reader")
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v2/cloudimages", "", 200},
		{"GET", "/v2/images/" + image, "", 200},
		{"GET", "/v2/images/" + image + "/file", "", 200},
		{"GET", "/v1/cloudimages/quota", "", 200},
		{"GET", "/v2/" + harness.ProjectID + "/images/tags", "", 200},
		{"POST", harness.QuickImportPath, `{"name":"x","os_version":"Debian GNU/Linux 12.0.0 64bit","image_url":"bucket:disk.raw","min_disk":1}`, 403},
		{"POST", harness.QuickImportPath, `{"name":"x","type":"DataImage","image_url":"bucket:disk.raw","min_disk":1}`, 403},
		{"PATCH", "/v2/cloudimages/" + image, `[{"op":"replace","path":"/name","value":"x"}]`, 403},
		{"POST", "/v2/" + harness.ProjectID + "/images/" + image + "/tags", `{"tag":{"key":"k","value":"v"}}`, 403},
		{"POST", "/v1.0/enterprise-projects", `{"name":"x"}`, 403},
		{"DELETE", "/v2/images/" + image, "", 403},
	} {
		a := send(t, s, r.token, tt.method, tt.path, tt.body)
		code, message, _ := a.Error()
		if a.Status != tt.status || tt.status == 403 && (code != string(ims.CodeForbidden) || message != ims.CodeForbidden.Message()) {
			t.Errorf("%s %s: %d %.200s, want %d", tt.method, tt.path, a.Status, a.Body, tt.status)
		}
	}
	c := s3Client(t, s, r.accessKey, r.secretKey)
	if _, err := c.StatObject(t.Context(), "bucket", "disk.raw", minio.StatObjectOptions{}); err != nil {
		t.Errorf("a reader can't read the project's bucket: %v", err)
	}
	if _, err := c.PutObject(t.Context(), "bucket", "new", strings.NewReader("x"), 1, minio.PutObjectOptions{}); err == nil {
		t.Error("a reader writes to the project's bucket")
	}
}
