// Package blockdev is an image as a read-only disk. Bytes are fetched from the image's
// objects when they are read, checked before anybody gets them, and kept in memory that
// all disks share. What cannot be read or does not pass its check is an error, never zeros
// and never other bytes.
//
// A read is cut into units (package unit). A unit is a hole, resident in memory (package
// resident), lies in a file that this machine has in memory, or is fetched. A fetch has
// five steps: it locates its units, is granted memory, reads their bytes of the pinned
// object (package pinned), fills and checks each unit, and lands it: then it is resident,
// and every read that waits for it has its bytes. While the store fails a fetch holds no
// memory; it tries again until nobody waits for it.
//
//	Read      holes, resident units, local files; else it joins or starts fetches, and waits
//	TryRead   the same without the waiting
//	Want      starts fetches that no read waits for: read-ahead and prefetch
package blockdev

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/pinned"
	"github.com/quickims/quickims/internal/resident"
	"github.com/quickims/quickims/internal/unit"
)

// Damaged reports whether an error of a Device says that the image's data is not what
// was imported any more: another try won't help.
func Damaged(err error) bool {
	return errors.Is(err, unit.ErrChecksum) || errors.Is(err, objectstore.ErrChanged) || errors.Is(err, objectstore.ErrNotFound) ||
		errors.Is(err, diskformat.ErrCorrupt) || errors.Is(err, diskformat.ErrIncomplete)
}

// Missing reports whether an error of a Device says that the image's bytes are not there.
// It is Damaged, too.
func Missing(err error) bool { return errors.Is(err, objectstore.ErrNotFound) }

// Locate says where an image's bytes lie now. It is asked when a device is opened, and
// again when the object of a read has gone or changed: if the answer is another one (the
// image was published meanwhile), the device goes on there; else the error stands. It
// may be called by many goroutines at once.
type Locate func(ctx context.Context) (ims.Data, error)

// Sizes of a cache, in bytes.
const (
	// DefaultMemory is what a cache may take when nothing is said.
	DefaultMemory = 256 << 20
	// MinMemory is the least that a cache can do with: some blocks of the usual 2 MiB
	// with what is on its way. Images of larger blocks ask for more.
	MinMemory = 16 << 20
)

// Options say what a cache may use. The zero value is fine.
type Options struct {
	// Memory bounds resident units, fetches and what is known of the images, in bytes;
	// 0 is DefaultMemory, the least is MinMemory.
	Memory int64
	// Wait is how long a read waits for a store that fails; 0 is pinned.DefaultWait.
	Wait time.Duration
	// Stall is how long a request may bring nothing before a second one runs beside it;
	// 0 is 5 seconds.
	Stall time.Duration
	// Local keeps bytes of objects on this machine's disk; nil is none.
	Local pinned.Cache
}

// Cache is what the disks of a store share: memory, what is known of the images, and the
// fetches under way. It may be used by many goroutines at once.
type Cache struct {
	store  *pinned.Store
	mem    *resident.Memory
	images images
	counts counts
	wait   time.Duration

	ctx  context.Context // of fetches
	stop context.CancelFunc
	work sync.WaitGroup // fetches under way
	run  sync.Mutex     // guards the start of a fetch against Close
}

// NewCache makes a cache of what lies in a store, which should not repeat requests itself.
// Close it when its devices are closed.
func NewCache(store objectstore.Store, opts Options) (*Cache, error) {
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	if opts.Memory < MinMemory {
		return nil, fmt.Errorf("make a cache: its memory is %d bytes, at least %d are needed", opts.Memory, int64(MinMemory))
	}
	if opts.Wait <= 0 {
		opts.Wait = pinned.DefaultWait
	}
	c := &Cache{wait: opts.Wait, mem: resident.New(opts.Memory)}
	c.store = pinned.NewStore(store, pinned.Options{Stall: opts.Stall, Wait: opts.Wait, Room: opts.Memory / 4 * 3, Cache: opts.Local})
	c.images.init(c)
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// errClosed is what reads of a closed cache or device fail with.
var errClosed = errors.New("closed")

// Close ends all fetches and waits for them. Reads fail afterwards.
func (c *Cache) Close() error {
	c.run.Lock()
	c.stop()
	c.run.Unlock()
	c.work.Wait()
	c.images.unuse()
	return c.mem.Close()
}

// counts are what reads add up, once they have succeeded.
type counts struct {
	hits, misses, waitedBytes, hitBytes, holeBytes, readyBytes atomic.Int64
}

// tally is what one read counts.
type tally struct {
	hits, misses                                 int64 // units
	waitedBytes, hitBytes, holeBytes, readyBytes int64
}

func (c *counts) add(t *tally) {
	for _, n := range [...]struct {
		sum *atomic.Int64
		by  int64
	}{{&c.hits, t.hits}, {&c.misses, t.misses}, {&c.waitedBytes, t.waitedBytes}, {&c.hitBytes, t.hitBytes}, {&c.holeBytes, t.holeBytes}, {&c.readyBytes, t.readyBytes}} {
		if n.by != 0 {
			n.sum.Add(n.by)
		}
	}
}

// Stats is what a cache has done since it was made. Bytes unless it says otherwise. What
// reads count is counted when they succeed.
type Stats struct {
	Hits       int64 // units that a read found in memory
	Misses     int64 // units that a read had to wait for
	Fetches    int64 // ranges asked of the store
	Fetched    int64 // read from the store
	Delivered  int64 // given to readers, holes included
	Ready      int64 // of those, read of files that the machine had in memory
	Ahead      int64 // fetched ahead of the reader
	AheadUsed  int64 // of those, read later
	AheadWaste int64 // of those, evicted unread
	Evictions  int64 // units
	Waiting    int64 // fetches that wait now for a store that fails
	Memory     int64 // in use now: units, fetches under way, what is known of images, free buffers
	MemoryPeak int64 // the most that was in use
}

// Stats returns what was counted so far.
func (c *Cache) Stats() Stats {
	n, m, s := &c.counts, c.mem.Stats(), c.store.Stats()
	return Stats{
		Hits: n.hits.Load(), Misses: n.misses.Load(), Fetches: s.Requests, Fetched: s.Bytes, Waiting: s.Waiting,
		Delivered: n.waitedBytes.Load() + n.hitBytes.Load() + n.holeBytes.Load() + n.readyBytes.Load(), Ready: n.readyBytes.Load(),
		Ahead: m.Ahead, AheadUsed: m.AheadUsed, AheadWaste: m.Wasted, Evictions: m.Evictions,
		Memory: m.InUse, MemoryPeak: m.Peak,
	}
}
