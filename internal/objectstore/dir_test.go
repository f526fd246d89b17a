package objectstore_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// dirStore is a directory store and its two folders.
type dirStore struct {
	*objectstore.Dir
	buckets, images string
}

func newDirStore(t testing.TB, base string) dirStore {
	t.Helper()
	s := dirStore{buckets: filepath.Join(base, "buckets"), images: filepath.Join(base, "images")}
	for _, dir := range []string{s.buckets, s.images} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.Dir, err = objectstore.OpenDir(s.buckets, s.images); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s dirStore) path(bucket, key string) string { return filepath.Join(s.buckets, bucket, key) }

// write makes a new file and moves it to its place, as an upload does.
func (s dirStore) write(t *testing.T, bucket, key string, content []byte) {
	t.Helper()
	path := s.path(bucket, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.CreateTemp(s.buckets, "UPLOAD")
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if _, err := fresh.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh.Name(), path); err != nil {
		t.Fatal(err)
	}
}

func (s dirStore) harness() storetest.Harness {
	var buckets atomic.Int64
	return storetest.Harness{
		Store: s,
		NewBucket: func(t *testing.T) string {
			name := "bucket-" + string(rune('a'+buckets.Add(1)))
			if err := os.Mkdir(filepath.Join(s.buckets, name), 0o755); err != nil {
				t.Fatal(err)
			}
			return name
		},
		Write: s.write,
		Remove: func(t *testing.T, bucket, key string) {
			if err := os.Remove(s.path(bucket, key)); err != nil {
				t.Fatal(err)
			}
		},
		HiddenBuckets: []string{"../images", "images", ".vgwlocks"},
	}
}

func TestDirConforms(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness { return newDirStore(t, t.TempDir()).harness() })
}

func TestDirConformsByCopying(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		s := newDirStore(t, t.TempDir())
		s.ForceCopy()
		return s.harness()
	})
}

func TestWrappersConform(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		h := newDirStore(t, t.TempDir()).harness()
		h.Store = objectstore.Retry(objectstore.Count(h.Store), objectstore.RetryPolicy{})
		return h
	})
}
