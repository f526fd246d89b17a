package api_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/ims"
)

// TestUnknownPaths are 404 in the one form, with and without credentials, and never a
// redirect.
func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for _, who := range []caller{c, {world: shared}} {
		for _, path := range []string{
			"/v1", "/v2/cloudimages/", "/image/v2/cloudimages/", "/image/v2/nothing", "/image/v3", "/image/image/v2/images", "/imagev2/images", "/v2//cloudimages", "//v2/cloudimages", "/v2/./cloudimages", "/v1/../v2/cloudimages",
			"/v2/cloudimages%2Fquickimport/action", "/V2/cloudimages", "/v2/cloudimages/a/b/c/d/e", "/favicon.ico", "/healthz/", "/debug/pprof/",
			"/v2/images//file", "/v2/images/", "/v2/%00", "/%ff", "/v3/auth", "/metrics.txt", "/etc/passwd", "/..%2f..%2fetc/passwd",
		} {
			for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "PROPFIND"} {
				a := who.send(t, method, path, "")
				a.refused(t, http.StatusNotFound, "IMG.0105")
				if a.header.Get("Allow") != "" {
					t.Errorf("%s %s: Allow %q", method, path, a.header.Get("Allow"))
				}
			}
		}
	}
}

// TestUnknownMethods are 405 in the one form, with Allow, on every path.
func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	nobody := caller{world: shared}
	values := map[string]string{"project_id": "p", "image_id": "i", "job_id": "j", "key": "k", "member_id": "m", "attachment_id": "a", "enterprise_project_id": "e"}
	allow := map[string]map[string]bool{}
	add := func(path, method string) {
		if allow[path] == nil {
			allow[path] = map[string]bool{}
		}
		allow[path][method] = true
		if method == "GET" {
			allow[path]["HEAD"] = true
		}
	}
	for _, r := range api.Routes() {
		add(fill(r.Path, values), r.Method)
	}
	// What is text in one pattern may be a parameter of another.
	add("/v2/cloudimages/action", "PATCH")
	add("/v2/p/images/i/tags/action", "DELETE")
	add("/v1.1/images/detail", "DELETE")
	add("/image/v2/cloudimages", "GET") // the same without the prefix
	for path, methods := range allow {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
			if methods[method] {
				continue
			}
			a := nobody.send(t, method, path, "")
			a.refused(t, http.StatusMethodNotAllowed, "IMG.0105")
			got := strings.Split(a.header.Get("Allow"), ", ")
			for _, m := range got {
				if !methods[m] {
					t.Errorf("%s: Allow names %s", path, m)
				}
			}
			if len(got) != len(methods) {
				t.Errorf("%s: Allow is %v, want %v", path, got, methods)
			}
		}
	}
}

// TestHead answers as GET does, without a body.
func TestHead(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	job, image := c.accepted(t, systemDisk(nil))
	for _, path := range []string{
		"/healthz", "/readyz", "/openapi.yaml", "/v3", "/v2/cloudimages", "/v2/images/" + image, "/v2/images/" + ims.NewImageID(),
		"/v1/" + c.project + "/jobs/" + job, "/v1/cloudimages/quota", "/v1/cloudimages/os_version", eps, "/nothing",
	} {
		get, head := c.send(t, "GET", path, ""), c.send(t, "HEAD", path, "")
		if head.status != get.status || len(head.body) != 0 {
			t.Errorf("%s: HEAD %d with %d bytes, GET %d", path, head.status, len(head.body), get.status)
		}
		for _, name := range []string{"Content-Type", "Content-Length"} {
			if head.header.Get(name) != get.header.Get(name) {
				t.Errorf("%s: %s is %q, GET has %q", path, name, head.header.Get(name), get.header.Get(name))
			}
		}
	}
	head := c.send(t, "HEAD", "/v3/auth/tokens", "", "X-Subject-Token", c.token)
	if head.status != http.StatusOK || head.header.Get("X-Subject-Token") == "" {
		t.Errorf("HEAD of a token: %d", head.status)
	}
}

// TestOverlappingPatterns: a project, an image and a tag may be called like a piece of
// a path.
func TestOverlappingPatterns(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	for _, key := range []string{"action", "tags", "images"} {
		c.expect(t, http.StatusNoContent, "POST", "/v2/"+c.project+"/images/"+id+"/tags", `{"tag":{"key":"`+key+`","value":"v"}}`)
		if a := c.send(t, "DELETE", "/v2/"+c.project+"/images/"+id+"/tags/"+key, ""); a.status != http.StatusNoContent {
			t.Errorf("tag %s: %d %s", key, a.status, a.body)
		}
	}
	// /v2/{project_id}/images/tags, of a project that is called like a folder.
	c.refused(t, http.StatusBadRequest, "IMG.0030", "GET", "/v2/images/images/tags", "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "GET", "/v2/images/quickimport", "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "PATCH", "/v2/cloudimages/quickimport", `[{"op":"remove","path":"/min_ram"}]`)
}

// TestRequestID: every answer carries one, a harmless one of the caller's is kept, and
// the log has it.
func TestRequestID(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for sent, kept := range map[string]bool{
		"": false, "req-0123.AZ_": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		"with space": false, `"quoted"`: false, "semi;colon": false, "ümlaut": false,
	} {
		a := c.send(t, "GET", "/v2/cloudimages", "", "X-Request-Id", sent)
		got := a.header.Get("X-Request-Id")
		if kept && got != sent || !kept && (got == sent || len(got) != 32) {
			t.Errorf("sent %q, got %q", sent, got)
		}
	}
	a := c.send(t, "GET", "/v2/images/"+ims.NewImageID(), "")
	lines := waitForLog(t, shared, a.header.Get("X-Request-Id"))
	want := map[string]any{"msg": "request", "method": "GET", "route": "/v2/images/{image_id}", "status": 404.0, "project": c.project, "code": "IMG.0027", "from": "127.0.0.1"}
	for key, want := range want {
		if lines[0][key] != want {
			t.Errorf("the log line has %s=%v, want %v", key, lines[0][key], want)
		}
	}
	if id, _ := lines[0]["user_id"].(string); len(id) != 32 {
		t.Errorf("the log line has user_id=%v", lines[0]["user_id"])
	}
	if lines[0]["bytes"] != float64(len(a.body)) || lines[0]["ms"] == nil {
		t.Errorf("the log line is %v", lines[0])
	}
}

// TestLoginsInTheLog: who failed to log in, and from where; the name is quoted and cut,
// so that no name makes a line of its own or fills the log. A login that succeeds is its
// user's.
func TestLoginsInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	nobody := caller{world: w}
	line := func(user string, status int) map[string]any {
		a := nobody.send(t, "POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["password"],"password":{"user":`+user+`}}}}`)
		if a.status != status {
			t.Fatalf("%.60s: status %d, want %d: %s", user, a.status, status, a.body)
		}
		l := waitForLog(t, w, a.header.Get("X-Request-Id"))[0]
		if l["from"] != "127.0.0.1" {
			t.Errorf("%.60s: from %v", user, l["from"])
		}
		return l
	}
	for user, want := range map[string]string{
		`{"name":"ada","domain":{"id":"d"},"password":"p"}`:                                 `"ada"`,
		`{"id":"0123","password":"p"}`:                                                      `"0123"`,
		`{"name":"x\n{\"msg\":\"forged\"}\u0000\u202e","domain":{"id":"d"},"password":"p"}`: `"x\n{\"msg\":\"forged\"}\x00\u202e"`,
		`{"name":"` + strings.Repeat("n", 5000) + `","domain":{"id":"d"},"password":"p"}`:   `"` + strings.Repeat("n", 64) + `…"`,
	} {
		l := line(user, http.StatusUnauthorized)
		if l["login"] != want || l["user_id"] != "" {
			t.Errorf("%.60s: login %v, user_id %v; want %s", user, l["login"], l["user_id"], want)
		}
	}
	l := line(`{"name":"member","domain":{"id":"`+w.domain+`"},"password":"correct horse"}`, http.StatusCreated)
	if id, _ := l["user_id"].(string); l["login"] != nil || len(id) != 32 {
		t.Errorf("a login that succeeds: login %v, user_id %v", l["login"], l["user_id"])
	}
}

// waitForLog gives the log's lines of a request; its last one is written after the
// answer.
func waitForLog(t testing.TB, w *world, id string) []map[string]any {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		next := w.logs.next() // before the look, so that no line slips between
		lines := w.logs.lines(t, id)
		for _, l := range lines {
			if l["msg"] == "request" {
				return lines
			}
		}
		select {
		case <-next:
		case <-deadline:
			t.Fatalf("no log line for request %s", id)
		}
	}
}

// TestSecretsStayOut: neither log nor metrics nor answers hold a credential.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	c.accepted(t, systemDisk(nil))
	c.send(t, "GET", "/v2/cloudimages?X-Auth-Token=querysecret", "", "Cookie", "cookiesecret")
	c.send(t, "GET", "/v2/images/pathsecret", "")
	nobody := caller{world: w}
	nobody.send(t, "GET", "/v2/cloudimages", "", "X-Auth-Token", "headersecret", "Authorization", "Bearer bearersecret")
	nobody.send(t, "POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"u","password":"bodysecret"}}}}}`)
	waitForLog(t, w, c.send(t, "GET", "/v2/cloudimages", "").header.Get("X-Request-Id"))
	metrics := w.metrics()
	log := w.logs.text()
	for _, secret := range []string{c.token, "querysecret", "cookiesecret", "pathsecret", "headersecret", "bearersecret", "bodysecret", "correct horse"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
		if strings.Contains(metrics, secret) {
			t.Errorf("the metrics hold %q", secret)
		}
	}
	if strings.Contains(metrics, c.project) {
		t.Error("the metrics hold a project's id")
	}
	for _, want := range []string{
		`quickims_http_requests_total{method="POST",route="/v2/cloudimages/quickimport/action",status="200"} 1`,
		`quickims_http_requests_total{method="GET",route="/v2/images/{image_id}",status="404"} 1`,
		`quickims_http_request_seconds_count{method="GET",route="/v2/cloudimages"} 3`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestStrangeRequests are answered, or the connection is closed; the server lives on.
func TestStrangeRequests(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for name, raw := range map[string]string{
		"a huge header":          "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"many headers":           "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: a\r\n", 10_000) + "\r\n",
		"a long path":            "GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"no HTTP":                "\x16\x03\x01\x02\x00\x01\r\n\r\n",
		"a lying length":         "POST " + quickImport + " HTTP/1.1\r\nHost: x\r\nX-Auth-Token: " + c.token + "\r\nContent-Length: 9223372036854775807\r\n\r\n" + strings.Repeat(" ", api.MaxBody+1),
		"an asterisk":            "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"an absolute address":    "GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"a tunnel":               "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"a body that breaks off": "POST " + quickImport + " HTTP/1.1\r\nHost: x\r\nX-Auth-Token: " + c.token + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go conn.Write([]byte(raw)) // the server may stop reading
		reply, err := io.ReadAll(io.LimitReader(conn, 1<<20))
		conn.Close()
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("%s: the connection stays open: %.200s", name, reply)
		}
		if len(reply) > 0 && !strings.HasPrefix(string(reply), "HTTP/1.1 4") && !strings.HasPrefix(string(reply), "HTTP/1.0 4") && !(name == "an absolute address" && strings.HasPrefix(string(reply), "HTTP/1.1 300")) {
			t.Errorf("%s: %.200s", name, reply)
		}
	}
	c.owns(t, 0)
}

// TestServerLimits: slow and idle callers are cut off.
func TestServerLimits(t *testing.T) {
	t.Parallel()
	s := api.NewServer(http.NotFoundHandler(), nil)
	if h := s.HTTP2; h == nil || h.MaxConcurrentStreams > 32 || h.MaxReceiveBufferPerConnection > 128<<10 || h.MaxReceiveBufferPerConnection == 0 || h.WriteByteTimeout == 0 {
		t.Errorf("HTTP/2: %+v", h)
	}
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %v", fmt.Sprintf("%+v", s))
	}
}
