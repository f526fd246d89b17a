package blockdev

import "sync/atomic"

// counts are what a cache counts beside its shards.
type counts struct {
	misses, fetches, fetched                 atomic.Int64
	missBytes, holeBytes, readyBytes         atomic.Int64
	ahead, aheadUsed, aheadWasted, evictions atomic.Int64
	aheadUnread                              atomic.Int64 // on its way, or there and not read
	diskHits, diskWritten, diskErrors        atomic.Int64
}

// Stats is what a cache has done since it was made. Bytes unless it says otherwise.
type Stats struct {
	Hits       int64 // units that a read found in memory
	Misses     int64 // units that a read had to wait for
	Fetches    int64 // ranges asked of the store
	Fetched    int64 // read from the store
	Delivered  int64 // given to readers, holes included
	Ready      int64 // of those, read of files that the machine had in memory
	Ahead      int64 // fetched ahead of the reader
	AheadUsed  int64 // of those, read later
	AheadWaste int64 // of those, given up unread
	Evictions  int64 // units given up for others
	DiskHits   int64 // units found in the cache folder
	DiskWrites int64 // written to the cache folder
	DiskErrors int64 // reads and writes of the cache folder that failed or did not pass their check
	Disk       int64 // in the cache folder now
	Memory     int64 // in use now: blocks, fetches under way, what is known of images and of the folder, free buffers
	MemoryPeak int64 // the most that was in use
}

// Stats returns what was counted so far.
func (c *Cache) Stats() Stats {
	n := &c.counts
	s := Stats{
		Misses: n.misses.Load(), Fetches: n.fetches.Load(), Fetched: n.fetched.Load(),
		Delivered: n.missBytes.Load() + n.holeBytes.Load() + n.readyBytes.Load(), Ready: n.readyBytes.Load(),
		Ahead: n.ahead.Load(), AheadUsed: n.aheadUsed.Load(), AheadWaste: n.aheadWasted.Load(),
		Evictions: n.evictions.Load(),
		DiskHits:  n.diskHits.Load(), DiskWrites: n.diskWritten.Load(), DiskErrors: n.diskErrors.Load(),
	}
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		s.Hits += sh.hits
		s.Delivered += sh.bytes
		sh.mu.Unlock()
	}
	c.mem.mu.Lock()
	s.Memory, s.MemoryPeak = c.mem.live+c.mem.fixed+c.mem.idle, c.mem.peak
	c.mem.mu.Unlock()
	if c.disk != nil {
		s.Disk = c.disk.held()
	}
	return s
}
