package s3suite

import (
	"strings"
	"testing"
	"time"
)

// past and future are times of HTTP around every object of a test.
const (
	past   = "Sat, 29 Oct 1994 19:43:31 GMT"
	future = "Sat, 29 Oct 2100 19:43:31 GMT"
)

func conditionCases() []test {
	etag := `"` + md5Hex("bar") + `"`
	bare := md5Hex("bar")
	var cases []test
	for _, k := range []struct {
		name   string
		header []string
		status int
	}{
		{"If-Match hit", []string{"If-Match: " + etag}, 200},
		{"If-Match hit without quotes", []string{"If-Match: " + bare}, 200},
		{"If-Match *", []string{"If-Match: *"}, 200},
		{"If-Match miss", []string{`If-Match: "ABCORZ"`}, 412},
		{"If-None-Match hit", []string{"If-None-Match: " + etag}, 304},
		{"If-None-Match *", []string{"If-None-Match: *"}, 304},
		{"If-None-Match miss", []string{"If-None-Match: ABCORZ"}, 200},
		{"If-Modified-Since before", []string{"If-Modified-Since: " + past}, 200},
		{"If-Modified-Since garbage", []string{"If-Modified-Since: yesterday"}, 200},
		{"If-Unmodified-Since before", []string{"If-Unmodified-Since: " + past}, 412},
		{"If-Unmodified-Since after", []string{"If-Unmodified-Since: " + future}, 200},
		{"If-Match hit over If-Unmodified-Since", []string{"If-Match: " + etag, "If-Unmodified-Since: " + past}, 200},
		{"If-None-Match hit over If-Modified-Since", []string{"If-None-Match: " + etag, "If-Modified-Since: " + past}, 304},
	} {
		cases = append(cases, test{"get, " + k.name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			for _, method := range []string{"GET", "HEAD"} {
				a := c.do(t, request{method: method, bucket: b, key: "foo", header: k.header})
				if a.status != k.status {
					t.Fatalf("%s: status %d, want %d", method, a.status, k.status)
				}
				switch k.status {
				case 304:
					if a.header.Get("ETag") != etag || a.header.Get("Last-Modified") == "" || a.body != "" {
						t.Errorf("%s: 304 with ETag %q, Last-Modified %q, body %q", method, a.header.Get("ETag"), a.header.Get("Last-Modified"), a.body)
					}
				case 412:
					if method == "GET" && a.code() != "PreconditionFailed" {
						t.Errorf("the code is %q", a.code())
					}
				}
			}
		}})
	}
	cases = append(cases, test{"get, If-Modified-Since now", func(t *testing.T, c *client) {
		b := c.newBucket(t)
		c.put(t, b, "foo", "bar")
		at := c.get(t, b, "foo").header.Get("Last-Modified")
		c.do(t, request{bucket: b, key: "foo", header: []string{"If-Modified-Since: " + at}}).want(t, 304, "")
		c.do(t, request{bucket: b, key: "foo", header: []string{"If-Unmodified-Since: " + at}}).want(t, 200, "")
	}})
	for _, k := range []struct {
		name   string
		exists bool
		header string
		status int
	}{
		{"If-Match hit", true, "If-Match: " + etag, 200},
		{"If-Match hit without quotes", true, "If-Match: " + bare, 200},
		{"If-Match miss", true, `If-Match: "ABCORZ"`, 412},
		{"If-None-Match *, there", true, "If-None-Match: *", 412},
		{"If-None-Match *, not there", false, "If-None-Match: *", 200},
		{"If-Match, not there", false, "If-Match: " + etag, 404},
	} {
		cases = append(cases, test{"put, " + k.name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			before := ""
			if k.exists {
				before = "bar"
				c.put(t, b, "foo", before)
			}
			wantAfter := func(what string, a answer) {
				t.Helper()
				// An absent object is 404 NoSuchKey at AWS; others answer 412.
				if a.status != k.status && (k.status != 404 || a.status != 412) {
					t.Errorf("%s: status %d %s, want %d", what, a.status, a.code(), k.status)
				}
				switch {
				case k.status == 200:
					c.wantObject(t, b, "foo", "zar")
				case k.exists:
					c.wantObject(t, b, "foo", before)
				default:
					c.wantNone(t, b, "foo")
				}
			}
			wantAfter("PUT", c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "zar", header: []string{k.header}}))
			if k.status == 200 && k.exists {
				c.put(t, b, "foo", before)
			} else if k.status == 200 {
				c.do(t, request{method: "DELETE", bucket: b, key: "foo"}).want(t, 204, "")
			}
			id := c.initiate(t, b, "foo")
			part := c.part(t, b, "foo", id, 1, "zar")
			wantAfter("completing an upload", c.complete(t, b, "foo", id, []string{part}, k.header))
		}})
	}
	return append(cases,
		test{"put, one of many creates", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			answers := make(chan answer, 8)
			for i := range cap(answers) {
				go func() {
					a, _ := c.send(c.wire(request{method: "PUT", bucket: b, key: "foo", body: strings.Repeat("x", i), header: []string{"If-None-Match: *"}}), "PUT")
					answers <- a
				}()
			}
			made := 0
			for range cap(answers) {
				switch a := <-answers; a.status {
				case 200:
					made++
				case 412, 409:
				default:
					t.Errorf("status %d: %s", a.status, brief(a.body))
				}
			}
			if made != 1 {
				t.Errorf("%d of 8 conditional requests made the object", made)
			}
		}},
		test{"put, If-None-Match with an ETag", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			// AWS knows * alone; Ceph compares. Replacing on a hit would be wrong for both.
			if a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "zar", header: []string{"If-None-Match: " + etag}}); a.status != 412 && a.status != 501 {
				t.Errorf("status %d", a.status)
			}
			c.wantObject(t, b, "foo", "bar")
		}},
		test{"delete, If-Match", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			c.do(t, request{method: "DELETE", bucket: b, key: "foo", header: []string{`If-Match: "ABCORZ"`}}).want(t, 412, "PreconditionFailed")
			c.wantObject(t, b, "foo", "bar")
			c.do(t, request{method: "DELETE", bucket: b, key: "foo", header: []string{"If-Match: " + etag}}).want(t, 204, "")
			c.wantNone(t, b, "foo")
		}},
		test{"copy", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			at := time.Now().Add(-time.Hour).UTC().Format(time.RFC1123)
			at = strings.Replace(at, "UTC", "GMT", 1)
			for header, status := range map[string]int{
				"x-amz-copy-source-if-match: " + etag: 200, `x-amz-copy-source-if-match: "ABCORZ"`: 412,
				`x-amz-copy-source-if-none-match: "ABCORZ"`: 200, "x-amz-copy-source-if-none-match: " + etag: 412,
				"x-amz-copy-source-if-modified-since: " + at: 200, "x-amz-copy-source-if-unmodified-since: " + at: 412,
				"x-amz-copy-source-if-unmodified-since: " + future: 200,
			} {
				a := c.do(t, request{method: "PUT", bucket: b, key: "copy", header: []string{"x-amz-copy-source: /" + b + "/foo", header}})
				if a.status != status || status == 412 && a.code() != "PreconditionFailed" {
					t.Errorf("%s: %d %s, want %d", header, a.status, a.code(), status)
				}
				if status == 200 {
					c.wantObject(t, b, "copy", "bar")
				} else {
					c.wantNone(t, b, "copy")
				}
				c.do(t, request{method: "DELETE", bucket: b, key: "copy"}).want(t, 204, "")
			}
		}},
	)
}
