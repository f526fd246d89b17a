package s3suite

import (
	"slices"
	"strings"
	"testing"
)

func keyCases() []test {
	return []test{
		{"special names", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			keys := []string{" ", `"`, "$", "%", "&", "'", "<", ">", "_", "_ ", "_ _", "__", "+", "?", "#", ";", "=", "~", "\\", "*", "\t", "a\nb", "\x01", "ü", "日本", "e\u0301", "🙂", "...", ".hidden", "%2F", "%00"}
			for _, key := range keys {
				a := c.do(t, request{method: "PUT", bucket: b, key: key, body: key})
				if a.status != 200 {
					t.Errorf("%q: %d %s", key, a.status, a.code())
					continue
				}
				c.wantObject(t, b, key, key)
			}
			slices.Sort(keys)
			for _, version := range []int{1, 2} {
				if got, _ := c.pages(t, b, version, 3, "url", "", ""); !slices.Equal(got, keys) {
					t.Errorf("version %d: listed %q, want %q", version, got, keys)
				}
			}
			r := decode[deleteResult](t, c.deleteMany(t, b, deleteBody(false, slices.DeleteFunc(keys, func(k string) bool { return k == "\x01" })...)).want(t, 200, ""))
			if len(r.Error) != 0 {
				t.Errorf("%+v", r.Error)
			}
			c.do(t, request{method: "DELETE", bucket: b, key: "\x01"}).want(t, 204, "")
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
		}},
		{"long", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			segment := strings.Repeat("s", 255)
			long := strings.Join([]string{segment, segment, segment, segment}, "/") // 1,023 bytes
			c.put(t, b, long, "x")
			c.wantObject(t, b, long, "x")
			c.do(t, request{method: "PUT", bucket: b, key: long + "//", body: "x"}).oneOf(t, "400 KeyTooLongError", "400 InvalidArgument", "400 InvalidObjectName")
			c.do(t, request{method: "PUT", bucket: b, key: strings.Repeat("a/", 512) + "a", body: "x"}).want(t, 400, "KeyTooLongError")
		}},
		{"that a folder cannot hold", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			// S3 takes these; a store of files says why it cannot.
			for _, key := range []string{"a//b", "//a", "/a", "./a", "a/./b", "a/../b", "..", ".", "a/..", strings.Repeat("s", 256), "a/" + strings.Repeat("ü", 128), "a\x00b"} {
				a := c.do(t, request{method: "PUT", bucket: b, key: key, body: "x"})
				if a.status != 400 || a.code() == "" || len(a.body) < 100 {
					t.Errorf("%q: %d %s", key[:min(9, len(key))], a.status, brief(a.body))
				}
				if a := c.do(t, request{bucket: b, key: key}); a.status/100 != 4 {
					t.Errorf("GET %q: %d", key[:min(9, len(key))], a.status)
				}
				if a := c.do(t, request{method: "POST", bucket: b, key: key, query: "uploads"}); a.status/100 != 4 {
					t.Errorf("an upload to %q: %d", key[:min(9, len(key))], a.status)
				}
			}
			if keys, prefixes := c.list(t, b, "delimiter=%2F").names(); len(keys)+len(prefixes) != 0 {
				t.Errorf("left are %q %q", keys, prefixes)
			}
		}},
		{"that are no UTF-8", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range []string{"\xff", "a\xc3", "\xed\xa0\x80"} {
				if a := c.do(t, request{method: "PUT", bucket: b, key: key, body: "x"}); a.status != 400 {
					t.Errorf("%q: %d", key, a.status)
				}
			}
		}},
		{"that are folders", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "folder/", "")
			if a := c.get(t, b, "folder/"); a.body != "" || a.header.Get("ETag") != `"`+md5Hex("")+`"` {
				t.Errorf("%s", a.head)
			}
			c.wantNone(t, b, "folder")
			c.put(t, b, "folder/a", "x")
			if keys, _ := c.list(t, b, "").names(); !slices.Equal(keys, []string{"folder/", "folder/a"}) {
				t.Errorf("listed %q", keys)
			}
			// The folder's object is deleted, what is in the folder stays.
			c.do(t, request{method: "DELETE", bucket: b, key: "folder/"}).want(t, 204, "")
			c.wantObject(t, b, "folder/a", "x")
			if keys, _ := c.list(t, b, "").names(); !slices.Equal(keys, []string{"folder/a"}) {
				t.Errorf("listed %q", keys)
			}
			c.wantNone(t, b, "folder/")
			c.do(t, request{method: "DELETE", bucket: b, key: "folder"}).want(t, 204, "")
			c.wantObject(t, b, "folder/a", "x")
		}},
		{"a beside a/b", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "a", "file")
			a := c.do(t, request{method: "PUT", bucket: b, key: "a/b", body: "x"})
			if c.server == nil && a.status == 200 {
				return // S3 has both
			}
			if a.status/100 != 4 || len(a.body) < 100 {
				t.Errorf("a/b below a: %d %s", a.status, brief(a.body))
			}
			c.wantObject(t, b, "a", "file")
			c.put(t, b, "c/d", "x")
			if a := c.do(t, request{method: "PUT", bucket: b, key: "c", body: "x"}); a.status/100 != 4 {
				t.Errorf("c above c/d: %d", a.status)
			}
			c.wantObject(t, b, "c/d", "x")
			c.do(t, request{bucket: b, key: "a/b"}).want(t, 404, "NoSuchKey")
			c.do(t, request{method: "HEAD", bucket: b, key: "a/b/c"}).want(t, 404, "")
			c.do(t, request{method: "DELETE", bucket: b, key: "a/b"}).want(t, 204, "")
			c.wantObject(t, b, "a", "file")
		}},
		{"names of the gateway itself", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			if c.server == nil {
				t.Skip("another server has other names")
			}
			for _, key := range []string{".sgwtmp/x", ".sgwtmp", ".sgwtmp/multipart/a/b"} {
				if a := c.do(t, request{method: "PUT", bucket: b, key: key, body: "x"}); a.status/100 == 2 {
					// Such a key is then an object as any other.
					c.wantObject(t, b, key, "x")
					if keys, _ := c.list(t, b, "").names(); !slices.Contains(keys, key) {
						t.Errorf("%q was taken and is not listed", key)
					}
					c.do(t, request{method: "DELETE", bucket: b, key: key}).want(t, 204, "")
				} else if a.status != 400 {
					t.Errorf("%q: %d", key, a.status)
				}
			}
		}},
		{"in every form of a path", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "a b+c/d", "x")
			for _, path := range []string{"/a%20b%2Bc/d", "/a%20b%2bc/d"} {
				// Lower-case escapes are signed as they are sent.
				wire := c.wire(request{bucket: b, key: "a b+c/d"})
				wire = strings.Replace(wire, "/a%20b%2Bc/d", path, 1)
				if a, err := c.send(wire, "GET"); err != nil || a.status != 200 && a.status != 403 {
					t.Errorf("%s: %d %v", path, a.status, err)
				}
			}
			for _, path := range []string{"/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%", "/%zz", "/\\..\\..\\x", "/a%00b"} {
				wire := "GET /" + b + path + " HTTP/1.1\r\nHost: " + c.addr + "\r\nConnection: close\r\n\r\n"
				if a, err := c.send(wire, "GET"); err != nil || a.status/100 != 4 || strings.Contains(a.body, "root:") {
					t.Errorf("%s: %d %v", path, a.status, err)
				}
			}
		}},
	}
}
