package objectstore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
)

// hold keeps an object open as the service does: through what wraps the store.
func hold(t *testing.T, s objectstore.Store, loc objectstore.Location, info objectstore.ObjectInfo) objectstore.Held {
	t.Helper()
	h, err := objectstore.Hold(t.Context(), objectstore.Count(objectstore.Retry(s, objectstore.RetryPolicy{})), loc, info.Condition())
	if err != nil || h == nil {
		t.Fatalf("hold %s: %v, %v", loc, h, err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// What happens to a source that is held open.
func TestHeldSource(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("content "), 1000)
	for name, tc := range map[string]struct {
		do   func(t *testing.T, path string)
		want error
	}{
		"nothing":           {func(*testing.T, string) {}, nil},
		"linked":            {func(t *testing.T, path string) { must(t, os.Link(path, path+".2")) }, nil},
		"mode set":          {func(t *testing.T, path string) { onNextTick(t, path, func() { must(t, os.Chmod(path, 0o640)) }) }, nil},
		"written to":        {func(t *testing.T, path string) { overwrite(t, path, "changed") }, objectstore.ErrChanged},
		"written to, quiet": {func(t *testing.T, path string) { overwriteQuietly(t, path, "changed") }, objectstore.ErrChanged},
		"truncated":         {func(t *testing.T, path string) { must(t, os.Truncate(path, 10)) }, objectstore.ErrChanged},
		"removed":           {func(t *testing.T, path string) { must(t, os.Remove(path)) }, objectstore.ErrNotFound},
		"replaced": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", content, 0o600))
			must(t, os.Rename(path+".new", path))
		}, objectstore.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDirStore(t, t.TempDir())
			s.write(t, src.Bucket, src.Key, content)
			h := hold(t, s, src, stat(t, s, src))
			p := make([]byte, 100)
			must(t, h.ReadAt(t.Context(), p, 8))
			if !bytes.Equal(p, content[8:108]) {
				t.Fatal("other bytes were read")
			}
			tc.do(t, s.path(src.Bucket, src.Key))
			for range 2 {
				if err := h.ReadAt(t.Context(), p, 16); !errors.Is(err, tc.want) || tc.want == nil && !bytes.Equal(p, content[16:116]) {
					t.Errorf("the read ended with error %v, want %v, or with other bytes", err, tc.want)
				} else if err != nil && !bytes.Equal(p, make([]byte, 100)) {
					t.Error("a read that failed left bytes behind")
				}
			}
		})
	}
}

// What can't be held, and ranges that are none.
func TestHoldRefuses(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.write(t, src.Bucket, src.Key, make([]byte, 1000))
	info := stat(t, s, src)
	other := info
	other.ETag = "of other bytes"
	if _, err := s.Hold(t.Context(), src, other.Condition()); !errors.Is(err, objectstore.ErrChanged) {
		t.Errorf("another generation was held: %v", err)
	}
	gone := src
	gone.Key = "gone"
	if _, err := s.Hold(t.Context(), gone, info.Condition()); !errors.Is(err, objectstore.ErrNotFound) {
		t.Errorf("what is not there was held: %v", err)
	}
	h := hold(t, s, src, info)
	for _, r := range []struct {
		off  int64
		n    int
		want error
	}{{-1, 1, objectstore.ErrInvalid}, {1000, 1, io.ErrUnexpectedEOF}, {999, 2, io.ErrUnexpectedEOF}, {0, 1000, nil}} {
		if err := h.ReadAt(t.Context(), make([]byte, r.n), r.off); !errors.Is(err, r.want) {
			t.Errorf("%d bytes at %d: error %v, want %v", r.n, r.off, err, r.want)
		}
	}
	must(t, h.Close())
	if err := h.ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Error("what was let go can be read")
	}
}

// Reads of an object that is let go meanwhile bring its bytes or fail.
func TestHeldClosedWhileRead(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("content "), 1000)
	s := newDirStore(t, t.TempDir())
	s.write(t, src.Bucket, src.Key, content)
	info := stat(t, s, src)
	for range 20 {
		h := hold(t, s, src, info)
		var reading, readers sync.WaitGroup
		for range 4 {
			reading.Add(1)
			readers.Go(func() {
				p := make([]byte, len(content))
				began := sync.OnceFunc(reading.Done)
				defer began()
				for {
					if n := h.ReadReady([][]byte{p[:10], p[10:]}, 0); !bytes.Equal(p[:n], content[:n]) {
						t.Error("other bytes were at hand")
						return
					}
					if h.ReadAt(t.Context(), p, 0) != nil {
						return
					}
					if !bytes.Equal(p, content) {
						t.Error("other bytes were read")
						return
					}
					began()
				}
			})
		}
		reading.Wait()
		must(t, h.Close())
		readers.Wait()
	}
}
