package pinned

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/objectcache"
	"github.com/quickims/quickims/internal/objectstore"
)

const (
	// MaxGap is how many bytes between two reads of a range are read for nothing sooner
	// than that another request is made.
	MaxGap = 128 << 10
	// maxBeside is how many requests run beside one that stalls: after the stall time, three
	// and seven times as long. A store that is slow so has its time, and connections that
	// are dead do not hold up a read for long.
	maxBeside = 3
	// besideRead is how much such a request reads before anybody wants it, in bytes.
	besideRead = 64 << 10
	// maxMoves is how often one Reader follows its object.
	maxMoves = 3
)

// Reader reads ranges of an object for one fetch. It is for one goroutine. Close it.
type Reader struct {
	o       *Object
	ctx     context.Context
	holds   int64 // memory, in bytes
	inside  bool  // holds counts against the store's room
	at      *spot // where the last try read
	end     int64 // of the range
	counted bool  // the range, as a request
	edges   edges
	request *request
	probe   *outage // the outage in which it may make a request; nil: none
	failed  int     // tries in a row
	moves   int

	watch  *time.Timer // calls stalled; nil before the first request
	mu     sync.Mutex  // guards what stalled uses
	since  time.Time   // when the step began that waits for the store; zero: none does
	beside []*request  // other requests of the step
	from   int64       // where the step's bytes begin
	late   bool        // nothing has come for as long as a request may take
}

// NewReader returns a Reader whose reads end with ctx, for a fetch that holds so many bytes
// of memory while it reads.
func (o *Object) NewReader(ctx context.Context, holds int64) *Reader {
	return &Reader{o: o, ctx: ctx, holds: min(holds, o.store.opts.Room)}
}

// Close ends the reading.
func (r *Reader) Close() {
	r.hangUp()
	r.yield(false)
	r.goOutside()
}

// Range says that the next reads are of n bytes from off on, in ascending order. They come
// with one request, as far as they come from the store.
func (r *Reader) Range(off, n int64) {
	r.hangUp()
	r.end, r.counted = off+n, false
	if r.o.cache() != nil {
		r.end = min((r.end+objectcache.PageSize-1)/objectcache.PageSize*objectcache.PageSize, r.o.name.Size)
	}
}

// Read fills p with the bytes from off on, which is within the range and not before what
// was read. It makes one try, which ends with all of p or with an error: never with other
// bytes. After an error p is unspecified, and the next range or Await must follow.
func (r *Reader) Read(p []byte, off int64) error {
	if r.request == nil {
		r.at = r.o.at.Load()
	}
	err := r.read(p, off)
	if err == nil {
		r.failed = 0
		if r.o.trouble.Load() != nil {
			r.o.trouble.Store(nil)
		}
		return nil
	}
	r.hangUp()
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	switch {
	case errors.Is(err, errInLine), errors.Is(err, errNoRoom):
	case Passes(err):
		r.failed++
		r.trouble(err)
		if errors.Is(err, objectstore.ErrUnavailable) && !errors.Is(err, errStalled) {
			r.o.store.failed(err)
		}
	case missing(err):
		r.o.store.answered()
	}
	r.yield(!errors.Is(err, errNoRoom))
	r.goOutside()
	return err
}

// ReadAt implements io.ReaderAt: each call is a range and one try.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	size := r.o.name.Size
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	r.Range(off, int64(n))
	if err := r.Read(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Await waits until another try after err is due. It returns why there is none otherwise:
// err itself, the end of ctx, or that the object is not found again.
func (r *Reader) Await(err error) error {
	switch {
	case r.ctx.Err() != nil:
		return r.ctx.Err()
	case missing(err):
		if r.moves++; r.moves > maxMoves {
			return err
		}
		switch merr := r.o.moved(r.ctx, r.at); {
		case merr == nil:
			return nil
		case errors.Is(merr, errSamePlace):
			return err
		default:
			return fmt.Errorf("%w (after: %v)", merr, err)
		}
	case !Passes(err):
		return err
	}
	s := r.o.store
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if errors.Is(err, errNoRoom) {
		if err := s.room.Acquire(r.ctx, r.holds); err != nil {
			return err
		}
		r.inside = true
		return nil
	}
	u := s.outage.Load()
	if r.failed > 0 && !errors.Is(err, errInLine) {
		pause := time.NewTimer(pauseAfter(r.failed))
		defer pause.Stop()
		var over chan struct{} // nil: the pause is for its own request, not for the store
		if u != nil {
			over = u.over
		}
		select {
		case <-pause.C:
		case <-over:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		u = s.outage.Load()
	}
	if u == nil {
		return nil
	}
	probe, err := u.enter(r.ctx, r.o)
	if probe {
		r.probe = u
	}
	return err
}

var (
	// errInLine says that a read has to wait for its turn.
	errInLine = errors.New("the store fails, and few requests probe it")
	// errNoRoom says that a read has to wait until others at the store hold less memory.
	errNoRoom = fmt.Errorf("%w: the requests under way hold all the memory that they may", objectstore.ErrUnavailable)
)

// goInside counts what the fetch holds against the store's room; false if there is none.
func (r *Reader) goInside() bool {
	if !r.inside {
		r.inside = r.o.store.room.TryAcquire(r.holds)
	}
	return r.inside
}

func (r *Reader) goOutside() {
	if r.inside {
		r.o.store.room.Release(r.holds)
		r.inside = false
	}
}

// yield ends its turn in an outage, if it has one.
func (r *Reader) yield(failed bool) {
	if r.probe != nil {
		r.probe.leave(failed)
		r.probe = nil
	}
}

func (r *Reader) trouble(err error) { r.o.trouble.Store(&err) }

func (r *Reader) read(p []byte, off int64) error {
	s := r.o.store
	if h := r.at.hold(r.ctx, s.objects); h != nil {
		r.count()
		watch := time.AfterFunc(s.opts.Stall, func() { r.trouble(errStalled) })
		err := h.ReadAt(r.ctx, p, off)
		watch.Stop()
		if err == nil {
			s.bytes.Add(int64(len(p)))
			return nil
		}
		if r.ctx.Err() != nil {
			return err
		}
		r.at.close(h)
	}
	c := r.o.cache()
	if c != nil && c.ReadAt(r.o.name, p, off) {
		return nil
	}
	if u := s.outage.Load(); u != nil && u != r.probe && r.request == nil {
		r.trouble(u.cause)
		return fmt.Errorf("%w: %w", errInLine, u.cause)
	}
	if r.request == nil && !r.goInside() {
		return errNoRoom
	}
	if c == nil {
		return r.fill(p, off)
	}
	return r.fillPages(c, p, off)
}

// edges are the pages that a read takes part of at its front and its end.
type edges struct {
	front, end []byte
	at         int64 // where end lies in the object
}

// fillPages is fill, but reads whole pages, and offers them to the cache.
func (r *Reader) fillPages(c Cache, p []byte, off int64) error {
	const page = objectcache.PageSize
	size := r.o.name.Size
	from, parts := off, make([][]byte, 0, 3)
	if within := off % page; within > 0 {
		from = off - within
		if len(r.edges.end) > 0 && r.edges.at == from { // the end of the read before
			r.edges.front, r.edges.end = r.edges.end, r.edges.front[:0]
			from += int64(len(r.edges.front))
		} else {
			r.edges.front = append(r.edges.front[:0], make([]byte, min(page, size-from))...)
			if err := r.fill(r.edges.front, from); err != nil {
				return err
			}
			parts = append(parts, r.edges.front)
		}
		n := copy(p, r.edges.front[within:])
		p, off = p[n:], off+int64(n)
	}
	whole := int64(len(p))
	if off+whole < size {
		whole -= whole % page
	}
	if err := r.fill(p[:whole], off); err != nil {
		return err
	}
	if whole > 0 {
		parts = append(parts, p[:whole])
	}
	if p, off = p[whole:], off+whole; len(p) > 0 {
		r.edges.end, r.edges.at = append(r.edges.end[:0], make([]byte, min(page, size-off))...), off
		if err := r.fill(r.edges.end, off); err != nil {
			r.edges.end = r.edges.end[:0]
			return err
		}
		copy(p, r.edges.end)
		parts = append(parts, r.edges.end)
	}
	if len(parts) > 0 {
		c.Offer(r.o.name, from, parts...)
	}
	return nil
}

func (r *Reader) count() {
	if !r.counted {
		r.counted = true
		r.o.store.requests.Add(1)
	}
}

// fill reads p from a request of what is left of the range.
func (r *Reader) fill(p []byte, off int64) error {
	if r.request != nil && (off < r.request.at || off-r.request.at > MaxGap) {
		r.hangUp()
	}
	if r.request == nil {
		r.request = r.newRequest(off)
	}
	for skip := off - r.request.at; skip > 0; skip = off - r.request.at {
		if _, err := r.step(p[:min(skip, int64(len(p)))]); err != nil { // to be written over
			return err
		}
	}
	for len(p) > 0 {
		n, err := r.step(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// step reads some of what comes next. When nothing has come for a while other requests run
// beside the first, and the one that brings bytes first goes on.
func (r *Reader) step(p []byte) (n int, err error) {
	stall := r.o.store.opts.Stall
	r.mu.Lock()
	r.since, r.from = time.Now(), r.request.at
	if r.watch == nil {
		r.watch = time.AfterFunc(stall, r.stalled)
	} else {
		r.watch.Reset(stall)
	}
	r.mu.Unlock()
	n, err = r.request.read(p)
	r.watch.Stop()
	r.mu.Lock()
	beside, late := r.beside, r.late
	r.beside, r.since, r.late = nil, time.Time{}, false
	r.mu.Unlock()
	for _, q := range beside {
		if err != nil && !late && q.hasBegun() {
			r.request.close()
			r.request = q
			n, err = q.read(p)
			continue
		}
		q.cancel()
		go func() {
			<-q.begun
			q.close()
		}()
	}
	if err != nil && late {
		err = errStalled
	}
	r.o.store.bytes.Add(int64(n))
	if n > 0 {
		r.o.store.answered()
	}
	return n, err
}

// stalled is called when a step has brought nothing for a while.
func (r *Reader) stalled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	opts := &r.o.store.opts
	waited := time.Since(r.since)
	if r.since.IsZero() || waited < opts.Stall {
		return // another step has begun meanwhile
	}
	r.trouble(errStalled)
	all := append([]*request{r.request}, r.beside...)
	if waited >= opts.Wait {
		r.late = true
		for _, q := range all {
			q.cancel()
		}
		return
	}
	next := opts.Wait - waited
	if len(r.beside) < maxBeside {
		q := r.newRequest(r.from)
		r.beside = append(r.beside, q)
		go r.begin(q)
		next = min(next, opts.Stall<<len(r.beside))
	}
	r.watch.Reset(next)
}

// begin reads the first bytes of a request that runs beside others, and ends those.
func (r *Reader) begin(q *request) {
	buf := make([]byte, besideRead)
	n, err := q.read(buf)
	q.first, q.err, q.at = buf[:n], err, q.at-int64(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && slices.Contains(r.beside, q) {
		r.request.cancel()
		for _, other := range r.beside {
			if other != q {
				other.cancel()
			}
		}
	}
	close(q.begun)
}

// hangUp ends the request.
func (r *Reader) hangUp() {
	if r.request != nil {
		r.request.close()
		r.request = nil
	}
}

// request is one request of an object's bytes up to the end of a range.
type request struct {
	open   func() (io.ReadCloser, error)
	cancel context.CancelFunc
	body   io.ReadCloser // nil before the first read
	at     int64         // where the next bytes lie

	// Of a request beside others: closed when first or err is there.
	begun chan struct{}
	first []byte // bytes that came before anybody asked
	err   error
}

func (r *Reader) newRequest(off int64) *request {
	ctx, cancel := context.WithCancel(r.ctx)
	at, end, objects := r.at, r.end, r.o.store.objects
	r.o.store.requests.Add(1)
	return &request{at: off, cancel: cancel, begun: make(chan struct{}), open: func() (io.ReadCloser, error) {
		return objects.Open(ctx, at.Location, at.Condition, off, end-off)
	}}
}

// read reads some of what comes next: at least a byte, or it fails.
func (q *request) read(p []byte) (n int, err error) {
	if len(q.first) > 0 {
		n = copy(p, q.first)
		q.first = q.first[n:]
		q.at += int64(n)
		return n, nil
	}
	if q.body == nil {
		if q.body, err = q.open(); err != nil {
			return 0, err
		}
	}
	for n == 0 && err == nil {
		n, err = q.body.Read(p)
	}
	q.at += int64(n)
	switch {
	case n > 0:
		return n, nil // an error comes again
	case errors.Is(err, io.EOF):
		return 0, io.ErrUnexpectedEOF
	}
	return 0, err
}

// hasBegun reports whether the first bytes of a request beside others are there.
func (q *request) hasBegun() bool {
	select {
	case <-q.begun:
		return q.err == nil
	default:
		return false
	}
}

func (q *request) close() {
	q.cancel()
	if q.body != nil {
		_ = q.body.Close() // nothing more is to be learnt from it
		q.body = nil
	}
}
