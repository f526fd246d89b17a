package catalog

import (
	"context"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// An upload is a job that the process holds which receives the bytes. A job of this type
// that somebody else claims was given up by that process: the image is queued again.

// BeginUpload makes a job for an upload into a queued image, records its attempt and
// holds it for the length of a lease, in one transaction. With stage the bytes wait for
// an import. Faults that a client is told of: the image is not queued, or an upload is
// on its way (IMG.0035, KindConflict), a format is not said (IMG.0001), too many jobs are
// going on (IMG.0060).
func (c *Catalog) BeginUpload(ctx context.Context, projectID, imageID string, stage bool, lease time.Duration, limits ims.Limits) (ims.Job, error) {
	var job ims.Job
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, projectID); err != nil {
			return err
		}
		img, err := lockImage(ctx, tx, projectID, imageID)
		if err != nil {
			return err
		}
		last, err := idle(ctx, tx, img)
		if err != nil {
			return err
		}
		if !stage && (img.DiskFormat == "" || img.ContainerFormat == "") {
			return ims.Faultf(ims.CodeBadFormat, "the image must have a disk_format and a container_format before its bytes are uploaded")
		}
		if err := checkRunning(ctx, tx, projectID, limits); err != nil {
			return err
		}
		now := c.now()
		job = ims.Job{
			ID: ims.NewJobID(), ProjectID: projectID, Type: ims.JobUpload, Status: ims.JobRunning, Step: ims.StepAdopt,
			Attempt: last + 1, ImageID: imageID, ImageName: img.Name, BeginTime: now,
		}
		if err := insertJob(ctx, tx, job); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE jobs SET lease_until = $2 WHERE id = $1", job.ID, now.Add(lease).UnixMilli()); err != nil {
			return err
		}
		if err := c.recordAttempt(ctx, tx, job); err != nil {
			return err
		}
		status, phase := ims.ImageSaving, ims.ImageStatus("")
		if stage {
			status, phase = ims.ImageQueued, ims.ImageUploading
		}
		_, err = tx.ExecContext(ctx, "UPDATE images SET status = $3, phase = $4, updated_at = $5 WHERE project_id = $1 AND id = $2",
			projectID, imageID, string(status), string(phase), now.UnixMilli())
		return err
	})
	return job, wrap(err, "begin the upload of image "+imageID)
}

// Uploaded are the bytes that an upload brought.
type Uploaded struct {
	Data        ims.Data
	MD5, SHA512 string // hex
}

// FinishUpload makes the image active, or with stage lets its bytes wait for an import,
// and the job SUCCESS, in one transaction.
func (c *Catalog) FinishUpload(ctx context.Context, job ims.Job, up Uploaded, stage bool) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := saveStep(ctx, tx, job); err != nil {
			return err
		}
		up.Data.Bucket, up.Data.Version = "", ""
		if err := c.leaveQueue(ctx, tx, job, setData+", md5 = $14, sha512 = $15, file_size = $16, generation = $17",
			append(dataArgs(up.Data), up.MD5, up.SHA512, up.Data.Size, ims.NewGeneration())...); err != nil {
			return err
		}
		if !stage {
			if err := c.activate(ctx, tx, job.ProjectID, job.ImageID); err != nil {
				return err
			}
		}
		if err := c.publishAttempt(ctx, tx, job); err != nil {
			return err
		}
		return c.end(ctx, tx, job, ims.JobSuccess, 100, "", "")
	}), "finish the upload of image "+job.ImageID)
}

// activate makes an image with data active.
func (c *Catalog) activate(ctx context.Context, tx *database.Tx, projectID, imageID string) error {
	now := c.now().UnixMilli()
	_, err := tx.ExecContext(ctx, "UPDATE images SET status = 'active', phase = '', active_at = $3, updated_at = $3 WHERE project_id = $1 AND id = $2",
		projectID, imageID, now)
	return err
}

// FailUpload makes the image queued again and the job FAIL, in one transaction. What the
// upload wrote is left to the clean-up.
func (c *Catalog) FailUpload(ctx context.Context, job ims.Job, code ims.Code, reason string) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error { return c.failUpload(ctx, tx, job, code, reason) }),
		"give up the upload of image "+job.ImageID)
}

func (c *Catalog) failUpload(ctx context.Context, tx *database.Tx, job ims.Job, code ims.Code, reason string) error {
	if err := saveStep(ctx, tx, job); err != nil {
		return err
	}
	if err := c.leaveQueue(ctx, tx, job, "status = 'queued', phase = ''"); err != nil {
		return err
	}
	if err := c.endAttempts(ctx, tx, job.ImageID, ""); err != nil {
		return err
	}
	return c.end(ctx, tx, job, ims.JobFail, percent(job), code, database.Clean(reason, maxReason))
}

// ImportStaged makes an image active whose bytes were staged. Faults that a client is told
// of: no bytes wait for an import, or a format is not said (IMG.0035, KindConflict).
func (c *Catalog) ImportStaged(ctx context.Context, projectID, imageID string) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		img, err := lockImage(ctx, tx, projectID, imageID)
		if err != nil {
			return err
		}
		conflict := func(format string, args ...any) error {
			return ims.Faultf(ims.CodeConflict, format, args...).WithKind(ims.KindConflict)
		}
		switch {
		case img.Status != ims.ImageUploading:
			return conflict("the image is %s; the import needs staged bytes", img.Status)
		case img.Data.Key == "":
			return conflict("the bytes are being staged")
		case img.DiskFormat == "" || img.ContainerFormat == "":
			return conflict("the image must have a disk_format and a container_format before its bytes are imported")
		}
		return c.activate(ctx, tx, projectID, imageID)
	}), "import the staged bytes of image "+imageID)
}
