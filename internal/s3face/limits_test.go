package s3face_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/s3face"
)

// allow gives the face an allowance for the bucket data.
func allow(o allowance.Options) func(*s3face.Config) {
	return func(c *s3face.Config) {
		o.Folder = c.BucketsDir
		o.Buckets = func(context.Context, string) ([]string, error) { return []string{"data"}, nil }
		o.Images = func(context.Context, string) (int64, error) { return 1000, nil }
		c.Allowance = allowance.New(o)
	}
}

// A project's uploads, parts and copies end at its limit, over buckets and images; what
// it deletes makes room.
func TestQuotaOfBytes(t *testing.T) {
	t.Parallel()
	f := start(t, allow(allowance.Options{Bytes: 11_000}))
	put := func(path string, n int, headers ...string) (int, string) {
		return f.do(t, "alice-key", "PUT", path, make([]byte, n), headers...)
	}
	want := func(what string, status int, code string, wantStatus int) {
		t.Helper()
		if status != wantStatus || wantStatus == http.StatusRequestEntityTooLarge && code != "QuotaExceeded" {
			t.Errorf("%s: %d %s, want %d", what, status, code, wantStatus)
		}
	}
	if status, _ := put("/data", 0); status != http.StatusOK {
		t.Fatal("no bucket")
	}
	status, code := put("/data/a", 6000)
	want("an object", status, code, http.StatusOK)
	status, code = put("/data/b", 5000)
	want("an object beyond the limit", status, code, http.StatusRequestEntityTooLarge)
	status, code = put("/data/b", 0, "X-Amz-Copy-Source", "/data/a")
	want("a copy beyond the limit", status, code, http.StatusRequestEntityTooLarge)
	status, code = put("/data/b", 3000)
	want("what still fits", status, code, http.StatusOK)
	if status, code := f.do(t, "alice-key", "DELETE", "/data/a", nil); status != http.StatusNoContent {
		t.Fatalf("a deletion: %d %s", status, code)
	}
	for { // until the files are counted anew
		status, code = put("/data/d", 6000)
		if status == http.StatusOK {
			break
		}
		want("an object after a deletion", status, code, http.StatusRequestEntityTooLarge)
	}
}

// Uploads end before the disk of the database is full; deletions do not.
func TestReserve(t *testing.T) {
	t.Parallel()
	full := start(t, func(c *s3face.Config) {
		allow(allowance.Options{Disk: c.BucketsDir, Reserve: 1 << 60})(c)
	})
	if status, _ := full.do(t, "alice-key", "PUT", "/data", nil); status != http.StatusOK {
		t.Fatal("no bucket")
	}
	if status, code := full.do(t, "alice-key", "PUT", "/data/a", []byte("x")); status != http.StatusInsufficientStorage || code != "InsufficientStorage" {
		t.Errorf("an upload: %d %s", status, code)
	}
	if status, code := full.do(t, "alice-key", "DELETE", "/data/a", nil); status != http.StatusNoContent {
		t.Errorf("a deletion: %d %s", status, code)
	}
}

// A copy asks for the room of what it writes: a sparse disk file's holes take none.
func TestReserveOfCopies(t *testing.T) {
	t.Parallel()
	const size = 1 << 40
	for name, c := range map[string]struct {
		reserve int64
		headers []string
		want    int
	}{
		"a sparse file": {1, []string{"X-Amz-Copy-Source", "/data/sparse"}, http.StatusOK},
		"an object":     {1 << 60, []string{"X-Amz-Copy-Source", "/data/full"}, http.StatusInsufficientStorage},
		"part of data":  {1 << 60, []string{"X-Amz-Copy-Source", "/data/full", "X-Amz-Copy-Source-Range", "bytes=1-100"}, http.StatusInsufficientStorage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(cfg *s3face.Config) {
				allow(allowance.Options{Disk: cfg.BucketsDir, Reserve: c.reserve})(cfg)
			})
			client := f.client(t, "alice-key")
			makeBucket(t, client, "data")
			sparse := filepath.Join(f.buckets, "data", "sparse")
			must(t, os.WriteFile(sparse, nil, 0o600))
			must(t, os.Truncate(sparse, size))
			must(t, os.WriteFile(filepath.Join(f.buckets, "data", "full"), bytes.Repeat([]byte("x"), 10001), 0o600))
			path := "/data/copy"
			if len(c.headers) > 2 {
				core := minio.Core{Client: client}
				upload, err := core.NewMultipartUpload(t.Context(), "data", "copy", minio.PutObjectOptions{})
				must(t, err)
				path += "?partNumber=1&uploadId=" + upload
			}
			if status, code := f.do(t, "alice-key", "PUT", path, nil, c.headers...); status != c.want {
				t.Errorf("%d %s, want %d", status, code, c.want)
			}
		})
	}
}

// However many uploads of one project stall, another project's are served.
func TestProjectsShareRequests(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	for _, key := range []string{"alice", "bob"} {
		if status, code := f.do(t, key+"-key", "PUT", "/"+key+"s", nil); status != http.StatusOK {
			t.Fatal(status, code)
		}
	}
	refused := make(chan string, 200)
	for i := range 130 {
		body, send := io.Pipe()
		defer send.Close()
		req, err := http.NewRequestWithContext(t.Context(), "PUT", fmt.Sprintf("%s/alices/%d", f.url, i), body)
		must(t, err)
		req.ContentLength = 100
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		req = signer.SignV4(*req, "alice-key", "alice-secret", "", "eu-de")
		go func() {
			resp, err := f.transport.RoundTrip(req)
			if err != nil {
				return
			}
			defer resp.Body.Close()
			answer, _ := io.ReadAll(resp.Body)
			refused <- fmt.Sprint(resp.StatusCode, bytes.Contains(answer, []byte("SlowDown")))
		}()
	}
	for range 2 {
		select {
		case got := <-refused:
			if got != "503 true" {
				t.Errorf("beyond the share: %s", got)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("one project has more than half of the places")
		}
	}
	if status, code := f.do(t, "bob-key", "PUT", "/bobs/b", []byte("x")); status != http.StatusOK {
		t.Errorf("another project's upload: %d %s", status, code)
	}
}
