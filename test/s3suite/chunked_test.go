package s3suite

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// chunks frames a body as aws-chunked. sign and trailerSign may be nil.
func chunks(body string, size int, sign, trailerSign func(string) string, trailer ...string) string {
	var out strings.Builder
	one := func(data string) {
		extension := ""
		if sign != nil {
			extension = ";chunk-signature=" + sign(data)
		}
		fmt.Fprintf(&out, "%x%s\r\n%s", len(data), extension, data)
		if data != "" {
			out.WriteString("\r\n")
		}
	}
	for len(body) > 0 {
		n := min(size, len(body))
		one(body[:n])
		body = body[n:]
	}
	one("")
	lines := ""
	for _, line := range trailer {
		out.WriteString(line + "\r\n")
		lines += line + "\n"
	}
	if trailerSign != nil {
		out.WriteString("x-amz-trailer-signature:" + trailerSign(lines) + "\r\n")
	}
	out.WriteString("\r\n")
	return out.String()
}

// inHTTPChunks frames bytes in chunks of HTTP.
func inHTTPChunks(data string) string {
	var out strings.Builder
	for len(data) > 0 {
		n := min(50_000, len(data))
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, data[:n])
		data = data[n:]
	}
	return out.String() + "0\r\n\r\n"
}

// cut sends bytes and closes the connection without waiting for an answer.
func (c *client) cut(t *testing.T, wire string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, wire)
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, conn) // until the server has given up
	conn.Close()
}

// framed is a PUT whose body is aws-chunked. change may break the frame after it was
// made; length says whether Content-Length or chunks of HTTP carry it.
func (c *client) framed(t *testing.T, bucket, payload, algorithm, body string, length bool, change func(frame string) string, header ...string) answer {
	t.Helper()
	r := request{method: "PUT", bucket: bucket, key: "foo", header: append([]string{
		"x-amz-decoded-content-length: " + fmt.Sprint(len(body))}, header...)}
	var signer chunkSigner
	r.sign = signing{payload: payload, seed: &signer}
	trailer, sign, trailerSign := []string(nil), (func(string) string)(nil), (func(string) string)(nil)
	if strings.HasSuffix(payload, "-TRAILER") {
		r.header = append(r.header, "x-amz-trailer: x-amz-checksum-"+algorithm)
		trailer = []string{"x-amz-checksum-" + algorithm + ":" + sums[algorithm](body)}
	}
	if payload != unsignedChunks {
		sign = signer.chunk
		if trailer != nil {
			trailerSign = signer.trailer
		}
	}
	// The signature comes first: the chunks' signatures continue it. It does not cover
	// the framing, so the body's length may follow.
	now := time.Now()
	target, lines := c.signed(r, now)
	frame := change(chunks(body, 65_536, sign, trailerSign, trailer...))
	var wire strings.Builder
	fmt.Fprintf(&wire, "PUT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", target, c.addr, strings.Join(lines, "\r\n"))
	if length {
		fmt.Fprintf(&wire, "Content-Length: %d\r\n\r\n%s", len(frame), frame)
	} else {
		fmt.Fprintf(&wire, "Transfer-Encoding: chunked\r\n\r\n%s", inHTTPChunks(frame))
	}
	a, err := c.send(wire.String(), "PUT")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func same(frame string) string { return frame }

func chunkedCases() []test {
	var cases []test
	for _, payload := range []string{signedChunks, signedTrailer, unsignedChunks} {
		for _, length := range []bool{true, false} {
			how := map[bool]string{true: "Content-Length", false: "chunks of HTTP"}[length]
			algorithms := []string{"crc32", "crc32c", "crc64nvme", "sha1", "sha256"}
			if payload == signedChunks {
				algorithms = algorithms[:1] // it has no trailer
			}
			cases = append(cases, test{payload + ", " + how, func(t *testing.T, c *client) {
				b := c.newBucket(t)
				for _, algorithm := range algorithms {
					for _, size := range []int{0, 3, 65_536, 200_000} {
						body := strings.Repeat("x", size)
						c.framed(t, b, payload, algorithm, body, length, same, "Content-Encoding: aws-chunked").want(t, 200, "")
						a := c.do(t, request{bucket: b, key: "foo", header: []string{"x-amz-checksum-mode: ENABLED"}}).want(t, 200, "")
						if a.body != body || a.header.Get("Content-Encoding") != "" || a.header.Get("ETag") != `"`+md5Hex(body)+`"` {
							t.Errorf("%s, %d bytes: %d came back, Content-Encoding %q", algorithm, size, len(a.body), a.header.Get("Content-Encoding"))
						}
						if payload != signedChunks && a.header.Get("x-amz-checksum-"+algorithm) != sums[algorithm](body) {
							t.Errorf("%s, %d bytes: the checksum is %q", algorithm, size, a.header.Get("x-amz-checksum-"+algorithm))
						}
					}
				}
			}}, test{payload + ", " + how + ", broken", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				c.put(t, b, "foo", "before")
				body := strings.Repeat("x", 200_000)
				for name, change := range map[string]func(string) string{
					"another byte":                func(f string) string { return strings.Replace(f, "xx", "xy", 1) },
					"cut behind the first chunk":  func(f string) string { return f[:66_000] },
					"without the last chunk":      func(f string) string { return f[:strings.LastIndex(f, "\r\n0")+2] },
					"more than was promised":      func(f string) string { return "1\r\ny\r\n" + f },
					"a size that is no number":    func(f string) string { return "zz" + f },
					"a size of the largest value": func(f string) string { return "ffffffffffffffff" + f[5:] },
					"a negative size":             func(f string) string { return "-" + f },
					"an endless size line":        func(f string) string { return strings.Repeat("0", 100_000) + f },
					"nothing":                     func(string) string { return "" },
				} {
					if payload == signedChunks && name == "without the last chunk" {
						// All bytes came, signed one by one; S3 wants the end as well.
						change = func(f string) string { return f[:strings.LastIndex(f, "\r\n0;")+2] }
					}
					if a := c.framed(t, b, payload, "crc32", body, length, change); a.status/100 != 4 {
						t.Errorf("%s: %d %s", name, a.status, brief(a.body))
					}
					c.wantObject(t, b, "foo", "before")
				}
			}})
		}
	}
	return append(cases,
		test{"aws-chunked beside another encoding", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for sent, want := range map[string]string{"gzip,aws-chunked": "gzip", "aws-chunked,gzip": "gzip", "aws-chunked": "", "gzip": "gzip"} {
				c.framed(t, b, unsignedChunks, "crc32", "abc", true, same, "Content-Encoding: "+sent).want(t, 200, "")
				if got := c.get(t, b, "foo").header.Get("Content-Encoding"); got != want {
					t.Errorf("%q became %q", sent, got)
				}
			}
		}},
		test{"a trailer that was not announced, and one that does not come", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "before")
			drop := func(f string) string {
				i := strings.Index(f, "x-amz-checksum-crc32:")
				return f[:i] + "\r\n"
			}
			if a := c.framed(t, b, unsignedChunks, "crc32", "abc", true, drop); a.status/100 != 4 {
				t.Errorf("no trailer: %d", a.status)
			}
			rename := func(f string) string { return strings.Replace(f, "x-amz-checksum-crc32:", "x-amz-checksum-sha1:", 1) }
			if a := c.framed(t, b, unsignedChunks, "crc32", "abc", true, rename); a.status/100 != 4 {
				t.Errorf("another trailer: %d", a.status)
			}
			many := func(f string) string {
				i := strings.Index(f, "x-amz-checksum-crc32:")
				return f[:i] + strings.Repeat("x-amz-meta-a: b\r\n", 100_000) + f[i:]
			}
			if a := c.framed(t, b, unsignedChunks, "crc32", "abc", true, many); a.status/100 != 4 {
				t.Errorf("100,000 trailers: %d", a.status)
			}
			c.wantObject(t, b, "foo", "before")
		}},
		test{"without its decoded length", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			frame := chunks("abc", 10, nil, nil, "x-amz-checksum-crc32:"+sums["crc32"]("abc"))
			// S3 insists on it; the frame says itself where it ends.
			r := request{method: "PUT", bucket: b, key: "foo", body: frame, header: []string{"x-amz-trailer: x-amz-checksum-crc32"}, sign: signing{payload: unsignedChunks}}
			if a := c.do(t, r).oneOf(t, "411 MissingContentLength", "200"); a.status == 200 {
				c.wantObject(t, b, "foo", "abc")
				c.do(t, request{method: "DELETE", bucket: b, key: "foo"}).want(t, 204, "")
			}
			for _, bad := range []string{"x", "-1", "4", "2"} {
				if a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: frame, header: []string{"x-amz-trailer: x-amz-checksum-crc32", "x-amz-decoded-content-length: " + bad}, sign: signing{payload: unsignedChunks}}); a.status/100 != 4 {
					t.Errorf("%q: %d", bad, a.status)
				}
			}
			c.wantNone(t, b, "foo")
		}},
		test{"chunks of HTTP alone", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			// S3 wants to know how long an object is; a server need not.
			r := request{method: "PUT", bucket: b, key: "foo", body: inHTTPChunks("abc"), noLength: true, raw: []string{"Transfer-Encoding: chunked"}, sign: signing{payload: unsigned}}
			if a := c.do(t, r).oneOf(t, "411 MissingContentLength", "501 NotImplemented", "200"); a.status == 200 {
				c.wantObject(t, b, "foo", "abc")
			} else {
				c.wantNone(t, b, "foo")
			}
			r.body = "3\r\nabc\r\n"
			wire := c.wire(r)
			c.do(t, request{method: "DELETE", bucket: b, key: "foo"}).want(t, 204, "")
			c.cut(t, wire) // without the last chunk
			c.wantNone(t, b, "foo")
		}},
		test{"a part", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			id := c.initiate(t, b, "foo")
			frame := chunks("abc", 10, nil, nil, "x-amz-checksum-crc32:"+sums["crc32"]("abc"))
			a := c.do(t, request{method: "PUT", bucket: b, key: "foo", query: partQuery(id, 1), body: frame, sign: signing{payload: unsignedChunks},
				header: []string{"x-amz-trailer: x-amz-checksum-crc32", "x-amz-decoded-content-length: 3", "Content-Encoding: aws-chunked"}}).want(t, 200, "")
			c.complete(t, b, "foo", id, []string{partElement(1, a.header.Get("ETag"), "")}).want(t, 200, "")
			c.wantObject(t, b, "foo", "abc")
		}},
	)
}
