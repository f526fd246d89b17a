package vmdk

import (
	"container/list"
	"sync"
)

// cache keeps pieces that were read or decoded, those last used, up to a
// number of bytes. What is kept is never changed, so it may be used after it
// was dropped. It is safe for concurrent use; two readers may make the same
// piece at once.
type cache struct {
	max int64

	mu   sync.Mutex
	used int64
	by   map[key]*list.Element
	last list.List // front: used last
}

// key is a piece of an extent's file: a page or a grain.
type key struct {
	extent int
	number int64
}

type kept struct {
	key
	b []byte
}

func (c *cache) get(k key) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[k]
	if !ok {
		return nil, false
	}
	c.last.MoveToFront(e)
	return e.Value.(kept).b, true
}

func (c *cache) put(k key, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[k]; ok {
		return
	}
	if c.by == nil {
		c.by = make(map[key]*list.Element)
	}
	c.by[k] = c.last.PushFront(kept{k, b})
	c.used += int64(len(b))
	for c.used > c.max && c.last.Len() > 1 {
		old := c.last.Remove(c.last.Back()).(kept)
		delete(c.by, old.key)
		c.used -= int64(len(old.b))
	}
}
