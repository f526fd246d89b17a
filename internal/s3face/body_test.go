package s3face_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/s3face"
)

// raw sends bytes on a connection of their own while it reads the answers, and
// returns those, and why it could not send all.
func (f *face) raw(t *testing.T, head string, body io.Reader) (answers []string, sendErr error) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, io.MultiReader(strings.NewReader(head), body))
		sent <- err
	}()
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			break // closed: as it is told to be
		}
		answer, err := io.ReadAll(resp.Body)
		must(t, err)
		answers = append(answers, resp.Status+" "+string(answer))
	}
	conn.Close()
	return answers, <-sent
}

// smuggled looks like a request, and would be one to a server that lost count.
func smuggled() string {
	now := time.Now().UTC()
	return "GET /images/k HTTP/1.1\r\nHost: gateway\r\nX-Amz-Date: " + now.Format("20060102T150405Z") +
		"\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nAuthorization: AWS4-HMAC-SHA256 Credential=smuggled/" + now.Format("20060102") +
		"/eu-de/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" + strings.Repeat("0", 64) + "\r\n\r\n"
}

// lookups remembers every access key that was asked for.
type lookups struct {
	accounts
	mu   sync.Mutex
	keys []string
}

// SecretFor implements s3face.Accounts.
func (l *lookups) SecretFor(key string) (string, string, bool, error) {
	l.mu.Lock()
	l.keys = append(l.keys, strings.Clone(key))
	l.mu.Unlock()
	return l.accounts.SecretFor(key)
}

// TestNothingIsSmuggled: what is left of a refused request's body is never
// another request.
func TestNothingIsSmuggled(t *testing.T) {
	asked := &lookups{accounts: keys}
	said := new(lockedBuffer)
	f := start(t, func(c *s3face.Config) { c.Accounts = asked })
	log.SetOutput(said) // net/http's transport tells of answers that nobody asked for
	defer log.SetOutput(io.Discard)
	alice := f.client(t, "alice-key")
	makeBucket(t, alice, "images")
	put(t, alice, "images", "k", "content")

	hidden := smuggled()
	for name, c := range map[string]struct{ head, body string }{
		"chunks":          {"PUT /images/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)},
		"an empty body":   {"PUT /images/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"},
		"chunks of a GET": {"GET /images/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)},
		"both lengths":    {"PUT /images/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n" + hidden},
		"no key":          {fmt.Sprintf("PUT /images/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 40*len(hidden)), strings.Repeat(hidden, 40)},
		"a GET's body":    {fmt.Sprintf("GET /images/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(hidden)), hidden},
		"a bad upload id": {fmt.Sprintf("PUT /images/x?partNumber=1&uploadId=.. HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(hidden)), hidden},
		"too large":       {"PUT /images/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n", hidden},
		"a large document": {fmt.Sprintf("POST /images?delete HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 1<<20),
			strings.Repeat(hidden, 1<<20/len(hidden)+1)[:1<<20]},
	} {
		// A second request on the connection may be answered or not, but as what it is.
		second := "GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		answers, _ := f.raw(t, c.head, strings.NewReader(c.body+second))
		if len(answers) == 0 || len(answers) > 2 || !strings.HasPrefix(answers[0], "4") {
			t.Errorf("%s: %q", name, answers)
		}
		wantContent(t, alice, "images", "k", "content")
	}
	// Chunks come from clients that do not know the length: a file without any.
	for range 20 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.url+"/images/empty", io.NopCloser(strings.NewReader("")))
		must(t, err)
		req.ContentLength = -1
		resp, err := f.transport.RoundTrip(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("an empty body in chunks, without a key: %s", resp.Status)
		}
		put(t, alice, "images", "empty", "")
		wantContent(t, alice, "images", "empty", "")
	}
	must(t, f.stop())
	for _, key := range asked.keys {
		if key != "alice-key" {
			t.Errorf("the key %q was looked up", key)
		}
	}
	if got := said.String(); strings.Contains(got, "Unsolicited") || strings.Contains(f.log.String(), "Unsolicited") {
		t.Errorf("net/http says: %s%s", got, f.log)
	}
}

// lockedBuffer may be written by several at a time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestTooLargeIsRefusedAtOnce: a client that waits to be told to go on is told
// not to.
func TestTooLargeIsRefusedAtOnce(t *testing.T) {
	f := start(t, nil)
	makeBucket(t, f.client(t, "alice-key"), "images")
	url, err := f.client(t, "alice-key").PresignedPutObject(t.Context(), "images", "k", time.Minute)
	must(t, err)
	head := "PUT " + url.RequestURI() + " HTTP/1.1\r\nHost: " + url.Host + "\r\nExpect: 100-continue\r\nConnection: close\r\n"
	for name, c := range map[string]struct{ headers, want string }{
		"5 GiB and a byte":  {"Content-Length: 5368709121", "400 Bad Request|EntityTooLarge"},
		"much more":         {"Content-Length: 99999999999", "400 Bad Request|EntityTooLarge"},
		"beyond 64 bits":    {"Content-Length: 99999999999999999999999", "400 Bad Request|"},
		"less than nothing": {"Content-Length: -1", "400 Bad Request|"},
		"no number":         {"Content-Length: many", "400 Bad Request|"},
		"in chunks of S3":   {"Content-Length: 1000\r\nX-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nX-Amz-Decoded-Content-Length: 5368709121", "403 Forbidden|AccessDenied"},
		"no length":         {"X-Nothing: 1", "411 Length Required|MissingContentLength"},
	} {
		answers, _ := f.raw(t, head+c.headers+"\r\n\r\n", strings.NewReader(""))
		status, code, _ := strings.Cut(c.want, "|")
		if len(answers) != 1 || !strings.HasPrefix(answers[0], status) || code != "" && !strings.Contains(answers[0], "<Code>"+code+"</Code>") {
			t.Errorf("%s: %q", name, answers)
		}
	}
	// What S3 takes, this takes.
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, head+"Content-Length: 5368709120\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusContinue {
		t.Errorf("5 GiB: %+v, %v", resp, err)
	}
}

// TestRefusedUploadsAreAnswered: a client that sends all of its request before
// it reads anything finds the answer.
func TestRefusedUploadsAreAnswered(t *testing.T) {
	f := start(t, nil)
	makeBucket(t, f.client(t, "alice-key"), "images")
	const size = 12 << 20
	for name, c := range map[string]struct{ head, status string }{
		"no key":       {"PUT /images/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", "403"},
		"an upload id": {"PUT /images/x?partNumber=1&uploadId=x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", "403"},
		"a document":   {"PUT /images?policy HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", "403"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(fmt.Sprintf(c.head, size)), bytes.NewReader(make([]byte, size)))); err != nil {
			t.Errorf("%s: send: %v", name, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasPrefix(resp.Status, c.status) || !bytes.Contains(answer, []byte("<Code>")) {
			t.Errorf("%s: %s %s, %v", name, resp.Status, answer, err)
		}
	}
	// Nor does the library's answer get lost for a client that does read.
	for range 20 {
		req := bytes.NewReader(make([]byte, size))
		status, code, _ := f.sendWith(t, "alice-key", "wrong", http.MethodPut, "/images/x", nil)
		if status != http.StatusForbidden || code != "SignatureDoesNotMatch" {
			t.Errorf("%d %s", status, code)
		}
		_, err := f.client(t, "nobody").PutObject(t.Context(), "images", "x", req, size, minio.PutObjectOptions{DisableMultipart: true})
		if code := minio.ToErrorResponse(err).Code; code != "AccessDenied" {
			t.Errorf("upload without a key: %v", err)
		}
	}
}
