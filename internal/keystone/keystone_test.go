package keystone_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

var seed = identity.Seed{
	DomainID: "d1", DomainName: "Default", ProjectID: "p1", ProjectName: "eu-de",
	User: "admin", Password: "correct horse", AccessKey: "AKADMIN", SecretKey: "secret-of-the-admin",
}

// site is a server of the handlers alone.
type site struct {
	t      *testing.T
	url    string
	server *httptest.Server
	users  *identity.Service
	admin  identity.User

	mu  sync.Mutex
	now time.Time
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func newSite(t *testing.T, db *database.DB, opts keystone.Options) *site {
	t.Helper()
	s := &site{t: t, now: time.Date(2024, 11, 6, 6, 27, 3, 742e6, time.UTC)}
	var err error
	s.users, err = identity.New(db, identity.Options{
		SealKey: []byte(strings.Repeat("k", identity.SealKeySize)), Clock: s.clock,
		PasswordCost: identity.PasswordCost{MemoryKiB: 64, Passes: 1, Lanes: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.users.Bootstrap(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	users, err := s.users.Users(t.Context(), "d1")
	if err != nil {
		t.Fatal(err)
	}
	s.admin = users[0]
	h := keystone.New(s.users, opts)
	mux := http.NewServeMux()
	for pattern, f := range map[string]http.HandlerFunc{
		"GET /v3":                h.Version,
		"GET /v3/{$}":            h.Version,
		"POST /v3/auth/tokens":   h.IssueToken,
		"GET /v3/auth/tokens":    h.ShowToken,
		"DELETE /v3/auth/tokens": h.RevokeToken,
		"GET /v3/auth/catalog":   h.Catalog,
		"GET /v3/auth/projects":  h.Projects,
		"GET /v3/auth/domains":   h.Domains,
		"GET /v3/projects":       h.Projects,
		"GET /v3/users":          h.Users,

		"GET /v3/projects/{project_id}": h.Project, "GET /v3/users/{user_id}": h.User,
		"GET /v3/domains": h.Domains, "GET /v3/domains/{domain_id}": h.Domain, "GET /v3/auth/system": h.System,
		"GET /v3/regions": h.Regions, "GET /v3/regions/{region_id}": h.Region, "GET /v3/roles/{role_id}": h.Role,
		"GET /v3/services": h.Services, "GET /v3/services/{service_id}": h.Service,
		"GET /v3/endpoints": h.Endpoints, "GET /v3/endpoints/{endpoint_id}": h.Endpoint,
		"GET /v3/users/{user_id}/projects":                                   h.UserProjects,
		"GET /v3/users/{user_id}/application_credentials":                    h.AppCredentials,
		"POST /v3/users/{user_id}/application_credentials":                   h.CreateAppCredential,
		"GET /v3/users/{user_id}/application_credentials/{credential_id}":    h.AppCredential,
		"DELETE /v3/users/{user_id}/application_credentials/{credential_id}": h.DeleteAppCredential,
	} {
		mux.Handle(pattern, f)
	}
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	s.url = s.server.URL
	return s
}

// reply is an answer, its body read as JSON where it has one.
type reply struct {
	status int
	header http.Header
	body   map[string]any
}

// at finds a value in the body by keys and indexes: "token", "roles", 0, "name".
func (r reply) at(path ...any) any {
	var v any = r.body
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return nil
			}
			v = list[step]
		}
	}
	return v
}

func (s *site) do(method, path, body string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return s.send(r)
}

func (s *site) send(r *http.Request) reply {
	s.t.Helper()
	resp, err := s.server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &out.body); err != nil {
			s.t.Fatalf("%s %s: %v in %s", r.Method, r.URL, err, data)
		}
	}
	return out
}

// issue asks for a token with the admin's password and a scope in JSON, "" for none.
func (s *site) issue(scope string) (string, reply) {
	s.t.Helper()
	if scope != "" {
		scope = `,"scope":` + scope
	}
	r := s.do("POST", "/v3/auth/tokens", fmt.Sprintf(
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"admin","domain":{"name":"Default"},"password":%q}}}%s}}`,
		seed.Password, scope))
	if r.status != http.StatusCreated || r.header.Get("X-Subject-Token") == "" {
		s.t.Fatalf("no token for scope %s: %d %v", scope, r.status, r.body)
	}
	return r.header.Get("X-Subject-Token"), r
}

// wantError holds an answer to Keystone's form of an error.
func (s *site) wantError(what string, r reply, status int, part string) {
	s.t.Helper()
	message, _ := r.at("error", "message").(string)
	if r.status != status || r.at("error", "code") != float64(status) || r.at("error", "title") != http.StatusText(status) ||
		!strings.Contains(message, part) || r.header.Get("Content-Type") != "application/json" {
		s.t.Errorf("%s: %d %v, want %d with %q", what, r.status, r.body, status, part)
	}
	if (status == http.StatusUnauthorized) != (r.header.Get("WWW-Authenticate") != "") {
		s.t.Errorf("%s: WWW-Authenticate %q", what, r.header.Get("WWW-Authenticate"))
	}
}

func TestIssueToken(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de", S3URL: "http://[::]:9000"})
		_, r := s.issue(`{"project":{"id":"p1"}}`)
		for path, want := range map[[5]any]any{
			{"token", "methods", 0}:                 "password",
			{"token", "user", "id"}:                 s.admin.ID,
			{"token", "user", "name"}:               "admin",
			{"token", "user", "domain", "id"}:       "d1",
			{"token", "user", "domain", "name"}:     "Default",
			{"token", "project", "id"}:              "p1",
			{"token", "project", "name"}:            "eu-de",
			{"token", "project", "domain", "id"}:    "d1",
			{"token", "roles", 0, "name"}:           "admin",
			{"token", "issued_at"}:                  "2024-11-06T06:27:03.742000Z",
			{"token", "expires_at"}:                 "2024-11-07T06:27:03.742000Z",
			{"token", "catalog", 0, "type"}:         "image",
			{"token", "catalog", 1, "type"}:         "identity",
			{"token", "catalog", 2, "type"}:         "s3",
			{"token", "catalog", 3, "type"}:         "object",
			{"token", "catalog", 4}:                 nil,
			{"token", "domain"}:                     nil,
			{"token", "catalog", 0, "endpoints", 1}: nil,
		} {
			steps := path[:]
			for len(steps) > 0 && steps[len(steps)-1] == nil {
				steps = steps[:len(steps)-1]
			}
			if got := r.at(steps...); got != want {
				t.Errorf("%v is %v, want %v", steps, got, want)
			}
		}
		port := s.url[strings.LastIndex(s.url, ":"):]
		for i, want := range []string{s.url + "/image", s.url + "/v3", strings.TrimSuffix(s.url, port) + ":9000"} {
			e, _ := r.at("token", "catalog", i, "endpoints", 0).(map[string]any)
			if e["url"] != want || e["region"] != "eu-de" || e["region_id"] != "eu-de" || e["interface"] != "public" || e["id"] == "" {
				t.Errorf("endpoint %d is %v, want %s", i, e, want)
			}
		}
		if r.header.Get("Cache-Control") != "no-store" || !strings.Contains(r.header.Get("Vary"), "X-Auth-Token") {
			t.Errorf("header %v", r.header)
		}

		for _, tc := range []struct{ scope, project, domain string }{
			{scope: ``}, {scope: `null`}, {scope: `"unscoped"`}, {scope: `{"unscoped":{}}`},
			{scope: `{"project":{"name":"eu-de","domain":{"id":"d1"}}}`, project: "p1"},
			{scope: `{"project":{"name":"eu-de","domain":{"name":"Default"}}}`, project: "p1"},
			{scope: `{"project":{"id":"p1","domain":{"name":"whatever"}}}`, project: "p1"},
			{scope: `{"domain":{"id":"d1"}}`, domain: "d1"},
			{scope: `{"domain":{"name":"Default"},"project":null}`, domain: "d1"},
		} {
			_, r := s.issue(tc.scope)
			project, _ := r.at("token", "project", "id").(string)
			domain, _ := r.at("token", "domain", "id").(string)
			if project != tc.project || domain != tc.domain {
				t.Errorf("scope %s: project %q, domain %q", tc.scope, project, domain)
			}
			scoped := tc.project != "" || tc.domain != ""
			if (r.at("token", "roles") != nil) != scoped || (r.at("token", "catalog") != nil) != scoped {
				t.Errorf("scope %s: %v", tc.scope, r.body)
			}
		}
	})
}

func TestCatalogFollowsConfigurationAndRequest(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		ctx := t.Context()
		if _, err := s.users.CreateProject(ctx, identity.Project{ID: "p2", DomainID: "d1", Name: "lab_one"}); err != nil {
			t.Fatal(err)
		}
		if err := s.users.Grant(ctx, identity.Grant{UserID: s.admin.ID, ProjectID: "p2", Role: ims.RoleReader}); err != nil {
			t.Fatal(err)
		}
		token, r := s.issue(`{"project":{"id":"p2"}}`)
		if a, b := r.at("token", "catalog", 0, "endpoints", 0, "region"), r.at("token", "catalog", 0, "endpoints", 1, "region"); a != "eu-de" || b != "lab" {
			t.Errorf("regions %v and %v", a, b)
		}
		if r.at("token", "catalog", 2) != nil {
			t.Errorf("an S3 service without one: %v", r.at("token", "catalog", 2))
		}
		if r := s.do("POST", "/v3/auth/tokens?nocatalog", `{"auth":{"identity":{"methods":["token"],"token":{"id":"`+token+`"}},"scope":{"project":{"id":"p1"}}}}`); r.status != 201 ||
			r.at("token", "catalog") != nil || r.at("token", "project", "id") != "p1" || r.at("token", "methods", 0) != "token" {
			t.Errorf("?nocatalog: %d %v", r.status, r.body)
		}
		if r := s.do("GET", "/v3/auth/catalog", "", "X-Auth-Token", token); r.status != 200 || r.at("catalog", 0, "endpoints", 0, "url") != s.url+"/image" {
			t.Errorf("catalog: %d %v", r.status, r.body)
		}

		// The host is the request's, or the configured one; what a client sends besides
		// decides nothing.
		h := keystone.New(s.users, keystone.Options{Region: "eu-de"})
		fixed := keystone.New(s.users, keystone.Options{PublicURL: "https://ims.example/"})
		for _, tc := range []struct {
			h    *keystone.Handlers
			host string
			tls  bool
			want string
		}{
			{h, "ims.local:9292", false, "http://ims.local:9292/v3/"},
			{h, "ims.local", true, "https://ims.local/v3/"},
			{h, "[::1]:9292", false, "http://[::1]:9292/v3/"},
			{h, "", false, "http://localhost/v3/"},
			{h, "evil/path", false, "http://localhost/v3/"},
			{h, "user@evil", false, "http://localhost/v3/"},
			{fixed, "ims.local:9292", false, "https://ims.example/v3/"},
		} {
			r := httptest.NewRequest("GET", "/v3", nil)
			r.Host = tc.host
			r.Header.Set("X-Forwarded-Host", "evil.example")
			r.Header.Set("X-Forwarded-Proto", "ftp")
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			tc.h.Version(w, r)
			var doc struct {
				Version struct {
					ID, Status string
					Links      []struct{ Rel, Href string }
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
			if v := doc.Version; w.Code != 200 || !strings.HasPrefix(v.ID, "v3.") || v.Status != "stable" || len(v.Links) != 1 || v.Links[0].Href != tc.want {
				t.Errorf("host %q: %d %s, want %s", tc.host, w.Code, w.Body, tc.want)
			}
		}
	})
}

func TestShowAndRevokeToken(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		token, issued := s.issue(`{"project":{"id":"p1"}}`)
		other, _ := s.issue("")
		show := func(method, auth, subject string) reply {
			return s.do(method, "/v3/auth/tokens", "", "X-Auth-Token", auth, "X-Subject-Token", subject)
		}
		r := show("GET", token, token)
		if r.status != 200 || r.header.Get("X-Subject-Token") != token || fmt.Sprint(r.body) != fmt.Sprint(issued.body) {
			t.Errorf("shown: %d %v, issued %v", r.status, r.body, issued.body)
		}
		if r := show("GET", other, token); r.status != 200 || r.at("token", "project", "id") != "p1" {
			t.Errorf("shown with another token of the user: %d %v", r.status, r.body)
		}
		if r := show("HEAD", token, token); r.status != 200 || r.body != nil || r.header.Get("X-Subject-Token") != token {
			t.Errorf("HEAD: %d %v", r.status, r.body)
		}
		signed, err := http.NewRequest("GET", s.url+"/v3/auth/tokens", nil)
		if err != nil {
			t.Fatal(err)
		}
		signed.Header.Set("X-Subject-Token", token)
		if err := signature.Sign(signed, nil, seed.AccessKey, seed.SecretKey, s.clock()); err != nil {
			t.Fatal(err)
		}
		if r := s.send(signed); r.status != 200 {
			t.Errorf("a signed request: %d %v", r.status, r.body)
		}
		s.wantError("no subject", s.do("GET", "/v3/auth/tokens", "", "X-Auth-Token", token), 400, "X-Subject-Token")
		s.wantError("two subjects", s.do("GET", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token, "X-Subject-Token", "x"), 400, "one X-Subject-Token")
		s.wantError("unknown subject", show("GET", token, "unknown"), 404, "does not exist")
		s.wantError("unknown caller", show("GET", "unknown", token), 401, "unknown, expired or revoked")
		s.wantError("no caller", s.do("GET", "/v3/auth/tokens", "", "X-Subject-Token", token), 401, "no credential")

		if r := show("DELETE", other, token); r.status != 204 || r.body != nil {
			t.Errorf("revoked: %d %v", r.status, r.body)
		}
		s.wantError("revoked", show("GET", other, token), 404, "does not exist")
		s.wantError("revoked again", show("DELETE", other, token), 404, "does not exist")
		s.wantError("used after", s.do("GET", "/v3/projects", "", "X-Auth-Token", token), 401, "revoked")
		s.advance(25 * time.Hour)
		s.wantError("expired", s.do("GET", "/v3/projects", "", "X-Auth-Token", other), 401, "expired")
	})
}

func TestListsHoldTheCallersOwn(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		ctx := t.Context()
		for _, name := range []string{"lab", "foreign"} {
			if _, err := s.users.CreateProject(ctx, identity.Project{ID: name, DomainID: "d1", Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.users.Grant(ctx, identity.Grant{UserID: s.admin.ID, ProjectID: "lab", Role: ims.RoleReader}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.users.CreateUser(ctx, identity.User{DomainID: "d1", Name: "other"}, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.users.CreateDomain(ctx, "d2", "Other"); err != nil {
			t.Fatal(err)
		}
		token, _ := s.issue("")
		names := func(path, list string) string {
			t.Helper()
			r := s.do("GET", path, "", "X-Auth-Token", token)
			if r.status != 200 || r.at("links", "next") != nil {
				t.Fatalf("%s: %d %v", path, r.status, r.body)
			}
			entries, ok := r.at(list).([]any)
			if !ok {
				t.Fatalf("%s: no list %s in %v", path, list, r.body)
			}
			var names []string
			for _, e := range entries {
				e := e.(map[string]any)
				if e["id"] == "" || e["enabled"] != true {
					t.Errorf("%s: entry %v", path, e)
				}
				names = append(names, e["name"].(string))
			}
			return strings.Join(names, " ")
		}
		for _, tc := range []struct{ path, list, want string }{
			{"/v3/projects", "projects", "eu-de lab"},
			{"/v3/auth/projects", "projects", "eu-de lab"},
			{"/v3/projects?name=eu-de", "projects", "eu-de"},
			{"/v3/projects?name=foreign", "projects", ""},
			{"/v3/projects?name=", "projects", ""},
			{"/v3/projects?domain_id=d1&name=lab&enabled=true&x=y", "projects", "lab"},
			{"/v3/projects?domain_id=default&name=lab", "projects", "lab"},
			{"/v3/users/" + s.admin.ID + "/projects?name=lab", "projects", "lab"},
			{"/v3/users?domain_id=default", "users", "admin"},
			{"/v3/projects?domain_id=d2", "projects", ""},
			{"/v3/projects?enabled=False", "projects", ""},
			{"/v3/auth/domains", "domains", "Default"},
			{"/v3/auth/domains?name=Default", "domains", "Default"},
			{"/v3/auth/domains?name=Other", "domains", ""},
			{"/v3/users", "users", "admin"},
			{"/v3/users?name=admin", "users", "admin"},
			{"/v3/users?name=other", "users", ""},
		} {
			if got := names(tc.path, tc.list); got != tc.want {
				t.Errorf("%s lists %q, want %q", tc.path, got, tc.want)
			}
		}
		for _, path := range []string{"/v3/projects", "/v3/auth/projects", "/v3/auth/domains", "/v3/users", "/v3/auth/catalog"} {
			s.wantError(path, s.do("GET", path, ""), 401, "no credential")
		}
	})
}

// TestElsewhere: with an outside Keystone, whoever wants or shows a token is sent there
// with the same request; the versions, and who signs, are answered here.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) { testElsewhere(t, db) })
}

func testElsewhere(t *testing.T, db *database.DB) {
	s := newSite(t, db, keystone.Options{Region: "eu-de", Outside: "https://keystone.test:5000/v3"})
	s.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, c := range [][4]string{
		{"POST", "/v3/auth/tokens", "{}", "https://keystone.test:5000/v3/auth/tokens"},
		{"POST", "/v3/auth/tokens?nocatalog", "{}", "https://keystone.test:5000/v3/auth/tokens?nocatalog"},
		{"GET", "/v3/projects?name=a%20b", "", "https://keystone.test:5000/v3/projects?name=a%20b"},
		{"GET", "/v3/users/..%2fx", "", "https://keystone.test:5000/v3/users/..%2fx"},
	} {
		for _, headers := range [][]string{nil, {"X-Auth-Token", "t"}, {"X-Auth-Token", "t", "Authorization", "x"}} {
			r := s.do(c[0], c[1], c[2], headers...)
			if message, _ := r.at("error", "message").(string); r.status != http.StatusTemporaryRedirect || r.header.Get("Location") != c[3] || !strings.Contains(message, "https://keystone.test:5000/v3") {
				t.Errorf("%s %s with %v: %d to %q, %v", c[0], c[1], headers, r.status, r.header.Get("Location"), r.body)
			}
		}
	}
	if r := s.do("POST", "/v3/auth/tokens", "{}", "Authorization", "SDK-HMAC-SHA256 x"); r.status != http.StatusTemporaryRedirect {
		t.Errorf("a login with a signature: %d", r.status)
	}
	if r := s.do("GET", "/v3", ""); r.status != http.StatusOK {
		t.Errorf("GET /v3: %d", r.status)
	}
	s.wantError("a wrong signature", s.do("GET", "/v3/projects", "", "Authorization", "SDK-HMAC-SHA256 x"), http.StatusUnauthorized, "")
}

func TestBadLogins(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		token, _ := s.issue("")
		password := func(user string) string {
			return `{"auth":{"identity":{"methods":["password"],"password":{"user":` + user + `}}}}`
		}
		for _, tc := range []struct {
			name, body string
			status     int
			part       string
		}{
			{"empty", ``, 400, "empty"},
			{"space", ` `, 400, "empty"},
			{"no JSON", `{"auth":`, 400, "not JSON"},
			{"no object", `[]`, 400, "an object"},
			{"null", `null`, 400, "an object"},
			{"trailing bytes", password(`{}`) + `x`, 400, "follows"},
			{"invalid UTF-8", password(`{"name":"` + "\xff" + `"}`), 400, "UTF-8"},
			{"nothing in it", `{}`, 400, "methods"},
			{"no methods", `{"auth":{"identity":{}}}`, 400, "methods"},
			{"methods no array", `{"auth":{"identity":{"methods":"password"}}}`, 400, "auth.identity.methods must be an array"},
			{"method no string", `{"auth":{"identity":{"methods":[1]}}}`, 400, "auth.identity.methods must be a string"},
			{"too many methods", `{"auth":{"identity":{"methods":["a","a","a","a","a","a","a","a","a"]}}}`, 400, "more than 8"},
			{"another method", `{"auth":{"identity":{"methods":["totp"]}}}`, 401, "methods are"},
			{"two methods", `{"auth":{"identity":{"methods":["password","totp"]}}}`, 401, "one at a time"},
			{"key twice", `{"auth":{},"auth":{}}`, 400, "auth occurs twice"},
			{"key in capitals", `{"AUTH":{"identity":{"methods":["password"]}}}`, 400, "methods"},
			{"auth a string", `{"auth":"x"}`, 400, "auth must be an object"},
			{"no user", `{"auth":{"identity":{"methods":["password"]}}}`, 400, "must have an id, or a name with a domain"},
			{"a name without a domain", password(`{"name":"admin","password":"x"}`), 400, "a name with a domain"},
			{"password a number", password(`{"id":"x","password":1}`), 400, "user.password must be a string"},
			{"no password", password(`{"name":"admin","domain":{"id":"d1"}}`), 401, "the user or the password is wrong"},
			{"wrong password", password(`{"id":"` + s.admin.ID + `","password":"x"}`), 401, "the user or the password is wrong"},
			{"unknown user", password(`{"name":"nobody","domain":{"id":"d1"},"password":"x"}`), 401, "the user or the password is wrong"},
			{"a name with NUL", password(`{"name":"a\u0000b","domain":{"id":"d1"},"password":"x"}`), 401, "the user or the password is wrong"},
			{"no token", `{"auth":{"identity":{"methods":["token"]}}}`, 400, "token must have an id"},
			{"unknown token", `{"auth":{"identity":{"methods":["token"],"token":{"id":"x"}}}}`, 401, "unknown, expired or revoked"},
			{"two scopes", `{"auth":{"identity":{"methods":["token"],"token":{"id":"` + token + `"}},"scope":{"project":{"id":"p1"},"domain":{"id":"d1"}}}}`, 400, "not both"},
			{"scope without a name", `{"auth":{"identity":{"methods":["token"],"token":{"id":"` + token + `"}},"scope":{"project":{"domain":{"id":"d1"}}}}}`, 400, "auth.scope.project"},
			{"scope a number", `{"auth":{"identity":{"methods":["token"],"token":{"id":"` + token + `"}},"scope":1}}`, 400, "auth.scope must be"},
			{"unknown project", `{"auth":{"identity":{"methods":["token"],"token":{"id":"` + token + `"}},"scope":{"project":{"id":"p9"}}}}`, 401, "no domain or project"},
			{"deep", `{"x":` + strings.Repeat("[", 10_000), 400, "deeper than 32"},
			{"deep and known", strings.Repeat(`{"auth":`, 100), 400, "deeper"},
			{"too long", `{"x":"` + strings.Repeat("x", keystone.MaxBody) + `"}`, 413, "longer than 16384 bytes"},
		} {
			s.wantError(tc.name, s.do("POST", "/v3/auth/tokens", tc.body), tc.status, tc.part)
		}
		// What nobody asked for is passed over.
		r := s.do("POST", "/v3/auth/tokens", `{"x":[{"y":[1,2,{}]}],"auth":{"z":null,"identity":{"methods":["token"],"token":{"id":"`+token+`","expires":1e9}}}}`)
		if r.status != 201 {
			t.Errorf("unknown keys: %d %v", r.status, r.body)
		}
		// Failures from one place are slowed down.
		wrong := password(`{"id":"someone","password":"x"}`)
		for range 10 {
			s.do("POST", "/v3/auth/tokens", wrong)
		}
		r = s.do("POST", "/v3/auth/tokens", wrong)
		s.wantError("too many failures", r, 429, "too many failed logins")
		if r.header.Get("Retry-After") != "6" {
			t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
		}
	})
}

func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{})
		token, _ := s.issue("")
		if _, err := db.ExecContext(t.Context(), `DROP TABLE identity_tokens`); err != nil {
			t.Fatal(err)
		}
		r := s.do("GET", "/v3/projects", "", "X-Auth-Token", token)
		s.wantError("a broken database", r, 500, "unexpected error")
		if strings.Contains(fmt.Sprint(r.body), "identity_tokens") {
			t.Errorf("the answer tells of the inside: %v", r.body)
		}
	})
}
