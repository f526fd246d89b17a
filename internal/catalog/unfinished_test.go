package catalog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// queuedImage is an image without data that waits for an upload.
func (c fixture) queuedImage() ims.Image {
	c.t.Helper()
	img, _ := newImport(mine)
	img.Status, img.DiskFormat, img.ContainerFormat, img.SourceURL, img.FileSize = ims.ImageQueued, "raw", "bare", "", 0
	img, err := c.CreateImage(c.t.Context(), domain, img, plenty)
	must(c.t, err)
	return img
}

func (c fixture) beginUpload(image string) ims.Job {
	c.t.Helper()
	job, err := c.BeginUpload(c.t.Context(), mine, image, false, lease, plenty)
	must(c.t, err)
	return job
}

// TestEndUnfinished: no job goes on, and nothing that an unfinished attempt wrote is
// removed: a newer copy of the database may have published it.
func TestEndUnfinished(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		_, waiting := c.accept(mine)
		_, saving := c.saving(mine)
		_, released := c.saving(mine)
		must(t, c.Release(t.Context(), released, 1))
		again := c.claim(released.ID)
		must(t, c.BeginAdopt(t.Context(), again, sourceOf(again)))
		kept, done := c.active(mine)
		upload := c.beginUpload(c.queuedImage().ID)

		must(t, c.EndUnfinished(t.Context(), "taken over"))
		for _, job := range []ims.Job{waiting, saving, released, upload} {
			want := ims.ImageKilled
			if job.Type == ims.JobUpload {
				want = ims.ImageQueued
			}
			now, img := c.job(mine, job.ID), c.image(mine, job.ImageID)
			if now.Status != ims.JobFail || now.FailReason != "taken over" || img.Status != want || img.Data.Key != "" {
				t.Errorf("job %s is %s (%s), its image %s with data %q, want FAIL and %s", job.Type, now.Status, now.FailReason, img.Status, img.Data.Key, want)
			}
			if _, ok, err := c.ClaimJob(t.Context(), job.ID, lease); ok || err != nil {
				t.Errorf("the job can be claimed: %v", err)
			}
		}
		if now := c.job(mine, done.ID); now.Status != ims.JobSuccess || c.image(mine, kept.ID).Status != ims.ImageActive {
			t.Errorf("a job that had ended is %s", now.Status)
		}
		c.clock.advance(48 * time.Hour)
		// Of the released attempt every copy of the database knows that it was given up.
		if got := c.leftovers(); len(got) != 1 || got[0] != prefix(released.ImageID, released.Attempt) {
			t.Errorf("to be removed are %q", got)
		}
	})
}

// TestUploadNumbers: no two uploads into an image write under one prefix, be its jobs
// purged or the database an older copy that was given the area.
func TestUploadNumbers(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img := c.queuedImage()
		first := c.beginUpload(img.ID)
		must(t, c.FailUpload(t.Context(), first, ims.CodeInternal, "broke off"))
		grow := func(generation int) {
			t.Helper()
			_, err := c.db.ExecContext(context.WithoutCancel(t.Context()), `INSERT INTO installation (singleton, id, generation, made_at) VALUES (1, 'i', $1, 0)
				ON CONFLICT (singleton) DO UPDATE SET generation = $1`, generation)
			must(t, err)
		}
		grow(7)
		c.clock.advance(keepEnded + time.Hour)
		must(t, c.Purge(t.Context(), plenty)) // the attempt waits for the clean-up, its job does not
		second := c.beginUpload(img.ID)
		if second.Attempt <= 7 {
			t.Errorf("the upload after a take-over from generation 7 has number %d, which that one may have used", second.Attempt)
		}
		must(t, c.FailUpload(t.Context(), second, ims.CodeInternal, "broke off"))
		if third := c.beginUpload(img.ID); third.Attempt <= second.Attempt {
			t.Errorf("number %d comes after %d", third.Attempt, second.Attempt)
		}
	})
}

// TestRegisterInto: the job of a file for a queued image begins above every attempt that
// there was, all or nothing, and nothing else gets into the image meanwhile.
func TestRegisterInto(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img := c.queuedImage()
		upload := c.beginUpload(img.ID)
		register := func(limits ims.Limits, queue error) (ims.Job, error) {
			job := ims.Job{ID: ims.NewJobID(), ProjectID: mine, Type: ims.JobRegister, Step: ims.StepAccepted, ImageID: img.ID,
				Source: ims.Source{Bucket: "b", Key: "k", Size: 4096, NoBitmap: true}}
			err := c.Register(t.Context(), job, limits, func(context.Context, *database.Tx, string) error { return queue })
			return job, err
		}
		_, err := register(plenty, nil)
		wantCode(t, err, ims.CodeConflict)
		must(t, c.FailUpload(t.Context(), upload, ims.CodeInternal, "broke off"))
		planned := errors.New("planned")
		job, err := register(plenty, planned)
		wantError(t, err, planned)
		_, err = c.Job(t.Context(), mine, job.ID)
		wantError(t, err, ErrNotFound)
		if got := c.image(mine, img.ID); got.SourceURL != "" || got.FileSize != 0 {
			t.Errorf("nothing was accepted, and the image is %+v", got)
		}
		few := plenty
		few.Bytes = 4095
		_, err = register(few, nil)
		wantCode(t, err, ims.CodeQuota)
		few = plenty
		few.Images = 1 // it counts already
		job, err = register(few, nil)
		must(t, err)
		_, err = register(plenty, nil)
		wantCode(t, err, ims.CodeConflict)
		job = c.claim(job.ID)
		if job.Attempt <= upload.Attempt || !job.Source.NoBitmap || job.ImageName != img.Name {
			t.Errorf("claimed %+v, the upload was attempt %d", job, upload.Attempt)
		}
		must(t, c.BeginAdopt(t.Context(), job, sourceOf(job)))
		must(t, c.Publish(t.Context(), job, dataOf(job)))
		if got := c.image(mine, img.ID); got.Status != ims.ImageActive || got.SourceURL != "b:k" || got.FileSize != 4096 || got.DiskFormat != "raw" {
			t.Errorf("published %+v", got)
		}
	})
}
