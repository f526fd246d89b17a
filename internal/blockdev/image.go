package blockdev

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/pinned"
	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

// image is what all devices of one image share.
type image struct {
	unasked atomic.Int32 // fetches under way that no read waits for
	cache   *Cache
	id      string
	name    resident.Disk
	data    atomic.Pointer[ims.Data] // as it lies now
	disk    *pinned.Object
	mf      *pinned.Object // its bitmap; nil: it has none
	layout  unit.Layout
	table   *Device         // what layout reads to locate units; nil: nothing
	ahead   resident.Reader // whose reads units are fetched ahead of

	// Guarded by the lock of the cache's images.
	opening chan struct{} // closed when layout is there or could not be had; nil then
	uses    int           // devices, and those that wait for it to open
	memory  int64
	seen    uint64 // when it was used last
}

// nameOf tells disks apart. It holds what an image is, beside its id: were that ever to
// differ, no unit of one disk would be taken for a unit of the other.
func nameOf(id string, data ims.Data, part string) resident.Disk {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d\x00%d\x00%s", id, data.Generation, data.Format, data.Size, data.VirtualSize, part))
	return resident.Disk(sum[:16])
}

// sameDisk tells whether two places of one image hold the same bytes. An image has one
// pinned source in all its life, and adoption keeps the bytes; so two places differ only
// if they are two sources, or if what adoption leaves as it is differs.
func sameDisk(a, b ims.Data) bool {
	if a.Bucket != "" && b.Bucket != "" && (a.Bucket != b.Bucket || a.Key != b.Key || a.ETag != b.ETag || a.Version != b.Version) {
		return false
	}
	return a.Format == b.Format && a.Size == b.Size && a.VirtualSize == b.VirtualSize && a.Generation == b.Generation
}

func diskPlace(d ims.Data) pinned.Place {
	return pinned.Place{Location: objectstore.Location{Bucket: d.Bucket, Key: d.Key}, Condition: objectstore.Condition{ETag: d.ETag, Version: d.Version}}
}

func bitmapPlace(d ims.Data) pinned.Place {
	return pinned.Place{Location: objectstore.Location{Bucket: d.Bucket, Key: d.BitmapKey}, Condition: objectstore.Condition{ETag: d.BitmapETag}}
}

func (c *Cache) newImage(id string, data ims.Data, locate Locate) *image {
	im := &image{cache: c, id: id, name: nameOf(id, data, "")}
	im.data.Store(&data)
	where := func(place func(ims.Data) pinned.Place) pinned.Locate {
		return func(ctx context.Context) (pinned.Place, error) {
			now, err := locate(ctx)
			if err != nil {
				return pinned.Place{}, fmt.Errorf("ask where the data of image %s is: %w", id, err)
			}
			if !sameDisk(now, *im.data.Load()) {
				return pinned.Place{}, fmt.Errorf("the data of image %s is another disk now: %w", id, objectstore.ErrChanged)
			}
			im.data.Store(&now)
			return place(now), nil
		}
	}
	im.disk = c.store.Object(pinned.Name{Generation: data.Generation, Role: pinned.RoleDisk, Size: data.Size}, diskPlace(data), where(diskPlace))
	if data.BitmapKey != "" {
		im.mf = c.store.Object(pinned.Name{Generation: data.Generation, Role: pinned.RoleBitmap, Size: data.BitmapSize}, bitmapPlace(data), where(bitmapPlace))
	}
	return im
}

// moveTo says where the image lies from now on.
func (im *image) moveTo(data ims.Data) {
	im.data.Store(&data)
	im.disk.MoveTo(diskPlace(data))
	if im.mf != nil {
		im.mf.MoveTo(bitmapPlace(data))
	}
}

// use says whether anybody uses the image: see pinned.Object.Use.
func (im *image) use(used bool) {
	im.disk.Use(used)
	if im.mf != nil {
		im.mf.Use(used)
	}
}

// trouble is why the image cannot be read at present, nil if it can.
func (im *image) trouble() error {
	if err := im.disk.Trouble(); err != nil || im.mf == nil {
		return err
	}
	return im.mf.Trouble()
}

// errNoData means that an image has nothing that could be read.
var errNoData = errors.New("it has no data yet")

// open reads what has to be known of the image before any of it can be read. It waits for
// a store that fails, and holds no memory meanwhile.
func (im *image) open(ctx context.Context) error {
	data := im.data.Load()
	if data.Key == "" {
		return errNoData
	}
	mem, most := im.cache.mem, im.cache.mem.Limit()/2
	rctx, cancel := context.WithTimeout(ctx, im.cache.wait)
	defer cancel()
	disk := im.disk.NewReader(rctx, 0)
	defer disk.Close()
	first, mf := disk, (*pinned.Reader)(nil)
	if im.mf != nil {
		mf = im.mf.NewReader(rctx, 0)
		defer mf.Close()
		first = mf // RAW with a bitmap: of the disk nothing is read
	}
	for im.layout == nil {
		g, err := mem.Grant(ctx, min(unit.OpenMemory(*data), most))
		if err != nil {
			return err
		}
		im.layout, err = unit.Open(*data, disk, mf)
		g.Release()
		if err == nil {
			break
		}
		if werr := first.Await(err); werr != nil {
			if rctx.Err() != nil && ctx.Err() == nil {
				return err // the store has failed for too long
			}
			return werr
		}
	}
	if t := im.layout.Table(); t.Len > 0 {
		part := &image{cache: im.cache, id: im.id, name: nameOf(im.id, *data, "table"), disk: im.disk, layout: unit.Plain(t.Off, t.Len)}
		if t.InBitmap {
			part.disk = im.mf
		}
		im.table = &Device{im: part, window: maxJoin}
	}
	if need := fetchMemory(im.layout, 1); need > most {
		return fmt.Errorf("its blocks of %d bytes take %d bytes of memory to read, the cache can give %d; give it more (cache.memory)",
			im.layout.Unit(), need, most)
	}
	return nil
}

// maxIdle is how many images that nobody uses are remembered.
const maxIdle = 256

// images are those that a cache knows: in use, and some that were.
type images struct {
	cache *Cache
	mu    sync.Mutex
	all   map[string]*image
	clock uint64
	// memory is what the layouts take, in bytes.
	memory int64
}

func (s *images) init(c *Cache) { s.cache, s.all = c, map[string]*image{} }

// unuse says of all images that nobody uses them.
func (s *images) unuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, im := range s.all {
		im.use(false)
	}
}

// get returns an image for use. What is known of one that was used before is used again,
// unless its data is another disk.
func (s *images) get(ctx context.Context, id string, locate Locate) (*image, error) {
	for {
		data, err := locate(ctx)
		if err != nil {
			return nil, err
		}
		im, wait, mine := s.claim(id, data, locate)
		switch {
		case mine:
			err := im.open(ctx)
			if err == nil {
				err = s.keep(im)
			}
			s.opened(im, err)
			return im, err
		case wait == nil:
			return im, nil
		}
		select {
		case <-wait: // it is there now, or another has to try
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// claim finds an image. It is wait, if not nil, that has to be waited for; mine says
// that the caller has to open it.
func (s *images) claim(id string, data ims.Data, locate Locate) (im *image, wait <-chan struct{}, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	im = s.all[id]
	switch {
	case im != nil && im.opening != nil:
		return nil, im.opening, false
	case im != nil && sameDisk(*im.data.Load(), data):
		im.uses++
		im.seen = s.clock
		im.moveTo(data)
		if im.uses == 1 {
			im.use(true)
		}
		return im, nil, false
	}
	im = s.cache.newImage(id, data, locate)
	im.opening, im.uses, im.seen = make(chan struct{}), 1, s.clock
	s.all[id] = im
	return im, nil, true
}

// opened wakes those that wait for the image to be opened. One that could not be is
// forgotten.
func (s *images) opened(im *image, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(im.opening)
	im.opening = nil
	if err != nil && s.all[im.id] == im {
		delete(s.all, im.id)
		im.use(false)
	}
}

// keep charges the memory of an image's layout. All images together take at most half of
// the memory, so that the other half is there for the largest fetch; those that nobody
// uses go first.
func (s *images) keep(im *image) error {
	n, most := im.layout.Memory(), s.cache.mem.Limit()/2
	s.mu.Lock()
	for s.memory+n > most && s.forget() {
	}
	fits := s.memory+n <= most
	if fits {
		im.memory = n
		s.memory += n
	}
	s.mu.Unlock()
	if !fits {
		return fmt.Errorf("the images in use and this one take more than %d of the cache's %d bytes of memory; give it more (cache.memory): %w",
			most, s.cache.mem.Limit(), objectstore.ErrUnavailable)
	}
	s.cache.mem.Charge(n)
	return nil
}

// forget drops the image that nobody uses for the longest time; false if there is none.
// The caller holds the lock.
func (s *images) forget() bool {
	var oldest *image
	for _, im := range s.all {
		if im.uses == 0 && (oldest == nil || im.seen < oldest.seen) {
			oldest = im
		}
	}
	if oldest == nil {
		return false
	}
	s.drop(oldest)
	return true
}

func (s *images) drop(im *image) {
	if s.all[im.id] == im {
		delete(s.all, im.id)
	}
	s.memory -= im.memory
	s.cache.mem.Discharge(im.memory)
	im.memory = 0
}

// close ends one use of an image. It is remembered for a while: those that nobody uses
// take an eighth of the memory at most.
func (s *images) close(im *image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if im.uses--; im.uses > 0 {
		return
	}
	im.use(false)
	if s.all[im.id] != im { // another disk took its place
		s.drop(im)
		return
	}
	idle, memory := 0, int64(0)
	for _, other := range s.all {
		if other.uses == 0 {
			idle++
			memory += other.memory
		}
	}
	if idle > maxIdle || memory > s.cache.mem.Limit()/8 {
		s.forget()
	}
}
