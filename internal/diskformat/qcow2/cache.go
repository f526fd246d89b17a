package qcow2

import (
	"container/list"
	"fmt"
	"io"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
)

// How much is kept between calls: pages of tables, and decoded clusters.
const (
	// pageSize is what tables are read in. It holds the whole L2 table of a
	// file with QEMU's default cluster size.
	pageSize      = 64 << 10
	maxPages      = 64
	clusterBudget = 4 << 20
)

// lru keeps the byte slices that were used last. The zero value is ready.
type lru struct {
	mu    sync.Mutex
	byKey map[int64]*list.Element
	order list.List // of entry; the front was used last
}

type entry struct {
	key int64
	b   []byte
}

func (c *lru) get(key int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(entry).b
}

// put keeps b, which nobody may change from then on, and lets go of what is
// more than most.
func (c *lru) put(key int64, b []byte, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = make(map[int64]*list.Element)
	}
	if c.byKey[key] != nil {
		return // two read it at the same time
	}
	c.byKey[key] = c.order.PushFront(entry{key, b})
	for c.order.Len() > most {
		last := c.order.Back()
		delete(c.byKey, c.order.Remove(last).(entry).key)
	}
}

// pages are pieces of the file with tables in them.
type pages struct{ lru }

// at returns the bytes of the file r of size bytes from off to the end of the
// page that off lies in, or to the file's end. off is less than size.
func (c *pages) at(r io.ReaderAt, size, off int64) ([]byte, error) {
	page := off / pageSize
	b := c.get(page)
	if b == nil {
		b = make([]byte, min(pageSize, size-page*pageSize))
		if err := diskformat.ReadFull(r, b, page*pageSize); err != nil {
			return nil, fmt.Errorf("reading a table: %w", err)
		}
		c.put(page, b, maxPages)
	}
	return b[off-page*pageSize:], nil
}

// clusters are decoded clusters, by the place of their compressed bytes.
type clusters struct {
	lru
	most int
}
