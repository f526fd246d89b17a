package s3face_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// behindFront returns the same face reached by the socket of the gateway, where
// nothing that the front refuses is refused.
func (f *face) behindFront(t *testing.T) *face {
	t.Helper()
	dir, err := os.Open(filepath.Join(f.base, "meta"))
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	behind := *f
	behind.transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/s3.sock", dir.Fd()))
	}}
	t.Cleanup(behind.transport.CloseIdleConnections)
	return &behind
}

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

// TestUploadIDs: an upload's id is nothing but an upload's id, at the front and
// behind it.
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
	for where, f := range map[string]*face{"front": f, "behind it": f.behindFront(t)} {
		for _, id := range []string{
			"../../../../alices", "../../../../../images", "../../../../../images/7", "../../../../../buckets/alices", "../../../..", "../../../../..", "../../../../alices/",
			"..", ".", "./" + upload, "../" + own + "/" + upload, upload + "/", upload + "/.", "/" + upload, upload + "/1", upload + "/../" + upload,
			strings.ToUpper(upload), "{" + upload + "}", "urn:uuid:" + upload, strings.ReplaceAll(upload, "-", ""), upload + "\x00", upload + " ", "+" + upload,
			"../../../../alices/.sgwtmp/multipart/" + hash + "/" + hers, "/etc", f.images, "1", "%2e%2e/%2e%2e", `..\..`, strings.Repeat("x", 1000),
		} {
			for _, c := range []call{
				{method: http.MethodPut, path: "/bobs/k?partNumber=2&uploadId=", body: "x"},
				{method: http.MethodPut, path: "/bobs/k?partNumber=2&uploadId=", headers: []string{"X-Amz-Copy-Source", "/bobs/k"}},
				{method: http.MethodGet, path: "/bobs/k?uploadId="},
				{method: http.MethodPost, path: "/bobs/k?uploadId=", body: complete},
				{method: http.MethodDelete, path: "/bobs/k?uploadId="},
			} {
				name := fmt.Sprintf("%s: %s %s%q", where, c.method, c.path, id)
				status, code, answer := f.send(t, "bob-key", c.method, c.path+url.QueryEscape(id), []byte(c.body), c.headers...)
				if status != http.StatusNotFound || code != "NoSuchUpload" || bytes.Contains(answer, []byte("<PartNumber>")) {
					t.Errorf("%s: %d %s", name, status, code)
				}
			}
		}
	}
	sameTree(t, "hostile upload ids", want, look())

	// What the front cannot read, or reads twice, it does not pass on.
	for _, query := range []string{
		"uploadId=..;/../../../alices", "uploadId=%zz/../../../../alices", "uploadId=" + upload + "&uploadId=../../../../alices", "UPLOADID=../../../../alices",
		"uploadid=../../../../alices", "upload%49d=../../../../alices", "uploadId=", "uploadId",
	} {
		for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost, http.MethodPut, http.MethodHead} {
			status, _ := f.do(t, "", method, "/bobs/k?"+query, nil) // the signer would tidy it
			if status != http.StatusNotFound && status != http.StatusBadRequest {
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
