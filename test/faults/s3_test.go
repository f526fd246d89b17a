package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/test/harness"
)

const imageBucket = "quickims-images"

// s3Store is a real S3 server (another quickims' S3 face) behind a proxy that can add
// faults, and a quickims that keeps its images there.
type s3Store struct {
	*harness.Server
	client *minio.Client
	// header is added to answers whose path it fits; fail is how many requests
	// from now on are answered with 503.
	header atomic.Pointer[headerFault]
	fail   atomic.Int64
	// seen, if set, is called with each request before it is passed on.
	seen atomic.Pointer[func(*http.Request)]
}

type headerFault struct{ path, name, value string }

// newS3Store starts both. settings are further lines of the configuration's s3 section.
func newS3Store(t *testing.T, faults string, settings ...string) *s3Store {
	t.Helper()
	backend := harness.Start(t, harness.Options{S3: true})
	target, err := url.Parse(backend.S3URL)
	if err != nil {
		t.Fatal(err)
	}
	s := &s3Store{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if f := s.header.Load(); f != nil && r.Request.Method == http.MethodHead && strings.TrimSuffix(r.Request.URL.Path, "/") == f.path {
				r.Header.Set(f.name, f.value)
			}
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.fail.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if seen := s.seen.Load(); seen != nil {
			(*seen)(r)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	s.client, err = minio.New(target.Host, &minio.Options{
		Creds: credentials.NewStaticV4(harness.AccessKey, harness.SecretKey, ""), Region: harness.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bucket, "private", imageBucket} {
		if err := s.client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{Region: harness.Region}); err != nil {
			t.Fatal(err)
		}
	}
	s.Server = harness.Start(t, harness.Options{Faults: faults, Config: fmt.Sprintf(`
s3:
  endpoint: %s
  region: %s
  access_key: %s
  secret_key: %s
  image_bucket: %s
  %s
  buckets:
    - {name: %s, projects: [%s], exports: true}
    - {name: private, projects: [another-project]}
`, front.URL, harness.Region, harness.AccessKey, harness.SecretKey, imageBucket, strings.Join(settings, "\n  "), bucket, harness.ProjectID)})
	return s
}

func (s *s3Store) upload(t *testing.T, in, key string, data []byte) {
	t.Helper()
	_, err := s.client.PutObject(t.Context(), in, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// stored lists what the image bucket holds besides the owner mark.
func (s *s3Store) stored(t *testing.T) []string {
	t.Helper()
	var keys []string
	for o := range s.client.ListObjects(t.Context(), imageBucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if o.Key != imagearea.MarkKey {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// uploads lists the multipart uploads of the image bucket that did not end.
func (s *s3Store) uploads(t *testing.T) []string {
	t.Helper()
	var keys []string
	for u := range s.client.ListIncompleteUploads(t.Context(), imageBucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		keys = append(keys, u.Key)
	}
	return keys
}

func TestS3Store(t *testing.T) {
	t.Parallel()
	s := newS3Store(t, "")
	disk := harness.Disk(9, 6)
	s.upload(t, bucket, "disk.raw", disk)
	s.upload(t, bucket, "disk.mf", mfOf(t, disk))
	s.upload(t, bucket, "disk.zvhd2", zvhd2Of(t, disk))
	s.upload(t, "private", "disk.zvhd2", zvhd2Of(t, disk))

	ids := []string{
		s.Import(t, harness.Request("raw", bucket+":disk.raw")),
		s.Import(t, harness.Request("zvhd2", bucket+":disk.zvhd2")),
	}
	if keys := s.stored(t); len(keys) != 3 {
		t.Errorf("the image bucket holds %q, want two disks and a bitmap", keys)
	}
	for _, key := range []string{"disk.raw", "disk.mf"} {
		if err := s.client.RemoveObject(t.Context(), bucket, key, minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		s.CheckBytes(t, id, disk)
	}

	request := harness.Request("refused", bucket+":disk.zvhd2")
	for _, tt := range []struct {
		name   string
		url    string
		header *headerFault
		code   ims.Code
	}{
		{"bucket of another project", "private:disk.zvhd2", nil, ims.CodeBucketAccess},
		{"bucket that nobody named", "unnamed:disk.zvhd2", nil, ims.CodeBucketAccess},
		{"the image bucket", imageBucket + ":" + ids[0] + "/1/disk", nil, ims.CodeBucketAccess},
		{"cold bucket", "", &headerFault{"/" + bucket, "x-default-storage-class", "COLD"}, ims.CodeBucketAccess},
		{"warm bucket", "", &headerFault{"/" + bucket, "x-obs-storage-class", "WARM"}, ims.CodeBucketAccess},
		{"archived object", "", &headerFault{"/" + bucket + "/disk.zvhd2", "x-amz-storage-class", "GLACIER"}, ims.CodeBucketAccess},
		{"bucket of another region", "", &headerFault{"/" + bucket, "x-amz-bucket-region", "ap-elsewhere"}, ims.CodeRegion},
		{"missing object", bucket + ":none.zvhd2", nil, ims.CodeFile},
	} {
		s.header.Store(tt.header)
		body := request
		if tt.url != "" {
			body = harness.Request("refused", tt.url)
		}
		t.Log(tt.name)
		refused(t, s.Server, body, tt.code)
	}
	s.header.Store(nil)

	for _, id := range ids {
		if a := s.Do(t, "DELETE", "/v2/images/"+id, nil); a.Status != http.StatusNoContent {
			t.Fatalf("delete: %d: %s", a.Status, a.Body)
		}
	}
	harness.Eventually(t, "the image bucket is empty", func() bool { return len(s.stored(t)) == 0 })
}

// A store that is away for a moment makes a job late, not wrong.
func TestS3StoreAway(t *testing.T) {
	t.Parallel()
	s := newS3Store(t, "pin.done=stop")
	disk := harness.Disk(4, 4)
	s.upload(t, bucket, "disk.zvhd2", zvhd2Of(t, disk))
	job := s.Accept(t, harness.Request("late", bucket+":disk.zvhd2"))
	s.WaitStopped(t)
	s.fail.Store(20)
	s.Continue(t)
	got := s.Wait(t, job)
	if got.Status != "SUCCESS" {
		t.Fatalf("job %s: %s", got.Status, deref(got.FailReason))
	}
	if s.fail.Load() > 0 {
		t.Errorf("%d planned faults were not hit", s.fail.Load())
	}
	s.CheckBytes(t, got.Entities.ImageID, disk)

	s.fail.Store(1 << 30)
	refused503(t, s.Server, harness.Request("away", bucket+":disk.zvhd2"))
	s.fail.Store(0)
	if n := len(s.Images(t, "")); n != 1 {
		t.Errorf("%d images, the refused request left one", n)
	}
}

func refused503(t *testing.T, s *harness.Server, request any) {
	t.Helper()
	a := s.Do(t, "POST", harness.QuickImportPath, request)
	if code, _, details := a.Error(); a.Status != http.StatusServiceUnavailable || code != string(ims.CodeInternal) || !strings.Contains(details, "store") {
		t.Errorf("status %d: %s; want 503 %s that names the store", a.Status, a.Body, ims.CodeInternal)
	}
}
