package s3face

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/s3face/wire"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	h := newHosts(Config{Domains: []string{"s3.example.com", "example.org"}})
	for host, want := range map[string]string{
		"127.0.0.1:9000": "", "[::1]:9000": "", "::1": "", "10.0.0.1": "", "localhost": "", "quickims:9000": "", "LOCALHOST:80": "",
		"s3.example.com": "", "s3.example.com.": "", "S3.Example.COM:443": "", "images.s3.example.com": "images", "a.b.s3.example.com:9000": "a.b", "Images.S3.example.com": "images",
		"images.localhost:9000": "images", "example.org": "", "s3.example.org": "s3",
		"example.com": "refused", "images.example.com": "refused", "xs3.example.com": "refused", "s3.example.com.evil.net": "refused", "images.127.0.0.1": "refused",
	} {
		got, err := h.bucket(host)
		if err != nil {
			got = "refused"
			if !strings.Contains(err.Message, "path style") || !strings.Contains(err.Message, "s3_domain") {
				t.Errorf("%s: %s", host, err.Message)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	for name, ok := range map[string]bool{"s3.example.com": true, "s3": true, "": false, "S3.example.com": false, "s3.example.com:9000": false, ".s3": false, "s3.": false, "-s3": false, "a b": false} {
		if err := CheckDomain(name); (err == nil) != ok {
			t.Errorf("domain %q: %v", name, err)
		}
	}
}

// TestOperations: the table is whole. Each row has a handler, no two rows can be meant
// by one request, and what writes is marked so.
func TestOperations(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, op := range operations {
		key := op.method + string(rune('0'+op.level)) + strings.Join(op.params, ",") + "|" + op.header
		if other, twice := seen[key]; twice {
			t.Errorf("%s and %s have the same selectors", op.name, other)
		}
		seen[key] = op.name
		if op.do == nil || op.writes != (op.method != "GET" && op.method != "HEAD") || op.adds && !op.writes {
			t.Errorf("%s: %+v", op.name, op)
		}
		for _, h := range op.headers {
			if h != strings.ToLower(h) || !strings.HasPrefix(h, "x-amz-") {
				t.Errorf("%s: header %q", op.name, h)
			}
		}
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][2]int64{
		"bytes=0-0": {0, 1}, "bytes=0-": {0, 100}, "bytes=10-19": {10, 20}, "bytes=90-1000": {90, 100}, "bytes=-10": {90, 100}, "bytes=-1000": {0, 100},
		"bytes=99-": {99, 100}, "bytes=0-99999999999999999999": {0, 100},
	} {
		if start, end, ok := parseRange(header, 100); !ok || start != want[0] || end != want[1] {
			t.Errorf("%s: %d to %d, %v", header, start, end, ok)
		}
	}
	for _, header := range []string{"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2", "bytes=1--2", "bytes=0x1-2", "0-1"} {
		if _, _, ok := parseRange(header, 100); ok {
			t.Errorf("%q is not ignored", header)
		}
	}
	for header, ok := range map[string]bool{"bytes=0-99": true, "bytes=5-5": true, "": true, "bytes=0-100": false, "bytes=5-4": false, "bytes=-5": false, "bytes=5-": false, "bytes=+1-2": false, "bytes=1-+2": false, "0-1": false} {
		if _, _, err := copyRange(header, 100); (err == nil) != ok {
			t.Errorf("copy of %q: %v", header, err)
		}
	}
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Add("bytes=-5", int64(3))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 1 {
			return
		}
		if start, end, ok := parseRange(header, size); ok && (start < 0 || start < size && (end <= start || end > size)) {
			t.Errorf("%q of %d: %d to %d", header, size, start, end)
		}
		if start, length, err := copyRange(header, size); err == nil && (start < 0 || length < 1 || start+length > size) {
			t.Errorf("copy of %q of %d: %d bytes from %d", header, size, length, start)
		}
	})
}

func FuzzForm(f *testing.F) {
	f.Add("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\x\\y\"\r\n\r\ncontent\r\n--b--\r\n")
	f.Add("multipart/form-data", "")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		form, err := readForm(&http.Request{Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))})
		if err != nil {
			var e *wire.Error
			if !errors.As(err, &e) || wire.Err(e.Code).Message == "" {
				t.Errorf("%v", err)
			}
			return
		}
		if strings.ContainsAny(form.filename, `/\`) {
			t.Errorf("the file is called %q", form.filename)
		}
		if n, _ := io.Copy(io.Discard, form.file); n > int64(len(body)) {
			t.Errorf("%d bytes of %d", n, len(body))
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("a/b")
	f.Fuzz(func(t *testing.T, s string) {
		if got, ok := decodeToken(encodeToken(s)); !ok || got != s {
			t.Errorf("%q became %q, %v", s, got, ok)
		}
		decodeToken(s)
	})
}
