package s3suite

import (
	"strings"
	"testing"
	"time"
)

// presigned is a request whose query carries the signature.
func presigned(method, bucket, key, expires string) request {
	return request{method: method, bucket: bucket, key: key, sign: signing{presign: true, expires: expires}}
}

func presignedCases() []test {
	filled := func(t *testing.T, c *client) string {
		b := c.newBucket(t)
		c.put(t, b, "foo", "bar")
		return b
	}
	var cases []test
	for _, k := range []struct {
		name    string
		expires string
		skew    time.Duration
		answers []string
	}{
		{"good", "600", 0, []string{"200"}},
		{"the longest", "604800", 0, []string{"200"}},
		{"signed an hour ago for two", "7200", -time.Hour, []string{"200"}},
		// AWS answers 400 for what can never be, 403 for what is over; Ceph 403 for all.
		{"too long", "604801", 0, []string{"400 AuthorizationQueryParametersError", "403 AccessDenied"}},
		{"negative", "-7", 0, []string{"400 AuthorizationQueryParametersError", "403 AccessDenied"}},
		{"no number", "soon", 0, []string{"400 AuthorizationQueryParametersError", "403 AccessDenied"}},
		{"no value", "", 0, []string{"400 AuthorizationQueryParametersError", "403 AccessDenied"}},
		{"at once", "0", 0, []string{"403 AccessDenied", "400 AuthorizationQueryParametersError"}},
		{"over", "60", -time.Hour, []string{"403 AccessDenied"}},
		{"over for days", "604800", -8 * 24 * time.Hour, []string{"403 AccessDenied"}},
		{"from the future", "600", time.Hour, []string{"403 AccessDenied", "403 RequestTimeTooSkewed"}},
	} {
		cases = append(cases, test{"get and put, " + k.name, func(t *testing.T, c *client) {
			b := filled(t, c)
			r := presigned("GET", b, "foo", k.expires)
			r.sign.skew = k.skew
			if a := c.do(t, r).oneOf(t, k.answers...); a.status == 200 && a.body != "bar" {
				t.Errorf("%q came back", a.body)
			}
			r = presigned("PUT", b, "foo", k.expires)
			r.sign.skew, r.body = k.skew, "zar"
			if a := c.do(t, r).oneOf(t, k.answers...); a.status == 200 {
				c.wantObject(t, b, "foo", "zar")
			} else {
				c.wantObject(t, b, "foo", "bar")
			}
		}})
	}
	return append(cases,
		test{"an object and a bucket that are gone", func(t *testing.T, c *client) {
			b := filled(t, c)
			c.do(t, request{method: "DELETE", bucket: b, key: "foo"}).want(t, 204, "")
			c.do(t, presigned("GET", b, "foo", "600")).want(t, 404, "NoSuchKey")
			c.do(t, presigned("HEAD", b, "foo", "600")).want(t, 404, "")
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
			c.do(t, presigned("GET", b, "foo", "600")).want(t, 404, "NoSuchBucket")
			r := presigned("PUT", b, "foo", "600")
			r.body = "x"
			c.do(t, r).want(t, 404, "NoSuchBucket")
		}},
		test{"other methods, keys, parameters, signatures", func(t *testing.T, c *client) {
			b := filled(t, c)
			c.put(t, b, "other", "secret")
			for name, mangle := range map[string]func(string) string{
				"a signature of zeros": func(q string) string {
					return q[:strings.Index(q, "X-Amz-Signature=")+16] + strings.Repeat("0", 64)
				},
				"no signature":           func(q string) string { return q[:strings.Index(q, "&X-Amz-Signature=")] },
				"longer than was signed": func(q string) string { return strings.Replace(q, "Expires=600", "Expires=601", 1) },
				"one more parameter":     func(q string) string { return q + "&response-content-type=a" },
				"an unknown algorithm":   func(q string) string { return strings.Replace(q, "AWS4-HMAC-SHA256", "AWS4-HMAC-MD5", 1) },
				"a parameter twice":      func(q string) string { return q + "&X-Amz-Expires=600000" },
			} {
				r := presigned("GET", b, "foo", "600")
				r.sign.mangle = mangle
				if a := c.do(t, r); a.status != 403 && a.status != 400 {
					t.Errorf("%s: %d", name, a.status)
				}
			}
			target, _ := c.signed(presigned("GET", b, "foo", "600"), time.Now())
			for _, wire := range []string{"DELETE " + target, "PUT " + target, "GET " + strings.Replace(target, "/foo", "/other", 1)} {
				a, err := c.send(wire+" HTTP/1.1\r\nHost: "+c.addr+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "GET")
				if err != nil || a.status != 403 || strings.Contains(a.body, "secret") && !strings.Contains(a.body, "<Error>") {
					t.Errorf("%s: %d %v", brief(wire), a.status, err)
				}
			}
			c.wantObject(t, b, "foo", "bar")
		}},
		test{"an access key that is not there", func(t *testing.T, c *client) {
			b := filled(t, c)
			r := presigned("GET", b, "foo", "600")
			r.sign.accessKey = "AKNOBODYNOBODYNOBODY"
			c.do(t, r).want(t, 403, "InvalidAccessKeyId")
		}},
		test{"signed headers must come", func(t *testing.T, c *client) {
			b := filled(t, c)
			r := presigned("PUT", b, "foo", "600")
			r.header, r.body = []string{"Content-Type: text/x-signed"}, "zar"
			c.do(t, r).want(t, 200, "")
			if got := c.get(t, b, "foo").header.Get("Content-Type"); got != "text/x-signed" {
				t.Errorf("Content-Type is %q", got)
			}
			target, _ := c.signed(r, time.Now())
			a, err := c.send("PUT "+target+" HTTP/1.1\r\nHost: "+c.addr+"\r\nContent-Type: text/other\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad", "PUT")
			if err != nil || a.status != 403 {
				t.Errorf("another Content-Type: %d %v", a.status, err)
			}
			c.wantObject(t, b, "foo", "zar")
		}},
		test{"parameters that were signed work", func(t *testing.T, c *client) {
			b := filled(t, c)
			r := presigned("GET", b, "foo", "600")
			r.query = "response-content-type=foo%2Fbar&response-content-disposition=a%20b"
			if a := c.do(t, r).want(t, 200, ""); a.header.Get("Content-Type") != "foo/bar" || a.header.Get("Content-Disposition") != "a b" {
				t.Errorf("%s", a.head)
			}
			r = presigned("GET", b, "", "600")
			r.query = "list-type=2&prefix=f"
			if keys, _ := decode[list](t, c.do(t, r).want(t, 200, "")).names(); len(keys) != 1 {
				t.Errorf("listed %q", keys)
			}
		}},
		test{"keys that need escaping", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, key := range []string{"a b", "a+b", "a%b", "ünï", "a&b=c?d", "<x>"} {
				r := presigned("PUT", b, key, "600")
				r.body = key
				c.do(t, r).want(t, 200, "")
				if a := c.do(t, presigned("GET", b, key, "600")).want(t, 200, ""); a.body != key {
					t.Errorf("%q: %q", key, a.body)
				}
			}
		}},
	)
}
