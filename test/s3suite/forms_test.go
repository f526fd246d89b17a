package s3suite

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"
)

// form is an upload by a browser's form: a policy, signed, and fields that keep to it.
type form struct {
	expiration string // now and an hour, if empty; "none" leaves it out
	conditions []any
	fields     [][2]string
	file       string
	filename   string
	old        bool // signed by version 2, as forms of ten years ago are
	// change replaces the policy's JSON before it is signed; mangle the signature.
	change    func(string) string
	mangle    func(string) string
	accessKey string
}

type conditions = []any

// goodForm is a form that works; cases change it.
func goodForm(bucket string) form {
	return form{
		conditions: conditions{
			map[string]string{"bucket": bucket}, []string{"starts-with", "$key", "foo"}, map[string]string{"acl": "private"},
			[]string{"starts-with", "$Content-Type", "text/plain"}, []any{"content-length-range", 0, 1024},
		},
		fields: [][2]string{{"key", "foo.txt"}, {"acl", "private"}, {"Content-Type", "text/plain"}},
		file:   "bar", filename: "name.txt",
	}
}

// set changes a field, or adds it.
func (f *form) set(name, value string) {
	for i := range f.fields {
		if f.fields[i][0] == name {
			f.fields[i][1] = value
			return
		}
	}
	f.fields = append(f.fields, [2]string{name, value})
}

func (f *form) without(name string) {
	var left [][2]string
	for _, field := range f.fields {
		if field[0] != name {
			left = append(left, field)
		}
	}
	f.fields = left
}

// post sends the form.
func (c *client) post(t *testing.T, bucket string, f form) answer {
	t.Helper()
	now := time.Now().UTC()
	date := now.Format(longDate)
	scope := date[:8] + "/" + c.region + "/s3/aws4_request"
	accessKey := or(f.accessKey, c.accessKey)
	fields := append([][2]string{}, f.fields...)
	policy := map[string]any{"conditions": f.conditions}
	if !f.old {
		extra := [][2]string{{"x-amz-algorithm", algorithm}, {"x-amz-credential", accessKey + "/" + scope}, {"x-amz-date", date}}
		if f.conditions != nil {
			all := append(conditions{}, f.conditions...)
			for _, e := range extra {
				all = append(all, map[string]string{e[0]: e[1]})
			}
			policy["conditions"] = all
		}
		fields = append(fields, extra...)
	}
	if f.conditions == nil {
		delete(policy, "conditions")
	}
	if f.expiration != "none" {
		policy["expiration"] = or(f.expiration, now.Add(time.Hour).Format("2006-01-02T15:04:05Z"))
	}
	data, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if f.change != nil {
		text = f.change(text)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	var signature string
	if f.old {
		h := hmac.New(sha1.New, []byte(c.secret))
		h.Write([]byte(encoded))
		signature = base64.StdEncoding.EncodeToString(h.Sum(nil))
	} else {
		key := []byte("AWS4" + c.secret)
		for _, part := range strings.Split(scope, "/") {
			key = mac(key, part)
		}
		signature = hex.EncodeToString(mac(key, encoded))
	}
	if f.mangle != nil {
		signature = f.mangle(signature)
	}
	fields = append(fields, [2]string{"policy", encoded})
	name := "x-amz-signature"
	if f.old {
		fields = append(fields, [2]string{"AWSAccessKeyId", accessKey})
		name = "signature"
	}
	if signature != "" {
		fields = append(fields, [2]string{name, signature})
	}
	return c.postFields(t, bucket, fields, f.filename, f.file, "")
}

// postFields sends fields and a file as they are; behind is what follows the file.
func (c *client) postFields(t *testing.T, bucket string, fields [][2]string, filename, file, behind string) answer {
	t.Helper()
	const boundary = "a-boundary-of-the-suite"
	var body strings.Builder
	for _, field := range fields {
		fmt.Fprintf(&body, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", boundary, field[0], field[1])
	}
	fmt.Fprintf(&body, "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n%s--%s--\r\n", boundary, filename, file, behind, boundary)
	return c.do(t, request{method: "POST", bucket: bucket, body: body.String(), raw: []string{"Content-Type: multipart/form-data; boundary=" + boundary}, sign: signing{none: true}})
}

func formCases() []test {
	var cases []test
	// Each change of a good form, by both signatures, and what comes of it.
	for _, k := range []struct {
		name   string
		change func(f *form)
		status int
		code   string
	}{
		{"good", func(*form) {}, 204, ""},
		{"without a Content-Type", func(f *form) {
			f.without("Content-Type")
			f.conditions = append(f.conditions[:3:3], f.conditions[4:]...)
		}, 204, ""},
		{"names in any case", func(f *form) {
			f.conditions = conditions{map[string]string{"bUcKeT": f.conditions[0].(map[string]string)["bucket"]}, []string{"StArTs-WiTh", "$KeY", "foo"},
				map[string]string{"AcL": "private"}, []string{"StArTs-WiTh", "$CoNtEnT-TyPe", "text/plain"}, []any{"content-length-range", 0, 1024}}
			f.fields = [][2]string{{"kEy", "foo.txt"}, {"aCl", "private"}, {"Content-Type", "text/plain"}}
		}, 204, ""},
		{"an ignored field", func(f *form) { f.set("x-ignore-foo", "bar") }, 204, ""},
		{"a metadata field", func(f *form) {
			f.conditions = append(f.conditions, []string{"starts-with", "$x-amz-meta-foo", "bar"})
			f.set("x-amz-meta-foo", "barclamp")
		}, 204, ""},
		{"an exact match", func(f *form) {
			f.conditions = append(f.conditions, []string{"eq", "$x-amz-meta-foo", "bar"})
			f.set("x-amz-meta-foo", "bar")
		}, 204, ""},
		{"an unknown success status", func(f *form) {
			f.conditions = append(f.conditions, map[string]string{"success_action_status": "404"})
			f.set("success_action_status", "404")
		}, 204, ""},
		{"a signature of another secret", func(f *form) { f.mangle = reverse }, 403, "SignatureDoesNotMatch"},
		{"an access key that is not there", func(f *form) { f.accessKey = "AKNOBODYNOBODYNOBODY" }, 403, "InvalidAccessKeyId"},
		{"no signature", func(f *form) { f.mangle = func(string) string { return "" } }, 400, "InvalidArgument|MalformedPOSTRequest"},
		{"no key", func(f *form) { f.without("key") }, 400, "InvalidArgument|UserKeyMustBeSpecified"},
		{"no bucket in the policy", func(f *form) { f.conditions = f.conditions[1:] }, 403, "AccessDenied"},
		{"another bucket in the policy", func(f *form) { f.conditions[0] = map[string]string{"bucket": "another"} }, 403, "AccessDenied"},
		{"a key beside the prefix", func(f *form) { f.set("key", "other.txt") }, 403, "AccessDenied"},
		{"a field that the policy does not know", func(f *form) { f.set("x-amz-meta-surprise", "1") }, 403, "AccessDenied"},
		{"a field that the policy wants and is missing", func(f *form) {
			f.conditions = append(f.conditions, []string{"starts-with", "$x-amz-meta-foo", "bar"})
		}, 403, "AccessDenied"},
		{"a field with another value", func(f *form) {
			f.conditions = append(f.conditions, []string{"eq", "$x-amz-meta-foo", ""})
			f.set("x-amz-meta-foo", "barclamp")
		}, 403, "AccessDenied"},
		{"expired", func(f *form) { f.expiration = time.Now().UTC().Add(-time.Hour).Format("2006-01-02T15:04:05Z") }, 403, "AccessDenied"},
		{"an expiration that is no time", func(f *form) { f.expiration = "2100-01-01 00:00:00" }, 400, "InvalidPolicyDocument"},
		{"no expiration", func(f *form) { f.expiration = "none" }, 400, "InvalidPolicyDocument"},
		{"EXPIRATION", func(f *form) {
			f.change = func(s string) string { return strings.Replace(s, `"expiration"`, `"EXPIRATION"`, 1) }
		}, 400, "InvalidPolicyDocument"},
		{"CONDITIONS", func(f *form) {
			f.change = func(s string) string { return strings.Replace(s, `"conditions"`, `"CONDITIONS"`, 1) }
		}, 400, "InvalidPolicyDocument"},
		{"no conditions", func(f *form) { f.conditions = nil }, 400, "InvalidPolicyDocument"},
		{"an empty condition", func(f *form) { f.conditions = conditions{map[string]string{}} }, 400, "InvalidPolicyDocument"},
		{"no JSON", func(f *form) { f.change = func(s string) string { return s[:len(s)/2] } }, 400, "InvalidPolicyDocument"},
		{"an unknown condition", func(f *form) {
			f.conditions = append(f.conditions, []string{"ends-with", "$key", "txt"})
		}, 400, "InvalidPolicyDocument"},
		{"too large", func(f *form) { f.conditions[4] = []any{"content-length-range", 0, 2} }, 400, "EntityTooLarge"},
		{"too small", func(f *form) { f.conditions[4] = []any{"content-length-range", 512, 1024} }, 400, "EntityTooSmall"},
		{"a range of one number", func(f *form) { f.conditions[4] = []any{"content-length-range", 0} }, 400, "InvalidPolicyDocument"},
		{"a negative range", func(f *form) { f.conditions[4] = []any{"content-length-range", -1, 0} }, 400, "InvalidPolicyDocument"},
	} {
		for _, old := range []bool{false, true} {
			version := map[bool]string{false: "version 4", true: "version 2"}[old]
			cases = append(cases, test{k.name + ", " + version, func(t *testing.T, c *client) {
				b := c.newBucket(t)
				f := goodForm(b)
				f.old = old
				k.change(&f)
				a := c.post(t, b, f).want(t, k.status, k.code)
				if k.status == 204 {
					if a.body != "" || a.header.Get("ETag") != `"`+md5Hex("bar")+`"` || a.header.Get("Location") == "" {
						t.Errorf("%s\n%s", a.head, a.body)
					}
					c.wantObject(t, b, "foo.txt", "bar")
				} else if keys, _ := c.list(t, b, "").names(); len(keys) != 0 {
					t.Errorf("a refused form left %q", keys)
				}
			}})
		}
	}
	return append(cases,
		test{"what is stored with the object", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			f := goodForm(b)
			f.conditions = append(f.conditions, []string{"starts-with", "$x-amz-meta-Foo", ""}, []string{"starts-with", "$Cache-Control", ""})
			f.set("x-amz-meta-Foo", "barclamp")
			f.set("Cache-Control", "no-cache")
			c.post(t, b, f).want(t, 204, "")
			if h := c.get(t, b, "foo.txt").header; h.Get("X-Amz-Meta-Foo") != "barclamp" || h.Get("Content-Type") != "text/plain" || h.Get("Cache-Control") != "no-cache" {
				t.Errorf("%v", h)
			}
		}},
		test{"success statuses", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for _, status := range []int{200, 201, 204} {
				f := goodForm(b)
				f.conditions = append(f.conditions, map[string]string{"success_action_status": fmt.Sprint(status)})
				f.set("success_action_status", fmt.Sprint(status))
				a := c.post(t, b, f).want(t, status, "")
				if status != 201 {
					if a.body != "" {
						t.Errorf("%d: %q", status, a.body)
					}
					continue
				}
				r := decode[struct {
					XMLName                     xml.Name `xml:"PostResponse"`
					Location, Bucket, Key, ETag string
				}](t, a)
				if r.Bucket != b || r.Key != "foo.txt" || r.ETag != `"`+md5Hex("bar")+`"` || !strings.HasSuffix(r.Location, "/foo.txt") {
					t.Errorf("%+v", r)
				}
			}
		}},
		test{"a redirect", func(t *testing.T, c *client) {
			for _, name := range []string{"success_action_redirect", "redirect"} {
				b := c.newBucket(t)
				f := goodForm(b)
				f.conditions = append(f.conditions, []string{"eq", "$" + name, "http://example.org/done?a=b"})
				f.set(name, "http://example.org/done?a=b")
				a := c.post(t, b, f).want(t, 303, "")
				want := "http://example.org/done?a=b&bucket=" + b + "&key=foo.txt&etag=%22" + md5Hex("bar") + "%22"
				if got := a.header.Get("Location"); got != want {
					t.Errorf("Location is %q, want %q", got, want)
				}
				c.wantObject(t, b, "foo.txt", "bar")
			}
		}},
		test{"a redirect that is no URL", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			f := goodForm(b)
			f.conditions = append(f.conditions, []string{"starts-with", "$success_action_redirect", ""})
			f.set("success_action_redirect", "::no url\r\nX-Evil: 1")
			if a := c.post(t, b, f); a.header.Get("X-Evil") != "" || a.status == 303 {
				t.Errorf("%s", a.head)
			}
		}},
		test{"the file's name in the key", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for filename, want := range map[string]string{"foo.txt": "foo.txt", `C:\temp\foo2.txt`: "foo2.txt", "/home/foo3.txt": "foo3.txt", "foo4 + ü.txt": "foo4 + ü.txt"} {
				f := goodForm(b)
				f.conditions[1] = []string{"starts-with", "$key", ""}
				f.set("key", "${filename}")
				f.filename = filename
				c.post(t, b, f).want(t, 204, "")
				// A browser sends the name alone; some servers keep what an old one sent.
				if keys, _ := c.list(t, b, "prefix="+escape(want, false)).names(); len(keys) != 1 && !strings.ContainsAny(filename, `\/`) {
					t.Errorf("%q became %q", filename, keys)
				}
			}
			f := goodForm(b)
			f.set("key", "foo/${filename}")
			c.post(t, b, f).want(t, 204, "")
			c.wantObject(t, b, "foo/name.txt", "bar")
			f.filename = "../../../escaped"
			if a := c.post(t, b, f); a.status != 204 && a.status != 400 {
				t.Errorf("a name with dots: %d", a.status)
			}
			f = goodForm(b)
			f.conditions[1] = []string{"starts-with", "$key", `\$foo`}
			f.set("key", `\$foo.txt`)
			c.post(t, b, f).want(t, 204, "")
			c.wantObject(t, b, `\$foo.txt`, "bar")
		}},
		test{"fields behind the file", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			f := goodForm(b)
			f.fields = append(f.fields, [2]string{"x-ignore-end", "1"})
			c.post(t, b, f).want(t, 204, "")
			a := c.postFields(t, b, nil, "x", "y", "--a-boundary-of-the-suite\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nfoo.txt\r\n")
			if a.status/100 != 4 {
				t.Errorf("a key behind the file: %d", a.status)
			}
		}},
		test{"larger than a chunk", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			f := goodForm(b)
			f.conditions[4] = []any{"content-length-range", 0, 5 << 20}
			f.file = strings.Repeat("foo", 1<<20)
			c.post(t, b, f).want(t, 204, "")
			c.wantObject(t, b, "foo.txt", f.file)
		}},
		test{"checksums", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			f := goodForm(b)
			f.conditions = append(f.conditions, []string{"starts-with", "$x-amz-checksum-sha256", ""})
			f.set("x-amz-checksum-sha256", sums["sha256"]("other"))
			c.post(t, b, f).want(t, 400, "BadDigest")
			c.wantNone(t, b, "foo.txt")
			f.set("x-amz-checksum-sha256", sums["sha256"]("bar"))
			c.post(t, b, f).want(t, 204, "")
		}},
		test{"without credentials", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.postFields(t, b, [][2]string{{"key", "foo.txt"}, {"acl", "public-read"}}, "x", "bar", "").want(t, 403, "AccessDenied")
			c.wantNone(t, b, "foo.txt")
		}},
		test{"to a bucket that is not there", func(t *testing.T, c *client) {
			b := c.freeName()
			c.post(t, b, goodForm(b)).want(t, 404, "NoSuchBucket")
		}},
		test{"bodies that are no forms", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for contentType, body := range map[string]string{
				"multipart/form-data": "no boundary", "multipart/form-data; boundary=x": "", "multipart/form-data; boundary=y": "--y\r\n\r\n",
				"multipart/form-data; boundary=z": strings.Repeat("--z\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n", 20_000),
				"application/json":                "{}", "text/plain": "key=foo",
				"multipart/form-data; boundary=w": "--w\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n" + strings.Repeat("k", 3<<20) + "\r\n--w--\r\n",
			} {
				a := c.do(t, request{method: "POST", bucket: b, body: body, raw: []string{"Content-Type: " + contentType}, sign: signing{none: true}})
				if a.status/100 != 4 {
					t.Errorf("%s: %d", contentType, a.status)
				}
			}
			if keys, _ := c.list(t, b, "").names(); len(keys) != 0 {
				t.Errorf("left are %q", keys)
			}
		}},
	)
}

func reverse(s string) string {
	out := []byte(s)
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return string(out)
}
