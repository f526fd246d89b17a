package s3face_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"testing"
	"time"
)

// TestV2OfBuckets: Signature Version 2 of a bucket in path style is over its name with a
// slash behind, whether or not the slash is sent; that of an object is over the key alone.
func TestV2OfBuckets(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "disks")
	put(t, c, "disks", "a", "a")
	for _, test := range []struct {
		path, signed string
		status       int
	}{
		{"/disks", "/disks", http.StatusOK}, {"/disks", "/disks/", http.StatusOK}, {"/disks/", "/disks/", http.StatusOK},
		{"/disks/a", "/disks/a", http.StatusOK}, {"/disks/a", "/disks/a/", http.StatusForbidden}, {"/disks/a", "/disks/", http.StatusForbidden},
		{"/disks", "/disks//", http.StatusForbidden}, {"/", "//", http.StatusForbidden}, {"/", "/", http.StatusOK},
	} {
		date := time.Now().UTC().Format(http.TimeFormat)
		mac := hmac.New(sha1.New, []byte(keys["alice-key"].secret))
		mac.Write([]byte("GET\n\n\n" + date + "\n" + test.signed))
		status, code := f.do(t, "", http.MethodGet, test.path, nil, "Date", date,
			"Authorization", "AWS alice-key:"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		if status != test.status {
			t.Errorf("%s, signed as %s: %d %s, want %d", test.path, test.signed, status, code, test.status)
		}
	}
}
