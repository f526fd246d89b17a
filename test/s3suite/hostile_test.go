package s3suite

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// ours starts quickims; these cases look at its process and its folder.
func ours(t *testing.T) *client {
	t.Helper()
	if os.Getenv("QUICKIMS_SUITE_S3") != "" {
		t.Skip("another server is judged")
	}
	return start(t)
}

// together runs n functions at once and waits for them.
func together(n int, do func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { do(i) })
	}
	group.Wait()
}

// try sends a request from a goroutine that is not the test's own.
func (c *client) try(t *testing.T, r request) answer {
	a, err := c.send(c.wire(r), r.method)
	if err != nil {
		t.Errorf("%s %s: %v", r.method, r.path(), err)
	}
	return a
}

// files are the files below a bucket's folder, those that the service keeps for itself
// included.
func (c *client) files(t *testing.T, bucket string) []string {
	t.Helper()
	return harness.Files(t, filepath.Join(c.server.Dir, "buckets", bucket))
}

// TestOneKeyAtOnce: 16 uploads of one key, at once and in parts, with readers beside
// them: what is read is always one of the uploads whole, and nothing else is left.
func TestOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	c := ours(t)
	b := c.newBucket(t)
	bodies := map[string]bool{}
	body := func(i int) string { return strings.Repeat(string(rune('a'+i)), 300_000+i) }
	for i := range 16 {
		bodies[body(i)] = true
	}
	c.put(t, b, "one/key", body(0))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := c.try(t, request{bucket: b, key: "one/key"})
				if a.status != 200 || !bodies[a.body] || a.header.Get("ETag") != `"`+md5Hex(a.body)+`"` && !strings.Contains(a.header.Get("ETag"), "-1") {
					t.Errorf("read %d bytes, status %d, ETag %s", len(a.body), a.status, a.header.Get("ETag"))
					return
				}
			}
		})
	}
	together(16, func(i int) {
		if i%2 == 0 {
			if a := c.try(t, request{method: "PUT", bucket: b, key: "one/key", body: body(i)}); a.status != 200 {
				t.Errorf("PUT: %d %s", a.status, brief(a.body))
			}
			return
		}
		id := between(c.try(t, request{method: "POST", bucket: b, key: "one/key", query: "uploads"}).body, "<UploadId>", "</UploadId>")
		p := c.try(t, request{method: "PUT", bucket: b, key: "one/key", query: partQuery(id, 1), body: body(i)})
		a := c.try(t, request{method: "POST", bucket: b, key: "one/key", query: "uploadId=" + escape(id, false),
			body: "<CompleteMultipartUpload>" + partElement(1, p.header.Get("ETag"), "") + "</CompleteMultipartUpload>"})
		if a.status != 200 {
			t.Errorf("complete: %d %s", a.status, brief(a.body))
		}
	})
	close(stop)
	readers.Wait()
	c.wantUploads(t, b, 0)
	if left := c.files(t, b); len(left) != 1 || left[0] != "one/key" {
		t.Errorf("files are %q", left)
	}
}

// between is what stands between two marks.
func between(s, before, behind string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, behind)
	return s
}

// TestCompletedAtOnce: of many that complete one upload with the same parts, each is
// told that the object is there or that the upload is gone, and the object is whole.
func TestCompletedAtOnce(t *testing.T) {
	t.Parallel()
	c := ours(t)
	b := c.newBucket(t)
	id := c.initiate(t, b, "foo")
	body := strings.Repeat("x", 1<<20)
	part := c.part(t, b, "foo", id, 1, body)
	var good atomic.Int64
	together(8, func(int) {
		a := c.try(t, request{method: "POST", bucket: b, key: "foo", query: "uploadId=" + escape(id, false), body: "<CompleteMultipartUpload>" + part + "</CompleteMultipartUpload>"})
		switch {
		case a.status == 200 && strings.Contains(a.body, "<ETag>"):
			good.Add(1)
		case a.status == 404 && a.code() == "NoSuchUpload":
		default:
			t.Errorf("%d %s", a.status, brief(a.body))
		}
	})
	if good.Load() == 0 {
		t.Error("nobody completed the upload")
	}
	c.wantObject(t, b, "foo", body)
	c.wantUploads(t, b, 0)
}

// TestPutsAndDeletesInOneFolder: the last object of a folder goes while another comes,
// over and over. S3 has no folders, so nobody is ever told of one.
func TestPutsAndDeletesInOneFolder(t *testing.T) {
	t.Parallel()
	c := ours(t)
	b := c.newBucket(t)
	rounds := 150
	if os.Getenv("QUICKIMS_TEST_LONG") != "" {
		rounds = 3000
	}
	together(4, func(i int) {
		conn := c.keepAlive(t)
		defer conn.close()
		key := fmt.Sprintf("a/b/c/%d", i)
		for n := range rounds {
			for _, step := range []struct {
				method, body string
				status       int
			}{{"PUT", "x", 200}, {"DELETE", "", 204}} {
				a := conn.do(t, request{method: step.method, bucket: b, key: key, body: step.body})
				if a.status != step.status {
					t.Errorf("round %d: %s is %d %s", n, step.method, a.status, brief(a.body))
					return
				}
			}
		}
	})
	c.do(t, request{method: "DELETE", bucket: b}).want(t, 204, "")
}

// connection is one that several requests go over.
type connection struct {
	c    *client
	conn net.Conn
	in   *bufio.Reader
}

func (c *client) keepAlive(t *testing.T) *connection {
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		t.Error(err)
		return &connection{c: c}
	}
	return &connection{c, conn, bufio.NewReader(conn)}
}

func (k *connection) close() {
	if k.conn != nil {
		k.conn.Close()
	}
}

func (k *connection) do(t *testing.T, r request) answer {
	if k.conn == nil {
		return answer{}
	}
	k.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, strings.Replace(k.c.wire(r), "Connection: close\r\n", "", 1)); err != nil {
		t.Error(err)
		return answer{}
	}
	res, err := http.ReadResponse(k.in, &http.Request{Method: r.method})
	if err != nil {
		t.Error(err)
		return answer{}
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(body)}
}

// TestKilledWhileCompleting: after a SIGKILL at any moment of a completion the object is
// the one before or the new one, whole, and the upload can be completed or is done.
func TestKilledWhileCompleting(t *testing.T) {
	t.Parallel()
	c := ours(t)
	b := c.newBucket(t)
	rounds := 6
	if os.Getenv("QUICKIMS_TEST_LONG") != "" {
		rounds = 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	before := "before"
	c.put(t, b, "folder/foo", before)
	for n := range rounds {
		id := c.initiate(t, b, "folder/foo")
		bodies := []string{bytesOf(byte('a'+n%26), partSize), bytesOf(byte('b'+n%26), partSize+n), strconv.Itoa(n)}
		var parts []string
		for i, body := range bodies {
			parts = append(parts, c.part(t, b, "folder/foo", id, i+1, body))
		}
		after := strings.Join(bodies, "")
		wire := c.wire(request{method: "POST", bucket: b, key: "folder/foo", query: "uploadId=" + escape(id, false),
			body: "<CompleteMultipartUpload>" + strings.Join(parts, "") + "</CompleteMultipartUpload>"})
		answered := make(chan answer, 1)
		go func() {
			a, _ := c.send(wire, "POST")
			answered <- a
		}()
		time.Sleep(time.Duration(random.IntN(30_000)) * time.Microsecond) // the moment of the kill, not a wait
		c.server.Kill(t)
		a := <-answered
		c.server.Restart(t, "")
		c.addr = strings.TrimPrefix(c.server.S3URL, "http://")
		got := c.get(t, b, "folder/foo").body
		switch {
		case got == after:
		case got == before && a.status != 200:
		default:
			t.Fatalf("round %d: the object has %d bytes, which is neither; the completion was answered %d", n, len(got), a.status)
		}
		again := c.complete(t, b, "folder/foo", id, parts)
		if again.status != 200 && (again.status != 404 || got != after) {
			t.Fatalf("round %d: completed again: %d %s; the object has %d bytes", n, again.status, again.code(), len(got))
		}
		c.wantObject(t, b, "folder/foo", after)
		before = after
	}
	c.wantUploads(t, b, 0)
}

// memory is the resident memory of the service's processes, in MiB.
func (c *client) memory(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.server.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n >> 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// TestBodiesOfStrangersAndMemory: documents without end, deep and wide, and many large
// uploads at once cost memory within bounds, and are refused if they are no use.
func TestBodiesOfStrangersAndMemory(t *testing.T) {
	t.Parallel()
	c := ours(t)
	b := c.newBucket(t)
	id := c.initiate(t, b, "foo")
	bodies := map[string]string{
		"a key without end":       "<Delete><Object><Key>" + strings.Repeat("k", 16<<20),
		"objects without end":     "<Delete>" + strings.Repeat("<Object><Key>k</Key></Object>", 1<<19),
		"elements without end":    strings.Repeat("<a>", 4<<20),
		"attributes without end":  "<Delete " + strings.Repeat("a='b' ", 2<<20) + ">",
		"an entity of entities":   `<!DOCTYPE a [<!ENTITY x "` + strings.Repeat("y", 1<<10) + `"><!ENTITY z "` + strings.Repeat("&x;", 1<<10) + `">]><Delete><Object><Key>&z;</Key></Object></Delete>`,
		"an entity of a file":     `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&x;</Key></Object></Delete>`,
		"another character set":   "<?xml version=\"1.0\" encoding=\"UTF-16\"?><Delete><Object><Key>k</Key></Object></Delete>",
		"parts without end":       "<CompleteMultipartUpload>" + strings.Repeat("<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>", 1<<18),
		"a comment without end":   "<!--" + strings.Repeat("-", 31<<19),
		"white space without end": strings.Repeat(" ", 16<<20),
	}
	for name, body := range bodies {
		for _, r := range []request{
			{method: "POST", bucket: b, query: "delete"}, {method: "POST", bucket: b, key: "foo", query: "uploadId=" + escape(id, false)}, {method: "PUT", bucket: c.freeName()},
		} {
			r.body, r.sign = body, signing{payload: unsigned}
			a, err := c.send(c.wire(r), r.method)
			// The connection may be cut while such a body is still on its way.
			if err == nil && a.status/100 != 4 {
				t.Errorf("%s as %s ?%s: %d %s", name, r.method, r.query, a.status, brief(a.body))
			}
			if strings.Contains(a.body, "root:") {
				t.Errorf("%s reads a file", name)
			}
		}
	}
	clear(bodies)
	large := strings.Repeat("x", 8<<20)
	together(32, func(i int) {
		if a := c.try(t, request{method: "PUT", bucket: b, key: fmt.Sprint("large/", i), body: large, sign: signing{payload: unsigned}}); a.status != 200 {
			t.Errorf("PUT: %d %s", a.status, brief(a.body))
		}
	})
	if mib := c.memory(t); mib > 400 {
		t.Errorf("the service took %d MiB", mib)
	} else {
		t.Logf("the service took %d MiB", mib)
	}
}

// another is the client with the key of a second project.
func (c *client) another(t *testing.T) *client {
	t.Helper()
	out, err := exec.Command(harness.Binary(t), "account", "add", "--json", "--data", c.server.Dir, "--project", "another", "--user", "neighbour").Output()
	if err != nil {
		t.Fatalf("account add: %v: %s", err, out)
	}
	var env map[string]string
	if err := json.Unmarshal(out, &env); err != nil {
		t.Fatal(err)
	}
	neighbour := *c
	neighbour.accessKey, neighbour.secret = env["QUICKIMS_ACCESS_KEY"], env["QUICKIMS_SECRET_KEY"]
	return &neighbour
}

// TestSlowBodies: a project whose clients send a byte and then nothing holds up no other
// project.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	c := ours(t)
	neighbour := c.another(t)
	b, theirs := c.newBucket(t), neighbour.newBucket(t)
	neighbour.put(t, theirs, "foo", "bar")
	// Another address, as far as the service can tell.
	slow := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	held := 0
	for i := range 600 {
		conn, err := slow.Dial("tcp", c.addr)
		if err != nil {
			break // refused: that is one way to be safe from it
		}
		defer conn.Close()
		r := request{method: "PUT", bucket: b, key: fmt.Sprint("slow/", i), body: strings.Repeat("x", 1<<20), sign: signing{payload: unsigned}}
		wire := c.wire(r)
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, wire[:len(wire)-len(r.body)+1]); err == nil {
			held++
		}
	}
	t.Logf("%d slow uploads were begun", held)
	for range 20 {
		neighbour.wantObject(t, theirs, "foo", "bar")
		neighbour.put(t, theirs, "foo", "bar")
	}
}
