package fsck

import (
	"context"
	"errors"
	"time"

	"github.com/quickims/quickims/internal/objectstore"
)

// Removal is what Repair would remove from the store.
type Removal struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Uploads int   `json:"uploads"`
}

// Removable counts the unknown objects and uploads of a report that are older than
// grace at now, none if the last take-over is younger.
func (r Report) Removable(now time.Time, grace time.Duration) Removal {
	var out Removal
	for _, f := range r.Findings {
		switch {
		case !r.removable(f, now, grace):
		case f.Kind == UnknownObject:
			out.Objects++
			out.Bytes += f.Bytes
		default:
			out.Uploads++
		}
	}
	return out
}

// Much reports whether a removal takes more than a tenth of the area's objects or bytes.
func (r Report) Much(x Removal) bool {
	return 10*x.Objects > r.Objects || 10*x.Bytes > r.Bytes && x.Bytes > 0
}

func (r Report) removable(f Finding, now time.Time, grace time.Duration) bool {
	until := now.Add(-grace)
	return (f.Kind == UnknownObject || f.Kind == UnknownUpload) && !f.Since.After(until) && !r.TakenOver.After(until)
}

// Repair removes what is unknown and older than grace, deletes orphaned rows and sets
// counts right. It marks in the report what it has repaired. Each object is looked at
// once more before it goes: one that a row explains by now, or that changed, stays.
// The caller has made sure that the image area belongs to the catalog. Nothing brings
// back an image's bytes.
func (c *Checker) Repair(ctx context.Context, r *Report, now time.Time, grace time.Duration) error {
	for i := range r.Findings {
		f := &r.Findings[i]
		var err error
		switch {
		case r.removable(*f, now, grace) && f.Kind == UnknownObject:
			f.Repaired, err = c.removeObject(ctx, *f)
		case r.removable(*f, now, grace):
			err = c.Store.AbortUpload(ctx, at(f.Key), f.UploadID)
			f.Repaired = err == nil
		case f.Kind == Count:
			err = c.Catalog.Recount(ctx, f.ImageID)
			f.Repaired = err == nil
		case f.Kind == OrphanedRow:
			err = c.Catalog.RemoveOrphans(ctx, f.orphan)
			f.Repaired = err == nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Checker) removeObject(ctx context.Context, f Finding) (bool, error) {
	unknown, err := c.unknown(ctx, f.Key)
	if err != nil || !unknown {
		return false, err
	}
	info, err := c.Store.Stat(ctx, at(f.Key))
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return true, nil
	case errors.Is(err, objectstore.ErrChanged): // a linked file that was written to
	case err != nil:
		return false, err
	case info.ETag != f.etag || info.Size != f.Bytes:
		return false, nil
	}
	err = c.Store.Delete(ctx, at(f.Key))
	return err == nil, err
}
