package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	// maxJoin is the longest range that neighbours are joined into, in bytes of the
	// object and of the disk.
	maxJoin = 16 << 20
	// maxGap is how many bytes between two neighbours are read for nothing sooner than
	// that a second request is made.
	maxGap = 128 << 10
	// attempts is how often a fetch is tried that stalled, came short or came damaged.
	// What the store itself calls passing is not tried again here: see
	// objectstore.Retry.
	attempts = 3
)

// fetch brings blocks of one image into the cache. It runs in a goroutine of its own
// and ends with the cache, not with a reader.
type fetch struct {
	cache  *Cache
	im     *image
	blocks []*block // in the order of the object
	ahead  bool     // nobody waits for it at the beginning
	ctx    context.Context
	cancel context.CancelFunc
	given  atomic.Bool // given up
	// scratch is how many buffers of which size the blocks pass through. Records fit into
	// their capacity, not always into their length.
	scratch     int
	scratchSize int64
}

// decoders bounds how many blocks are decoded at a time, as there is no use in more.
var decoders = make(chan struct{}, runtime.GOMAXPROCS(0))

// newFetch makes the fetch of blocks that are loading and that nobody else fetches.
func (c *Cache) newFetch(im *image, blocks []*block, ahead bool) *fetch {
	f := &fetch{cache: c, im: im, blocks: blocks, ahead: ahead}
	f.ctx, f.cancel = context.WithCancel(c.ctx)
	if im.layout.scratch() > 0 {
		f.scratch = min(len(blocks), runtime.GOMAXPROCS(0)+1)
		longest := int64(0)
		for _, b := range blocks {
			_, length := im.layout.place(b.unit)
			longest = max(longest, length)
		}
		// A buffer for a block will do, but for a record that did not get smaller: what one
		// fetch leaves, or an evicted block, then serves the next. Memory that is given back
		// and taken again costs more than reading into it.
		if f.scratchSize = im.layout.unit(); longest > bufferSize(f.scratchSize) {
			f.scratchSize = im.layout.scratch()
		}
	}
	for _, b := range blocks {
		s := c.shardOf(b.key)
		s.mu.Lock()
		b.fetch = f
		s.mu.Unlock()
	}
	return f
}

// need is the memory that the fetch takes.
func (f *fetch) need() int64 { return f.needOf(f.blocks) }

// needOf is the memory that the fetch takes for some of its blocks.
func (f *fetch) needOf(blocks []*block) int64 {
	n := f.scratchNeed()
	for _, b := range blocks {
		n += bufferSize(unitBytes(f.im.layout, b.unit))
	}
	return n
}

func (f *fetch) scratchNeed() int64 {
	if f.scratch == 0 {
		return 0
	}
	return int64(f.scratch) * bufferSize(f.scratchSize)
}

// wanted tells whether anybody waits for a block of the fetch.
func (f *fetch) wanted() bool {
	if f.ahead {
		return true
	}
	for _, b := range f.blocks {
		s := f.cache.shardOf(b.key)
		s.mu.Lock()
		n := len(b.subs)
		s.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// giveUp ends the fetch early. Who asks for its blocks until it has ended is told to
// ask again.
func (f *fetch) giveUp() {
	f.given.Store(true)
	f.cancel()
}

// start runs the fetch. What it needs is granted already if granted is set.
func (f *fetch) start(granted bool) {
	c := f.cache
	c.run.Lock()
	closed := c.ctx.Err() != nil
	if !closed {
		c.work.Add(1)
	}
	c.run.Unlock()
	if closed {
		if granted {
			c.mem.release(f.need())
		}
		f.fail(f.blocks, errClosed)
		f.cancel()
		return
	}
	go func() {
		if f.work(granted) {
			f.end()
		}
	}()
}

func (f *fetch) end() {
	f.cancel()
	f.cache.work.Done()
}

// work does the fetch; false if another one has taken over and has ended it.
func (f *fetch) work(granted bool) bool {
	c := f.cache
	blocks := f.blocks
	if err := f.readSums(blocks, f.im.sumsAtHand); err != nil {
		if granted { // who holds memory waits for nothing that takes memory
			c.mem.release(f.need())
			granted = false
		}
		if blocks = f.withSums(); len(blocks) == 0 {
			return true
		}
	}
	if !granted {
		if err := c.mem.acquire(f.ctx, f.needOf(blocks)); err != nil {
			f.fail(blocks, err)
			return true
		}
	}
	left, ok := f.fromDisk(blocks)
	if !ok {
		return false
	}
	defer func() { c.mem.release(f.scratchNeed()) }()
	if len(left) == 0 {
		return true
	}
	place := f.im.place.Load()
	moves := 0
	for try := 0; ; {
		var err error
		if left, err = f.pass(place, left); len(left) == 0 {
			return true
		}
		if errors.Is(err, errLetGo) && f.ctx.Err() == nil {
			continue // what was held is so no more
		}
		if missing(err) && moves < attempts {
			next, merr := f.im.moved(f.ctx, place)
			if merr == nil {
				moves++
				place = next
				continue
			}
			if !errors.Is(merr, errSamePlace) {
				err = fmt.Errorf("%w (after: %v)", merr, err)
			}
		}
		if try++; f.ctx.Err() != nil || try >= attempts || !again(err) {
			c.release(left, f.im.layout)
			f.fail(left, err)
			return true
		}
	}
}

// withSums waits for what the blocks are checked against, and returns the blocks of which
// it could be had; the others have failed.
func (f *fetch) withSums() []*block {
	read := f.im.sumsRead(f.ctx)
	err := f.readSums(f.blocks, read)
	if err == nil {
		return f.blocks
	}
	if !errors.Is(err, diskformat.ErrCorrupt) {
		f.fail(f.blocks, err)
		return nil
	}
	var blocks []*block
	for i, b := range f.blocks {
		if err := f.readSums(f.blocks[i:i+1], read); err != nil {
			f.fail(f.blocks[i:i+1], err)
			continue
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// readSums notes what blocks are checked against.
func (f *fetch) readSums(blocks []*block, read func(p []byte, off int64) error) error {
	if f.im.sums == nil {
		return nil
	}
	sums := make([]uint32, len(blocks))
	if err := f.im.sumsOf(sums, func(i int) int64 { return blocks[i].unit }, read); err != nil {
		return err
	}
	for i, b := range blocks {
		b.sum = sums[i]
	}
	return nil
}

// release gives back the memory of blocks that were not filled.
func (c *Cache) release(blocks []*block, l layout) {
	n := int64(0)
	for _, b := range blocks {
		n += bufferSize(unitBytes(l, b.unit))
		if b.data != nil {
			c.mem.put(b.data)
			b.data = nil
		}
	}
	c.mem.release(n)
}

// missing tells that an object is not there, or not the one that was asked for.
func missing(err error) bool {
	return errors.Is(err, objectstore.ErrNotFound) || errors.Is(err, objectstore.ErrNoBucket) ||
		errors.Is(err, objectstore.ErrChanged) || errors.Is(err, objectstore.ErrDenied)
}

// again tells whether a second try may do better.
func again(err error) bool {
	return errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, ErrChecksum) || errors.Is(err, diskformat.ErrCorrupt)
}

// fail settles blocks with an error, or, if the fetch was given up, with that.
func (f *fetch) fail(blocks []*block, err error) {
	switch {
	case f.given.Load():
		err = errAbandoned
	case f.cache.ctx.Err() != nil:
		err = errClosed
	}
	for _, b := range blocks {
		f.cache.settle(b, err)
	}
}

// pass reads and fills the blocks, range by range, and returns those that it could not
// fill with the first reason.
func (f *fetch) pass(p *place, blocks []*block) (left []*block, err error) {
	for len(blocks) > 0 {
		n := joined(f.im.layout, blocks)
		rest, rerr := f.readRange(p, blocks[:n])
		left = append(left, rest...)
		if err == nil {
			err = rerr
		}
		blocks = blocks[n:]
	}
	return left, err
}

// joined is how many of the blocks, from the first on, are read with one range.
func joined(l layout, blocks []*block) int {
	first, length := l.place(blocks[0].unit)
	end := first + length
	bytes := unitBytes(l, blocks[0].unit)
	for n := 1; n < len(blocks); n++ {
		off, length := l.place(blocks[n].unit)
		bytes += unitBytes(l, blocks[n].unit)
		if off < end || off-end > maxGap || off+length-first > maxJoin || bytes > maxJoin {
			return n
		}
		end = off + length
	}
	return len(blocks)
}

// errStalled is a fetch that brought nothing for too long.
var errStalled = fmt.Errorf("%w: nothing came for too long", objectstore.ErrUnavailable)

// readRange reads one range and fills the blocks that lie in it.
func (f *fetch) readRange(p *place, blocks []*block) (left []*block, err error) {
	l, c := f.im.layout, f.cache
	first, _ := l.place(blocks[0].unit)
	last, length := l.place(blocks[len(blocks)-1].unit)
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.opts.Stall, func() { cancel(errStalled) })
	defer watch.Stop()
	why := func(err error) error {
		if errors.Is(context.Cause(ctx), errStalled) {
			return fmt.Errorf("read the data of image %s: %w", f.im.id, errStalled)
		}
		return fmt.Errorf("read the data of image %s: %w", f.im.id, err)
	}
	c.counts.fetches.Add(1)
	body, err := f.open(ctx, p, first, last+length-first)
	if err != nil {
		return blocks, why(err)
	}
	defer body.Close()
	watch.Stop()
	r := &ranged{body: body, at: first, watch: watch, stall: c.opts.Stall, fetched: &c.counts.fetched}
	if l.scratch() == 0 {
		return f.readRaw(r, blocks, why)
	}
	return f.readRecords(r, blocks, why)
}

// open opens a range of the object: of the one that is held open, if there is.
func (f *fetch) open(ctx context.Context, p *place, off, n int64) (io.ReadCloser, error) {
	if h := p.hold(ctx); h != nil {
		return &heldBody{ctx: ctx, p: p, h: h, at: off}, nil
	}
	return p.store.Open(ctx, diskOf(p.data), p.condition(), off, n)
}

// heldBody reads an object that is held open. It is let go when a read fails, and the
// next try opens it: that says what is wrong with it.
type heldBody struct {
	ctx context.Context
	p   *place
	h   objectstore.Held
	at  int64
}

// errLetGo says that the read is to be tried by other means.
var errLetGo = errors.New("the open object can't be read any more")

func (b *heldBody) Read(p []byte) (int, error) {
	if err := b.h.ReadAt(b.ctx, p, b.at); err != nil {
		if b.ctx.Err() == nil {
			b.p.letGo(b.h)
			err = fmt.Errorf("%w: %w", errLetGo, err)
		}
		return 0, err
	}
	b.at += int64(len(p))
	return len(p), nil
}

func (b *heldBody) Close() error { return nil }

// readRaw reads units straight into their blocks.
func (f *fetch) readRaw(r *ranged, blocks []*block, why func(error) error) (left []*block, err error) {
	l, c := f.im.layout, f.cache
	for i, b := range blocks {
		off, length := l.place(b.unit)
		if b.data == nil {
			b.data = c.mem.get(length)
		}
		if rerr := r.read(b.data, off); rerr != nil {
			return append(left, blocks[i:]...), why(rerr)
		}
		if ferr := l.fill(b.data, b.data, b.unit, b.sum); ferr != nil {
			left = append(left, b)
			err = firstOf(err, why(ferr))
			continue
		}
		f.done(b)
	}
	return left, err
}

// readRecords reads records and decodes them beside the reading.
func (f *fetch) readRecords(r *ranged, blocks []*block, why func(error) error) (left []*block, err error) {
	l, c := f.im.layout, f.cache
	var mu sync.Mutex
	var work sync.WaitGroup
	bufs := make(chan []byte, f.scratch)
	for range f.scratch {
		bufs <- nil
	}
	for i, b := range blocks {
		off, length := l.place(b.unit)
		buf := <-bufs
		if buf == nil {
			buf = c.mem.get(f.scratchSize)
		}
		if rerr := r.read(buf[:length], off); rerr != nil {
			bufs <- buf
			mu.Lock()
			left = append(left, blocks[i:]...)
			err = firstOf(err, why(rerr))
			mu.Unlock()
			break
		}
		if b.data == nil {
			b.data = c.mem.get(unitBytes(l, b.unit))
		}
		decode := func() {
			decoders <- struct{}{}
			ferr := l.fill(b.data, buf[:length], b.unit, b.sum)
			<-decoders
			bufs <- buf
			if ferr == nil {
				f.done(b)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, b)
			err = firstOf(err, why(ferr))
		}
		if i == len(blocks)-1 {
			decode()
		} else {
			work.Go(decode)
		}
	}
	work.Wait()
	for range f.scratch {
		if buf := <-bufs; buf != nil {
			c.mem.put(buf)
		}
	}
	sortUnits(left)
	return left, err
}

// done puts a filled block into the cache.
func (f *fetch) done(b *block) {
	if f.ahead {
		f.cache.counts.ahead.Add(int64(len(b.data)))
	}
	f.cache.settle(b, nil)
}

// ranged reads a range in pieces, in ascending order. Its watch runs while it waits for
// the store, and not while what came is decoded.
type ranged struct {
	body    io.Reader
	at      int64 // of the object
	watch   *time.Timer
	stall   time.Duration
	fetched *atomic.Int64
}

// read fills p from off, which is not before what was read already.
func (r *ranged) read(p []byte, off int64) error {
	defer r.watch.Stop()
	for skip := off - r.at; skip > 0; skip = off - r.at {
		if err := r.some(p[:min(skip, int64(len(p)))]); err != nil { // to be written over
			return err
		}
	}
	return r.some(p)
}

// some fills p with what comes next.
func (r *ranged) some(p []byte) error {
	for len(p) > 0 {
		r.watch.Reset(r.stall)
		n, err := r.body.Read(p)
		p = p[n:]
		r.at += int64(n)
		r.fetched.Add(int64(n))
		if err != nil && len(p) > 0 {
			return early(err)
		}
	}
	return nil
}

// early is an error of a range that ended before its end.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func firstOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
