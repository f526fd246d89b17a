package s3suite

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fill puts n small files into the folder of a bucket, as cp would.
func (c *client) fill(t *testing.T, bucket string, n int) {
	t.Helper()
	for i := range n {
		if err := os.WriteFile(filepath.Join(c.server.Dir, "buckets", bucket, fmt.Sprintf("key-%05d", i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func objectCases() []test {
	return []test{
		{"written, read, replaced, deleted", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, body := range []string{"bar", "soup", "", strings.Repeat("long ", 50_000)} {
				if etag := c.put(t, b, "foo", body); etag != `"`+md5Hex(body)+`"` {
					t.Errorf("the ETag of %q is %s", brief(body), etag)
				}
				a := c.get(t, b, "foo")
				if a.body != body || a.header.Get("ETag") != `"`+md5Hex(body)+`"` || a.header.Get("Content-Length") != fmt.Sprint(len(body)) {
					t.Errorf("%q came back as %q, %s", brief(body), brief(a.body), a.head)
				}
				h := c.do(t, request{method: "HEAD", bucket: b, key: "foo"}).want(t, 200, "")
				if h.header.Get("Content-Length") != fmt.Sprint(len(body)) || h.header.Get("ETag") != a.header.Get("ETag") || h.header.Get("Accept-Ranges") != "bytes" {
					t.Errorf("HEAD of %q: %s", brief(body), h.head)
				}
				if at, err := time.Parse(time.RFC1123, h.header.Get("Last-Modified")); err != nil || time.Since(at).Abs() > time.Hour {
					t.Errorf("Last-Modified is %q", h.header.Get("Last-Modified"))
				}
			}
			for range 2 {
				c.do(t, request{method: "DELETE", bucket: b, key: "foo"}).want(t, 204, "")
			}
			c.wantNone(t, b, "foo")
			if a := c.do(t, request{method: "HEAD", bucket: b, key: "foo"}).want(t, 404, ""); a.body != "" {
				t.Errorf("HEAD has a body: %q", a.body)
			}
		}},
		{"headers kept", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			sent := map[string]string{
				"Content-Type": "text/x-test; charset=utf-8", "Cache-Control": "public, max-age=14400", "Content-Disposition": `attachment; filename="ä b.txt"`,
				"Content-Language": "fr", "Content-Encoding": "gzip", "Expires": "Thu, 01 Jan 2032 00:00:00 GMT",
			}
			var lines []string
			for name, value := range sent {
				lines = append(lines, name+": "+value)
			}
			c.put(t, b, "foo", "bar", lines...)
			for _, method := range []string{"GET", "HEAD"} {
				a := c.do(t, request{method: method, bucket: b, key: "foo"}).want(t, 200, "")
				for name, value := range sent {
					if got := a.header.Get(name); got != value {
						t.Errorf("%s: %s is %q, want %q", method, name, got, value)
					}
				}
			}
			c.put(t, b, "foo", "bar")
			if a := c.get(t, b, "foo"); a.header.Get("Content-Type") != "binary/octet-stream" || a.header.Get("Cache-Control") != "" || a.header.Get("Content-Encoding") != "" {
				t.Errorf("a replaced object keeps headers: %s", a.head)
			}
		}},
		{"headers of the answer named by the request", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "Content-Type: text/plain")
			query := "response-cache-control=no-cache&response-content-disposition=bla&response-content-encoding=aaa&response-content-language=esperanto&response-content-type=foo%2Fbar&response-expires=123"
			a := c.do(t, request{bucket: b, key: "foo", query: query}).want(t, 200, "")
			for name, want := range map[string]string{"Content-Type": "foo/bar", "Content-Disposition": "bla", "Content-Language": "esperanto", "Content-Encoding": "aaa", "Cache-Control": "no-cache", "Expires": "123"} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if a := c.do(t, request{bucket: b, key: "foo", query: "response-content-type=a%0D%0AX-Evil:%20b"}); a.header.Get("X-Evil") != "" {
				t.Error("a parameter became a header")
			}
		}},
		{"an error has one request id", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			a := c.do(t, request{bucket: b, key: "none"}).want(t, 404, "NoSuchKey")
			e := decode[struct {
				XMLName                           xml.Name `xml:"Error"`
				Code, Message, Resource, Key      string
				RequestId, HostId, BucketName, XX string
			}](t, a)
			ids := a.header.Values("X-Amz-Request-Id")
			if len(ids) != 1 || ids[0] == "" || e.RequestId != ids[0] || len(e.Message) < 10 {
				t.Errorf("the ids are %q in the headers, %q in the body; the message is %q", ids, e.RequestId, e.Message)
			}
			if got := a.header.Get("Content-Type"); got != "application/xml" {
				t.Errorf("Content-Type is %q", got)
			}
			if ids := c.get(t, b, "").header.Values("X-Amz-Request-Id"); len(ids) != 1 {
				t.Errorf("a good answer has the ids %q", ids)
			}
		}},
		{"Content-MD5", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			put := func(md5 string) answer {
				return c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "bar", header: []string{"Content-MD5: " + md5}})
			}
			put(md5Base64("bar")).want(t, 200, "")
			put(md5Base64("other")).want(t, 400, "BadDigest")
			for _, bad := range []string{"YWJyYWNhZGFicmE=", "", "not base64 at all", md5Hex("bar")} {
				put(bad).want(t, 400, "InvalidDigest")
			}
			c.wantObject(t, b, "foo", "bar")
		}},
		{"another body than was signed", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "changed", sign: signing{payload: hash("bar")}}).want(t, 400, "XAmzContentSHA256Mismatch")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "changed", sign: signing{payload: "not a hash"}}).oneOf(t, "400 InvalidArgument", "400 XAmzContentSHA256Mismatch", "400 InvalidRequest")
			c.wantObject(t, b, "foo", "bar")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "unsigned", sign: signing{payload: unsigned}}).want(t, 200, "")
			c.wantObject(t, b, "foo", "unsigned")
		}},
		{"a body that ends early", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			wire := c.wire(request{method: "PUT", bucket: b, key: "foo", body: strings.Repeat("x", 100_000), sign: signing{payload: unsigned}})
			c.cut(t, wire[:len(wire)-50_000])
			c.wantObject(t, b, "foo", "bar")
			if got, _ := c.list(t, b, "").names(); len(got) != 1 {
				t.Errorf("an upload that ended early left %q", got)
			}
		}},
		{"storage classes", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-storage-class: STANDARD")
			c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "x", header: []string{"x-amz-storage-class: NONSENSE"}}).oneOf(t, "400 InvalidStorageClass", "501 NotImplemented")
			c.wantObject(t, b, "foo", "bar")
		}},
		{"attributes of an object", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-checksum-sha256: "+sums["sha256"]("bar"))
			a := c.do(t, request{bucket: b, key: "foo", query: "attributes", header: []string{"x-amz-object-attributes: ETag,Checksum,ObjectSize,StorageClass"}}).want(t, 200, "")
			got := decode[attributes](t, a)
			if got.ETag != md5Hex("bar") || got.ObjectSize != 3 || got.StorageClass != "STANDARD" || got.Checksum.ChecksumSHA256 != sums["sha256"]("bar") || a.header.Get("Last-Modified") == "" {
				t.Errorf("%+v", got)
			}
			c.do(t, request{bucket: b, key: "foo", query: "attributes"}).want(t, 400, "InvalidArgument|InvalidRequest")
			c.do(t, request{bucket: b, key: "foo", query: "attributes", header: []string{"x-amz-object-attributes: Colour"}}).want(t, 400, "InvalidArgument")
			c.do(t, request{bucket: b, key: "none", query: "attributes", header: []string{"x-amz-object-attributes: ETag"}}).want(t, 404, "NoSuchKey")
		}},
		{"tags of an object that has none", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			// The AWS CLI asks before it copies an object in parts.
			a := c.do(t, request{bucket: b, key: "foo", query: "tagging"}).want(t, 200, "")
			if got := decode[struct {
				XMLName xml.Name `xml:"Tagging"`
				Tags    []string `xml:"TagSet>Tag"`
			}](t, a); len(got.Tags) != 0 {
				t.Errorf("tags %q", got.Tags)
			}
		}},
	}
}

// attributes is the answer to GetObjectAttributes.
type attributes struct {
	XMLName      xml.Name `xml:"GetObjectAttributesResponse"`
	ETag         string
	Checksum     checksums
	ObjectSize   int64
	StorageClass string
	ObjectParts  *struct {
		PartsCount, MaxParts, PartNumberMarker, NextPartNumberMarker int
		IsTruncated                                                  bool
		Part                                                         []struct {
			PartNumber int
			Size       int64
			checksums
		}
	}
}

// checksums are the elements that an answer has for checksums.
type checksums struct {
	ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256, ChecksumType string
}
