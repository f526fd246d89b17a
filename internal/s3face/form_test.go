package s3face_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"
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
