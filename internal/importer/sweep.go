package importer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/faultpoint"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	sweepBatch = 100
	// orphanEvery is the time between two looks through the whole image area.
	orphanEvery = time.Hour
	// garbageEvery is the time between two looks at the garbage rows without a nudge.
	garbageEvery = time.Minute
)

// Sweep wakes the clean-up. It does not wait for it.
func (i *Importer) Sweep() {
	select {
	case i.sweep <- struct{}{}:
	default:
	}
}

// RunSweeper cleans up until the context ends: what the catalog calls garbage
// at once, and at the start and every hour whatever else no image refers to. It
// needs nobody's token.
func (i *Importer) RunSweeper(ctx context.Context) error {
	orphans := time.NewTimer(0)
	defer orphans.Stop()
	garbage := time.NewTicker(garbageEvery)
	defer garbage.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-orphans.C:
			err = errors.Join(i.CollectGarbage(ctx), i.CollectOrphans(ctx))
			orphans.Reset(orphanEvery)
		case <-garbage.C:
			err = i.CollectGarbage(ctx)
		case <-i.sweep:
			err = i.CollectGarbage(ctx)
		}
		if err != nil && ctx.Err() == nil {
			i.opts.Logger.Warn("clean-up did not finish, it goes on later", "error", err)
		}
	}
}

// CollectGarbage removes what the catalog says no image refers to.
func (i *Importer) CollectGarbage(ctx context.Context) error {
	for {
		prefixes, err := i.catalog.Garbage(ctx, sweepBatch)
		if err != nil || len(prefixes) == 0 {
			return err
		}
		for _, prefix := range prefixes {
			if err := faultpoint.Hit(faultpoint.DeleteMarked); err != nil {
				return err
			}
			if err := i.removeUnreferenced(ctx, prefix); err != nil {
				return err
			}
			if err := faultpoint.Hit(faultpoint.SweepDeleted); err != nil {
				return err
			}
			if err := i.catalog.ForgetGarbage(ctx, prefix); err != nil {
				return err
			}
		}
		if len(prefixes) < sweepBatch {
			return nil
		}
	}
}

// CollectOrphans looks through the image area and removes every attempt that no
// image refers to and that can't be published any more.
func (i *Importer) CollectOrphans(ctx context.Context) error {
	after := ""
	for {
		list, err := i.store.List(ctx, objectstore.ImageArea, "", after, 1000)
		if err != nil || len(list) == 0 {
			return err
		}
		seen := ""
		for _, o := range list {
			after = o.Key
			prefix, ok := prefixOf(o.Key)
			if !ok || prefix == seen {
				continue // not ours to judge, or judged
			}
			seen = prefix
			if err := i.removeUnreferenced(ctx, prefix); err != nil {
				return err
			}
		}
	}
}

// prefixOf gives the attempt that a key of the image area belongs to.
func prefixOf(key string) (string, bool) {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) != 3 || !ims.ValidUUID(parts[0]) {
		return "", false
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || n < 1 {
		return "", false
	}
	return attemptPrefix(parts[0], n), true
}

// removeUnreferenced deletes an attempt's objects after asking once more: nothing
// that is referred to is ever deleted. An attempt that is not referenced can't
// become so, since the fence only moves on.
func (i *Importer) removeUnreferenced(ctx context.Context, prefix string) error {
	referenced, err := i.catalog.Referenced(ctx, prefix)
	if err != nil || referenced {
		return err
	}
	return i.remove(ctx, prefix)
}

func (i *Importer) remove(ctx context.Context, prefix string) error {
	for {
		list, err := i.store.List(ctx, objectstore.ImageArea, prefix, "", sweepBatch)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if len(list) == 0 {
			return nil
		}
		for _, o := range list {
			err := i.store.Delete(ctx, objectstore.Location{Bucket: objectstore.ImageArea, Key: o.Key})
			if err != nil {
				return fmt.Errorf("delete %s: %w", o.Key, err)
			}
		}
	}
}

// removeAttempt removes what this attempt wrote, before its job is given up or
// tried again. What can't be removed now the sweeper finds later.
func (i *Importer) removeAttempt(ctx context.Context, log *slog.Logger, job ims.Job) {
	if err := i.remove(ctx, attemptPrefix(job.ImageID, job.Attempt)); err != nil {
		log.Warn("an attempt's data stays until the next sweep", "error", err)
	}
}

// removeOthers removes the attempts that came before the one that was published.
func (i *Importer) removeOthers(ctx context.Context, imageID string, published int64) error {
	for attempt := published - 1; attempt >= 1; attempt-- {
		if err := i.remove(ctx, attemptPrefix(imageID, attempt)); err != nil {
			return err
		}
	}
	return nil
}
