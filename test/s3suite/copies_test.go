package s3suite

import (
	"encoding/xml"
	"strings"
	"testing"
)

type copyResult struct {
	XMLName            xml.Name `xml:"CopyObjectResult"`
	ETag, LastModified string
}

// copy copies an object; source is "bucket/key", escaped.
func (c *client) copy(t *testing.T, source, bucket, key string, header ...string) answer {
	t.Helper()
	return c.do(t, request{method: "PUT", bucket: bucket, key: key, header: append([]string{"x-amz-copy-source: " + source}, header...)})
}

func copyCases() []test {
	return []test{
		{"within and between buckets", func(t *testing.T, c *client) {
			a, b := c.newBucket(t), c.newBucket(t)
			for _, body := range []string{"foo", "", strings.Repeat("0123456789abcdef", 1<<16)} {
				c.put(t, a, "foo", body, "Content-Type: text/x-test", "x-amz-meta-a: 1")
				for _, to := range []string{a, b} {
					for _, source := range []string{a + "/foo", "/" + a + "/foo"} {
						r := decode[copyResult](t, c.copy(t, source, to, "bar").want(t, 200, ""))
						if r.ETag != `"`+md5Hex(body)+`"` {
							t.Errorf("the copy's ETag is %s", r.ETag)
						}
						wantTime(t, r.LastModified)
						got := c.get(t, to, "bar")
						if got.body != body || got.header.Get("Content-Type") != "text/x-test" || got.header.Get("X-Amz-Meta-A") != "1" {
							t.Errorf("the copy has %d bytes and\n%s", len(got.body), got.head)
						}
					}
				}
			}
		}},
		{"metadata replaced", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "Content-Type: text/old", "x-amz-meta-a: 1", "Cache-Control: no-cache")
			c.copy(t, b+"/foo", b, "bar", "x-amz-metadata-directive: REPLACE", "Content-Type: audio/ogg", "x-amz-meta-b: 2").want(t, 200, "")
			got := c.get(t, b, "bar").header
			if got.Get("Content-Type") != "audio/ogg" || got.Get("X-Amz-Meta-B") != "2" || got.Get("X-Amz-Meta-A") != "" || got.Get("Cache-Control") != "" {
				t.Errorf("the copy has %v", got)
			}
			// Without the directive the source's metadata stays, whatever else is sent.
			c.copy(t, b+"/foo", b, "kept", "x-amz-meta-b: 2").want(t, 200, "")
			if got := c.get(t, b, "kept").header; got.Get("X-Amz-Meta-A") != "1" || got.Get("X-Amz-Meta-B") != "" {
				t.Errorf("the copy has %v", got)
			}
			c.copy(t, b+"/foo", b, "bad", "x-amz-metadata-directive: PERHAPS").want(t, 400, "InvalidArgument")
		}},
		{"onto itself", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-meta-a: 1")
			c.copy(t, b+"/foo", b, "foo").want(t, 400, "InvalidRequest")
			c.copy(t, b+"/foo", b, "foo", "x-amz-metadata-directive: REPLACE", "x-amz-meta-b: 2").want(t, 200, "")
			got := c.get(t, b, "foo")
			if got.body != "bar" || got.header.Get("X-Amz-Meta-B") != "2" || got.header.Get("X-Amz-Meta-A") != "" {
				t.Errorf("%q, %v", got.body, got.header)
			}
		}},
		{"keys that need escaping", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range []string{"a b", "a+b", "a%b", "a?versionId=x", "ünï", "a&b=c", "folder/x y"} {
				c.put(t, b, key, key)
				c.copy(t, b+"/"+escape(key, true), b, "copy").want(t, 200, "")
				c.wantObject(t, b, "copy", key)
				c.copy(t, escape(b+"/"+key, false), b, "copy2").want(t, 200, "")
				c.wantObject(t, b, "copy2", key)
			}
		}},
		{"sources that are not there", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.copy(t, c.freeName()+"/foo", b, "bar").want(t, 404, "NoSuchBucket")
			c.copy(t, b+"/none", b, "bar").want(t, 404, "NoSuchKey")
			c.copy(t, b+"/none?versionId=null", b, "bar").want(t, 404, "NoSuchKey")
			for _, bad := range []string{"", "/", b, b + "/", "/" + b, "a%zz/b"} {
				if a := c.copy(t, bad, b, "bar"); a.status/100 != 4 && a.status != 501 {
					t.Errorf("source %q: %d %s", bad, a.status, a.code())
				}
			}
			c.wantNone(t, b, "bar")
			c.put(t, b, "foo", "x")
			c.copy(t, b+"/foo", c.freeName(), "bar").want(t, 404, "NoSuchBucket")
		}},
		{"versions of the source", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			c.copy(t, b+"/foo?versionId=null", b, "copy").want(t, 200, "")
			c.wantObject(t, b, "copy", "bar")
			c.copy(t, b+"/foo?versionId=3HL4kqtJlcpXroDTDmJ", b, "copy2").oneOf(t, "400 InvalidArgument", "404 NoSuchVersion")
			c.wantNone(t, b, "copy2")
		}},
	}
}
