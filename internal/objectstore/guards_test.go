package objectstore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// TestAdoptNoticesAWriteAfterTheLink: what is written between the linking and the end of
// the adoption is in the image, too. The adoption must fail and leave nothing.
func TestAdoptNoticesAWriteAfterTheLink(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(t *testing.T, path string){
		"longer": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString("more")
			must(t, errors.Join(err, f.Close()))
		},
		"longer, its time put back": func(t *testing.T, path string) {
			before, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, before.Size()+512))
			must(t, os.Chtimes(path, time.Time{}, before.ModTime()))
		},
		"of the same size": func(t *testing.T, path string) { overwrite(t, path, "other") },
		"of another time":  func(t *testing.T, path string) { must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))) },
	} {
		s := newDirStore(t, t.TempDir())
		s.write(t, src.Bucket, src.Key, []byte("content of a disk"))
		pinned := stat(t, s, src)
		dst := image("a/1/disk")
		written := false
		s.OnSync(func(string) {
			if !written {
				written = true
				write(t, s.path(src.Bucket, src.Key))
			}
		})
		_, err := s.Adopt(t.Context(), src, pinned.Condition(), dst, objectstore.AdoptOptions{})
		if !written {
			t.Fatalf("%s: nothing was written meanwhile", name)
		}
		info, there := os.Stat(filepath.Join(s.images, dst.Key))
		if cloned := there == nil && info.Size() == pinned.Size; err == nil && cloned && !sameFile(t, s.path(src.Bucket, src.Key), filepath.Join(s.images, dst.Key)) {
			continue // the file system clones: what is written to the source is not the image's
		}
		if !errors.Is(err, objectstore.ErrChanged) || there == nil {
			t.Errorf("%s: %v; the image's file: %v", name, err, there)
		}
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	ai, err := os.Stat(a)
	must(t, err)
	bi, err := os.Stat(b)
	must(t, err)
	return os.SameFile(ai, bi)
}

// TestAdoptSyncsEachFolder: an image survives a power cut only if every name on its path
// does, also when an attempt that was cut off had made it already, and when a folder was
// there before.
func TestAdoptSyncsEachFolder(t *testing.T) {
	t.Parallel()
	for _, copied := range []bool{false, true} {
		s := newDirStore(t, t.TempDir())
		if copied {
			s.ForceCopy()
		}
		s.write(t, src.Bucket, src.Key, []byte("content of a disk"))
		pinned := stat(t, s, src)
		top, err := filepath.EvalSymlinks(s.images)
		must(t, err)
		for _, again := range []string{"first", "again"} {
			var synced []string
			s.OnSync(func(path string) { synced = append(synced, path) })
			_, err := s.Adopt(t.Context(), src, pinned.Condition(), image("a/1/disk"), objectstore.AdoptOptions{})
			must(t, err)
			for _, folder := range []string{filepath.Join(top, "a", "1"), filepath.Join(top, "a"), top} {
				if !slices.Contains(synced, folder) {
					t.Errorf("copied: %v, %s: %s was not synced, only %q", copied, again, folder, synced)
				}
			}
		}
	}
}

// cutting is a store whose first reader is cut off after some bytes.
type cutting struct {
	objectstore.Store
	after int64
	opens int
}

func (c *cutting) Open(ctx context.Context, loc objectstore.Location, cond objectstore.Condition, off, n int64) (io.ReadCloser, error) {
	body, err := c.Store.Open(ctx, loc, cond, off, n)
	if c.opens++; err != nil || c.opens > 1 {
		return body, err
	}
	return &cutBody{body, c.after}, nil
}

type cutBody struct {
	io.ReadCloser
	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, &objectstore.Error{Op: "read", Err: objectstore.ErrUnavailable}
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// TestNoResumeWithoutACondition: what a reader finds when it opens the object again may
// be another generation, and only a condition tells.
func TestNoResumeWithoutACondition(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	const content = "content of a disk"
	s.write(t, src.Bucket, src.Key, []byte(content))
	pinned := stat(t, s, src)
	read := func(cond objectstore.Condition) (string, int, error) {
		c := &cutting{Store: s, after: 7}
		r := objectstore.Retry(c, objectstore.RetryPolicy{Wait: func(context.Context, time.Duration) error { return nil }})
		body, err := r.Open(t.Context(), src, cond, 0, pinned.Size)
		must(t, err)
		defer body.Close()
		got, err := io.ReadAll(body)
		return string(got), c.opens, err
	}
	if got, opens, err := read(pinned.Condition()); got != content || opens != 2 || err != nil {
		t.Errorf("under a condition: %q, opened %d times, %v", got, opens, err)
	}
	got, opens, err := read(objectstore.Condition{})
	if !errors.Is(err, objectstore.ErrUnavailable) || opens != 1 || !strings.HasPrefix(content, got) {
		t.Errorf("without one: %q, opened %d times, %v", got, opens, err)
	}
}

// TestAnEmptyObjectIsSentPlainly: its body has no bytes at all, not even a last piece of
// a signature, which servers may leave on the connection for the next request.
func TestAnEmptyObjectIsSentPlainly(t *testing.T) {
	t.Parallel()
	g := storetest.StartGateway(t)
	s := newS3Store(t, g, nil)
	sums := make(chan string, 1)
	g.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				sums <- fmt.Sprintf("%d %s", r.ContentLength, r.Header.Get("X-Amz-Content-Sha256"))
			}
			next.ServeHTTP(w, r)
		})
	})
	info, err := s.Put(t.Context(), image("empty"), strings.NewReader(""), 0, objectstore.PutOptions{})
	if err != nil || info.Size != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if got, want := <-sums, fmt.Sprintf("0 %x", sha256.Sum256(nil)); got != want {
		t.Errorf("length and checksum of the body: %s, want %s", got, want)
	}
}
