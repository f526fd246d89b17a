package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// isPart reports whether a request sends a part.
func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// wantNothing fails the test if the key or unfinished uploads of it are there.
func wantNothing(t *testing.T, s *Store, bucket, key string) {
	t.Helper()
	if _, err := s.Stat(t.Context(), bucket, key); !isCode(err, "NoSuchKey") {
		t.Errorf("the object: %v", err)
	}
	if ids, err := s.Unfinished(t.Context(), bucket, key); err != nil || len(ids) != 0 {
		t.Errorf("unfinished uploads: %v, %v", ids, err)
	}
}

func wantStored(t *testing.T, g *storetest.Gateway, bucket, key string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(g.Folder, bucket, key))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("stored: %d bytes that differ from the %d sent, %v", len(got), len(want), err)
	}
}

func TestPartsFitTheStore(t *testing.T) {
	t.Parallel()
	const tib = 1 << 40
	for _, size := range []int64{1, leastPart, leastPart + 1, leastPart * maxParts, leastPart*maxParts + 1, tib, tib + tib/200} {
		part := partSize(size)
		if parts := (size + part - 1) / part; parts > maxParts || part < leastPart || part%partGrain != 0 || part > maxHeld {
			t.Errorf("%d bytes: %d parts of %d", size, parts, part)
		}
	}
}

// An upload is cut after a few parts; the next one sends the others alone. Parts of a
// file that was changed meanwhile are found out.
func TestAnUploadGoesOnAfterACut(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	const n = 6*leastPart + 17
	data := someBytes(n)
	first, err := s.BeginUpload(t.Context(), bucket, "k", bytes.NewReader(data), n)
	if err != nil {
		t.Fatal(err)
	}
	var taken sync.WaitGroup
	taken.Add(3)
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isPart(r) && r.URL.Query().Get("partNumber") > "3" {
				taken.Wait()
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
			w.(http.Flusher).Flush()
			taken.Done()
		})
	})
	if err := first.Send(t.Context(), nil); err == nil {
		t.Fatal("it was not cut")
	}
	g.Use(nil)
	for _, test := range []struct {
		name         string
		data         []byte
		differ, sent int64
	}{
		{"another file", append(bytes.Repeat([]byte{1}, leastPart), data[leastPart:]...), leastPart, 0},
		{"the file", data, 0, 3*leastPart + 17},
	} {
		again, err := s.ResumeUpload(t.Context(), bucket, "k", first.ID(), bytes.NewReader(test.data), n)
		if err != nil {
			t.Fatal(err)
		}
		if there := again.There(); there != 3*leastPart {
			t.Fatalf("%s: %d bytes are there", test.name, there)
		}
		differ, err := again.Compare(t.Context(), nil)
		if err != nil || differ != test.differ {
			t.Errorf("%s: %d bytes differ, %v", test.name, differ, err)
		}
		if test.differ > 0 {
			continue
		}
		var sent, told atomic.Int64
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = &countedRequest{r.Body, &sent}
				next.ServeHTTP(w, r)
			})
		})
		if err := again.Send(t.Context(), func(n int) { told.Add(int64(n)) }); err != nil {
			t.Fatal(err)
		}
		// Each piece of a signed body has a head of about 90 bytes.
		if got := sent.Load(); got < test.sent || got > test.sent+test.sent/100 || told.Load() != test.sent {
			t.Errorf("%d bytes were sent, progress told of %d, want %d", got, told.Load(), test.sent)
		}
		o, err := again.Commit(t.Context())
		if err != nil || o.Size != n || o.ETag != again.ETag() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	wantStored(t, g, bucket, "k", data)
	if _, err := s.ResumeUpload(t.Context(), bucket, "k", first.ID(), bytes.NewReader(data), n); !errors.Is(err, ErrNoUpload) {
		t.Errorf("after its end: %v", err)
	}
}

type countedRequest struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *countedRequest) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

var anyETag = regexp.MustCompile(`<ETag>[^<]*</ETag>`)

// TestAnotherWriterIsNoticed: an object that another client has put in the place of ours
// is not passed for ours, and is not removed: it is the other's.
func TestAnotherWriterIsNoticed(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	const n = 2*leastPart + 5
	for name, size := range map[string]int{"in one request": 5000, "in parts": n} {
		bucket := g.MakeBucket(t)
		other := bytes.Repeat([]byte{7}, size)
		g.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/k") {
					// Just before ours is looked at.
					if err := os.WriteFile(filepath.Join(g.Folder, bucket, "k.new"), other, 0o600); err != nil {
						t.Error(err)
					}
					if err := os.Rename(filepath.Join(g.Folder, bucket, "k.new"), filepath.Join(g.Folder, bucket, "k")); err != nil {
						t.Error(err)
					}
					w = &forgedETag{w}
				}
				next.ServeHTTP(w, r)
			})
		})
		_, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(someBytes(size)), int64(size), nil)
		g.Use(nil)
		if err == nil || !strings.Contains(err.Error(), "somebody else wrote") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(filepath.Join(g.Folder, bucket, "k")); err != nil || !bytes.Equal(got, other) {
			t.Errorf("%s: the other's object is gone or changed: %v", name, err)
		}
	}
}

// What the store says that it has is not what was sent.
func TestDamageIsAnErrorAndLeavesNothing(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	const n = 2*leastPart + 5
	data := someBytes(n)
	forge := func(when func(*http.Request) bool) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if when(r) {
					w = &forgedETag{w}
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	for name, fault := range map[string]func(http.Handler) http.Handler{
		"a part has another MD5": forge(isPart),
		"a part is refused": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !isPart(r) {
					next.ServeHTTP(w, r)
					return
				}
				badDigest(w, r)
			})
		},
		"the object has another MD5": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || !r.URL.Query().Has("uploadId") {
					next.ServeHTTP(w, r)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, r)
				for name, values := range answer.Header() {
					if name != "Content-Length" {
						w.Header()[name] = values
					}
				}
				w.WriteHeader(answer.Code)
				w.Write(anyETag.ReplaceAll(answer.Body.Bytes(), []byte("<ETag>0123456789abcdef0123456789abcdef-2</ETag>")))
			})
		},
		"the store lost a part": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
					body, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(body))
					parts, _ := filepath.Glob(filepath.Join(g.Folder, "*", ".sgwtmp", "multipart", "*", r.URL.Query().Get("uploadId"), "2"))
					for _, p := range parts {
						os.Remove(p)
					}
				}
				next.ServeHTTP(w, r)
			})
		},
	} {
		bucket := g.MakeBucket(t)
		g.Use(fault)
		_, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(data), n, nil)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: Put: %v", name, err)
		}
		w := s.NewWriter(t.Context(), bucket, "k", WriterOptions{MaxSize: n})
		_, err = w.Write(data)
		if err == nil {
			_, err = w.Commit()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: Writer: %v", name, err)
		}
		g.Use(nil)
		if err := w.Cancel(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantNothing(t, s, bucket, "k")
	}
	// An object that was there is not removed when another is refused, but replaced by
	// one that turns out to be damaged.
	bucket := g.MakeBucket(t)
	if _, err := s.Put(t.Context(), bucket, "k", strings.NewReader("old"), 3, nil); err != nil {
		t.Fatal(err)
	}
	g.Use(forge(func(r *http.Request) bool { return r.Method == http.MethodPut }))
	if _, err := s.Put(t.Context(), bucket, "k", strings.NewReader("new"), 3, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a small one: %v", err)
	}
	g.Use(nil)
	wantNothing(t, s, bucket, "k")
}

// forgedETag answers with another MD5.
type forgedETag struct{ http.ResponseWriter }

func (f *forgedETag) WriteHeader(status int) {
	if f.Header().Get("ETag") != "" {
		f.Header().Set("ETag", `"00000000000000000000000000000000"`)
	}
	f.ResponseWriter.WriteHeader(status)
}

// badDigest answers as a store does whose MD5 of a body is not the one sent ahead.
func badDigest(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprint(w, `<Error><Code>BadDigest</Code><Message>The Content-MD5 does not match.</Message></Error>`)
}

func TestABodyThatChangesOnTheWayIsRefused(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				r.Body = &flipped{r.Body, 1000}
			}
			next.ServeHTTP(w, r)
		})
	})
	for _, n := range []int64{5000, leastPart + 5000} {
		if o, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(someBytes(int(n))), n, nil); err == nil {
			t.Errorf("%d bytes: accepted: %+v", n, o)
		}
		wantNothing(t, s, bucket, "k")
	}
}

// flipped changes one bit of a body.
type flipped struct {
	io.ReadCloser
	at int
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at] ^= 1
	}
	f.at -= n
	return n, err
}

func TestDamageOfAMomentIsNone(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	var puts, told atomic.Int64
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isPart(r) && puts.Add(1) == 1 {
				badDigest(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	const n = leastPart + 1
	data := someBytes(n)
	if _, err := s.Put(t.Context(), bucket, "k", bytes.NewReader(data), n, func(n int) { told.Add(int64(n)) }); err != nil {
		t.Fatal(err)
	}
	if puts.Load() != 3 || told.Load() != n {
		t.Errorf("%d requests, progress told of %d bytes", puts.Load(), told.Load())
	}
	wantStored(t, g, bucket, "k", data)
}

func TestAWriterSendsWhatIsWrittenToIt(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	for name, n := range map[string]int{"nothing": 0, "little": 1000, "one part": leastPart, "parts": 3 * leastPart, "parts and a rest": 9*leastPart + 12345} {
		data := someBytes(n)
		var sent atomic.Int64
		var mu sync.Mutex
		var began []string
		w := s.NewWriter(t.Context(), bucket, name, WriterOptions{MaxSize: int64(n), Progress: func(n int) { sent.Add(int64(n)) },
			Began: func(id string) error { mu.Lock(); defer mu.Unlock(); began = append(began, id); return nil }})
		for rest := data; len(rest) > 0; {
			k := min(len(rest), 777_777)
			if _, err := w.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
		}
		if _, err := s.Stat(t.Context(), bucket, name); !isCode(err, "NoSuchKey") {
			t.Errorf("%s: before Commit: %v", name, err)
		}
		o, err := w.Commit()
		if err != nil || o.Size != int64(n) || sent.Load() != int64(n) || w.Size() != int64(n) {
			t.Fatalf("%s: %+v, %d sent, %v", name, o, sent.Load(), err)
		}
		if (len(began) == 1) != (n > leastPart) {
			t.Errorf("%s: began %v", name, began)
		}
		wantStored(t, g, bucket, name, data)
		if err := w.Cancel(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantStored(t, g, bucket, name, data)
		if _, err := w.Write([]byte{1}); err == nil {
			t.Errorf("%s: written after its end", name)
		}
	}
}

// A Writer that fails, or whose context ends, leaves nothing and does not hang, even
// while it waits for memory.
func TestAWriterThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	data := someBytes(leastPart)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	blocked := make(chan struct{})
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isPart(r) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Query().Get("partNumber") == "4" {
					close(blocked)
				}
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	go func() { <-blocked; cancel(stop) }()
	w := s.NewWriter(ctx, bucket, "k", WriterOptions{MaxSize: 1 << 40})
	w.partSize = leastPart // as if little was to come, but with the memory for much
	var err error
	for range 1000 {
		if _, err = w.Write(data); err != nil {
			break
		}
	}
	if !errors.Is(err, stop) || !errors.Is(w.Err(), stop) || w.Size() > maxHeld {
		t.Errorf("%v after %d bytes", err, w.Size())
	}
	if err := w.Cancel(); err != nil {
		t.Error(err)
	}
	g.Use(nil)
	wantNothing(t, s, bucket, "k")

	w = s.NewWriter(t.Context(), "no-such-bucket", "k", WriterOptions{MaxSize: 3 * leastPart})
	for err = nil; err == nil; {
		_, err = w.Write(data)
	}
	if !isCode(err, "NoSuchBucket") {
		t.Error(err)
	}
	if err := w.Cancel(); err != nil {
		t.Error(err)
	}
}

// More than was announced is an error before S3 says so; the largest parts fit into
// the memory there is.
func TestAWriterHoldsALargePart(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	w := s.NewWriter(t.Context(), bucket, "k", WriterOptions{MaxSize: 1 << 40})
	if w.partSize <= 100<<20 {
		t.Fatalf("parts of %d", w.partSize)
	}
	data := someBytes(leastPart)
	for w.Size() < w.partSize+leastPart {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	o, err := w.Commit()
	if err != nil || o.Size != w.Size() || !strings.HasSuffix(o.ETag, "-2") {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestUnfinishedUploadsAreFoundAndAbandoned(t *testing.T) {
	t.Parallel()
	g, s := gateway(t)
	bucket := g.MakeBucket(t)
	for _, key := range []string{"k", "k", "k2"} {
		if _, err := s.begin(t.Context(), bucket, key); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := s.Unfinished(t.Context(), bucket, "k")
	if err != nil || len(ids) != 2 {
		t.Fatalf("%v, %v", ids, err)
	}
	for _, id := range append(ids, ids...) { // the second time there is none
		if err := s.Abandon(t.Context(), bucket, "k", id); err != nil {
			t.Error(err)
		}
	}
	if ids, err := s.Unfinished(t.Context(), bucket, "k"); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	if ids, err := s.Unfinished(t.Context(), bucket, "k2"); err != nil || len(ids) != 1 {
		t.Errorf("another key's: %v, %v", ids, err)
	}
}
