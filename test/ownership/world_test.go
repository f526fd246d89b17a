// Package ownership starts the server with databases, image areas and files that do not
// belong together: it refuses, says why, and no image is lost.
package ownership

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/objectstore/storetest"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	harness.Main(m)
}

// store is a real S3 server with a bucket of disks and a bucket of images.
type store struct {
	*storetest.Gateway
	disks, images string
	disk          []byte // what "disk.zvhd2" in disks holds
}

func newStore(t *testing.T) *store {
	t.Helper()
	g := storetest.StartGateway(t)
	s := &store{Gateway: g, disks: g.MakeBucket(t), images: g.MakeBucket(t), disk: harness.Disk(11, 4)}
	file := zvhd2Of(t, s.disk)
	if _, err := g.Client.PutObject(t.Context(), s.disks, "disk.zvhd2", bytes.NewReader(file), int64(len(file)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// zvhd2Of is a disk as ZVHD2.
func zvhd2Of(t *testing.T, disk []byte) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := zvhd2.Convert(t.Context(), &file, bytes.NewReader(disk), int64(len(disk)), zvhd2.ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// config is a service's configuration for the store, its image area below prefix.
func (s *store) config(prefix string) string {
	return fmt.Sprintf(`
s3:
  endpoint: %s
  access_key: %s
  secret_key: %s
  image_bucket: %s
  image_prefix: %q
  buckets:
    - {name: %s, projects: [%s]}
`, s.URL, s.AccessKey, s.SecretKey, s.images, prefix, s.disks, harness.ProjectID)
}

// options are those of a service on the store, its image area below prefix.
func (s *store) options(prefix string) harness.Options {
	return harness.Options{Config: s.config(prefix), Env: []string{"QUICKIMS_REGION=us-east-1"}}
}

// on are options for a data folder that is there.
func (s *store) on(dir, prefix string) harness.Options {
	o := s.options(prefix)
	o.Dir = dir
	return o
}

// with are options with a PostgreSQL database.
func (s *store) with(database string) harness.Options {
	o := s.options("")
	o.Database = database
	return o
}

// objects lists the image bucket with each object's ETag, without owner marks.
func (s *store) objects(t *testing.T) []string {
	t.Helper()
	var out []string
	for o := range s.Client.ListObjects(t.Context(), s.images, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if !strings.HasSuffix(o.Key, imagearea.MarkKey) {
			out = append(out, o.Key+" "+o.ETag)
		}
	}
	return out
}

// mark is the owner mark below prefix.
func (s *store) mark(t *testing.T, prefix string) string {
	t.Helper()
	o, err := s.Client.GetObject(t.Context(), s.images, prefix+imagearea.MarkKey, minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	data, err := io.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// importDisk imports the store's disk.
func (s *store) importDisk(t *testing.T, server *harness.Server, name string) string {
	t.Helper()
	return server.Import(t, harness.Request(name, s.disks+":disk.zvhd2"))
}

// unchanged checks that the image bucket holds what it held.
func (s *store) unchanged(t *testing.T, before []string) {
	t.Helper()
	if now := s.objects(t); !slices.Equal(now, before) {
		t.Errorf("the image area holds\n%q\nand held\n%q", now, before)
	}
}

var id = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// wantRefusal checks that a refusal names count different ids, what probably happened
// and what to run.
func wantRefusal(t *testing.T, text string, ids int, parts ...string) {
	t.Helper()
	found := id.FindAllString(text, -1)
	slices.Sort(found)
	if n := len(slices.Compact(found)); n < ids {
		t.Errorf("%d ids are named, want %d:\n%s", n, ids, text)
	}
	for _, part := range append(parts, "robably", "Nothing was changed", "quickims fsck --take-over --data ") {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in the refusal:\n%s", part, text)
		}
	}
}

// copyFiles copies files of a data folder; what is not there is left out.
func copyFiles(t *testing.T, from, to string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// state is all of a data folder that a replica or a restored backup has.
var state = []string{"quickims.db", "quickims.db-wal", "seal.key", "credentials.env"}

// same checks that files of a folder are what they were.
func same(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	now := contents(t, dir)
	for name, was := range before {
		if now[name] != was {
			t.Errorf("%s was changed, from\n%q to\n%q", name, was, now[name])
		}
	}
	if _, ok := before["quickims.db"]; !ok && now["quickims.db"] != "" {
		t.Error("the refused start left a database")
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range state {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			out[name] = string(data)
		}
	}
	return out
}
