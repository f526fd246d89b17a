package catalog

import (
	"errors"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
)

// TestUnavailable: while somebody else has the database locked, whatever writes says
// so and leaves nothing half-made, and goes well afterwards.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	databasetest.RunURL(t, func(t *testing.T, url string) {
		open := func(wait time.Duration) *database.DB {
			db, err := database.Open(t.Context(), url, database.Options{LockTimeout: wait})
			must(t, err)
			t.Cleanup(func() { db.Close() })
			return db
		}
		them, us := open(time.Minute), open(20*time.Millisecond)
		c := fixture{Catalog: New(us, Options{}), t: t}
		img, job := c.accept(mine)
		job = c.claim(job.ID)
		newImg, newJob := newImport(mine)
		create := func() error { return c.CreateImport(t.Context(), domain, newImg, newJob, plenty, noQueue) }

		must(t, them.InTx(t.Context(), func(tx *database.Tx) error {
			if tx.Dialect() == database.Postgres {
				if _, err := tx.ExecContext(t.Context(), "LOCK TABLE images, jobs, image_tags IN EXCLUSIVE MODE"); err != nil {
					return err
				}
			}
			calls := c.writes(img)
			calls["CreateImport"] = func(ims.Job) error { return create() }
			calls["ClaimJob"] = func(ims.Job) error { _, _, err := c.ClaimJob(t.Context(), job.ID, lease); return err }
			calls["DeleteImage"] = func(ims.Job) error { return c.DeleteImage(t.Context(), mine, img.ID, false) }
			calls["Attach"] = func(ims.Job) error {
				_, err := c.Attach(t.Context(), by(mine), ims.Attachment{ID: ims.NewAttachmentID(), ImageID: img.ID}, "hash", AttachLife{TTL: time.Hour}, plenty)
				return err
			}
			calls["SetTags"] = func(ims.Job) error { return c.SetTags(t.Context(), mine, img.ID, []ims.Tag{{Key: "x"}}) }
			calls["UpdateImage"] = func(ims.Job) error {
				_, err := c.UpdateImage(t.Context(), domain, mine, img.ID, func(*ims.Image) error { return nil })
				return err
			}
			for name, call := range calls {
				if name == "ClaimJob" && tx.Dialect() == database.Postgres {
					continue // finds no row to claim, so it waits for no lock
				}
				if err := call(job); !errors.Is(err, database.ErrUnavailable) {
					t.Errorf("%s: %v, want ErrUnavailable", name, err)
				}
			}
			return nil
		}))
		if _, err := c.Image(t.Context(), mine, newImg.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("an import that was refused left its image (%v)", err)
		}
		if got := c.image(mine, img.ID); got.Status != ims.ImageQueued || len(got.Tags) != len(img.Tags) {
			t.Errorf("the image became %+v", got)
		}
		must(t, create())
		must(t, c.Publish(t.Context(), job, dataOf(job)))
	})
}
