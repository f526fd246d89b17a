package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
)

// Leftover is an attempt whose bytes are to be removed: it was given up, or its image
// was deleted. Uploads are the multipart uploads that it began.
type Leftover struct {
	imagearea.Attempt
	Uploads []AttemptUpload
	// Ended is when the attempt was given up or the image was deleted.
	Ended time.Time
}

// AttemptUpload is a multipart upload that an attempt began in the store.
type AttemptUpload struct{ Key, ID string }

// lookAgain says how long after each look at an attempt that was given up the clean-up
// looks again. A store may finish a copy whose request was interrupted, and a fenced
// worker may not know yet that it is: what they write comes after the first look.
var lookAgain = []time.Duration{time.Hour, 23 * time.Hour}

func attemptOf(job ims.Job) imagearea.Attempt {
	return imagearea.Attempt{ImageID: job.ImageID, Number: job.Attempt}
}

// recordAttempt notes that an attempt is about to write to the image area.
func (c *Catalog) recordAttempt(ctx context.Context, tx *database.Tx, job ims.Job) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO attempts (prefix, image_id, began_at, looks) VALUES ($1, $2, $3, 0)",
		attemptOf(job).Prefix(), job.ImageID, c.now().UnixMilli())
	return wrap(err, "record the attempt")
}

// RecordUpload notes that the job's attempt began a multipart upload of key, which lies
// under the attempt's prefix. ErrFenced when the attempt no longer holds the job.
func (c *Catalog) RecordUpload(ctx context.Context, job ims.Job, key, upload string) error {
	if a, ok := imagearea.Of(key); !ok || a != attemptOf(job) {
		return fmt.Errorf("record an upload of %s: the key is not of attempt %s", key, attemptOf(job).Prefix())
	}
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := saveStep(ctx, tx, job); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO attempt_uploads (prefix, object_key, upload_id) VALUES ($1, $2, $3)", attemptOf(job).Prefix(), key, upload)
		return err
	}), "record an upload of "+key)
}

// endAttempts gives up the attempts at an image that wrote something, but for the one
// with the prefix except. The clean-up removes their bytes from now on.
func (c *Catalog) endAttempts(ctx context.Context, tx *database.Tx, imageID, except string) error {
	_, err := tx.ExecContext(ctx, "UPDATE attempts SET ended_at = $3, due_at = $3 WHERE image_id = $1 AND prefix <> $2 AND ended_at IS NULL",
		imageID, except, c.now().UnixMilli())
	return wrap(err, "give up the attempts at image "+imageID)
}

// publishAttempt forgets the attempt: from now on the image's row says that its bytes
// are the image's. All other attempts are given up.
func (c *Catalog) publishAttempt(ctx context.Context, tx *database.Tx, job ims.Job) error {
	if err := c.endAttempts(ctx, tx, job.ImageID, attemptOf(job).Prefix()); err != nil {
		return err
	}
	return forgetAttempt(ctx, tx, attemptOf(job).Prefix())
}

func forgetAttempt(ctx context.Context, tx *database.Tx, prefix string) error {
	for _, table := range []string{"attempt_uploads", "attempts"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE prefix = $1", prefix); err != nil {
			return err
		}
	}
	return nil
}

// endImage gives up all attempts at an image that is deleted in the same transaction,
// the published one too: its row says where its bytes lie.
func (c *Catalog) endImage(ctx context.Context, tx *database.Tx, img ims.Image) error {
	if err := c.endAttempts(ctx, tx, img.ID, ""); err != nil {
		return err
	}
	published, ok := imagearea.Of(img.Data.Key)
	if img.Data.Bucket != "" || !ok {
		return nil
	}
	// Its writer is done: the clean-up need not look twice.
	_, err := tx.ExecContext(ctx, `INSERT INTO attempts (prefix, image_id, began_at, ended_at, due_at, looks) VALUES ($1, $2, $3, $3, $3, $4)
		ON CONFLICT (prefix) DO NOTHING`, published.Prefix(), img.ID, c.now().UnixMilli(), len(lookAgain))
	return wrap(err, "give up the data of image "+img.ID)
}

// EndLost gives up what a fenced attempt may have written after the clean-up looked: the
// next look is at once. It does nothing if the attempt was published or never wrote.
func (c *Catalog) EndLost(ctx context.Context, job ims.Job) error {
	_, err := c.db.ExecContext(ctx, "UPDATE attempts SET due_at = $2, looks = 0 WHERE prefix = $1 AND ended_at IS NOT NULL",
		attemptOf(job).Prefix(), c.now().UnixMilli())
	return wrap(err, "give up the attempt "+attemptOf(job).Prefix())
}

// unpublished is the condition on an attempt that no image has its data under its prefix.
const unpublished = ` NOT EXISTS (
	SELECT 1 FROM images WHERE id = a.image_id AND deleted_at IS NULL AND data_bucket = ''
	AND (substr(data_key, 1, length(a.prefix)) = a.prefix OR substr(data_bitmap_key, 1, length(a.prefix)) = a.prefix))`

// Leftovers lists attempts whose bytes are to be removed now, those that wait longest
// first. It lists no attempt under whose prefix an image has its data.
func (c *Catalog) Leftovers(ctx context.Context, limit int) ([]Leftover, error) {
	return c.leftovers(ctx, "SELECT prefix, ended_at FROM attempts a WHERE due_at <= $1 AND"+unpublished+" ORDER BY due_at, prefix LIMIT $2", c.now().UnixMilli(), limit)
}

// Overdue lists the attempts that ended longer ago than age and whose bytes the clean-up
// has not removed once.
func (c *Catalog) Overdue(ctx context.Context, age time.Duration) ([]Leftover, error) {
	return c.leftovers(ctx, "SELECT prefix, ended_at FROM attempts a WHERE looks = 0 AND ended_at <= $1 AND"+unpublished+" ORDER BY ended_at, prefix", c.now().Add(-age).UnixMilli())
}

func (c *Catalog) leftovers(ctx context.Context, query string, args ...any) ([]Leftover, error) {
	var out []Leftover
	err := each(ctx, c.db, query, args, func(rows *sql.Rows) error {
		var prefix string
		var ended int64
		if err := rows.Scan(&prefix, &ended); err != nil {
			return err
		}
		a, ok := imagearea.ParsePrefix(prefix)
		if !ok {
			return fmt.Errorf("%q is no attempt's prefix, it must be image/attempt/", prefix)
		}
		out = append(out, Leftover{Attempt: a, Ended: fromMilli(ended)})
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list leftovers")
	}
	for i := range out {
		l := &out[i]
		err := each(ctx, c.db, "SELECT object_key, upload_id FROM attempt_uploads WHERE prefix = $1", []any{l.Prefix()}, func(rows *sql.Rows) error {
			var u AttemptUpload
			err := rows.Scan(&u.Key, &u.ID)
			l.Uploads = append(l.Uploads, u)
			return err
		})
		if err != nil {
			return nil, wrap(err, "list the uploads of "+l.Prefix())
		}
	}
	return out, nil
}

// Postpone makes the next look at an attempt due after a pause: its bytes could not be
// removed now, and others wait.
func (c *Catalog) Postpone(ctx context.Context, a imagearea.Attempt, pause time.Duration) error {
	_, err := c.db.ExecContext(ctx, "UPDATE attempts SET due_at = $2 WHERE prefix = $1 AND ended_at IS NOT NULL", a.Prefix(), c.now().Add(pause).UnixMilli())
	return wrap(err, "postpone the clean-up of "+a.Prefix())
}

// Removed says that nothing lay under an attempt's prefix any more a moment ago. An
// attempt that was given up is looked at again later, twice; after that it is
// forgotten, as is at once the data of an image that was deleted.
func (c *Catalog) Removed(ctx context.Context, a imagearea.Attempt) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		var looks int
		err := tx.QueryRowContext(ctx, "SELECT looks FROM attempts WHERE prefix = $1 AND ended_at IS NOT NULL"+tx.ForUpdate(), a.Prefix()).Scan(&looks)
		if err != nil {
			if orNotFound(err) == ErrNotFound {
				return nil // another process was quicker
			}
			return err
		}
		if looks >= len(lookAgain) {
			return forgetAttempt(ctx, tx, a.Prefix())
		}
		_, err = tx.ExecContext(ctx, "UPDATE attempts SET looks = looks + 1, due_at = $2 WHERE prefix = $1",
			a.Prefix(), c.now().Add(lookAgain[looks]).UnixMilli())
		return err
	}), "note that "+a.Prefix()+" is clean")
}
