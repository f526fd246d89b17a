package s3face_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/s3face"
)

// tree describes what lies under a folder, except where skip says so: names,
// kinds, sizes and contents.
func tree(t *testing.T, root string, skip func(rel string) bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		all[rel] = d.Type().String()
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[rel] += fmt.Sprintf(" %d %x", len(content), sha256.Sum256(content))
		}
		return nil
	}))
	return all
}

func sameTree(t *testing.T, after string, want, got map[string]string) {
	t.Helper()
	for name, is := range want {
		if got[name] != is {
			t.Errorf("after %s: %s was %q, is %q", after, name, is, got[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("after %s: %s is new", after, name)
		}
	}
}

// surround puts around Bob's buckets what he must not touch: Alice's bucket
// with an object, one with the number of a part as its key, and an upload; an
// image; and files beside. It returns the tree of all that is not Bob's, and
// Alice's upload.
func surround(t *testing.T, f *face) (look func() map[string]string, upload string) {
	t.Helper()
	alice, bob := f.client(t, "alice-key"), f.client(t, "bob-key")
	makeBucket(t, alice, "alices")
	put(t, alice, "alices", "canary", "canary")
	put(t, alice, "alices", "1", "canary")
	core := minio.Core{Client: alice}
	upload, err := core.NewMultipartUpload(t.Context(), "alices", "canary", minio.PutObjectOptions{})
	must(t, err)
	_, err = core.PutObjectPart(t.Context(), "alices", "canary", upload, 1, strings.NewReader("canary"), 6, minio.PutObjectPartOptions{})
	must(t, err)
	must(t, os.Mkdir(filepath.Join(f.images, "7"), 0o700))
	must(t, os.WriteFile(filepath.Join(f.images, "7", "1"), []byte("canary"), 0o600))
	must(t, os.WriteFile(filepath.Join(f.base, "1"), []byte("canary"), 0o600))
	must(t, os.WriteFile(filepath.Join(f.buckets, "1"), []byte("canary"), 0o600))
	makeBucket(t, bob, "bobs")
	put(t, bob, "bobs", "k", "Bob's content")
	return func() map[string]string {
		return tree(t, f.base, func(rel string) bool { return rel == filepath.Join("buckets", "bobs") })
	}, upload
}

// TestUploadIDs: an upload's id is nothing but an upload's id.
func TestUploadIDs(t *testing.T) {
	f := start(t, nil)
	look, hers := surround(t, f)
	want := look()
	bob := f.client(t, "bob-key")
	upload, err := minio.Core{Client: bob}.NewMultipartUpload(t.Context(), "bobs", "k", minio.PutObjectOptions{})
	must(t, err)
	_, err = minio.Core{Client: bob}.PutObjectPart(t.Context(), "bobs", "k", upload, 1, strings.NewReader("x"), 1, minio.PutObjectPartOptions{})
	must(t, err)
	own := fmt.Sprintf("%x", sha256.Sum256([]byte("k")))
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte("canary")))
	const complete = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>d9fbf59cecbdd6cc5c2ea6ce2f6b6fda</ETag></Part></CompleteMultipartUpload>"
	for _, id := range []string{
		"../../../../alices", "../../../../../images", "../../../../../images/7", "../../../../../buckets/alices", "../../../..", "../../../../..", "../../../../alices/",
		"..", ".", "./" + upload, "../" + own + "/" + upload, upload + "/", upload + "/.", "/" + upload, upload + "/1", upload + "/../" + upload,
		strings.ToUpper(upload), "{" + upload + "}", "urn:uuid:" + upload, upload + "\x00", upload + " ", "+" + upload,
		"../../../../alices/.sgwtmp/multipart/" + hash + "/" + hers, "/etc", f.images, "1", "%2e%2e/%2e%2e", `..\..`, strings.Repeat("x", 1000),
	} {
		for _, c := range []call{
			{method: http.MethodPut, path: "/bobs/k?partNumber=2&uploadId=", body: "x"},
			{method: http.MethodPut, path: "/bobs/k?partNumber=2&uploadId=", headers: []string{"X-Amz-Copy-Source", "/bobs/k"}},
			{method: http.MethodGet, path: "/bobs/k?uploadId="},
			{method: http.MethodPost, path: "/bobs/k?uploadId=", body: complete},
			{method: http.MethodDelete, path: "/bobs/k?uploadId="},
		} {
			name := fmt.Sprintf("%s %s%q", c.method, c.path, id)
			status, code, answer := f.send(t, "bob-key", c.method, c.path+url.QueryEscape(id), []byte(c.body), c.headers...)
			if status != http.StatusNotFound || code != "NoSuchUpload" || bytes.Contains(answer, []byte("<PartNumber>")) {
				t.Errorf("%s: %d %s", name, status, code)
			}
		}
	}
	sameTree(t, "hostile upload ids", want, look())

	// What cannot be read, or could be read in two ways, is refused.
	for _, query := range []string{
		"uploadId=..;/../../../alices", "uploadId=%zz/../../../../alices", "uploadId=" + upload + "&uploadId=../../../../alices", "UPLOADID=../../../../alices",
		"uploadid=../../../../alices", "upload%49d=../../../../alices", "uploadId=", "uploadId",
	} {
		for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost, http.MethodPut, http.MethodHead} {
			status, _ := f.do(t, "", method, "/bobs/k?"+query, nil) // the signer would tidy it
			if status != http.StatusForbidden && status != http.StatusBadRequest {
				t.Errorf("%s %s: %d", method, query, status)
			}
		}
	}
	sameTree(t, "hostile queries", want, look())
	parts, err := minio.Core{Client: bob}.ListObjectParts(t.Context(), "bobs", "k", upload, 0, 10)
	if err != nil || len(parts.ObjectParts) != 1 {
		t.Errorf("Bob's own upload: %+v, %v", parts, err)
	}
	_, err = minio.Core{Client: bob}.CompleteMultipartUpload(t.Context(), "bobs", "k", upload, []minio.CompletePart{{PartNumber: 1, ETag: parts.ObjectParts[0].ETag}}, minio.PutObjectOptions{})
	must(t, err)
	wantContent(t, bob, "bobs", "k", "x")
}

// TestHostileValues puts whatever might be taken for a path wherever a request
// can carry one. Nothing around Bob's bucket is read, listed, changed or
// removed.
func TestHostileValues(t *testing.T) {
	for name, change := range map[string]func(*s3face.Config){
		"extended attributes": nil,
		"sidecar files":       func(c *s3face.Config) { *c = s3face.WithoutXattr(*c) },
	} {
		t.Run(name, func(t *testing.T) { hostileValues(t, start(t, change), change == nil) })
	}
}

func hostileValues(t *testing.T, f *face, all bool) {
	look, _ := surround(t, f)
	bob := f.client(t, "bob-key")
	upload, err := minio.Core{Client: bob}.NewMultipartUpload(t.Context(), "bobs", "part", minio.PutObjectOptions{})
	must(t, err)
	outside := filepath.Join(f.base, "outside")
	must(t, os.Mkdir(outside, 0o700))
	must(t, os.WriteFile(filepath.Join(outside, "canary"), []byte("canary"), 0o600))
	links := func() { // Bob may remove them
		for name, to := range map[string]string{"link": outside, "inner": filepath.Join("..", "alices")} {
			if err := os.Symlink(to, filepath.Join(f.buckets, "bobs", name)); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
	}
	const document = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>d9fbf59cecbdd6cc5c2ea6ce2f6b6fda</ETag></Part></CompleteMultipartUpload>"
	// VALUE stands for the value as a query has it, RAW as it is, XML as a document has it.
	requests := []call{
		{method: http.MethodPost, path: "/bobs?delete", body: "<Delete><Object><Key>XML</Key></Object></Delete>"},
		{method: http.MethodPost, path: "/bobs?delete", body: "<Delete><Object><Key>k2</Key><VersionId>XML</VersionId></Object></Delete>"},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "VALUE"}},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "RAW"}},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "/bobs/VALUE"}},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "/bobs/RAW"}},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "/VALUE/canary"}},
		{method: http.MethodPut, path: "/bobs/copied", headers: []string{"X-Amz-Copy-Source", "/bobs/k?versionId=VALUE"}},
		{method: http.MethodPut, path: "/bobs/part?partNumber=1&uploadId=UPLOAD", headers: []string{"X-Amz-Copy-Source", "/bobs/VALUE"}},
		{method: http.MethodPut, path: "/bobs/part?partNumber=1&uploadId=UPLOAD", headers: []string{"X-Amz-Copy-Source", "VALUE"}},
		{method: http.MethodPut, path: "/bobs/part?partNumber=1&uploadId=UPLOAD", headers: []string{"X-Amz-Copy-Source", "/bobs/k?versionId=VALUE"}},
		{method: http.MethodPut, path: "/bobs/k2", body: "x", headers: []string{"X-Amz-Meta-Path", "RAW", "Content-Type", "RAW", "X-Amz-Website-Redirect-Location", "/VALUE"}},
		{method: http.MethodPut, path: "/bobs/part?partNumber=VALUE&uploadId=UPLOAD", body: "x"},
		{method: http.MethodPost, path: "/bobs/part?uploadId=UPLOAD", body: "<CompleteMultipartUpload><Part><PartNumber>XML</PartNumber><ETag>XML</ETag></Part></CompleteMultipartUpload>"},
		{method: http.MethodPost, path: "/bobs/part?uploadId=UPLOAD", body: "<CompleteMultipartUpload><Part><ETag>XML</ETag></Part></CompleteMultipartUpload>"},
		{method: http.MethodPost, path: "/bobs?VALUE", body: document},
		{method: http.MethodPost, path: "/bobs/k?restore&versionId=VALUE", body: "<RestoreRequest/>"},
		{method: http.MethodPost, path: "/bobs/k?select&select-type=2&versionId=VALUE", body: "<SelectObjectContentRequest><Expression>XML</Expression></SelectObjectContentRequest>"},
		{method: http.MethodGet, path: "/bobs/k?partNumber=VALUE"},
		{method: http.MethodGet, path: "/bobs/part?uploadId=UPLOAD&part-number-marker=VALUE"},
		{method: http.MethodGet, path: "/bobs/k?attributes&versionId=VALUE", headers: []string{"X-Amz-Object-Attributes", "ETag"}},
		{method: http.MethodGet, path: "/?prefix=VALUE&continuation-token=VALUE"},
	}
	for _, about := range []string{"", "tagging&", "acl&", "retention&", "legal-hold&", "torrent&"} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
			requests = append(requests, call{method: method, path: "/bobs/k2?" + about + "versionId=VALUE"})
		}
	}
	for _, list := range []string{"", "list-type=2&", "versions&", "uploads&"} {
		for _, by := range []string{
			"prefix", "delimiter", "marker", "key-marker", "upload-id-marker", "version-id-marker", "continuation-token", "start-after", "max-keys", "encoding-type",
			"prefix=VALUE&delimiter=/&marker", "delimiter=/&prefix", "start-after=VALUE&continuation-token",
		} {
			requests = append(requests, call{method: http.MethodGet, path: "/bobs?" + list + by + "=VALUE"})
		}
	}
	for _, path := range []string{"/bobs/VALUE", "/bobs/VALUE/", "/bobs/VALUE/canary", "/bobs/x/VALUE", "/VALUE", "/VALUE/canary"} {
		for _, query := range []string{"", "?tagging", "?uploads", "?partNumber=1&uploadId=UPLOAD"} {
			if query != "" && !all {
				continue // metadata lies by the key alone
			}
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPost} {
				requests = append(requests, call{method: method, path: path + query})
			}
		}
	}
	values := []string{
		"../alices", "../alices/canary", "../alices/1", "../alices/", "..", "../..", "../../images/7/1", "../1", "../../1", "../../meta/records",
		"a/../../alices/canary", "./../alices/canary", "/../alices/canary", "//alices/canary", "%2e%2e/alices/canary", `..\alices\canary`,
		f.base + "/buckets/alices/canary", "link", "link/", "link/canary", "inner", "inner/", "inner/canary", "inner/1", ".sgwtmp/../../alices/canary", ".quickims/../../alices/canary", ".vgwlocks",
	}
	foreign := regexp.MustCompile(`<Key>(\.\.?/|\.sgwtmp|\.quickims|/|inner/|link/)`)
	want := look()
	for _, v := range values {
		fill := strings.NewReplacer("VALUE", url.QueryEscape(v), "RAW", v, "XML", v, "UPLOAD", upload)
		for _, c := range requests {
			c.path, c.body = fill.Replace(c.path), fill.Replace(c.body)
			c.headers = slices.Clone(c.headers)
			for i := range c.headers {
				c.headers[i] = fill.Replace(c.headers[i])
			}
			name := fmt.Sprintf("%s %s %v %s", c.method, c.path, c.headers, c.body)
			links()
			status, code, answer := f.send(t, "bob-key", c.method, c.path, []byte(c.body), c.headers...)
			// The word may come back as a part of what was asked for, not as an object's name or content.
			if status < 400 && (bytes.Equal(answer, []byte("canary")) || c.method == http.MethodGet && foreign.Match(answer)) {
				t.Errorf("%s: %d %.500s", name, status, answer)
			}
			if status == http.StatusInternalServerError {
				t.Errorf("%s: %d %s", name, status, code)
			}
		}
	}
	got := look()
	for name := range got { // what Bob's own uploads need beside his bucket
		if rel := filepath.ToSlash(name); strings.HasPrefix(rel, "buckets/.vgwlocks") || strings.HasPrefix(rel, "meta/records/bobs") {
			delete(got, name)
			delete(want, name)
		}
	}
	sameTree(t, "hostile values", want, got)
	for _, what := range []string{"copied", "k", "k2", "part"} {
		if content, err := os.ReadFile(filepath.Join(f.buckets, "bobs", what)); err == nil && bytes.Contains(content, []byte("canary")) {
			t.Errorf("%s holds a copy", what)
		}
	}
}

// TestCompletionOfNothing: what was never uploaded was not completed, though
// there is an object of that name; what was, may be said to be twice.
func TestCompletionOfNothing(t *testing.T) {
	f := start(t, nil)
	c := minio.Core{Client: f.client(t, "alice-key")}
	makeBucket(t, c.Client, "images")
	put(t, c.Client, "images", "k", "old")
	parts := []minio.CompletePart{{PartNumber: 1, ETag: "d9fbf59cecbdd6cc5c2ea6ce2f6b6fda"}}
	_, err := c.CompleteMultipartUpload(t.Context(), "images", "k", "0e9b1d2c-5a0f-4a5e-8a43-0c5d1f3b7a11", parts, minio.PutObjectOptions{})
	if minio.ToErrorResponse(err).Code != "NoSuchUpload" {
		t.Errorf("an upload that never was: %v", err)
	}
	upload, err := c.NewMultipartUpload(t.Context(), "images", "k", minio.PutObjectOptions{})
	must(t, err)
	part, err := c.PutObjectPart(t.Context(), "images", "k", upload, 1, strings.NewReader("new"), 3, minio.PutObjectPartOptions{})
	must(t, err)
	parts[0].ETag = part.ETag
	for range 2 {
		_, err = c.CompleteMultipartUpload(t.Context(), "images", "k", upload, parts, minio.PutObjectOptions{})
		must(t, err)
	}
	wantContent(t, c.Client, "images", "k", "new")
}
