package s3face

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a request's body.
const (
	stallTimeout = 2 * time.Minute // between two bytes of a body, either way
	// What a refused request's body is read on for, so that a client that sends
	// all before it reads anything finds the answer, and not a broken
	// connection: the parts that clients send by default have 5 to 16 MiB.
	maxDrain  = 16 << 20
	drainTime = time.Second
)

// watchedBody gives each read of a request's body its own time, and knows how
// much of it is still to come.
type watchedBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	left    atomic.Int64 // bytes that were announced and not read; -1: who knows

	deadline sync.Mutex // guards the two below, and the connection's read deadline
	until    time.Time  // when the reads must have ended; zero: there is no such time
	started  bool       // somebody has read, so that the client was told to go on
	answered bool
	lost     bool       // the right to the request, see watchAccess
	reading  sync.Mutex // guards body
}

// errLost ends a request whose access key has ended.
var errLost = errors.New("the access key of the request no longer gives access")

var errAnswered = errors.New("the request was answered before its body was read")

func watch(r *http.Request, control *http.ResponseController) *watchedBody {
	b := &watchedBody{body: r.Body, control: control}
	b.left.Store(r.ContentLength)
	return b
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.deadline.Lock()
	if b.answered {
		b.deadline.Unlock()
		return 0, errAnswered
	}
	if b.lost {
		b.deadline.Unlock()
		return 0, errLost
	}
	b.started = true
	end := time.Now().Add(stallTimeout)
	if !b.until.IsZero() && end.After(b.until) {
		end = b.until
	}
	_ = b.control.SetReadDeadline(end) // HTTP/1 connections have deadlines
	b.deadline.Unlock()
	n, err := b.read(p)
	if err != nil {
		b.deadline.Lock()
		if b.lost {
			err = errLost
		} else if !b.answered {
			_ = b.control.SetReadDeadline(time.Time{}) // an answer may take its time
		}
		b.deadline.Unlock()
	}
	return n, err
}

func (b *watchedBody) read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	switch {
	case err == io.EOF:
		b.left.Store(0)
	case b.left.Load() > 0:
		b.left.Add(-int64(n))
	}
	return n, err
}

// endBy bounds the time of all reads from now on, however steadily bytes come; the zero
// time ends the bound.
func (b *watchedBody) endBy(t time.Time) {
	b.deadline.Lock()
	defer b.deadline.Unlock()
	b.until = t
}

// cut ends a read under way and fails all later ones.
func (b *watchedBody) cut() {
	b.deadline.Lock()
	defer b.deadline.Unlock()
	b.lost = true
	_ = b.control.SetReadDeadline(time.Now())
}

// Close implements io.Closer. The server closes the body itself.
func (b *watchedBody) Close() error { return nil }

// drain reads on, within bounds, what the answer did not wait for. A client
// that waits to be told to go on is not read from: it will not be told.
func (b *watchedBody) drain(waits bool) {
	b.deadline.Lock()
	b.answered = true
	waits = waits && !b.started
	end := time.Now()
	if !waits {
		end = end.Add(drainTime)
	}
	_ = b.control.SetReadDeadline(end) // ends a read under way, too, and the server's own
	b.deadline.Unlock()
	if waits {
		return
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	buf := make([]byte, 32<<10)
	for n := 0; n < maxDrain && b.left.Load() != 0; {
		m, err := b.read(buf)
		if n += m; err != nil {
			return
		}
	}
}

// watchedWriter gives each write of a response its own time. A response that
// comes before the request's end is the last of its connection: what is left of
// the request is not to be taken for another. So is one to a request in chunks,
// RFC 9112 section 6.1: it may have had a Content-Length too, which somebody
// before us may have believed.
type watchedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	body    *watchedBody
	last    bool // of its connection, however it ends
	obs     bool // its headers are OBS's
	status  int

	deadline sync.Mutex // guards the write deadline and lost
	lost     bool       // the right to the request, see watchAccess
}

// isLost says whether the request was cut.
func (w *watchedWriter) isLost() bool {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	return w.lost
}

// cut ends a write under way and fails all later ones.
func (w *watchedWriter) cut() {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	w.lost = true
	_ = w.control.SetWriteDeadline(time.Now())
}

// WriteHeader implements http.ResponseWriter.
func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 || w.status < 200 {
		w.status = status
		if w.obs {
			toOBS(w.Header())
		}
		if status >= 200 && (w.last || w.body.left.Load() != 0) {
			w.Header().Set("Connection", "close")
		}
	}
	w.giveTime()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *watchedWriter) Write(p []byte) (int, error) {
	if w.status < 200 {
		w.WriteHeader(http.StatusOK)
	}
	w.giveTime()
	return w.ResponseWriter.Write(p)
}

func (w *watchedWriter) giveTime() {
	w.deadline.Lock()
	defer w.deadline.Unlock()
	if !w.lost {
		_ = w.control.SetWriteDeadline(time.Now().Add(stallTimeout))
	}
}

// Unwrap lets http.ResponseController find the connection.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
