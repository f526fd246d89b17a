package vhdx

import (
	"container/list"
	"io"
	"sync"

	"github.com/quickims/quickims/internal/diskformat"
)

// How the block allocation table is read and kept: in pages, each of which
// tells of 8192 blocks, and at most 2 MiB of them.
const (
	pageSize = 64 << 10
	maxPages = 32
)

// pages are pieces of the file, those last used. What is kept is never
// changed, so it may be used after it was dropped. Safe for concurrent use;
// two readers may read the same page at once.
type pages struct {
	mu   sync.Mutex
	by   map[int64]*list.Element
	last list.List // front: used last
}

type page struct {
	number int64
	b      []byte
}

// at returns the bytes of the file r of size bytes from off, which lies in it,
// to the end of the page or of the file.
func (c *pages) at(r io.ReaderAt, size, off int64) ([]byte, error) {
	n := off / pageSize
	b := c.get(n)
	if b == nil {
		b = make([]byte, min(pageSize, size-n*pageSize))
		if err := diskformat.ReadFull(r, b, n*pageSize); err != nil {
			return nil, err
		}
		c.put(n, b)
	}
	return b[off%pageSize:], nil
}

func (c *pages) get(n int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[n]
	if e == nil {
		return nil
	}
	c.last.MoveToFront(e)
	return e.Value.(page).b
}

func (c *pages) put(n int64, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[int64]*list.Element)
	}
	if c.by[n] != nil {
		return
	}
	c.by[n] = c.last.PushFront(page{n, b})
	if c.last.Len() > maxPages {
		delete(c.by, c.last.Remove(c.last.Back()).(page).number)
	}
}
