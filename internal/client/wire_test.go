package client

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testAccessKey = "AKTEST"
	testSecretKey = "sk/test+with=signs"
	testProject   = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// service is a server on the real wire: every request's signature is computed anew
// from what arrived before handle sees it.
type service struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	asked  []string // method and request URI of each request
	handle func(w http.ResponseWriter, r *http.Request, body string)
}

func newService(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, body string)) *service {
	s := &service{t: t, handle: handle}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Errorf("read a request: %v", err)
	}
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.RequestURI)
	s.mu.Unlock()
	if r.Header.Get("X-Auth-Token") == "" {
		if err := checkSignature(r, body); err != nil {
			s.t.Errorf("%s %s: %v", r.Method, r.RequestURI, err)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
	}
	w.Header().Set("X-Request-Id", "req-1")
	s.handle(w, r, string(body))
}

func (s *service) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// client makes a client of the service whose waits take no time.
func (s *service) client(change func(*Config, *Options)) *Client {
	s.t.Helper()
	config := Config{Endpoint: s.URL, AccessKey: testAccessKey, SecretKey: testSecretKey, ProjectID: testProject}
	opts := Options{
		UserAgent: "quickims/test",
		Now:       func() time.Time { return testNow },
		Sleep:     func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	if change != nil {
		change(&config, &opts)
	}
	c, err := New(config, opts)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// checkSignature goes by the protocol's description, sharing nothing with the code that signs.
func checkSignature(r *http.Request, body []byte) error {
	var access, signature string
	var names []string
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "SDK-HMAC-SHA256 ")
	if !ok {
		return fmt.Errorf("Authorization is %q", r.Header.Get("Authorization"))
	}
	for _, part := range strings.Split(rest, ", ") {
		k, v, _ := strings.Cut(part, "=")
		switch k {
		case "Access":
			access = v
		case "SignedHeaders":
			names = strings.Split(v, ";")
		case "Signature":
			signature = v
		}
	}
	if access != testAccessKey {
		return fmt.Errorf("Access is %q", access)
	}
	if !slices.IsSorted(names) || !slices.Contains(names, "x-sdk-date") || !slices.Contains(names, "host") {
		return fmt.Errorf("SignedHeaders is %q", names)
	}
	if date := r.Header.Get("X-Sdk-Date"); date != testNow.Format("20060102T150405Z") {
		return fmt.Errorf("X-Sdk-Date is %q", date)
	}
	var headers string
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		headers += name + ":" + strings.TrimSpace(value) + "\n"
	}
	encode := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	var segments []string
	for _, s := range strings.Split(r.URL.Path, "/") {
		segments = append(segments, encode(s))
	}
	path := strings.TrimSuffix(strings.Join(segments, "/"), "/") + "/"
	var pairs []string
	for k, values := range r.URL.Query() {
		for _, v := range values {
			pairs = append(pairs, encode(k)+"="+encode(v))
		}
	}
	slices.Sort(pairs) // no key in these tests begins with another one
	canonical := fmt.Sprintf("%s\n%s\n%s\n%s\n%s\n%x", r.Method, path, strings.Join(pairs, "&"), headers, strings.Join(names, ";"), sha256.Sum256(body))
	mac := hmac.New(sha256.New, []byte(testSecretKey))
	fmt.Fprintf(mac, "SDK-HMAC-SHA256\n%s\n%x", r.Header.Get("X-Sdk-Date"), sha256.Sum256([]byte(canonical)))
	if want := hex.EncodeToString(mac.Sum(nil)); signature != want {
		return fmt.Errorf("Signature is %s, the request makes %s of\n%s", signature, want, canonical)
	}
	return nil
}
