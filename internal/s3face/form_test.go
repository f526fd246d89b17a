package s3face_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/s3face"
)

// formHead is a form of alice's for the bucket disks up to the bytes of its file, with a
// policy that allows exactly its fields.
func formHead(t *testing.T, fields [][2]string) (head []byte, contentType string) {
	t.Helper()
	conditions := []map[string]string{{"bucket": "disks"}}
	for _, f := range fields {
		conditions = append(conditions, map[string]string{f[0]: f[1]})
	}
	raw, err := json.Marshal(map[string]any{"expiration": time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z"), "conditions": conditions})
	must(t, err)
	policy := base64.StdEncoding.EncodeToString(raw)
	mac := hmac.New(sha1.New, []byte(keys["alice-key"].secret))
	mac.Write([]byte(policy))
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for _, field := range append(fields, [][2]string{
		{"AWSAccessKeyId", "alice-key"}, {"policy", policy}, {"signature", base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}...) {
		must(t, form.WriteField(field[0], field[1]))
	}
	_, err = form.CreateFormFile("file", "disk.raw")
	must(t, err)
	return b.Bytes(), form.FormDataContentType()
}

// TestFormFieldsAreHeaders: what a form's fields say of an object is refused when no
// response could say it.
func TestFormFieldsAreHeaders(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	makeBucket(t, f.client(t, "alice-key"), "disks")
	for name, c := range map[string]struct {
		field  [2]string
		status int
	}{
		"good":              {[2]string{"x-amz-meta-colour", "gr\u00fcn"}, http.StatusNoContent},
		"a space":           {[2]string{"x-amz-meta-a colour", "blue"}, http.StatusBadRequest},
		"a colon":           {[2]string{"x-amz-meta-a:b", "blue"}, http.StatusBadRequest},
		"a control":         {[2]string{"x-amz-meta-colour", "blue\x01"}, http.StatusBadRequest},
		"an end of line":    {[2]string{"Content-Type", "text/plain\r\nSet-Cookie: a=b"}, http.StatusBadRequest},
		"a field of nobody": {[2]string{"note", "two\nlines"}, http.StatusNoContent},
	} {
		t.Run(name, func(t *testing.T) {
			head, contentType := formHead(t, [][2]string{{"key", "disk"}, c.field})
			_, boundary, _ := strings.Cut(contentType, "boundary=")
			body := append(head, "bytes\r\n--"+boundary+"--\r\n"...)
			if status, code := f.do(t, "", http.MethodPost, "/disks", body, "Content-Type", contentType); status != c.status {
				t.Errorf("%d %s, want %d", status, code, c.status)
			}
		})
	}
}

// openForm begins a form from an address of this machine, and sends no more than its
// first bytes.
func openForm(t *testing.T, f *face, from string) (net.Conn, *bufio.Reader) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /disks HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n", conn.RemoteAddr())
	must(t, err)
	return conn, bufio.NewReader(conn)
}

// TestFormsHoldNoOthersPlaces: strangers from many addresses who have begun forms and do
// not go on take no place from other requests.
func TestFormsHoldNoOthersPlaces(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	for n := range 12 {
		for {
			_, answer := openForm(t, f, fmt.Sprintf("127.0.1.%d", n+1))
			line, err := answer.ReadString('\n') // it is read from, or refused
			must(t, err)
			if strings.HasPrefix(line, "HTTP/1.1 503") {
				break
			}
		}
	}
	if status, code := f.do(t, "alice-key", "PUT", "/disks", nil); status != http.StatusOK {
		t.Errorf("beside forms: %d %s", status, code)
	}
}

// TestFormTakesItsTimeOnce: a form whose fields come byte by byte, each soon after the
// other, is refused in the end.
func TestFormTakesItsTimeOnce(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *s3face.Config) { *c = s3face.WithFormTime(*c, 300*time.Millisecond) })
	conn, answer := openForm(t, f, "127.0.0.1")
	go func() {
		for {
			if _, err := conn.Write([]byte("-")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // the client's own pace
		}
	}()
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	got, err := io.ReadAll(answer)
	if errors.Is(err, os.ErrDeadlineExceeded) || !bytes.Contains(got, []byte("RequestTimeout")) {
		t.Errorf("%.300q, %v", got, err)
	}
}
