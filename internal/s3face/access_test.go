package s3face_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/quickims/quickims/internal/s3face"
)

// changing are accounts of which a key can be taken away or made one that only reads.
type changing struct {
	mu      sync.Mutex
	changed accounts // in place of those in keys
}

func (c *changing) set(key string, a account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed[key] = a
}

// SecretFor implements s3face.Accounts.
func (c *changing) SecretFor(key string) (string, string, bool, error) {
	c.mu.Lock()
	a, ok := c.changed[key]
	c.mu.Unlock()
	if ok && a.secret == "" {
		return "", "", false, s3face.ErrUnknownKey
	}
	if ok {
		return a.secret, a.project, a.readOnly, nil
	}
	return keys.SecretFor(key)
}

// TestAccessEndsInProgress: an upload and a download are cut off when their key is
// revoked, an upload when the key may only read from now on; what another key does goes
// on. Nothing of a cut upload becomes an object.
func TestAccessEndsInProgress(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]account{"revoked": {}, "reader": {"alice-secret", "alice", true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			who := &changing{changed: accounts{}}
			f := start(t, func(c *s3face.Config) { c.Accounts = who })
			c := f.client(t, "alice-key")
			makeBucket(t, c, "disks")
			sparse := filepath.Join(f.buckets, "disks", "large")
			must(t, os.WriteFile(sparse, nil, 0o600))
			must(t, os.Truncate(sparse, 1<<30))

			begin := func(key, method, object string, size int64) net.Conn {
				req, err := http.NewRequestWithContext(t.Context(), method, f.url+"/disks/"+object, nil)
				must(t, err)
				req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
				req = signer.SignV4(*req, key, keys[key].secret, "", "eu-de")
				conn, err := net.Dial("tcp", req.URL.Host)
				must(t, err)
				t.Cleanup(func() { conn.Close() })
				_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", method, req.URL.Path, req.URL.Host, size)
				must(t, err)
				must(t, req.Header.Write(conn))
				_, err = io.WriteString(conn, "\r\n")
				must(t, err)
				return conn
			}
			upload := func(key, object string) net.Conn {
				conn := begin(key, "PUT", object, 1<<20)
				_, err := conn.Write(make([]byte, 1<<10))
				must(t, err)
				return conn
			}
			status := func(conn net.Conn) int {
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					return 0
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			cut, kept, down := upload("alice-key", "cut"), upload("alice-key2", "kept"), begin("alice-key", "GET", "large", 0)
			_, err := io.ReadFull(down, make([]byte, 1<<20))
			must(t, err)

			who.set("alice-key", now)
			if got := status(cut); got != 0 && got < 400 {
				t.Errorf("the upload ended with %d", got)
			}
			if name == "revoked" {
				if n, _ := io.Copy(io.Discard, down); n >= 1<<30-1<<20 {
					t.Errorf("the download went on to its end")
				}
			}
			_, err = kept.Write(make([]byte, 1<<20-1<<10))
			must(t, err)
			if got := status(kept); got != http.StatusOK {
				t.Errorf("another key's upload: %d", got)
			}
			for object, want := range map[string]bool{"cut": false, "kept": true} {
				if _, err := os.Stat(filepath.Join(f.buckets, "disks", object)); (err == nil) != want {
					t.Errorf("%s: %v", object, err)
				}
			}
		})
	}
}

// TestFormEndsWithAccess: a browser's form whose file is on its way is cut off when its
// key is revoked, and leaves no object.
func TestFormEndsWithAccess(t *testing.T) {
	t.Parallel()
	who := &changing{changed: accounts{}}
	f := start(t, func(c *s3face.Config) { c.Accounts = who })
	makeBucket(t, f.client(t, "alice-key"), "disks")
	head, contentType := formHead(t, [][2]string{{"key", "cut"}})

	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /disks HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		conn.RemoteAddr(), contentType, 1<<20)
	must(t, err)
	answer := bufio.NewReader(conn)
	line, err := answer.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("before the form was sent: %q, %v", line, err)
	}
	_, err = answer.ReadString('\n')
	must(t, err)
	_, err = conn.Write(append(head, make([]byte, 256<<10)...))
	must(t, err)
	temps := func() []string {
		found, err := filepath.Glob(filepath.Join(f.buckets, "disks", ".*", "tmp", "*"))
		must(t, err)
		return found
	}
	for len(temps()) == 0 { // the file has begun to arrive
		runtime.Gosched()
	}
	who.set("alice-key", account{})
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	resp, err := http.ReadResponse(answer, nil)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("the form ended with %d", resp.StatusCode)
		}
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the form goes on without access")
	}
	if _, err := os.Stat(filepath.Join(f.buckets, "disks", "cut")); err == nil {
		t.Error("the form left an object")
	}
}

// TestCopyEndsWithAccess: a copy that takes its time, here for the checksum of a large
// disk file, ends when its key is revoked, and leaves no object.
func TestCopyEndsWithAccess(t *testing.T) {
	t.Parallel()
	who := &changing{changed: accounts{}}
	f := start(t, func(c *s3face.Config) { c.Accounts = who })
	makeBucket(t, f.client(t, "alice-key"), "disks")
	large := filepath.Join(f.buckets, "disks", "large")
	must(t, os.WriteFile(large, nil, 0o600))
	must(t, os.Truncate(large, 1<<40)) // hours of hashing
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		req, err := http.NewRequestWithContext(t.Context(), "PUT", f.url+"/disks/copy", nil)
		if err != nil {
			return
		}
		req.Header.Set("X-Amz-Copy-Source", "/disks/large")
		req.Header.Set("X-Amz-Checksum-Algorithm", "SHA1")
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		if resp, err := f.transport.RoundTrip(signer.SignV4(*req, "alice-key", keys["alice-key"].secret, "", "eu-de")); err == nil {
			resp.Body.Close()
		}
	}()
	temps := func() int {
		found, err := filepath.Glob(filepath.Join(f.buckets, "disks", ".*", "tmp", "*"))
		must(t, err)
		return len(found)
	}
	for temps() == 0 {
		runtime.Gosched()
	}
	who.set("alice-key", account{})
	<-ended
	for limit := time.Now().Add(30 * time.Second); temps() > 0; runtime.Gosched() {
		if time.Now().After(limit) {
			must(t, os.Truncate(large, 0)) // or the test would not end
			t.Fatal("the copy goes on without access")
		}
	}
	if _, err := os.Stat(filepath.Join(f.buckets, "disks", "copy")); err == nil {
		t.Error("there is a copy")
	}
}
