package signature

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	testAK = "AKTEST0123456789ABCD"
	testSK = "a-secret-key-of-the-test"
)

var testNow = time.Date(2024, 11, 6, 6, 27, 3, 0, time.UTC)

// request makes a server's view of a request with a JSON body.
func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, "http://ims.example:9292"+target, strings.NewReader(body))
	r.Header.Set("User-Agent", "test/1")
	r.Header.Set("Content-Type", "application/json")
	return r
}

// signCredential signs in the credential form, written after its description alone
// and not with the code under test.
func signCredential(r *http.Request, query, payload, region, service string) {
	date := testNow.Format(DateLayout)
	r.Header.Set(DateHeader, date)
	scope := date[:8] + "/" + region + "/" + service + "/sdk_request"
	path := r.URL.Path
	if !strings.HasSuffix(path, "/") {
		path += "/"
	}
	canonical := strings.Join([]string{
		r.Method, path, query,
		"host:" + r.Host, "user-agent:" + r.UserAgent(), "x-sdk-date:" + date, "",
		"host;user-agent;x-sdk-date", payload,
	}, "\n")
	text := strings.Join([]string{Algorithm, date, scope, hexSHA256([]byte(canonical))}, "\n")
	key := sign([]byte("SDK"+testSK), date[:8])
	key = sign(sign(sign(key, region), service), "sdk_request")
	r.Header.Set("Authorization", fmt.Sprintf(
		"SDK-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host;user-agent;x-sdk-date, Signature=%s",
		testAK, scope, hex.EncodeToString(sign(key, text))))
}

func signAccess(t testing.TB, r *http.Request, body string) {
	t.Helper()
	if err := Sign(r, []byte(body), testAK, testSK, testNow); err != nil {
		t.Fatal(err)
	}
}

func TestAccessKeyFormProves(t *testing.T) {
	t.Parallel()
	r := request("POST", "/v2/cloudimages?b=2&a=1&a=%C3%A4+x", `{"a":1}`)
	r.Header.Set("X-Project-Id", "p1")
	signAccess(t, r, `{"a":1}`)
	c, err := Read(r, []byte(`{"a":1}`), testNow)
	if err != nil {
		t.Fatal(err)
	}
	if c.AccessKey() != testAK || !c.Proves(testSK) {
		t.Fatal("the right secret does not prove the claim")
	}
	if c.Proves(testSK+"x") || c.Proves("") {
		t.Fatal("a wrong secret proves the claim")
	}
}

func TestCredentialForm(t *testing.T) {
	t.Parallel()
	body := `{"a":1}`
	for _, tc := range []struct {
		name, method, target, body string
		query, payload             string
		region, service            string
		agent                      string
	}{
		{name: "empty region and service", method: "GET", target: "/v2/cloudimages?limit=1&Marker=x",
			query: "limit=1&Marker=x", payload: hexSHA256(nil)},
		{name: "keys by their bytes", method: "GET", target: "/v2/cloudimages?limit=1&Marker=x",
			query: "Marker=x&limit=1", payload: hexSHA256(nil)},
		{name: "region and service", method: "PATCH", target: "/v2/cloudimages/1", body: body,
			payload: hexSHA256([]byte(body)), region: "eu-de", service: "ims"},
		{name: "POST without a body signs its query", method: "POST", target: "/v2/x?b=a+b&a=1",
			query: "", payload: hexSHA256([]byte("a=1&b=a+b"))},
		{name: "POST with an empty body", method: "POST", target: "/v2/x?b=a+b&a=1",
			query: "a=1&b=a%20b", payload: hexSHA256(nil)},
		{name: "white space folded", method: "GET", target: "/", payload: hexSHA256(nil), agent: "a \t b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := request(tc.method, tc.target, tc.body)
			if tc.agent != "" {
				r.Header.Set("User-Agent", strings.Join(strings.Fields(tc.agent), " "))
			}
			signCredential(r, tc.query, tc.payload, tc.region, tc.service)
			if tc.agent != "" {
				r.Header.Set("User-Agent", tc.agent)
			}
			c, err := Read(r, []byte(tc.body), testNow)
			if err != nil {
				t.Fatal(err)
			}
			if !c.Proves(testSK) {
				t.Fatal("the right secret does not prove the claim")
			}
			if c.Proves("other") {
				t.Fatal("a wrong secret proves the claim")
			}
		})
	}
}

// TestPostQueryNeedsTheCredentialForm holds that the query in the body's place is
// read in the form that signs so, and for POST, and without a body alone.
func TestPostQueryNeedsTheCredentialForm(t *testing.T) {
	t.Parallel()
	r := request("GET", "/v2/x?a=1", "")
	signCredential(r, "", hexSHA256([]byte("a=1")), "", "")
	if c, err := Read(r, nil, testNow); err != nil || c.Proves(testSK) {
		t.Fatalf("a GET whose query is signed as its body: %v, proven", err)
	}
	r = request("POST", "/v2/x?a=1", "{}")
	signCredential(r, "", hexSHA256([]byte("a=1")), "", "")
	if c, err := Read(r, []byte("{}"), testNow); err != nil || c.Proves(testSK) {
		t.Fatalf("a POST with a body that nothing signs: %v, proven", err)
	}
	r = request("POST", "/v2/x?a=1", "")
	r.Header.Set(PayloadHeader, UnsignedPayload)
	signCredential(r, "", UnsignedPayload, "", "")
	if c, err := Read(r, nil, testNow); err != nil || c.Proves(testSK) {
		t.Fatalf("a POST whose query nothing signs: %v, proven", err)
	}
}

// TestDefects changes one thing of a request that was signed well. Each must be
// refused: read as a fault, or not proven.
func TestDefects(t *testing.T) {
	t.Parallel()
	const target, body = "/v2/p1/images/i1/tags?limit=1&tag=a&tag=b", `{"tag":{"key":"k","value":"v"}}`
	auth := func(f func(string) string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", f(r.Header.Get("Authorization"))) }
	}
	replace := func(old, new string) func(*http.Request) {
		return auth(func(s string) string {
			if !strings.Contains(s, old) {
				panic("the header has no " + old)
			}
			return strings.Replace(s, old, new, 1)
		})
	}
	for _, tc := range []struct {
		name   string
		change func(r *http.Request)
		body   string // "" is the signed one
		fault  string // a part of the text; "" means that only the proof fails
	}{
		{name: "method", change: func(r *http.Request) { r.Method = "PUT" }},
		{name: "path", change: func(r *http.Request) { r.URL.Path += "/action" }},
		{name: "path case", change: func(r *http.Request) { r.URL.Path = strings.ToUpper(r.URL.Path) }},
		{name: "path slash encoded", change: func(r *http.Request) {
			r.URL.Path, r.URL.RawPath = "/v2/p1/images/i1/tags", "/v2/p1/images/i1%2Ftags"
		}},
		{name: "path malformed", change: func(r *http.Request) { r.URL.Path, r.URL.RawPath = strings.Repeat("/x", 9000), "" }, fault: "path"},
		{name: "query value", change: func(r *http.Request) { r.URL.RawQuery = "limit=2&tag=a&tag=b" }},
		{name: "query added", change: func(r *http.Request) { r.URL.RawQuery += "&x=" }},
		{name: "query value dropped", change: func(r *http.Request) { r.URL.RawQuery = "limit=1&tag=a" }},
		{name: "query emptied", change: func(r *http.Request) { r.URL.RawQuery = "" }},
		{name: "query malformed", change: func(r *http.Request) { r.URL.RawQuery += "&%zz=1" }, fault: "query"},
		{name: "query semicolon", change: func(r *http.Request) { r.URL.RawQuery += ";x=1" }, fault: "query"},
		{name: "query giant", change: func(r *http.Request) { r.URL.RawQuery = strings.Repeat("a", 65<<10) }, fault: "query"},
		{name: "signed header value", change: func(r *http.Request) { r.Header.Set("X-Project-Id", "p2") }},
		{name: "signed header added to", change: func(r *http.Request) { r.Header.Add("X-Project-Id", "p2") }},
		{name: "signed header gone", change: func(r *http.Request) { r.Header.Del("X-Project-Id") }, fault: "x-project-id is not in the request"},
		{name: "signed header giant", change: func(r *http.Request) { r.Header.Set("X-Project-Id", strings.Repeat("p", 65<<10)) }, fault: "longer"},
		{name: "host", change: func(r *http.Request) { r.Host = "other.example" }},
		{name: "body", body: body + " "},
		{name: "body emptied", body: "-"},
		{name: "payload header of another body", change: func(r *http.Request) { r.Header.Set(PayloadHeader, hexSHA256(nil)) }, fault: "SHA-256"},
		{name: "payload header twice", change: func(r *http.Request) {
			r.Header[PayloadHeader] = []string{UnsignedPayload, UnsignedPayload}
		}, fault: "2 X-Sdk-Content-Sha256"},
		{name: "payload left out afterwards", change: func(r *http.Request) { r.Header.Set(PayloadHeader, UnsignedPayload) }},
		{name: "date moved", change: func(r *http.Request) { r.Header.Set(DateHeader, "20241106T062704Z") }},
		{name: "date too old", change: func(r *http.Request) { r.Header.Set(DateHeader, "20241106T061202Z") }, fault: "15 minutes"},
		{name: "date too new", change: func(r *http.Request) { r.Header.Set(DateHeader, "20241106T064204Z") }, fault: "15 minutes"},
		{name: "date form", change: func(r *http.Request) { r.Header.Set(DateHeader, "2024-11-06T06:27:03Z") }, fault: "YYYYMMDD"},
		{name: "date with a fraction", change: func(r *http.Request) { r.Header.Set(DateHeader, "20241106T062703.5Z") }, fault: "YYYYMMDD"},
		{name: "date gone", change: func(r *http.Request) { r.Header.Del(DateHeader) }, fault: "one X-Sdk-Date"},
		{name: "date twice", change: func(r *http.Request) { r.Header.Add(DateHeader, "20241106T062703Z") }, fault: "one X-Sdk-Date"},
		{name: "access key", change: replace("Access=AK", "Access=BK")}, // the caller looks up another secret
		{name: "access key malformed", change: replace("Access=AK", "Access=A/K"), fault: "access key"},
		{name: "access key empty", change: replace("Access="+testAK, "Access="), fault: "Access"},
		{name: "access key giant", change: replace("Access=AK", "Access="+strings.Repeat("A", 200)), fault: "access key"},
		{name: "signature char", change: auth(func(s string) string {
			last := s[len(s)-1]
			return s[:len(s)-1] + string("0123456789abcdef0"[strings.IndexByte("0123456789abcdef", last)+1])
		})},
		{name: "signature short", change: auth(func(s string) string { return s[:len(s)-1] }), fault: "64 hex"},
		{name: "signature long", change: auth(func(s string) string { return s + "00" }), fault: "64 hex"},
		{name: "signature no hex", change: auth(func(s string) string { return s[:len(s)-1] + "g" }), fault: "64 hex"},
		{name: "signature gone", change: auth(func(s string) string { return s[:strings.Index(s, ", Signature")] }), fault: "needs"},
		{name: "header taken off the list", change: replace("host;", "")},
		{name: "date taken off the list", change: replace(";x-sdk-date", ""), fault: "must name x-sdk-date"},
		{name: "header put on the list", change: replace("host;", "host;user-agent;")},
		{name: "list reordered", change: replace("x-project-id;x-sdk-date", "x-sdk-date;x-project-id")},
		{name: "list with a name twice", change: replace("host;", "host;host;"), fault: "twice"},
		{name: "list with an empty name", change: replace("host;", "host;;"), fault: "lower case"},
		{name: "list in upper case", change: replace("host;", "Host;"), fault: "lower case"},
		{name: "list giant", change: replace("host;", "host;"+strings.Repeat("a;", 100)), fault: "at most 64"},
		{name: "header giant", change: replace("host;", "host;"+strings.Repeat("a", 9000)), fault: "longer than"},
		{name: "another algorithm", change: replace("SDK-HMAC-SHA256", "SDK-HMAC-SM3"), fault: "begin with"},
		{name: "field twice", change: replace("Access=", "Access=x, Access="), fault: "twice"},
		{name: "unknown field", change: replace("Access=", "Scope=x, Access="), fault: "may hold"},
		{name: "both forms", change: replace("Access=", "Credential=a/b/c/d/sdk_request, Access="), fault: "needs"},
		{name: "form changed", change: replace("Access="+testAK, "Credential="+testAK+"/20241106///sdk_request")},
		{name: "Authorization twice", change: func(r *http.Request) { r.Header.Add("Authorization", "x") }, fault: "one Authorization"},
		{name: "Authorization gone", change: func(r *http.Request) { r.Header.Del("Authorization") }, fault: "one Authorization"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := request("POST", target, body)
			r.Header.Set("X-Project-Id", "p1")
			signAccess(t, r, body)
			if tc.change != nil {
				tc.change(r)
			}
			sent := body
			if tc.body == "-" {
				sent = ""
			} else if tc.body != "" {
				sent = tc.body
			}
			c, err := Read(r, []byte(sent), testNow)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Fatalf("fault %v, want one with %q", err, tc.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.AccessKey() == testAK && c.Proves(testSK) {
				t.Fatal("the changed request is proven")
			}
		})
	}
}

// TestScopeDefects changes the credential form's scope.
func TestScopeDefects(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, scope, fault string }{
		{"another date", "20241105///sdk_request", "date in Credential"},
		{"another region", "20241106/eu-nl//sdk_request", ""},
		{"another service", "20241106//ims/sdk_request", ""},
		{"another end", "20241106///aws4_request", "Credential must be"},
		{"too few parts", "20241106//sdk_request", "Credential must be"},
		{"too many parts", "20241106////sdk_request", "Credential must be"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := request("GET", "/v3", "")
			signCredential(r, "", hexSHA256(nil), "", "")
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "20241106///sdk_request", tc.scope, 1))
			c, err := Read(r, nil, testNow)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Fatalf("fault %v, want one with %q", err, tc.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Proves(testSK) {
				t.Fatal("the changed scope is proven")
			}
		})
	}
}

func TestSkewAtItsBounds(t *testing.T) {
	t.Parallel()
	r := request("GET", "/v3", "")
	signAccess(t, r, "")
	for _, skew := range []time.Duration{-MaxSkew, 0, MaxSkew} {
		if c, err := Read(r, nil, testNow.Add(skew)); err != nil || !c.Proves(testSK) {
			t.Errorf("a skew of %v is refused: %v", skew, err)
		}
	}
}

// TestUnsignedPayload holds that a signer may leave the body out, and that the
// header that says so counts then.
func TestUnsignedPayload(t *testing.T) {
	t.Parallel()
	r := request("PUT", "/v2/images/1/file", "data")
	r.Header.Set(PayloadHeader, UnsignedPayload)
	signAccess(t, r, "data")
	c, err := Read(r, []byte("other data"), testNow)
	if err != nil || !c.Proves(testSK) {
		t.Fatalf("UNSIGNED-PAYLOAD is refused: %v", err)
	}
	r.Header.Del(PayloadHeader)
	if c, err = Read(r, []byte("data"), testNow); err != nil || c.Proves(testSK) {
		t.Fatalf("the header was dropped on the way: %v, proven", err)
	}
}

// TestSignedIsProvenAndDistinct signs any request, and holds that it is proven and
// that another request does not pass with its signature.
func TestSignedIsProvenAndDistinct(t *testing.T) {
	t.Parallel()
	type parts struct{ method, path, query, agent, body string }
	build := func(p parts) *http.Request {
		r := httptest.NewRequest(p.method, "http://h/", strings.NewReader(p.body))
		r.URL.Path, r.URL.RawQuery = "/"+p.path, p.query
		r.Header.Set("Content-Type", p.agent)
		return r
	}
	gen := rapid.Custom(func(t *rapid.T) parts {
		var pairs []string
		for range rapid.IntRange(0, 3).Draw(t, "pairs") {
			var b strings.Builder
			encode(&b, rapid.StringN(1, 4, 8).Draw(t, "key"))
			b.WriteByte('=')
			encode(&b, rapid.StringN(0, 4, 8).Draw(t, "value"))
			pairs = append(pairs, b.String())
		}
		return parts{
			method: rapid.SampledFrom([]string{"GET", "POST", "PATCH", "DELETE"}).Draw(t, "method"),
			path:   rapid.StringMatching(`[a-z0-9/ä %.~]{0,8}[a-z]`).Draw(t, "path"),
			query:  strings.Join(pairs, "&"),
			agent:  rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "agent"),
			body:   rapid.StringN(0, 5, 10).Draw(t, "body"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		ra := build(a)
		if err := Sign(ra, []byte(a.body), testAK, testSK, testNow); err != nil {
			t.Fatal(err)
		}
		if c, err := Read(ra, []byte(a.body), testNow); err != nil || !c.Proves(testSK) {
			t.Fatalf("%+v is not proven: %v", a, err)
		}
		rb := build(b)
		rb.Header.Set(DateHeader, ra.Header.Get(DateHeader))
		rb.Header.Set("Authorization", ra.Header.Get("Authorization"))
		c, err := Read(rb, []byte(b.body), testNow)
		if err != nil {
			t.Fatal(err)
		}
		same := a.method == b.method && a.path == b.path && a.agent == b.agent && a.body == b.body &&
			ra.URL.Query().Encode() == rb.URL.Query().Encode()
		if c.Proves(testSK) && !same {
			t.Fatalf("%+v passes with the signature of %+v", b, a)
		}
	})
}

func FuzzRead(f *testing.F) {
	r := request("POST", "/v2/a%2Fb/x?b=1&A=2", "{}")
	signAccess(f, r, "{}")
	f.Add("POST", "/v2/a%2Fb/x?b=1&A=2", r.Header.Get("Authorization"), "ims.example", "text", "", []byte("{}"))
	r = request("GET", "/v3?x=%20", "")
	signCredential(r, "x=%20", hexSHA256(nil), "eu-de", "ims")
	f.Add("GET", "/v3?x=%20", r.Header.Get("Authorization"), "ims.example:9292", " a  b ", UnsignedPayload, []byte{})
	f.Add("POST", "/?a;b", "SDK-HMAC-SHA256 Credential=a////sdk_request, SignedHeaders=x-sdk-date, Signature=00", "", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, method, target, authorization, host, agent, payload string, body []byte) {
		r, err := http.NewRequest("GET", "http://h/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := r.URL.Parse(target); err == nil {
			r.URL = u
		}
		r.Method, r.Host = method, host
		r.Header.Set("Authorization", authorization)
		r.Header.Set("User-Agent", agent)
		r.Header.Set(DateHeader, testNow.Format(DateLayout))
		if payload != "" {
			r.Header.Set(PayloadHeader, payload)
		}
		c, err := Read(r, body, testNow)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("a fault with more than one line: %q", err)
			}
			return
		}
		if n := len(c.texts); n < 1 || n > 6 {
			t.Fatalf("%d canonical requests", n)
		}
		if !ValidAccessKey(c.AccessKey()) {
			t.Fatalf("access key %q", c.AccessKey())
		}
		c.Proves(testSK)
		// What is read can be signed, and is proven then.
		if err := Sign(r, body, testAK, testSK, testNow); err != nil {
			t.Fatal(err)
		}
		if c, err = Read(r, body, testNow); err != nil || !c.Proves(testSK) {
			t.Fatalf("signed and not proven: %v", err)
		}
	})
}

func BenchmarkReadAndProve(b *testing.B) {
	for _, form := range []string{"access", "credential"} {
		b.Run(form, func(b *testing.B) {
			r := request("GET", "/v2/cloudimages?limit=1&marker=x", "")
			if form == "access" {
				signAccess(b, r, "")
			} else {
				signCredential(r, "limit=1&marker=x", hexSHA256(nil), "", "")
			}
			b.ReportAllocs()
			for b.Loop() {
				if c, err := Read(r, nil, testNow); err != nil || !c.Proves(testSK) {
					b.Fatal(err)
				}
			}
		})
	}
}
