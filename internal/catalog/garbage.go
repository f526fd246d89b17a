package catalog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// attemptPrefix is how the keys of an attempt's bytes begin in the image area.
func attemptPrefix(imageID string, attempt int64) string {
	return imageID + "/" + strconv.FormatInt(attempt, 10) + "/"
}

// parsePrefix reads what attemptPrefix makes, and nothing else.
func parsePrefix(prefix string) (imageID string, attempt int64, ok bool) {
	imageID, rest, _ := strings.Cut(prefix, "/")
	attempt, err := strconv.ParseInt(strings.TrimSuffix(rest, "/"), 10, 64)
	ok = err == nil && attempt > 0 && ims.ValidUUID(imageID) && attemptPrefix(imageID, attempt) == prefix
	return imageID, attempt, ok
}

// addGarbage records the attempts 1 to last of an image as bytes to be removed. Those
// that wrote nothing or are removed already do no harm.
func (c *Catalog) addGarbage(ctx context.Context, tx *database.Tx, imageID string, last int64) error {
	now := c.now().UnixMilli()
	for n := int64(1); n <= last; n++ {
		_, err := tx.ExecContext(ctx, "INSERT INTO garbage (prefix, found_at) VALUES ($1, $2) ON CONFLICT (prefix) DO NOTHING", attemptPrefix(imageID, n), now)
		if err != nil {
			return fmt.Errorf("record garbage of image %s: %w", imageID, err)
		}
	}
	return nil
}

// Garbage lists prefixes of the image area whose bytes no image refers to any more,
// the oldest first.
func (c *Catalog) Garbage(ctx context.Context, limit int) ([]string, error) {
	list, err := texts(ctx, c.db, "SELECT prefix FROM garbage ORDER BY found_at, prefix LIMIT $1", limit)
	return list, wrap(err, "list garbage")
}

// ForgetGarbage says that nothing lies under a prefix any more.
func (c *Catalog) ForgetGarbage(ctx context.Context, prefix string) error {
	if !database.Storable(prefix) {
		return nil
	}
	_, err := c.db.ExecContext(ctx, "DELETE FROM garbage WHERE prefix = $1", prefix)
	return wrap(err, "forget garbage "+prefix)
}

// Referenced reports whether bytes under a prefix are an image's, or may become so:
// its data lies there, or the job's newest attempt writes there. Once false it stays
// false, since the fence only moves on. A source that an image is made of lies in a
// bucket, where nothing is cleaned up: its key counts for nothing here.
func (c *Catalog) Referenced(ctx context.Context, prefix string) (bool, error) {
	imageID, attempt, ok := parsePrefix(prefix)
	if !ok {
		return false, fmt.Errorf("%q is no attempt's prefix, it must be image/attempt/", prefix)
	}
	n, err := count(ctx, c.db, `SELECT
		(SELECT COUNT(*) FROM images WHERE id = $1 AND deleted_at IS NULL AND data_bucket = ''
			AND (substr(data_key, 1, length($2)) = $2 OR substr(data_bitmap_key, 1, length($2)) = $2))
		+ (SELECT COUNT(*) FROM jobs WHERE image_id = $1 AND end_time IS NULL AND attempt <= $3)`,
		imageID, prefix, attempt)
	if err != nil {
		return false, fmt.Errorf("ask whether %s is referred to: %w", prefix, err)
	}
	return n > 0, nil
}
