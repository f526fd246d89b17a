package s3clients

import (
	"bytes"
	"io"
	"net/http"
	"path"
	"testing"

	"github.com/quickims/quickims/test/compat"
)

// sdk is a Go client that runs in this process.
type sdk struct {
	name   string
	module string
	// cases are what the client does with a bucket that does not exist yet, in order:
	// later ones use the objects of earlier ones.
	cases func(s *site, bucket string) []sdkCase
	// virtual: the client names buckets as hosts, through the proxy.
	virtual bool
}

type sdkCase struct {
	did string
	run func(t *testing.T)
}

var sdks = []sdk{
	{"minio-go", "github.com/minio/minio-go/v7", minioCases, false},
	{"minio-go (buckets as hosts)", "github.com/minio/minio-go/v7", minioCases, true},
	{"aws-sdk-go-v2", "github.com/aws/aws-sdk-go-v2/service/s3", awsCases, false},
	{"aws-sdk-go-v2 (buckets as hosts)", "github.com/aws/aws-sdk-go-v2/service/s3", awsCases, true},
	{"huaweicloud-sdk-go-obs (V4)", "github.com/huaweicloud/huaweicloud-sdk-go-obs", obsV4Cases, false},
	{"huaweicloud-sdk-go-obs (V4, buckets as hosts)", "github.com/huaweicloud/huaweicloud-sdk-go-obs", obsV4Cases, true},
	{"huaweicloud-sdk-go-obs (OBS)", "github.com/huaweicloud/huaweicloud-sdk-go-obs", obsCases, false},
	// Told to use path style, this SDK falls back to version 2 of AWS.
	{"huaweicloud-sdk-go-obs (V2)", "github.com/huaweicloud/huaweicloud-sdk-go-obs", obsV2Cases, false},
	{"huaweicloud-sdk-go-obs (OBS, buckets as hosts)", "github.com/huaweicloud/huaweicloud-sdk-go-obs", obsCases, true},
}

func TestSDKs(t *testing.T) {
	forTestClients(t)
	t.Parallel()
	for _, over := range []string{"http", "https"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, over)
			for _, k := range sdks {
				t.Run(k.name, func(t *testing.T) {
					t.Parallel()
					s := s
					if k.virtual {
						s = s.virtual(t)
					}
					client := compat.Client{Area: area, Name: k.name, Version: compat.ModuleVersion(t, k.module)}
					for _, c := range k.cases(s, bucketName(k.name)) {
						client.Run(t, compat.Case{Did: c.did, Over: s.over, Report: reports[c.did]}, c.run)
					}
				})
			}
		})
	}
}

// unsized hides a body's length and its seeking, as a pipe does.
func unsized(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }

// sizes are the files that are uploaded as one request.
var sizes = []string{"0B", "3B", "200KB"}

// oddKeys are keys with the names of oddNames, below odd/.
func oddKeys() []string {
	keys := make([]string, len(oddNames))
	for i, name := range oddNames {
		keys[i] = path.Join("odd", name)
	}
	return keys
}

// fetch sends a request to a presigned URL and returns the body of a 200 answer.
func (s *site) fetch(t *testing.T, method, url string, body []byte, header http.Header) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	must(t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := s.http.Do(req)
	must(t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: status %d: %s", method, url, res.StatusCode, data)
	}
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantBytes fails the test if what came back is not what was sent.
func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes came back, want %d; they differ from byte %d on", what, len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
