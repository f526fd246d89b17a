package s3suite

import (
	"strings"
	"testing"
	"time"
)

func authorizationCases() []test {
	replace := func(old, with string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, with, 1) }
	}
	var cases []test
	for _, k := range []struct {
		name    string
		sign    signing
		answers []string
	}{
		{"none", signing{none: true}, []string{"403 AccessDenied"}},
		{"a wrong secret", signing{secret: "wrong"}, []string{"403 SignatureDoesNotMatch"}},
		{"an access key that is not there", signing{accessKey: "AKNOBODYNOBODYNOBODY"}, []string{"403 InvalidAccessKeyId"}},
		{"an access key of strange characters", signing{accessKey: "../../x%00"}, []string{"403 InvalidAccessKeyId", "400 AuthorizationHeaderMalformed"}},
		{"another region", signing{region: "moon-west-1"}, []string{"400 AuthorizationHeaderMalformed", "403 SignatureDoesNotMatch"}},
		{"an hour late", signing{skew: -time.Hour}, []string{"403 RequestTimeTooSkewed"}},
		{"an hour early", signing{skew: time.Hour}, []string{"403 RequestTimeTooSkewed"}},
		{"ten minutes late", signing{skew: -10 * time.Minute}, []string{"200"}},
		{"the date as Date", signing{dateHeader: true}, []string{"200"}},
		{"empty", signing{mangle: func(string) string { return "" }}, []string{"403 AccessDenied", "400 AuthorizationHeaderMalformed", "403 InvalidArgument", "400 InvalidArgument"}},
		{"a word", signing{mangle: func(string) string { return "AWS4-HMAC-SHA256" }}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied", "400 InvalidArgument"}},
		{"another scheme", signing{mangle: replace("AWS4-HMAC-SHA256", "Bearer")}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied", "400 InvalidArgument", "400 InvalidRequest"}},
		{"no credential", signing{mangle: replace("Credential=", "X=")}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied"}},
		{"no signed headers", signing{mangle: replace("SignedHeaders=", "X=")}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied"}},
		{"no signature", signing{mangle: replace("Signature=", "X=")}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied"}},
		{"a credential of two parts", signing{mangle: replace("/s3/aws4_request", "")}, []string{"400 AuthorizationHeaderMalformed", "403 AccessDenied"}},
		{"another service", signing{mangle: replace("/s3/", "/ec2/")}, []string{"400 AuthorizationHeaderMalformed", "403 SignatureDoesNotMatch"}},
		{"host not signed", signing{mangle: replace("host;", "")}, []string{"403 AccessDenied", "403 SignatureDoesNotMatch", "400 AuthorizationHeaderMalformed"}},
		{"spaces between the parts", signing{mangle: func(s string) string { return strings.ReplaceAll(s, ", ", ",") }}, []string{"200"}},
	} {
		cases = append(cases, test{k.name, func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			c.do(t, request{bucket: b, key: "foo", sign: k.sign}).oneOf(t, k.answers...)
			a := c.do(t, request{method: "PUT", bucket: b, key: "foo", body: "zar", sign: k.sign})
			if (a.status == 200) != (k.answers[0] == "200") {
				t.Errorf("PUT: %d", a.status)
			}
			if a.status != 200 {
				c.wantObject(t, b, "foo", "bar")
			}
			c.do(t, request{sign: k.sign}).oneOf(t, append(k.answers, "307")...)
		}})
	}
	return append(cases,
		test{"signed twice", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			r := presigned("GET", b, "foo", "600")
			r.raw = []string{"Authorization: AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request, SignedHeaders=host, Signature=00"}
			if a := c.do(t, r); a.status/100 != 4 {
				t.Errorf("status %d", a.status)
			}
		}},
		test{"an x-amz header that is not signed", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			// Else whoever is in between could turn an upload into a copy.
			a := c.do(t, request{method: "PUT", bucket: b, key: "copy", raw: []string{"x-amz-copy-source: /" + b + "/foo"}})
			if a.status != 403 {
				t.Errorf("status %d", a.status)
			}
			c.wantNone(t, b, "copy")
		}},
		test{"two access keys of one request", func(t *testing.T, c *client) {
			b := c.newBucket(t)
			c.put(t, b, "foo", "bar")
			r := request{bucket: b, key: "foo", raw: []string{"Authorization: AWS4-HMAC-SHA256 Credential=a/20200101/b/s3/aws4_request, SignedHeaders=host, Signature=00"}}
			if a := c.do(t, r); a.status/100 != 4 {
				t.Errorf("status %d", a.status)
			}
		}},
	)
}
