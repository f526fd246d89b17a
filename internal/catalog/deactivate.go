package catalog

import (
	"context"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// SetDeactivated takes an active image out of use, or back into it. A deactivated image is
// read by admins of its project alone; its attachments end. An image that already is as
// asked for stays so. Any other state than active and deactivated is a fault that a
// client is told of (IMG.0046, KindForbidden).
func (c *Catalog) SetDeactivated(ctx context.Context, projectID, id string, deactivated bool) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		phase := ims.ImageStatus("")
		if deactivated {
			phase = ims.ImageDeactivated
		}
		switch {
		case img.Status != ims.ImageActive && img.Status != ims.ImageDeactivated:
			return ims.Faultf(ims.CodeImageNotActive, "the image is %s; only an active or a deactivated one can be deactivated or reactivated", img.Status).WithKind(ims.KindForbidden)
		case (img.Status == ims.ImageDeactivated) == deactivated:
			return nil
		}
		if _, err := tx.ExecContext(ctx, "UPDATE images SET phase = $3, updated_at = $4 WHERE project_id = $1 AND id = $2",
			projectID, id, string(phase), c.now().UnixMilli()); err != nil {
			return err
		}
		return endAttachments(ctx, tx, id)
	}), "deactivate or reactivate image "+id)
}
