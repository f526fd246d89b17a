package importer

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

func (b *bench) area() []string {
	b.t.Helper()
	list, err := b.Store.List(b.t.Context(), objectstore.ImageArea, "", "", 100)
	must(b.t, err)
	var keys []string
	for _, o := range list {
		keys = append(keys, o.Key)
	}
	return keys
}

// TestNotOwned: while it is not known whose the image area is, nothing is written there
// and nothing is removed; afterwards both happens.
func TestNotOwned(t *testing.T) {
	t.Parallel()
	var foreign atomic.Bool
	b := newBench(t, Options{Own: func(context.Context) error {
		if foreign.Load() {
			return errors.New("another installation's")
		}
		return nil
	}})
	b.raw("d.raw", disk(1))
	done := b.ended(b.accepted("d.raw"))
	if done.Status != ims.JobSuccess || len(b.area()) == 0 {
		t.Fatalf("the import ended as %+v", done)
	}
	must(t, b.catalog.DeleteImage(t.Context(), project, done.ImageID, false))
	before := len(b.area())
	foreign.Store(true)
	if err := b.imp.CleanUp(t.Context()); !errors.Is(err, errNotOwned) || len(b.area()) != before {
		t.Errorf("clean-up: %v, the area holds %q", err, b.area())
	}
	id := b.accepted("d.raw")
	if _, err := b.imp.Work(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if len(b.area()) != before {
		t.Errorf("an import wrote %q", b.area())
	}
	foreign.Store(false)
	b.advance(time.Minute)
	if job := b.ended(id); job.Status != ims.JobSuccess {
		t.Errorf("the import ended as %s: %s", job.Status, job.FailReason)
	}
	must(t, b.imp.CleanUp(t.Context()))
	for _, key := range b.area() {
		if a, _ := imagearea.Of(key); a.ImageID == done.ImageID {
			t.Errorf("%s stays", key)
		}
	}
}

// TestCleanUpGoesOn: what cannot be removed is tried again later, and holds up nothing.
func TestCleanUpGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.raw("d.raw", disk(1))
	var images []string
	for range 3 {
		images = append(images, b.ended(b.accepted("d.raw")).ImageID)
	}
	stuck := &stubborn{Store: b.Store, image: images[0]}
	b.Store = stuck
	for _, id := range images {
		must(t, b.catalog.DeleteImage(t.Context(), project, id, false))
	}
	if err := b.imp.CleanUp(t.Context()); !errors.Is(err, objectstore.ErrDenied) {
		t.Errorf("clean-up: %v, want the store's fault", err)
	}
	if keys := b.area(); len(keys) != 2 {
		t.Errorf("the area holds %q, want the disk and bitmap that cannot be removed", keys)
	}
	must(t, b.imp.CleanUp(t.Context())) // it waits
	stuck.image = ""
	b.advance(cleanEvery)
	must(t, b.imp.CleanUp(t.Context()))
	if keys := b.area(); len(keys) != 0 {
		t.Errorf("the area holds %q", keys)
	}
}

// stubborn is a store that does not let go of an image's objects.
type stubborn struct {
	objectstore.Store
	image string
}

func (s *stubborn) Delete(ctx context.Context, loc objectstore.Location) error {
	if a, ok := imagearea.Of(loc.Key); ok && a.ImageID == s.image {
		return &objectstore.Error{Op: "delete", Location: loc, Err: objectstore.ErrDenied}
	}
	return s.Store.Delete(ctx, loc)
}
