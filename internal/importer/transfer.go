package importer

import (
	"context"
	"errors"
	"fmt"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Copy takes in a copy of an image that the caller's project may read: a new image over
// the same bytes, which live as long as one of the two does. Its job adopts them as an
// import does its source's; nothing is inspected again.
func (i *Importer) Copy(ctx context.Context, p ims.Principal, imageID string, request ims.CopyRequest) (string, error) {
	src, member, err := i.catalog.VisibleImage(ctx, p.ProjectID, imageID)
	if err != nil {
		return "", err
	}
	img, err := request.NewImage(src, p.ProjectID)
	switch {
	case err != nil:
		return "", err
	case catalog.MayRead(member) != nil:
		return "", ims.Faultf(ims.CodeCopyNotAccepted, "the image is shared with this project, which has not accepted it: its membership is %s", member.Status)
	case src.Status != ims.ImageActive:
		return "", ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one can be copied", src.Status)
	}
	limits := i.opts.Limits
	if limits.InBuckets, err = i.opts.Allowance.InBuckets(ctx, p.ProjectID); err != nil {
		return "", err
	}
	if err := i.room(); err != nil {
		return "", err
	}
	d := src.Data
	job := ims.Job{
		ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobCopy, Status: ims.JobInit, Step: ims.StepAccepted, ImageID: img.ID, ImageName: img.Name,
		Source: ims.Source{
			Bucket: objectstore.ImageArea, Key: d.Key, Size: d.Size, ETag: d.ETag, BitmapKey: d.BitmapKey, BitmapSize: d.BitmapSize, BitmapETag: d.BitmapETag,
			Format: d.Format, VirtualSize: d.VirtualSize,
		},
	}
	return i.accepted(job, i.catalog.CreateImport(ctx, p.Tenant, img, job, limits, i.enqueue))
}

// Export takes in an export of an image of the caller's project into a bucket of its own:
// the stored data as it is, with the bitmap of a RAW image beside it. What is there already
// is a fault.
func (i *Importer) Export(ctx context.Context, p ims.Principal, imageID string, to ims.Export) (string, error) {
	img, err := i.catalog.Image(ctx, p.ProjectID, imageID)
	if err != nil {
		return "", err
	}
	if img.Status != ims.ImageActive {
		return "", ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one can be exported", img.Status)
	}
	if err := i.bucketUsable(ctx, p.ProjectID, to.Bucket, i.opts.MayWrite); err != nil {
		return "", err
	}
	if objectstore.CheckKey(to.Key) != nil || objectstore.ReservedKey(to.Key) {
		return "", ims.Faultf(ims.CodeExportNameFormat, "bucket_url: no object can be called %q here, choose another name", ims.Clip(to.Key))
	}
	target := ims.Source{Bucket: to.Bucket, Key: to.Key, Size: img.Data.Size, Format: img.Data.Format, VirtualSize: img.Data.VirtualSize}
	switch {
	case to.Format == "":
	case i.opts.OpenDisk == nil:
		return "", ims.Faultf(ims.CodeUnsupported, "file_format: this service converts no images")
	case img.Data.VirtualSize > ims.MaxConverted:
		return "", ims.Faultf(ims.CodeExportTooLarge, "the disk has %d bytes, and up to %d are converted; is_quick_export writes the stored data, whatever its size", img.Data.VirtualSize, int64(ims.MaxConverted))
	default:
		target.Converted, target.Format, target.Size = true, to.Format, 0
	}
	if img.Data.BitmapKey != "" && !target.Converted {
		if target.BitmapKey = ims.BitmapKey(to.Key); target.BitmapKey == to.Key {
			return "", ims.Faultf(ims.CodeExportNameFormat, "bucket_url: %q is the name of a bitmap, name the image file, such as %q", to.Key, to.Key[:len(to.Key)-len(".mf")]+".raw")
		}
	}
	for _, loc := range exportedTo(target) {
		switch _, err := i.store.Stat(ctx, loc); {
		case err == nil:
			return "", exists(loc)
		case !errors.Is(err, objectstore.ErrNotFound):
			return "", objectFault(ims.ImportSpec{Bucket: loc.Bucket, Key: loc.Key}, err)
		}
	}
	job := ims.Job{ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobExport, Step: ims.StepExport, ImageID: imageID, Source: target}
	return i.accepted(job, i.catalog.CreateExport(ctx, job, i.opts.Limits, i.enqueue))
}

// exportedTo are the objects that an export makes, in their order: the bitmap first, so
// that a file without its bitmap is never there.
func exportedTo(target ims.Source) []objectstore.Location {
	disk := objectstore.Location{Bucket: target.Bucket, Key: target.Key}
	if target.BitmapKey == "" {
		return []objectstore.Location{disk}
	}
	return []objectstore.Location{{Bucket: target.Bucket, Key: target.BitmapKey}, disk}
}

func exists(loc objectstore.Location) *ims.Error {
	return ims.Faultf(ims.CodeFileExists, "the object %q, or one in the place of a folder of its name, is there already; nothing is replaced, choose another name or delete it first", loc.Key)
}

// export writes the data of an active image to a bucket. The right to the bucket must hold
// still.
func (i *Importer) export(ctx context.Context, job *ims.Job, img ims.Image) error {
	if err := i.bucketUsable(ctx, job.ProjectID, job.Source.Bucket, i.opts.MayWrite); err != nil {
		return err
	}
	if job.Source.Converted {
		return i.exportConverted(ctx, job, img)
	}
	up, err := i.opts.Allowance.BeginCopy(ctx, job.ProjectID, img.Data.Size)
	if err != nil {
		return noRoom(err)
	}
	stored := false
	defer func() { up.End(stored) }()
	from := []ims.Data{img.Data}
	if job.Source.BitmapKey != "" {
		from = []ims.Data{{Key: img.Data.BitmapKey, ETag: img.Data.BitmapETag}, img.Data}
	}
	for n, to := range exportedTo(job.Source) {
		opts := i.exportOptions(job, to)
		if to.Key == job.Source.Key {
			opts.Progress = i.reportProgress(ctx, job)
		}
		err := i.store.Export(ctx, objectstore.Location{Bucket: objectstore.ImageArea, Key: from[n].Key}, objectstore.Condition{ETag: from[n].ETag}, to, opts)
		if err != nil {
			return notExported(to, err)
		}
		if to.Key == job.Source.BitmapKey {
			if err := faultpoint.Hit(faultpoint.ExportBitmap); err != nil {
				return err
			}
		}
	}
	stored = true
	return faultpoint.Hit(faultpoint.ExportDone)
}

// notExported says why an object could not be made.
func notExported(to objectstore.Location, err error) error {
	switch {
	case errors.Is(err, objectstore.ErrExists):
		return exists(to).Cause(err)
	case errors.Is(err, objectstore.ErrDenied):
		return ims.Faultf(ims.CodeBucketAccess, "the store does not let the service write to bucket %q", to.Bucket).Cause(err)
	case errors.Is(err, objectstore.ErrChanged), errors.Is(err, objectstore.ErrNotFound):
		return ims.Faultf(ims.CodeInternal, "the stored data of the image is not what was imported; it has to be imported again").Cause(err)
	}
	return fmt.Errorf("export %s: %w", to, err)
}

// exportOptions are those of the export of an object of a job, whose row keeps what it
// takes to find or to remove what an attempt leaves: the mark, in the place of the ETag,
// and the multipart upload.
func (i *Importer) exportOptions(job *ims.Job, to objectstore.Location) objectstore.ExportOptions {
	mark := &job.Source.ETag
	if to.Key == job.Source.BitmapKey {
		mark = &job.Source.BitmapETag
	}
	return objectstore.ExportOptions{
		Token: job.ID, Made: *mark, Abandoned: job.Source.Upload,
		Room: func(n int64) error { return noRoom(i.opts.Allowance.UploadRoom(n)) },
		Making: func(ctx context.Context, made string) error {
			*mark = made
			if err := i.catalog.SaveStep(ctx, *job); err != nil {
				return err
			}
			return faultpoint.Hit(faultpoint.ExportMarked)
		},
		Began: func(ctx context.Context, upload string) error {
			job.Source.Upload = upload
			if err := i.catalog.SaveStep(ctx, *job); err != nil {
				return err
			}
			return faultpoint.Hit(faultpoint.UploadBegun)
		},
	}
}

// undoExport removes what a job made in the bucket: the objects that bear its marks. The
// lease is held meanwhile, since another worker would find them complete.
func (i *Importer) undoExport(ctx context.Context, job ims.Job) error {
	if err := i.catalog.RenewLease(ctx, job, i.opts.Lease); err != nil {
		return err
	}
	work, release := i.holdLease(ctx, job)
	defer release()
	made := exportedTo(job.Source)
	for n := range made {
		to := made[len(made)-1-n] // a disk without its bitmap is never there
		if err := i.store.Unexport(work, to, i.exportOptions(&job, to)); err != nil {
			if lost := context.Cause(work); lost != nil {
				err = lost
			}
			return fmt.Errorf("remove %s, which the failed export made: %w", to, err)
		}
	}
	return faultpoint.Hit(faultpoint.ExportUndone)
}
