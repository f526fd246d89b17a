package s3face_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/s3face"
)

func TestStopAndStartAgain(t *testing.T) {
	before, err := os.Getwd()
	must(t, err)
	for range 2 {
		f := start(t, nil)
		makeBucket(t, f.client(t, "alice-key"), "images")
		must(t, f.stop())
		if _, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://")); err == nil {
			t.Error("the port is still open")
		}
		if now, err := os.Getwd(); err != nil || now != before {
			t.Errorf("the working directory is %s, %v", now, err)
		}
	}
}

// asked tells each time that a key is looked up: a request is then under way.
type asked struct {
	accounts
	keys chan string
}

// SecretFor implements s3face.Accounts.
func (a asked) SecretFor(key string) (string, string, bool, error) {
	a.keys <- key
	return a.accounts.SecretFor(key)
}

// TestStopLetsRequestsEnd: a request under way when Serve is told to stop ends
// well, unless it takes longer than the grace.
func TestStopLetsRequestsEnd(t *testing.T) {
	for name, patient := range map[string]bool{"within the grace": true, "beyond the grace": false} {
		t.Run(name, func(t *testing.T) {
			lookups := asked{keys, make(chan string, 10)}
			f := start(t, func(c *s3face.Config) {
				c.Accounts = lookups
				c.Grace = 20 * time.Second
				if !patient {
					c.Grace = 50 * time.Millisecond
				}
			})
			c := f.client(t, "alice-key")
			makeBucket(t, c, "images")
			<-lookups.keys
			const half = 1 << 20
			body, w := io.Pipe()
			uploaded := make(chan error, 1)
			go func() {
				_, err := c.PutObject(context.Background(), "images", "k", body, 2*half, minio.PutObjectOptions{DisableMultipart: true})
				uploaded <- err
			}()
			_, err := w.Write(make([]byte, half))
			must(t, err)
			<-lookups.keys
			stopped := make(chan error, 1)
			go func() { stopped <- f.stop() }()
			if patient {
				for { // until it takes no connection any more
					conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
					if err != nil {
						break
					}
					conn.Close()
				}
				_, err = w.Write(make([]byte, half))
				must(t, err)
				w.Close() // the client waits for the end, too
				err = <-uploaded
			} else {
				must(t, <-stopped)
				stopped <- nil
				w.CloseWithError(io.ErrClosedPipe) // the client goes on until then
				err = <-uploaded
			}
			must(t, <-stopped)
			onDisk, rerr := os.ReadFile(filepath.Join(f.buckets, "images", "k"))
			if patient && (err != nil || len(onDisk) != 2*half) {
				t.Errorf("upload: %v; on disk %d bytes, %v", err, len(onDisk), rerr)
			}
			if !patient && (err == nil || !os.IsNotExist(rerr)) {
				t.Errorf("upload: %v; on disk %d bytes, %v", err, len(onDisk), rerr)
			}
		})
	}
}

// TestTwoAtATime: nothing is global, and two processes, or two listeners of
// one, may serve the same buckets.
func TestTwoAtATime(t *testing.T) {
	f := start(t, nil)
	second := start(t, func(c *s3face.Config) {
		c.BucketsDir, c.MetaDir, c.Buckets = f.buckets, filepath.Join(f.base, "meta"), f.keeper
	})
	makeBucket(t, f.client(t, "alice-key"), "images")
	put(t, second.client(t, "alice-key"), "images", "k", "content")
	wantContent(t, f.client(t, "alice-key"), "images", "k", "content")
	must(t, second.stop())
	wantContent(t, f.client(t, "alice-key"), "images", "k", "content")
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	for name, spoil := range map[string]func(*s3face.Config){
		"no listener":          func(c *s3face.Config) { c.Listener.Close(); c.Listener = nil },
		"no accounts":          func(c *s3face.Config) { c.Accounts = nil },
		"no keeper":            func(c *s3face.Config) { c.Buckets = nil },
		"no buckets":           func(c *s3face.Config) { c.BucketsDir = "" },
		"missing buckets":      func(c *s3face.Config) { c.BucketsDir = filepath.Join(dir, "none") },
		"missing metadata":     func(c *s3face.Config) { c.MetaDir = filepath.Join(dir, "none") },
		"metadata in buckets":  func(c *s3face.Config) { c.MetaDir = filepath.Join(c.BucketsDir, "meta") },
		"a domain with a port": func(c *s3face.Config) { c.Domains = []string{"s3.example.com:9000"} },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		cfg := s3face.Config{Listener: l, BucketsDir: filepath.Join(dir, "buckets"), MetaDir: filepath.Join(dir, "meta"), Accounts: keys, Buckets: newKeeper(t, dir)}
		must(t, os.MkdirAll(cfg.BucketsDir, 0o700))
		must(t, os.MkdirAll(cfg.MetaDir, 0o700))
		spoil(&cfg)
		if err := s3face.Serve(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := l.Accept(); err == nil {
			t.Errorf("%s: the listener is still open", name)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := selfSigned(t, cert, key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	f := start(t, func(c *s3face.Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}} })
	plain, err := f.transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: mustURL(t, f.url), Header: http.Header{}})
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode < 400 {
			t.Errorf("plain HTTP is answered with %d", plain.StatusCode)
		}
	}
	f.url = strings.Replace(f.url, "http://", "https://", 1)
	f.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	c := f.client(t, "alice-key")
	makeBucket(t, c, "images")
	put(t, c, "images", "k", "content")
	wantContent(t, c, "images", "k", "content")
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}

// selfSigned writes a certificate for 127.0.0.1 and its key, and returns the
// pool that trusts it.
func selfSigned(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// TestSilence: nothing goes to standard output, which is for the ready line,
// nor to standard error past the Logger.
func TestSilence(t *testing.T) {
	stdout, stderr, logged := os.Stdout, os.Stderr, log.Writer()
	r, w, err := os.Pipe()
	must(t, err)
	os.Stdout, os.Stderr = w, w
	log.SetOutput(w)
	restore := sync.OnceFunc(func() {
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(logged)
	})
	defer restore()
	f := start(t, nil)
	c := f.client(t, "alice-key")
	makeBucket(t, c, "images")
	put(t, c, "images", "k", "content")
	_, _ = f.do(t, "broken", http.MethodGet, "/images/k", nil)
	_, _ = f.do(t, "", http.MethodGet, "/images/k", nil)
	must(t, f.stop())
	if os.Stderr != w || log.Writer() != io.Writer(w) {
		t.Error("standard error was replaced")
	}
	restore()
	w.Close()
	if said, err := io.ReadAll(r); err != nil || len(said) != 0 {
		t.Errorf("standard output and error: %q, %v", said, err)
	}
	for _, secret := range []string{"alice-secret", "Signature=", "\x1b", `\x1b`} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, f.log)
		}
	}
	if said := "the database is gone"; !strings.Contains(f.log.String(), said) {
		t.Errorf("the log does not tell %q:\n%s", said, f.log)
	}
}

func TestDocumentsAreLimited(t *testing.T) {
	f := start(t, nil)
	makeBucket(t, f.client(t, "alice-key"), "images")
	big := make([]byte, 5<<20)
	for _, c := range []call{
		{method: http.MethodPost, path: "/images?delete"},
		{method: http.MethodPost, path: "/images/k?uploadId=1"},
		{method: http.MethodPut, path: "/images?policy"},
		{method: http.MethodPut, path: "/images/k?tagging"},
		{method: http.MethodPut, path: "/other"},
	} {
		if status, code := f.do(t, "alice-key", c.method, c.path, big); status < 400 || status >= 500 && status != http.StatusNotImplemented {
			t.Errorf("%s %s with 5 MiB: %d %s", c.method, c.path, status, code)
		}
	}
	if status, code := f.do(t, "alice-key", http.MethodPut, "/images/k", big); status != http.StatusOK {
		t.Errorf("an object of 5 MiB: %d %s", status, code)
	}
}
