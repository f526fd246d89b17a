package s3suite

import (
	"fmt"
	"testing"
)

func rangeCases() []test {
	const content = "testcontent"
	var cases []test
	for _, k := range []struct {
		header      string
		status      int
		first, last int // of the body, if the status is 206
	}{
		{"bytes=4-7", 206, 4, 7}, {"bytes=4-", 206, 4, 10}, {"bytes=-7", 206, 4, 10}, {"bytes=0-0", 206, 0, 0}, {"bytes=4-1000", 206, 4, 10}, {"bytes=-1000", 206, 0, 10},
		{"bytes=10-10", 206, 10, 10},
		{"bytes=11-", 416, 0, 0}, {"bytes=40-50", 416, 0, 0}, {"bytes=-0", 416, 0, 0},
		// What is no range is no wish for one.
		{"bytes=5-4", 200, 0, 0}, {"bytes=a-b", 200, 0, 0}, {"blocks=1-2", 200, 0, 0}, {"bytes", 200, 0, 0},
		// S3 does not answer in several parts.
		{"bytes=0-1,4-5", 200, 0, 0},
	} {
		cases = append(cases, test{k.header, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", content)
			for _, method := range []string{"GET", "HEAD"} {
				a := c.do(t, request{method: method, bucket: b, key: "foo", header: []string{"Range: " + k.header}})
				if a.status != k.status {
					t.Fatalf("%s: status %d, want %d", method, a.status, k.status)
				}
				want, wantRange := content, ""
				switch k.status {
				case 206:
					want, wantRange = content[k.first:k.last+1], fmt.Sprintf("bytes %d-%d/%d", k.first, k.last, len(content))
				case 416:
					if method == "GET" && a.code() != "InvalidRange" {
						t.Errorf("the code is %q", a.code())
					}
					continue
				}
				if got := a.header.Get("Content-Range"); got != wantRange || a.header.Get("Content-Length") != fmt.Sprint(len(want)) {
					t.Errorf("%s: Content-Range is %q, Content-Length %s, want %q, %d", method, got, a.header.Get("Content-Length"), wantRange, len(want))
				}
				if method == "GET" && a.body != want {
					t.Errorf("the body is %q, want %q", a.body, want)
				}
			}
		}})
	}
	return append(cases,
		test{"of an empty object", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "")
			for _, r := range []string{"bytes=0-", "bytes=40-50", "bytes=0-0"} {
				c.do(t, request{bucket: b, key: "foo", header: []string{"Range: " + r}}).want(t, 416, "InvalidRange")
			}
		}},
		test{"with a condition", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			etag := c.put(t, b, "foo", content)
			c.do(t, request{bucket: b, key: "foo", header: []string{"Range: bytes=1-2", "If-Match: " + etag}}).want(t, 206, "")
			c.do(t, request{bucket: b, key: "foo", header: []string{"Range: bytes=1-2", `If-Match: "other"`}}).want(t, 412, "PreconditionFailed")
		}},
	)
}
