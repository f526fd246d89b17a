package app

import (
	"context"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/blockdev"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// disks opens the data of images.
type disks struct {
	cache   *blockdev.Cache
	catalog *catalog.Catalog
	damage  *damage
}

// OpenDisk implements api.DiskOpener.
func (d disks) OpenDisk(ctx context.Context, img ims.Image) (api.Disk, error) {
	dev, err := d.device(ctx, img)
	if err != nil {
		return nil, err
	}
	return disk{dev, ctx, d, img}, nil
}

// device makes a device of an image, whose data is looked up anew when it has gone from
// where it was.
func (d disks) device(ctx context.Context, img ims.Image) (*blockdev.Device, error) {
	dev, err := d.cache.Open(ctx, img.ID, func(ctx context.Context) (ims.Data, error) {
		now, err := d.catalog.Image(ctx, img.ProjectID, img.ID)
		return now.Data, err
	})
	return dev, d.damage.read(ctx, img, err)
}

// disk is a device whose reads end with a request.
type disk struct {
	*blockdev.Device
	ctx context.Context
	of  disks
	img ims.Image
}

// ReadAt implements io.ReaderAt.
func (d disk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.ReadAtContext(d.ctx, p, off)
	return n, d.of.damage.read(d.ctx, d.img, err)
}

// Hole implements api.Disk.
func (d disk) Hole(off int64) int64 {
	for e := range d.Extents(off, d.Size()) {
		if !e.Data {
			return e.Length
		}
		break
	}
	return 0
}
