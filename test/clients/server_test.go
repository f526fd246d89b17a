package clients

import (
	"bytes"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// bucket holds the sources of the imports.
const bucket = "clients"

// debian is an os_version that every table has.
const debian = "Debian GNU/Linux 12.0.0 64bit"

// site is a running server with sources in its bucket: system.raw, data.raw, each
// with the bitmap file that a quick import asks for.
type site struct {
	*harness.Server
	disk []byte
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Server: harness.Start(t, harness.Options{S3: true}), disk: harness.Disk(1, 4)}
	s.upload(t, map[string][]byte{
		"system.raw": s.disk, "system.mf": []byte("written by another tool"),
		"data.raw": s.disk, "data.mf": []byte("written by another tool"),
	})
	return s
}

// upload puts objects over S3 with the keys that sign the API's requests.
func (s *site) upload(t *testing.T, objects map[string][]byte) {
	t.Helper()
	endpoint, secure := strings.CutPrefix(s.S3URL, "https://")
	client, err := minio.New(strings.TrimPrefix(endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(harness.AccessKey, harness.SecretKey, ""), Secure: secure, Region: harness.Region,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{Region: harness.Region}); err != nil {
		t.Fatalf("make the bucket: %v", err)
	}
	for key, data := range objects {
		if _, err := client.PutObject(t.Context(), bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
			t.Fatalf("upload %s: %v", key, err)
		}
	}
}

// ptr is a pointer to a value, as the SDKs want optional fields.
func ptr[T any](v T) *T { return &v }
