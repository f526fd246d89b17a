package cli

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/client"
)

// TestAnImportOfNothing: what is missing or empty is said to be that, with no word about
// flags, and the service is not asked.
func TestAnImportOfNothing(t *testing.T) {
	t.Parallel()
	u := newUploads(t, 1)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked: %s %s", r.Method, r.URL) }))
	defer service.Close()
	u.env[client.EnvEndpoint], u.env[client.EnvProjectID] = service.URL, "p"
	must(t, os.WriteFile(filepath.Join(u.Folder, u.bucket, "empty.raw"), nil, 0o600))
	for source, want := range map[string]string{
		"no-such-bucket:disk.raw": "there is no bucket no-such-bucket\n",
		u.bucket + ":disk.raw":    `there is no object "disk.raw" in the bucket ` + u.bucket + "\n",
		u.bucket + ":empty.raw":   "the object is empty; a disk file is wanted\n",
	} {
		var out, errs bytes.Buffer
		status := Main(t.Context(), []string{"import", source, "--name", "n", "--type", "DataImage"},
			Env{Stdout: &out, Stderr: &errs, Getenv: func(name string) string { return u.env[name] }})
		if status != StatusFailed || out.Len() > 0 || !strings.HasPrefix(errs.String(), "quickims: import "+source+": "+want) || strings.Contains(errs.String(), "min") {
			t.Errorf("%s: status %d, stdout %q, stderr %q", source, status, out.String(), errs.String())
		}
	}
}

// TestAnImportOfADiskOfNoImagesSize: that is said of the disk, not of a min_disk that
// nobody gave, and nobody is asked.
func TestAnImportOfADiskOfNoImagesSize(t *testing.T) {
	t.Parallel()
	for size, want := range map[uint64]string{0: "the disk has no bytes", 2 << 40: "the disk has 2199023255552 bytes; it must have at most 1099511627776 (1 TiB)"} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		must(t, os.WriteFile(path, qcow2Header(func(h []byte) {
			binary.BigEndian.PutUint64(h[24:], size)
			binary.BigEndian.PutUint32(h[36:], uint32((size+1<<29-1)>>29)) // l1_size: 512 MiB each
		}), 0o600))
		status, _, stderr := callService(t, func(_ http.ResponseWriter, r *http.Request, _ func()) { t.Errorf("asked: %s %s", r.Method, r.URL) },
			"import", path, "--name", "n", "--type", "DataImage")
		if status != StatusFailed || !strings.Contains(stderr, want) || strings.Contains(stderr, "min_disk") {
			t.Errorf("%d bytes: status %d, %q", size, status, stderr)
		}
	}
}
