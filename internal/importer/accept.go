package importer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Accept takes a valid import in: it looks at the bucket and the object, then
// writes image, job and queue entry in one transaction. The job's id is the answer.
// Faults that show without reading the file's content are *ims.Error here, not
// failed jobs later.
func (i *Importer) Accept(ctx context.Context, p ims.Principal, spec ims.ImportSpec) (string, error) {
	source, limits, err := i.look(ctx, p.ProjectID, spec)
	if err != nil {
		return "", err
	}
	img := spec.NewImage(ims.NewImageID(), p.ProjectID)
	img.FileSize = source.Size
	job := ims.Job{
		ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: spec.JobType(), Status: ims.JobInit,
		Step: ims.StepAccepted, ImageID: img.ID, ImageName: img.Name, Source: source,
	}
	return i.accepted(job, i.catalog.CreateImport(ctx, p.Tenant, img, job, limits, i.enqueue))
}

// Register takes in the import of a file into a queued image of the caller's project, as
// Accept does that of a file into a new one.
func (i *Importer) Register(ctx context.Context, p ims.Principal, imageID, bucket, key string) (string, error) {
	source, limits, err := i.look(ctx, p.ProjectID, ims.ImportSpec{Bucket: bucket, Key: key, Common: true})
	if err != nil {
		return "", err
	}
	job := ims.Job{
		ID: ims.NewJobID(), ProjectID: p.ProjectID, Type: ims.JobRegister, Status: ims.JobInit,
		Step: ims.StepAccepted, ImageID: imageID, Source: source,
	}
	return i.accepted(job, i.catalog.Register(ctx, job, limits, i.enqueue))
}

// look is what is asked before an import is written: the bucket, the object, the room.
func (i *Importer) look(ctx context.Context, projectID string, spec ims.ImportSpec) (ims.Source, ims.Limits, error) {
	limits := i.opts.Limits
	if err := i.bucketUsable(ctx, projectID, spec.Bucket, i.opts.MayRead); err != nil {
		return ims.Source{}, limits, err
	}
	source, err := i.lookAt(ctx, spec)
	if err != nil {
		return source, limits, err
	}
	if limits.InBuckets, err = i.opts.Allowance.InBuckets(ctx, projectID); err != nil {
		return source, limits, err
	}
	return source, limits, i.room()
}

// enqueue puts a job into the queue in the transaction that writes it.
func (i *Importer) enqueue(ctx context.Context, tx *database.Tx, jobID string) error {
	if err := i.opts.Enqueue(ctx, tx, jobID); err != nil {
		return err
	}
	return faultpoint.Hit(faultpoint.AcceptBeforeCommit)
}

// accepted is the answer of a job that was written, or not.
func (i *Importer) accepted(job ims.Job, err error) (string, error) {
	if err != nil {
		return "", err
	}
	i.opts.Logger.Info("import accepted", "job_id", job.ID, "image_id", job.ImageID, "project_id", job.ProjectID, "bytes", job.Source.Size)
	return job.ID, faultpoint.Hit(faultpoint.AcceptCommitted)
}

// room is the fault of an import for which the disk of the database has no room.
func (i *Importer) room() error {
	if err := i.opts.Allowance.Room(0); err != nil {
		return noRoom(err)
	}
	return nil
}

// noRoom says to the client what an error of the allowance means.
func noRoom(err error) error {
	switch {
	case errors.Is(err, allowance.ErrQuota):
		return ims.Faultf(ims.CodeQuota, "the project's limit of stored bytes is reached; delete images or objects first").WithKind(ims.KindTooLarge).Cause(err)
	case errors.Is(err, allowance.ErrReserve):
		return ims.Faultf(ims.CodeInternal, "the disk of the service's database is full up to its reserve; nothing more is stored until the operator makes room").
			WithKind(ims.KindNoSpace).Cause(err)
	}
	return err
}

// bucketUsable checks the caller's right to the bucket and the bucket's class. A
// bucket of another project answers as one that does not exist.
func (i *Importer) bucketUsable(ctx context.Context, projectID, bucket string, may func(ctx context.Context, projectID, bucket string) (bool, error)) error {
	hidden := ims.Faultf(ims.CodeBucketAccess, "bucket %q does not exist or is not this project's", bucket)
	ok, err := may(ctx, projectID, bucket)
	if err != nil {
		return fmt.Errorf("look up the owner of bucket %s: %w", bucket, err)
	}
	if !ok {
		return hidden
	}
	info, err := i.store.StatBucket(ctx, bucket)
	switch {
	case errors.Is(err, objectstore.ErrNoBucket), errors.Is(err, objectstore.ErrNotFound), errors.Is(err, objectstore.ErrDenied):
		return hidden.Cause(err)
	case err != nil:
		return storeAway(err)
	case !standard(info.Class):
		return ims.Faultf(ims.CodeBucketAccess, "the storage class of bucket %q is %s, it must be Standard", bucket, info.Class)
	case info.Region != "" && i.opts.Region != "" && info.Region != i.opts.Region:
		return ims.Faultf(ims.CodeRegion, "bucket %q is in region %s, this service in %s", bucket, info.Region, i.opts.Region)
	}
	return nil
}

// standard reports whether a storage class can be read at once, at no price.
func standard(class string) bool {
	return class == "" || strings.EqualFold(class, "STANDARD")
}

// lookAt stats the source and its bitmap.
func (i *Importer) lookAt(ctx context.Context, spec ims.ImportSpec) (ims.Source, error) {
	src := ims.Source{Bucket: spec.Bucket, Key: spec.Key, Config: spec.Config, Nested: spec.Nested, NoBitmap: spec.Common || i.opts.WithoutBitmap}
	loc := objectstore.Location{Bucket: spec.Bucket, Key: spec.Key}
	info, err := i.store.Stat(ctx, loc)
	if err != nil {
		return src, objectFault(spec, err)
	}
	if err := fits(spec.Key, info.Size); err != nil {
		return src, err
	}
	if !standard(info.Class) {
		return src, ims.Faultf(ims.CodeBucketAccess, "the storage class of the object %q is %s, it must be Standard", spec.Key, info.Class)
	}
	src.Size = info.Size
	if spec.Key == ims.BitmapKey(spec.Key) {
		return src, ims.Faultf(ims.CodeFile, "%q is the name of a bitmap, name the image file", spec.Key)
	}
	if src.BitmapKey, err = i.findBitmap(ctx, spec); err != nil {
		return src, err
	}
	if src.BitmapKey != "" || src.NoBitmap || strings.HasSuffix(strings.ToLower(spec.Key), ".zvhd2") {
		return src, nil
	}
	// Only a ZVHD2 file needs no bitmap, and its name need not say what it is.
	format, err := diskformat.Detect(objectstore.NewReaderAt(ctx, i.store, loc, info), info.Size)
	if errors.Is(err, objectstore.ErrUnavailable) {
		return src, storeAway(err)
	}
	if err == nil && format == diskformat.Raw {
		return src, missingBitmap(spec.Key)
	}
	return src, nil
}

// fits returns the fault of an object whose size no file of a disk can have.
func fits(key string, size int64) error {
	if size == 0 {
		return ims.Faultf(ims.CodeFile, "the object %q is empty", key)
	}
	return ims.CheckFileSize(fmt.Sprintf("the object %q", key), size)
}

// findBitmap looks for the bitmap of a RAW file; "" if there is none.
func (i *Importer) findBitmap(ctx context.Context, spec ims.ImportSpec) (string, error) {
	for _, key := range ims.BitmapKeys(spec.Key) {
		switch _, err := i.store.Stat(ctx, objectstore.Location{Bucket: spec.Bucket, Key: key}); {
		case err == nil:
			return key, nil
		case !errors.Is(err, objectstore.ErrNotFound):
			return "", objectFault(spec, err)
		}
	}
	return "", nil
}

func missingBitmap(key string) error {
	return ims.Faultf(ims.CodeFile, "the bitmap %q is missing: a RAW file needs one beside it; `quickims mf` makes it", ims.BitmapKey(key))
}

func objectFault(spec ims.ImportSpec, err error) error {
	switch {
	case errors.Is(err, objectstore.ErrNotFound):
		return ims.Faultf(ims.CodeFile, "the object %q is not in bucket %q", spec.Key, spec.Bucket).Cause(err)
	case errors.Is(err, objectstore.ErrDenied):
		return ims.Faultf(ims.CodeFile, "the object %q can't be read: the store denies the service access to it; in the directory store, let the service's user read the file (chown, or chmod g+r)", spec.Key).Cause(err)
	case errors.Is(err, objectstore.ErrNoBucket):
		return ims.Faultf(ims.CodeBucketAccess, "bucket %q does not exist or is not this project's", spec.Bucket).Cause(err)
	}
	return storeAway(err)
}

// storeAway is the answer while the object store does not: nothing was accepted.
func storeAway(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return ims.Faultf(ims.CodeInternal, "the object store does not answer; nothing was accepted, try again").
		WithKind(ims.KindUnavailable).Cause(err)
}
