package catalog

import (
	"context"
	"database/sql"

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

// ForgetUnfinished forgets the attempts that may still be published, so that nothing
// removes what they wrote. Their jobs go on with new ones.
func (c *Catalog) ForgetUnfinished(ctx context.Context) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		prefixes, err := texts(ctx, tx, "SELECT prefix FROM attempts WHERE ended_at IS NULL")
		for _, prefix := range prefixes {
			err = forgetAttempt(ctx, tx, prefix)
			if err != nil {
				break
			}
		}
		return err
	}), "forget unfinished attempts")
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
	err := each(ctx, c.db, `SELECT id, project_id, data_key, data_etag, data_format, data_size, data_virtual_size, data_bitmap_key, data_bitmap_etag, data_bitmap_size
		FROM images WHERE status = $1 AND deleted_at IS NULL AND data_bucket = '' AND id > $2 ORDER BY id LIMIT $3`,
		[]any{string(ims.ImageActive), after, limit}, func(rows *sql.Rows) error {
			var i ImageData
			d := &i.Data
			err := rows.Scan(&i.ID, &i.ProjectID, &d.Key, &d.ETag, &d.Format, &d.Size, &d.VirtualSize, &d.BitmapKey, &d.BitmapETag, &d.BitmapSize)
			out = append(out, i)
			return err
		})
	return out, wrap(err, "list the data of active images")
}
