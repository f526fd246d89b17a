package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

func putTags(ctx context.Context, tx *database.Tx, projectID, imageID string, tags []ims.Tag) error {
	for _, t := range tags {
		if !database.Storable(t.Key) || !database.Storable(t.Value) {
			return ims.Faultf(ims.CodeTag, "the tag %q holds a character that is not allowed", t.Key)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO image_tags (project_id, image_id, tag_key, tag_value) VALUES ($1, $2, $3, $4)
			ON CONFLICT (image_id, tag_key) DO UPDATE SET tag_value = excluded.tag_value`, projectID, imageID, t.Key, t.Value)
		if err != nil {
			return fmt.Errorf("write tag %q: %w", t.Key, err)
		}
	}
	return nil
}

// SetTags adds tags to an image or overwrites the values of those that it has, all of
// them or none. More than ims.MaxTags afterwards are a fault (IMG.0116). Repeating it
// changes nothing.
func (c *Catalog) SetTags(ctx context.Context, projectID, imageID string, tags []ims.Tag) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, imageID)
		if err != nil {
			return err
		}
		keys := map[string]bool{}
		for _, t := range append(img.Tags, tags...) {
			keys[t.Key] = true
		}
		if len(keys) > ims.MaxTags {
			return ims.Faultf(ims.CodeTagQuota, "the image would have %d tags, at most %d are allowed", len(keys), ims.MaxTags)
		}
		if err := putTags(ctx, tx, projectID, imageID, tags); err != nil {
			return err
		}
		return c.touch(ctx, tx, projectID, imageID)
	})
	if err != nil {
		return fmt.Errorf("tag image %s: %w", imageID, err)
	}
	return nil
}

// DeleteTags removes tags from an image: by key and value, or by key alone where the
// value is empty. One that is not there is no fault.
func (c *Catalog) DeleteTags(ctx context.Context, projectID, imageID string, tags []ims.Tag) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockImage(ctx, tx, projectID, imageID); err != nil {
			return err
		}
		removed := false
		for _, t := range tags {
			n, err := removeTag(ctx, tx, projectID, imageID, t)
			if err != nil {
				return err
			}
			removed = removed || n > 0
		}
		if !removed {
			return nil
		}
		return c.touch(ctx, tx, projectID, imageID)
	})
	if err != nil {
		return fmt.Errorf("remove tags of image %s: %w", imageID, err)
	}
	return nil
}

// DeleteTag removes the tag with a key; a fault with status 404 when there is none.
func (c *Catalog) DeleteTag(ctx context.Context, projectID, imageID, key string) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockImage(ctx, tx, projectID, imageID); err != nil {
			return err
		}
		n, err := removeTag(ctx, tx, projectID, imageID, ims.Tag{Key: key})
		if err != nil {
			return err
		}
		if n == 0 {
			return ims.NotFoundf(ims.CodeTag, "image %s has no tag with this key", imageID)
		}
		return c.touch(ctx, tx, projectID, imageID)
	})
	if err != nil {
		return fmt.Errorf("remove a tag of image %s: %w", imageID, err)
	}
	return nil
}

func removeTag(ctx context.Context, tx *database.Tx, projectID, imageID string, t ims.Tag) (int64, error) {
	if !database.Storable(t.Key) || !database.Storable(t.Value) {
		return 0, nil
	}
	query, args := "DELETE FROM image_tags WHERE project_id = $1 AND image_id = $2 AND tag_key = $3", []any{projectID, imageID, t.Key}
	if t.Value != "" {
		query, args = query+" AND tag_value = $4", append(args, t.Value)
	}
	return affected(tx.ExecContext(ctx, query, args...))
}

// Tags lists the tags of the images that Images would list without a page: no two equal,
// sorted by key, then value. It leaves out the first offset of them and gives at most
// limit, or all if that is 0.
func (c *Catalog) Tags(ctx context.Context, projectID string, f ims.ImageFilter, offset, limit int) ([]ims.Tag, error) {
	w, parts, err := matching(projectID, f)
	if err == nil && f.MarkerID != "" {
		var order []orderKey
		if order, err = orderOf(f.Sort); err == nil {
			err = c.behindMarker(ctx, w, order, projectID, f)
		}
	}
	if err != nil || w.none || len(parts) == 0 {
		return nil, err
	}
	if limit == 0 {
		limit = math.MaxInt32
	}
	var out []ims.Tag
	query := "SELECT DISTINCT tag_key, tag_value FROM image_tags WHERE image_id IN (SELECT id FROM images WHERE " + w.all(parts) + ")" +
		w.bind(" ORDER BY tag_key, tag_value LIMIT ? OFFSET ?", limit, offset)
	err = each(ctx, c.db, query, w.args, func(rows *sql.Rows) error {
		var t ims.Tag
		err := rows.Scan(&t.Key, &t.Value)
		out = append(out, t)
		return err
	})
	return out, wrap(err, "list the tags of project "+projectID)
}
