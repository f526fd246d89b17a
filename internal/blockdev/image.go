package blockdev

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
)

// imageKey is an image's id, shortened.
type imageKey [16]byte

// keyOf holds what an image is, beside its id: were that ever to differ, no block of one
// would be taken for a block of the other.
func keyOf(id string, data ims.Data) imageKey {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d", id, data.Format, data.Size, data.VirtualSize))
	return imageKey(sum[:16])
}

// image is what all devices of one image share.
type image struct {
	cache  *Cache
	id     string
	key    imageKey
	layout layout
	sums   *Device      // the checksums of its units, if layout needs them; nil: it does not
	unread atomic.Int64 // what was fetched ahead of its readers and not read yet, in bytes

	place  atomic.Pointer[place]
	moving sync.Mutex // held while it is asked where the data went

	// Guarded by the lock of the cache's images.
	opening chan struct{} // closed when layout is there or could not be had; nil then
	uses    int           // devices, and those that wait for it to open
	memory  int64
	seen    uint64 // when it was used last
}

// place is where an image's bytes lie.
type place struct {
	store  objectstore.Store
	data   ims.Data
	locate Locate

	held atomic.Pointer[objectstore.Held] // the open object, where the store can hold it

	mu      sync.Mutex    // never held while anybody waits for the store
	opening chan struct{} // closed when who opens the object is done; nil if nobody does
	tried   bool          // to hold it, since somebody uses the image
	unused  bool
	turn    int // of using and not using it
}

// hold returns the object held open, nil if the store does not offer that.
func (p *place) hold(ctx context.Context) objectstore.Held {
	p.mu.Lock()
	for !p.tried && !p.unused && p.opening != nil {
		wait := p.opening
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return p.open()
		}
		p.mu.Lock()
	}
	if p.tried || p.unused {
		p.mu.Unlock()
		return p.open()
	}
	opening, turn := make(chan struct{}), p.turn
	p.opening = opening
	p.mu.Unlock()
	h, err := objectstore.Hold(ctx, p.store, diskOf(p.data), p.condition())
	there := err == nil && h != nil // else a read by other means says what is wrong
	p.mu.Lock()
	p.opening = nil
	close(opening)
	if p.turn == turn {
		p.tried = there || ctx.Err() == nil
		if there {
			p.held.Store(&h)
			there = false
		}
	}
	p.mu.Unlock()
	if there { // nobody uses the image any more, or again
		_ = h.Close()
	}
	return p.open()
}

// open is what hold returned last, without waiting for who opens it.
func (p *place) open() objectstore.Held {
	if h := p.held.Load(); h != nil {
		return *h
	}
	return nil
}

// letGo ends the holding of h, for good or until it is used anew. Another object may be
// held by now.
func (p *place) letGo(h objectstore.Held) {
	if now := p.held.Load(); now != nil && *now == h && p.held.CompareAndSwap(now, nil) {
		_ = h.Close() // it was read from; reads say what is wrong
	}
}

// use tells whether somebody uses the image: an object that nobody reads is not held,
// for it would keep its space when it is deleted.
func (p *place) use(used bool) {
	p.mu.Lock()
	p.unused, p.tried = !used, false
	p.turn++
	p.mu.Unlock()
	if h := p.open(); !used && h != nil {
		p.letGo(h)
	}
}

func (p *place) condition() objectstore.Condition {
	return objectstore.Condition{ETag: p.data.ETag, Version: p.data.Version}
}

// sameDisk tells whether two places of one image hold the same bytes. An image has one
// pinned source in all its life, and adoption keeps the bytes; so two places differ only
// if they are two sources, or if what adoption leaves as it is differs.
func sameDisk(a, b ims.Data) bool {
	if a.Bucket != "" && b.Bucket != "" && (a.Bucket != b.Bucket || a.Key != b.Key || a.ETag != b.ETag || a.Version != b.Version) {
		return false
	}
	return a.Format == b.Format && a.Size == b.Size && a.VirtualSize == b.VirtualSize
}

// moved is asked where the data is, after it was not at the place before. The answer
// is a place to go on at, or why there is none.
func (im *image) moved(ctx context.Context, before *place) (*place, error) {
	im.moving.Lock()
	defer im.moving.Unlock()
	now := im.place.Load()
	if now.data != before.data {
		return now, nil // another fetch has asked
	}
	data, err := now.locate(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask where the data of image %s is: %w", im.id, err)
	case data == before.data:
		return nil, errSamePlace
	case !sameDisk(data, before.data):
		return nil, fmt.Errorf("the data of image %s is another disk now: %w", im.id, objectstore.ErrChanged)
	}
	next := &place{store: now.store, data: data, locate: now.locate}
	im.place.Store(next)
	now.use(false)
	return next, nil
}

// errSamePlace says that the data should be where it was not.
var errSamePlace = errors.New("the data is said to be where it was looked for")

// images are those that a cache knows: in use, and some that were.
type images struct {
	cache *Cache
	mu    sync.Mutex
	all   map[string]*image
	clock uint64
	// memory is what the layouts take, in bytes.
	memory int64
}

// use tells the places whether somebody uses the image.
func (im *image) use(used bool) {
	im.place.Load().use(used)
	if im.sums != nil {
		im.sums.im.place.Load().use(used)
	}
}

// moveTo says that the image lies at another place.
func (im *image) moveTo(p *place) {
	im.use(false)
	im.place.Store(p)
	if im.sums != nil {
		im.sums.im.place.Store(p.ofSums())
	}
}

// letGo lets go of all objects that are held open.
func (s *images) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, im := range s.all {
		if im.opening != nil {
			im.place.Load().use(false)
		} else {
			im.use(false)
		}
	}
}

// maxIdle is how many images that nobody uses are remembered.
const maxIdle = 256

func (s *images) init(c *Cache) { s.cache, s.all = c, map[string]*image{} }

// open returns an image for use. What is known of one that was used before is used
// again, unless its data is another disk.
func (s *images) open(ctx context.Context, store objectstore.Store, id string, locate Locate) (*image, error) {
	for {
		data, err := locate(ctx)
		if err != nil {
			return nil, err
		}
		p := &place{store: store, data: data, locate: locate}
		im, wait, mine := s.claim(id, p)
		switch {
		case mine:
			return s.load(ctx, im, p)
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
// that the caller has to load it.
func (s *images) claim(id string, p *place) (im *image, wait <-chan struct{}, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	im = s.all[id]
	switch {
	case im != nil && im.opening != nil:
		return nil, im.opening, false
	case im != nil && sameDisk(im.place.Load().data, p.data):
		im.uses++
		im.seen = s.clock
		if now := im.place.Load(); now.data == p.data && now.store == p.store {
			if im.uses == 1 {
				im.use(true)
			}
		} else {
			im.moveTo(p)
		}
		return im, nil, false
	}
	im = &image{cache: s.cache, id: id, key: keyOf(id, p.data), opening: make(chan struct{}), uses: 1, seen: s.clock}
	im.place.Store(p)
	s.all[id] = im
	return im, nil, true
}

// load reads what has to be known of an image before any of it can be read.
func (s *images) load(ctx context.Context, im *image, p *place) (_ *image, err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(im.opening)
		im.opening = nil
		if err != nil && s.all[im.id] == im {
			delete(s.all, im.id)
		}
	}()
	mem := s.cache.mem
	parse := min(parseMemory(p.data), mem.limit/2)
	if err := mem.acquire(ctx, parse); err != nil {
		return nil, err
	}
	mem.fix(parse)
	defer func() {
		mem.fix(-parse)
		mem.release(parse)
	}()
	for range attempts {
		im.layout, err = openLayout(ctx, p.store, p.data)
		if err == nil || !missing(err) {
			break
		}
		data, lerr := p.locate(ctx)
		if lerr != nil {
			return nil, lerr
		}
		if data == p.data || !sameDisk(data, p.data) {
			break
		}
		p = &place{store: p.store, data: data, locate: p.locate}
		im.place.Store(p)
	}
	if err != nil {
		return nil, err
	}
	im.sums = newSums(im)
	if need, most := unitMemory(im.layout), mem.limit/2; need > most {
		return nil, fmt.Errorf("its blocks of %d bytes take %d bytes of memory to read, the cache can give %d; give it more (cache.memory)",
			im.layout.unit(), need, most)
	}
	return im, s.keep(im)
}

// parseMemory is about the most that opening takes, before anything is known but the
// sizes: of ZVHD2 the end of the file and the index, for blocks of 1 MiB and more.
func parseMemory(data ims.Data) int64 {
	if data.Format == "raw" {
		return 4 * min(data.BitmapSize, bitmap.MaxRead)
	}
	blocks := min(data.Size/4096, data.VirtualSize>>20)
	return min(data.Size, 1<<20) + 24*blocks
}

// unitMemory is what a fetch of one unit takes.
func unitMemory(l layout) int64 { return bufferSize(l.unit()) + bufferSize(l.scratch()) }

// keep grants the memory of an image's layout. All images together take at most what
// most says; those that nobody uses go first, beyond an eighth of all memory at once.
func (s *images) keep(im *image) error {
	mem := s.cache.mem
	n, most := im.layout.memory(), s.most()
	s.mu.Lock()
	for s.memory+n > most && s.forget() {
	}
	fits := s.memory+n <= most
	if fits {
		im.memory = n
		s.add(n)
	}
	s.mu.Unlock()
	if !fits {
		return fmt.Errorf("the images in use and this one take more than %d of the cache's %d bytes of memory; give it more (cache.memory): %w",
			most, mem.limit, objectstore.ErrUnavailable)
	}
	mem.charge(n)
	return nil
}

// most is how much memory all images may take, in bytes: half of it, so that the other
// half is there for the largest fetch. With a folder a quarter, which its index leaves
// to them as far as it can; what waits to be written to the folder and what is read
// from it have the other, as it may not come back for long.
func (s *images) most() int64 {
	if d := s.cache.disk; d != nil {
		return s.cache.mem.limit/4 - d.index.fixed
	}
	return s.cache.mem.limit / 2
}

// add notes that the layouts take n bytes more. The caller holds the lock.
func (s *images) add(n int64) {
	s.memory += n
	if d := s.cache.disk; d != nil {
		d.leaveTo(s.memory)
	}
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
	s.add(-im.memory)
	s.cache.mem.fix(-im.memory)
	s.cache.mem.release(im.memory)
	im.memory = 0
}

// close ends the use of an image. It is remembered for a while.
func (s *images) close(im *image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im.uses--
	if im.uses > 0 {
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
	if idle > maxIdle || memory > s.cache.mem.limit/8 {
		s.forget()
	}
}
