package objectstore

import (
	"context"
	"io"
	"sync/atomic"
)

// Counter counts what is read through it: how often and how many bytes, those
// of the callers' buckets apart from those of the image area. Everything else
// passes unchanged.
type Counter struct {
	Store
	source, images tally
}

type tally struct{ opens, bytes atomic.Int64 }

// Reads is what a Counter has counted.
type Reads struct {
	Opens int64 // calls of Open that succeeded
	Bytes int64 // bytes that came out of their readers
}

// Count returns a Counter around store that starts at zero.
func Count(store Store) *Counter { return &Counter{Store: store} }

// SourceReads returns what was read from buckets.
func (c *Counter) SourceReads() Reads { return c.source.reads() }

// ImageReads returns what was read from the image area.
func (c *Counter) ImageReads() Reads { return c.images.reads() }

func (t *tally) reads() Reads { return Reads{Opens: t.opens.Load(), Bytes: t.bytes.Load()} }

// Open implements Store.
func (c *Counter) Open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error) {
	body, err := c.Store.Open(ctx, loc, cond, off, n)
	if err != nil {
		return nil, err
	}
	t := c.tally(loc)
	t.opens.Add(1)
	return &countedBody{body, t}, nil
}

func (c *Counter) tally(loc Location) *tally {
	if loc.Bucket == ImageArea {
		return &c.images
	}
	return &c.source
}

// Hold implements Holder. Each read counts as one.
func (c *Counter) Hold(ctx context.Context, loc Location, cond Condition) (Held, error) {
	h, err := Hold(ctx, c.Store, loc, cond)
	if h == nil || err != nil {
		return nil, err
	}
	return &countedHeld{h, c.tally(loc)}, nil
}

type countedHeld struct {
	Held
	t *tally
}

func (h *countedHeld) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := h.Held.ReadAt(ctx, p, off)
	if err == nil {
		h.t.opens.Add(1)
		h.t.bytes.Add(int64(len(p)))
	}
	return err
}

func (h *countedHeld) ReadReady(v [][]byte, off int64) int {
	n := h.Held.ReadReady(v, off)
	if n > 0 {
		h.t.opens.Add(1)
		h.t.bytes.Add(int64(n))
	}
	return n
}

type countedBody struct {
	io.ReadCloser
	t *tally
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.t.bytes.Add(int64(n))
	return n, err
}
