package s3clients

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-obs/obs"

	"github.com/quickims/quickims/test/harness"
)

func obsV4Cases(s *site, bucket string) []sdkCase {
	return casesOfOBS(s, bucket, obs.SignatureV4, s.proxy == "")
}

// obsCases leave the style to the client, which takes path style for an IP address.
func obsCases(s *site, bucket string) []sdkCase {
	return casesOfOBS(s, bucket, obs.SignatureObs, false)
}

func obsV2Cases(s *site, bucket string) []sdkCase {
	return casesOfOBS(s, bucket, obs.SignatureV2, true)
}

// casesOfOBS goes through Huawei's SDK for its object storage.
func casesOfOBS(s *site, bucket string, signature obs.SignatureType, pathStyle bool) []sdkCase {
	connect := func(t *testing.T) *obs.ObsClient {
		t.Helper()
		// The client talks to a transport of its own kind only, so it gets the authority's file.
		var pem []byte
		if s.ca != "" {
			var err error
			pem, err = os.ReadFile(s.ca)
			must(t, err)
		}
		c, err := obs.New(harness.AccessKey, harness.SecretKey, s.endpoint, obs.WithSignature(signature), obs.WithPathStyle(pathStyle),
			obs.WithRegion(harness.Region), obs.WithMaxRetryCount(0), obs.WithSslVerifyAndPemCerts(true, pem), obs.WithProxyUrl(s.proxy))
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	put := func(t *testing.T, c *obs.ObsClient, key string, body io.Reader, change ...func(*obs.PutObjectInput)) {
		t.Helper()
		in := &obs.PutObjectInput{Body: body}
		in.Bucket, in.Key = bucket, key
		for _, f := range change {
			f(in)
		}
		_, err := c.PutObject(in)
		must(t, err)
	}
	get := func(t *testing.T, c *obs.ObsClient, key string, change ...func(*obs.GetObjectInput)) []byte {
		t.Helper()
		in := &obs.GetObjectInput{}
		in.Bucket, in.Key = bucket, key
		for _, f := range change {
			f(in)
		}
		out, err := c.GetObject(in)
		must(t, err)
		defer out.Body.Close()
		data, err := io.ReadAll(out.Body)
		must(t, err)
		return data
	}
	keys := func(t *testing.T, c *obs.ObsClient, in obs.ListObjectsInput) (keys, prefixes []string) {
		t.Helper()
		in.Bucket = bucket
		for {
			out, err := c.ListObjects(&in)
			must(t, err)
			for _, o := range out.Contents {
				keys = append(keys, o.Key)
			}
			prefixes = append(prefixes, out.CommonPrefixes...)
			if !out.IsTruncated {
				return keys, prefixes
			}
			in.Marker = out.NextMarker
			if in.Marker == "" {
				in.Marker = out.Contents[len(out.Contents)-1].Key
			}
		}
	}
	wantStatus := func(t *testing.T, err error, status int, code string) {
		t.Helper()
		var api obs.ObsError
		if !errors.As(err, &api) || api.StatusCode != status || api.Code != code {
			t.Errorf("the error is %v, want %d %s", err, status, code)
		}
	}
	upload := func(name string) func(t *testing.T) {
		return func(t *testing.T) {
			c, data := connect(t), s.file(t, name)
			put(t, c, "up/"+name, bytes.NewReader(data))
			wantBytes(t, name, get(t, c, "up/"+name), data)
		}
	}
	return []sdkCase{
		{"make a bucket", func(t *testing.T) {
			c, in := connect(t), &obs.CreateBucketInput{Bucket: bucket}
			in.Location = harness.Region
			_, err := c.CreateBucket(in)
			must(t, err)
			_, err = c.HeadBucket(bucket)
			must(t, err)
			out, err := c.ListBuckets(nil)
			must(t, err)
			if !slices.ContainsFunc(out.Buckets, func(b obs.Bucket) bool { return b.Name == bucket }) {
				t.Errorf("the buckets are %+v", out.Buckets)
			}
		}},
		{"upload 0 B", upload("0B")}, {"upload 3 B", upload("3B")}, {"upload 200 KB", upload("200KB")},
		{"upload 20 MB in parts", func(t *testing.T) {
			c, in := connect(t), &obs.UploadFileInput{UploadFile: filepath.Join(s.files, "20MB"), PartSize: 5 << 20, TaskNum: 2}
			in.Bucket, in.Key = bucket, "up/20MB"
			_, err := c.UploadFile(in)
			must(t, err)
			wantBytes(t, "20MB", get(t, c, "up/20MB"), s.file(t, "20MB"))
		}},
		{"upload with an MD5", func(t *testing.T) {
			c, data := connect(t), s.file(t, "200KB")
			put(t, c, "sum", bytes.NewReader(data), func(in *obs.PutObjectInput) { in.ContentMD5 = obs.Base64Md5(data) })
			in := &obs.PutObjectInput{Body: bytes.NewReader([]byte("changed"))}
			in.Bucket, in.Key, in.ContentMD5 = bucket, "sum", obs.Base64Md5(data)
			_, err := c.PutObject(in)
			wantStatus(t, err, 400, "BadDigest")
			wantBytes(t, "sum", get(t, c, "sum"), data)
		}},
		{"list in pages, with prefix and delimiter", func(t *testing.T) {
			c, all := connect(t), []string{"list/a", "list/b/1", "list/b/2", "list/c"}
			for _, key := range all {
				put(t, c, key, bytes.NewReader(nil))
			}
			in := obs.ListObjectsInput{}
			in.Prefix, in.MaxKeys = "list/", 1
			if got, _ := keys(t, c, in); !slices.Equal(got, all) {
				t.Errorf("listed %q", got)
			}
			in.Delimiter = "/"
			if got, prefixes := keys(t, c, in); !slices.Equal(got, []string{"list/a", "list/c"}) || !slices.Equal(prefixes, []string{"list/b/"}) {
				t.Errorf("listed %q and the prefixes %q", got, prefixes)
			}
		}},
		{"head", func(t *testing.T) {
			c := connect(t)
			out, err := c.GetObjectMetadata(&obs.GetObjectMetadataInput{Bucket: bucket, Key: "up/200KB"})
			if err != nil || out.ContentLength != 200_000 {
				t.Errorf("GetObjectMetadata: %+v, %v", out, err)
			}
			_, err = c.GetObject(&obs.GetObjectInput{GetObjectMetadataInput: obs.GetObjectMetadataInput{Bucket: bucket, Key: "none"}})
			wantStatus(t, err, 404, "NoSuchKey")
		}},
		{"get a range", func(t *testing.T) {
			got := get(t, connect(t), "up/200KB", func(in *obs.GetObjectInput) { in.RangeStart, in.RangeEnd = 1000, 1999 })
			wantBytes(t, "bytes 1000 to 1999", got, s.file(t, "200KB")[1000:2000])
		}},
		{"copy", func(t *testing.T) {
			c := connect(t)
			put(t, c, "meta", bytes.NewReader([]byte("x")), func(in *obs.PutObjectInput) { in.Metadata = map[string]string{"Name": "value"} })
			in := &obs.CopyObjectInput{CopySourceBucket: bucket, CopySourceKey: "meta"}
			in.Bucket, in.Key = bucket, "copied +%"
			_, err := c.CopyObject(in)
			must(t, err)
			out, err := c.GetObjectMetadata(&obs.GetObjectMetadataInput{Bucket: bucket, Key: "copied +%"})
			if err != nil || out.Metadata["name"] != "value" {
				t.Errorf("the copy: %+v, %v", out, err)
			}
		}},
		{"presigned get", func(t *testing.T) {
			out, err := connect(t).CreateSignedUrl(&obs.CreateSignedUrlInput{Method: obs.HttpMethodGet, Bucket: bucket, Key: "up/200KB", Expires: 60})
			must(t, err)
			wantBytes(t, "up/200KB", s.fetch(t, "GET", out.SignedUrl, nil, out.ActualSignedRequestHeaders), s.file(t, "200KB"))
		}},
		{"presigned put", func(t *testing.T) {
			c := connect(t)
			out, err := c.CreateSignedUrl(&obs.CreateSignedUrlInput{Method: obs.HttpMethodPut, Bucket: bucket, Key: "presigned +%", Expires: 60})
			must(t, err)
			s.fetch(t, "PUT", out.SignedUrl, s.file(t, "200KB"), out.ActualSignedRequestHeaders)
			wantBytes(t, "presigned", get(t, c, "presigned +%"), s.file(t, "200KB"))
		}},
		{"resume an upload", func(t *testing.T) {
			c, data := connect(t), s.file(t, "20MB")
			in := &obs.InitiateMultipartUploadInput{}
			in.Bucket, in.Key = bucket, "resumed"
			up, err := c.InitiateMultipartUpload(in)
			must(t, err)
			_, err = c.UploadPart(&obs.UploadPartInput{Bucket: bucket, Key: "resumed", UploadId: up.UploadId, PartNumber: 1, Body: bytes.NewReader(data[:10<<20])})
			must(t, err)
			there, err := c.ListParts(&obs.ListPartsInput{Bucket: bucket, Key: "resumed", UploadId: up.UploadId})
			must(t, err)
			if len(there.Parts) != 1 || there.Parts[0].Size != 10<<20 {
				t.Fatalf("parts: %+v", there.Parts)
			}
			second, err := c.UploadPart(&obs.UploadPartInput{Bucket: bucket, Key: "resumed", UploadId: up.UploadId, PartNumber: 2, Body: bytes.NewReader(data[10<<20:])})
			must(t, err)
			_, err = c.CompleteMultipartUpload(&obs.CompleteMultipartUploadInput{Bucket: bucket, Key: "resumed", UploadId: up.UploadId, Parts: []obs.Part{
				{PartNumber: 1, ETag: there.Parts[0].ETag}, {PartNumber: 2, ETag: second.ETag},
			}})
			must(t, err)
			wantBytes(t, "resumed", get(t, c, "resumed"), data)
		}},
		{"odd keys", func(t *testing.T) {
			c, want := connect(t), oddKeys()
			for _, key := range want {
				put(t, c, key, bytes.NewReader([]byte(key)))
				wantBytes(t, key, get(t, c, key), []byte(key))
			}
			slices.Sort(want)
			in := obs.ListObjectsInput{}
			in.Prefix, in.EncodingType = "odd/", "url"
			if got, _ := keys(t, c, in); !slices.Equal(got, want) {
				t.Errorf("listed %q, want %q", got, want)
			}
		}},
		{"delete one", func(t *testing.T) {
			c := connect(t)
			_, err := c.DeleteObject(&obs.DeleteObjectInput{Bucket: bucket, Key: "meta"})
			must(t, err)
			_, err = c.GetObject(&obs.GetObjectInput{GetObjectMetadataInput: obs.GetObjectMetadataInput{Bucket: bucket, Key: "meta"}})
			wantStatus(t, err, 404, "NoSuchKey")
		}},
		{"delete many", func(t *testing.T) {
			c, in := connect(t), &obs.DeleteObjectsInput{Bucket: bucket}
			all, _ := keys(t, c, obs.ListObjectsInput{})
			for _, key := range all {
				in.Objects = append(in.Objects, obs.ObjectToDelete{Key: key})
			}
			out, err := c.DeleteObjects(in)
			must(t, err)
			if len(out.Deleteds) != len(all) || len(out.Errors) != 0 {
				t.Errorf("%d of %d deleted, errors %+v", len(out.Deleteds), len(all), out.Errors)
			}
			_, err = c.DeleteBucket(bucket)
			must(t, err)
		}},
	}
}
