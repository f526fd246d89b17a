package main

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// line is a connection to the store that breaks: a proxy before the real thing that
// counts what goes there.
type line struct {
	target   string
	listener net.Listener
	serving  sync.WaitGroup
	over     chan struct{} // closed with the listener

	mu     sync.Mutex
	mode   string
	limit  int64 // bytes
	passed int64
	dead   bool
	open   map[net.Conn]bool
}

// lines are the scripts' own.
var lines sync.Map // of *testscript.TestScript to *line

var s3Endpoint = regexp.MustCompile(`(?m)^QUICKIMS_S3_ENDPOINT='?([^'\n]*)'?$`)

// cut dead|stall|never [MIB] has the script's commands reach the store over a line that
// breaks: "dead" after so much of all that was sent, for good; "stall" in each
// connection after so much. It counts from now.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: cut dead|stall|never [MIB]")
	}
	limit := int64(0)
	if len(args) == 2 {
		mib, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		limit = mib << 20
	}
	if found, ok := lines.Load(ts); ok {
		l := found.(*line)
		l.close()
		ts.Check(l.listen(l.listener.Addr().String(), args[0], limit))
		return
	}
	path := ts.Getenv("QUICKIMS_CREDENTIALS")
	credentials, err := os.ReadFile(path)
	ts.Check(err)
	endpoint := s3Endpoint.FindSubmatch(credentials)
	if endpoint == nil {
		ts.Fatalf("no QUICKIMS_S3_ENDPOINT in %s", path)
	}
	u, err := url.Parse(string(endpoint[1]))
	ts.Check(err)
	l := &line{target: u.Host}
	ts.Check(l.listen("127.0.0.1:0", args[0], limit))
	lines.Store(ts, l)
	ts.Defer(func() {
		lines.Delete(ts)
		l.close()
	})
	own := ts.MkAbs("cut.env")
	text := bytes.Replace(credentials, endpoint[0], []byte("QUICKIMS_S3_ENDPOINT=http://"+l.listener.Addr().String()), 1)
	ts.Check(os.WriteFile(own, text, 0o600))
	ts.Setenv("QUICKIMS_CREDENTIALS", own)
}

// passed MIN MAX: since the last cut, so many MiB went to the store.
func passed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: passed MIN MAX")
	}
	least, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	most, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	found, ok := lines.Load(ts)
	if !ok {
		ts.Fatalf("passed without cut")
	}
	l := found.(*line)
	l.mu.Lock()
	defer l.mu.Unlock()
	ts.Logf("%.1f MiB passed", float64(l.passed)/(1<<20))
	if l.passed < least<<20 || l.passed > most<<20 {
		ts.Fatalf("%d bytes passed, want %d to %d MiB", l.passed, least, most)
	}
}

// listen begins to pass bytes on, and to count them.
func (l *line) listen(address, mode string, limit int64) (err error) {
	if l.listener, err = net.Listen("tcp", address); err != nil {
		return err
	}
	l.mu.Lock()
	l.mode, l.limit, l.passed, l.dead = mode, limit, 0, false
	l.open = make(map[net.Conn]bool)
	l.over = make(chan struct{})
	l.mu.Unlock()
	l.serving.Go(l.serve)
	return nil
}

// close cuts all connections, also those that wait to be accepted: what a command that
// has ended had sent must not count as the next one's.
func (l *line) close() {
	l.listener.Close()
	close(l.over)
	l.mu.Lock()
	l.kill()
	l.mu.Unlock()
	l.serving.Wait()
}

// kill lets nothing pass any more. The caller holds the lock.
func (l *line) kill() {
	l.dead = true
	for c := range l.open {
		c.Close()
	}
}

// count takes note of n bytes and reports whether they may pass.
func (l *line) count(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mode == "dead" && l.passed+int64(n) > l.limit {
		l.kill()
	}
	if l.dead {
		return false
	}
	l.passed += int64(n)
	return true
}

func (l *line) stalls(sent int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode == "stall" && sent > l.limit
}

func (l *line) serve() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.serving.Go(func() { l.pass(c) })
	}
}

// enter notes a connection, unless all is dead.
func (l *line) enter(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.open[c] = true
	}
	return !l.dead
}

func (l *line) leave(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.open, c)
		c.Close()
	}
}

func (l *line) pass(c net.Conn) {
	store, err := net.Dial("tcp", l.target)
	if err != nil {
		c.Close()
		return
	}
	defer l.leave(c, store)
	if !l.enter(c, store) {
		return
	}
	l.serving.Go(func() {
		_, _ = io.Copy(c, store)
		c.Close()
	})
	buf := make([]byte, 64<<10)
	for sent := int64(0); ; {
		n, err := c.Read(buf)
		sent += int64(n)
		if l.stalls(sent) {
			<-l.over
			return
		}
		if n > 0 {
			if !l.count(n) {
				return
			}
			if _, err := store.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
