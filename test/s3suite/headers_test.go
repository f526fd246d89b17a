package s3suite

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// headerCases are about headers that HTTP knows and about bodies that never come.
func headerCases() []test {
	// unframed is a signed PUT without a Content-Length; raw lines frame it.
	unframed := func(bucket, key string, raw ...string) request {
		return request{method: "PUT", bucket: bucket, key: key, noLength: true, raw: raw, sign: signing{payload: unsigned}}
	}
	var cases []test
	for name, lines := range map[string][]string{
		"empty": {"Content-Length:"}, "negative": {"Content-Length: -1"}, "no number": {"Content-Length: three"}, "hexadecimal": {"Content-Length: 0x3"},
		"with a sign": {"Content-Length: +3"}, "two that differ": {"Content-Length: 3", "Content-Length: 4"}, "a list": {"Content-Length: 3, 4"},
		"beyond all": {"Content-Length: 99999999999999999999999"},
	} {
		cases = append(cases, test{"Content-Length " + name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			if a := c.do(t, unframed(b, "foo", lines...)); a.status != 400 && a.status != 411 {
				t.Errorf("object: %d", a.status)
			}
			c.wantNone(t, b, "foo")
			free := c.freeName()
			if a := c.do(t, unframed(free, "", lines...)); a.status != 400 && a.status != 411 {
				t.Errorf("bucket: %d", a.status)
			}
			c.do(t, request{method: "HEAD", bucket: free}).want(t, 404, "")
		}})
	}
	// What a proxy in between could read in another way must not be read at all.
	for name, lines := range map[string][]string{
		"both framings":              {"Content-Length: 3", "Transfer-Encoding: chunked"},
		"both framings, other order": {"Transfer-Encoding: chunked", "Content-Length: 3"},
		"an unknown coding":          {"Transfer-Encoding: gzip, chunked"},
		"a coding that is not last":  {"Transfer-Encoding: chunked, identity"},
		"two codings":                {"Transfer-Encoding: chunked", "Transfer-Encoding: identity"},
		"a space before the colon":   {"Transfer-Encoding : chunked"},
		"a vertical tab":             {"Transfer-Encoding: \vchunked"},
		"a folded line":              {"X-A: b", " Transfer-Encoding: chunked"},
	} {
		cases = append(cases, test{"framing: " + name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "secret", "secret")
			r := unframed(b, "foo", lines...)
			// The body is a request that must not be answered.
			smuggled := c.wire(request{method: "DELETE", bucket: b, key: "secret"})
			r.body = "0\r\n\r\n" + smuggled
			conn, err := net.DialTimeout("tcp", c.addr, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			go io.WriteString(conn, strings.Replace(c.wire(r), "Connection: close\r\n", "", 1))
			in := bufio.NewReader(conn)
			for n := 0; ; n++ {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				io.Copy(io.Discard, res.Body)
				if n == 0 && strings.Contains(name, "framings") {
					continue // HTTP lets a server take the chunks, if it closes the connection then
				}
				if res.StatusCode/100 == 2 {
					t.Errorf("answer %d is %d", n, res.StatusCode)
				}
			}
			c.wantObject(t, b, "secret", "secret")
		}})
	}
	return append(cases,
		test{"no Content-Length", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.do(t, unframed(b, "foo")).want(t, 411, "MissingContentLength")
			c.wantNone(t, b, "foo")
			free := c.freeName()
			c.do(t, unframed(free, "")).want(t, 200, "")
		}},
		test{"Expect that is no 100-continue", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "before")
			for _, line := range []string{"Expect: 200", "Expect:"} {
				// S3 reads on; HTTP lets a server refuse what it does not know.
				a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "bar", raw: []string{line}})
				if a.status == 417 && line != "Expect:" {
					c.wantObject(t, b, "foo", "before")
					continue
				}
				a.want(t, 200, "")
				c.wantObject(t, b, "foo", "bar")
				c.do(t, request{method: "PUT", bucket: c.freeName(), raw: []string{line}}).want(t, 200, "")
			}
		}},
		test{"Expect: 100-continue", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			body := strings.Repeat("x", 200_000)
			if a, asked := c.expect(t, request{method: "PUT", bucket: b, key: "foo", body: body}); a.status != 200 || !asked {
				t.Errorf("a good request: %d, asked for its body: %v", a.status, asked)
			}
			c.wantObject(t, b, "foo", body)
			// What can be refused is refused before the body is on its way.
			for name, r := range map[string]request{
				"a bucket that is not there": {method: "PUT", bucket: c.freeName(), key: "foo", body: body},
				"a wrong secret":             {method: "PUT", bucket: b, key: "foo", body: body, sign: signing{secret: "wrong"}},
				"no signature":               {method: "PUT", bucket: b, key: "foo", body: body, sign: signing{none: true}},
				"a condition":                {method: "PUT", bucket: b, key: "foo", body: body, header: []string{"If-None-Match: *"}},
				"what is not offered":        {method: "PUT", bucket: b, key: "foo", query: "acl", body: body},
			} {
				if a, asked := c.expect(t, r); a.status/100 == 2 || asked {
					t.Errorf("%s: %d, asked for its body: %v", name, a.status, asked)
				}
			}
		}},
		test{"Content-Type empty and none", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar", "Content-Type:")
			c.put(t, b, "foo", "bar")
			c.put(t, b, "foo", "bar", "Content-Type: text/plain")
		}},
		test{"a head of a megabyte", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			wire := c.wire(request{bucket: b, raw: []string{"X-Long: " + strings.Repeat("a", 1<<20)}})
			if a, err := c.send(wire, "GET"); err == nil && a.status/100 != 4 {
				t.Errorf("status %d", a.status)
			}
		}},
		test{"methods", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			for _, method := range []string{"PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "LOCK"} {
				a := c.do(t, request{method: method, bucket: b, key: "foo"})
				if a.status/100 != 4 && a.status != 501 {
					t.Errorf("%s: %d", method, a.status)
				}
			}
			c.wantObject(t, b, "foo", "bar")
		}},
	)
}

// expect sends a request's head with Expect: 100-continue, its body when the server
// asks for it, and tells whether the server did.
func (c *client) expect(t *testing.T, r request) (a answer, asked bool) {
	t.Helper()
	r.raw = append(r.raw, "Expect: 100-continue")
	head, body, _ := strings.Cut(c.wire(r), "\r\n\r\n")
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, head+"\r\n\r\n")
	in := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: r.method})
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusContinue {
			asked = true
			io.WriteString(conn, body)
			continue
		}
		data, _ := io.ReadAll(res.Body)
		return answer{status: res.StatusCode, header: res.Header, body: string(data)}, asked
	}
}
