package importer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/imagearea"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	cleanBatch = 100
	// cleanEvery is the time between two clean-ups without a nudge.
	cleanEvery = time.Minute
	// surveyEvery is the time between two looks through the whole image area.
	surveyEvery = time.Hour
)

// Unknown counts what lies in the image area and no row of the catalog explains.
type Unknown struct{ Objects, Bytes int64 }

// unknown is what the last survey found.
type unknown struct{ objects, bytes atomic.Int64 }

// Unknown returns what the last survey of the image area found. It is zero before the
// first.
func (i *Importer) Unknown() Unknown {
	return Unknown{i.unknown.objects.Load(), i.unknown.bytes.Load()}
}

// Nudge wakes the clean-up. It does not wait for it.
func (i *Importer) Nudge() {
	select {
	case i.nudged <- struct{}{}:
	default:
	}
}

// RunCleanUp removes leftovers until the context ends, and at the start and every hour
// looks through the image area for what it must not touch. It needs no caller's token.
func (i *Importer) RunCleanUp(ctx context.Context) error {
	survey := time.NewTimer(0)
	defer survey.Stop()
	clean := time.NewTicker(cleanEvery)
	defer clean.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-survey.C:
			err = errors.Join(i.CleanUp(ctx), i.Survey(ctx))
			survey.Reset(surveyEvery)
		case <-clean.C:
			err = i.CleanUp(ctx)
		case <-i.nudged:
			err = i.CleanUp(ctx)
		}
		if err != nil && ctx.Err() == nil {
			i.opts.Logger.Warn("clean-up incomplete, retrying later", "error", err)
		}
	}
}

// CleanUp removes what ended attempts and deleted images left in the image area: the
// keys that their rows name, and the multipart uploads of those. It lists nothing and
// touches nothing else.
func (i *Importer) CleanUp(ctx context.Context) error {
	for {
		leftovers, err := i.catalog.Leftovers(ctx, cleanBatch)
		if err != nil || len(leftovers) == 0 {
			return err
		}
		if err := i.own(ctx); err != nil {
			return err
		}
		var failed error
		for _, l := range leftovers {
			if err := faultpoint.Hit(faultpoint.CleanBegun); err != nil {
				return err
			}
			if err := i.remove(ctx, l); err != nil {
				failed = errors.Join(failed, err)
				continue // one object that cannot be removed holds up no other
			}
			if err := faultpoint.Hit(faultpoint.CleanRemoved); err != nil {
				return err
			}
			if err := i.catalog.Removed(ctx, l.Attempt); err != nil {
				return err
			}
		}
		if failed != nil || len(leftovers) < cleanBatch {
			return failed
		}
	}
}

func (i *Importer) remove(ctx context.Context, l catalog.Leftover) error {
	at := func(key string) objectstore.Location {
		return objectstore.Location{Bucket: objectstore.ImageArea, Key: key}
	}
	for _, u := range l.Uploads {
		if err := i.store.AbortUpload(ctx, at(u.Key), u.ID); err != nil {
			return fmt.Errorf("abort an upload of %s: %w", u.Key, err)
		}
	}
	for _, key := range l.Keys() {
		if err := i.store.Delete(ctx, at(key)); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	return nil
}

// Survey looks through the image area and counts what no row explains. It removes
// nothing: what is unknown here may be another installation's.
func (i *Importer) Survey(ctx context.Context) error {
	var found Unknown
	after, first := "", ""
	known, judged := false, imagearea.Attempt{}
	for {
		list, err := i.store.List(ctx, objectstore.ImageArea, "", after, objectstore.MaxList)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for _, o := range list {
			after = o.Key
			if o.Key == imagearea.MarkKey {
				continue
			}
			a, ok := imagearea.Of(o.Key)
			if ok && a != judged {
				if known, err = i.catalog.Known(ctx, a); err != nil {
					return err
				}
				judged = a
			}
			if ok && known {
				continue
			}
			if found.Objects == 0 {
				first = o.Key
			}
			found.Objects++
			found.Bytes += o.Size
		}
	}
	i.unknown.objects.Store(found.Objects)
	i.unknown.bytes.Store(found.Bytes)
	if found.Objects > 0 {
		i.opts.Logger.Warn("unknown objects in the image area, nothing is removed", "objects", found.Objects, "bytes", found.Bytes, "first", first)
	}
	return nil
}
