package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
)

// Known reports whether bytes under an attempt's prefix are explained by a row: an
// image has its data there, or the attempt is recorded as one that writes, or wrote, there.
func (c *Catalog) Known(ctx context.Context, a imagearea.Attempt) (bool, error) {
	n, err := count(ctx, c.db, `SELECT (SELECT COUNT(*) FROM attempts WHERE prefix = $2)
		+ (SELECT COUNT(*) FROM images WHERE id = $1 AND deleted_at IS NULL AND data_bucket = ''
			AND (substr(data_key, 1, length($2)) = $2 OR substr(data_bitmap_key, 1, length($2)) = $2))`, a.ImageID, a.Prefix())
	return n > 0, wrap(err, "ask whether "+a.Prefix()+" is known")
}

// EndUnfinished fails all jobs that have not ended, as Fail and FailUpload do, and forgets
// their attempts, so that nothing removes what those wrote: in a newer copy of this
// database they may be images. reason is what the jobs' clients read. Nobody may hold a
// job meanwhile.
func (c *Catalog) EndUnfinished(ctx context.Context, reason string) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		prefixes, err := texts(ctx, tx, "SELECT prefix FROM attempts WHERE ended_at IS NULL")
		if err != nil {
			return err
		}
		for _, prefix := range prefixes {
			if err := forgetAttempt(ctx, tx, prefix); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "UPDATE jobs SET lease_until = $1 WHERE end_time IS NULL", c.now().UnixMilli()); err != nil {
			return err
		}
		var jobs []ims.Job
		err = each(ctx, tx, "SELECT "+jobColumns+" FROM jobs WHERE end_time IS NULL ORDER BY id", nil, func(rows *sql.Rows) error {
			job, err := scanJob(rows)
			jobs = append(jobs, job)
			return err
		})
		if err != nil {
			return err
		}
		for _, job := range jobs {
			end := c.fail
			if job.Type == ims.JobUpload {
				end = c.failUpload
			}
			if err := end(ctx, tx, job, ims.CodeInternal, reason); err != nil {
				return err
			}
		}
		return nil
	}), "end unfinished jobs")
}

// CountImages counts the images of all projects whose data is in the image area.
func (c *Catalog) CountImages(ctx context.Context) (int, error) {
	n, err := count(ctx, c.db, "SELECT COUNT(*) FROM images WHERE status = $1 AND deleted_at IS NULL", string(ims.ImageActive))
	return n, wrap(err, "count the active images")
}

// ImageData is an active image as far as the image area is concerned.
type ImageData struct {
	ID, ProjectID string
	Data          ims.Data
}

// ActiveData lists the data of active images of all projects, ordered by image id, from
// the one after the id after. The ids are random, so that the first ones are a sample.
func (c *Catalog) ActiveData(ctx context.Context, after string, limit int) ([]ImageData, error) {
	var out []ImageData
	err := each(ctx, c.db, `SELECT id, project_id, data_key, data_etag, data_format, data_size, data_virtual_size, data_bitmap_key, data_bitmap_etag, data_bitmap_size, generation
		FROM images WHERE status = $1 AND deleted_at IS NULL AND data_bucket = '' AND id > $2 ORDER BY id LIMIT $3`,
		[]any{string(ims.ImageActive), after, limit}, func(rows *sql.Rows) error {
			var i ImageData
			d := &i.Data
			err := rows.Scan(&i.ID, &i.ProjectID, &d.Key, &d.ETag, &d.Format, &d.Size, &d.VirtualSize, &d.BitmapKey, &d.BitmapETag, &d.BitmapSize, &d.Generation)
			out = append(out, i)
			return err
		})
	return out, wrap(err, "list the data of active images")
}

// Generations returns those of some names of bytes that images have now.
func (c *Catalog) Generations(ctx context.Context, some []string) ([]string, error) {
	if len(some) == 0 {
		return nil, nil
	}
	args := make([]any, len(some))
	for i, g := range some {
		args[i] = g
	}
	var out []string
	err := each(ctx, c.db, "SELECT generation FROM images WHERE deleted_at IS NULL AND status <> 'killed' AND generation IN "+placeholders(1, len(some)),
		args, func(rows *sql.Rows) error {
			var g string
			err := rows.Scan(&g)
			out = append(out, g)
			return err
		})
	return out, wrap(err, "look for the names of images' bytes")
}

// StillActive reports whether an image is active and has the data that it had.
func (c *Catalog) StillActive(ctx context.Context, img ImageData) (bool, error) {
	n, err := count(ctx, c.db, "SELECT COUNT(*) FROM images WHERE id = $1 AND status = $2 AND deleted_at IS NULL AND data_key = $3 AND data_etag = $4",
		img.ID, string(ims.ImageActive), img.Data.Key, img.Data.ETag)
	return n > 0, wrap(err, "look at image "+img.ID)
}

// Recorded reports whether an attempt writes, or wrote, to the image area and was not
// published.
func (c *Catalog) Recorded(ctx context.Context, a imagearea.Attempt) (bool, error) {
	n, err := count(ctx, c.db, "SELECT COUNT(*) FROM attempts WHERE prefix = $1", a.Prefix())
	return n > 0, wrap(err, "look for attempt "+a.Prefix())
}

// KnownKey reports whether a row explains an object under an attempt's prefix: it is the
// disk or the bitmap of an image, or one of the keys of an attempt that is recorded.
func (c *Catalog) KnownKey(ctx context.Context, a imagearea.Attempt, key string) (bool, error) {
	attempts := 0
	if slices.Contains(a.Keys(), key) {
		attempts = 1
	}
	n, err := count(ctx, c.db, `SELECT (SELECT COUNT(*) FROM attempts WHERE prefix = $2 AND $4 > 0)
		+ (SELECT COUNT(*) FROM images WHERE id = $1 AND deleted_at IS NULL AND data_bucket = '' AND (data_key = $3 OR data_bitmap_key = $3))`,
		a.ImageID, a.Prefix(), key, attempts)
	return n > 0, wrap(err, "ask whether "+key+" is known")
}

// WrongCount is a stored count that differs from the rows that it counts.
type WrongCount struct {
	ImageID, ProjectID string
	Stored, Rows       int
}

const membersOf = "(SELECT COUNT(*) FROM image_members m WHERE m.image_id = images.id)"

// WrongCounts lists images whose row counts other members than there are.
func (c *Catalog) WrongCounts(ctx context.Context) ([]WrongCount, error) {
	var out []WrongCount
	err := each(ctx, c.db, "SELECT id, project_id, members, "+membersOf+" FROM images WHERE deleted_at IS NULL AND members <> "+membersOf+" ORDER BY id", nil,
		func(rows *sql.Rows) error {
			var w WrongCount
			err := rows.Scan(&w.ImageID, &w.ProjectID, &w.Stored, &w.Rows)
			out = append(out, w)
			return err
		})
	return out, wrap(err, "compare counts with rows")
}

// Recount sets an image's count of members right.
func (c *Catalog) Recount(ctx context.Context, imageID string) error {
	_, err := c.db.ExecContext(ctx, "UPDATE images SET members = "+membersOf+" WHERE id = $1", imageID)
	return wrap(err, "count the members of image "+imageID)
}

// Orphan counts the rows of a table that belong to an image which is deleted or unknown.
type Orphan struct {
	Table, ImageID string
	Rows           int
}

// orphanTables are the tables whose rows go with their image.
var orphanTables = []string{"attachments", "image_members", "image_tags"}

const orphaned = " NOT EXISTS (SELECT 1 FROM images i WHERE i.id = image_id AND i.deleted_at IS NULL)"

// Orphans lists the rows that belong to no image.
func (c *Catalog) Orphans(ctx context.Context) ([]Orphan, error) {
	var out []Orphan
	for _, table := range orphanTables {
		err := each(ctx, c.db, "SELECT image_id, COUNT(*) FROM "+table+" WHERE"+orphaned+" GROUP BY image_id ORDER BY image_id", nil, func(rows *sql.Rows) error {
			o := Orphan{Table: table}
			err := rows.Scan(&o.ImageID, &o.Rows)
			out = append(out, o)
			return err
		})
		if err != nil {
			return nil, wrap(err, "look for orphaned rows in "+table)
		}
	}
	return out, nil
}

// RemoveOrphans deletes the rows of an Orphan, if they still belong to no image.
func (c *Catalog) RemoveOrphans(ctx context.Context, o Orphan) error {
	if !slices.Contains(orphanTables, o.Table) {
		return fmt.Errorf("remove orphaned rows: %q is not one of %q", o.Table, orphanTables)
	}
	_, err := c.db.ExecContext(ctx, "DELETE FROM "+o.Table+" WHERE image_id = $1 AND"+orphaned, o.ImageID)
	return wrap(err, "remove orphaned rows from "+o.Table)
}
