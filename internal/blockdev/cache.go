package blockdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of a cache, in bytes.
const (
	// DefaultMemory is what a cache may take when nothing is said.
	DefaultMemory = 256 << 20
	// MinMemory is the least that a cache can do with: some blocks of the usual 2 MiB
	// with what is on its way. Images of larger blocks ask for more.
	MinMemory = 16 << 20
	// DefaultDir is how much of a cache folder is used when nothing is said.
	DefaultDir = 10 << 30
	// MinDir is the least that a cache folder can do with.
	MinDir = 64 << 20
)

// CacheOptions say what a cache may use. The zero value is fine.
type CacheOptions struct {
	// Memory bounds the blocks held, the buffers of fetches under way and what is
	// known of the images, in bytes; 0 is DefaultMemory, the least is MinMemory.
	Memory int64
	// Dir is a folder for what the memory does not hold; "" is none. It is made if it is
	// not there, and is refused if it holds other files than the cache's own. What is in
	// it ends with the process.
	Dir string
	// DirFromOther lets the cache take Dir from a process that uses it and will end. That
	// one goes on with files of its own, which nobody sees: both have DirSize meanwhile.
	DirFromOther bool
	// DirSize bounds what lies in Dir, in bytes; 0 is DefaultDir, the least is MinDir.
	DirSize int64
	// Stall is how long a fetch may bring nothing before it is tried again, and at
	// the third time fails; 0 is 15 seconds.
	Stall time.Duration
	// Logger is told what goes wrong without a reader noticing; nil is silence.
	Logger *slog.Logger

	wrapFile func(diskFile) diskFile // tests: to plan faults
	hang     time.Duration           // tests: 0 is diskHang
}

// Cache holds blocks of disks: decoded, checked, and bounded in bytes. All devices
// that were opened with it share it. It may be used by many goroutines at once.
type Cache struct {
	opts   CacheOptions
	mem    *memory
	shards [shardCount]shard
	hand   atomic.Uint32 // the shard that gives up a block next
	counts counts

	ctx  context.Context // of fetches
	stop context.CancelFunc
	work sync.WaitGroup // fetches under way
	run  sync.Mutex     // guards the start of a fetch against Close

	images images
	disk   *diskCache // nil: none
}

// shardCount is how many locks the blocks are spread over; a power of two.
const shardCount = 64

// shard is a part of the blocks with a lock of its own.
type shard struct {
	mu     sync.Mutex
	blocks map[key]*block
	ring   []*block // those held, in the order of the hand
	hand   int
	hits   int64
	bytes  int64 // delivered by hits
	_      [40]byte
}

// key names a unit of a disk: the image, and the offset of the unit with, in its low
// bits, the power of two that is the unit's size. The same offset in another unit is
// another key.
type key struct {
	image imageKey
	pos   uint64
}

func (c *Cache) shardOf(k key) *shard {
	h := (binary.LittleEndian.Uint64(k.image[:]) ^ k.pos>>15) * 0x9e3779b97f4a7c15
	return &c.shards[h>>58%shardCount]
}

// state is where a block stands.
type state uint8

const (
	loading state = iota // a fetch will fill it
	held                 // its data may be read
	gone                 // failed or evicted: no longer in the cache
)

// block is a unit in the cache, or on its way into it.
type block struct {
	key    key
	unit   int64
	refs   atomic.Int32 // of those who read data: it stays while there are any
	recent atomic.Bool  // read since the hand passed
	ahead  atomic.Bool  // asked for ahead of a reader, and not read yet
	of     *image       // if it was: whose

	data []byte // filled by the fetch; read by others once held

	// Guarded by the shard's lock.
	state state
	err   error        // why it is gone
	subs  []*reception // who waits for it
	fetch *fetch
	slot  int // in the ring

	fromDisk bool   // the fetch found it in the disk cache
	sum      uint32 // what the fetch checks it against, if its layout needs that
}

// NewCache makes a cache. Close it when its devices are closed.
func NewCache(opts CacheOptions) (*Cache, error) {
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	if opts.Memory < MinMemory {
		return nil, fmt.Errorf("make a cache: its memory is %d bytes, at least %d are needed", opts.Memory, int64(MinMemory))
	}
	if opts.Stall <= 0 {
		opts.Stall = 15 * time.Second
	}
	if opts.hang <= 0 {
		opts.hang = diskHang
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{opts: opts}
	c.mem = newMemory(opts.Memory, c.evict)
	for i := range c.shards {
		c.shards[i].blocks = map[key]*block{}
	}
	c.images.init(c)
	c.ctx, c.stop = context.WithCancel(context.Background())
	if opts.Dir != "" {
		if err := c.openDisk(); err != nil {
			c.stop()
			return nil, fmt.Errorf("make a cache: %w", err)
		}
	}
	return c, nil
}

// errClosed is what reads of a closed cache or device fail with.
var errClosed = errors.New("closed")

// Close ends all fetches and waits for them. Reads fail afterwards. If the folder does not
// answer, Close fails: what a read or write of it still uses, the files and the memory,
// is given back when that returns.
func (c *Cache) Close() error {
	c.run.Lock()
	c.stop()
	c.run.Unlock()
	c.work.Wait()
	c.images.letGo()
	if c.disk != nil {
		return c.closeWithDisk()
	}
	return c.mem.close()
}

// hit returns a block that is held, for reading n bytes of it, or 0 if that is not to be
// counted; leave it afterwards.
func (c *Cache) hit(k key, n int) *block {
	s := c.shardOf(k)
	s.mu.Lock()
	b := s.blocks[k]
	if b == nil || b.state != held {
		s.mu.Unlock()
		return nil
	}
	b.refs.Add(1)
	if n > 0 {
		s.hits++
		s.bytes += int64(n)
	}
	s.mu.Unlock()
	c.touch(b)
	return b
}

func (c *Cache) touch(b *block) {
	if !b.recent.Load() {
		b.recent.Store(true)
	}
	if b.ahead.Load() && b.ahead.CompareAndSwap(true, false) {
		c.counts.aheadUsed.Add(int64(len(b.data)))
		c.unread(b, -1)
	}
}

// size is that of a whole unit.
func (b *block) size() int64 { return 1 << (b.key.pos & 63) }

// leave ends the reading of a block.
func (c *Cache) leave(b *block) {
	if b.refs.Add(-1) == 0 {
		c.mem.wake()
	}
}

// want subscribes r to a block. One that nobody has fetched yet is made, and the caller
// has to start its fetch; one that is held is delivered at once.
func (c *Cache) want(k key, unit int64, r *reception) (b *block, mine bool) {
	s := c.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	b = s.blocks[k]
	switch {
	case b == nil:
		b = &block{key: k, unit: unit, subs: []*reception{r}}
		s.blocks[k] = b
		mine = true
	case b.state == held:
		b.refs.Add(1)
		r.ready <- b
	default:
		b.subs = append(b.subs, r)
	}
	r.left[b] = struct{}{}
	return b, mine
}

// wantAlone makes a block that nobody has or waits for; nil if there is one.
func (c *Cache) wantAlone(k key, unit int64, ahead bool) *block {
	s := c.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocks[k] != nil {
		return nil
	}
	b := &block{key: k, unit: unit}
	b.ahead.Store(ahead)
	s.blocks[k] = b
	return b
}

// settle ends a block's fetch: with its data, which stays granted, or with an error.
// Who waits for it is told.
func (c *Cache) settle(b *block, err error) {
	s := c.shardOf(b.key)
	s.mu.Lock()
	subs := b.subs
	b.subs, b.fetch = nil, nil
	if err != nil {
		b.state, b.err = gone, err
		delete(s.blocks, b.key)
		if b.ahead.CompareAndSwap(true, false) {
			c.unread(b, -1)
		}
	} else {
		b.state = held
		b.refs.Add(int32(len(subs)))
		b.recent.Store(true)
		b.slot = len(s.ring)
		s.ring = append(s.ring, b)
		if c.disk != nil && !b.fromDisk {
			c.disk.offer(b)
		}
	}
	for _, r := range subs {
		r.ready <- b // has room for every block that is waited for
	}
	s.mu.Unlock()
	if err == nil {
		c.mem.wake()
	}
}

// evict gives up a block that nobody reads and that was not read since the hand came
// by last; false if all are being read.
func (c *Cache) evict() bool {
	for range 2 * shardCount {
		s := &c.shards[c.hand.Add(1)%shardCount]
		if b := s.evict(); b != nil {
			if b.ahead.Load() {
				c.counts.aheadWasted.Add(int64(len(b.data)))
				c.unread(b, -1)
			}
			c.counts.evictions.Add(1)
			size := int64(cap(b.data))
			c.mem.put(b.data)
			b.data = nil
			c.mem.release(size)
			return true
		}
	}
	return false
}

func (s *shard) evict() *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range len(s.ring) {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		b := s.ring[s.hand]
		if b.refs.Load() > 0 || b.recent.Swap(false) {
			s.hand++
			continue
		}
		last := s.ring[len(s.ring)-1]
		s.ring[b.slot], last.slot = last, b.slot
		s.ring[len(s.ring)-1] = nil
		s.ring = s.ring[:len(s.ring)-1]
		b.state, b.err = gone, errClosed
		delete(s.blocks, b.key)
		return b
	}
	return nil
}
