package s3clients

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/quickims/quickims/test/harness"
)

// awsCases goes through aws-sdk-go-v2 as it is configured by default: it sends a CRC32
// with each upload, behind the body over https, and checks it on the way back.
func awsCases(s *site, bucket string) []sdkCase {
	c := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.endpoint), Region: harness.Region, UsePathStyle: s.proxy == "", HTTPClient: s.http, RetryMaxAttempts: 1,
		Credentials:                credentials.NewStaticCredentialsProvider(harness.AccessKey, harness.SecretKey, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
	b := aws.String(bucket)
	put := func(t *testing.T, key string, data []byte, change ...func(*s3.PutObjectInput)) *s3.PutObjectOutput {
		t.Helper()
		in := &s3.PutObjectInput{Bucket: b, Key: &key, Body: bytes.NewReader(data)}
		for _, f := range change {
			f(in)
		}
		out, err := c.PutObject(t.Context(), in)
		must(t, err)
		return out
	}
	get := func(t *testing.T, in *s3.GetObjectInput) []byte {
		t.Helper()
		in.Bucket = b
		out, err := c.GetObject(t.Context(), in)
		must(t, err)
		defer out.Body.Close()
		data, err := io.ReadAll(out.Body)
		must(t, err)
		return data
	}
	upload := func(name string) func(t *testing.T) {
		return func(t *testing.T) {
			data := s.file(t, name)
			put(t, "up/"+name, data)
			wantBytes(t, name, get(t, &s3.GetObjectInput{Key: aws.String("up/" + name)}), data)
		}
	}
	wantCode := func(t *testing.T, err error, codes ...string) {
		t.Helper()
		var api smithy.APIError
		if !errors.As(err, &api) || !slices.Contains(codes, api.ErrorCode()) {
			t.Errorf("the error is %v, want %q", err, codes)
		}
	}
	managed := func(t *testing.T, key string, body io.Reader, sum types.ChecksumAlgorithm) {
		t.Helper()
		_, err := manager.NewUploader(c, func(u *manager.Uploader) { u.PartSize = 5 << 20 }).Upload(t.Context(),
			&s3.PutObjectInput{Bucket: b, Key: &key, Body: body, ChecksumAlgorithm: sum})
		must(t, err)
	}
	return []sdkCase{
		{"make a bucket", func(t *testing.T) {
			_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: b, CreateBucketConfiguration: &types.CreateBucketConfiguration{
				LocationConstraint: types.BucketLocationConstraint(harness.Region),
			}})
			must(t, err)
			_, err = c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: b})
			must(t, err)
		}},
		{"upload 0 B", upload("0B")}, {"upload 3 B", upload("3B")}, {"upload 200 KB", upload("200KB")},
		{"upload 20 MB in parts", func(t *testing.T) {
			managed(t, "up/20MB", bytes.NewReader(s.file(t, "20MB")), "")
			wantBytes(t, "20MB", get(t, &s3.GetObjectInput{Key: aws.String("up/20MB")}), s.file(t, "20MB"))
		}},
		{"upload a stream of unknown length", func(t *testing.T) {
			for _, name := range []string{"0B", "3B", "20MB"} {
				managed(t, "streamed", unsized(s.file(t, name)), "")
				wantBytes(t, name, get(t, &s3.GetObjectInput{Key: aws.String("streamed")}), s.file(t, name))
			}
		}},
		{"upload with checksums", func(t *testing.T) {
			for _, sum := range types.ChecksumAlgorithm("").Values() {
				switch sum {
				case types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256:
				default:
					continue // newer than what the service promises
				}
				for _, name := range sizes {
					put(t, "sum", s.file(t, name), func(in *s3.PutObjectInput) { in.ChecksumAlgorithm = sum })
					out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("sum"), ChecksumMode: types.ChecksumModeEnabled})
					must(t, err)
					if out.ChecksumCRC32 == nil && out.ChecksumCRC32C == nil && out.ChecksumCRC64NVME == nil && out.ChecksumSHA1 == nil && out.ChecksumSHA256 == nil {
						t.Errorf("%s, %s: no checksum came back", sum, name)
					}
					if out.ContentEncoding != nil && *out.ContentEncoding != "" {
						t.Errorf("%s, %s: Content-Encoding is %q", sum, name, *out.ContentEncoding)
					}
					wantBytes(t, name, get(t, &s3.GetObjectInput{Key: aws.String("sum"), ChecksumMode: types.ChecksumModeEnabled}), s.file(t, name))
				}
			}
			_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("sum"), Body: strings.NewReader("changed"), ChecksumCRC32: aws.String("AAAAAQ==")})
			wantCode(t, err, "BadDigest", "XAmzContentChecksumMismatch")
		}},
		{"upload 20 MB in parts with checksums", func(t *testing.T) {
			for _, sum := range []types.ChecksumAlgorithm{types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmSha256, types.ChecksumAlgorithmCrc64nvme} {
				managed(t, "sum", bytes.NewReader(s.file(t, "20MB")), sum)
				wantBytes(t, string(sum), get(t, &s3.GetObjectInput{Key: aws.String("sum"), ChecksumMode: types.ChecksumModeEnabled}), s.file(t, "20MB"))
			}
		}},
		{"list in pages, with prefix and delimiter", func(t *testing.T) {
			all := []string{"list/a", "list/b/1", "list/b/2", "list/c"}
			for _, key := range all {
				put(t, key, nil)
			}
			var keys, prefixes []string
			for p := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("list/"), MaxKeys: aws.Int32(1), FetchOwner: aws.Bool(true)}); p.HasMorePages(); {
				page, err := p.NextPage(t.Context())
				must(t, err)
				for _, o := range page.Contents {
					keys = append(keys, *o.Key)
					if o.Owner == nil {
						t.Errorf("%s has no owner", *o.Key)
					}
				}
			}
			if !slices.Equal(keys, all) {
				t.Errorf("listed %q", keys)
			}
			keys = nil
			for p := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("list/"), Delimiter: aws.String("/"), MaxKeys: aws.Int32(1)}); p.HasMorePages(); {
				page, err := p.NextPage(t.Context())
				must(t, err)
				for _, o := range page.Contents {
					keys = append(keys, *o.Key)
				}
				for _, o := range page.CommonPrefixes {
					prefixes = append(prefixes, *o.Prefix)
				}
			}
			if !slices.Equal(keys, []string{"list/a", "list/c"}) || !slices.Equal(prefixes, []string{"list/b/"}) {
				t.Errorf("listed %q and the prefixes %q", keys, prefixes)
			}
		}},
		{"head", func(t *testing.T) {
			out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("up/200KB")})
			if err != nil || *out.ContentLength != 200_000 {
				t.Errorf("HeadObject: %+v, %v", out, err)
			}
			_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("none")})
			wantCode(t, err, "NotFound")
			_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: b, Key: aws.String("none")})
			wantCode(t, err, "NoSuchKey")
		}},
		{"get a range", func(t *testing.T) {
			wantBytes(t, "bytes 1000 to 1999", get(t, &s3.GetObjectInput{Key: aws.String("up/200KB"), Range: aws.String("bytes=1000-1999")}), s.file(t, "200KB")[1000:2000])
			_, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: b, Key: aws.String("up/200KB"), Range: aws.String("bytes=200000-")})
			wantCode(t, err, "InvalidRange")
		}},
		{"copy", func(t *testing.T) {
			put(t, "meta", []byte("x"), func(in *s3.PutObjectInput) {
				in.Metadata, in.ContentType = map[string]string{"Name": "value"}, aws.String("text/x-test")
			})
			_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: b, Key: aws.String("copied"), CopySource: aws.String(bucket + "/meta")})
			must(t, err)
			out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("copied")})
			if err != nil || out.Metadata["name"] != "value" || *out.ContentType != "text/x-test" {
				t.Errorf("the copy: %+v, %v", out, err)
			}
		}},
		{"presigned get", func(t *testing.T) {
			r, err := s3.NewPresignClient(c, s3.WithPresignExpires(time.Minute)).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: b, Key: aws.String("up/200KB")})
			must(t, err)
			wantBytes(t, "up/200KB", s.fetch(t, r.Method, r.URL, nil, nil), s.file(t, "200KB"))
		}},
		{"presigned put", func(t *testing.T) {
			r, err := s3.NewPresignClient(c, s3.WithPresignExpires(time.Minute)).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("presigned +%")})
			must(t, err)
			s.fetch(t, r.Method, r.URL, s.file(t, "200KB"), r.SignedHeader)
			wantBytes(t, "presigned", get(t, &s3.GetObjectInput{Key: aws.String("presigned +%")}), s.file(t, "200KB"))
		}},
		{"resume an upload", func(t *testing.T) {
			key, data := aws.String("resumed"), s.file(t, "20MB")
			up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: b, Key: key})
			must(t, err)
			_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(data[:10<<20])})
			must(t, err)
			there, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: b, Key: key, UploadId: up.UploadId})
			must(t, err)
			if len(there.Parts) != 1 || *there.Parts[0].Size != 10<<20 {
				t.Fatalf("parts: %+v", there.Parts)
			}
			second, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(2), Body: bytes.NewReader(data[10<<20:])})
			must(t, err)
			_, err = c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{
				Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: there.Parts[0].ETag}, {PartNumber: aws.Int32(2), ETag: second.ETag}},
			}})
			must(t, err)
			wantBytes(t, "resumed", get(t, &s3.GetObjectInput{Key: key}), data)
		}},
		{"odd keys", func(t *testing.T) {
			want := oddKeys()
			for _, key := range want {
				put(t, key, []byte(key))
				wantBytes(t, key, get(t, &s3.GetObjectInput{Key: &key}), []byte(key))
			}
			slices.Sort(want)
			var got []string
			for p := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: b, Prefix: aws.String("odd/"), MaxKeys: aws.Int32(3)}); p.HasMorePages(); {
				page, err := p.NextPage(t.Context())
				must(t, err)
				for _, o := range page.Contents {
					got = append(got, *o.Key)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("listed %q, want %q", got, want)
			}
		}},
		{"delete one", func(t *testing.T) {
			for range 2 {
				_, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: b, Key: aws.String("meta")})
				must(t, err)
			}
			_, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("meta")})
			wantCode(t, err, "NotFound")
		}},
		{"delete many", func(t *testing.T) {
			var objects []types.ObjectIdentifier
			for p := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: b}); p.HasMorePages(); {
				page, err := p.NextPage(t.Context())
				must(t, err)
				for _, o := range page.Contents {
					objects = append(objects, types.ObjectIdentifier{Key: o.Key})
				}
			}
			out, err := c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: objects}})
			must(t, err)
			if len(out.Deleted) != len(objects) || len(out.Errors) != 0 {
				t.Errorf("%d of %d deleted, errors %+v", len(out.Deleted), len(objects), out.Errors)
			}
			_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: b})
			must(t, err)
		}},
	}
}
