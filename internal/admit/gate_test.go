package admit

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an HTTP server behind a gate. It answers with the caller's address; a
// request of /as/NAME shows the credentials of NAME.
type world struct {
	t    *testing.T
	gate *Gate
	addr string
}

func newWorld(t *testing.T, o Options) *world {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, NewGate(o), l.Addr().String()}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, ok := strings.CutPrefix(r.URL.Path, "/as/"); ok {
			Known(r, name)
		}
		io.WriteString(w, Caller(r).String())
	})}
	w.gate.Serve(s)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(w.gate.Listener(l)) }()
	t.Cleanup(func() { s.Close(); <-done })
	return w
}

// client is one connection from an address of this machine.
type client struct {
	t *testing.T
	net.Conn
}

func (w *world) dial(from string) *client {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(w.t.Context(), "tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{w.t, c}
}

// ask sends a request and gives the body of the response, or "" if the connection was
// closed.
func (c *client) ask(path string, header ...string) string {
	c.t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, strings.Join(append(header, ""), "\r\n"))
	var got []byte
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if got = append(got, b[:n]...); err != nil {
			if os.IsTimeout(err) {
				c.t.Fatal("no response, and the connection is open")
			}
			return ""
		}
		if head, body, ok := strings.Cut(string(got), "\r\n\r\n"); ok {
			if length := fmt.Sprintf("Content-Length: %d", len(body)); strings.Contains(head, length) {
				return body
			}
		}
	}
}

// closed waits until the server has closed the connection.
func (c *client) closed() bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil && !os.IsTimeout(err)
}

func limits(l Limits) func() Limits { return func() Limits { return l } }

// await waits until the gate has counted so many connections.
func (w *world) await(strangers, known int) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		s, k, _ := w.gate.Count()
		if s == strangers && k == known {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d strangers, %d known; want %d, %d", s, k, strangers, known)
		}
		time.Sleep(time.Millisecond)
	}
}

// idle waits until so many known connections are idle: a response arrives before the
// server is done with it.
func (w *world) idle(want int) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		got := 0
		w.gate.mu.Lock()
		for _, l := range w.gate.byOwner {
			for e := l.Front(); e != nil; e = e.Next() {
				if e.Value.(*place).idle {
					got++
				}
			}
		}
		w.gate.mu.Unlock()
		if got == want {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d connections are idle, want %d", got, want)
		}
	}
}

// Silent connections of one address lose their places to newer ones, the oldest first.
// Other addresses and known clients keep theirs.
func TestOneAddressTakesItsShareAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Limits: limits(Limits{Strangers: 8, StrangersPerAddress: 4, Known: 8})})
	known, other := w.dial("127.0.0.1"), w.dial("127.0.0.2")
	if known.ask("/as/anna") == "" || other.ask("/") == "" {
		t.Fatal("no response")
	}
	var flood []*client
	for range 100 {
		flood = append(flood, w.dial("127.0.0.1"))
	}
	for i, c := range flood[:96] {
		if !c.closed() {
			t.Errorf("connection %d is open", i)
		}
	}
	// From the same address a client that speaks at once is served.
	if mine := w.dial("127.0.0.1"); mine.ask("/as/anna") == "" {
		t.Error("the flood keeps its own address out")
	}
	if known.ask("/") == "" || other.ask("/") == "" || flood[99].ask("/") == "" {
		t.Error("the flood closed connections that it had no claim on")
	}
	w.await(4, 2) // the flood's newest three and the other address's
}

// Connections that are idle make room first; those whose login is being checked last.
func TestWhoMakesRoom(t *testing.T) {
	t.Parallel()
	g := NewGate(Options{Limits: limits(Limits{Strangers: 9, StrangersPerAddress: 9, Known: 2})})
	open := map[string]net.Conn{}
	enter := func(name string) *place {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close() })
		c := g.Enter(b)
		t.Cleanup(func() { c.Close() })
		open[name] = c
		return placeBelow(c)
	}
	working := enter("working")
	enter("old")
	idle := enter("idle")
	idle.idle = true
	done := Working(context.WithValue(t.Context(), placeKey{}, working))
	enter("new")
	next := func() string {
		g.mu.Lock()
		defer g.mu.Unlock()
		p := g.evict(victim(g.largest()))
		for name, c := range open {
			if placeBelow(c) == p {
				return name
			}
		}
		return "?"
	}
	got := []string{next(), next()}
	done()
	got = append(got, next(), next())
	if !slices.Equal(got, []string{"idle", "old", "working", "new"}) {
		t.Errorf("made room: %v", got)
	}
}

// When strangers have all places, the address that has most gives one up.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Limits: limits(Limits{Strangers: 10, StrangersPerAddress: 6, Known: 4})})
	lone := w.dial("127.0.0.9")
	lone.ask("/")
	for range 6 {
		w.dial("127.0.0.1").ask("/")
	}
	for i := range 20 {
		c := w.dial(fmt.Sprintf("127.0.1.%d", i+1))
		if c.ask("/") == "" {
			t.Fatalf("stranger %d was not served", i)
		}
		if i == 2 && lone.ask("/") == "" {
			t.Error("the lone stranger lost its place while another address had more")
		}
	}
	if s, _, _ := w.gate.Count(); s > 10 {
		t.Errorf("%d strangers", s)
	}
}

// A lowered limit of files counts for the connections that are there.
func TestLimitFollowsTheProcess(t *testing.T) {
	t.Parallel()
	now := Limits{Strangers: 20, StrangersPerAddress: 20, Known: 4}
	ask := make(chan Limits)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := newWorld(t, Options{Limits: func() Limits {
		select {
		case l := <-ask:
			return l
		case <-ctx.Done():
			return now
		}
	}})
	dial := func() *client {
		c := w.dial("127.0.0.1")
		ask <- now
		return c
	}
	for range 20 {
		dial()
	}
	now.Strangers = 5
	if c := dial(); c.ask("/") == "" {
		t.Error("not served")
	}
	w.await(5, 0)
}

// One owner has half of the places of known clients. Beyond them its idle connections
// make room for its new ones; connections in use stay.
func TestOwnersShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Limits: limits(Limits{Strangers: 50, StrangersPerAddress: 50, Known: 8})})
	var anna []*client
	for range 10 {
		c := w.dial("127.0.0.1")
		if c.ask("/as/anna") == "" {
			t.Fatal("not served")
		}
		anna = append(anna, c)
		w.idle(min(len(anna), 4))
	}
	w.await(0, 4)
	for i, c := range anna[:6] {
		if !c.closed() {
			t.Errorf("anna's idle connection %d is open", i)
		}
	}
	if bob := w.dial("127.0.0.1"); bob.ask("/as/bob") == "" {
		t.Error("bob was not served")
	}
	w.await(0, 5)

	// Connections in use are not closed: a newer one stays a stranger's.
	p := NewGate(Options{Limits: limits(Limits{Strangers: 9, StrangersPerAddress: 9, Known: 2})})
	var places []*place
	for range 3 {
		a, b := net.Pipe()
		defer a.Close()
		c := p.Enter(b)
		defer c.Close()
		places = append(places, placeBelow(c))
	}
	got := []bool{places[0].Admit("anna"), places[1].Admit("anna"), places[2].Admit("bob"), places[0].Admit("anna")}
	if !slices.Equal(got, []bool{true, false, true, true}) {
		t.Errorf("admitted: %v", got)
	}
}

// A trusted proxy's connections are no stranger's, and its clients are told apart.
func TestBehindAProxy(t *testing.T) {
	t.Parallel()
	proxies, err := ParseProxies([]string{"127.0.0.7"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Options{Proxies: proxies, Limits: limits(Limits{Strangers: 2, StrangersPerAddress: 2, Known: 20})})
	var all []*client
	for range 10 {
		all = append(all, w.dial("127.0.0.7"))
	}
	for i, c := range all {
		if got := c.ask("/", fmt.Sprintf("X-Forwarded-For: 6.6.6.6, 192.0.2.%d", i)); got != fmt.Sprintf("192.0.2.%d", i) {
			t.Errorf("the caller is %q", got)
		}
	}
	if got := w.dial("127.0.0.8").ask("/", "X-Forwarded-For: 192.0.2.1"); got != "127.0.0.8" {
		t.Errorf("who is no proxy chose the address %q", got)
	}
}

func TestCaller(t *testing.T) {
	t.Parallel()
	proxies, err := ParseProxies([]string{"10.0.0.0/8", "fd00::/8", "::ffff:192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"203.0.113.1", []string{"10.0.0.1"}, "203.0.113.1"},
		{"10.0.0.1", nil, "10.0.0.1"},
		{"10.0.0.1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1", []string{"1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1", []string{"1.1.1.1", "203.0.113.9 , 10.2.2.2"}, "203.0.113.9"},
		{"10.0.0.1", []string{"203.0.113.9, 192.0.2.1,fd00::1"}, "203.0.113.9"},
		{"10.0.0.1", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"10.0.0.1", []string{"203.0.113.9, unknown, 10.2.2.2"}, "10.2.2.2"},
		{"10.0.0.1", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"10.0.0.1", []string{"[2001:db8::7]:80"}, "2001:db8::7"},
		{"10.0.0.1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"10.0.0.1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"10.0.0.1", []string{""}, "10.0.0.1"},
	} {
		r, err := http.NewRequest("GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r = r.WithContext(context.WithValue(t.Context(), placeKey{}, &place{gate: &Gate{opts: Options{Proxies: proxies}}}))
		r.RemoteAddr = net.JoinHostPort(c.peer, "1234")
		r.Header["X-Forwarded-For"] = c.forwarded
		if got := Caller(r).String(); got != c.want {
			t.Errorf("peer %s, forwarded %q: the caller is %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "example.com", "10.0.0.0/8/8"} {
		if _, err := ParseProxies([]string{bad}); err == nil {
			t.Errorf("%q was taken for a network", bad)
		}
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:1234":              "192.0.2.1",
		"[::ffff:192.0.2.1]:1234":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1234": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1234":         "fe80::/64",
		"@":                           "",
	} {
		if got := Network(Caller(&http.Request{RemoteAddr: remote})); got != want {
			t.Errorf("%s counts as %q, want %q", remote, got, want)
		}
	}
}

// The limits of three listeners leave files for everything else, and grow with the
// process's limit up to their bounds.
func TestConnections(t *testing.T) {
	t.Parallel()
	for _, files := range []int{256, 1024, 4096, 20000, 1 << 20} {
		l := Connections(files)
		if all := 3 * (l.Strangers + l.Known); all > files*6/10 {
			t.Errorf("%d files: %d connections", files, all)
		}
		if l.StrangersPerAddress*4 > l.Strangers && files >= 1024 {
			t.Errorf("%d files: %+v: one address has more than a quarter", files, l)
		}
	}
	if l := Connections(1 << 20); l != (Limits{Strangers: 1024, StrangersPerAddress: 256, Known: MaxKnown}) {
		t.Errorf("many files: %+v", l)
	}
	if Files() < 64 {
		t.Errorf("%d files", Files())
	}
}
