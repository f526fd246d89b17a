package s3face_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/s3face"
)

// columns are the callers of the matrix: Alice, to whom the bucket belongs, another key of
// her project, one that only reads, Bob of another project, and who proves nothing: an
// unknown key, a wrong secret, a key without a project, no key.
var columns = [][]caller{
	{{"alice-key", "alice-secret"}}, {{"alice-key2", "alice-secret2"}}, {{"alice-read", "alice-secret3"}}, {{"bob-key", "bob-secret"}},
	{{"unknown", "secret"}, {"alice-key", "wrong"}, {"no-project", "secret"}, {"", ""}},
}

type caller struct{ key, secret string }

// matrix is what each caller is answered. BUCKET is Alice's bucket with the object k and
// the upload UPLOAD of the key u, whose part has the sum ETAG; NEW is no bucket yet. A
// request that is refused or that only reads changes no file; others have a bucket of
// their own.
var matrix = []struct {
	operation, call, body, header string
	// want are the statuses, in the order of columns.
	want string
}{
	{"ListBuckets", "GET /", "", "", "200 200 200 200 403"},
	{"CreateBucket", "PUT /NEW", "", "", "200 200 403 200 403"},
	{"CreateBucket", "PUT /BUCKET", "", "", "409 409 403 409 403"},
	{"HeadBucket", "HEAD /BUCKET", "", "", "200 200 200 404 403"},
	{"ListObjects", "GET /BUCKET", "", "", "200 200 200 404 403"},
	{"ListObjectsV2", "GET /BUCKET?list-type=2", "", "", "200 200 200 404 403"},
	{"ListObjectVersions", "GET /BUCKET?versions", "", "", "200 200 200 404 403"},
	{"ListMultipartUploads", "GET /BUCKET?uploads", "", "", "200 200 200 404 403"},
	{"GetBucketLocation", "GET /BUCKET?location", "", "", "200 200 200 404 403"},
	{"DeleteObjects", "POST /BUCKET?delete", `<Delete><Object><Key>k</Key></Object></Delete>`, "", "200 200 403 404 403"},
	{"PutObject", "PUT /BUCKET/new", "content", "", "200 200 403 404 403"},
	{"PutObject", "PUT /BUCKET/k", "other content", "", "200 200 403 404 403"},
	{"CopyObject", "PUT /BUCKET/copy", "", "X-Amz-Copy-Source /BUCKET/k", "200 200 403 404 403"},
	{"GetObject", "GET /BUCKET/k", "", "", "200 200 200 404 403"},
	{"HeadObject", "HEAD /BUCKET/k", "", "", "200 200 200 404 403"},
	{"GetObjectAttributes", "GET /BUCKET/k?attributes", "", "X-Amz-Object-Attributes ETag", "200 200 200 404 403"},
	{"DeleteObject", "DELETE /BUCKET/k", "", "", "204 204 403 404 403"},
	{"CreateMultipartUpload", "POST /BUCKET/v?uploads", "", "", "200 200 403 404 403"},
	{"UploadPart", "PUT /BUCKET/u?partNumber=2&uploadId=UPLOAD", "part", "", "200 200 403 404 403"},
	{"UploadPartCopy", "PUT /BUCKET/u?partNumber=2&uploadId=UPLOAD", "", "X-Amz-Copy-Source /BUCKET/k", "200 200 403 404 403"},
	{"ListParts", "GET /BUCKET/u?uploadId=UPLOAD", "", "", "200 200 200 404 403"},
	{"CompleteMultipartUpload", "POST /BUCKET/u?uploadId=UPLOAD", `<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>ETAG</ETag></Part></CompleteMultipartUpload>`, "", "200 200 403 404 403"},
	{"AbortMultipartUpload", "DELETE /BUCKET/u?uploadId=UPLOAD", "", "", "204 204 403 404 403"},
	{"DeleteBucket", "DELETE /BUCKET", "", "", "409 409 403 404 403"},
	{"GetBucketVersioning", "GET /BUCKET?versioning", "", "", "200 200 200 404 403"},
	{"GetBucketAcl", "GET /BUCKET?acl", "", "", "200 200 200 404 403"},
	{"GetBucketLogging", "GET /BUCKET?logging", "", "", "200 200 200 404 403"},
	{"GetBucketNotification", "GET /BUCKET?notification", "", "", "200 200 200 404 403"},
	{"GetBucketAccelerate", "GET /BUCKET?accelerate", "", "", "200 200 200 404 403"},
	{"GetBucketRequestPayment", "GET /BUCKET?requestPayment", "", "", "200 200 200 404 403"},
	{"GetBucketOwnershipControls", "GET /BUCKET?ownershipControls", "", "", "200 200 200 404 403"},
	{"GetObjectAcl", "GET /BUCKET/k?acl", "", "", "200 200 200 404 403"},
	{"GetObjectTagging", "GET /BUCKET/k?tagging", "", "", "200 200 200 404 403"},
	{"GetObjectRetention", "GET /BUCKET/k?retention", "", "", "404 404 404 404 403"},
	{"GetObjectLegalHold", "GET /BUCKET/k?legal-hold", "", "", "404 404 404 404 403"},
	{"GetBucket policy", "GET /BUCKET?policy", "", "", "404 404 404 404 403"},
	{"GetBucket policyStatus", "GET /BUCKET?policyStatus", "", "", "404 404 404 404 403"},
	{"GetBucket cors", "GET /BUCKET?cors", "", "", "404 404 404 404 403"},
	{"GetBucket lifecycle", "GET /BUCKET?lifecycle", "", "", "404 404 404 404 403"},
	{"GetBucket encryption", "GET /BUCKET?encryption", "", "", "404 404 404 404 403"},
	{"GetBucket object-lock", "GET /BUCKET?object-lock", "", "", "404 404 404 404 403"},
	{"GetBucket replication", "GET /BUCKET?replication", "", "", "404 404 404 404 403"},
	{"GetBucket tagging", "GET /BUCKET?tagging", "", "", "404 404 404 404 403"},
	{"GetBucket website", "GET /BUCKET?website", "", "", "404 404 404 404 403"},
	{"GetBucket publicAccessBlock", "GET /BUCKET?publicAccessBlock", "", "", "404 404 404 404 403"},
}

// TestMatrix: each operation as each caller.
func TestMatrix(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	alice := f.client(t, "alice-key")
	made := 0
	// fresh makes a bucket as the matrix speaks of, and fills in its names.
	fresh := func() *strings.Replacer {
		made++
		bucket := fmt.Sprintf("bucket-%d", made)
		makeBucket(t, alice, bucket)
		put(t, alice, bucket, "k", "Alice's content")
		core := minio.Core{Client: alice}
		upload, err := core.NewMultipartUpload(t.Context(), bucket, "u", minio.PutObjectOptions{})
		must(t, err)
		part, err := core.PutObjectPart(t.Context(), bucket, "u", upload, 1, strings.NewReader("part"), 4, minio.PutObjectPartOptions{})
		must(t, err)
		return strings.NewReplacer("BUCKET", bucket, "UPLOAD", upload, "ETAG", part.ETag, "NEW", fmt.Sprintf("new-%d", made))
	}
	hers := fresh()
	missing := slices.Clone(s3face.Operations())
	for _, row := range matrix {
		want := strings.Fields(strings.ReplaceAll(row.want, "|", ""))
		method, path, _ := strings.Cut(row.call, " ")
		header := strings.Fields(row.header)
		r := httptest.NewRequest(method, hers.Replace(path), nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		if got := s3face.OperationOf(r); got != row.operation {
			t.Errorf("%s is %q, not %s", row.call, got, row.operation)
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == row.operation })
		var seen []string
		for i, callers := range columns {
			for n, c := range callers {
				expected := 0
				if i < len(want) {
					expected, _ = strconv.Atoi(want[i])
				}
				fill, leaves := hers, expected >= 300 || method == http.MethodGet || method == http.MethodHead
				if !leaves {
					fill = fresh()
				}
				before := ""
				if leaves {
					before = f.tree(t)
				}
				headers := slices.Clone(header)
				for j := range headers {
					headers[j] = fill.Replace(headers[j])
				}
				status, code, _ := f.sendWith(t, c.key, c.secret, method, fill.Replace(path), []byte(fill.Replace(row.body)), headers...)
				if n == 0 || strconv.Itoa(status) != seen[len(seen)-1] {
					seen = append(seen, strconv.Itoa(status))
				}
				if leaves && f.tree(t) != before {
					t.Errorf("%s by %q: %d %s, and files changed", row.call, c.key, status, code)
				}
			}
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%s: %s: %q; want %q", row.operation, row.call, strings.Join(seen, " "), row.want)
		}
	}
	if len(missing) > 0 {
		t.Errorf("operations without a row, say what each caller is answered: %v", missing)
	}
}

// tree is all that lies in the face's folders: names, sizes, times of change and bytes.
func (f *face) tree(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	must(t, filepath.WalkDir(f.base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, path, info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum.Write(data)
		}
		return nil
	}))
	return string(sum.Sum(nil))
}
