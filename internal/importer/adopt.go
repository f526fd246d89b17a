package importer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// adopt makes the source's bytes ours, the cheapest way the store offers, and
// durable. Until publication nothing refers to them, and the image is read from its
// pinned source. bitmap says to adopt that of the source, too.
func (i *Importer) adopt(ctx context.Context, job *ims.Job, img ims.Image, bitmap bool) (ims.Data, error) {
	if err := i.room(); err != nil {
		return ims.Data{}, err
	}
	job.Step = ims.StepAdopt
	src := job.Source
	if err := i.catalog.BeginAdopt(ctx, *job, sourceData(src, bitmap)); err != nil {
		return ims.Data{}, err
	}
	if err := faultpoint.Hit(faultpoint.AdoptBegun); err != nil {
		return ims.Data{}, err
	}
	if err := i.own(ctx); err != nil {
		return ims.Data{}, err
	}
	attempt := imagearea.Attempt{ImageID: img.ID, Number: job.Attempt}
	data := ims.Data{Key: attempt.Disk(), Format: src.Format, VirtualSize: src.VirtualSize}

	opts := objectstore.AdoptOptions{Progress: i.reportProgress(ctx, job), Began: i.recordUpload(*job, data.Key), Copies: i.reportCopy(job),
		Room: func(n int64) error { return noRoom(i.opts.Allowance.Room(n)) }}
	info, err := i.store.Adopt(ctx, sourceOf(src), objectstore.Condition{ETag: src.ETag, Version: src.Version},
		objectstore.Location{Bucket: objectstore.ImageArea, Key: data.Key}, opts)
	if err != nil {
		return data, fmt.Errorf("adopt the disk: %w", err)
	}
	data.ETag, data.Size = info.ETag, info.Size
	if data.Size != src.Size {
		return data, fmt.Errorf("adopted %d bytes of a source of %d: %w", data.Size, src.Size, objectstore.ErrChanged)
	}
	if err := faultpoint.Hit(faultpoint.AdoptData); err != nil {
		return data, err
	}
	if bitmap {
		data.BitmapKey = attempt.Bitmap()
		info, err := i.store.Adopt(ctx, bitmapOf(src), objectstore.Condition{ETag: src.BitmapETag},
			objectstore.Location{Bucket: objectstore.ImageArea, Key: data.BitmapKey}, objectstore.AdoptOptions{Began: i.recordUpload(*job, data.BitmapKey)})
		if err != nil {
			return data, fmt.Errorf("adopt the bitmap: %w", err)
		}
		data.BitmapETag, data.BitmapSize = info.ETag, info.Size
	}
	return data, faultpoint.Hit(faultpoint.AdoptDone)
}

// recordUpload returns a function that records the multipart uploads of a key, so that
// the clean-up can abort them also in a store that does not list them.
func (i *Importer) recordUpload(job ims.Job, key string) func(ctx context.Context, upload string) error {
	return func(ctx context.Context, upload string) error {
		if err := i.catalog.RecordUpload(ctx, job, key, upload); err != nil {
			return err
		}
		return faultpoint.Hit(faultpoint.UploadBegun)
	}
}

// sourceData says where an image's bytes lie before they are ours: the pinned source,
// and its bitmap if that is one that is trusted. Reads of it are conditional on the pin,
// as all reads of an image's data are.
func sourceData(src ims.Source, bitmap bool) ims.Data {
	if src.Bucket == objectstore.ImageArea {
		return ims.Data{} // another image's, which may be deleted
	}
	data := ims.Data{
		Bucket: src.Bucket, Version: src.Version, Key: src.Key, ETag: src.ETag,
		Format: src.Format, Size: src.Size, VirtualSize: src.VirtualSize,
	}
	if bitmap {
		data.BitmapKey, data.BitmapETag, data.BitmapSize = src.BitmapKey, src.BitmapETag, src.BitmapSize
	}
	return data
}

// progressEvery is the shortest time between two writes of a job's progress.
const progressEvery = time.Second

// reportCopy returns a function that warns of a copy where a link was to be expected, in
// the log and in the job.
func (i *Importer) reportCopy(job *ims.Job) func(reason string) {
	return func(reason string) {
		i.opts.Logger.Warn("source copied", "job_id", job.ID, "image_id", job.ImageID, "bucket", job.Source.Bucket, "key", job.Source.Key,
			"bytes", job.Source.Size, "reason", reason)
		job.Source.Warnings = append(job.Source.Warnings, ims.Warning{ID: "copied", Text: reason})
	}
}

// reportProgress writes how far the adoption is into the job, from 5 to 99 percent,
// about once a second. A write that fails is no reason to stop.
func (i *Importer) reportProgress(ctx context.Context, job *ims.Job) func(done, total int64) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	return func(done, total int64) {
		now, before := time.Now().UnixNano(), last.Load()
		if total <= 0 || now-before < int64(progressEvery) || !last.CompareAndSwap(before, now) {
			return
		}
		at := *job
		at.Percent = 5 + int(float64(done)/float64(total)*94)
		if err := i.catalog.SaveStep(ctx, at); err != nil {
			i.opts.Logger.Warn("progress not saved", "job_id", job.ID, "error", err)
		}
	}
}
