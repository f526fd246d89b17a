package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// How long a job that nobody holds may wait in the queue before Unserved doubts that
// the queue has it.
const (
	// claimWithin is for a job that was never claimed.
	claimWithin = 5 * time.Second
	// resumeWithin is for one that was given back: longer than any pause that a worker
	// asks for, the longest being a minute, and than the queue's delay after it.
	resumeWithin = 90 * time.Second
)

// sourceJSON is a job's source as its column holds it.
type sourceJSON struct {
	Bucket      string `json:"bucket"`
	Key         string `json:"key"`
	Size        int64  `json:"size"`
	ETag        string `json:"etag,omitempty"`
	Version     string `json:"version,omitempty"`
	BitmapKey   string `json:"bitmap_key,omitempty"`
	BitmapSize  int64  `json:"bitmap_size,omitempty"`
	BitmapETag  string `json:"bitmap_etag,omitempty"`
	Format      string `json:"format,omitempty"`
	VirtualSize int64  `json:"virtual_size,omitempty"`

	Before   int64  `json:"before,omitempty"`
	Upload   string `json:"upload,omitempty"`
	NoBitmap bool   `json:"no_bitmap,omitempty"`
	Config   bool   `json:"config,omitempty"`
	Nested   bool   `json:"nested,omitempty"`

	Converted bool `json:"converted,omitempty"`

	Warnings []warningJSON `json:"warnings,omitempty"`
}

type warningJSON struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

func sourceText(s ims.Source) (string, error) {
	j := sourceJSON{
		Bucket: s.Bucket, Key: s.Key, Size: s.Size, ETag: s.ETag, Version: s.Version,
		BitmapKey: s.BitmapKey, BitmapSize: s.BitmapSize, BitmapETag: s.BitmapETag, Format: s.Format, VirtualSize: s.VirtualSize,
		Before: s.Before, Upload: s.Upload, NoBitmap: s.NoBitmap, Config: s.Config, Nested: s.Nested, Converted: s.Converted,
	}
	for _, w := range s.Warnings {
		j.Warnings = append(j.Warnings, warningJSON(w))
	}
	text, err := json.Marshal(j)
	return string(text), err
}

func (j sourceJSON) source() ims.Source {
	s := ims.Source{
		Bucket: j.Bucket, Key: j.Key, Size: j.Size, ETag: j.ETag, Version: j.Version,
		BitmapKey: j.BitmapKey, BitmapSize: j.BitmapSize, BitmapETag: j.BitmapETag, Format: j.Format, VirtualSize: j.VirtualSize,
		Before: j.Before, Upload: j.Upload, NoBitmap: j.NoBitmap, Config: j.Config, Nested: j.Nested, Converted: j.Converted,
	}
	for _, w := range j.Warnings {
		s.Warnings = append(s.Warnings, ims.Warning(w))
	}
	return s
}

const jobColumns = `id, project_id, type, status, step, percent, attempt, faults, image_id, image_name,
	source, error_code, fail_reason, begin_time, end_time`

func scanJob(row interface{ Scan(...any) error }) (ims.Job, error) {
	var j ims.Job
	var source string
	var begin int64
	var end sql.NullInt64
	err := row.Scan(&j.ID, &j.ProjectID, &j.Type, &j.Status, &j.Step, &j.Percent, &j.Attempt, &j.Faults, &j.ImageID, &j.ImageName,
		&source, &j.ErrorCode, &j.FailReason, &begin, &end)
	if err != nil {
		return j, orNotFound(err)
	}
	var s sourceJSON
	if err := json.Unmarshal([]byte(source), &s); err != nil {
		return j, fmt.Errorf("job %s: its source: %w", j.ID, err)
	}
	j.Source, j.BeginTime, j.EndTime = s.source(), fromMilli(begin), fromNull(end)
	return j, nil
}

func insertJob(ctx context.Context, tx *database.Tx, j ims.Job) error {
	source, err := sourceText(j.Source)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO jobs ("+jobColumns+", lease_until, free_since) VALUES "+placeholders(1, 17),
		j.ID, j.ProjectID, string(j.Type), string(j.Status), string(j.Step), j.Percent, j.Attempt, j.Faults, j.ImageID, j.ImageName,
		source, string(j.ErrorCode), j.FailReason, j.BeginTime.UnixMilli(), nil, nil, j.BeginTime.UnixMilli())
	if err != nil {
		return fmt.Errorf("write job %s: %w", j.ID, err)
	}
	return nil
}

// Job reads a job. ErrNotFound when the project has none with this id.
func (c *Catalog) Job(ctx context.Context, projectID, id string) (ims.Job, error) {
	if !ims.ValidJobID(id) {
		return ims.Job{}, ErrNotFound
	}
	j, err := scanJob(c.db.QueryRowContext(ctx, "SELECT "+jobColumns+" FROM jobs WHERE project_id = $1 AND id = $2", projectID, id))
	if err != nil {
		return ims.Job{}, fmt.Errorf("read job %s: %w", id, err)
	}
	return j, nil
}

// ClaimJob takes a job for the length of a lease: one that nobody holds, or whose
// holder let the lease expire. Its attempt number goes up, which fences off every
// earlier holder; what they wrote is left to the clean-up. false: there is nothing to do, since the job has ended, is held, or
// does not exist.
func (c *Catalog) ClaimJob(ctx context.Context, id string, lease time.Duration) (ims.Job, bool, error) {
	now := c.now()
	var out []ims.Job
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		out = nil
		row := tx.QueryRowContext(ctx, `UPDATE jobs SET status = $2, attempt = attempt + 1, lease_until = $3
			WHERE id = $1 AND end_time IS NULL AND (lease_until IS NULL OR lease_until <= $4)
			RETURNING `+jobColumns, id, string(ims.JobRunning), now.Add(lease).UnixMilli(), now.UnixMilli())
		j, err := scanJob(row)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		out = append(out, j)
		return c.endAttempts(ctx, tx, j.ImageID, "") // they are fenced
	})
	if err != nil || len(out) == 0 {
		return ims.Job{}, false, wrap(err, "claim job "+id)
	}
	return out[0], true, nil
}

// fenced changes a job's row if this attempt still holds it. set may use $4 and up.
func fenced(ctx context.Context, q database.Querier, job ims.Job, set string, args ...any) error {
	n, err := affected(q.ExecContext(ctx, "UPDATE jobs SET "+set+`
		WHERE project_id = $1 AND id = $2 AND attempt = $3 AND end_time IS NULL AND lease_until IS NOT NULL`,
		append([]any{job.ProjectID, job.ID, job.Attempt}, args...)...))
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrFenced
	}
	return nil
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// RenewLease keeps the job for another lease from now on. ErrFenced when it is lost.
func (c *Catalog) RenewLease(ctx context.Context, job ims.Job, lease time.Duration) error {
	return wrap(fenced(ctx, c.db, job, "lease_until = $4", c.now().Add(lease).UnixMilli()), "renew the lease of job "+job.ID)
}

// SaveStep writes how far the job is: Step, Percent and Source.
func (c *Catalog) SaveStep(ctx context.Context, job ims.Job) error {
	return wrap(saveStep(ctx, c.db, job), "save the step of job "+job.ID)
}

func saveStep(ctx context.Context, q database.Querier, job ims.Job) error {
	source, err := sourceText(job.Source)
	if err != nil {
		return err
	}
	return fenced(ctx, q, job, "step = $4, percent = $5, source = $6", string(job.Step), percent(job), source)
}

func percent(job ims.Job) int { return max(0, min(job.Percent, 100)) }

// Release gives the lease back after a passing fault, so that the job can be claimed
// again. The attempt may write nothing more; what it wrote is left to the clean-up.
func (c *Catalog) Release(ctx context.Context, job ims.Job, faults int) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		err := fenced(ctx, tx, job, "lease_until = NULL, free_since = $4, faults = $5", c.now().UnixMilli(), faults)
		if err != nil {
			return err
		}
		return c.endAttempts(ctx, tx, job.ImageID, "")
	}), "release job "+job.ID)
}

// setData sets the columns of an image's data. Its arguments are $4 to $13.
const setData = `data_bucket = $4, data_version = $5, data_key = $6, data_etag = $7, data_format = $8, data_size = $9,
	data_virtual_size = $10, data_bitmap_key = $11, data_bitmap_etag = $12, data_bitmap_size = $13`

func dataArgs(d ims.Data) []any {
	return []any{d.Bucket, d.Version, d.Key, d.ETag, d.Format, d.Size, d.VirtualSize, d.BitmapKey, d.BitmapETag, d.BitmapSize}
}

// generationOfSource is the image's generation, or a new one, $15, unless the image was
// pinned to this very source before.
const generationOfSource = `CASE WHEN generation <> '' AND data_bucket = $4 AND data_version = $5 AND data_key = $6 AND data_etag = $7
	THEN generation ELSE $15 END`

// BeginAdopt saves the step, makes the image saving and records the attempt, in one
// transaction: only then may the attempt write to the image area. Until the image is
// published its data is source: where the bytes lie that are being adopted. Those of
// another image are not told: the zero value.
func (c *Catalog) BeginAdopt(ctx context.Context, job ims.Job, source ims.Data) error {
	if source.Bucket == "" && source != (ims.Data{}) {
		return fmt.Errorf("begin the adoption of image %s: its source names no bucket", job.ImageID)
	}
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := saveStep(ctx, tx, job); err != nil {
			return err
		}
		if err := c.recordAttempt(ctx, tx, job); err != nil {
			return err
		}
		return c.leaveQueue(ctx, tx, job, setData+", status = $14, generation = "+generationOfSource,
			append(dataArgs(source), string(ims.ImageSaving), ims.NewGeneration())...)
	}), "begin the adoption of image "+job.ImageID)
}

// Publish makes the image active, with the data that is ours and durable now, and the
// job SUCCESS, in one transaction. Earlier attempts are left to the clean-up.
func (c *Catalog) Publish(ctx context.Context, job ims.Job, data ims.Data) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := saveStep(ctx, tx, job); err != nil {
			return err
		}
		data.Bucket, data.Version = "", ""
		now := c.now().UnixMilli()
		// What downloads deliver of it, whatever a client said while it was queued.
		err := c.leaveQueue(ctx, tx, job, setData+", status = $14, active_at = $15, file_size = $16, disk_format = 'raw', container_format = 'bare'",
			append(dataArgs(data), string(ims.ImageActive), now, job.Source.Size)...)
		if err != nil {
			return err
		}
		if err := c.publishAttempt(ctx, tx, job); err != nil {
			return err
		}
		return c.end(ctx, tx, job, ims.JobSuccess, 100, "", "")
	}), "publish image "+job.ImageID)
}

// maxReason bounds a job's fail_reason, in bytes.
const maxReason = 4096

// FinishExport makes the job of an export SUCCESS.
func (c *Catalog) FinishExport(ctx context.Context, job ims.Job) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := saveStep(ctx, tx, job); err != nil {
			return err
		}
		return c.end(ctx, tx, job, ims.JobSuccess, 100, "", "")
	}), "finish the export of image "+job.ImageID)
}

// Fail makes the image killed, unless the job only exports it, and the job FAIL, in one
// transaction. What any attempt
// wrote is left to the clean-up, the image has no data, and its attachments end. reason
// is what the client reads.
func (c *Catalog) Fail(ctx context.Context, job ims.Job, code ims.Code, reason string) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error { return c.fail(ctx, tx, job, code, reason) }), "fail job "+job.ID)
}

func (c *Catalog) fail(ctx context.Context, tx *database.Tx, job ims.Job, code ims.Code, reason string) error {
	if err := saveStep(ctx, tx, job); err != nil {
		return err
	}
	if job.Type == ims.JobExport {
		return c.end(ctx, tx, job, ims.JobFail, percent(job), code, database.Clean(reason, maxReason))
	}
	if err := c.leaveQueue(ctx, tx, job, setData+", status = $14, generation = ''", append(dataArgs(ims.Data{}), string(ims.ImageKilled))...); err != nil {
		return err
	}
	if err := endAttachments(ctx, tx, job.ImageID); err != nil {
		return err
	}
	if err := c.endAttempts(ctx, tx, job.ImageID, ""); err != nil {
		return err
	}
	// A reason that can't be stored would keep the job from ever ending.
	return c.end(ctx, tx, job, ims.JobFail, percent(job), code, database.Clean(reason, maxReason))
}

func (c *Catalog) end(ctx context.Context, tx *database.Tx, job ims.Job, status ims.JobStatus, percent int, code ims.Code, reason string) error {
	return fenced(ctx, tx, job, "status = $4, percent = $5, error_code = $6, fail_reason = $7, end_time = $8, lease_until = NULL",
		string(status), percent, string(code), reason, c.now().UnixMilli())
}

// leaveQueue changes the image of a job that makes it. set may use $4 and up.
func (c *Catalog) leaveQueue(ctx context.Context, tx *database.Tx, job ims.Job, set string, args ...any) error {
	n, err := affected(tx.ExecContext(ctx, "UPDATE images SET updated_at = $3, "+set+`
		WHERE project_id = $1 AND id = $2 AND deleted_at IS NULL AND status IN ('queued', 'saving')`,
		append([]any{job.ProjectID, job.ImageID, c.now().UnixMilli()}, args...)...))
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("image %s is not being made, though its job %s has not ended", job.ImageID, job.ID)
	}
	return nil
}

// Unserved lists jobs that the queue should have served by now: their lease has
// expired, or nobody has held them for a while. The longest-waiting come first.
func (c *Catalog) Unserved(ctx context.Context, limit int) ([]string, error) {
	now := c.now()
	ids, err := texts(ctx, c.db, `SELECT id FROM jobs WHERE end_time IS NULL
		AND (lease_until <= $1 OR lease_until IS NULL AND (free_since <= $3 OR attempt = 0 AND free_since <= $2))
		ORDER BY COALESCE(lease_until, free_since), id LIMIT $4`,
		now.UnixMilli(), now.Add(-claimWithin).UnixMilli(), now.Add(-resumeWithin).UnixMilli(), limit)
	return ids, wrap(err, "list jobs that nobody serves")
}

// ExpireLeases takes every job from its holder and makes it Unserved. It is for the
// start of a process that uses the database alone: whoever held a job is dead.
func (c *Catalog) ExpireLeases(ctx context.Context) error {
	_, err := c.db.ExecContext(ctx, "UPDATE jobs SET lease_until = NULL, free_since = 0 WHERE end_time IS NULL")
	return wrap(err, "expire all leases")
}
