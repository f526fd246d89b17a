package s3face_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/s3face"
)

func TestClient(t *testing.T) {
	for name, change := range map[string]func(*s3face.Config){
		"extended attributes": nil,
		"sidecar files":       func(c *s3face.Config) { *c = s3face.WithoutXattr(*c) },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, change)
			ctx, c := t.Context(), f.client(t, "alice-key")
			makeBucket(t, c, "images")
			if err := c.MakeBucket(ctx, "images", minio.MakeBucketOptions{}); minio.ToErrorResponse(err).Code != "BucketAlreadyOwnedByYou" {
				t.Errorf("the same bucket again: %v", err)
			}
			keys := []string{"a.raw", "folder/b.raw", "folder/with space & ünï.raw", "z"}
			for _, key := range keys {
				put(t, c, "images", key, "content of "+key)
			}
			if got := list(t, c, "images", ""); !slices.Equal(got, keys) {
				t.Errorf("listed %q", got)
			}
			for _, key := range keys {
				wantContent(t, c, "images", key, "content of "+key)
				onDisk, err := os.ReadFile(filepath.Join(f.buckets, "images", key))
				if err != nil || string(onDisk) != "content of "+key {
					t.Errorf("%s on disk: %q, %v", key, onDisk, err)
				}
			}
			info, err := c.StatObject(ctx, "images", "a.raw", minio.StatObjectOptions{})
			if err != nil || info.Size != 16 || info.ETag != "2b26c73b7bf7d7f6b4e7b0e2f1b1e0a4" && len(info.ETag) != 32 {
				t.Errorf("StatObject: %+v, %v", info, err)
			}
			opts := minio.GetObjectOptions{}
			must(t, opts.SetRange(11, 13))
			must(t, opts.SetMatchETag(info.ETag))
			part, err := c.GetObject(ctx, "images", "a.raw", opts)
			must(t, err)
			defer part.Close()
			got, err := io.ReadAll(part)
			if err != nil || string(got) != "a.r" {
				t.Errorf("a range: %q, %v", got, err)
			}
			must(t, opts.SetMatchETag("another"))
			other, err := c.GetObject(ctx, "images", "a.raw", opts)
			must(t, err)
			defer other.Close()
			if _, err := io.ReadAll(other); minio.ToErrorResponse(err).StatusCode != http.StatusPreconditionFailed {
				t.Errorf("a condition that does not hold: %v", err)
			}
			_, err = c.CopyObject(ctx, minio.CopyDestOptions{Bucket: "images", Object: "copy"}, minio.CopySrcOptions{Bucket: "images", Object: keys[2]})
			must(t, err)
			wantContent(t, c, "images", "copy", "content of "+keys[2])

			u, err := c.PresignedGetObject(ctx, "images", "z", time.Minute, nil)
			must(t, err)
			resp, err := f.transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}})
			must(t, err)
			got, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != "content of z" {
				t.Errorf("a presigned URL: %d, %q, %v", resp.StatusCode, got, err)
			}

			if err := c.RemoveBucket(ctx, "images"); minio.ToErrorResponse(err).Code != "BucketNotEmpty" {
				t.Errorf("remove a bucket with objects: %v", err)
			}
			for _, key := range append(keys, "copy") {
				must(t, c.RemoveObject(ctx, "images", key, minio.RemoveObjectOptions{}))
			}
			must(t, c.RemoveBucket(ctx, "images"))
			if _, err := os.Stat(filepath.Join(f.buckets, "images")); !os.IsNotExist(err) {
				t.Errorf("the folder: %v", err)
			}
			if owner, err := f.keeper.Owner(t.Context(), "images"); !errors.Is(err, buckets.ErrNotFound) {
				t.Errorf("still owned by %q: %v", owner, err)
			}
			makeBucket(t, f.client(t, "bob-key"), "images") // it is free again
		})
	}
}

// TestMultipart uploads 130 MiB in parts, as clients do with disk images.
func TestMultipart(t *testing.T) {
	f := start(t, nil)
	ctx, c := t.Context(), f.client(t, "alice-key")
	makeBucket(t, c, "images")
	const size = 130 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := func() io.Reader {
		var s [32]byte
		copy(s[:], fmt.Sprint(seed))
		return io.LimitReader(rand.NewChaCha8(s), size)
	}
	_, err := c.PutObject(ctx, "images", "big.raw", random(), size, minio.PutObjectOptions{PartSize: 16 << 20, NumThreads: 3})
	must(t, err)
	want, got := sha256.New(), sha256.New()
	_, err = io.Copy(want, random())
	must(t, err)
	o, err := c.GetObject(ctx, "images", "big.raw", minio.GetObjectOptions{})
	must(t, err)
	defer o.Close()
	if n, err := io.Copy(got, o); err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	core := minio.Core{Client: c}
	upload, err := core.NewMultipartUpload(ctx, "images", "given-up.raw", minio.PutObjectOptions{})
	must(t, err)
	_, err = core.PutObjectPart(ctx, "images", "given-up.raw", upload, 1, strings.NewReader("part"), 4, minio.PutObjectPartOptions{})
	must(t, err)
	if got := list(t, c, "images", ""); !slices.Equal(got, []string{"big.raw"}) {
		t.Errorf("an unfinished upload is listed: %q", got)
	}
	must(t, core.AbortMultipartUpload(ctx, "images", "given-up.raw", upload))
}

// TestFilesByOtherMeans: what was copied into a bucket's folder is an object,
// and a folder that was made by hand is its owner's bucket.
func TestFilesByOtherMeans(t *testing.T) {
	f := start(t, nil)
	ctx, c := t.Context(), f.client(t, "alice-key")
	folder := filepath.Join(f.buckets, "by-hand")
	must(t, os.MkdirAll(filepath.Join(folder, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(folder, "sub", "copied.raw"), []byte("copied"), 0o644))
	must(t, os.WriteFile(filepath.Join(folder, "other.raw"), []byte("copied"), 0o644))
	sparse := filepath.Join(folder, "tebi.raw")
	must(t, os.WriteFile(sparse, nil, 0o644))
	must(t, os.Truncate(sparse, 1<<40))

	// It is nobody's yet: invisible, and not to be had by asking first.
	if there, err := c.BucketExists(ctx, "by-hand"); there || err != nil {
		t.Errorf("nobody's bucket: %v, %v", there, err)
	}
	if err := c.MakeBucket(ctx, "by-hand", minio.MakeBucketOptions{}); minio.ToErrorResponse(err).Code != "BucketAlreadyExists" {
		t.Errorf("nobody's bucket was claimed: %v", err)
	}
	_, err := f.keeper.Give(ctx, "by-hand", "alice", false)
	must(t, err)

	if got := list(t, c, "by-hand", ""); !slices.Equal(got, []string{"other.raw", "sub/copied.raw", "tebi.raw"}) {
		t.Errorf("listed %q", got)
	}
	if all, err := c.ListBuckets(ctx); err != nil || len(all) != 1 || all[0].Name != "by-hand" {
		t.Errorf("buckets %v, %v", all, err)
	}
	wantContent(t, c, "by-hand", "sub/copied.raw", "copied")
	etag := func(key string) string {
		t.Helper()
		info, err := c.StatObject(ctx, "by-hand", key, minio.StatObjectOptions{})
		must(t, err)
		if info.ETag == "" {
			t.Errorf("%s has no ETag", key)
		}
		for o := range c.ListObjects(ctx, "by-hand", minio.ListObjectsOptions{Prefix: key, Recursive: true}) {
			if o.Key == key && o.ETag != info.ETag {
				t.Errorf("%s has ETag %s in the listing, %s by itself", key, o.ETag, info.ETag)
			}
		}
		return info.ETag
	}
	if info, err := c.StatObject(ctx, "by-hand", "tebi.raw", minio.StatObjectOptions{}); err != nil || info.Size != 1<<40 {
		t.Errorf("a sparse file of 1 TiB: %+v, %v", info, err)
	}
	if etag("other.raw") == etag("sub/copied.raw") {
		t.Error("two files have one ETag")
	}
	before := etag("other.raw")
	must(t, os.WriteFile(filepath.Join(folder, "other.raw"), []byte("differs"), 0o644))
	if etag("other.raw") == before {
		t.Error("the ETag survived a write")
	}

	uploaded := put(t, c, "by-hand", "other.raw", "uploaded")
	if etag("other.raw") != uploaded.ETag {
		t.Error("an upload's ETag is not kept")
	}
	must(t, os.WriteFile(filepath.Join(folder, "other.raw"), []byte("written over the upload"), 0o644))
	if etag("other.raw") == uploaded.ETag {
		t.Error("the upload's ETag survived a write in place")
	}
}

// TestStrangeFiles: what is no plain file is no object, and hangs nobody.
func TestStrangeFiles(t *testing.T) {
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "images")
	put(t, c, "images", "file", "x")
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	in := func(name string) string { return filepath.Join(f.buckets, "images", name) }
	must(t, os.Symlink(filepath.Join(outside, "secret"), in("link")))
	must(t, os.Symlink(outside, in("folder-link")))
	must(t, unix.Mkfifo(in("pipe"), 0o600))
	if got := list(t, c, "images", ""); !slices.Equal(got, []string{"file"}) {
		t.Errorf("listed %q", got)
	}
	upload, err := minio.Core{Client: c}.NewMultipartUpload(t.Context(), "images", "parts", minio.PutObjectOptions{})
	must(t, err)
	for _, key := range []string{"link", "folder-link", "folder-link/secret", "pipe"} {
		if status, code := f.do(t, "alice-key", http.MethodPut, "/images/parts?partNumber=1&uploadId="+upload, nil, "X-Amz-Copy-Source", "/images/"+key); status != http.StatusNotFound {
			t.Errorf("copy of %s as a part: %d %s", key, status, code)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if status, code := f.do(t, "alice-key", method, "/images/"+key, nil); status != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, key, status, code)
			}
		}
		if status, code := f.do(t, "alice-key", http.MethodPut, "/images/copy", nil, "X-Amz-Copy-Source", "/images/"+key); status < 400 {
			t.Errorf("copy of %s: %d %s", key, status, code)
		}
	}
	if status, code := f.do(t, "alice-key", http.MethodPut, "/images/folder-link/new", []byte("x")); status < 400 {
		t.Errorf("upload through a link: %d %s", status, code)
	}
	if status, code := f.do(t, "alice-key", http.MethodDelete, "/images/folder-link/secret", nil); status != http.StatusNoContent {
		t.Errorf("deletion of a key that is not there: %d %s", status, code)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

func TestHostileKeys(t *testing.T) {
	f := start(t, nil)
	alice, bob := f.client(t, "alice-key"), f.client(t, "bob-key")
	makeBucket(t, alice, "images")
	put(t, alice, "images", "a/b", "alice's")
	makeBucket(t, bob, "bobs")
	put(t, bob, "bobs", "secret", "bob's")
	for _, key := range []string{
		"../bobs/secret", "..%2fbobs%2fsecret", "a/../../bobs/secret", "a%2f..%2f..%2fbobs%2fsecret", "%2e%2e/bobs/secret", "./../bobs/secret",
		"/../bobs/secret", "//bobs/secret", "a//b", "a/../a/b", "a/./b", ".sgwtmp/multipart", ".sgwtmp/x", "nul%00nul",
		"%ff%fe", strings.Repeat("x", 300), strings.Repeat("x/", 600),
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
			status, code, answer := f.send(t, "alice-key", method, "/images/"+key, nil)
			if status < 400 || status >= 500 || bytes.Contains(answer, []byte("bob's")) {
				t.Errorf("%s %.60s: %d %s %.100s", method, key, status, code, answer)
			}
		}
		if status, code := f.do(t, "alice-key", http.MethodPut, "/images/stolen", nil, "X-Amz-Copy-Source", "/images/"+key); status < 400 || status >= 500 {
			t.Errorf("copy from %.60s: %d %s", key, status, code)
		}
	}
	wantContent(t, bob, "bobs", "secret", "bob's")
	wantContent(t, alice, "images", "a/b", "alice's")
	for _, name := range []string{".vgwlocks", "..", "ab", "UPPER", "under_score", "dot..dot"} {
		if status, code := f.do(t, "alice-key", http.MethodPut, "/"+name, nil); status < 400 || status >= 500 {
			t.Errorf("bucket %s: %d %s", name, status, code)
		}
		if status, code := f.do(t, "alice-key", http.MethodGet, "/"+name, nil); status < 400 || status >= 500 {
			t.Errorf("list %s: %d %s", name, status, code)
		}
	}
}

// TestS3cmd drives Debian's s3cmd.
func TestS3cmd(t *testing.T) {
	s3cmd, err := exec.LookPath("s3cmd")
	if err != nil {
		t.Skip("needs s3cmd (Debian package s3cmd)")
	}
	f := start(t, nil)
	dir := t.TempDir()
	host := strings.TrimPrefix(f.url, "http://")
	want := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(s3cmd, append([]string{"--config=" + os.DevNull, "--access_key=alice-key", "--secret_key=alice-secret", "--no-ssl",
			"--host=" + host, "--host-bucket=" + host, "--no-progress"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("s3cmd %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB: four parts
	local := filepath.Join(dir, "disk image.raw")
	must(t, os.WriteFile(local, content, 0o600))
	want("mb", "s3://images")
	want("put", "--multipart-chunk-size-mb=5", local, "s3://images/folder/disk image.raw")
	want("put", local, "s3://images/small.raw", "--disable-multipart")
	if out := want("ls", "-r", "s3://images"); !strings.Contains(out, "folder/disk image.raw") || !strings.Contains(out, "small.raw") {
		t.Errorf("ls: %s", out)
	}
	back := filepath.Join(dir, "back.raw")
	want("get", "s3://images/folder/disk image.raw", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got back %d bytes, %v", len(got), err)
	}
	want("del", "-r", "--force", "s3://images/")
	want("rb", "s3://images")
}

// TestBrokenUpload: what a client did not finish is not there.
func TestBrokenUpload(t *testing.T) {
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "images")
	put(t, c, "images", "k", "old")
	broken := errors.New("the client's disk broke")
	_, err := c.PutObject(t.Context(), "images", "k", io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), failing{broken}), 2<<20, minio.PutObjectOptions{DisableMultipart: true})
	if !errors.Is(err, broken) {
		t.Errorf("upload: %v", err)
	}
	wantContent(t, c, "images", "k", "old")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
