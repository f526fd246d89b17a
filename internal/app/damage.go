package app

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/fsck"
	"github.com/quickims/quickims/internal/ims"
)

// surveyEvery is the time between two comparisons of the database with the image area.
const surveyEvery = time.Hour

// damage knows the active images that cannot be read, as found by reads and by surveys.
// Each is logged once until a survey finds it sound again.
type damage struct {
	catalog *catalog.Catalog
	log     *slog.Logger

	mu     sync.Mutex
	images map[string]bool // by id

	// What the last survey found and no row explains.
	objects, bytes, uploads atomic.Int64
}

func newDamage(c *catalog.Catalog, log *slog.Logger) *damage {
	return &damage{catalog: c, log: log, images: map[string]bool{}}
}

// count is how many active images are known to be damaged.
func (d *damage) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.images)
}

func (d *damage) add(image, project, key string, cause any) {
	d.mu.Lock()
	known := d.images[image]
	d.images[image] = true
	d.mu.Unlock()
	if !known {
		d.log.Error("image damaged: its data is missing or not what was imported", "image_id", image, "project_id", project, "key", key, "error", cause)
	}
}

// damageLookup bounds the look at the database after a read that failed.
const damageLookup = 5 * time.Second

// read notes what a failed read of an image says. It returns the error unchanged.
func (d *damage) read(ctx context.Context, img ims.Image, err error) error {
	if err == nil || !blockdev.Damaged(err) {
		return err
	}
	d.mu.Lock()
	known := d.images[img.ID]
	d.mu.Unlock()
	if known {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), damageLookup)
	defer cancel()
	// One that was deleted meanwhile, or is still being made, is not damaged.
	now, lerr := d.catalog.Image(ctx, img.ProjectID, img.ID)
	if lerr == nil && now.Status == ims.ImageActive {
		d.add(img.ID, img.ProjectID, now.Data.Key, err)
	}
	return err
}

// survey compares the database with the image area. What is wrong is logged and counted;
// nothing is changed.
func (s *Service) survey(ctx context.Context) error {
	d := s.damage
	d.mu.Lock()
	before := make([]string, 0, len(d.images))
	for id := range d.images {
		before = append(before, id)
	}
	d.mu.Unlock()
	checker := fsck.Checker{Catalog: s.catalog, Store: s.store}
	report, err := checker.Check(ctx, fsck.Options{})
	if err != nil {
		return err
	}
	var objects, bytes, uploads int64
	damaged := map[string]bool{}
	first := ""
	for _, f := range report.Findings {
		switch {
		case f.Kind.Damage():
			damaged[f.ImageID] = true
			d.add(f.ImageID, f.ProjectID, f.Key, f.Detail)
		case f.Kind == fsck.UnknownObject:
			objects++
			bytes += f.Bytes
			first = cmp.Or(first, f.Key)
		case f.Kind == fsck.UnknownUpload:
			uploads++
			first = cmp.Or(first, f.Key)
		}
	}
	d.mu.Lock()
	for _, id := range before {
		if !damaged[id] {
			delete(d.images, id) // deleted, or restored; a read that fails says so again
		}
	}
	d.mu.Unlock()
	d.objects.Store(objects)
	d.bytes.Store(bytes)
	d.uploads.Store(uploads)
	if objects+uploads > 0 {
		s.log.Warn("unknown objects in the image area, nothing is removed; quickims fsck lists them", "objects", objects, "bytes", bytes, "uploads", uploads, "first", first)
	}
	return nil
}
