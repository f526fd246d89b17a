package s3face_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/s3face"
)

// TestLeftovers: a start removes what a killed process had under way, and what
// was given up long ago; a younger upload can be gone on with.
func TestLeftovers(t *testing.T) {
	for name, change := range map[string]func(*s3face.Config){
		"extended attributes": func(*s3face.Config) {},
		"sidecar files":       func(c *s3face.Config) { *c = s3face.WithoutXattr(*c) },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, change)
			c := minio.Core{Client: f.client(t, "alice-key")}
			makeBucket(t, c.Client, "images")
			put(t, c.Client, "images", "k", "content")
			begin := func(key string) (upload, folder, etag string) {
				upload, err := c.NewMultipartUpload(t.Context(), "images", key, minio.PutObjectOptions{ContentType: "x/" + key})
				must(t, err)
				part, err := c.PutObjectPart(t.Context(), "images", key, upload, 1, strings.NewReader("part"), 4, minio.PutObjectPartOptions{})
				must(t, err)
				return upload, filepath.Join(f.buckets, "images", ".sgwtmp", "multipart", fmt.Sprintf("%x", sha256.Sum256([]byte(key))), upload), part.ETag
			}
			old, oldFolder, _ := begin("old")
			young, youngFolder, youngETag := begin("young")
			cut, cutFolder, cutETag := begin("cut")
			must(t, f.stop())

			// What a process that is killed leaves.
			tmp := filepath.Join(f.buckets, "images", ".sgwtmp")
			hash := fmt.Sprintf("%x", sha256.Sum256([]byte("k")))
			litter := []string{filepath.Join(tmp, hash+".123"), filepath.Join(filepath.Dir(youngFolder), hash+".456"), oldFolder}
			for _, file := range litter[:2] {
				must(t, os.WriteFile(file, []byte("half"), 0o600))
			}
			begun := cutFolder + ".d9fbf59cecbdd6cc5c2ea6ce2f6b6fda-1.inprogress"
			must(t, os.Rename(cutFolder, begun))
			if sidecar := filepath.Join(f.base, "meta", "sidecar"); strings.HasPrefix(name, "sidecar") {
				rel, err := filepath.Rel(f.buckets, cutFolder)
				must(t, err)
				must(t, os.Rename(filepath.Join(sidecar, rel), filepath.Join(sidecar, rel+strings.TrimPrefix(begun, cutFolder))))
			}
			// What is nobody's business.
			foreign := []string{filepath.Join(tmp, "notes"), filepath.Join(f.buckets, "images", hash+".123"), filepath.Join(f.base, "outside", hash+".123")}
			must(t, os.Mkdir(filepath.Join(f.base, "outside"), 0o700))
			for _, file := range foreign {
				must(t, os.WriteFile(file, []byte("content"), 0o600))
			}
			must(t, os.Mkdir(filepath.Join(f.buckets, "linked"), 0o700))
			must(t, os.Symlink(filepath.Join(f.base, "outside"), filepath.Join(f.buckets, "linked", ".sgwtmp")))
			longAgo := time.Now().Add(-8 * 24 * time.Hour)
			must(t, os.Chtimes(filepath.Join(oldFolder, "1"), longAgo, longAgo))
			must(t, os.Chtimes(oldFolder, longAgo, longAgo))
			must(t, os.Chtimes(youngFolder, longAgo, longAgo)) // its part is young

			// Not while another process serves the buckets: it may be its.
			restart := func(cfg *s3face.Config) {
				cfg.BucketsDir, cfg.MetaDir, cfg.Buckets = f.buckets, filepath.Join(f.base, "meta"), f.keeper
				change(cfg)
			}
			other, err := os.Open(filepath.Join(f.buckets, ".vgwlocks", "serving"))
			must(t, err)
			must(t, unix.Flock(int(other.Fd()), unix.LOCK_SH))
			must(t, start(t, restart).stop())
			for _, file := range append(litter, begun) {
				if _, err := os.Lstat(file); err != nil {
					t.Error(err)
				}
			}
			must(t, other.Close())

			again := start(t, restart)
			for _, file := range litter {
				if _, err := os.Lstat(file); !os.IsNotExist(err) {
					t.Errorf("%s: %v", file, err)
				}
			}
			for _, file := range foreign {
				if _, err := os.Lstat(file); err != nil {
					t.Error(err)
				}
			}
			c = minio.Core{Client: again.client(t, "alice-key")}
			_, err = c.ListObjectParts(t.Context(), "images", "old", old, 0, 10)
			if minio.ToErrorResponse(err).Code != "NoSuchUpload" {
				t.Errorf("the old upload: %v", err)
			}
			for key, upload := range map[string][2]string{"young": {young, youngETag}, "cut": {cut, cutETag}} {
				_, err := c.CompleteMultipartUpload(t.Context(), "images", key, upload[0], []minio.CompletePart{{PartNumber: 1, ETag: upload[1]}}, minio.PutObjectOptions{})
				if err != nil {
					t.Errorf("%s: %v", key, err)
					continue
				}
				wantContent(t, c.Client, "images", key, "part")
				if info, err := c.Client.StatObject(t.Context(), "images", key, minio.StatObjectOptions{}); err != nil || info.ContentType != "x/"+key {
					t.Errorf("%s: %+v, %v", key, info, err)
				}
			}
			wantContent(t, c.Client, "images", "k", "content")
		})
	}
}
