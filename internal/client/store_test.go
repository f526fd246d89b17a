package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	os.Exit(m.Run())
}

// gateway starts a real S3 server and makes a Store of it.
func gateway(t *testing.T) (*storetest.Gateway, *Store) {
	t.Helper()
	g := storetest.StartGateway(t)
	s, err := NewStore(Config{S3Endpoint: g.URL, AccessKey: g.AccessKey, SecretKey: Secret(g.SecretKey)})
	if err != nil {
		t.Fatal(err)
	}
	return g, s
}

// someBytes are reproducible and do not repeat themselves.
func someBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{'q'}).Read(b)
	return b
}

func TestPutWritesAnObjectThatReadsBack(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	if made, err := s.EnsureBucket(t.Context(), "disks"); err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	if made, err := s.EnsureBucket(t.Context(), "disks"); err != nil || made {
		t.Fatalf("the second time: made %v, %v", made, err)
	}
	for name, n := range map[string]int{"empty": 0, "small": 1000, "in parts": 33<<20 + 17} {
		t.Run(name, func(t *testing.T) {
			want := someBytes(n)
			var read atomic.Int64
			o, err := s.Put(t.Context(), "disks", "a/"+name, bytes.NewReader(want), int64(n), func(n int) { read.Add(int64(n)) })
			if err != nil || o.Size != int64(n) || o.ETag == "" {
				t.Fatalf("%+v, %v", o, err)
			}
			got, err := os.ReadFile(filepath.Join(g.Folder, "disks", "a", name))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("stored %d bytes, %v", len(got), err)
			}
			// The store may have asked for a part again.
			if read.Load() < int64(n) {
				t.Errorf("progress told of %d bytes of %d", read.Load(), n)
			}
		})
	}
}

func TestAnUploadThatEndsEarlyLeavesNothing(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	ctx, cancel := context.WithCancel(t.Context())
	const n = 64 << 20
	var read atomic.Int64
	_, err := s.Put(ctx, bucket, "k", bytes.NewReader(someBytes(n)), n, func(n int) {
		if read.Add(int64(n)) > 20<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Stat(t.Context(), bucket, "k"); !isCode(err, "NoSuchKey") {
		t.Errorf("the object: %v", err)
	}
	for u := range g.Client.ListIncompleteUploads(t.Context(), bucket, "", true) {
		t.Errorf("an upload was left: %+v", u)
	}
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

func TestReaderAtReadsRangesOfOneGeneration(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	want := someBytes(5000)
	if _, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(want), 5000, nil); err != nil {
		t.Fatal(err)
	}
	o, err := s.Stat(t.Context(), bucket, "k")
	if err != nil || o.Size != 5000 {
		t.Fatalf("%+v, %v", o, err)
	}
	r := s.ReaderAt(t.Context(), o)
	for _, test := range []struct {
		off, n, read int
		end          bool
	}{{0, 1, 1, false}, {0, 5000, 5000, false}, {4990, 10, 10, false}, {4990, 11, 10, true}, {5000, 1, 0, true}, {17, 0, 0, false}} {
		p := make([]byte, test.n)
		n, err := r.ReadAt(p, int64(test.off))
		if n != test.read || (err == io.EOF) != test.end || err != nil && err != io.EOF || !bytes.Equal(p[:n], want[test.off:test.off+n]) {
			t.Errorf("%d bytes at %d: read %d, %v", test.n, test.off, n, err)
		}
	}
	if _, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(someBytes(4000)), 4000, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 0); !isCode(err, "PreconditionFailed") {
		t.Errorf("after a change: %v", err)
	}
	if err := s.Remove(t.Context(), bucket, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), bucket, "k"); !isCode(err, "NoSuchKey") {
		t.Errorf("after the removal: %v", err)
	}
}

func TestAMissingBucketIsNamed(t *testing.T) {
	t.Parallel()
	_, s := gateway(t)
	if _, err := s.Put(t.Context(), "no-such-bucket", "k", bytes.NewReader(nil), 0, nil); !isCode(err, "NoSuchBucket") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Stat(t.Context(), "no-such-bucket", "k"); !isCode(err, "NoSuchBucket") || !strings.Contains(err.Error(), "there is no bucket no-such-bucket") {
		t.Errorf("got %v", err)
	}
}

func TestAMissingObjectIsNamed(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	want := `there is no object "k" in the bucket ` + bucket
	if _, err := s.Stat(t.Context(), bucket, "k"); !isCode(err, "NoSuchKey") || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestAWrongKeyIsRefused(t *testing.T) {
	t.Parallel()
	g, _ := gateway(t)
	bucket := g.MakeBucket(t)
	wrong, err := NewStore(Config{S3Endpoint: g.URL, AccessKey: g.AccessKey, SecretKey: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = wrong.Put(t.Context(), bucket, "k", bytes.NewReader([]byte("x")), 1, nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "SignatureDoesNotMatch" || e.Status != http.StatusForbidden || e.Request != "PUT "+bucket+":k" {
		t.Errorf("got %#v", err)
	}
}

func TestAStoresFaultOfAMomentIsNone(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	var puts atomic.Int32
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && puts.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if _, err := s.Put(t.Context(), bucket, "k", bytes.NewReader([]byte("x")), 1, nil); err != nil || puts.Load() != 2 {
		t.Errorf("%v after %d requests", err, puts.Load())
	}
}
