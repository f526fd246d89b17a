package s3suite

import (
	"mime"
	"strings"
	"testing"
)

func metadataCases() []test {
	roundTrip := func(t *testing.T, c *client, line string) answer {
		t.Helper()
		b := c.newBucket(t)
		c.put(t, b, "foo", "bar", line)
		c.do(t, request{method: "HEAD", bucket: b, key: "foo"}).want(t, 200, "")
		return c.get(t, b, "foo")
	}
	return []test{
		{"names are lower case on the wire", func(t *testing.T, c *client) {
			a := roundTrip(t, c, "X-Amz-Meta-Some-NAME: Value")
			if !strings.Contains(a.head, "\r\nx-amz-meta-some-name: Value\r\n") && !strings.HasSuffix(a.head, "\r\nx-amz-meta-some-name: Value") {
				t.Errorf("the headers are\n%s", a.head)
			}
		}},
		{"an empty value", func(t *testing.T, c *client) {
			a := roundTrip(t, c, "x-amz-meta-empty:")
			if values, there := a.header["X-Amz-Meta-Empty"]; !there || values[0] != "" {
				t.Errorf("the value is %q", values)
			}
		}},
		{"a value becomes empty", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-meta-meta1: old")
			c.put(t, b, "foo", "bar", "x-amz-meta-meta1:")
			if values, there := c.get(t, b, "foo").header["X-Amz-Meta-Meta1"]; !there || values[0] != "" {
				t.Errorf("the value is %q", values)
			}
		}},
		{"gone when the object is replaced", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-meta-meta1: old")
			c.put(t, b, "foo", "bar")
			if values, there := c.get(t, b, "foo").header["X-Amz-Meta-Meta1"]; there {
				t.Errorf("the value is %q", values)
			}
		}},
		{"non-ASCII values", func(t *testing.T, c *client) {
			for _, value := range []string{"Hello Wörld é", "日本", "🙂"} {
				got := roundTrip(t, c, "x-amz-meta-text: "+value).header.Get("X-Amz-Meta-Text")
				// S3 answers UTF-8 as an encoded word of RFC 2047.
				if decoded, err := new(mime.WordDecoder).DecodeHeader(got); got != value && (err != nil || decoded != value) {
					t.Errorf("%q came back as %q", value, got)
				}
			}
		}},
		{"control characters", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, value := range []string{"\x04w", "h\x04w", "h\x04", "\x7f"} {
				if a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "x", header: []string{"x-amz-meta-bad: " + value}}); a.status != 400 && a.status != 403 {
					t.Errorf("%q: %d", value, a.status)
				}
			}
			c.wantNone(t, b, "foo")
		}},
		{"2 KiB, and more", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			// Names and values count together, without the prefix.
			c.put(t, b, "foo", "bar", "x-amz-meta-a: "+strings.Repeat("v", 2047))
			c.do(t, request{method: "PUT", bucket: b, key: "much", body: "x", header: []string{"x-amz-meta-a: " + strings.Repeat("v", 2048)}}).want(t, 400, "MetadataTooLarge")
			c.do(t, request{method: "PUT", bucket: b, key: "much", body: "x", header: []string{
				"x-amz-meta-a: " + strings.Repeat("v", 1024), "x-amz-meta-b: " + strings.Repeat("v", 1024)}}).want(t, 400, "MetadataTooLarge")
			c.wantNone(t, b, "much")
		}},
		{"several values of one name", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "x-amz-meta-a: one", "x-amz-meta-a: two")
			if got := strings.ReplaceAll(strings.Join(c.get(t, b, "foo").header["X-Amz-Meta-A"], ","), ", ", ","); got != "one,two" {
				t.Errorf("the value is %q", got)
			}
		}},
	}
}
