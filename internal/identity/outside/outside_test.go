package outside

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// answers is a server that answers as Keystone does where it is hard to have Keystone do
// so: faults, redirects, tokens of the service that end. Debian's is asked in test/openstack.
type answers struct {
	*httptest.Server
	mu     sync.Mutex
	logins int
	valid  string // the service's token
	paths  map[string]func(w http.ResponseWriter, r *http.Request)
}

func start(t *testing.T) (*answers, *Client) {
	t.Helper()
	a := &answers{paths: map[string]func(http.ResponseWriter, *http.Request){}}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{URL: a.URL + "/v3/", PublicURL: "https://keystone.test/v3", User: "quickims", UserDomain: "Default", Password: "secret",
		Project: "service", ProjectDomain: "Default", CAFile: ca, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method == "POST" && r.URL.Path == "/v3/auth/tokens" {
		a.logins++
		var body struct {
			Auth struct {
				Identity struct {
					Password struct {
						User struct{ Name, Password string }
					}
				}
			}
		}
		if json.NewDecoder(r.Body).Decode(&body); body.Auth.Identity.Password.User.Password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.valid = fmt.Sprintf("service-%d", a.logins)
		w.Header().Set("X-Subject-Token", a.valid)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"token":{"catalog":[],"expires_at":"2030-01-01T00:00:00.000000Z"}}`)
		return
	}
	if r.Header.Get("X-Auth-Token") != a.valid {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f := a.paths[strings.TrimPrefix(r.URL.Path, "/v3/")]
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	f(w, r)
}

func (a *answers) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

const tokenBody = `{"token":{"user":{"id":"u","name":"ann","domain":{"id":"d","name":"D"}},"project":{"id":"p","name":"lab","domain":{"id":"e","name":"E"}},
	"roles":[{"id":"1","name":"member"},{"id":"2","name":"reader"}],"methods":["password"],"audit_ids":["own","first"],
	"issued_at":"2026-01-31T12:00:00.000000Z","expires_at":"2026-01-31T13:00:00.000000Z"}}`

// TestToken: what a token stands for is read, through TLS with the authority that was
// named, and the service logs in when it must and no more often.
func TestToken(t *testing.T) {
	t.Parallel()
	a, c := start(t)
	subject := ""
	a.paths["auth/tokens"] = func(w http.ResponseWriter, r *http.Request) {
		if subject = r.Header.Get("X-Subject-Token"); subject != "good" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, tokenBody)
	}
	for i := range 3 {
		got, err := c.Token(t.Context(), "good")
		if err != nil {
			t.Fatal(err)
		}
		if got.User != (Named{"u", "ann"}) || got.UserDomain.ID != "d" || got.Project.ID != "p" || got.ProjectDomain != (Named{"e", "E"}) ||
			!slices.Equal(got.Roles, []string{"member", "reader"}) || !slices.Equal(got.AuditIDs, []string{"own", "first"}) ||
			got.ExpiresAt.Sub(got.IssuedAt) != time.Hour {
			t.Errorf("%+v", got)
		}
		if i == 1 {
			a.set(func() { a.valid = "another" }) // the service's own token has ended
		}
	}
	if a.logins != 2 {
		t.Errorf("logged in %d times", a.logins)
	}
	if _, err := c.Token(t.Context(), "bad"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown token: %v", err)
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge} { // of Keystone, or of a proxy before it
		a.set(func() {
			a.paths["auth/tokens"] = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }
		})
		if _, err := c.Token(t.Context(), "bad"); !errors.Is(err, ErrUnknown) {
			t.Errorf("a token that is answered with %d: %v", status, err)
		}
	}
	a.set(func() { delete(a.paths, "auth/tokens") })
	// Also when its own token ends in between.
	a.set(func() { a.valid = "another" })
	if _, err := c.Token(t.Context(), "bad"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown token after a new login: %v", err)
	}
}

// TestNoAnswer: whatever is no answer of Keystone's is neither a token nor a refusal of one.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	a, c := start(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed with token %q", r.Header.Get("X-Auth-Token"))
	}))
	defer elsewhere.Close()
	for name, f := range map[string]func(w http.ResponseWriter, r *http.Request){
		"500":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"no JSON":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"nothing":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") },
		"no user": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Replace(tokenBody, `"id":"u"`, `"id":""`, 1))
		},
		"no domain": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Replace(tokenBody, `"id":"e"`, `"x":"e"`, 1))
		},
		"no time": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Replace(tokenBody, "2026", "x", 2))
		},
		"too long": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"x":"`+strings.Repeat("x", maxAnswer)+`",`+tokenBody[1:])
		},
		"not allowed":  func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"hangs up":     func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"unauthorized": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
	} {
		a.set(func() { a.paths["auth/tokens"] = f })
		got, err := c.Token(t.Context(), "good")
		if err == nil || errors.Is(err, ErrUnknown) || got.User.ID != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if errors.Is(err, ErrForbidden) != (name == "not allowed") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "service-")) {
			t.Errorf("%s: the error has a secret: %v", name, err)
		}
	}
}

// TestCertificate: another authority's certificate is not taken, and a file without one is
// an error at the start.
func TestCertificate(t *testing.T) {
	t.Parallel()
	a, _ := start(t)
	c, err := New(Config{URL: a.URL, User: "quickims", Password: "secret", UserDomain: "Default", Project: "service", ProjectDomain: "Default"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(t.Context(), "good"); err == nil || errors.Is(err, ErrUnknown) || a.logins != 0 {
		t.Errorf("%v, %d logins", err, a.logins)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, empty + ".not"} {
		if _, err := New(Config{URL: a.URL, CAFile: path}); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}

// TestRevokedAndRoles: events with what they say, and the roles of a user that is enabled
// in a project that is.
func TestRevokedAndRoles(t *testing.T) {
	t.Parallel()
	a, c := start(t)
	since := ""
	a.paths["OS-REVOKE/events"] = func(w http.ResponseWriter, r *http.Request) {
		since = r.URL.Query().Get("since")
		io.WriteString(w, `{"events":[{"audit_id":"x","issued_before":"2026-01-31T12:00:00.000000Z","revoked_at":"2026-01-31T12:00:00.000000Z"},
			{"user_id":"u","project_id":"p"},{"role_id":"r","user_id":"u"},{"OS-TRUST:trust_id":"t"}]}`)
	}
	got, err := c.Revoked(t.Context(), time.Date(2026, 1, 31, 11, 0, 0, 5, time.UTC))
	want := []Event{{AuditID: "x", IssuedBefore: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}, {UserID: "u", ProjectID: "p"}, {UserID: "u", Partial: true}, {Partial: true}}
	if err != nil || !slices.Equal(got, want) || since != "2026-01-31T11:00:00Z" {
		t.Errorf("since %q: %+v, %v", since, got, err)
	}

	enabled := "true"
	a.set(func() {
		a.paths["users/u"] = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"user":{"id":"u","enabled":true}}`) }
		a.paths["projects/p"] = func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"project":{"id":"p","enabled":`+enabled+`}}`)
		}
		a.paths["role_assignments"] = func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query(); q.Get("user.id") != "u" || q.Get("scope.project.id") != "p" || !q.Has("effective") || !q.Has("include_names") {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			io.WriteString(w, `{"role_assignments":[{"role":{"id":"1","name":"member"}}]}`)
		}
	})
	if roles, err := c.Roles(t.Context(), "u", "p"); err != nil || !slices.Equal(roles, []string{"member"}) {
		t.Errorf("%v, %v", roles, err)
	}
	a.set(func() { enabled = "false" })
	if _, err := c.Roles(t.Context(), "u", "p"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a disabled project: %v", err)
	}
	if _, err := c.Roles(t.Context(), "another", "p"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown user: %v", err)
	}
}
