package objectstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// s3Store is an S3 store with an image area of its own in a gateway.
type s3Store struct {
	*objectstore.S3
	g           *storetest.Gateway
	imageBucket string
}

func newS3Store(t *testing.T, g *storetest.Gateway, change func(*objectstore.S3Config)) s3Store {
	t.Helper()
	cfg := objectstore.S3Config{
		Endpoint: g.URL, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PathStyle: true,
		ImageBucket: g.MakeBucket(t), ImagePrefix: "img/",
	}
	if change != nil {
		change(&cfg)
	}
	s, err := objectstore.OpenS3(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s3Store{S3: s, g: g, imageBucket: cfg.ImageBucket}
}

func (s s3Store) write(t *testing.T, bucket, key string, content []byte) {
	t.Helper()
	var err error
	if len(content) > 0 {
		_, err = s.g.Client.PutObject(t.Context(), bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	} else {
		// The gateway leaves the last piece of a body that is signed piece by piece unread,
		// and answers the next request on the connection with 400.
		sum := sha256.Sum256(nil)
		_, err = minio.Core{Client: s.g.Client}.PutObject(t.Context(), bucket, key, bytes.NewReader(nil), 0, "", hex.EncodeToString(sum[:]), minio.PutObjectOptions{DisableContentSha256: true})
	}
	if err != nil {
		t.Fatalf("upload %s: %v", key, err)
	}
}

func (s s3Store) harness() storetest.Harness {
	return storetest.Harness{
		Store:     s,
		NewBucket: func(t *testing.T) string { return s.g.MakeBucket(t) },
		Write:     s.write,
		Remove: func(t *testing.T, bucket, key string) {
			must(t, s.g.Client.RemoveObject(t.Context(), bucket, key, minio.RemoveObjectOptions{}))
		},
		HiddenBuckets: []string{s.imageBucket, strings.ToUpper(s.imageBucket)},
	}
}

func TestS3Conforms(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness { return newS3Store(t, g, nil).harness() })
	})
}

// TestS3ByParts runs in one gateway one after the other: its tests plan faults.
func TestS3ByParts(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	const size, partSize = 23<<20 + 17, 5 << 20
	const parts = size/partSize + 1
	content := make([]byte, size)
	_, _ = rand.Read(content)
	setup := func(t *testing.T) (s s3Store, from objectstore.Location, info objectstore.ObjectInfo) {
		s = newS3Store(t, g, func(c *objectstore.S3Config) {
			c.SingleCopyLimit, c.CopyPartSize, c.CopyParallel = 1<<20, partSize, 3
		})
		from = objectstore.Location{Bucket: g.MakeBucket(t), Key: "disk.raw"}
		s.write(t, from.Bucket, from.Key, content)
		t.Cleanup(func() { g.Use(nil) })
		return s, from, stat(t, s, from)
	}
	noUploads := func(t *testing.T, s s3Store) {
		t.Helper()
		if n := len(uploads(t, s)); n != 0 {
			t.Errorf("%d unfinished uploads are left", n)
		}
	}
	isPartCopy := func(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source-Range") != "" }

	t.Run("whole", func(t *testing.T) {
		s, from, info := setup(t)
		var copies, under, most atomic.Int64
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isPartCopy(r) {
					copies.Add(1)
					if now := under.Add(1); now > most.Load() {
						most.Store(now)
					}
					defer under.Add(-1)
					if got := r.Header.Get("X-Amz-Copy-Source-If-Match"); got != info.ETag {
						t.Errorf("a part's condition is %q, want %q", got, info.ETag)
					}
				}
				next.ServeHTTP(w, r)
			})
		})
		var told []int64
		made, err := s.Adopt(t.Context(), from, info.Condition(), image("1/data"), objectstore.AdoptOptions{
			Progress: func(done, total int64) { told = append(told, done) },
		})
		must(t, err)
		wantRead(t, s, image("1/data"), made, content)
		if copies.Load() != parts || most.Load() > 3 || len(told) != parts+1 || told[parts] != size {
			t.Errorf("%d parts, %d at a time, progress %v", copies.Load(), most.Load(), told)
		}
		noUploads(t, s)
	})

	t.Run("source changes in between", func(t *testing.T) {
		s, from, info := setup(t)
		var copies atomic.Int64
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isPartCopy(r) && copies.Add(1) == 2 {
					g.Use(nil)
					s.write(t, from.Bucket, from.Key, content[1:])
				}
				next.ServeHTTP(w, r)
			})
		})
		_, err := s.Adopt(t.Context(), from, info.Condition(), image("1/data"), objectstore.AdoptOptions{})
		if !errors.Is(err, objectstore.ErrChanged) {
			t.Errorf("Adopt: %v", err)
		}
		if copies.Load() < 2 {
			t.Error("the fault was not hit")
		}
		if _, err := s.Stat(t.Context(), image("1/data")); !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("an image was made: %v", err)
		}
		noUploads(t, s)
	})

	isAbort := func(r *http.Request) bool { return r.Method == http.MethodDelete && r.URL.Query().Has("uploadId") }

	t.Run("a part fails for a while", func(t *testing.T) {
		s, from, info := setup(t)
		var failed atomic.Bool
		var begun atomic.Int64
		others := make(chan struct{}) // two more copies are under way
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isPartCopy(r) {
					if failed.CompareAndSwap(false, true) {
						<-others
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					if begun.Add(1) == 2 {
						close(others)
					}
					<-others
					defer func() {
						if r.Context().Err() != nil { // the gateway may well go on with it
							t.Error("the copy of a part is cut off when another fails")
						}
					}()
				}
				next.ServeHTTP(w, r)
			})
		})
		_, err := s.Adopt(t.Context(), from, info.Condition(), image("1/data"), objectstore.AdoptOptions{})
		if !errors.Is(err, objectstore.ErrUnavailable) {
			t.Errorf("Adopt: %v", err)
		}
		noUploads(t, s)
		var again atomic.Bool
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isPartCopy(r) && again.CompareAndSwap(false, true) {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		made, err := objectstore.Retry(s, objectstore.RetryPolicy{First: time.Millisecond}).
			Adopt(t.Context(), from, info.Condition(), image("1/data"), objectstore.AdoptOptions{})
		must(t, err)
		wantRead(t, s, image("1/data"), made, content)
	})

	t.Run("an abort fails or comes too early", func(t *testing.T) {
		s, from, info := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var aborts atomic.Int64
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case isPartCopy(r):
					cancel() // as at the end of the service: nobody waits for the copies
				case isAbort(r):
					switch aborts.Add(1) {
					case 1: // a part came while the store was at it
						w.WriteHeader(http.StatusInternalServerError)
						return
					case 2: // a part came when the store was done
						w.WriteHeader(http.StatusNoContent)
						return
					}
				}
				next.ServeHTTP(w, r)
			})
		})
		_, err := s.Adopt(ctx, from, info.Condition(), image("1/data"), objectstore.AdoptOptions{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Adopt: %v", err)
		}
		if aborts.Load() < 3 {
			t.Errorf("%d aborts, want one more than fail", aborts.Load())
		}
	})

	t.Run("what a killed attempt leaves", func(t *testing.T) {
		s, from, info := setup(t)
		core := minio.Core{Client: g.Client}
		begin := func(key string) {
			_, err := core.NewMultipartUpload(t.Context(), s.imageBucket, "img/"+key, minio.PutObjectOptions{})
			must(t, err)
		}
		begin("1/data")
		begin("1/data2") // another object's, with a name that begins alike
		must(t, s.Delete(t.Context(), image("1/data")))
		if left := uploads(t, s); len(left) != 1 || left[0] != "img/1/data2" {
			t.Errorf("after Delete: %v", left)
		}
		must(t, s.Delete(t.Context(), image("1/data2")))
		begin("1/data")
		_, err := s.Adopt(t.Context(), from, info.Condition(), image("1/data"), objectstore.AdoptOptions{})
		must(t, err)
		noUploads(t, s)
	})
}

// TestS3Uploads: uploads are listed page by page, those of the image area alone, and end
// one by one. Who begins one is told its id before it has a byte.
func TestS3Uploads(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	s := newS3Store(t, g, func(c *objectstore.S3Config) { c.SingleCopyLimit, c.CopyPartSize = 1, 5<<20 })
	core := minio.Core{Client: g.Client}
	begin := func(key string) string {
		id, err := core.NewMultipartUpload(t.Context(), s.imageBucket, key, minio.PutObjectOptions{})
		must(t, err)
		return id
	}
	want := map[string]string{}
	for _, key := range []string{"a", "b", "b", "b", "c/d"} {
		want[begin("img/"+key)] = key
	}
	begin("elsewhere")
	after := ""
	got := map[string]string{}
	for {
		page, err := s.Uploads(t.Context(), after)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, u := range page {
			if u.Began.IsZero() {
				t.Errorf("%s has no time", u.Key)
			}
			got[u.ID], after = u.Key, u.Key
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	for id, key := range want {
		for range 2 { // the second time it is gone already
			must(t, s.AbortUpload(t.Context(), image(key), id))
		}
	}
	if left := uploads(t, s); len(left) != 1 || left[0] != "elsewhere" {
		t.Errorf("left %v, want the one outside the image area", left)
	}

	from := objectstore.Location{Bucket: g.MakeBucket(t), Key: "disk.raw"}
	s.write(t, from.Bucket, from.Key, make([]byte, 1<<20))
	refuse, told := errors.New("not recorded"), ""
	_, err := s.Adopt(t.Context(), from, objectstore.Condition{}, image("1/disk"), objectstore.AdoptOptions{Began: func(_ context.Context, id string) error {
		told = id
		if list, err := s.Uploads(t.Context(), ""); err != nil || len(list) != 1 || list[0].ID != id || list[0].Key != "1/disk" {
			t.Errorf("uploads %v (%v), want %s", list, err, id)
		}
		return refuse
	}})
	if !errors.Is(err, refuse) || told == "" {
		t.Errorf("Adopt: %v, it was told %q", err, told)
	}
	if list, err := s.Uploads(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("an upload that could not be recorded stays: %v (%v)", list, err)
	}
}

func uploads(t *testing.T, s s3Store) []string {
	t.Helper()
	page, err := minio.Core{Client: s.g.Client}.ListMultipartUploads(t.Context(), s.imageBucket, "", "", "", "", 100)
	must(t, err)
	var keys []string
	for _, u := range page.Uploads {
		keys = append(keys, u.Key)
	}
	return keys
}

// TestS3Faults plans faults between the store and a real gateway.
func TestS3Faults(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	s := newS3Store(t, g, nil)
	from := objectstore.Location{Bucket: g.MakeBucket(t), Key: "disk.raw"}
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	s.write(t, from.Bucket, from.Key, content)
	info := stat(t, s, from)
	plan := func(t *testing.T, fault func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
		t.Helper()
		var hit atomic.Bool
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hit.Store(true)
				fault(w, r, next)
			})
		})
		t.Cleanup(func() {
			g.Use(nil)
			if !hit.Load() {
				t.Error("the fault was not hit")
			}
		})
	}

	t.Run("classes", func(t *testing.T) {
		for _, c := range []struct{ header, class string }{
			{"X-Amz-Storage-Class", "GLACIER"}, {"X-Obs-Storage-Class", "WARM"}, {"X-Default-Storage-Class", "COLD"},
		} {
			plan(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header().Set(c.header, c.class)
				next.ServeHTTP(w, r)
			})
			if b, err := s.StatBucket(t.Context(), from.Bucket); err != nil || b.Class != c.class || b.Region != "us-east-1" {
				t.Errorf("%s: bucket %+v, %v", c.header, b, err)
			}
			want := c.class
			if c.header == "X-Default-Storage-Class" { // a bucket's header
				want = objectstore.ClassStandard
			}
			if o := stat(t, s, from); o.Class != want {
				t.Errorf("%s: object %+v", c.header, o)
			}
		}
	})

	t.Run("answers", func(t *testing.T) {
		for _, c := range []struct {
			status int
			code   string
			want   error
		}{
			{401, "", objectstore.ErrDenied}, {403, "AccessDenied", objectstore.ErrDenied}, {403, "SignatureDoesNotMatch", objectstore.ErrDenied},
			{404, "NoSuchKey", objectstore.ErrNotFound}, {404, "NoSuchVersion", objectstore.ErrNotFound}, {404, "NoSuchBucket", objectstore.ErrNoBucket},
			{409, "OperationAborted", objectstore.ErrUnavailable}, {412, "PreconditionFailed", objectstore.ErrChanged},
			{400, "RequestTimeout", objectstore.ErrUnavailable}, {408, "", objectstore.ErrUnavailable}, {429, "", objectstore.ErrUnavailable},
			{500, "InternalError", objectstore.ErrUnavailable}, {502, "", objectstore.ErrUnavailable},
			{503, "SlowDown", objectstore.ErrUnavailable}, {504, "", objectstore.ErrUnavailable},
			{507, "", objectstore.ErrNoSpace}, {507, "XMinioStorageFull", objectstore.ErrNoSpace}, {403, "QuotaExceeded", objectstore.ErrNoSpace},
		} {
			plan(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				w.WriteHeader(c.status)
				if c.code != "" {
					fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>planned</Message></Error>", c.code)
				}
			})
			_, err := s.Open(t.Context(), from, info.Condition(), 0, 10)
			if !errors.Is(err, c.want) {
				t.Errorf("GET %d %s: %v, want %v", c.status, c.code, err, c.want)
			}
			for _, other := range []error{objectstore.ErrUnavailable, objectstore.ErrNotFound, objectstore.ErrDenied, objectstore.ErrNoSpace} {
				if other != c.want && errors.Is(err, other) {
					t.Errorf("GET %d %s: %v is %v too", c.status, c.code, err, other)
				}
			}
		}
	})

	t.Run("connection cut", func(t *testing.T) {
		var cuts atomic.Int64
		cut := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != http.MethodGet || cuts.Add(1) > 2 {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(&cutWriter{ResponseWriter: w, left: 100_000}, r)
		}
		plan(t, cut)
		_, err := read(t, s, from, info)
		if !errors.Is(err, objectstore.ErrUnavailable) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read: %v", err)
		}
		cuts.Store(0)
		wantRead(t, objectstore.Retry(s, objectstore.RetryPolicy{First: time.Millisecond}), from, info, content)
		if cuts.Load() != 3 {
			t.Errorf("read in %d requests, want 3", cuts.Load())
		}
	})

	t.Run("response stalls", func(t *testing.T) {
		slow := newS3Store(t, g, nil)
		slow.SetStall(50 * time.Millisecond)
		plan(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("ETag", `"`+info.ETag+`"`)
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Content-Range", "bytes 0-99/1000")
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		body, err := slow.Open(t.Context(), from, info.Condition(), 0, 100)
		must(t, err)
		defer body.Close()
		if _, err := body.Read(make([]byte, 10)); !errors.Is(err, objectstore.ErrUnavailable) {
			t.Errorf("read: %v", err)
		}
	})

	answer := func(w http.ResponseWriter, etag, contentRange string, body []byte) {
		w.Header().Set("ETag", `"`+etag+`"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(body)
	}
	t.Run("conditions ignored", func(t *testing.T) {
		plan(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			answer(w, "another", "bytes 0-9/1048576", content[:10])
		})
		for _, n := range []int64{10, 0} {
			_, err := s.Open(t.Context(), from, info.Condition(), 0, n)
			if !errors.Is(err, objectstore.ErrChanged) {
				t.Errorf("a read of %d bytes of another generation: %v", n, err)
			}
		}
	})

	t.Run("ranges ignored", func(t *testing.T) {
		for _, said := range []string{"", "bytes 0-99/1048576", "nonsense"} {
			plan(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				answer(w, info.ETag, said, content[:100])
			})
			_, err := s.Open(t.Context(), from, info.Condition(), 500, 100)
			if err == nil || !strings.Contains(err.Error(), "Content-Range") {
				t.Errorf("a read of other bytes (Content-Range %q): %v", said, err)
			}
		}
	})

	t.Run("one signature for many reads", func(t *testing.T) {
		of := newS3Store(t, g, nil)
		var mu sync.Mutex
		signed := map[string]int{}
		plan(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			mu.Lock()
			signed[r.Header.Get("Authorization")]++
			mu.Unlock()
			if r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
				t.Error("a read leaves its payload unsigned, which a bucket's policy may refuse")
			}
			if q := r.URL.RawQuery; q != "" && q != "versionId=01ARZ3NDEKTSV4RRFFQ69G5FAV" {
				t.Errorf("the URL of a read, which servers log, has the query %q", q)
			}
			next.ServeHTTP(w, r)
		})
		var readers sync.WaitGroup
		for i := range int64(10) {
			readers.Go(func() {
				off, n := i*1000, 500+i
				body, err := of.Open(t.Context(), from, info.Condition(), off, n)
				if err != nil {
					t.Error(err)
					return
				}
				defer body.Close()
				if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, content[off:off+n]) {
					t.Errorf("%d bytes from %d: %d other ones, %v", n, off, len(got), err)
				}
			})
		}
		readers.Wait()
		wantRead(t, of, from, info, content)
		// Readers that begin together may each have made one.
		if n := len(signed); n == 0 || n > 10 || signed[""] > 0 {
			t.Errorf("reads with these signatures: %v", signed)
		}
		version := info.Condition()
		version.Version = "01ARZ3NDEKTSV4RRFFQ69G5FAV" // of the form that the gateway has
		// The gateway keeps no versions; it says so when it has checked the signature.
		if _, err := of.Open(t.Context(), from, version, 0, 10); err == nil || !strings.Contains(err.Error(), "Invalid version id") {
			t.Errorf("a read of a version: %v", err)
		}
		before := len(signed)
		wantRead(t, of, from, info, content)
		if len(signed) != before {
			t.Error("a later read has a signature of its own")
		}
		of.AgeSignatures()
		wantRead(t, of, from, info, content)
		if until, ok := of.SignatureUntil(from); !ok || time.Until(until) <= 0 {
			t.Errorf("a read used a signature that was good until %v (%v)", until, ok)
		}
	})

	t.Run("nobody there", func(t *testing.T) {
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		lost := newS3Store(t, g, func(c *objectstore.S3Config) { c.Endpoint = gone.URL })
		if _, err := lost.Stat(t.Context(), from); !errors.Is(err, objectstore.ErrUnavailable) {
			t.Errorf("Stat: %v", err)
		}
	})

	t.Run("wrong secret", func(t *testing.T) {
		stranger := newS3Store(t, g, func(c *objectstore.S3Config) { c.SecretKey = "not the secret" })
		_, err := stranger.Stat(t.Context(), from)
		_, oerr := stranger.Open(t.Context(), from, info.Condition(), 0, 10)
		for what, err := range map[string]error{"Stat": err, "Open": oerr} {
			if !errors.Is(err, objectstore.ErrDenied) || strings.Contains(fmt.Sprint(err), "not the secret") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})

	t.Run("TLS", func(t *testing.T) {
		u, err := url.Parse(g.URL)
		must(t, err)
		secure := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
		}})
		defer secure.Close()
		secure.Config.ErrorLog = nil
		untrusted := newS3Store(t, g, func(c *objectstore.S3Config) { c.Endpoint = secure.URL })
		if _, err := untrusted.Stat(t.Context(), from); err == nil || errors.Is(err, objectstore.ErrUnavailable) {
			t.Errorf("an untrusted certificate: %v", err)
		}
		ca := filepath.Join(t.TempDir(), "ca.pem")
		must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
		trusted := newS3Store(t, g, func(c *objectstore.S3Config) { c.Endpoint, c.CAFile = secure.URL, ca })
		wantRead(t, trusted, from, info, content)
	})
}

// cutWriter ends a response in the middle of its body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestS3DiskFull(t *testing.T) {
	t.Parallel()
	mount := inTinyFileSystem(t)
	if mount == "" {
		return
	}
	s := newS3Store(t, storetest.StartGatewayIn(t, mount), nil)
	content := make([]byte, 600<<10)
	_, _ = rand.Read(content)
	from := objectstore.Location{Bucket: s.g.MakeBucket(t), Key: "disk.raw"}
	s.write(t, from.Bucket, from.Key, content)
	_, err := s.Adopt(t.Context(), from, stat(t, s, from).Condition(), image("1/data"), objectstore.AdoptOptions{})
	if !errors.Is(err, objectstore.ErrNoSpace) {
		t.Errorf("Adopt: %v", err)
	}
	_, err = s.Put(t.Context(), image("put"), io.LimitReader(rand.Reader, 4<<20), 4<<20, objectstore.PutOptions{})
	if !errors.Is(err, objectstore.ErrNoSpace) {
		t.Errorf("Put: %v", err)
	}
}

func TestS3Config(t *testing.T) {
	t.Parallel()
	good := objectstore.S3Config{Endpoint: "https://s3.example.com", AccessKey: "access", SecretKey: "hush-hush", ImageBucket: "images"}
	if _, err := objectstore.OpenS3(good); err != nil {
		t.Errorf("good configuration: %v", err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, good); strings.Contains(text, "hush") {
			t.Errorf("%s shows the secret: %s", format, text)
		}
	}
	if text := good.LogValue().String(); strings.Contains(text, "hush") {
		t.Errorf("a log shows the secret: %s", text)
	}
	for name, spoil := range map[string]func(*objectstore.S3Config){
		"no endpoint":     func(c *objectstore.S3Config) { c.Endpoint = "" },
		"no scheme":       func(c *objectstore.S3Config) { c.Endpoint = "s3.example.com:9000" },
		"other scheme":    func(c *objectstore.S3Config) { c.Endpoint = "ftp://s3.example.com" },
		"path":            func(c *objectstore.S3Config) { c.Endpoint += "/bucket" },
		"user":            func(c *objectstore.S3Config) { c.Endpoint = "https://user:password@s3.example.com" },
		"no access key":   func(c *objectstore.S3Config) { c.AccessKey = "" },
		"no secret key":   func(c *objectstore.S3Config) { c.SecretKey = "" },
		"no image bucket": func(c *objectstore.S3Config) { c.ImageBucket = "" },
		"prefix":          func(c *objectstore.S3Config) { c.ImagePrefix = "a" },
		"bad prefix":      func(c *objectstore.S3Config) { c.ImagePrefix = "a/../b/" },
		"copy limit":      func(c *objectstore.S3Config) { c.SingleCopyLimit = 6 << 30 },
		"small parts":     func(c *objectstore.S3Config) { c.CopyPartSize = 1 << 20 },
		"many at a time":  func(c *objectstore.S3Config) { c.CopyParallel = 1000 },
		"no CA file":      func(c *objectstore.S3Config) { c.CAFile = filepath.Join(t.TempDir(), "none") },
		"no CA in file":   func(c *objectstore.S3Config) { c.CAFile = os.DevNull },
	} {
		bad := good
		spoil(&bad)
		_, err := objectstore.OpenS3(bad)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}
