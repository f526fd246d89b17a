package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/ims"
)

// dial opens a connection that fails the test when it hangs.
func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(strings.TrimPrefix(url, "https://"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// A request without valid credentials is answered before a byte of its body was sent:
// none of it is waited for, none is held.
func TestBodiesWaitForCredentials(t *testing.T) {
	t.Parallel()
	me := shared.newProject(t)
	for name, c := range map[string]struct {
		path, header string
		length       int
		status       int
	}{
		"no credentials":  {quickImport, "", api.MaxBody, 401},
		"a wrong token":   {quickImport, "X-Auth-Token: nobody's", api.MaxBody, 401},
		"a malformed one": {quickImport, "Authorization: SDK-HMAC-SHA256 what", 1000, 401},
		"an old one":      {quickImport, "X-Sdk-Date: 20200101T000000Z\r\nAuthorization: SDK-HMAC-SHA256 Access=k, SignedHeaders=x-sdk-date, Signature=" + strings.Repeat("0", 64), 1000, 401},
		"no such path":    {"/v2/nothing", "", 1000, 404},
		"a long login":    {"/v3/auth/tokens", "", 1 << 20, 413},
		"too long":        {quickImport, "X-Auth-Token: " + me.token, api.MaxBody + 1, 400},
		"another project": {"/v1/" + strings.Repeat("0", 32) + "/attachments", "X-Auth-Token: " + me.token, 1000, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := dial(t, shared.url)
			head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", c.path, c.length)
			if c.header != "" {
				head += c.header + "\r\n"
			}
			io.WriteString(k, head+"\r\n")
			r, err := http.ReadResponse(bufio.NewReader(k), nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != c.status {
				t.Errorf("status %d, want %d", r.StatusCode, c.status)
			}
		})
	}
}

// Bodies that do not come hold no place: others are served, however few places there are.
func TestSlowBodiesHoldNoPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 1 })
	slow, other := w.newProject(t), w.newProject(t)
	for range 10 {
		k := dial(t, w.url)
		fmt.Fprintf(k, "POST %s HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n", quickImport, slow.token)
		// The server asks for the body: it has come as far as it will.
		if line, err := bufio.NewReader(k).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	other.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")
}

// The memory of bodies in flight is bounded: beyond it a body is refused, and what ends
// gives its memory back.
func TestBodiesInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	me, other := w.newProject(t), w.newProject(t)
	begin := func(who caller) (net.Conn, *bufio.Reader) {
		k := dial(t, w.url)
		fmt.Fprintf(k, "POST %s HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n", quickImport, who.token, api.MaxBody)
		k.Write(bytes.Repeat([]byte(" "), api.MaxBody-1))
		return k, bufio.NewReader(k)
	}
	refused := make(chan int, 100)
	var all []net.Conn
	for range 48 { // of 1 MiB each; half of 64 MiB are the project's
		k, in := begin(me)
		all = append(all, k)
		go func() {
			if r, err := http.ReadResponse(in, nil); err == nil {
				refused <- r.StatusCode
			}
		}()
	}
	for range 48 - 32 {
		if status := <-refused; status != http.StatusServiceUnavailable {
			t.Fatalf("status %d", status)
		}
	}
	k, in := begin(other)
	io.WriteString(k, " ")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != http.StatusBadRequest {
		t.Errorf("another project's body: %v, %v", r, err)
	}
	for _, k := range all {
		k.Close()
	}
	for { // until the server has seen that the connections are closed
		k, in := begin(me)
		io.WriteString(k, " ")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode == http.StatusBadRequest {
			return
		}
	}
}

// frames is a client of HTTP/2 that gives the server a window of 0: it takes no byte of
// a body.
type frames struct {
	*http2.Framer
	streams uint32 // the most at once, as the server says
	next    uint32
	head    bytes.Buffer
	enc     *hpack.Encoder
}

func newFrames(t *testing.T, s *httptest.Server) *frames {
	t.Helper()
	raw := dial(t, s.URL)
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := &frames{Framer: http2.NewFramer(c, c), next: 1}
	f.enc = hpack.NewEncoder(&f.head)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			f.streams, _ = s.Value(http2.SettingMaxConcurrentStreams)
			f.WriteSettingsAck()
			return f
		}
	}
}

func (f *frames) get(path, token string) {
	f.head.Reset()
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", path}, {"x-auth-token", token}} {
		f.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.next, BlockFragment: f.head.Bytes(), EndHeaders: true, EndStream: true})
	f.next += 2
}

// headers waits for the headers of so many responses.
func (f *frames) headers(t *testing.T, n int) {
	t.Helper()
	for n > 0 {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			n--
		case *http2.DataFrame:
			if frame.Length > 0 {
				t.Fatal("data came through a window of 0")
			}
		}
	}
}

// Responses that nobody reads hold no place: others are served while they wait, over
// HTTP/2 with a window of 0 and over HTTP/1.1.
func TestUnreadResponsesHoldNoPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.MaxRequests = 1 })
	lazy, other := w.newProject(t), w.newProject(t)
	for range 8 { // more than a server keeps in its own buffers
		lazy.accepted(t, systemDisk(map[string]any{"description": strings.Repeat("x", 1000)}))
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = api.NewServer(w.server.Config.Handler, nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)

	f := newFrames(t, s)
	if f.streams != 32 {
		t.Errorf("a connection may have %d streams, want 32", f.streams)
	}
	for range 20 {
		f.get("/v2/cloudimages", lazy.token)
	}
	f.headers(t, 20) // all were worked on, one after the other
	began := time.Now()
	other.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("another project waited %v", took)
	}
}

// Of the places one project has half: its requests that hang leave places to others.
func TestProjectHasHalfOfThePlaces(t *testing.T) {
	t.Parallel()
	hang := &hanging{entered: make(chan struct{}, 10), release: make(chan struct{})}
	w := newWorld(t, func(c *api.Config) {
		hang.Importer = c.Importer
		c.MaxRequests, c.Importer = 4, hang
	})
	release := sync.OnceFunc(func() { close(hang.release) })
	defer release() // a test that fails must not wait for its own requests
	greedy, other := w.newProject(t), w.newProject(t)
	done := make(chan int, 10)
	for range 5 {
		go func() {
			r, err := http.NewRequest("POST", w.url+quickImport, strings.NewReader(systemDisk(nil)))
			if err != nil {
				panic(err)
			}
			r.Header.Set("X-Auth-Token", greedy.token)
			resp, err := w.server.Client().Do(r)
			if err != nil {
				done <- 0
				return
			}
			resp.Body.Close()
			done <- resp.StatusCode
		}()
	}
	<-hang.entered
	<-hang.entered
	other.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")
	if len(hang.entered) > 0 {
		t.Error("one project has more than half of the places")
	}
	release()
	for range 5 {
		if status := <-done; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}

// hanging is an importer that accepts nothing until it is released.
type hanging struct {
	api.Importer
	entered, release chan struct{}
}

func (h *hanging) Accept(ctx context.Context, p ims.Principal, spec ims.ImportSpec) (string, error) {
	h.entered <- struct{}{}
	<-h.release
	return h.Importer.Accept(ctx, p, spec)
}
