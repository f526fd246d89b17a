package s3suite

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"
)

// dialect is a signature of HMAC-SHA1 over a request's lines: OBS of Huawei Cloud, and
// version 2 of AWS, which differ in names alone.
type dialect struct{ scheme, prefix, keyParam string }

var dialects = []dialect{{"OBS", "x-obs-", "AccessKeyId"}, {"AWS", "x-amz-", "AWSAccessKeyId"}}

// oldSigned is a request that a dialect signs. extra lines are sent and not signed.
type oldSigned struct {
	request
	dialect
	secret string
	skew   time.Duration
	// until, if it is not zero, presigns: the query carries the signature.
	until time.Duration
	extra []string
}

func (c *client) old(t *testing.T, o oldSigned) answer {
	t.Helper()
	method, at := or(o.method, "GET"), time.Now().Add(o.skew).UTC()
	date := at.Format("Mon, 02 Jan 2006 15:04:05 GMT")
	stamp := date
	if o.until != 0 {
		stamp = fmt.Sprint(at.Add(o.until).Unix())
	}
	names, values := headerValues(o.header)
	sort.Strings(names)
	lines := ""
	for _, name := range names {
		if strings.HasPrefix(name, o.prefix) {
			lines += name + ":" + values[name] + "\n"
		}
	}
	toSign := strings.Join([]string{method, values["content-md5"], values["content-type"], stamp, lines + join(o.path(), o.query)}, "\n")
	h := hmac.New(sha1.New, []byte(or(o.secret, c.secret)))
	h.Write([]byte(toSign))
	signature := base64.StdEncoding.EncodeToString(h.Sum(nil))
	target := join(o.path(), o.query)
	var out strings.Builder
	if o.until != 0 {
		target = join(o.path(), strings.TrimPrefix(o.query+"&"+o.keyParam+"="+c.accessKey+"&Expires="+stamp+"&Signature="+escape(signature, false), "&"))
		fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, c.addr)
	} else {
		fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\nDate: %s\r\nAuthorization: %s %s:%s\r\n", method, target, c.addr, date, o.scheme, c.accessKey, signature)
	}
	for _, line := range append(o.header, o.extra...) {
		out.WriteString(line + "\r\n")
	}
	fmt.Fprintf(&out, "Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(o.body), o.body)
	a, err := c.send(out.String(), method)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

func oldCases() []test {
	var cases []test
	for _, d := range dialects {
		cases = append(cases,
			test{d.scheme + " works", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				put := oldSigned{dialect: d, request: request{method: "PUT", bucket: b, key: "a b+ü", body: "bar", header: []string{d.prefix + "meta-Name: value", "Content-Type: text/x-test", "Content-MD5: " + md5Base64("bar")}}}
				c.old(t, put).want(t, 200, "")
				a := c.old(t, oldSigned{dialect: d, request: request{bucket: b, key: "a b+ü"}}).want(t, 200, "")
				if a.body != "bar" || a.header.Get(d.prefix+"meta-name") != "value" || a.header.Get("Content-Type") != "text/x-test" || a.header.Get(d.prefix+"request-id") == "" {
					t.Errorf("%q, %s", a.body, a.head)
				}
				if a := c.old(t, oldSigned{dialect: d, request: request{bucket: b, key: "a b+ü"}, until: time.Minute}).want(t, 200, ""); a.body != "bar" {
					t.Errorf("presigned: %q", a.body)
				}
				copied := oldSigned{dialect: d, request: request{method: "PUT", bucket: b, key: "copy", header: []string{d.prefix + "copy-source: /" + b + "/" + escape("a b+ü", true)}}}
				c.old(t, copied).want(t, 200, "")
				c.wantObject(t, b, "copy", "bar")
				c.old(t, oldSigned{dialect: d, request: request{bucket: b, query: "uploads"}}).want(t, 200, "")
				c.old(t, oldSigned{dialect: d, request: request{method: "DELETE", bucket: b, key: "copy"}}).want(t, 204, "")
			}},
			test{d.scheme + " tampered with", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				c.put(t, b, "secret", "secret")
				c.put(t, b, "foo", "before")
				put := oldSigned{dialect: d, request: request{method: "PUT", bucket: b, key: "foo", body: "bar"}}
				for name, change := range map[string]func(o *oldSigned){
					"another secret": func(o *oldSigned) { o.secret = "wrong" },
					"an hour late":   func(o *oldSigned) { o.skew = -time.Hour },
					"an hour early":  func(o *oldSigned) { o.skew = time.Hour },
					"expired":        func(o *oldSigned) { o.until, o.skew = time.Minute, -time.Hour },
					// What the signature does not cover must not say what the request does.
					"a copy that was not signed":         func(o *oldSigned) { o.extra = []string{d.prefix + "copy-source: /" + b + "/secret"} },
					"a copy in the other dialect's name": func(o *oldSigned) { o.extra = []string{other(d).prefix + "copy-source: /" + b + "/secret"} },
					"metadata in the other's name":       func(o *oldSigned) { o.extra = []string{other(d).prefix + "meta-evil: 1"} },
					"another type":                       func(o *oldSigned) { o.extra = []string{"Content-Type: text/evil"} },
				} {
					o := put
					change(&o)
					a := c.old(t, o)
					got := c.get(t, b, "foo")
					if a.status == 200 && (got.body != "bar" || got.header.Get("X-Amz-Meta-Evil") != "" || got.header.Get("Content-Type") == "text/evil") || a.status != 200 && got.body != "before" {
						t.Errorf("%s: status %d, then %q, %v", name, a.status, got.body, got.header)
					}
					if a.status == 200 {
						// It counted for nothing.
						if !strings.Contains(name, "other") {
							t.Errorf("%s: it was taken", name)
						}
						c.put(t, b, "foo", "before")
					}
				}
				// A sub-resource is signed.
				wire := oldSigned{dialect: d, request: request{method: "DELETE", bucket: b, key: "foo"}}
				id := c.initiate(t, b, "foo")
				wire.query = "uploadId=" + escape(id, false)
				c.old(t, wire).want(t, 204, "")
				c.wantObject(t, b, "foo", "before")
			}},
			test{d.scheme + " malformed", func(t *testing.T, c *client) {
				b := c.newBucket(t)
				date := "Date: " + time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
				for _, lines := range [][]string{
					{"Authorization: " + d.scheme, date}, {"Authorization: " + d.scheme + " ", date}, {"Authorization: " + d.scheme + " a", date}, {"Authorization: " + d.scheme + " :", date},
					{"Authorization: " + d.scheme + " " + c.accessKey + ":", date}, {"Authorization: " + d.scheme + " " + c.accessKey + ":AAAA", date}, {"Authorization: " + d.scheme + " " + c.accessKey + ":AAAA"},
					{"Authorization: " + d.scheme + " " + c.accessKey + ":AAAA", "Date: yesterday"}, {"Authorization: " + d.scheme + " NOBODY:AAAA", date},
				} {
					a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "x", raw: lines, sign: signing{none: true}})
					if a.status != 400 && a.status != 403 {
						t.Errorf("%q: %d", lines, a.status)
					}
				}
				for _, query := range []string{
					d.keyParam + "=" + c.accessKey, d.keyParam + "=" + c.accessKey + "&Signature=AAAA", d.keyParam + "=" + c.accessKey + "&Expires=9999999999&Signature=AAAA",
					d.keyParam + "=" + c.accessKey + "&Expires=x&Signature=AAAA", "Signature=AAAA", "Expires=9999999999&Signature=AAAA",
				} {
					a := c.do(t, request{bucket: b, key: "foo", query: query, sign: signing{none: true}})
					if a.status != 400 && a.status != 403 {
						t.Errorf("%q: %d", query, a.status)
					}
				}
				c.wantNone(t, b, "foo")
			}},
		)
	}
	return cases
}

// other is the dialect that a request does not speak.
func other(d dialect) dialect {
	if d == dialects[0] {
		return dialects[1]
	}
	return dialects[0]
}
