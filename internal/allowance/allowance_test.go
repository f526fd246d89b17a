package allowance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

type world struct {
	t      *testing.T
	folder string
	images int64
	counts int
}

func (w *world) allowance(bytes int64) *Allowance {
	return New(Options{
		Bytes: bytes, Folder: w.folder,
		Buckets: func(context.Context, string) ([]string, error) { w.counts++; return []string{"a", "b", "gone"}, nil },
		Images:  func(context.Context, string) (int64, error) { return w.images, nil },
	})
}

func (w *world) write(name string, n int) {
	w.t.Helper()
	path := filepath.Join(w.folder, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, n), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// upload stores a file if there is room.
func (w *world) upload(a *Allowance, name string, n int) error {
	w.t.Helper()
	u, err := a.Begin(w.t.Context(), "p", int64(n))
	if err != nil {
		return err
	}
	if err := u.Grow(int64(n)); err != nil {
		u.End(false)
		return err
	}
	w.write(name, n)
	u.End(true)
	return nil
}

// What projects have is counted from the files, in buckets and images together; a new
// process counts the same, and what was deleted makes room.
func TestLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, folder: t.TempDir(), images: 100}
		w.write("a/there/before", 200)
		w.write("other/file", 1<<20)
		a := w.allowance(1000)
		want := func(err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		want(w.upload(a, "b/1", 600), nil)
		want(w.upload(a, "b/2", 101), ErrQuota)
		want(w.upload(a, "b/2", 50), nil)
		// Many uploads, one count.
		for range 100 {
			want(w.upload(a, "b/0", 0), nil)
		}
		if w.counts != 1 {
			t.Errorf("the files were counted %d times", w.counts)
		}
		// Another process, as after a crash.
		want(w.upload(w.allowance(1000), "b/3", 51), ErrQuota)
		// What is deleted makes room once it is counted anew, not before a second.
		if err := os.Remove(filepath.Join(w.folder, "b/1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want(w.upload(a, "b/3", 600), nil)
		// Images count too, and a file that came by other means.
		w.images = 700
		want(w.upload(a, "b/4", 1), ErrQuota)
		w.images = 100
		w.write("a/by/hand", 50)
		time.Sleep(recount)
		want(w.upload(a, "b/4", 1), ErrQuota)
		if n, err := a.InBuckets(t.Context(), "p"); err != nil || n != 900 {
			t.Errorf("in buckets: %d, %v", n, err)
		}
	})
}

// Uploads that go on count, also across a new count, and those that fail do not.
func TestUploadsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, folder: t.TempDir()}
		a := w.allowance(1000)
		u, err := a.Begin(t.Context(), "p", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Grow(900); err != nil {
			t.Fatal(err)
		}
		time.Sleep(recount)
		if err := w.upload(a, "a/1", 200); !errors.Is(err, ErrQuota) {
			t.Errorf("beside another one: %v", err)
		}
		if err := u.Grow(101); !errors.Is(err, ErrQuota) {
			t.Errorf("beyond the limit: %v", err)
		}
		u.End(false)
		if err := w.upload(a, "a/1", 1000); err != nil {
			t.Errorf("after one that failed: %v", err)
		}
	})
}

func TestReserve(t *testing.T) {
	t.Parallel()
	full := Options{Disk: t.TempDir(), Reserve: 1 << 60}
	if _, err := New(full).Begin(t.Context(), "p", 0); !errors.Is(err, ErrReserve) {
		t.Errorf("a full disk: %v", err)
	}
	if err := New(full).Room(0); !errors.Is(err, ErrReserve) {
		t.Errorf("a full disk: %v", err)
	}
	full.Apart = true
	if u, err := New(full).Begin(t.Context(), "p", 0); err != nil || u.Grow(1) != nil {
		t.Errorf("buckets on another disk: %v", err)
	}
	some := New(Options{Disk: t.TempDir(), Reserve: 1})
	if err := some.Room(0); err != nil {
		t.Errorf("a disk with room: %v", err)
	}
	if err := some.Room(1 << 60); !errors.Is(err, ErrReserve) {
		t.Errorf("more than the disk has: %v", err)
	}
	var none *Allowance
	u, err := none.Begin(t.Context(), "p", 1)
	if err != nil || u.Grow(1) != nil {
		t.Error("no allowance is a limit")
	}
	u.End(true)
}
