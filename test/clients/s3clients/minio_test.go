package s3clients

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quickims/quickims/test/harness"
)

// minioCases goes through minio-go, with signed chunks and with trailing checksums.
func minioCases(s *site, bucket string) []sdkCase {
	connect := func(t *testing.T, trailers bool) *minio.Client {
		t.Helper()
		u, err := url.Parse(s.endpoint)
		must(t, err)
		lookup := minio.BucketLookupPath
		if s.proxy != "" {
			lookup = minio.BucketLookupDNS
		}
		c, err := minio.New(u.Host, &minio.Options{
			Creds: credentials.NewStaticV4(harness.AccessKey, harness.SecretKey, ""), Secure: u.Scheme == "https",
			Region: harness.Region, Transport: s.http.Transport, TrailingHeaders: trailers, MaxRetries: 1, BucketLookup: lookup,
		})
		must(t, err)
		return c
	}
	put := func(t *testing.T, c *minio.Client, key string, body io.Reader, size int64, opts minio.PutObjectOptions) minio.UploadInfo {
		t.Helper()
		info, err := c.PutObject(t.Context(), bucket, key, body, size, opts)
		must(t, err)
		return info
	}
	get := func(t *testing.T, c *minio.Client, key string, opts minio.GetObjectOptions) []byte {
		t.Helper()
		o, err := c.GetObject(t.Context(), bucket, key, opts)
		must(t, err)
		defer o.Close()
		data, err := io.ReadAll(o)
		must(t, err)
		return data
	}
	keys := func(ctx context.Context, t *testing.T, c *minio.Client, opts minio.ListObjectsOptions) []string {
		t.Helper()
		var out []string
		for o := range c.ListObjects(ctx, bucket, opts) {
			must(t, o.Err)
			out = append(out, o.Key)
		}
		return out
	}
	upload := func(name string) func(t *testing.T) {
		return func(t *testing.T) {
			c, data := connect(t, false), s.file(t, name)
			put(t, c, "up/"+name, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
			wantBytes(t, name, get(t, c, "up/"+name, minio.GetObjectOptions{}), data)
		}
	}
	return []sdkCase{
		{"make a bucket", func(t *testing.T) {
			c := connect(t, false)
			must(t, c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{Region: harness.Region}))
			if there, err := c.BucketExists(t.Context(), bucket); err != nil || !there {
				t.Errorf("BucketExists: %v, %v", there, err)
			}
			if region, err := c.GetBucketLocation(t.Context(), bucket); err != nil || region != harness.Region {
				t.Errorf("GetBucketLocation: %q, %v", region, err)
			}
		}},
		{"upload 0 B", upload("0B")}, {"upload 3 B", upload("3B")}, {"upload 200 KB", upload("200KB")},
		{"upload 20 MB in parts", func(t *testing.T) {
			c, data := connect(t, false), s.file(t, "20MB")
			put(t, c, "up/20MB", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{PartSize: 5 << 20})
			wantBytes(t, "20MB", get(t, c, "up/20MB", minio.GetObjectOptions{}), data)
		}},
		{"upload a stream of unknown length", func(t *testing.T) {
			c := connect(t, false)
			for _, name := range []string{"0B", "3B", "20MB"} {
				data := s.file(t, name)
				put(t, c, "streamed", unsized(data), -1, minio.PutObjectOptions{PartSize: 5 << 20})
				wantBytes(t, name, get(t, c, "streamed", minio.GetObjectOptions{}), data)
			}
		}},
		{"upload with checksums", func(t *testing.T) {
			c := connect(t, true)
			for _, sum := range []minio.ChecksumType{minio.ChecksumCRC32, minio.ChecksumCRC32C, minio.ChecksumCRC64NVME, minio.ChecksumSHA1, minio.ChecksumSHA256} {
				for _, name := range sizes {
					data := s.file(t, name)
					put(t, c, "sum", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{Checksum: sum})
					info, err := c.StatObject(t.Context(), bucket, "sum", minio.StatObjectOptions{Checksum: true})
					must(t, err)
					got := map[minio.ChecksumType]string{
						minio.ChecksumCRC32: info.ChecksumCRC32, minio.ChecksumCRC32C: info.ChecksumCRC32C, minio.ChecksumCRC64NVME: info.ChecksumCRC64NVME,
						minio.ChecksumSHA1: info.ChecksumSHA1, minio.ChecksumSHA256: info.ChecksumSHA256,
					}[sum]
					if want := sum.EncodeToString(data); got != want {
						t.Errorf("%s, %s: the checksum is %q, want %q", sum, name, got, want)
					}
					if encoding := info.Metadata.Get("Content-Encoding"); encoding != "" {
						t.Errorf("%s, %s: Content-Encoding is %q", sum, name, encoding)
					}
					wantBytes(t, name, get(t, c, "sum", minio.GetObjectOptions{}), data)
				}
			}
		}},
		{"upload 20 MB in parts with checksums", func(t *testing.T) {
			c, data := connect(t, true), s.file(t, "20MB")
			for _, sum := range []minio.ChecksumType{minio.ChecksumCRC32C, minio.ChecksumSHA256, minio.ChecksumCRC64NVME} {
				put(t, c, "sum", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{PartSize: 5 << 20, Checksum: sum})
				wantBytes(t, sum.String(), get(t, c, "sum", minio.GetObjectOptions{}), data)
			}
		}},
		{"list in pages, with prefix and delimiter", func(t *testing.T) {
			c := connect(t, false)
			all := []string{"list/a", "list/b/1", "list/b/2", "list/c"}
			for _, key := range all {
				put(t, c, key, strings.NewReader(""), 0, minio.PutObjectOptions{})
			}
			for _, v1 := range []bool{false, true} {
				opts := minio.ListObjectsOptions{Prefix: "list/", Recursive: true, MaxKeys: 1, UseV1: v1}
				if got := keys(t.Context(), t, c, opts); !slices.Equal(got, all) {
					t.Errorf("version 1 is %v: listed %q", v1, got)
				}
				opts.Recursive = false
				if got, want := keys(t.Context(), t, c, opts), []string{"list/a", "list/b/", "list/c"}; !slices.Equal(got, want) {
					t.Errorf("version 1 is %v, with a delimiter: listed %q", v1, got)
				}
				opts.StartAfter = "list/b/1"
				opts.Recursive = true
				if got := keys(t.Context(), t, c, opts); !slices.Equal(got, all[2:]) {
					t.Errorf("version 1 is %v, after b/1: listed %q", v1, got)
				}
			}
		}},
		{"head", func(t *testing.T) {
			c, sum := connect(t, false), md5.Sum(s.file(t, "200KB"))
			info, err := c.StatObject(t.Context(), bucket, "up/200KB", minio.StatObjectOptions{})
			if err != nil || info.Size != 200_000 || info.ETag != hex.EncodeToString(sum[:]) {
				t.Errorf("StatObject: %+v, %v", info, err)
			}
			if _, err := c.StatObject(t.Context(), bucket, "none", minio.StatObjectOptions{}); minio.ToErrorResponse(err).Code != "NoSuchKey" {
				t.Errorf("an object that does not exist: %v", err)
			}
		}},
		{"get a range", func(t *testing.T) {
			c, data := connect(t, false), s.file(t, "200KB")
			opts := minio.GetObjectOptions{}
			must(t, opts.SetRange(1000, 1999))
			wantBytes(t, "bytes 1000 to 1999", get(t, c, "up/200KB", opts), data[1000:2000])
			opts = minio.GetObjectOptions{}
			must(t, opts.SetRange(0, -7))
			wantBytes(t, "the last 7 bytes", get(t, c, "up/200KB", opts), data[len(data)-7:])
		}},
		{"copy", func(t *testing.T) {
			c := connect(t, false)
			put(t, c, "meta", strings.NewReader("x"), 1, minio.PutObjectOptions{UserMetadata: map[string]string{"Name": "value"}, ContentType: "text/x-test"})
			src := minio.CopySrcOptions{Bucket: bucket, Object: "meta"}
			_, err := c.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: bucket, Object: "copied +%"}, src)
			must(t, err)
			info, err := c.StatObject(t.Context(), bucket, "copied +%", minio.StatObjectOptions{})
			if err != nil || info.UserMetadata["Name"] != "value" || info.ContentType != "text/x-test" {
				t.Errorf("the copy: %+v, %v", info, err)
			}
			_, err = c.ComposeObject(t.Context(), minio.CopyDestOptions{Bucket: bucket, Object: "composed"},
				minio.CopySrcOptions{Bucket: bucket, Object: "up/20MB"}, minio.CopySrcOptions{Bucket: bucket, Object: "up/200KB"})
			must(t, err)
			wantBytes(t, "composed", get(t, c, "composed", minio.GetObjectOptions{}), slices.Concat(s.file(t, "20MB"), s.file(t, "200KB")))
		}},
		{"presigned get", func(t *testing.T) {
			u, err := connect(t, false).PresignedGetObject(t.Context(), bucket, "up/200KB", time.Minute, url.Values{"response-content-type": {"text/x"}})
			must(t, err)
			wantBytes(t, "up/200KB", s.fetch(t, "GET", u.String(), nil, nil), s.file(t, "200KB"))
		}},
		{"presigned put", func(t *testing.T) {
			c := connect(t, false)
			u, err := c.PresignedPutObject(t.Context(), bucket, "presigned +%", time.Minute)
			must(t, err)
			s.fetch(t, "PUT", u.String(), s.file(t, "200KB"), nil)
			wantBytes(t, "presigned", get(t, c, "presigned +%", minio.GetObjectOptions{}), s.file(t, "200KB"))
		}},
		{"resume an upload", func(t *testing.T) {
			c, data := minio.Core{Client: connect(t, false)}, s.file(t, "20MB")
			id, err := c.NewMultipartUpload(t.Context(), bucket, "resumed", minio.PutObjectOptions{})
			must(t, err)
			const half = 10 << 20
			_, err = c.PutObjectPart(t.Context(), bucket, "resumed", id, 1, bytes.NewReader(data[:half]), half, minio.PutObjectPartOptions{})
			must(t, err)
			uploads, err := c.ListMultipartUploads(t.Context(), bucket, "resumed", "", "", "", 1000)
			must(t, err)
			if len(uploads.Uploads) != 1 || uploads.Uploads[0].UploadID != id {
				t.Errorf("uploads: %+v", uploads)
			}
			there, err := c.ListObjectParts(t.Context(), bucket, "resumed", id, 0, 1000)
			must(t, err)
			if len(there.ObjectParts) != 1 || there.ObjectParts[0].Size != half {
				t.Fatalf("parts: %+v", there)
			}
			second, err := c.PutObjectPart(t.Context(), bucket, "resumed", id, 2, bytes.NewReader(data[half:]), int64(len(data)-half), minio.PutObjectPartOptions{})
			must(t, err)
			_, err = c.CompleteMultipartUpload(t.Context(), bucket, "resumed", id, []minio.CompletePart{
				{PartNumber: 1, ETag: there.ObjectParts[0].ETag}, {PartNumber: 2, ETag: second.ETag},
			}, minio.PutObjectOptions{})
			must(t, err)
			wantBytes(t, "resumed", get(t, c.Client, "resumed", minio.GetObjectOptions{}), data)
		}},
		{"odd keys", func(t *testing.T) {
			c, want := connect(t, false), oddKeys()
			for _, key := range want {
				put(t, c, key, strings.NewReader(key), int64(len(key)), minio.PutObjectOptions{})
				wantBytes(t, key, get(t, c, key, minio.GetObjectOptions{}), []byte(key))
			}
			slices.Sort(want)
			for _, v1 := range []bool{false, true} {
				if got := keys(t.Context(), t, c, minio.ListObjectsOptions{Prefix: "odd/", Recursive: true, UseV1: v1}); !slices.Equal(got, want) {
					t.Errorf("version 1 is %v: listed %q, want %q", v1, got, want)
				}
			}
		}},
		{"delete one", func(t *testing.T) {
			c := connect(t, false)
			for range 2 {
				must(t, c.RemoveObject(t.Context(), bucket, "meta", minio.RemoveObjectOptions{}))
			}
			if _, err := c.StatObject(t.Context(), bucket, "meta", minio.StatObjectOptions{}); minio.ToErrorResponse(err).Code != "NoSuchKey" {
				t.Errorf("the deleted object: %v", err)
			}
		}},
		{"delete many", func(t *testing.T) {
			c := connect(t, false)
			for e := range c.RemoveObjects(t.Context(), bucket, c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}), minio.RemoveObjectsOptions{}) {
				t.Errorf("%s: %v", e.ObjectName, e.Err)
			}
			must(t, c.RemoveBucket(t.Context(), bucket))
		}},
	}
}
