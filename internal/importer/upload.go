package importer

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// Upload reads the bytes of a queued image of the project from body and makes the image
// active, or with stage lets them wait for ImportStaged. size is how many bytes there
// are, objectstore.UnknownSize if body tells. The bytes are kept as they come; they must
// be a RAW disk, else the fault has KindWrongFormat. Any fault, of body too, leaves the
// image queued and no bytes.
func (i *Importer) Upload(ctx context.Context, projectID, imageID string, body io.Reader, size int64, stage bool) error {
	job, err := i.catalog.BeginUpload(ctx, projectID, imageID, stage, i.opts.Lease, i.opts.Limits)
	if err != nil {
		return err
	}
	log := i.opts.Logger.With("job_id", job.ID, "project_id", projectID, "image_id", imageID, "attempt", job.Attempt)
	work, release := i.holdLease(ctx, job)
	up, err := i.receive(work, job, body, size)
	lost := context.Cause(work)
	release()
	// The client may be gone; what is said of its image need not be.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err == nil {
		err = i.catalog.FinishUpload(ending, job, up, stage)
	}
	if err == nil {
		i.opts.Ended(job, "")
		log.Info("image was uploaded", "bytes", up.Data.Size, "staged", stage)
		return nil
	}
	if errors.Is(lost, catalog.ErrFenced) || errors.Is(err, catalog.ErrFenced) {
		err = fmt.Errorf("the upload lost its job: %w", err)
		if lerr := i.catalog.EndLost(ending, job); lerr != nil {
			log.Warn("clean-up of the fenced attempt delayed", "error", lerr)
		}
	} else {
		fault := explainUpload(err)
		log.Info("upload failed", "code", fault.Code, "detail", fault.Detail, "error", err)
		if ferr := i.catalog.FailUpload(ending, job, fault.Code, fault.Reason()); ferr != nil {
			log.Warn("the upload stays until its lease ends", "error", ferr)
		} else {
			i.opts.Ended(job, fault.Code)
		}
		if ims.CodeOf(err) == "" {
			err = fault
		}
	}
	i.Nudge()
	return err
}

// receive writes the bytes to the image area and looks at what they are.
func (i *Importer) receive(ctx context.Context, job ims.Job, body io.Reader, size int64) (catalog.Uploaded, error) {
	if err := i.own(ctx); err != nil {
		return catalog.Uploaded{}, err
	}
	if size > ims.MaxFileSize {
		return catalog.Uploaded{}, tooLarge()
	}
	attempt := imagearea.Attempt{ImageID: job.ImageID, Number: job.Attempt}
	data := ims.Data{Key: attempt.Disk(), Format: string(diskformat.Raw)}
	short, long := md5.New(), sha512.New()
	in := io.TeeReader(&limited{r: body, left: ims.MaxFileSize}, io.MultiWriter(short, long))
	loc := objectstore.Location{Bucket: objectstore.ImageArea, Key: data.Key}
	// The bytes count while they come; what is stored then counts as the image's.
	up, err := i.opts.Allowance.Begin(ctx, job.ProjectID, max(0, size))
	if err != nil {
		return catalog.Uploaded{}, noRoom(err)
	}
	defer up.End(false)
	in = &counted{in, up}
	info, err := i.store.Put(ctx, loc, in, size, objectstore.PutOptions{Began: i.recordUpload(job, data.Key)})
	if err != nil {
		return catalog.Uploaded{}, err
	}
	if err := faultpoint.Hit(faultpoint.AdoptData); err != nil {
		return catalog.Uploaded{}, err
	}
	data.ETag, data.Size, data.VirtualSize = info.ETag, info.Size, info.Size
	if info.Size > 0 {
		if err := i.uploadIsRaw(ctx, loc, info); err != nil {
			return catalog.Uploaded{}, err
		}
	}
	return catalog.Uploaded{Data: data, MD5: hex.EncodeToString(short.Sum(nil)), SHA512: hex.EncodeToString(long.Sum(nil))},
		faultpoint.Hit(faultpoint.AdoptDone)
}

// uploadIsRaw refuses bytes that are no RAW disk: a machine would take them for one. A
// disc image is one to a machine.
func (i *Importer) uploadIsRaw(ctx context.Context, loc objectstore.Location, info objectstore.ObjectInfo) error {
	format, err := diskformat.Detect(objectstore.NewReaderAt(ctx, i.store, loc, info), info.Size)
	switch {
	case err == nil && (format == diskformat.Raw || format == diskformat.ISO):
		return nil
	case format != "" && format != diskformat.Raw:
		return ims.Faultf(ims.CodeFile, "the bytes are %s, not raw; convert them first: `quickims convert FILE OUT.raw`", format).WithKind(ims.KindWrongFormat)
	case errors.Is(err, diskformat.ErrAmbiguous):
		return ims.Faultf(ims.CodeFile, "the bytes look like several formats at once").WithKind(ims.KindWrongFormat).Cause(err)
	}
	return err
}

func tooLarge() error {
	return ims.Faultf(ims.CodeFileTooBig, "an image has at most 1 TiB (%d bytes)", ims.MaxFileSize)
}

// limited reads no more than left bytes; more are a fault.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge()
	}
	return n, err
}

// counted counts the bytes of an upload as they come.
type counted struct {
	r  io.Reader
	up *allowance.Upload
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if gerr := c.up.Grow(int64(n)); gerr != nil {
		return 0, noRoom(gerr)
	}
	return n, err
}

// explainUpload turns an error of an upload into what the client is told.
func explainUpload(err error) *ims.Error {
	if e, ok := errors.AsType[*ims.Error](err); ok {
		return e
	}
	if errors.Is(err, errNotOwned) {
		return notOwned(err)
	}
	if _, ok := errors.AsType[*objectstore.Error](err); ok {
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
		case errors.Is(err, objectstore.ErrNoSpace):
			return ims.Faultf(ims.CodeInternal, "no space left for the image's data").WithKind(ims.KindUnavailable).Cause(err)
		case errors.Is(err, objectstore.ErrUnavailable):
			return ims.Faultf(ims.CodeInternal, "the object store did not answer").WithKind(ims.KindUnavailable).Cause(err)
		case errors.Is(err, objectstore.ErrInvalid):
			return ims.Faultf(ims.CodeBadFormat, "more bytes came than were announced").Cause(err)
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) {
		return ims.Faultf(ims.CodeBadFormat, "the upload broke off; the image is queued again and has no bytes").Cause(err)
	}
	return (&ims.Error{Code: ims.CodeInternal}).WithKind(ims.KindInternal).Cause(err)
}

// lostUpload ends the job of an upload whose process was lost.
func (i *Importer) lostUpload(ctx context.Context, job ims.Job) error {
	err := i.catalog.FailUpload(ctx, job, ims.CodeInternal, "the upload broke off when the service stopped; upload again")
	i.Nudge()
	if errors.Is(err, catalog.ErrFenced) {
		return nil
	}
	return err
}
