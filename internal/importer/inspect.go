package importer

import (
	"context"
	"errors"
	"fmt"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
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

// finding is what the inspection learned beyond what the job's source keeps.
type finding struct {
	// bitmap is that of a RAW file, nil unless its own checksums hold.
	bitmap *bitmap.Map
}

// inspect looks at the source by content: what it is, whether it is whole, and
// whether the disk fits. The number of reads does not grow with the image.
func (i *Importer) inspect(ctx context.Context, job *ims.Job, img ims.Image) (finding, error) {
	job.Step = ims.StepInspect
	src := &job.Source
	info := objectstore.ObjectInfo{Size: src.Size, ETag: src.ETag, Version: src.Version}
	r := newEdgeReader(objectstore.NewReaderAt(ctx, i.store, sourceOf(*src), info), src.Size)

	var f finding
	format, err := diskformat.Detect(r, src.Size)
	if err != nil {
		return f, fileFault(src.Key, err)
	}
	src.Format = string(format)
	switch format {
	case diskformat.ZVHD2:
		disk, err := zvhd2.Open(r, src.Size)
		if err != nil {
			return f, fileFault(src.Key, err)
		}
		src.VirtualSize = disk.Size()
	case diskformat.Raw:
		if src.Size%diskformat.SectorSize != 0 {
			return f, ims.Faultf(ims.CodeFile, "%q has %d bytes, which is no disk: the size of a RAW file is a multiple of %d", src.Key, src.Size, diskformat.SectorSize)
		}
		src.VirtualSize = src.Size
		if f.bitmap, err = i.readBitmap(ctx, *src); err != nil {
			return f, err
		}
	default:
		return f, ims.Faultf(ims.CodeFile, "%q is a %s file, quick import takes RAW and ZVHD2; `quickims convert` makes ZVHD2 of a RAW file", src.Key, format)
	}
	if most := int64(img.MinDiskGiB) * ims.GiB; src.VirtualSize > most {
		return f, ims.Faultf(ims.CodeDiskSize, "the disk in %q has %s, min_disk is %d GiB (%d bytes); it must be at least %d GiB",
			src.Key, gib(src.VirtualSize), img.MinDiskGiB, most, ims.LeastMinDisk(src.VirtualSize))
	}
	job.Percent = 5
	if err := i.catalog.SaveStep(ctx, *job); err != nil {
		return f, err
	}
	return f, faultpoint.Hit(faultpoint.Inspected)
}

func gib(n int64) string {
	if n%ims.GiB == 0 {
		return fmt.Sprintf("%d GiB (%d bytes)", n/ims.GiB, n)
	}
	return fmt.Sprintf("%.2f GiB (%d bytes)", float64(n)/float64(ims.GiB), n)
}

// readBitmap reads the bitmap of a RAW file. One whose layout is unknown counts for
// being there alone; one that is known must hold and must match the file.
func (i *Importer) readBitmap(ctx context.Context, src ims.Source) (*bitmap.Map, error) {
	if src.BitmapKey == "" {
		if i.opts.WithoutBitmap {
			return nil, nil
		}
		return nil, missingBitmap(src.Key)
	}
	info := objectstore.ObjectInfo{Size: src.BitmapSize, ETag: src.BitmapETag}
	m, err := bitmap.Parse(objectstore.NewReaderAt(ctx, i.store, bitmapOf(src), info), src.BitmapSize, src.Size)
	if err != nil {
		return nil, fileFault(src.BitmapKey, err)
	}
	if m.Kind() == bitmap.Unknown {
		return nil, nil
	}
	return m, nil
}

// fileFault says which file is at fault, unless it was the store.
func fileFault(key string, err error) error {
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
