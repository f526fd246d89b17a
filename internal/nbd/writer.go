package nbd

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// answer is a reply, whole: what is to be written, and what is given back afterwards.
type answer struct {
	grant  grant
	data   *buffer
	pieces [][]byte
	small  [128]byte // for headers

	// Of a read.
	parts     []Extent
	dataBytes int64 // of the parts that are no holes
	splitter  splitter
}

func (a *answer) part(x Extent) bool {
	a.parts = append(a.parts, x)
	if !x.Hole {
		a.dataBytes += x.Length
	}
	return true
}

var answers = sync.Pool{New: func() any { return new(answer) }}

func newAnswer() *answer { return answers.Get().(*answer) }

// drop gives back an answer that is not sent; its grant stays with the request.
func (a *answer) drop() {
	if a.data != nil {
		a.data.release()
		a.data = nil
	}
	clear(a.pieces)
	a.pieces, a.parts = a.pieces[:0], a.parts[:0]
	if cap(a.pieces) > 64 || cap(a.parts) > 64 {
		a.pieces, a.parts = nil, nil
	}
	a.grant, a.dataBytes = grant{}, 0
	answers.Put(a)
}

// piece is how much is written to a client at once; each has its own time.
const piece = 1 << 20

// writer sends the answers of a connection. Whoever has one sends it, and with it
// what others have meanwhile: many answers leave in one system call.
type writer struct {
	c      *conn
	budget *budget
	spawn  func(func()) // runs a function in a goroutine

	mu     sync.Mutex
	queue  []*answer
	queued int64 // bytes of what add queued
	spare  []*answer
	busy   bool
	err    error

	// Of the one who is busy.
	until   time.Time
	vectors net.Buffers // whose memory is used again
	rest    net.Buffers // what is not written yet
}

func newWriter(c *conn, b *budget, spawn func(func())) *writer {
	return &writer{c: c, budget: b, spawn: spawn}
}

// maxQueued is how many bytes of data wait at most for others to leave with.
const maxQueued = 256 << 10

// add queues an answer; it leaves with the next one that is sent, with flush, or when
// there is much.
func (w *writer) add(a *answer) {
	w.mu.Lock()
	w.queue = append(w.queue, a)
	if w.queued += a.dataBytes; w.queued >= maxQueued {
		w.work(true)
		return
	}
	w.mu.Unlock()
}

// post queues an answer and lets others send it, so that its maker can go on.
func (w *writer) post(a *answer) {
	w.mu.Lock()
	w.queue = append(w.queue, a)
	busy := w.busy
	w.mu.Unlock()
	if !busy {
		w.spawn(w.drain)
	}
}

// send sends the answer and what is queued, or leaves that to the one who is at it.
func (w *writer) send(a *answer) {
	w.mu.Lock()
	w.queue = append(w.queue, a)
	w.work(false)
}

// flush sends what is queued, but not what comes meanwhile: the reader of requests must
// go on.
func (w *writer) flush() {
	w.mu.Lock()
	w.work(true)
}

// drain sends what is queued and what comes meanwhile.
func (w *writer) drain() {
	w.mu.Lock()
	w.work(false)
}

// work writes the queue unless somebody is at it; once leaves to others what comes
// meanwhile. It is called locked and unlocks.
func (w *writer) work(once bool) {
	if w.busy {
		w.mu.Unlock()
		return
	}
	w.busy = true
	for len(w.queue) > 0 {
		batch := w.queue
		w.queue, w.queued = w.spare[:0], 0
		err := w.err
		w.mu.Unlock()
		if err == nil {
			err = w.write(batch)
		}
		for i, a := range batch {
			w.release(a)
			batch[i] = nil
		}
		w.mu.Lock()
		w.spare = batch[:0]
		if err != nil && w.err == nil {
			w.err = err
			w.c.raw.Close() // the reader notices
		}
		if once {
			break
		}
	}
	w.busy = false
	rest := len(w.queue) > 0
	w.mu.Unlock()
	if rest {
		w.spawn(w.drain)
	}
}

// failed is the error that ended writing.
func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writer) release(a *answer) {
	g := a.grant
	a.drop()
	w.budget.give(g)
}

// write writes the batch. A client that takes no MiB within the time is cut off.
func (w *writer) write(batch []*answer) error {
	v := w.vectors[:0]
	size := 0
	for _, a := range batch {
		for _, p := range a.pieces {
			for len(p) > 0 {
				n := min(len(p), piece-size)
				v = append(v, p[:n])
				p = p[n:]
				if size += n; size == piece {
					if err := w.push(v); err != nil {
						return err
					}
					v, size = v[:0], 0
				}
			}
		}
	}
	w.vectors = v
	if len(v) == 0 {
		return nil
	}
	return w.push(v)
}

func (w *writer) push(v net.Buffers) error {
	defer clear(v) // the buffers are used again for others
	timeout := w.c.s.opts.WriteTimeout
	// Setting a deadline costs, so there is half as much to spare and not every piece sets one.
	if now := time.Now(); w.until.Sub(now) < timeout {
		w.until = now.Add(timeout + timeout/2)
		_ = w.c.raw.SetWriteDeadline(w.until)
	}
	if w.c.under != nil {
		w.c.under.hold()
		for _, p := range v {
			if _, err := w.c.stream.Write(p); err != nil {
				return errors.Join(err, w.c.under.flush())
			}
		}
		return w.c.under.flush()
	}
	if len(v) == 1 {
		_, err := w.c.stream.Write(v[0])
		return err
	}
	w.rest = v
	_, err := w.rest.WriteTo(w.c.stream)
	return err
}

// addSuccess makes an answer without data.
func (t *transmission) addSuccess(a *answer, j job) {
	a.grant = j.grant
	if t.structured {
		t.chunk(a, j, a.small[:], wire.ChunkNone, wire.ReplyFlagDone, 0)
		return
	}
	wire.PutSimpleReply(a.small[:], j.Cookie, 0)
	a.pieces = append(a.pieces, a.small[:wire.SimpleReplySize])
}

// succeed answers without data.
func (t *transmission) succeed(j job) {
	a := newAnswer()
	t.addSuccess(a, j)
	t.out.send(a)
}

// fail answers with an error; the text is for people.
func (t *transmission) fail(j job, errno wire.Errno, text string) {
	a := newAnswer()
	a.grant = j.grant
	if t.structured {
		t.addError(a, j, errno, text)
	} else {
		wire.PutSimpleReply(a.small[:], j.Cookie, errno)
		a.pieces = append(a.pieces, a.small[:wire.SimpleReplySize])
	}
	t.out.send(a)
}
