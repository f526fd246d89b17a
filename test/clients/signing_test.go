package clients

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/global"
	hwconfig "github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/impl"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/request"
	golangsdk "github.com/opentelekomcloud/gophertelekomcloud"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

const (
	accessKey = "AKSIGNINGTEST0000001"
	secretKey = "sk-signing-test-sk-signing-test-00000001"
)

// verifier is a server that authenticates each request with the product's identity
// and answers with the caller's project, or with 401 and the detail.
type verifier struct {
	*httptest.Server
	users *identity.Service
}

func newVerifier(t testing.TB, clock func() time.Time) *verifier {
	t.Helper()
	db, err := database.Open(t.Context(), databasetest.SQLite(asT(t)), database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	v := &verifier{}
	v.users, err = identity.New(db, identity.Options{
		SealKey: bytes.Repeat([]byte("k"), identity.SealKeySize), Clock: clock,
		PasswordCost: identity.PasswordCost{MemoryKiB: 64, Passes: 1, Lanes: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = v.users.Bootstrap(t.Context(), identity.Seed{
		DomainID: "domain1", DomainName: "Default", ProjectID: "project1", ProjectName: "eu-test",
		User: "tester", Password: "a password", AccessKey: accessKey, SecretKey: secretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	users, err := v.users.Users(t.Context(), "domain1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.users.CreateProject(t.Context(), identity.Project{ID: "project2", DomainID: "domain1", Name: "lab"}); err != nil {
		t.Fatal(err)
	}
	if err := v.users.Grant(t.Context(), identity.Grant{UserID: users[0].ID, ProjectID: "project2", Role: ims.RoleReader}); err != nil {
		t.Fatal(err)
	}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p, err := v.users.Authenticate(r.Context(), r, func() ([]byte, error) { return body, nil })
		if err != nil {
			status := http.StatusInternalServerError
			if e, ok := asIMS(err); ok {
				status = keystone.Status(e.Kind())
			}
			http.Error(w, err.Error(), status)
			return
		}
		fmt.Fprint(w, p.ProjectID)
	}))
	t.Cleanup(v.Close)
	return v
}

// sent is a request as a test describes it.
type sent struct {
	method  string
	path    string // decoded
	raw     string // the path as it is sent, where a client can say so
	query   url.Values
	headers map[string]string
	body    string
	noBody  bool // none at all, which the signers tell from an empty one
}

var requests = map[string]sent{
	"root":                      {method: "GET", path: "/"},
	"list":                      {method: "GET", path: "/v2/cloudimages", query: url.Values{"limit": {"2"}, "marker": {"abc"}, "__imagetype": {"private"}}},
	"trailing slash":            {method: "GET", path: "/v3/"},
	"keys in both cases":        {method: "GET", path: "/v2/cloudimages", query: url.Values{"limit": {"2"}, "Marker": {"x"}, "_a": {"1"}, "Z": {"1"}, "a-b": {"1"}, "a.b": {"1"}, "a b": {"1"}}},
	"reserved in the query":     {method: "GET", path: "/v2/cloudimages", query: url.Values{"tag": {"key=a b+c&d/e?f#g%h~i*j'k(l)m!n,o;p:q@r$s"}, "k&=": {""}}},
	"UTF-8 in the query":        {method: "GET", path: "/v2/cloudimages", query: url.Values{"name": {"Übung 磁盘 🙂"}, "ключ": {"é"}}},
	"empty values":              {method: "GET", path: "/v2/cloudimages", query: url.Values{"tag": {""}, "name": {""}}},
	"UTF-8 in the path":         {method: "GET", path: "/v2/images/Übung 磁盘/file"},
	"reserved in the path":      {method: "GET", path: "/v2/images/a b+c&d=e;f:g@h$i,j~k*l'm(n)o!p/file"},
	"percent in the path":       {method: "GET", path: "/v2/images/100%/a%2Fb/file"},
	"a key twice":               {method: "GET", path: "/v2/cloudimages", query: url.Values{"tag": {"b=1", "a=2"}, "limit": {"1"}}},
	"encoded slash":             {method: "GET", path: "/v2/images/a/b", raw: "/v2/images/a%2Fb"},
	"two slashes":               {method: "GET", path: "/v2//images"},
	"dots":                      {method: "GET", path: "/v2/./images/../x"},
	"post":                      {method: "POST", path: "/v2/cloudimages/quickimport/action", body: `{"name":"ü","min_disk":1}`},
	"post with a query":         {method: "POST", path: "/v2/x", query: url.Values{"b": {"2 3"}, "A": {"1"}}, body: `{}`},
	"post without a body":       {method: "POST", path: "/v2/x", noBody: true},
	"post its query":            {method: "POST", path: "/v2/x", query: url.Values{"b": {"2 3+ü"}, "A": {"1", "2"}}, noBody: true},
	"post an empty body":        {method: "POST", path: "/v2/x", query: url.Values{"b": {"2 3"}, "A": {"1"}}},
	"patch":                     {method: "PATCH", path: "/v2/cloudimages/1", body: `[{"op":"replace","path":"/name","value":"x"}]`},
	"patch with a media type":   {method: "PATCH", path: "/v2/images/1", body: `[]`, headers: map[string]string{"Content-Type": "application/openstack-images-v2.1-json-patch"}},
	"put":                       {method: "PUT", path: "/v1.0/enterprise-projects/1", body: `{}`},
	"delete":                    {method: "DELETE", path: "/v2/images/1", noBody: true},
	"delete with a body":        {method: "DELETE", path: "/v2/images/1", body: `{"delete_backup":true}`},
	"head":                      {method: "HEAD", path: "/v3/auth/tokens", noBody: true},
	"large body":                {method: "POST", path: "/v2/x", body: `{"x":"` + strings.Repeat("ä", 300_000) + `"}`},
	"white space in a header":   {method: "GET", path: "/", headers: map[string]string{"X-Note": "a \t  b"}},
	"UTF-8 in a header":         {method: "GET", path: "/", headers: map[string]string{"X-Note": "Übung"}},
	"empty header":              {method: "GET", path: "/", headers: map[string]string{"X-Note": ""}},
	"header with an underscore": {method: "GET", path: "/", headers: map[string]string{"X_Note": "a"}},
}

// signer is a client's way to sign and send.
type signer struct {
	name string
	// send signs with the given keys and sends; change may spoil the request between.
	send func(t testing.TB, v *verifier, s sent, ak, sk string, change func(*http.Request)) (status int, body string)
	// cannot names the requests that the client itself can't sign.
	cannot map[string]string
	// project is what a request acts in without asking.
	project string
}

var signers = []signer{
	{name: "huaweicloud-sdk-go-v3, project", send: sendHuawei(func(ak, sk string) (auth.ICredential, error) {
		return basic.NewCredentialsBuilder().WithAk(ak).WithSk(sk).WithProjectId("project2").SafeBuild()
	}, nil), project: "project2"},
	{name: "huaweicloud-sdk-go-v3, domain", send: sendHuawei(func(ak, sk string) (auth.ICredential, error) {
		return global.NewCredentialsBuilder().WithAk(ak).WithSk(sk).WithDomainId("domain1").SafeBuild()
	}, nil), project: "project1"},
	{name: "huaweicloud-sdk-go-v3, host signed", send: sendHuawei(func(ak, sk string) (auth.ICredential, error) {
		return basic.NewCredentialsBuilder().WithAk(ak).WithSk(sk).SafeBuild()
	}, map[string]string{"host": theHost}), project: "project1"},
	{name: "gophertelekomcloud", send: sendGopher(golangsdk.SignOptions{}, nil), cannot: gopherCannot, project: "project1"},
	{name: "gophertelekomcloud, region and service", send: sendGopher(golangsdk.SignOptions{RegionName: "eu-de", ServiceName: "ims", EnableCacheSignKey: true}, nil),
		cannot: gopherCannot, project: "project1"},
	{name: "gophertelekomcloud, own project unsigned", send: sendGopher(golangsdk.SignOptions{}, map[string]string{"X-Project-Id": "project1"}),
		cannot: gopherCannot, project: "project1"},
	{name: "gophertelekomcloud, domain unsigned", send: sendGopher(golangsdk.SignOptions{}, map[string]string{"X-Domain-Id": "domain1"}),
		cannot: gopherCannot, project: "project1"},
}

// theHost stands for the server's host and port, which are known late.
const theHost = "{host}"

// gopherCannot names the one request whose signature covers it in part: let in, any
// value could be put in after the first.
var gopherCannot = map[string]string{"a key twice": "the client signs the first value alone"}

// sendHuawei uses the SDK's credentials and its HTTP client, as its services do.
func sendHuawei(credential func(ak, sk string) (auth.ICredential, error), more map[string]string) func(testing.TB, *verifier, sent, string, string, func(*http.Request)) (int, string) {
	return func(t testing.TB, v *verifier, s sent, ak, sk string, change func(*http.Request)) (int, string) {
		t.Helper()
		cred, err := credential(ak, sk)
		if err != nil {
			t.Fatal(err)
		}
		config := hwconfig.DefaultHttpConfig()
		config.HttpTransport = nil
		config.RoundTripper = changing{change}
		client := impl.NewDefaultHttpClient(config)
		b := request.NewHttpRequestBuilder().WithEndpoint(v.URL).WithMethod(s.method).WithPath(s.path).WithSigningAlgorithm(config.SigningAlgorithm).
			AddHeaderParam("User-Agent", "huaweicloud-usdk-go/3.0")
		for k, values := range s.query {
			if len(values) == 1 {
				b.AddQueryParam(k, reflect.ValueOf(values[0]))
			} else {
				b.AddQueryParam(k, reflect.ValueOf(values))
			}
		}
		if s.body != "" {
			b.AddHeaderParam("Content-Type", "application/json;charset=UTF-8").WithBody("body", s.body)
		}
		for k, value := range s.headers {
			b.AddHeaderParam(k, value)
		}
		for k, value := range more {
			b.AddHeaderParam(k, strings.ReplaceAll(value, theHost, strings.TrimPrefix(v.URL, "http://")))
		}
		req, err := cred.ProcessAuthRequest(client, b.Build())
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.SyncInvokeHttp(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatusCode(), resp.GetBody()
	}
}

// sendGopher signs an http.Request as the SDK's provider client does.
func sendGopher(options golangsdk.SignOptions, unsigned map[string]string) func(testing.TB, *verifier, sent, string, string, func(*http.Request)) (int, string) {
	return func(t testing.TB, v *verifier, s sent, ak, sk string, change func(*http.Request)) (int, string) {
		t.Helper()
		var body io.Reader
		if !s.noBody && (s.body != "" || s.method == "POST") {
			body = strings.NewReader(s.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), s.method, v.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path, req.URL.RawPath, req.URL.RawQuery = s.path, s.raw, s.query.Encode()
		req.Header.Set("Accept", "application/json")
		req.Header.Set("User-Agent", "golangsdk/2.0.0")
		if s.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for k, value := range s.headers {
			req.Header.Set(k, value)
		}
		o := options
		o.AccessKey, o.SecretKey = ak, sk
		golangsdk.Sign(req, o)
		for k, value := range unsigned {
			req.Header.Set(k, value)
		}
		resp, err := (&http.Client{Transport: changing{change}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer)
	}
}

// changing spoils a request on its way.
type changing struct{ change func(*http.Request) }

func (c changing) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.change != nil {
		r = r.Clone(r.Context())
		c.change(r)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestRealSignatures holds that what the SDKs sign is let in.
func TestRealSignatures(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, time.Now)
	for _, s := range signers {
		for name, r := range requests {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				status, body := s.send(t, v, r, accessKey, secretKey, nil)
				if reason, ok := s.cannot[name]; ok {
					if status != http.StatusUnauthorized {
						t.Errorf("status %d, but %s", status, reason)
					}
					return
				}
				if status != http.StatusOK || r.method != "HEAD" && body != s.project {
					t.Errorf("%s %s: status %d: %s, want project %s", r.method, r.path, status, body, s.project)
				}
			})
		}
	}
}

// TestSpoiledSignatures changes one thing of what the SDKs signed; each must be 401.
func TestSpoiledSignatures(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, time.Now)
	authorization := func(r *http.Request, old, new string) {
		value := r.Header.Get("Authorization")
		if !strings.Contains(value, old) {
			panic(fmt.Sprintf("%q is not in %q", old, value))
		}
		r.Header.Set("Authorization", strings.Replace(value, old, new, 1))
	}
	date := func(d time.Duration) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Sdk-Date", time.Now().Add(d).UTC().Format("20060102T150405Z")) }
	}
	request := sent{method: "POST", path: "/v2/images/a b/tags", query: url.Values{"limit": {"2"}}, body: `{"a":1}`}
	for name, change := range map[string]func(*http.Request){
		"method":                 func(r *http.Request) { r.Method = "PUT" },
		"path":                   func(r *http.Request) { r.URL.Path += "/action" },
		"path's case":            func(r *http.Request) { r.URL.Path = strings.ToUpper(r.URL.Path) },
		"query value":            func(r *http.Request) { r.URL.RawQuery = "limit=3" },
		"query key":              func(r *http.Request) { r.URL.RawQuery = "Limit=2" },
		"query gone":             func(r *http.Request) { r.URL.RawQuery = "" },
		"query twice":            func(r *http.Request) { r.URL.RawQuery += "&limit=3" },
		"query more":             func(r *http.Request) { r.URL.RawQuery += "&marker=" },
		"query malformed":        func(r *http.Request) { r.URL.RawQuery += "&%zz" },
		"signed header":          func(r *http.Request) { r.Header.Set("User-Agent", "other") },
		"signed header gone":     func(r *http.Request) { r.Header["User-Agent"] = nil },
		"body":                   func(r *http.Request) { setBody(r, `{"a":2}`) },
		"body longer":            func(r *http.Request) { setBody(r, `{"a":1} `) },
		"body gone":              func(r *http.Request) { setBody(r, "") },
		"payload named unsigned": func(r *http.Request) { r.Header.Set("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD") },
		"payload's hash forged": func(r *http.Request) {
			// The hash of the body that was signed, beside another body.
			signed := sha256.Sum256([]byte(request.body))
			r.Header.Set("X-Sdk-Content-Sha256", hex.EncodeToString(signed[:]))
			setBody(r, `{"a":2}`)
		},
		"date a second on":      date(time.Second + time.Minute),
		"date 16 minutes old":   date(-16 * time.Minute),
		"date 16 minutes ahead": date(16 * time.Minute),
		"date malformed":        func(r *http.Request) { r.Header.Set("X-Sdk-Date", "yesterday") },
		"date gone":             func(r *http.Request) { r.Header.Del("X-Sdk-Date") },
		"date twice":            func(r *http.Request) { r.Header.Add("X-Sdk-Date", r.Header.Get("X-Sdk-Date")) },
		"date unsigned":         func(r *http.Request) { authorization(r, ";x-sdk-date", "") },
		"access key":            func(r *http.Request) { authorization(r, accessKey, "AKUNKNOWN") },
		"signature's last digit": func(r *http.Request) {
			value := r.Header.Get("Authorization")
			last := strings.IndexByte("0123456789abcdef", value[len(value)-1])
			r.Header.Set("Authorization", value[:len(value)-1]+string("123456789abcdef0"[last]))
		},
		"signature cut off": func(r *http.Request) {
			r.Header.Set("Authorization", strings.TrimRight(r.Header.Get("Authorization"), "0123456789abcdef"))
		},
		"signed headers fewer":    func(r *http.Request) { authorization(r, "user-agent;", "") },
		"signed headers more":     func(r *http.Request) { authorization(r, "x-sdk-date", "x-sdk-date;accept-encoding") },
		"another algorithm":       func(r *http.Request) { authorization(r, "SDK-HMAC-SHA256", "SDK-HMAC-SHA1") },
		"another scheme":          func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") },
		"nothing":                 func(r *http.Request) { r.Header.Del("Authorization") },
		"project without a role":  func(r *http.Request) { r.Header["X-Project-Id"] = []string{"project3"} },
		"another domain":          func(r *http.Request) { r.Header["X-Domain-Id"] = []string{"domain2"} },
		"a token that is unknown": func(r *http.Request) { r.Header.Set("X-Auth-Token", "x") },
	} {
		for _, s := range signers {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				if status, body := s.send(t, v, request, accessKey, secretKey, change); status != http.StatusUnauthorized {
					t.Errorf("status %d: %s", status, body)
				}
			})
		}
	}
	for _, s := range signers {
		if status, _ := s.send(t, v, request, accessKey, secretKey, func(*http.Request) {}); status != http.StatusOK {
			t.Errorf("%s: nothing spoiled: status %d", s.name, status)
		}
		// A project that the user has a role in, but that the signer did not sign.
		other := map[string]string{"project1": "project2", "project2": "project1"}[s.project]
		if status, body := s.send(t, v, request, accessKey, secretKey, func(r *http.Request) { r.Header["X-Project-Id"] = []string{other} }); status != http.StatusUnauthorized {
			t.Errorf("%s: project %s, unsigned: status %d: %s", s.name, other, status, body)
		}
		if status, _ := s.send(t, v, request, accessKey, secretKey+"x", nil); status != http.StatusUnauthorized {
			t.Errorf("%s: another secret: status %d", s.name, status)
		}
		if strings.HasPrefix(s.name, "gopher") {
			for _, scope := range []string{"20200101/", "eu-nl/"} {
				status, _ := s.send(t, v, request, accessKey, secretKey, func(r *http.Request) {
					authorization(r, accessKey+"/", accessKey+"/"+scope)
				})
				if status != http.StatusUnauthorized {
					t.Errorf("%s: scope with %s: status %d", s.name, scope, status)
				}
			}
		}
	}
}

func setBody(r *http.Request, body string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
}

// TestOldSignatures holds the clock against the signers' dates.
func TestOldSignatures(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]int{
		-14 * time.Minute: http.StatusOK, 14 * time.Minute: http.StatusOK,
		-16 * time.Minute: http.StatusUnauthorized, 16 * time.Minute: http.StatusUnauthorized,
	} {
		v := newVerifier(t, func() time.Time { return time.Now().Add(skew) })
		for _, s := range signers {
			if status, body := s.send(t, v, requests["post"], accessKey, secretKey, nil); status != want {
				t.Errorf("%s, %v apart: status %d: %s", s.name, skew, status, body)
			}
		}
	}
}
