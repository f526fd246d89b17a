package importer

import (
	"context"
	"errors"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
	"github.com/quickims/quickims/internal/objectstore"
)

// pin notes what the source is now. Every later read is conditional on it. An
// attempt that follows another keeps the first one's pin.
func (i *Importer) pin(ctx context.Context, job *ims.Job) error {
	job.Step = ims.StepPin
	src := &job.Source
	if src.ETag == "" {
		info, err := i.store.Stat(ctx, sourceOf(*src))
		if err != nil {
			return err
		}
		if err := fits(src.Key, info.Size); err != nil {
			return err
		}
		src.Size, src.ETag, src.Version = info.Size, info.ETag, info.Version
		if src.BitmapKey != "" {
			info, err := i.store.Stat(ctx, bitmapOf(*src))
			if errors.Is(err, objectstore.ErrNotFound) {
				return ims.Faultf(ims.CodeFile, "the bitmap %q went away", src.BitmapKey)
			}
			if err != nil {
				return err
			}
			src.BitmapSize, src.BitmapETag = info.Size, info.ETag
		}
	}
	job.Percent = 1
	if err := i.catalog.SaveStep(ctx, *job); err != nil {
		return err
	}
	return faultpoint.Hit(faultpoint.Pinned)
}

func sourceOf(s ims.Source) objectstore.Location {
	return objectstore.Location{Bucket: s.Bucket, Key: s.Key}
}

func bitmapOf(s ims.Source) objectstore.Location {
	return objectstore.Location{Bucket: s.Bucket, Key: s.BitmapKey}
}

// inspect looks at the source by content: what it is, whether it is whole, and
// whether the disk fits. It reports whether a RAW file has a bitmap whose own checksums
// hold. The number of reads does not grow with the image.
func (i *Importer) inspect(ctx context.Context, job *ims.Job, img ims.Image) (bool, error) {
	job.Step = ims.StepInspect
	src := &job.Source
	info := objectstore.ObjectInfo{Size: src.Size, ETag: src.ETag, Version: src.Version}
	r := newEdgeReader(objectstore.NewReaderAt(ctx, i.store, sourceOf(*src), info), src.Size)

	trusted := false
	file := inspect.File{Name: src.Key, ReaderAt: r, Size: src.Size}
	found, err := inspect.QuickImport(ctx, file, inspect.Options{
		DataDisk: img.Env == ims.EnvData, MinDiskGiB: img.MinDiskGiB, MinDiskGreater: i.opts.MinDiskGreater,
	})
	if err != nil {
		return false, fileFault(src.Key, err)
	}
	src.Format, src.VirtualSize, src.Warnings = string(found.Format), found.VirtualSize, nil
	if src.Config {
		src.Warnings = append(src.Warnings, ims.Warning{ID: "not_configured", Text: "is_config was true, but this service adapts no drivers and no boot files: " +
			"the image starts as the file is; `quickims check` tells whether it can"})
	}
	notes := found.Notes
	if img.Env != ims.EnvData {
		notes = append(notes, inspect.SystemNotes(found.System(ctx))...)
	}
	for _, note := range notes {
		src.Warnings = append(src.Warnings, ims.Warning(note))
	}
	if found.Format == diskformat.Raw {
		if trusted, err = i.readBitmap(ctx, *src); err != nil {
			return false, err
		}
	}
	job.Percent = 5
	if err := i.catalog.SaveStep(ctx, *job); err != nil {
		return false, err
	}
	return trusted, faultpoint.Hit(faultpoint.Inspected)
}

// readBitmap reads the bitmap of a RAW file and reports whether it is trusted. One whose
// layout is unknown counts for being there alone; one that is known must hold and must
// match the file.
func (i *Importer) readBitmap(ctx context.Context, src ims.Source) (bool, error) {
	if src.BitmapKey == "" {
		if src.NoBitmap || i.opts.WithoutBitmap {
			return false, nil
		}
		return false, missingBitmap(src.Key)
	}
	info := objectstore.ObjectInfo{Size: src.BitmapSize, ETag: src.BitmapETag}
	m, err := bitmap.Parse(objectstore.NewReaderAt(ctx, i.store, bitmapOf(src), info), src.BitmapSize, src.Size)
	if err != nil {
		return false, fileFault(src.BitmapKey, err)
	}
	return m.Kind() != bitmap.Unknown, nil
}

// fileFault says which file is at fault, unless it was the store.
func fileFault(key string, err error) error {
	if _, ok := errors.AsType[*ims.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*objectstore.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code := ims.CodeFile
	if errors.Is(err, diskformat.ErrTooLarge) {
		code = ims.CodeDiskSize
	}
	return ims.Faultf(code, "%q: %v", key, err).Cause(err)
}
