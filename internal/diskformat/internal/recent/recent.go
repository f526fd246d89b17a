// Package recent keeps what readers of disk formats used last: pages of tables, and
// decoded clusters.
package recent

import (
	"container/list"
	"io"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
)

// Cache keeps byte slices, those last used, up to a number of bytes but at least
// one. What is kept is never changed, so it may be used after it was let go of. It
// is safe for concurrent use; two goroutines may make the same piece at once.
type Cache[K comparable] struct {
	max int64 // bytes

	mu    sync.Mutex
	used  int64
	byKey map[K]*list.Element
	order list.List // of kept; the front was used last
}

type kept[K comparable] struct {
	key K
	b   []byte
}

// New makes a cache of max bytes.
func New[K comparable](max int64) *Cache[K] {
	return &Cache[K]{max: max, byKey: make(map[K]*list.Element)}
}

// Get returns what was put under key, nil if it is not there.
func (c *Cache[K]) Get(key K) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(kept[K]).b
}

// Put keeps b, which nobody may change from then on. What is there under key stays.
func (c *Cache[K]) Put(key K, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return // two made it at the same time
	}
	c.byKey[key] = c.order.PushFront(kept[K]{key, b})
	c.used += int64(len(b))
	for c.used > c.max && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(kept[K])
		delete(c.byKey, old.key)
		c.used -= int64(len(old.b))
	}
}

// PageSize is what [Pages] reads at once, in bytes.
const PageSize = 64 << 10

// Pages are the pages of files that were read last. Each file has a number.
type Pages struct{ c *Cache[pageKey] }

type pageKey struct {
	file int
	page int64
}

// NewPages makes Pages that keep up to max bytes.
func NewPages(max int64) Pages { return Pages{New[pageKey](max)} }

// At returns the bytes of the file r of size bytes from off, which lies in it, to
// the end of the page or of the file. file is its number. Nobody may change what it
// returns.
func (p Pages) At(file int, r io.ReaderAt, size, off int64) ([]byte, error) {
	k := pageKey{file, off / PageSize}
	b := p.c.Get(k)
	if b == nil {
		b = make([]byte, min(PageSize, size-k.page*PageSize))
		if err := diskformat.ReadFull(r, b, k.page*PageSize); err != nil {
			return nil, err
		}
		p.c.Put(k, b)
	}
	return b[off%PageSize:], nil
}
