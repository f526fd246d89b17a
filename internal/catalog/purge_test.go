package catalog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/ims"
)

// failed is an import that failed.
func (c fixture) failed(limits ims.Limits) (ims.Image, ims.Job) {
	c.t.Helper()
	img, job := newImport(mine)
	if err := c.CreateImport(c.t.Context(), domain, img, job, limits, noQueue); err != nil {
		c.t.Fatal(err)
	}
	job, ok, err := c.ClaimJob(c.t.Context(), job.ID, time.Minute)
	if err != nil || !ok {
		c.t.Fatal(ok, err)
	}
	if err := c.Fail(c.t.Context(), job, ims.CodeInternal, "no good"); err != nil {
		c.t.Fatal(err)
	}
	c.clock.advance(time.Second)
	return img, job
}

// rows counts the rows of a table.
func (c fixture) rows(table string) int {
	c.t.Helper()
	n, err := count(c.t.Context(), c.db, "SELECT COUNT(*) FROM "+table)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// However many imports fail, a project keeps a bounded number of killed images, the
// newest, without waiting for a clean-up.
func TestFailedImportsAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		limits := ims.Limits{Images: 2, Imports: 10, Attachments: 10}
		var last ims.Image
		for range 30 {
			last, _ = c.failed(limits)
		}
		if n := c.rows("images"); n != 21 {
			t.Errorf("%d killed images are kept, want 20 and the newest", n)
		}
		if n := c.rows("jobs"); n != 21 {
			t.Errorf("%d jobs are kept", n)
		}
		if _, err := c.Image(t.Context(), mine, last.ID); err != nil {
			t.Errorf("the newest: %v", err)
		}
	})
}

// What ended long ago is removed, and what is needed stays: active images, jobs that go
// on, deleted images while a job or bytes of them are left, markers for a day.
func TestPurge(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		ctx := t.Context()
		purge := func() {
			t.Helper()
			if err := c.Purge(ctx, plenty); err != nil {
				t.Fatal(err)
			}
		}
		dead, _ := c.failed(plenty)
		active, _ := c.active(mine)
		gone, _ := c.active(mine)
		if err := c.DeleteImage(ctx, mine, gone.ID, false); err != nil {
			t.Fatal(err)
		}
		going, _ := c.accept(mine)
		has := func(what string, id string, want bool) {
			t.Helper()
			n, err := count(ctx, c.db, "SELECT COUNT(*) FROM images WHERE id = $1", id)
			if err != nil {
				t.Fatal(err)
			}
			if (n == 1) != want {
				t.Errorf("%s: its row is there: %v", what, n == 1)
			}
		}
		purge()
		c.clock.advance(keepDeleted)
		purge()
		has("a killed image", dead.ID, true)
		has("a deleted image whose job is kept", gone.ID, true)
		if _, err := c.db.ExecContext(ctx, "DELETE FROM attempts WHERE image_id = $1", dead.ID); err != nil {
			t.Fatal(err)
		}
		c.clock.advance(keepEnded)
		purge()
		has("a killed image", dead.ID, false)
		has("an active image", active.ID, true)
		has("an image that is being made", going.ID, true)
		has("a deleted image with bytes", gone.ID, true)
		if n := c.rows("jobs"); n != 1 {
			t.Errorf("%d jobs are left, want the one that goes on", n)
		}
		if _, err := c.db.ExecContext(ctx, "DELETE FROM attempts WHERE image_id = $1", gone.ID); err != nil {
			t.Fatal(err)
		}
		purge()
		has("a deleted image without job and bytes", gone.ID, false)
	})
}

// Many rows are removed over several transactions, to the last one.
func TestPurgeOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		const n = 2*purgeBatch + 7
		fill(t, c.Catalog, n)
		if err := c.Purge(t.Context(), plenty); err != nil {
			t.Fatal(err)
		}
		if left := c.rows("images"); left != 10 {
			t.Errorf("%d rows are left, want the 10 images", left)
		}
	})
}

// fill writes 10 images and n deleted ones, without jobs, of the project mine.
func fill(t testing.TB, c *Catalog, n int) {
	t.Helper()
	ctx := context.Background()
	for from := 0; from < n+10; from += 5000 {
		err := c.db.InTx(ctx, func(tx *database.Tx) error {
			for i := from; i < min(from+5000, n+10); i++ {
				img, _ := newImport(mine)
				img.Tags = nil
				img.Status, img.CreatedAt, img.UpdatedAt = ims.ImageQueued, c.now().Add(time.Duration(i)*time.Millisecond), c.now()
				if err := insertImage(ctx, tx, img); err != nil {
					return err
				}
				if step := (n + 10) / 10; i%step == 0 && i/step < 10 {
					continue
				}
				if _, err := tx.ExecContext(ctx, "UPDATE images SET deleted_at = $2 WHERE id = $1", img.ID, c.now().Add(-2*keepDeleted).UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkListBesideDeleted lists 10 images beside 200,000 deleted ones, on SQLite and,
// with QUICKIMS_TEST_POSTGRES, on PostgreSQL.
func BenchmarkListBesideDeleted(b *testing.B) {
	for kind, url := range map[string]func(testing.TB) string{"sqlite": databasetest.SQLite, "postgres": databasetest.Postgres} {
		b.Run(kind, func(b *testing.B) {
			db, err := database.Open(b.Context(), url(b), database.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			c := New(db, Options{})
			fill(b, c, 200_000)
			list := func(b *testing.B) {
				for b.Loop() {
					got, err := c.Images(b.Context(), mine, ims.ImageFilter{Status: []ims.ImageStatus{ims.ImageQueued}})
					if err == nil && len(got) != 10 {
						err = fmt.Errorf("%d images", len(got))
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.Run("before the purge", list)
			if err := c.Purge(b.Context(), plenty); err != nil {
				b.Fatal(err)
			}
			b.Run("after the purge", list)
		})
	}
}

// Imports end at the limit of bytes, which counts what is in buckets too; an image that
// is deleted, or whose import failed, makes room.
func TestLimitOfBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		limits := plenty
		limits.Bytes, limits.InBuckets = 3<<40, 1<<39
		img, job := newImport(mine)
		create := func() error {
			img, job = newImport(mine)
			return c.CreateImport(t.Context(), domain, img, job, limits, noQueue)
		}
		must(t, create())
		must(t, create())
		if err := create(); ims.CodeOf(err) != ims.CodeQuota {
			t.Errorf("beyond the limit: %v", err)
		}
		limits.InBuckets = 0
		must(t, create())
		if err := create(); ims.CodeOf(err) != ims.CodeQuota {
			t.Errorf("beyond the limit: %v", err)
		}
		if n, err := c.ImageBytes(t.Context(), mine); err != nil || n != 3<<40 {
			t.Errorf("%d bytes, %v", n, err)
		}
		going, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM jobs WHERE end_time IS NULL")
		if err != nil || going != 3 {
			t.Fatal(going, err)
		}
		ids, err := texts(t.Context(), c.db, "SELECT id FROM jobs")
		must(t, err)
		must(t, c.Fail(t.Context(), c.claim(ids[0]), ims.CodeInternal, "no"))
		must(t, create())
	})
}
