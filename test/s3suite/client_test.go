package s3suite

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// patience bounds one request.
const patience = 60 * time.Second

// client is an S3 server and a key of it.
type client struct {
	addr, region      string
	accessKey, secret string
	host              string          // the Host header; addr if it is empty
	server            *harness.Server // nil if the server is not ours
	buckets           *atomic.Int64   // how many were made, for their names
}

// start starts quickims, or names the server of QUICKIMS_SUITE_S3.
func start(t *testing.T) *client {
	t.Helper()
	if other := os.Getenv("QUICKIMS_SUITE_S3"); other != "" {
		u, err := url.Parse(other)
		if err != nil {
			t.Fatal(err)
		}
		secret, _ := u.User.Password()
		return &client{addr: u.Host, region: strings.Trim(u.Path, "/"), accessKey: u.User.Username(), secret: secret, buckets: &atomic.Int64{}}
	}
	s := harness.Start(t, harness.Options{S3: true, Config: "s3_domain: [" + strings.Join(domains, ", ") + "]\n"})
	return &client{addr: strings.TrimPrefix(s.S3URL, "http://"), region: harness.Region, accessKey: harness.AccessKey,
		secret: harness.SecretKey, server: s, buckets: &atomic.Int64{}}
}

// request is what a case sends. The zero value is a signed GET / without a body.
type request struct {
	method string // GET if empty
	bucket string
	key    string // as it is meant: escaped on the way
	root   string // the key when the host names the bucket; the path is /root then
	query  string // as it goes over the wire, already escaped: "list-type=2&prefix=a%2F"
	// header holds lines "Name: value" that are signed, in this order.
	header []string
	body   string
	sign   signing // how it is signed: by a header, if nothing is set
	// raw lines are added unsigned, before the others.
	raw []string
	// noLength leaves Content-Length out; then raw says how the body is framed.
	noLength bool
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	head   string // the status line and the headers, byte for byte
	body   string
}

// path is the request's path on the wire.
func (r request) path() string {
	path := "/" + escape(r.root, true)
	if r.bucket != "" {
		path += escape(r.bucket, false)
		if r.key != "" {
			path += "/" + escape(r.key, true)
		}
	}
	return path
}

// escape escapes as the signature's rules want: everything but A-Z a-z 0-9 - . _ ~,
// and / if keepSlash says so.
func escape(s string, keepSlash bool) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlash:
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// wire is the request as bytes, signed now.
func (c *client) wire(r request) string {
	if r.method == "" {
		r.method = http.MethodGet
	}
	target, headers := c.signed(r, time.Now())
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, target, or(c.host, c.addr))
	for _, line := range r.raw {
		out.WriteString(line + "\r\n")
	}
	for _, line := range headers {
		out.WriteString(line + "\r\n")
	}
	if !r.noLength && (r.body != "" || r.method == http.MethodPut || r.method == http.MethodPost) {
		fmt.Fprintf(&out, "Content-Length: %d\r\n", len(r.body))
	}
	out.WriteString("Connection: close\r\n\r\n")
	out.WriteString(r.body)
	return out.String()
}

// do sends a request over a connection of its own and reads the answer.
func (c *client) do(t *testing.T, r request) answer {
	t.Helper()
	a, err := c.send(c.wire(r), r.method)
	if err != nil {
		t.Fatalf("%s %s?%s: %v", r.method, r.path(), r.query, err)
	}
	return a
}

// send sends bytes and reads one answer.
func (c *client) send(wire, method string) (answer, error) {
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	// A server may answer before it has read all of the body.
	written := make(chan struct{})
	go func() {
		defer close(written)
		io.WriteString(conn, wire)
	}()
	defer func() { conn.Close(); <-written }()
	return receive(conn, method)
}

// receive reads one answer. 100 Continue is not one.
func receive(conn net.Conn, method string) (answer, error) {
	var seen bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &seen))
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return answer{}, fmt.Errorf("read the answer: %w (%q)", err, seen.String())
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return answer{}, fmt.Errorf("read the answer's body: %w", err)
		}
		head, _, _ := strings.Cut(seen.String(), "\r\n\r\n")
		return answer{status: res.StatusCode, header: res.Header, head: head, body: string(body)}, nil
	}
}

// code is the code of an error answer.
func (a answer) code() string {
	var e struct{ Code string }
	xml.Unmarshal([]byte(a.body), &e)
	return e.Code
}

// want fails the test unless the status is right and, for an error that has a body,
// the code: several codes are separated by |.
func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	if a.status != status || code != "" && !slices.Contains(strings.Split(code, "|"), a.code()) {
		t.Fatalf("the answer is %d %s, want %d %s\n%s", a.status, a.code(), status, code, brief(a.body))
	}
	return a
}

// oneOf fails the test unless the answer is one of "400 InvalidPart", ….
func (a answer) oneOf(t *testing.T, answers ...string) answer {
	t.Helper()
	if got := strings.TrimSpace(fmt.Sprint(a.status, " ", a.code())); !slices.Contains(answers, got) {
		t.Fatalf("the answer is %s, want one of %q\n%s", got, answers, brief(a.body))
	}
	return a
}

func brief(s string) string {
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}

// decode decodes a body, which must be XML.
func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var out T
	if err := xml.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("decode the answer: %v in %s", err, brief(a.body))
	}
	return out
}

// newBucket makes a bucket for one case.
func (c *client) newBucket(t *testing.T) string {
	t.Helper()
	name := c.freeName()
	c.do(t, request{method: "PUT", bucket: name}).want(t, 200, "")
	return name
}

// freeName is the name of a bucket that no case uses.
func (c *client) freeName() string {
	return fmt.Sprintf("suite-%d-%d", os.Getpid(), c.buckets.Add(1))
}

// put makes an object and returns its ETag.
func (c *client) put(t *testing.T, bucket, key, body string, header ...string) string {
	t.Helper()
	a := c.do(t, request{method: "PUT", bucket: bucket, key: key, body: body, header: header}).want(t, 200, "")
	return a.header.Get("ETag")
}

// get reads an object, which must be there.
func (c *client) get(t *testing.T, bucket, key string, header ...string) answer {
	t.Helper()
	return c.do(t, request{bucket: bucket, key: key, header: header}).want(t, 200, "")
}

// wantObject fails the test if an object is not what it should be.
func (c *client) wantObject(t *testing.T, bucket, key, body string) {
	t.Helper()
	if got := c.get(t, bucket, key); got.body != body {
		t.Fatalf("%s has %d bytes (%q), want %d (%q)", key, len(got.body), brief(got.body), len(body), brief(body))
	}
}

// wantNone fails the test if an object is there.
func (c *client) wantNone(t *testing.T, bucket, key string) {
	t.Helper()
	c.do(t, request{bucket: bucket, key: key}).want(t, 404, "NoSuchKey")
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func md5Base64(s string) string {
	sum := md5.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// test is one case of a table.
type test struct {
	name string
	run  func(t *testing.T, c *client)
}

// group runs cases side by side.
func group(t *testing.T, c *client, name string, tests []test) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		for _, k := range tests {
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				k.run(t, c)
			})
		}
	})
}

// TestSuite runs every kind of case against one server.
func TestSuite(t *testing.T) {
	t.Parallel()
	c := start(t)
	groups := map[string][]test{
		"buckets": bucketCases(), "lists": listCases(), "objects": objectCases(), "metadata": metadataCases(), "conditions": conditionCases(),
		"ranges": rangeCases(), "copies": copyCases(), "deletes": deleteCases(), "multipart": multipartCases(), "listings of uploads": uploadListCases(),
		"checksums": checksumCases(), "chunked": chunkedCases(), "presigned": presignedCases(), "forms": formCases(),
		"headers": headerCases(), "authorization": authorizationCases(), "not offered": notOfferedCases(), "keys": keyCases(),
		"hosts": hostCases(), "old signatures": oldCases(),
	}
	for name, tests := range groups {
		group(t, c, name, tests)
	}
}
