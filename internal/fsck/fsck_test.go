package fsck

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// world is a catalog with a directory store. What the two hold together, test/ownership
// looks at.
func world(t *testing.T, db *database.DB) (*Checker, string) {
	t.Helper()
	dir := t.TempDir()
	buckets, images := filepath.Join(dir, "buckets"), filepath.Join(dir, "images")
	for _, d := range []string{buckets, images} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	store, err := objectstore.OpenDir(buckets, images)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &Checker{Catalog: catalog.New(db, catalog.Options{}), Store: store}, images
}

func (c *Checker) mustCheck(t *testing.T) Report {
	t.Helper()
	r, err := c.Check(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(r Report) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, string(f.Kind))
	}
	slices.Sort(out)
	return out
}

// TestRows: rows that do not fit each other are found on both databases, and set right;
// those that fit stay.
func TestRows(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		c, _ := world(t, db)
		ids := []string{ims.NewImageID(), ims.NewImageID()}
		limits := ims.Limits{Images: 10, Imports: 10, Attachments: 10}
		for _, id := range ids {
			img := ims.Image{ID: id, ProjectID: "p", EnterpriseProjectID: ims.DefaultEnterpriseProject, Name: "n", Env: ims.EnvECS,
				MaxRAMMiB: "0", SourceURL: "b:k", Tags: []ims.Tag{{Key: "k", Value: "v"}}}
			job := ims.Job{ID: ims.NewJobID(), ProjectID: "p", Type: ims.JobImportSystem, Step: ims.StepAccepted, ImageID: id, Source: ims.Source{Bucket: "b", Key: "k"}}
			if err := c.Catalog.CreateImport(t.Context(), "d", img, job, limits, func(context.Context, *database.Tx, string) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if r := c.mustCheck(t); len(r.Findings) != 0 {
			t.Fatalf("findings %+v in a fresh catalog", r.Findings)
		}
		for _, query := range []string{
			"UPDATE images SET deleted_at = 1 WHERE id = $1",
			"INSERT INTO image_members (image_id, member_id, status, created_at, updated_at) VALUES ($1, 'm', 'pending', 1, 1)",
		} {
			if _, err := db.ExecContext(t.Context(), query, ids[0]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.ExecContext(t.Context(), "UPDATE images SET members = 3 WHERE id = $1", ids[1]); err != nil {
			t.Fatal(err)
		}
		r := c.mustCheck(t)
		if got, want := kinds(r), []string{"count", "orphaned-row", "orphaned-row"}; !slices.Equal(got, want) {
			t.Errorf("findings %q, want %q: %+v", got, want, r.Findings)
		}
		if err := c.Repair(t.Context(), &r, time.Now(), time.Hour); err != nil || r.Open() != 0 {
			t.Errorf("repair: %v, %d findings stay", err, r.Open())
		}
		if r := c.mustCheck(t); len(r.Findings) != 0 {
			t.Errorf("after the repair: %+v", r.Findings)
		}
		img, err := c.Catalog.Image(t.Context(), "p", ids[1])
		if err != nil || len(img.Tags) != 1 {
			t.Errorf("the sound image has the tags %v (%v)", img.Tags, err)
		}
	})
}

// TestRepairLooksAgain: between the check and the repair an object may change, or get a
// row; it stays then.
func TestRepairLooksAgain(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		c, images := world(t, db)
		explained, changed, gone, old := ims.NewImageID(), ims.NewImageID(), ims.NewImageID(), ims.NewImageID()
		path := func(id string) string { return filepath.Join(images, id, "1", "disk") }
		for _, id := range []string{explained, changed, gone, old} {
			if err := os.MkdirAll(filepath.Dir(path(id)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path(id), []byte("12345"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := c.mustCheck(t)
		later := time.Now().Add(time.Hour)
		if x := r.Removable(later, time.Minute); x.Objects != 4 || x.Bytes != 20 || !r.Much(x) {
			t.Errorf("removable %+v of %+v", x, r)
		}
		if x := r.Removable(later, 2*time.Hour); x.Objects != 0 || r.Much(x) {
			t.Errorf("removable within the grace: %+v", x)
		}
		if _, err := db.ExecContext(t.Context(), "INSERT INTO attempts (prefix, image_id, began_at, looks) VALUES ($1, $2, 1, 0)", explained+"/1/", explained); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(changed), []byte("other bytes"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path(gone)); err != nil {
			t.Fatal(err)
		}
		if err := c.Repair(t.Context(), &r, later, time.Minute); err != nil {
			t.Fatal(err)
		}
		for id, stays := range map[string]bool{explained: true, changed: true, gone: false, old: false} {
			if _, err := os.Stat(path(id)); (err == nil) != stays {
				t.Errorf("%s: %v, want it to stay: %v", path(id), err, stays)
			}
		}
	})
}

// TestLeftovers: what the clean-up should have removed long ago is reported, as long as
// it is there; and it is nothing unknown.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		c, images := world(t, db)
		now := time.Now()
		stuck, gone, late, again := ims.NewImageID(), ims.NewImageID(), ims.NewImageID(), ims.NewImageID()
		for id, a := range map[string]struct {
			ended time.Time
			looks int
		}{stuck: {now.Add(-2 * time.Hour), 0}, gone: {now.Add(-2 * time.Hour), 0}, late: {now.Add(-time.Minute), 0}, again: {now.Add(-2 * time.Hour), 1}} {
			if _, err := db.ExecContext(t.Context(), "INSERT INTO attempts (prefix, image_id, began_at, ended_at, due_at, looks) VALUES ($1, $2, 1, $3, $3, $4)",
				id+"/1/", id, a.ended.UnixMilli(), a.looks); err != nil {
				t.Fatal(err)
			}
			if id == gone {
				continue
			}
			path := filepath.Join(images, id, "1", "disk")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := c.mustCheck(t)
		if len(r.Findings) != 1 || r.Findings[0].Kind != Leftover || r.Findings[0].Key != stuck+"/1/disk" || r.Findings[0].Bytes != 5 {
			t.Errorf("findings %+v, want the leftover of %s", r.Findings, stuck)
		}
		if err := c.Repair(t.Context(), &r, now, 0); err != nil || r.Open() != 1 {
			t.Errorf("repair: %v, %d findings stay", err, r.Open())
		}
	})
}

// TestGraceAfterTakeOver: at a take-over images of the lost database become unknown, and
// the bytes of an image may be as old as the file that it was made of. So what is unknown
// is no older than the take-over.
func TestGraceAfterTakeOver(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := Report{Objects: 100, Bytes: 100, Findings: []Finding{{Kind: UnknownObject, Bytes: 1, Since: now.Add(-365 * 24 * time.Hour)}}}
	if x := r.Removable(now, 24*time.Hour); x.Objects != 1 {
		t.Errorf("removable %+v, want the old object", x)
	}
	r.TakenOver = now.Add(-time.Hour)
	if x := r.Removable(now, 24*time.Hour); x.Objects != 0 {
		t.Errorf("removable an hour after the take-over: %+v", x)
	}
	if x := r.Removable(now, time.Minute); x.Objects != 1 {
		t.Errorf("removable after the grace: %+v", x)
	}
}
