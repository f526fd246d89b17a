package importer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	cleanBatch = 100
	// cleanEvery is the time between two clean-ups without a nudge.
	cleanEvery = time.Minute
)

// Nudge wakes the clean-up. It does not wait for it.
func (i *Importer) Nudge() {
	select {
	case i.nudged <- struct{}{}:
	default:
	}
}

// RunCleanUp removes leftovers until the context ends. It needs no caller's token.
func (i *Importer) RunCleanUp(ctx context.Context) error {
	clean := time.NewTicker(cleanEvery)
	defer clean.Stop()
	for {
		if err := i.CleanUp(ctx); err != nil && ctx.Err() == nil {
			i.opts.Logger.Warn("clean-up incomplete, retrying later", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-clean.C:
		case <-i.nudged:
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
				if ctx.Err() != nil {
					return err
				}
				// One that cannot be removed holds up no other.
				failed = errors.Join(failed, err, i.catalog.Postpone(ctx, l.Attempt, cleanEvery))
				continue
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
