package catalog

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"

	"github.com/quickims/quickims/internal/ims"
)

// BootProfile returns the profile that a project's own starts of an image made, nil if
// there is none.
func (c *Catalog) BootProfile(ctx context.Context, imageID, projectID string) ([]byte, error) {
	var text string
	err := c.db.QueryRowContext(ctx, "SELECT profile FROM boot_profiles WHERE image_id = $1 AND project_id = $2", imageID, projectID).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "read the boot profile of image "+imageID)
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, nil // a damaged one is none
	}
	return b, nil
}

// PutBootProfile replaces a project's profile of an image. One of an image that was deleted
// is dropped.
func (c *Catalog) PutBootProfile(ctx context.Context, imageID, projectID string, profile []byte) error {
	_, err := c.db.ExecContext(ctx, `INSERT INTO boot_profiles (image_id, project_id, profile, updated_at)
		SELECT id, $2, $3, $4 FROM images WHERE id = $1 AND deleted_at IS NULL AND status <> $5
		ON CONFLICT (image_id, project_id) DO UPDATE SET profile = excluded.profile, updated_at = excluded.updated_at`,
		imageID, projectID, base64.StdEncoding.EncodeToString(profile), c.now().UnixMilli(), string(ims.ImageKilled))
	return wrap(err, "write the boot profile of image "+imageID)
}
