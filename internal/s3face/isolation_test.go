package s3face_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/objectstore"
)

// call is a request to a bucket or object. BUCKET in its path stands for the
// bucket's name.
type call struct {
	method, path string
	body         string
	headers      []string
}

// calls are all that S3 can ask of a bucket and an object.
var calls = func() []call {
	all := []call{
		{method: http.MethodHead, path: "/BUCKET"},
		{method: http.MethodGet, path: "/BUCKET"},
		{method: http.MethodGet, path: "/BUCKET?list-type=2&prefix=k"},
		{method: http.MethodDelete, path: "/BUCKET"},
		{method: http.MethodPost, path: "/BUCKET?delete", body: "<Delete><Object><Key>k</Key></Object></Delete>"},

		{method: http.MethodHead, path: "/BUCKET/k"},
		{method: http.MethodGet, path: "/BUCKET/k"},
		{method: http.MethodGet, path: "/BUCKET/k?attributes", headers: []string{"X-Amz-Object-Attributes", "ETag"}},
		{method: http.MethodGet, path: "/BUCKET/k?uploadId=0e9b1d2c-5a0f-4a5e-8a43-0c5d1f3b7a11"},
		{method: http.MethodPut, path: "/BUCKET/k", body: "x"},
		{method: http.MethodPut, path: "/BUCKET/k?partNumber=1&uploadId=0e9b1d2c-5a0f-4a5e-8a43-0c5d1f3b7a11", body: "x"},
		{method: http.MethodPut, path: "/BUCKET/k", headers: []string{"X-Amz-Copy-Source", "/bobs/k"}},
		{method: http.MethodPut, path: "/bobs/stolen", headers: []string{"X-Amz-Copy-Source", "/BUCKET/k"}},
		{method: http.MethodPut, path: "/bobs/stolen", headers: []string{"X-Amz-Copy-Source", "BUCKET%2Fk"}},
		{method: http.MethodPut, path: "/bobs/stolen", headers: []string{"X-Amz-Copy-Source", "/bobs/../BUCKET/k"}},
		{method: http.MethodPut, path: "/bobs/stolen?partNumber=1&uploadId=UPLOAD", headers: []string{"X-Amz-Copy-Source", "/BUCKET/k"}},
		{method: http.MethodPut, path: "/bobs/stolen?partNumber=1&uploadId=UPLOAD", headers: []string{"X-Amz-Copy-Source", "/BUCKET/k", "X-Amz-Copy-Source-Range", "bytes=0-1"}},
		{method: http.MethodDelete, path: "/BUCKET/k"},
		{method: http.MethodDelete, path: "/BUCKET/k?uploadId=0e9b1d2c-5a0f-4a5e-8a43-0c5d1f3b7a11"},
		{method: http.MethodPost, path: "/BUCKET/k?uploads"},
		{method: http.MethodPost, path: "/BUCKET/k?uploadId=0e9b1d2c-5a0f-4a5e-8a43-0c5d1f3b7a11", body: "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"},
		{method: http.MethodPost, path: "/BUCKET/k?restore", body: "<RestoreRequest/>"},
		{method: http.MethodPost, path: "/BUCKET/k?select&select-type=2", body: "<SelectObjectContentRequest/>"},
		{method: http.MethodPost, path: "/BUCKET"},
		{method: http.MethodPatch, path: "/BUCKET"},
		{method: http.MethodPatch, path: "/BUCKET/create"},
	}
	for _, about := range []string{
		"acl", "policy", "policyStatus", "cors", "tagging", "versioning", "versions", "object-lock", "ownershipControls", "uploads", "location", "website",
		"lifecycle", "replication", "notification", "logging", "encryption", "publicAccessBlock", "requestPayment", "accelerate", "analytics&id=1",
		"inventory&id=1", "metrics&id=1", "intelligent-tiering&id=1", "select",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			all = append(all, call{method: method, path: "/BUCKET?" + about})
		}
	}
	for _, about := range []string{"acl", "tagging", "retention", "legal-hold", "torrent", "versionId=null"} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			all = append(all, call{method: method, path: "/BUCKET/k?" + about})
		}
	}
	return all
}()

func (c call) to(bucket, upload string) call {
	fill := strings.NewReplacer("BUCKET", bucket, "UPLOAD", upload)
	c.path = fill.Replace(c.path)
	c.headers = slices.Clone(c.headers)
	for i := range c.headers {
		c.headers[i] = fill.Replace(c.headers[i])
	}
	return c
}

// TestIsolation: whatever Bob asks of Alice's bucket, the answer is the one that
// a bucket gives which does not exist, and nothing of hers changes.
func TestIsolation(t *testing.T) {
	f := start(t, nil)
	alice, bob := f.client(t, "alice-key"), f.client(t, "bob-key")
	makeBucket(t, alice, "alices")
	put(t, alice, "alices", "k", "Alice's content")
	makeBucket(t, bob, "bobs")
	put(t, bob, "bobs", "k", "Bob's content")
	upload, err := minio.Core{Client: bob}.NewMultipartUpload(t.Context(), "bobs", "stolen", minio.PutObjectOptions{})
	must(t, err)

	for _, c := range calls {
		name := fmt.Sprintf("%s %s %v", c.method, c.path, c.headers)
		hers, none := c.to("alices", upload), c.to("nobodys", upload)
		status, code, answer := f.send(t, "bob-key", hers.method, hers.path, []byte(hers.body), hers.headers...)
		wantStatus, wantCode := f.do(t, "bob-key", none.method, none.path, []byte(none.body), none.headers...)
		if status < 400 || status == http.StatusInternalServerError {
			t.Errorf("%s: Bob gets %d %s", name, status, code)
		}
		if status != wantStatus || code != wantCode {
			t.Errorf("%s: %d %s; of a bucket that is not there %d %s", name, status, code, wantStatus, wantCode)
		}
		if bytes.Contains(answer, []byte("Alice")) || bytes.Contains(answer, []byte("<ID>alice")) {
			t.Errorf("%s: the answer tells: %s", name, answer)
		}
		// Nor does anybody without a key learn anything.
		status, _, answer = f.send(t, "", hers.method, hers.path, []byte(hers.body), hers.headers...)
		wantStatus, _ = f.do(t, "", none.method, none.path, []byte(none.body), none.headers...)
		if status < 400 || status != wantStatus || bytes.Contains(answer, []byte("Alice")) {
			t.Errorf("%s: without a key %d %s; of a bucket that is not there %d", name, status, answer, wantStatus)
		}
	}
	wantContent(t, alice, "alices", "k", "Alice's content")
	if got := list(t, alice, "alices", ""); !slices.Equal(got, []string{"k"}) {
		t.Errorf("Alice's bucket holds %q", got)
	}
	if got := list(t, bob, "bobs", ""); !slices.Equal(got, []string{"k"}) {
		t.Errorf("Bob's bucket holds %q", got)
	}
	for who, c := range map[string]*minio.Client{"alices": alice, "bobs": bob} {
		if all, err := c.ListBuckets(t.Context()); err != nil || len(all) != 1 || all[0].Name != who {
			t.Errorf("ListBuckets: %v, %v; want %s alone", all, err, who)
		}
	}
	if err := bob.MakeBucket(t.Context(), "alices", minio.MakeBucketOptions{}); minio.ToErrorResponse(err).Code != "BucketAlreadyExists" {
		t.Errorf("Bob makes Alice's bucket: %v", err)
	}
	if owner, err := f.keeper.Owner(t.Context(), "alices"); err != nil || owner != "alice" {
		t.Errorf("Alice's bucket belongs to %q: %v", owner, err)
	}
}

// TestNobodyOpensABucket: Alice herself has no way to let others in, by which a
// mistake of hers, or a page she was lured to, could.
func TestNobodyOpensABucket(t *testing.T) {
	f := start(t, nil)
	alice := f.client(t, "alice-key")
	makeBucket(t, alice, "alices")
	put(t, alice, "alices", "k", "Alice's content")
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::alices","arn:aws:s3:::alices/*"]}]}`
	const grantAll = `<AccessControlPolicy><Owner><ID>alice</ID></Owner><AccessControlList><Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>bob</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>`
	for _, c := range []call{
		{http.MethodPut, "/alices?policy", policy, nil},
		{http.MethodPut, "/alices?acl", grantAll, nil},
		{http.MethodPut, "/alices?acl", "", []string{"X-Amz-Acl", "public-read-write"}},
		{http.MethodPut, "/alices?acl", "", []string{"X-Amz-Grant-Full-Control", "bob"}},
		{http.MethodPut, "/alices/k?acl", grantAll, nil},
		{http.MethodPut, "/alices/k?acl", "", []string{"X-Amz-Acl", "public-read"}},
		{http.MethodPut, "/alices/k2", "x", []string{"X-Amz-Acl", "public-read"}},
		{http.MethodPut, "/alices?ownershipControls", `<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>`, nil},
		{http.MethodPut, "/alices?website", `<WebsiteConfiguration><IndexDocument><Suffix>k</Suffix></IndexDocument></WebsiteConfiguration>`, nil},
		{http.MethodPut, "/alices?cors", `<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>`, nil},
		{http.MethodPut, "/public", "", []string{"X-Amz-Acl", "public-read-write", "X-Amz-Object-Ownership", "ObjectWriter"}},
	} {
		status, code := f.do(t, "alice-key", c.method, c.path, []byte(c.body), c.headers...)
		t.Logf("%s %s %v: %d %s", c.method, c.path, c.headers, status, code)
		for _, bucket := range []string{"alices", "public"} {
			for _, path := range []string{"/" + bucket, "/" + bucket + "/k", "/" + bucket + "/k2"} {
				for _, who := range []string{"bob-key", ""} {
					for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
						if method != http.MethodGet && strings.Count(path, "/") == 1 {
							continue
						}
						if status, _ := f.do(t, who, method, path, nil); status < 400 {
							t.Errorf("after %s %s: %s %s by %q gives %d", c.method, c.path, method, path, who, status)
						}
					}
				}
			}
		}
	}
	wantContent(t, alice, "alices", "k", "Alice's content")
}

func TestAuthentication(t *testing.T) {
	f := start(t, nil)
	alice := f.client(t, "alice-key")
	makeBucket(t, alice, "images")
	put(t, alice, "images", "k", "content")
	for _, c := range []struct {
		name, key, method, path string
		headers                 []string
		status                  int
		code                    string
	}{
		{"unknown key", "nobody", http.MethodGet, "/images/k", nil, 403, "InvalidAccessKeyId"},
		{"keys cannot be looked up", "broken", http.MethodGet, "/images/k", nil, 500, "InternalError"},
		{"no key", "", http.MethodGet, "/images/k", nil, 403, "AccessDenied"},
		{"no key, list buckets", "", http.MethodGet, "/", nil, 403, "AccessDenied"},
		{"no key, upload", "", http.MethodPut, "/images/new", nil, 403, "AccessDenied"},
		{"no key, make a bucket", "", http.MethodPut, "/new-bucket", nil, 403, "AccessDenied"},
		{"the form of AWS's version 2", "", http.MethodGet, "/images/k", []string{"Authorization", "AWS alice-key:c2lnbmF0dXJl", "Date", time.Now().UTC().Format(http.TimeFormat)}, 403, "SignatureDoesNotMatch"},
	} {
		status, code := f.do(t, c.key, c.method, c.path, nil, c.headers...)
		if status != c.status || c.code != "" && code != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.name, status, code, c.status, c.code)
		}
	}
	if status, code, _ := f.sendWith(t, "alice-key", "bob-secret", http.MethodGet, "/images/k", nil); status != 403 || code != "SignatureDoesNotMatch" {
		t.Errorf("wrong secret: %d %s", status, code)
	}

	for _, key := range []string{"no-secret", "no-project", "nobody"} {
		for _, secret := range []string{"", keys[key].secret, "whatever"} {
			if status, code, _ := f.sendWith(t, key, secret, http.MethodGet, "/images/k", nil); status != 403 || secret != "" && code != "InvalidAccessKeyId" {
				t.Errorf("%s with secret %q: %d %s", key, secret, status, code)
			}
		}
	}

	// Both keys of the project are the project's.
	second := f.client(t, "alice-key2")
	wantContent(t, second, "images", "k", "content")
	put(t, second, "images", "k2", "second")
	must(t, alice.RemoveObject(t.Context(), "images", "k2", minio.RemoveObjectOptions{}))

	// One that only reads.
	reader := f.client(t, "alice-read")
	wantContent(t, reader, "images", "k", "content")
	if got := list(t, reader, "images", ""); !slices.Equal(got, []string{"k"}) {
		t.Errorf("listed %q", got)
	}
	upload, err := minio.Core{Client: alice}.NewMultipartUpload(t.Context(), "images", "part", minio.PutObjectOptions{})
	must(t, err)
	for _, c := range []call{
		{http.MethodPut, "/images/new", "x", nil},
		{http.MethodPut, "/images/new", "", []string{"X-Amz-Copy-Source", "/images/k"}},
		{http.MethodDelete, "/images/k", "", nil},
		{http.MethodDelete, "/images", "", nil},
		{http.MethodPut, "/new-bucket", "", nil},
		{http.MethodPost, "/images/new?uploads", "", nil},
		{http.MethodPut, "/images/part?partNumber=1&uploadId=" + upload, "x", nil},
		{http.MethodPut, "/images/part?partNumber=1&uploadId=" + upload, "", []string{"X-Amz-Copy-Source", "/images/k"}},
		{http.MethodPost, "/images/part?uploadId=" + upload, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>", nil},
		{http.MethodDelete, "/images/part?uploadId=" + upload, "", nil},
		{http.MethodPost, "/images?delete", "<Delete><Object><Key>k</Key></Object></Delete>", nil},
	} {
		if status, code := f.do(t, "alice-read", c.method, c.path, []byte(c.body), c.headers...); status != http.StatusForbidden {
			t.Errorf("%s %s by a key that only reads: %d %s", c.method, c.path, status, code)
		}
	}
	wantContent(t, alice, "images", "k", "content")
}

func TestNoAdministration(t *testing.T) {
	f := start(t, nil)
	for _, path := range []string{"/create-user", "/delete-user?access=alice-key", "/update-user?access=alice-key", "/list-users", "/change-bucket-owner?bucket=b&owner=bob", "/list-buckets", "/bucket/create"} {
		for _, key := range []string{"alice-key", ""} {
			if status, code := f.do(t, key, http.MethodPatch, path, []byte("<Account/>")); status != http.StatusNotImplemented && status != http.StatusForbidden {
				t.Errorf("PATCH %s by %q: %d %s", path, key, status, code)
			}
		}
	}
}

// TestUploadsAndImages: what S3 clients can do to an object leaves an image
// alone that the directory store made of it.
func TestUploadsAndImages(t *testing.T) {
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "images")
	put(t, c, "images", "disk.raw", "the image's content")
	store, err := objectstore.OpenDir(f.buckets, f.images)
	must(t, err)
	defer store.Close()
	from, image := objectstore.Location{Bucket: "images", Key: "disk.raw"}, objectstore.Location{Key: "1/data"}
	pinned, err := store.Stat(t.Context(), from)
	must(t, err)
	info, err := store.Adopt(t.Context(), from, pinned.Condition(), image, objectstore.AdoptOptions{})
	must(t, err)
	for _, call := range []call{
		{http.MethodGet, "/images/disk.raw", "", nil},
		{http.MethodPut, "/images/disk.raw?tagging", "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>", nil},
		{http.MethodDelete, "/images/disk.raw?tagging", "", nil},
		{http.MethodPut, "/images/disk.raw?retention", "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>", nil},
		{http.MethodPut, "/images/disk.raw?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>", nil},
		{http.MethodPut, "/images/disk.raw", "", []string{"X-Amz-Copy-Source", "/images/disk.raw", "X-Amz-Metadata-Directive", "REPLACE", "X-Amz-Meta-New", "1"}},
		{http.MethodPut, "/images/disk.raw", "", []string{"X-Amz-Copy-Source", "/images/disk.raw"}},
		{http.MethodPut, "/images/other.raw", "", []string{"X-Amz-Copy-Source", "/images/disk.raw"}},
		{http.MethodPut, "/images/disk.raw", "uploaded over it", nil},
		{http.MethodDelete, "/images/disk.raw", "", nil},
	} {
		status, code := f.do(t, "alice-key", call.method, call.path, []byte(call.body), call.headers...)
		t.Logf("%s %s %v: %d %s", call.method, call.path, call.headers, status, code)
		got := make([]byte, info.Size)
		if _, err := objectstore.NewReaderAt(t.Context(), store, image, info).ReadAt(got, 0); err != nil || string(got) != "the image's content" {
			t.Errorf("after %s %s: %q, %v", call.method, call.path, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.buckets, "images", "disk.raw")); !os.IsNotExist(err) {
		t.Errorf("the object was not deleted: %v", err)
	}
}
