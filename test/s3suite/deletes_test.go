package s3suite

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
)

type deleteResult struct {
	XMLName xml.Name `xml:"DeleteResult"`
	Deleted []struct{ Key string }
	Error   []struct{ Key, Code, Message string }
}

func (r deleteResult) keys() (out []string) {
	for _, d := range r.Deleted {
		out = append(out, d.Key)
	}
	return out
}

// deleteMany deletes objects by one request.
func (c *client) deleteMany(t *testing.T, bucket, body string, header ...string) answer {
	t.Helper()
	if header == nil {
		header = []string{"Content-MD5: " + md5Base64(body)}
	}
	return c.do(t, request{method: "POST", bucket: bucket, query: "delete", body: body, header: header})
}

func deleteBody(quiet bool, keys ...string) string {
	var out strings.Builder
	out.WriteString(`<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
	if quiet {
		out.WriteString("<Quiet>true</Quiet>")
	}
	for _, key := range keys {
		out.WriteString("<Object><Key>")
		xml.EscapeText(&out, []byte(key))
		out.WriteString("</Key></Object>")
	}
	out.WriteString("</Delete>")
	return out.String()
}

func deleteCases() []test {
	return []test{
		{"many", func(t *testing.T, c *client) {
			b, keys := c.newBucket(t), []string{"key0", "key1", "a/b/c", "plus+", "sp ace", "100%", "ünï", "<&>\"'"}
			for _, key := range keys {
				c.put(t, b, key, "x")
			}
			// Once more: what is gone is deleted, too.
			for range 2 {
				r := decode[deleteResult](t, c.deleteMany(t, b, deleteBody(false, keys...)).want(t, 200, ""))
				if !slices.Equal(r.keys(), keys) || len(r.Error) != 0 {
					t.Errorf("deleted %q, errors %+v", r.keys(), r.Error)
				}
			}
			if left, _ := c.list(t, b, "").names(); len(left) != 0 {
				t.Errorf("left are %q", left)
			}
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
		}},
		{"quietly", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "key0", "x")
			r := decode[deleteResult](t, c.deleteMany(t, b, deleteBody(true, "key0", "none")).want(t, 200, ""))
			if len(r.Deleted) != 0 || len(r.Error) != 0 {
				t.Errorf("%+v", r)
			}
			c.wantNone(t, b, "key0")
		}},
		{"with other checksums than an MD5", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			for name, sum := range sums {
				c.put(t, b, "key0", "x")
				body := deleteBody(false, "key0")
				c.deleteMany(t, b, body, "x-amz-checksum-"+name+": "+sum("other")).want(t, 400, "BadDigest")
				c.wantObject(t, b, "key0", "x")
				c.deleteMany(t, b, body, "x-amz-sdk-checksum-algorithm: "+strings.ToUpper(name), "x-amz-checksum-"+name+": "+sum(body)).want(t, 200, "")
				c.wantNone(t, b, "key0")
			}
		}},
		{"bodies that are not what they should be", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "key0", "x")
			for _, body := range []string{"", "<Delete>", "<Delete></Delete>", "<Other><Object><Key>key0</Key></Object></Other>", "not XML", "<Delete><Object></Object></Delete>"} {
				c.deleteMany(t, b, body).oneOf(t, "400 MalformedXML", "400 MissingRequestBodyError", "400 InvalidRequest", "400 UserKeyMustBeSpecified")
			}
			c.deleteMany(t, b, deleteBody(false, "key0"), "Content-MD5: "+md5Base64("other")).want(t, 400, "BadDigest")
			c.wantObject(t, b, "key0", "x")
			c.deleteMany(t, c.freeName(), deleteBody(false, "key0")).want(t, 404, "NoSuchBucket")
		}},
		{"a key that cannot be", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "key0", "x")
			// Such a key is not there, so deleting it changes nothing, and the others go.
			r := decode[deleteResult](t, c.deleteMany(t, b, deleteBody(false, "../key0", "a//b", "key0")).want(t, 200, ""))
			if len(r.Deleted)+len(r.Error) != 3 || !slices.Contains(r.keys(), "key0") {
				t.Errorf("%+v", r)
			}
			c.wantNone(t, b, "key0")
		}},
		{"with an ETag", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			etag := c.put(t, b, "key0", "x")
			body := "<Delete><Object><Key>key0</Key><ETag>&quot;other&quot;</ETag></Object></Delete>"
			r := decode[deleteResult](t, c.deleteMany(t, b, body).want(t, 200, ""))
			if len(r.Error) != 1 || r.Error[0].Code != "PreconditionFailed" {
				t.Errorf("%+v", r)
			}
			c.wantObject(t, b, "key0", "x")
			body = "<Delete><Object><Key>key0</Key><ETag>" + strings.ReplaceAll(etag, `"`, "&quot;") + "</ETag></Object></Delete>"
			c.deleteMany(t, b, body).want(t, 200, "")
			c.wantNone(t, b, "key0")
		}},
		{"a bucket that was just emptied", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "a/b/c/d", "x")
			c.do(t, request{method: "DELETE", bucket: b, key: "a/b/c/d"}).want(t, 204, "")
			if keys, prefixes := c.list(t, b, "delimiter=%2F").names(); len(keys)+len(prefixes) != 0 {
				t.Errorf("left are %q, %q", keys, prefixes)
			}
			c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
		}},
	}
}
