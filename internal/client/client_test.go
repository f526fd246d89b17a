package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

func TestQuickImportSendsWhatWasAskedForAndNothingElse(t *testing.T) {
	t.Parallel()
	var got map[string]any
	s := newService(t, func(w http.ResponseWriter, r *http.Request, body string) {
		if r.Method != http.MethodPost || r.URL.Path != "/v2/cloudimages/quickimport/action" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s, %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Error(err)
		}
		io.WriteString(w, `{"job_id":"4f0d1c2b3a49586778695a4b3c2d1e0f"}`)
	})
	name, os, source, disk := "web ü", "Debian GNU/Linux 12.0.0 64bit", "images:a/b.raw", int64(10)
	id, err := s.client(nil).QuickImport(t.Context(), ims.ImportRequest{
		Name: &name, OSVersion: &os, ImageURL: &source, MinDisk: &disk,
		ImageTags: []ims.Tag{{Key: "role", Value: "web"}, {Key: "bare"}},
	})
	if err != nil || id != "4f0d1c2b3a49586778695a4b3c2d1e0f" {
		t.Fatalf("job %q, %v", id, err)
	}
	want := map[string]any{
		"name": name, "os_version": os, "image_url": source, "min_disk": 10.0,
		"image_tags": []any{map[string]any{"key": "role", "value": "web"}, map[string]any{"key": "bare", "value": ""}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("sent %v\nwant %v", got, want)
	}
}

func TestAnErrorCarriesWhatTheServiceSaid(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   Error
	}{
		{"whole", 400, `{"error":{"code":"IMG.0057","message":"file","details":"no bitmap"}}`,
			Error{Code: "IMG.0057", Message: "file", Details: "no bitmap"}},
		{"without details", 404, `{"error":{"code":"IMG.0027","message":"unknown"}}`, Error{Code: "IMG.0027", Message: "unknown"}},
		{"details that are no text", 400, `{"error":{"code":"IMG.0001","message":"m","details":{"field":"name"}}}`,
			Error{Code: "IMG.0001", Message: "m", Details: `{"field":"name"}`}},
		{"a proxy's page", 502, `<html>Bad Gateway</html>`, Error{Message: "the service answered 502 Bad Gateway"}},
		{"nothing", 503, ``, Error{Message: "the service answered 503 Service Unavailable"}},
		{"a redirect is not followed", 302, ``, Error{Message: "the service answered 302 Found"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(test.status)
				io.WriteString(w, test.body)
			})
			_, err := s.client(nil).Image(t.Context(), "an id")
			got, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%v is no *Error", err)
			}
			test.want.Status, test.want.Request, test.want.RequestID = test.status, "GET /v2/images/an%20id", "req-1"
			if *got != test.want {
				t.Errorf("got  %+v\nwant %+v", *got, test.want)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestAnAnswerThatIsNotOursIsAnError(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"HTML": "<html>hello</html>", "too long": `"` + strings.Repeat("x", maxAnswer) + `"`, "another shape": `[1,2]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) { io.WriteString(w, body) })
			if img, err := s.client(nil).Image(t.Context(), "id"); err == nil {
				t.Errorf("got %+v", img)
			}
		})
	}
}

func TestAServiceThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + l.Addr().String()
	l.Close()
	c, err := New(Config{Endpoint: endpoint, AccessKey: "a", SecretKey: "s", ProjectID: "p"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Images(t.Context(), nil, 0)
	if err == nil || !strings.Contains(err.Error(), endpoint) || !strings.Contains(err.Error(), "can't be reached") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Images(ctx, nil, 0); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "reached") {
		t.Errorf("after a cancel: %v", err)
	}
}

func TestATokenGoesInPlaceOfASignature(t *testing.T) {
	t.Parallel()
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.Header.Get("X-Auth-Token") != "tok" || r.Header.Get("Authorization") != "" {
			t.Errorf("headers %v", r.Header)
		}
		io.WriteString(w, `{"images":[]}`)
	})
	c := s.client(func(config *Config, _ *Options) { config.Token = "tok" })
	if _, err := c.Images(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
}

func TestImagesGoesThroughAllPages(t *testing.T) {
	t.Parallel()
	const total = 2*ims.DefaultListLimit + 7
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		q := r.URL.Query()
		var limit, first int
		fmt.Sscan(q.Get("limit"), &limit)
		if m := q.Get("marker"); m != "" {
			fmt.Sscanf(m, "image-%d", &first)
			first++
		}
		if q.Get("name") != "a b" || limit < 1 || limit > ims.DefaultListLimit {
			t.Errorf("query %v", q)
		}
		var page []string
		for i := first; i < min(first+limit, total); i++ {
			page = append(page, fmt.Sprintf(`{"id":"image-%d","min_disk":1}`, i))
		}
		fmt.Fprintf(w, `{"images":[%s]}`, strings.Join(page, ","))
	})
	for most, want := range map[int]int{0: total, 3: 3, ims.DefaultListLimit: ims.DefaultListLimit, ims.DefaultListLimit + 1: ims.DefaultListLimit + 1, 5000: total} {
		images, err := s.client(nil).Images(t.Context(), url.Values{"name": {"a b"}}, most)
		if err != nil {
			t.Fatal(err)
		}
		if len(images) != want || images[want-1].ID != fmt.Sprintf("image-%d", want-1) {
			t.Errorf("at most %d: got %d", most, len(images))
		}
	}
}

func TestImagesEndsWhenAServiceRepeatsItself(t *testing.T) {
	t.Parallel()
	page := `{"images":[` + strings.Repeat(`{"id":"same"},`, ims.DefaultListLimit-1) + `{"id":"same"}]}`
	s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) { io.WriteString(w, page) })
	if _, err := s.client(nil).Images(t.Context(), nil, 0); err == nil {
		t.Error("no error")
	}
}

func TestQuotaAndOSVersions(t *testing.T) {
	t.Parallel()
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		switch r.URL.Path {
		case "/v1/cloudimages/quota":
			io.WriteString(w, `{"quotas":{"resources":[{"type":"image_shared","used":9,"quota":9},{"type":"image","used":3,"quota":100,"min":0,"max":100}]}}`)
		case "/v1/cloudimages/os_version":
			io.WriteString(w, `[{"platform":"House","version_list":[{"platform":"House","os_version_key":"k","os_version":"House OS, the \"first\" 64bit","os_bit":64,"os_type":"Linux"}]}]`)
		}
	})
	c := s.client(nil)
	if used, quota, err := c.Quota(t.Context()); err != nil || used != 3 || quota != 100 {
		t.Errorf("quota %d of %d, %v", used, quota, err)
	}
	known, err := c.OSVersions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := known.Lookup(`House OS, the "first" 64bit`); !ok || v.Platform != "House" || v.Bit != 64 || v.Type != "Linux" {
		t.Errorf("got %+v, %v", v, ok)
	}
}

func TestDiskStreams(t *testing.T) {
	t.Parallel()
	data := strings.Repeat("0123456789abcdef", 1<<16)
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		sent := data
		if strings.Contains(r.URL.Path, "broken") {
			sent = data[:len(data)-1]
		}
		io.WriteString(w, sent)
	})
	for id, whole := range map[string]bool{"good": true, "broken": false} {
		disk, size, err := s.client(nil).Disk(t.Context(), id)
		if err != nil || size != int64(len(data)) {
			t.Fatalf("%s: %d bytes, %v", id, size, err)
		}
		got, err := io.ReadAll(disk)
		disk.Close()
		if (err == nil) != whole || whole && string(got) != data {
			t.Errorf("%s: %d bytes, %v", id, len(got), err)
		}
		if whole {
			continue
		}
		for _, part := range []string{fmt.Sprintf("broke off after %d bytes: ", len(got)), "can't read the image there", "[request id req-1]"} {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "can't be reached") {
				t.Errorf("%s: %v, want %q", id, err, part)
			}
		}
	}
}

func TestAPathHoldsNoStrangeSegments(t *testing.T) {
	t.Parallel()
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, `{}`) })
	for _, id := range []string{"", ".", "..", "a/../b"} {
		if _, err := s.client(nil).Image(t.Context(), id); err == nil {
			t.Errorf("%q was asked for", id)
		}
	}
	for id, uri := range map[string]string{"x?y=1#z": "x%3Fy=1%23z", "ü %41": "%C3%BC%20%2541"} {
		if _, err := s.client(nil).Image(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if asked := s.requests(); asked[len(asked)-1] != "GET /v2/images/"+uri {
			t.Errorf("%q asked for %s", id, asked[len(asked)-1])
		}
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	whole := Config{Endpoint: "http://127.0.0.1:1", AccessKey: "a", SecretKey: "s", ProjectID: "p"}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"endpoint":              {func(c *Config) { c.Endpoint = "" }, EnvEndpoint},
		"access key":            {func(c *Config) { c.AccessKey = "" }, EnvAccessKey},
		"secret key":            {func(c *Config) { c.SecretKey = "" }, EnvSecretKey},
		"endpoint without host": {func(c *Config) { c.Endpoint = "127.0.0.1:9292" }, "http://HOST:PORT"},
		"another scheme":        {func(c *Config) { c.Endpoint = "ftp://h" }, "http://HOST:PORT"},
		"endpoint with a path":  {func(c *Config) { c.Endpoint = "http://h/v2" }, "alone"},
		"endpoint with a user":  {func(c *Config) { c.Endpoint = "http://u:secret@h" }, "alone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := whole
			test.change(&config)
			_, err := New(config, Options{})
			if !errors.Is(err, ErrNotConfigured) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret@") {
				t.Errorf("got %v", err)
			}
		})
	}
	whole.ProjectID = ""
	c, err := New(whole, Options{HTTP: &http.Client{Transport: http.NewFileTransport(http.Dir("."))}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Job(t.Context(), "id"); !errors.Is(err, ErrNotConfigured) || !strings.Contains(err.Error(), EnvProjectID) {
		t.Errorf("without a project: %v", err)
	}
	if _, err := NewStore(Config{AccessKey: "a", SecretKey: "s"}); !errors.Is(err, ErrNotConfigured) || !strings.Contains(err.Error(), "--s3-listen") {
		t.Errorf("without a store: %v", err)
	}
}
