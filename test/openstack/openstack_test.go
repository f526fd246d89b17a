package openstack

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const images = "/image/v2/images"

// image is what the Image API says of one.
type image struct {
	ID, Name, Status, Visibility string
	Size                         *int64
	Checksum, DiskFormat         *string
	HashValue                    *string `json:"os_hash_value"`
}

// server is a running quickims.
type server struct{ *harness.Server }

// create makes a queued image and gives its id.
func (s server) create(t *testing.T, body string) string {
	t.Helper()
	a := s.Do(t, "POST", images, body)
	var img image
	if err := json.Unmarshal(a.Body, &img); err != nil || a.Status != http.StatusCreated {
		t.Fatalf("create: %d %s", a.Status, a.Body)
	}
	return img.ID
}

func (s server) show(t *testing.T, id string) (img image) {
	t.Helper()
	s.Get(t, images+"/"+id, &img)
	return img
}

// put sends bytes of unknown length, as clients do.
func (s server) put(t *testing.T, path string, body io.Reader) harness.Answer {
	t.Helper()
	a, err := s.tryPut(t, path, body)
	if err != nil {
		t.Fatalf("PUT %s: %v", path, err)
	}
	return a
}

func (s server) tryPut(t *testing.T, path string, body io.Reader) (harness.Answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", s.API+path, io.MultiReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", s.Token(t))
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return harness.Answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return harness.Answer{Status: res.StatusCode, Header: res.Header, Body: data}, err
}

// imageFiles are the files of the image area.
func (s server) imageFiles(t *testing.T) []string {
	t.Helper()
	return harness.Files(t, filepath.Join(s.Dir, "images"), ".quickims-owner")
}

// noBytes waits until the image area is empty: the clean-up is asynchronous.
func (s server) noBytes(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "the image area is empty", func() bool { return len(s.imageFiles(t)) == 0 })
}

// onBoth runs a test over SQLite and PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, opts harness.Options)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, harness.Options{})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, harness.Options{Database: harness.Postgres(t)})
	})
}

// writeFile writes a file of the test's own and gives its path.
func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func describe(a harness.Answer) string { return fmt.Sprintf("%d %s", a.Status, a.Body) }
