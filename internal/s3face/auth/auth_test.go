package auth

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// The key, the time and the signatures are those of the examples in AWS's
// documentation, "Authenticating Requests (AWS Signature Version 4)".
const (
	exampleKey    = "AKIAIOSFODNN7EXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

var exampleTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

func exampleGet() *Request {
	return &Request{
		Method: "GET", RawPath: "/test.txt", Path: "/test.txt", Host: "examplebucket.s3.amazonaws.com", Bucket: "examplebucket",
		Header: http.Header{
			"Range": {"bytes=0-9"}, "X-Amz-Content-Sha256": {emptyHash}, "X-Amz-Date": {"20130524T000000Z"},
			"Authorization": {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request," +
				"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		},
	}
}

func exampleURL() *Request {
	r := &Request{
		Method: "GET", RawPath: "/test.txt", Path: "/test.txt", Host: "examplebucket.s3.amazonaws.com", Header: http.Header{},
		RawQuery: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z" +
			"&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
	}
	r.Query, _ = ParseQuery(r.RawQuery)
	return r
}

func prove(r *Request, secret, region string, now time.Time) *wire.Error {
	s, err := Read(r)
	if err != nil {
		return err
	}
	return s.Verify(r, secret, region, now)
}

// TestV4 holds the signature's proof to AWS's examples, and to what each change of
// them must come to.
func TestV4(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*Request) {
		return func(r *Request) { r.Header[name] = []string{value} }
	}
	replace := func(old, by string) func(*Request) {
		return func(r *Request) {
			if a := r.Header.Get("Authorization"); a != "" {
				r.Header.Set("Authorization", strings.Replace(a, old, by, 1))
			}
			r.RawQuery = strings.Replace(r.RawQuery, old, by, 1)
			r.Query, _ = ParseQuery(r.RawQuery)
		}
	}
	for _, c := range []struct {
		name   string
		from   func() *Request
		change func(*Request)
		after  time.Duration
		secret string
		code   string
	}{
		{name: "as it is", from: exampleGet},
		{name: "14 minutes late", from: exampleGet, after: 14 * time.Minute},
		{name: "14 minutes early", from: exampleGet, after: -14 * time.Minute},
		{name: "16 minutes late", from: exampleGet, after: 16 * time.Minute, code: "RequestTimeTooSkewed"},
		{name: "16 minutes early", from: exampleGet, after: -16 * time.Minute, code: "RequestTimeTooSkewed"},
		{name: "another secret", from: exampleGet, secret: "another", code: "SignatureDoesNotMatch"},
		{name: "another path", from: exampleGet, change: func(r *Request) { r.Path, r.RawPath = "/other", "/other" }, code: "SignatureDoesNotMatch"},
		{name: "another method", from: exampleGet, change: func(r *Request) { r.Method = "DELETE" }, code: "SignatureDoesNotMatch"},
		{name: "another host", from: exampleGet, change: func(r *Request) { r.Host = "other" }, code: "SignatureDoesNotMatch"},
		{name: "a query", from: exampleGet, change: func(r *Request) { r.Query, r.RawQuery = Query{{Name: "acl", Bare: true}}, "acl" }, code: "SignatureDoesNotMatch"},
		{name: "another signed header", from: exampleGet, change: header("Range", "bytes=0-10"), code: "SignatureDoesNotMatch"},
		{name: "an unsigned header", from: exampleGet, change: header("User-Agent", "any")},
		{name: "an unsigned x-amz header", from: exampleGet, change: header("X-Amz-Meta-A", "b"), code: "AccessDenied"},
		{name: "a header of OBS", from: exampleGet, change: header("X-Obs-Acl", "public-read")},
		{name: "no time", from: exampleGet, change: func(r *Request) { r.Header.Del("X-Amz-Date") }, code: "AccessDenied"},
		{name: "a time that is none", from: exampleGet, change: header("X-Amz-Date", "now"), code: "AccessDenied"},
		{name: "no hash of the body", from: exampleGet, change: func(r *Request) { r.Header.Del("X-Amz-Content-Sha256") }, code: "InvalidRequest"},
		{name: "a hash that is none", from: exampleGet, change: header("X-Amz-Content-Sha256", "abc"), code: "InvalidArgument"},
		{name: "another day in the credential", from: exampleGet, change: replace("20130524/", "20130525/"), code: "SignatureDoesNotMatch"},
		{name: "another region", from: exampleGet, change: replace("us-east-1", "eu-de"), code: "SignatureDoesNotMatch"},
		{name: "another service", from: exampleGet, change: replace("/s3/", "/ec2/"), code: "AuthorizationHeaderMalformed"},
		{name: "another end", from: exampleGet, change: replace("aws4_request", "aws5"), code: "AuthorizationHeaderMalformed"},
		{name: "no host among the headers", from: exampleGet, change: replace("host;", ""), code: "AuthorizationHeaderMalformed"},
		{name: "no signature", from: exampleGet, change: replace("Signature=f0", "Signatur=f0"), code: "AuthorizationHeaderMalformed"},
		{name: "a field twice", from: exampleGet, change: replace(",Signature=", ",Signature=x,Signature="), code: "AuthorizationHeaderMalformed"},
		{name: "another scheme", from: exampleGet, change: replace("AWS4-HMAC-SHA256", "Bearer"), code: "InvalidArgument"},
		{name: "two headers", from: exampleGet, change: func(r *Request) { r.Header.Add("Authorization", "x") }, code: "InvalidArgument"},
		{name: "in both places", from: exampleGet, change: func(r *Request) { r.Query = Query{{Name: "X-Amz-Signature", Value: "x"}} }, code: "InvalidArgument"},

		{name: "URL: as it is", from: exampleURL},
		{name: "URL: a second before its end", from: exampleURL, after: 86399 * time.Second},
		{name: "URL: at its end", from: exampleURL, after: 86400 * time.Second, code: "AccessDenied"},
		{name: "URL: 14 minutes early", from: exampleURL, after: -14 * time.Minute},
		{name: "URL: 16 minutes early", from: exampleURL, after: -16 * time.Minute, code: "AccessDenied"},
		{name: "URL: 0 seconds", from: exampleURL, change: replace("Expires=86400", "Expires=0"), code: "AccessDenied"},
		{name: "URL: 8 days", from: exampleURL, change: replace("Expires=86400", "Expires=691200"), code: "AccessDenied"},
		{name: "URL: less than nothing", from: exampleURL, change: replace("Expires=86400", "Expires=-1"), code: "AccessDenied"},
		{name: "URL: no number", from: exampleURL, change: replace("Expires=86400", "Expires=day"), code: "AuthorizationQueryParametersError"},
		{name: "URL: longer than signed", from: exampleURL, change: replace("Expires=86400", "Expires=86401"), code: "SignatureDoesNotMatch"},
		{name: "URL: another parameter", from: exampleURL, change: replace("X-Amz-Algorithm", "versionId=1&X-Amz-Algorithm"), code: "SignatureDoesNotMatch"},
		{name: "URL: no date", from: exampleURL, change: replace("X-Amz-Date=20130524T000000Z&", ""), code: "AuthorizationQueryParametersError"},
		{name: "URL: an unsigned x-amz header", from: exampleURL, change: header("X-Amz-Acl", "public-read"), code: "AccessDenied"},
	} {
		r := c.from()
		if c.change != nil {
			c.change(r)
		}
		secret := exampleSecret
		if c.secret != "" {
			secret = c.secret
		}
		code := ""
		if err := prove(r, secret, "us-east-1", exampleTime.Add(c.after)); err != nil {
			code = err.Code
		}
		if code != c.code {
			t.Errorf("%s: %q, want %q", c.name, code, c.code)
		}
	}
	// A client that was told no region signs for us-east-1; another is told ours.
	if err := prove(exampleGet(), exampleSecret, "eu-de", exampleTime); err != nil {
		t.Errorf("the region of clients without one: %v", err)
	}
}

// exampleChunks is AWS's example of a body that is signed in chunks: 65 KiB of 'a'.
func exampleChunks() string {
	return "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + strings.Repeat("a", 65536) +
		"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + strings.Repeat("a", 1024) +
		"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
}

func exampleSignature(payload string) *Signature {
	return &Signature{
		Kind: V4Header, AccessKey: exampleKey, day: "20130524", region: "us-east-1", service: "s3", date: exampleTime, stamp: "20130524T000000Z", payload: payload,
		signature: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", key: signingKey(exampleSecret, "20130524", "us-east-1", "s3"),
	}
}

// TestChunks reads bodies in S3's chunks, right ones and each way to be wrong.
func TestChunks(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("a", 66560)
	const trailer = "x-amz-checksum-crc32"
	for _, c := range []struct {
		name, payload, announced, body, want, code string
	}{
		{"AWS's example", streamingSigned, "", exampleChunks(), whole, ""},
		{"a byte of it changed", streamingSigned, "", strings.Replace(exampleChunks(), "aaa\r\n", "aab\r\n", 1), "", "SignatureDoesNotMatch"},
		{"a chunk left out", streamingSigned, "", strings.Replace(exampleChunks(), "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"+strings.Repeat("a", 1024)+"\r\n", "", 1), "", "SignatureDoesNotMatch"},
		{"no signature", streamingSigned, "", "1\r\na\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"cut in a chunk", streamingSigned, "", exampleChunks()[:1000], "", "IncompleteBody"},
		{"cut before the last chunk", streamingSigned, "", exampleChunks()[:strings.Index(exampleChunks(), "\r\n0;")], "", "IncompleteBody"},
		{"unsigned", streamingTrailer, trailer, "3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n", "abc", ""},
		{"unsigned, a last line left out", streamingTrailer, trailer, "3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n", "abc", ""},
		{"unsigned, no trailer", streamingTrailer, "", "3\r\nabc\r\n0\r\n\r\n", "abc", ""},
		{"empty", streamingTrailer, "", "0\r\n\r\n", "", ""},
		{"nothing at all", streamingTrailer, "", "", "", "IncompleteBody"},
		{"a trailer that was announced is missing", streamingTrailer, trailer, "3\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"a trailer that was not announced", streamingTrailer, "", "3\r\nabc\r\n0\r\nx-amz-meta-a:b\r\n\r\n", "", "InvalidRequest"},
		{"a trailer twice", streamingTrailer, trailer, "0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:b\r\n\r\n", "", "InvalidRequest"},
		{"no size", streamingTrailer, "", "\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"a negative size", streamingTrailer, "", "-3\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"a signed size", streamingTrailer, "", "+3\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"a huge size", streamingTrailer, "", "7fffffffffffffff\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"more than the size", streamingTrailer, "", "3\r\nabcd\r\n0\r\n\r\n", "", "InvalidRequest"},
		{"a long line", streamingTrailer, "", strings.Repeat("0", 600) + "\r\n\r\n", "", "InvalidRequest"},
		{"something behind the end", streamingTrailer, "", "3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1", "", "InvalidRequest"},
		{"signed whole", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "", "abc", "abc", ""},
		{"signed whole, another body", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "", "abd", "", "XAmzContentSHA256Mismatch"},
		{"not signed", unsignedPayload, "", "abc", "abc", ""},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			body := exampleSignature(c.payload).Body(iotestReader{strings.NewReader(c.body), size}, c.announced)
			got, err := io.ReadAll(body)
			var e *wire.Error
			code := ""
			if errors.As(err, &e) {
				code = e.Code
			} else if err != nil {
				code = err.Error()
			}
			if code != c.code || code == "" && string(got) != c.want {
				t.Errorf("%s, %d bytes at a time: %d bytes, %q; want %q", c.name, size, len(got), code, c.code)
			}
			if sum, ok := body.Trailer(trailer); code == "" && c.announced != "" && (!ok || sum != "NSRBwg==") {
				t.Errorf("%s: the trailer is %q", c.name, sum)
			}
			// The error stays.
			if _, again := body.Read(make([]byte, 1)); code != "" && again == nil {
				t.Errorf("%s: it can be read on after an error", c.name)
			}
		}
	}
}

// iotestReader returns at most n bytes a time.
type iotestReader struct {
	r io.Reader
	n int
}

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.n)]) }

// TestV2 holds the older signature to AWS's examples ("Signing and authenticating
// REST requests"), and OBS's, which is the same with other names, to what our own
// computation says it is for the same request.
func TestV2(t *testing.T) {
	t.Parallel()
	now := time.Date(2007, 3, 27, 19, 36, 42, 0, time.UTC)
	get := func() *Request {
		return &Request{
			Method: "GET", RawPath: "/photos/puppy.jpg", Path: "/photos/puppy.jpg", Host: "awsexamplebucket1.us-west-1.s3.amazonaws.com", Bucket: "awsexamplebucket1",
			Header: http.Header{"Date": {"Tue, 27 Mar 2007 19:36:42 +0000"}, "Authorization": {"AWS AKIAIOSFODNN7EXAMPLE:qgk2+6Sv9/oM7G3qLEjTH1a1l1g="}},
		}
	}
	if err := prove(get(), exampleSecret, "any", now); err != nil {
		t.Errorf("AWS's example: %v", err)
	}
	for name, change := range map[string]func(*Request){
		"another path":       func(r *Request) { r.Path, r.RawPath = "/x", "/x" },
		"another bucket":     func(r *Request) { r.Bucket = "other" },
		"a sub-resource":     func(r *Request) { r.Query = Query{{Name: "acl", Bare: true}} },
		"an x-amz header":    func(r *Request) { r.Header.Set("X-Amz-Acl", "public-read") },
		"another MD5":        func(r *Request) { r.Header.Set("Content-Md5", "x") },
		"as a header of OBS": func(r *Request) { r.Header.Set("Authorization", "OBS AKIAIOSFODNN7EXAMPLE:x") },
	} {
		r := get()
		change(r)
		if err := prove(r, exampleSecret, "any", now); err == nil || err.Code != "SignatureDoesNotMatch" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := prove(get(), exampleSecret, "any", now.Add(16*time.Minute)); err == nil || err.Code != "RequestTimeTooSkewed" {
		t.Errorf("late: %v", err)
	}
	for _, bad := range []string{"AWS", "AWS x", "AWS :x", "AWS x:", "OBS", "OBS x"} {
		r := get()
		r.Header.Set("Authorization", bad)
		if err := prove(r, exampleSecret, "any", now); err == nil || err.Code != "InvalidArgument" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestQuery: a query that two could read in two ways is refused.
func TestQuery(t *testing.T) {
	t.Parallel()
	for raw, code := range map[string]string{
		"": "", "a=b&c": "", "a=b+c%20d": "", "uploadId=x&uploadid=y": "InvalidArgument", "a=1&a=2": "InvalidArgument", "%61=1&a=2": "InvalidArgument",
		"a=%zz": "InvalidURI", "a=%": "InvalidURI", "%4": "InvalidURI", strings.Repeat("a&", 3): "InvalidArgument",
	} {
		_, err := ParseQuery(raw)
		if err == nil && code != "" || err != nil && err.Code != code {
			t.Errorf("%q: %v, want %q", raw, err, code)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add(exampleGet().Header.Get("Authorization"), "20130524T000000Z", exampleURL().RawQuery)
	f.Add("OBS a:b", "", "AccessKeyId=a&Expires=1&Signature=b")
	f.Add("AWS a:b", "Tue, 27 Mar 2007 19:36:42 +0000", "AWSAccessKeyId=a&Expires=1&Signature=b")
	f.Fuzz(func(t *testing.T, authorization, date, query string) {
		r := exampleGet()
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Amz-Date", date)
		q, err := ParseQuery(query)
		if err != nil {
			return
		}
		for _, r.Query = range []Query{nil, q} {
			r.RawQuery = query
			s, err := Read(r)
			if err != nil {
				if wire.Err(err.Code).Message == "" {
					t.Errorf("unknown code %s", err.Code)
				}
				continue
			}
			if s.Kind != Anonymous && s.AccessKey == "" {
				t.Errorf("%q: no access key", authorization)
			}
			if err := s.Verify(r, "another secret", "us-east-1", exampleTime); err == nil {
				t.Errorf("%q %q is proven with a secret that it was not made with", authorization, query)
			}
		}
	})
}

func FuzzChunks(f *testing.F) {
	f.Add(exampleChunks()[:2000], uint8(0))
	f.Add("3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n", uint8(1))
	f.Add("0\r\n\r\n", uint8(2))
	f.Fuzz(func(t *testing.T, body string, kind uint8) {
		payload := []string{streamingSigned, streamingTrailer, streamingSignedTrailer}[kind%3]
		got, err := io.ReadAll(exampleSignature(payload).Body(strings.NewReader(body), "x-amz-checksum-crc32"))
		var e *wire.Error
		if err != nil && (!errors.As(err, &e) || wire.Err(e.Code).Message == "") {
			t.Errorf("%v", err)
		}
		if len(got) > len(body) {
			t.Errorf("%d bytes became %d", len(body), len(got))
		}
		if err == nil && payload != streamingTrailer && len(got) > 0 && body != exampleChunks() {
			t.Errorf("%q is proven", body)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add(`{"expiration":"2100-01-01T00:00:00Z","conditions":[{"bucket":"b"},["starts-with","$key","k"],["content-length-range",0,10]]}`, "key", "k1")
	f.Add(`{"expiration":"2100-01-01T00:00:00.000Z","conditions":[["eq","$bucket","b"],["eq","$key","k"]]}`, "key", "k")
	f.Fuzz(func(t *testing.T, policy, name, value string) {
		p, err := parsePolicy([]byte(policy), exampleTime)
		if err != nil {
			if wire.Err(err.Code).Message == "" {
				t.Errorf("unknown code %s", err.Code)
			}
			return
		}
		if p.Min < 0 || p.Max < -1 || p.Max >= 0 && p.Min > p.Max {
			t.Errorf("sizes %d to %d", p.Min, p.Max)
		}
		if len(p.rules) == 0 && p.Check("b", map[string]string{name: value}) == nil {
			t.Error("a policy without conditions allows a form")
		}
	})
}

// Of several ranges of sizes in a policy, all hold.
func TestPolicyRanges(t *testing.T) {
	t.Parallel()
	for ranges, want := range map[string][2]int64{
		`["content-length-range",0,10]`:                                     {0, 10},
		`["content-length-range",0,10],["content-length-range",5,1000]`:     {5, 10},
		`["content-length-range",5,1000],["content-length-range",0,"10"]`:   {5, 10},
		`["content-length-range",0,10],["content-length-range",11,1000]`:    {-1, -1},
		`["content-length-range",0,0],["content-length-range",0,104857600]`: {0, 0},
	} {
		p, err := parsePolicy([]byte(`{"expiration":"2100-01-01T00:00:00Z","conditions":[`+ranges+`]}`), exampleTime)
		switch {
		case want[0] < 0:
			if err == nil || err.Code != "InvalidPolicyDocument" {
				t.Errorf("%s: %v", ranges, err)
			}
		case err != nil || p.Min != want[0] || p.Max != want[1]:
			t.Errorf("%s: %+v, %v", ranges, p, err)
		}
	}
}
