package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

func TestMain(m *testing.M) {
	storetest.MaybeGateway()
	os.Exit(m.Run())
}

// uploads is a gateway, a file and what the commands need to upload it.
type uploads struct {
	*storetest.Gateway
	t      *testing.T
	env    map[string]string
	file   string
	bucket string
	store  *client.Store
}

func newUploads(t *testing.T, size int) *uploads {
	t.Helper()
	g := storetest.StartGateway(t)
	u := &uploads{Gateway: g, t: t, bucket: g.MakeBucket(t), file: filepath.Join(t.TempDir(), "disk.raw"), env: map[string]string{
		client.EnvS3Endpoint: g.URL, client.EnvAccessKey: g.AccessKey, client.EnvSecretKey: g.SecretKey, "XDG_CACHE_HOME": t.TempDir(),
	}}
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{'u'}).Read(data)
	if err := os.WriteFile(u.file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if u.store, err = client.NewStore(client.FromEnv(func(name string) string { return u.env[name] })); err != nil {
		t.Fatal(err)
	}
	return u
}

// run uploads the file to the object k.
func (u *uploads) run(flags ...string) (status int, stderr string) {
	var out, errs bytes.Buffer
	args := append([]string{"upload", u.file, u.bucket + ":k"}, flags...)
	status = Main(u.t.Context(), args, Env{Stdout: &out, Stderr: &errs, Getenv: func(name string) string { return u.env[name] }})
	return status, errs.String()
}

// wantDone fails the test unless the object is the file, and nothing else is left.
func (u *uploads) wantDone() {
	u.t.Helper()
	want, err := os.ReadFile(u.file)
	got, err2 := os.ReadFile(filepath.Join(u.Folder, u.bucket, "k"))
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(got, want) {
		u.t.Errorf("the object has %d bytes that differ from the file's %d: %v", len(got), len(want), err)
	}
	u.wantNoParts()
}

func (u *uploads) wantNoParts() {
	u.t.Helper()
	if ids, err := u.store.Unfinished(u.t.Context(), u.bucket, "k"); err != nil || len(ids) > 0 {
		u.t.Errorf("unfinished uploads: %v, %v", ids, err)
	}
	if left, err := filepath.Glob(filepath.Join(u.env["XDG_CACHE_HOME"], "quickims", "uploads", "*")); err != nil || len(left) > 0 {
		u.t.Errorf("states: %v, %v", left, err)
	}
}

// breakOn has the store drop the requests that match.
func (u *uploads) breakOn(match func(*http.Request) bool) {
	u.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
}

// cutAfter3 has the store take the first three parts, and drop all others once it has
// them.
func (u *uploads) cutAfter3() {
	var taken sync.WaitGroup
	taken.Add(3)
	u.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch number := r.URL.Query().Get("partNumber"); {
			case number == "":
				next.ServeHTTP(w, r)
			case number <= "3":
				next.ServeHTTP(w, r)
				w.(http.Flusher).Flush()
				taken.Done()
			default:
				taken.Wait()
				panic(http.ErrAbortHandler)
			}
		})
	})
}

const severalParts = 40<<20 + 5

func TestAFileThatChangesMeanwhileIsNotUploaded(t *testing.T) {
	t.Parallel()
	u := newUploads(t, 4096)
	for _, size := range []int64{4096, severalParts} {
		if err := os.Truncate(u.file, size); err != nil {
			t.Fatal(err)
		}
		f, err := openFile(u.file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := &session{Env: Env{Stderr: &bytes.Buffer{}, Getenv: func(string) string { return "" }}, now: time.Now}
		to := objectName{u.bucket, "k"}
		if _, err := s.upload(t.Context(), u.store, f, to, false); err != nil {
			t.Fatalf("%d bytes, unchanged: %v", size, err)
		}
		u.wantDone()
		if err := os.Chtimes(u.file, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.upload(t.Context(), u.store, f, to, false); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
			t.Errorf("%d bytes: got %v", size, err)
		}
		u.wantDone() // what was there before is none the worse
	}
}

func TestAnUploadGoesOn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile func(u *uploads)
		flags     []string
		says      string
		silent    string
	}{
		"with its state": {says: "going on with the upload that was cut: 24 MiB of 40 MiB are in the store", silent: "differ"},
		"without its state": {
			meanwhile: func(u *uploads) { os.RemoveAll(u.env["XDG_CACHE_HOME"]) },
			says:      "going on with the upload that was cut: 24 MiB of 40 MiB are in the store"},
		"without a place for a state": {
			meanwhile: func(u *uploads) { delete(u.env, "XDG_CACHE_HOME") },
			says:      "going on with the upload that was cut: 24 MiB of 40 MiB are in the store"},
		"with a state that can't be read": {
			meanwhile: func(u *uploads) {
				states, _ := filepath.Glob(filepath.Join(u.env["XDG_CACHE_HOME"], "quickims", "uploads", "*"))
				_ = os.WriteFile(states[0], []byte("{"), 0o600)
			},
			says: "going on with the upload that was cut"},
		"anew": {flags: []string{"--restart"}, says: "", silent: "going on"},
		"after a change": {
			meanwhile: func(u *uploads) { u.poke(time.Now().Add(time.Hour)) },
			says:      "disk.raw was changed since the upload that was cut: beginning anew", silent: "going on"},
		"after a change that the time does not tell": {
			meanwhile: func(u *uploads) {
				info, _ := os.Stat(u.file)
				u.poke(info.ModTime())
			},
			says: "8 MiB of what is in the store are not what the file has, and are sent again"},
		"with another file": {
			meanwhile: func(u *uploads) {
				other := u.file + "2"
				_ = os.WriteFile(other, bytes.Repeat([]byte{7}, severalParts+1), 0o600)
				u.file = other
			},
			says: "this is another file: beginning anew", silent: "going on"},
		"after the parts were thrown away": {
			meanwhile: func(u *uploads) {
				ids, _ := u.store.Unfinished(u.t.Context(), u.bucket, "k")
				for _, id := range ids {
					_ = u.store.Abandon(u.t.Context(), u.bucket, "k", id)
				}
			},
			says: "the store no longer has the parts of the upload that was cut: beginning anew"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUploads(t, severalParts)
			u.cutAfter3()
			status, stderr := u.run()
			if status != StatusFailed || !strings.Contains(stderr, "are in the store: the same command goes on from there") {
				t.Fatalf("status %d: %s", status, stderr)
			}
			if _, err := os.Stat(filepath.Join(u.Folder, u.bucket, "k")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("half an object: %v", err)
			}
			u.Use(nil)
			if test.meanwhile != nil {
				test.meanwhile(u)
			}
			status, stderr = u.run(test.flags...)
			if status != statusOK || !strings.Contains(stderr, test.says) || test.silent != "" && strings.Contains(stderr, test.silent) {
				t.Errorf("status %d: %s", status, stderr)
			}
			if u.env["XDG_CACHE_HOME"] != "" {
				u.wantDone()
			}
		})
	}
}

// poke changes a byte of the file and sets its time.
func (u *uploads) poke(modified time.Time) {
	f, err := os.OpenFile(u.file, os.O_RDWR, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("changed"), 9<<20)
	if err := errors.Join(err, f.Close(), os.Chtimes(u.file, time.Time{}, modified)); err != nil {
		u.t.Fatal(err)
	}
}

// The parts were put together but the store's answer was lost: nothing is sent again.
func TestAnUploadWhoseAnswerWasLostIsDone(t *testing.T) {
	t.Parallel()
	u := newUploads(t, severalParts)
	u.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(lossy{w, r}, r)
			if completes(r) {
				panic(http.ErrAbortHandler)
			}
		})
	})
	if status, stderr := u.run(); status != StatusFailed {
		t.Fatalf("status %d: %s", status, stderr)
	}
	u.breakOn(func(r *http.Request) bool { return r.URL.Query().Has("partNumber") })
	if status, stderr := u.run(); status != statusOK || !strings.Contains(stderr, "all of "+u.file+" had arrived before the upload was cut") {
		t.Errorf("status %d: %s", status, stderr)
	}
	u.wantDone()
}

func completes(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// lossy swallows the answer to a completion.
type lossy struct {
	http.ResponseWriter
	r *http.Request
}

func (l lossy) WriteHeader(status int) {
	if !completes(l.r) {
		l.ResponseWriter.WriteHeader(status)
	}
}

func (l lossy) Write(p []byte) (int, error) {
	if completes(l.r) {
		return len(p), nil
	}
	return l.ResponseWriter.Write(p)
}

// What can't be gone on with leaves nothing.
func TestADamagedUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	u := newUploads(t, severalParts)
	u.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("partNumber") == "2" {
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, r)
				w.Header().Set("ETag", `"00000000000000000000000000000000"`)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	status, stderr := u.run()
	if status != StatusFailed || !strings.Contains(stderr, "what arrived is not what was sent") || strings.Contains(stderr, "goes on") {
		t.Errorf("status %d: %s", status, stderr)
	}
	u.wantNoParts()
	if _, err := os.Stat(filepath.Join(u.Folder, u.bucket, "k")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the object is there: %v", err)
	}
}

func TestWhatCanBeGoneOnWith(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{
		{ended, errors.New("any"), true},
		{t.Context(), errors.New("no answer"), true},
		{t.Context(), &client.Error{Status: 503}, true},
		{t.Context(), &client.Error{Status: 403}, true},
		{t.Context(), &client.Error{Status: 400, Code: "InvalidRequest"}, false},
		{t.Context(), &client.Error{Status: 404, Code: "NoSuchUpload"}, false},
		{t.Context(), fmt.Errorf("put: %w", client.ErrDamaged), false},
		{t.Context(), &changedError{errors.New("changed")}, false},
		{t.Context(), &fs.PathError{Op: "read", Path: "p", Err: fs.ErrInvalid}, false},
	} {
		if got := goesOn(test.ctx, test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

func TestTheStateLiesInTheUsersCache(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for _, test := range []struct{ xdg, home, want string }{
		{"/xdg", home, "/xdg/quickims/uploads"},
		{"relative", home, home + "/.cache/quickims/uploads"},
		{"", home, home + "/.cache/quickims/uploads"},
		{"", home + "/none", "."},
		{"", "", "."},
	} {
		s := &session{Env: Env{Getenv: func(name string) string {
			return map[string]string{"XDG_CACHE_HOME": test.xdg, "HOME": test.home}[name]
		}}}
		if got := filepath.Dir(s.statePath("http://store", objectName{"b", "k"})); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// What is made counts when it is sent; what has to be sent again does not go back
// behind what was shown.
func TestAPaceShowsWhatWasSent(t *testing.T) {
	t.Parallel()
	var shown []int64
	p := &pace{show: func(done int64) { shown = append(shown, done) }}
	p.made(0, 100) // a hole at the beginning is done at once
	p.made(10, 200)
	p.made(10, 300)
	p.made(30, 400)
	p.sent(10)
	p.sent(15)
	p.sent(-15)
	p.sent(20)
	p.made(30, 500)
	p.sent(5) // the footer
	if want := []int64{100, 300, 400, 500}; !slices.Equal(shown, want) {
		t.Errorf("shown %v, want %v", shown, want)
	}
}
