package s3face_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"
	"go.uber.org/goleak"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/s3face"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http's transport, about broken uploads
	goleak.VerifyTestMain(m)
}

// account is what an access key stands for.
type account struct {
	secret, project string
	readOnly        bool
}

type accounts map[string]account

// SecretFor implements s3face.Accounts.
func (a accounts) SecretFor(key string) (string, string, bool, error) {
	if key == "broken" {
		return "", "", false, errors.New("the database is gone")
	}
	acc, ok := a[key]
	if !ok {
		return "", "", false, s3face.ErrUnknownKey
	}
	return acc.secret, acc.project, acc.readOnly, nil
}

// The keys that tests use: two of one project, one of which only reads, and
// one of another.
var keys = accounts{
	"alice-key":  {"alice-secret", "alice", false},
	"alice-key2": {"alice-secret2", "alice", false},
	"alice-read": {"alice-secret3", "alice", true},
	"bob-key":    {"bob-secret", "bob", false},
	"no-secret":  {"", "alice", false}, // of a row that was never finished
	"no-project": {"secret", "", false},
}

// face is a running S3 face.
type face struct {
	base            string // holds all that the face may and may not touch
	url             string
	buckets, images string
	keeper          *buckets.Keeper
	stop            func() error
	transport       *http.Transport
	log             *lockedBuffer
}

// newKeeper makes a keeper of the folder "buckets" in base, with a database of its own.
func newKeeper(t *testing.T, base string) *buckets.Keeper {
	t.Helper()
	db, err := database.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "test.db"), database.Options{})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	must(t, db.Migrate(t.Context()))
	return buckets.New(catalog.New(db, catalog.Options{}), filepath.Join(base, "buckets"))
}

// start starts an S3 face that ends with the test.
func start(t *testing.T, change func(*s3face.Config)) *face {
	t.Helper()
	base := t.TempDir()
	f := &face{
		base: base, buckets: filepath.Join(base, "buckets"), images: filepath.Join(base, "images"),
		transport: http.DefaultTransport.(*http.Transport).Clone(), log: new(lockedBuffer),
	}
	metaDir := filepath.Join(base, "meta")
	for _, dir := range []string{f.buckets, f.images, metaDir} {
		must(t, os.Mkdir(dir, 0o700))
	}
	f.keeper = newKeeper(t, base)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f.url = "http://" + l.Addr().String()
	ready := make(chan struct{})
	cfg := s3face.Config{
		Listener: l, BucketsDir: f.buckets, MetaDir: metaDir, Region: "eu-de", Accounts: keys, Buckets: f.keeper,
		Logger: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Grace:  time.Second, Ready: func() { close(ready) },
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s3face.Serve(ctx, cfg) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		f.transport.CloseIdleConnections()
		if err := f.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if t.Failed() {
			all := f.log.String()
			t.Logf("the log's end:\n%s", all[max(0, len(all)-4000):])
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("Serve: %v", err)
	}
	return f
}

func (f *face) client(t *testing.T, key string) *minio.Client {
	t.Helper()
	u, err := url.Parse(f.url)
	must(t, err)
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(key, keys[key].secret, ""), Region: "eu-de",
		Secure: u.Scheme == "https", Transport: f.transport, MaxRetries: 1,
	})
	must(t, err)
	return c
}

// do sends a request, signed with a key unless it is empty, and returns the
// status and S3's error code.
func (f *face) do(t *testing.T, key, method, path string, body []byte, headers ...string) (status int, code string) {
	t.Helper()
	status, code, _ = f.send(t, key, method, path, body, headers...)
	return status, code
}

func (f *face) send(t *testing.T, key, method, path string, body []byte, headers ...string) (status int, code string, answer []byte) {
	t.Helper()
	secret := keys[key].secret
	if secret == "" {
		secret = "whatever"
	}
	return f.sendWith(t, key, secret, method, path, body, headers...)
}

func (f *face) sendWith(t *testing.T, key, secret, method, path string, body []byte, headers ...string) (status int, code string, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, bytes.NewReader(body))
	must(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if len(body) > 0 {
		sum := md5.Sum(body) // some calls insist on it
		req.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if key != "" {
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		req = signer.SignV4(*req, key, secret, "", "eu-de")
	}
	resp, err := f.transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	must(t, err)
	if _, rest, ok := bytes.Cut(answer, []byte("<Code>")); ok {
		c, _, _ := bytes.Cut(rest, []byte("</Code>"))
		code = string(c)
	}
	return resp.StatusCode, code, answer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, c *minio.Client, bucket, key, content string) minio.UploadInfo {
	t.Helper()
	info, err := c.PutObject(t.Context(), bucket, key, bytes.NewReader([]byte(content)), int64(len(content)), minio.PutObjectOptions{})
	must(t, err)
	return info
}

func get(t *testing.T, c *minio.Client, bucket, key string) (string, error) {
	t.Helper()
	o, err := c.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{})
	must(t, err)
	defer o.Close()
	b, err := io.ReadAll(o)
	return string(b), err
}

func wantContent(t *testing.T, c *minio.Client, bucket, key, want string) {
	t.Helper()
	if got, err := get(t, c, bucket, key); err != nil || got != want {
		t.Errorf("%s/%s holds %.60q, %v; want %.60q", bucket, key, got, err, want)
	}
}

func makeBucket(t *testing.T, c *minio.Client, name string) {
	t.Helper()
	must(t, c.MakeBucket(t.Context(), name, minio.MakeBucketOptions{Region: "eu-de"}))
}

func list(t *testing.T, c *minio.Client, bucket, prefix string) []string {
	t.Helper()
	var keys []string
	for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		must(t, o.Err)
		keys = append(keys, o.Key)
	}
	return keys
}
