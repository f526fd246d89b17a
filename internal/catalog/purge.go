package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// How long rows are kept that nothing needs any more.
const (
	// keepEnded is for killed images and for ended jobs, keepMost how many of each a
	// project may have; the newest stay.
	keepEnded = 30 * 24 * time.Hour
	keepMost  = 1000
	// keepDeleted is for deleted images: so long one of them may be the marker from which
	// a client continues its list.
	keepDeleted = 24 * time.Hour
	// purgeBatch is how many rows one transaction removes, purgeAtOnce how many of them an
	// accepted import removes of its project's.
	purgeBatch  = 200
	purgeAtOnce = 20
)

// keepKilled is how many killed images a project may have: ten times as many as images,
// but no more than keepMost.
func keepKilled(limits ims.Limits) int { return min(keepMost, 10*limits.Images) }

// purgeProject removes what a project has beyond its numbers of killed images and ended
// jobs, some at a time: each accepted import makes room for what it may leave.
func purgeProject(ctx context.Context, tx *database.Tx, projectID string, limits ims.Limits) error {
	killed, err := texts(ctx, tx, `SELECT id FROM images WHERE project_id = $1 AND deleted_at IS NULL AND status = 'killed'
		ORDER BY updated_at DESC, id DESC LIMIT $2 OFFSET $3`, projectID, purgeAtOnce, keepKilled(limits))
	if err != nil {
		return err
	}
	if err := removeImages(ctx, tx, killed); err != nil {
		return err
	}
	jobs, err := texts(ctx, tx, `SELECT id FROM jobs WHERE project_id = $1 AND end_time IS NOT NULL
		ORDER BY end_time DESC, id DESC LIMIT $2 OFFSET $3`, projectID, purgeAtOnce, keepMost)
	if err != nil {
		return err
	}
	return removeRows(ctx, tx, "DELETE FROM jobs WHERE end_time IS NOT NULL AND id IN ", jobs)
}

// removeImages removes the rows of images that are killed or deleted, with everything
// that names them. Attempts stay: the clean-up goes by them.
func removeImages(ctx context.Context, tx *database.Tx, ids []string) error {
	for _, from := range []string{"jobs WHERE end_time IS NOT NULL AND image_id", "image_tags WHERE image_id", "image_members WHERE image_id", "attachments WHERE image_id"} {
		if err := removeRows(ctx, tx, "DELETE FROM "+from+" IN ", ids); err != nil {
			return err
		}
	}
	return removeRows(ctx, tx, "DELETE FROM images WHERE (status = 'killed' OR deleted_at IS NOT NULL) AND id IN ", ids)
}

func removeRows(ctx context.Context, tx *database.Tx, statement string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	_, err := tx.ExecContext(ctx, statement+placeholders(1, len(ids)), args...)
	return err
}

// Purge removes killed images and ended jobs that are older than 30 days or beyond what
// a project may have, and the rows of images that were deleted more than a day ago, once
// neither a job nor bytes are left of them. Each transaction removes a bounded number of
// rows. Several processes may purge at once.
func (c *Catalog) Purge(ctx context.Context, limits ims.Limits) error {
	now := c.now()
	ended, deleted := now.Add(-keepEnded).UnixMilli(), now.Add(-keepDeleted).UnixMilli()
	if err := c.purgeBy(ctx, removeImages, `SELECT id FROM images WHERE deleted_at IS NULL AND status = 'killed' AND updated_at <= $1
		ORDER BY updated_at LIMIT $2`, ended); err != nil {
		return fmt.Errorf("remove old killed images: %w", err)
	}
	jobs := func(ctx context.Context, tx *database.Tx, ids []string) error {
		return removeRows(ctx, tx, "DELETE FROM jobs WHERE end_time IS NOT NULL AND id IN ", ids)
	}
	if err := c.purgeBy(ctx, jobs, `SELECT id FROM jobs WHERE end_time <= $1 ORDER BY end_time LIMIT $2`, ended); err != nil {
		return fmt.Errorf("remove old jobs: %w", err)
	}
	memberJobs := func(ctx context.Context, tx *database.Tx, ids []string) error {
		return removeRows(ctx, tx, "DELETE FROM member_jobs WHERE id IN ", ids)
	}
	if err := c.purgeBy(ctx, memberJobs, `SELECT id FROM member_jobs WHERE ended_at <= $1 ORDER BY ended_at LIMIT $2`, ended); err != nil {
		return fmt.Errorf("remove old jobs about members: %w", err)
	}
	for _, over := range []struct {
		projects, rows string
		keep           int
		remove         func(context.Context, *database.Tx, []string) error
	}{
		{"SELECT project_id FROM images WHERE deleted_at IS NULL AND status = 'killed' GROUP BY project_id HAVING COUNT(*) > $1",
			`SELECT id FROM images WHERE deleted_at IS NULL AND status = 'killed' AND project_id = $1 ORDER BY updated_at DESC, id DESC LIMIT $2 OFFSET $3`,
			keepKilled(limits), removeImages},
		{"SELECT project_id FROM jobs WHERE end_time IS NOT NULL GROUP BY project_id HAVING COUNT(*) > $1",
			`SELECT id FROM jobs WHERE end_time IS NOT NULL AND project_id = $1 ORDER BY end_time DESC, id DESC LIMIT $2 OFFSET $3`,
			keepMost, jobs},
	} {
		projects, err := texts(ctx, c.db, over.projects, over.keep)
		if err != nil {
			return fmt.Errorf("find projects with too many rows: %w", err)
		}
		for _, p := range projects {
			for n := purgeBatch; n == purgeBatch; {
				ids, err := texts(ctx, c.db, over.rows, p, purgeBatch, over.keep)
				if err == nil {
					err = c.db.InTx(ctx, func(tx *database.Tx) error { return over.remove(ctx, tx, ids) })
				}
				if err != nil {
					return fmt.Errorf("remove what project %s has too much: %w", p, err)
				}
				n = len(ids)
			}
		}
	}
	return wrap(c.purgeDeleted(ctx, deleted), "remove deleted images")
}

// purgeBy removes all rows that a query finds up to a time, a batch at a time.
func (c *Catalog) purgeBy(ctx context.Context, remove func(context.Context, *database.Tx, []string) error, query string, until int64) error {
	for {
		ids, err := texts(ctx, c.db, query, until, purgeBatch)
		if err == nil {
			err = c.db.InTx(ctx, func(tx *database.Tx) error { return remove(ctx, tx, ids) })
		}
		if err != nil || len(ids) < purgeBatch {
			return err
		}
	}
}

// purgeDeleted goes through the deleted images once, the oldest first.
func (c *Catalog) purgeDeleted(ctx context.Context, until int64) error {
	from, after := int64(0), ""
	for {
		type row struct {
			id        string
			deletedAt int64
			needed    bool
		}
		var found []row
		rows, err := c.db.QueryContext(ctx, `SELECT id, deleted_at,
				EXISTS (SELECT 1 FROM jobs WHERE image_id = images.id) OR EXISTS (SELECT 1 FROM attempts WHERE image_id = images.id)
			FROM images WHERE deleted_at IS NOT NULL AND deleted_at <= $1 AND (deleted_at > $2 OR deleted_at = $2 AND id > $3)
			ORDER BY deleted_at, id LIMIT $4`, until, from, after, purgeBatch)
		if err != nil {
			return err
		}
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.id, &r.deletedAt, &r.needed); err != nil {
				rows.Close()
				return err
			}
			found = append(found, r)
		}
		if err := rows.Close(); err != nil {
			return err
		}
		if err := database.Fault(rows.Err()); err != nil {
			return err
		}
		var ids []string
		for _, r := range found {
			if from, after = r.deletedAt, r.id; !r.needed {
				ids = append(ids, r.id)
			}
		}
		if err := c.db.InTx(ctx, func(tx *database.Tx) error { return removeImages(ctx, tx, ids) }); err != nil {
			return err
		}
		if len(found) < purgeBatch {
			return nil
		}
	}
}
