package nbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// maxIdle is how many goroutines of a connection wait for its next requests.
const maxIdle = 16

// transmission is the second phase of a connection: one goroutine reads requests,
// others handle them, whoever has an answer writes it.
type transmission struct {
	*conn
	ctx      context.Context // of reads of the export; ends with the connection
	out      *writer
	budget   *budget
	warm     Warmed // the export, if it is one
	stopping bool   // requests are answered with ESHUTDOWN

	requests chan job // to idle workers
	workers  sync.WaitGroup
	mu       sync.Mutex
	idle     int

	failures failures
}

// job is a request that may begin, with what it may hold.
type job struct {
	wire.Request
	grant grant
	runs  bool // of a read: less was granted than its data may take, it goes on in runs
	begun bool // the header of the reply was sent
	more  bool // behind the run there are others
}

// transmit serves requests until the client disconnects or the connection breaks.
// cancel ends ctx.
func (c *conn) transmit(ctx context.Context, cancel context.CancelFunc) error {
	_ = c.raw.SetWriteDeadline(never)
	share := c.s.pool.join(c.export.name)
	defer c.s.pool.leave(share)
	t := &transmission{conn: c, ctx: ctx, requests: make(chan job), budget: newBudget(c.s.pool, share, &c.s.opts)}
	t.out = newWriter(c, t.budget, t.workers.Go)
	t.warm, _ = c.export.Export.(Warmed)
	err := t.read()
	t.out.flush()
	if err != nil && !errors.Is(err, errGone) {
		cancel()
	}
	// Every request under way is answered, or its answer dropped, before the export is closed.
	<-t.budget.atMost(0)
	close(t.requests)
	t.workers.Wait()
	return errors.Join(err, t.out.failed())
}

// read reads requests and hands them to workers.
func (t *transmission) read() error {
	size := wire.RequestSize
	magic := uint32(wire.RequestMagic)
	if t.extended {
		size, magic = wire.ExtendedRequestSize, wire.ExtendedRequestMagic
	}
	for {
		b, err := t.next(size)
		if err != nil {
			return err
		}
		r := wire.ParseRequest(b, t.extended)
		_, _ = t.in.Discard(size)
		if r.Magic != magic {
			return fmt.Errorf("a request begins with %#x", r.Magic)
		}
		if r.Command == wire.CmdDisconnect {
			return errGone
		}
		if err := t.dispatch(r); err != nil {
			return err
		}
	}
}

// next waits for the next request's header. Between requests a client may be silent as
// long as it likes, within a request it may not.
func (t *transmission) next(size int) ([]byte, error) {
	for {
		if t.called.Load() {
			if err := t.rest(); err != nil {
				return nil, err
			}
		}
		if t.in.Buffered() < size {
			t.out.flush()
		}
		if t.in.Buffered() == 0 {
			t.readUntil(never)
			_, err := t.in.Peek(1)
			if err != nil {
				if t.stop(err) {
					continue
				}
				return nil, err
			}
		}
		if t.in.Buffered() < size {
			t.readUntil(time.Now().Add(t.s.opts.RequestTimeout))
		}
		b, err := t.in.Peek(size)
		if err == nil || !t.stop(err) {
			return b, err
		}
	}
}

// stop begins the end of the connection when err comes from the server's: requests
// under way are finished, new ones refused, and once there are none reads fail again.
// It reports whether reading goes on.
func (t *transmission) stop(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) && t.ending.Err() == nil && t.recalled() {
		return true
	}
	if t.stopping || t.ending.Err() == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	t.stopping = true
	t.sleep()
	idle := t.budget.atMost(0)
	t.workers.Go(func() {
		select {
		case <-idle:
		case <-t.ctx.Done():
		}
		t.wake()
	})
	return true
}

// dispatch answers a request that is wrong, and hands others to a worker. It fails
// when the connection must end.
func (t *transmission) dispatch(r wire.Request) error {
	errno, text, err := t.check(r)
	if err != nil {
		return err
	}
	hold, whole := int64(0), false
	if errno == 0 {
		switch r.Command {
		case wire.CmdRead:
			hold, whole = charge(int(r.Length)), !t.structured || r.Flags&wire.CmdFlagDF != 0
			if !whole {
				hold = min(hold, maxRun)
			}
		case wire.CmdBlockStatus:
			hold = charge(t.statusBytes(r))
		}
	}
	// What waits to be sent holds what is waited for: it must leave first.
	g, err := t.budget.begin(t.ctx, hold, whole, t.out.flush)
	if err != nil {
		return err
	}
	j := job{Request: r, grant: g}
	if errno != 0 {
		t.fail(j, errno, text)
		return nil
	}
	if r.Command == wire.CmdRead {
		j.runs = g.bytes() < charge(int(r.Length))
		switch {
		case j.runs && whole:
			return t.readAlone(j)
		case !j.runs && t.readAtOnce(&j):
			return nil
		}
	}
	select {
	case t.requests <- j:
	default:
		t.workers.Go(func() { t.work(j) })
	}
	return nil
}

// check says what is wrong with a request; err ends the connection. The payload of a
// request that has one is taken from the stream.
func (t *transmission) check(r wire.Request) (errno wire.Errno, text string, err error) {
	payload := uint64(0)
	if t.extended && r.Flags&wire.CmdFlagPayloadLength != 0 || !t.extended && r.Command == wire.CmdWrite {
		payload = r.Length
	}
	if payload > t.s.opts.maxPayload() {
		return 0, "", fmt.Errorf("a request with a payload of %d bytes", payload)
	}
	if err := t.discard(payload); err != nil {
		return 0, "", err
	}
	if t.stopping || t.ending.Err() != nil {
		return wire.ESHUTDOWN, "the server stops", nil
	}
	allowed := uint16(0)
	switch r.Command {
	case wire.CmdWrite, wire.CmdTrim, wire.CmdWriteZeroes:
		return wire.EPERM, "the export is read-only", nil
	case wire.CmdFlush:
		if r.Offset != 0 || r.Length != 0 {
			return wire.EINVAL, "a flush has neither offset nor length", nil
		}
	case wire.CmdRead:
		if t.structured {
			allowed = wire.CmdFlagDF
		}
		if r.Length > uint64(t.s.opts.MaxRequestBytes) {
			return wire.EINVAL, "the read is longer than the maximum block size", nil
		}
	case wire.CmdCache:
		if _, ok := t.export.Export.(Prefetcher); !ok {
			return wire.EINVAL, "the export has no cache", nil
		}
	case wire.CmdBlockStatus:
		allowed = wire.CmdFlagReqOne
		if !t.allocation || t.contexts != t.export.name {
			return wire.EINVAL, "no metadata context was chosen for this export", nil
		}
		if r.Length == 0 {
			return wire.EINVAL, "the range is empty", nil
		}
	default:
		return wire.EINVAL, "unknown command", nil
	}
	if r.Flags&^allowed != 0 {
		return wire.EINVAL, "a flag that the command does not have", nil
	}
	if r.Offset > t.export.size || r.Length > t.export.size-r.Offset {
		return wire.EINVAL, "the range goes beyond the end of the export", nil
	}
	return 0, "", nil
}

// discard takes n bytes of payload from the stream. Each MiB has its own time.
func (t *transmission) discard(n uint64) error {
	if uint64(t.in.Buffered()) < n {
		t.out.flush()
	}
	for n > 0 {
		part := min(n, 1<<20)
		t.readUntil(time.Now().Add(t.s.opts.RequestTimeout))
		if _, err := t.in.Discard(int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// work handles a request and then those that come while it is among the idle.
func (t *transmission) work(j job) {
	for {
		t.handle(j)
		t.mu.Lock()
		enough := t.idle >= maxIdle
		if !enough {
			t.idle++
		}
		t.mu.Unlock()
		if enough {
			return
		}
		next, ok := <-t.requests
		t.mu.Lock()
		t.idle--
		t.mu.Unlock()
		if !ok {
			return
		}
		j = next
	}
}

func (t *transmission) handle(j job) {
	switch j.Command {
	case wire.CmdRead:
		if j.runs {
			t.readInRuns(j)
		} else {
			t.handleRead(j)
		}
	case wire.CmdBlockStatus:
		t.handleStatus(j)
	case wire.CmdCache:
		err := t.export.Export.(Prefetcher).Prefetch(t.ctx, int64(j.Offset), int64(j.Length))
		if err != nil {
			t.failures.log(t.log, "prefetch", j.Offset, j.Length, err)
			t.fail(j, wire.EIO, told(err, exportFailed))
			return
		}
		t.succeed(j)
	default: // a flush: there is nothing to write
		t.succeed(j)
	}
}

// exportFailed is what a client learns of an error inside an export that is not Told.
const exportFailed = "the data can't be read"
