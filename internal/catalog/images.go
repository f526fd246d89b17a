package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// CreateImport takes an import in: image (queued), job (INIT) and queue entry, in one
// transaction, or nothing. The catalog's clock sets all times. enqueue may be called
// again when the database asks for the transaction to be repeated.
//
// Faults that a client is told of: an enterprise project that the domain does not
// have (IMG.0155), no room in the quota (IMG.0015), too many jobs going on (IMG.0060).
// The limits hold however many call at once.
func (c *Catalog) CreateImport(ctx context.Context, domainID string, img ims.Image, job ims.Job, limits ims.Limits,
	enqueue func(ctx context.Context, tx *database.Tx, jobID string) error,
) error {
	if img.ProjectID != job.ProjectID || img.ID != job.ImageID {
		return fmt.Errorf("job %s is not the job of image %s", job.ID, img.ID)
	}
	now := c.now()
	img.Status, img.CreatedAt, img.UpdatedAt = ims.ImageQueued, now, now
	job.Status, job.BeginTime, job.Attempt = ims.JobInit, now, 0
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, img.ProjectID); err != nil {
			return err
		}
		if err := enterpriseProjectExists(ctx, tx, domainID, img.EnterpriseProjectID); err != nil {
			return err
		}
		if err := checkLimits(ctx, tx, img.ProjectID, limits, img.FileSize); err != nil {
			return err
		}
		if err := purgeProject(ctx, tx, img.ProjectID, limits); err != nil {
			return err
		}
		if err := insertImage(ctx, tx, img); err != nil {
			return err
		}
		if err := insertJob(ctx, tx, job); err != nil {
			return err
		}
		return enqueue(ctx, tx, job.ID)
	})
	if err != nil {
		return fmt.Errorf("accept the import: %w", err)
	}
	return nil
}

// checkQuota checks that the project may have one more image, of so many bytes.
func checkQuota(ctx context.Context, tx *database.Tx, projectID string, limits ims.Limits, bytes int64) error {
	used, err := quota(ctx, tx, projectID)
	if err != nil {
		return err
	}
	if used >= limits.Images {
		return ims.Faultf(ims.CodeQuota, "the project has %d private images, its quota is %d; delete one first", used, limits.Images)
	}
	return checkBytes(ctx, tx, projectID, limits, bytes)
}

// checkBytes checks that the project's images may have so many bytes more.
func checkBytes(ctx context.Context, tx *database.Tx, projectID string, limits ims.Limits, bytes int64) error {
	if limits.Bytes == 0 {
		return nil
	}
	stored, err := imageBytes(ctx, tx, projectID)
	if err != nil {
		return err
	}
	if all := stored + limits.InBuckets; bytes > limits.Bytes-all {
		return ims.Faultf(ims.CodeQuota, "the project stores %d bytes, %d of them in buckets, and the image has %d; its limit is %d bytes; delete images or objects first",
			all, limits.InBuckets, bytes, limits.Bytes)
	}
	return nil
}

// ImageBytes is what a project's images have in bytes: an image that is being made counts
// with its source.
func (c *Catalog) ImageBytes(ctx context.Context, projectID string) (int64, error) {
	return imageBytes(ctx, c.db, projectID)
}

func imageBytes(ctx context.Context, q database.Querier, projectID string) (n int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE(CAST(SUM(CASE WHEN status = 'active' THEN data_size + data_bitmap_size ELSE file_size END) AS BIGINT), 0)
		FROM images WHERE project_id = $1 AND deleted_at IS NULL AND status <> 'killed'`, projectID).Scan(&n)
	return n, wrap(err, "add up the bytes of the images of project "+projectID)
}

func checkLimits(ctx context.Context, tx *database.Tx, projectID string, limits ims.Limits, bytes int64) error {
	if err := checkQuota(ctx, tx, projectID, limits, bytes); err != nil {
		return err
	}
	return checkRunning(ctx, tx, projectID, limits)
}

func checkRunning(ctx context.Context, tx *database.Tx, projectID string, limits ims.Limits) error {
	running, err := count(ctx, tx, "SELECT COUNT(*) FROM jobs WHERE project_id = $1 AND end_time IS NULL", projectID)
	if err != nil {
		return err
	}
	if running >= limits.Imports {
		return ims.Faultf(ims.CodeTooManyJobs, "%d imports of the project are going on, the limit is %d; wait for one to end", running, limits.Imports)
	}
	return nil
}

// Register takes in the import of a file into a queued image, job.ImageID: the job (INIT)
// and its queue entry in one transaction, or nothing. enqueue is as for CreateImport, which
// also has the faults; besides, the image is not queued or something is on its way into it
// (IMG.0035, KindConflict).
func (c *Catalog) Register(ctx context.Context, job ims.Job, limits ims.Limits, enqueue func(ctx context.Context, tx *database.Tx, jobID string) error) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, job.ProjectID); err != nil {
			return err
		}
		img, err := lockImage(ctx, tx, job.ProjectID, job.ImageID)
		if err != nil {
			return err
		}
		if job.Attempt, err = idle(ctx, tx, img); err != nil {
			return err
		}
		job.Source.Before = job.Attempt
		if err := checkBytes(ctx, tx, job.ProjectID, limits, job.Source.Size); err != nil {
			return err
		}
		if err := checkRunning(ctx, tx, job.ProjectID, limits); err != nil {
			return err
		}
		if err := purgeProject(ctx, tx, job.ProjectID, limits); err != nil {
			return err
		}
		job.Status, job.BeginTime, job.ImageName = ims.JobInit, c.now(), img.Name
		if _, err := tx.ExecContext(ctx, "UPDATE images SET source_url = $3, file_size = $4, updated_at = $5 WHERE project_id = $1 AND id = $2",
			job.ProjectID, job.ImageID, job.Source.Bucket+":"+job.Source.Key, job.Source.Size, job.BeginTime.UnixMilli()); err != nil {
			return err
		}
		if err := insertJob(ctx, tx, job); err != nil {
			return err
		}
		return enqueue(ctx, tx, job.ID)
	}), "register a file into image "+job.ImageID)
}

// CreateExport takes in an export of an active image of the project, whose data it gives:
// the job (INIT) and its queue entry in one transaction, or nothing. The image stays while
// it is exported. Faults that a client is told of: the image is not active (IMG.0046), it
// is being exported (IMG.0148), too many jobs are going on (IMG.0060). enqueue is as for
// CreateImport.
func (c *Catalog) CreateExport(ctx context.Context, job ims.Job, limits ims.Limits, enqueue func(ctx context.Context, tx *database.Tx, jobID string) error) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, job.ProjectID); err != nil {
			return err
		}
		img, err := lockImage(ctx, tx, job.ProjectID, job.ImageID)
		if err != nil {
			return err
		}
		if img.Status != ims.ImageActive {
			return ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one can be exported", img.Status)
		}
		going, err := count(ctx, tx, "SELECT COUNT(*) FROM jobs WHERE image_id = $1 AND end_time IS NULL", job.ImageID)
		if err != nil {
			return err
		}
		if going > 0 {
			return ims.Faultf(ims.CodeExporting, "wait until the job of the export that is going on has ended")
		}
		if err := checkRunning(ctx, tx, job.ProjectID, limits); err != nil {
			return err
		}
		if err := purgeProject(ctx, tx, job.ProjectID, limits); err != nil {
			return err
		}
		job.Status, job.BeginTime, job.ImageName = ims.JobInit, c.now(), img.Name
		if err := insertJob(ctx, tx, job); err != nil {
			return err
		}
		return enqueue(ctx, tx, job.ID)
	}), "export image "+job.ImageID)
}

// idle gives the number of the last attempt at a queued image that nothing is on its way
// into: any further job begins above it. An image in another state is a fault.
//
// The number is no less than any that a job of the image had, also one that was purged, and
// than any that a newer copy of this database may have used: the generation grows with each
// attempt that writes, and passes that of the copy when the area is taken over from it.
func idle(ctx context.Context, tx *database.Tx, img ims.Image) (last int64, err error) {
	going, err := count(ctx, tx, "SELECT COUNT(*) FROM jobs WHERE image_id = $1 AND end_time IS NULL", img.ID)
	if err != nil {
		return 0, err
	}
	if img.Status != ims.ImageQueued || going > 0 {
		return 0, ims.Faultf(ims.CodeConflict, "the image is %s, or its bytes are on their way; bytes come into a queued one alone, once", img.Status).WithKind(ims.KindConflict)
	}
	n, err := count(ctx, tx, `SELECT MAX(n) FROM (SELECT COALESCE(MAX(attempt), 0) AS n FROM jobs WHERE image_id = $1
		UNION ALL SELECT COALESCE(MAX(generation), 0) FROM installation) AS numbers`, img.ID)
	return int64(n), err
}

// CreateImage writes an image that has no data yet. Faults that a client is told of: an
// enterprise project that the domain does not have (IMG.0155), the quota is used up
// (IMG.0015), the id is taken (IMG.0035, KindConflict).
func (c *Catalog) CreateImage(ctx context.Context, domainID string, img ims.Image, limits ims.Limits) (ims.Image, error) {
	now := c.now()
	img.CreatedAt, img.UpdatedAt = now, now
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, img.ProjectID); err != nil {
			return err
		}
		if err := enterpriseProjectExists(ctx, tx, domainID, img.EnterpriseProjectID); err != nil {
			return err
		}
		if err := checkQuota(ctx, tx, img.ProjectID, limits, img.FileSize); err != nil {
			return err
		}
		// An id is never used again, not even one of a deleted image.
		n, err := count(ctx, tx, "SELECT COUNT(*) FROM images WHERE id = $1", img.ID)
		if err != nil {
			return err
		}
		if n > 0 {
			return ims.Faultf(ims.CodeConflict, "there is, or was, an image with the id %s", img.ID).WithKind(ims.KindConflict)
		}
		return insertImage(ctx, tx, img)
	})
	slices.SortFunc(img.Tags, func(a, b ims.Tag) int { return strings.Compare(a.Key, b.Key) })
	return img, wrap(err, "create image "+img.ID)
}

// Quota counts the images that take room: those neither killed nor deleted.
func (c *Catalog) Quota(ctx context.Context, projectID string) (used int, err error) {
	return quota(ctx, c.db, projectID)
}

func quota(ctx context.Context, q database.Querier, projectID string) (int, error) {
	n, err := count(ctx, q, "SELECT COUNT(*) FROM images WHERE project_id = $1 AND deleted_at IS NULL AND status <> $2", projectID, ims.ImageKilled)
	if err != nil {
		return 0, fmt.Errorf("count the images of project %s: %w", projectID, err)
	}
	return n, nil
}

// Image reads an image, a killed one too. ErrNotFound when it is deleted.
func (c *Catalog) Image(ctx context.Context, projectID, id string) (ims.Image, error) {
	return selectImage(ctx, c.db, projectID, id)
}

// UpdateImage changes an image in one transaction and returns it as it is then. What
// change may set: the descriptive fields, the tags, protection, visibility and the
// enterprise project, which must be one of the domain's (IMG.0155). Members set to 0 end
// all sharing and the members' attachments, unless the image is public then; one that is
// public no more loses the attachments of all other projects. The id, project, state, data, source, sizes
// and times stay what they are. An error of change leaves the image as it was
// and is returned. change may be called again, on a fresh copy.
func (c *Catalog) UpdateImage(ctx context.Context, domainID, projectID, id string, change func(*ims.Image) error) (ims.Image, error) {
	var out ims.Image
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		old, err := lockImage(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		img := old
		img.Attributes, img.Properties, img.Tags = maps.Clone(old.Attributes), maps.Clone(old.Properties), slices.Clone(old.Tags)
		if err := change(&img); err != nil {
			return err
		}
		if img.EnterpriseProjectID != old.EnterpriseProjectID {
			if err := enterpriseProjectExists(ctx, tx, domainID, img.EnterpriseProjectID); err != nil {
				return err
			}
		}
		img.ID, img.ProjectID, img.Status, img.Data = old.ID, old.ProjectID, old.Status, old.Data
		img.MD5, img.SHA512 = old.MD5, old.SHA512
		img.SourceURL, img.FileSize, img.CreatedAt, img.ActiveAt = old.SourceURL, old.FileSize, old.CreatedAt, old.ActiveAt
		img.UpdatedAt = c.now()
		out = img
		if err := updateImage(ctx, tx, img); err != nil {
			return err
		}
		withdrawn := old.MadeVisible == ims.VisibilityPublic && img.MadeVisible != ims.VisibilityPublic
		if img.Members == 0 && old.Members > 0 || withdrawn {
			if err := c.endSharing(ctx, tx, img); err != nil {
				return err
			}
		}
		if slices.Equal(img.Tags, old.Tags) {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM image_tags WHERE image_id = $1", id); err != nil {
			return err
		}
		slices.SortFunc(out.Tags, func(a, b ims.Tag) int { return strings.Compare(a.Key, b.Key) })
		return putTags(ctx, tx, projectID, id, img.Tags)
	})
	if err != nil {
		return ims.Image{}, fmt.Errorf("change image %s: %w", id, err)
	}
	return out, nil
}

func updateImage(ctx context.Context, tx *database.Tx, img ims.Image) error {
	attributes, properties, err := jsonColumns(img)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE images SET enterprise_project_id = $3, name = $4, description = $5, env = $6,
		os_version = $7, os_type = $8, os_bit = $9, platform = $10, architecture = $11, firmware = $12, license_type = $13,
		min_disk_gib = $14, min_ram_mib = $15, max_ram_mib = $16, protected = $17, attributes = $18, updated_at = $19,
		visibility = $20, hidden = $21, disk_format = $22, container_format = $23, properties = $24
		WHERE project_id = $1 AND id = $2`,
		img.ProjectID, img.ID, img.EnterpriseProjectID, img.Name, img.Description, img.Env,
		img.OSVersion, img.OSType, img.OSBit, img.Platform, img.Architecture, img.Firmware, img.LicenseType,
		img.MinDiskGiB, img.MinRAMMiB, img.MaxRAMMiB, img.Protected, attributes, img.UpdatedAt.UnixMilli(),
		img.MadeVisible, img.Hidden, img.DiskFormat, img.ContainerFormat, properties)
	return err
}

// touch notes that an image was changed.
func (c *Catalog) touch(ctx context.Context, tx *database.Tx, projectID, id string) error {
	_, err := tx.ExecContext(ctx, "UPDATE images SET updated_at = $3 WHERE project_id = $1 AND id = $2", projectID, id, c.now().UnixMilli())
	return err
}

// DeleteImage deletes an image and gives its bytes to the clean-up, in one transaction.
// Faults that a client is told of: it is protected (IMG.0028), it is still being made
// (IMG.0090), it has attachments (IMG.0035 with status 409) and force is not set, which
// ends them. A second deletion is ErrNotFound.
func (c *Catalog) DeleteImage(ctx context.Context, projectID, id string, force bool) error {
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, id)
		if err != nil {
			return err
		}
		if img.Protected {
			return ims.Faultf(ims.CodeImageProtected, "remove the protection of image %s first", id)
		}
		going, err := count(ctx, tx, "SELECT COUNT(*) FROM jobs WHERE project_id = $1 AND image_id = $2 AND end_time IS NULL", projectID, id)
		if err != nil {
			return err
		}
		if going > 0 {
			return ims.Faultf(ims.CodeImageBeingMade, "image %s is %s, wait until its job has ended", id, img.Status)
		}
		if !force {
			if err := c.refuseAttached(ctx, tx, projectID, id); err != nil {
				return err
			}
		}
		if err := endAttachments(ctx, tx, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM image_members WHERE image_id = $1", id); err != nil {
			return err
		}
		// The status stays, see the table.
		if _, err := tx.ExecContext(ctx, "UPDATE images SET deleted_at = $3 WHERE project_id = $1 AND id = $2", projectID, id, c.now().UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM image_tags WHERE project_id = $1 AND image_id = $2", projectID, id); err != nil {
			return err
		}
		return c.endImage(ctx, tx, img)
	})
	if err != nil {
		return fmt.Errorf("delete image %s: %w", id, err)
	}
	return nil
}
