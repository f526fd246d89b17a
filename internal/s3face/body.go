package s3face

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a request's body.
const (
	stallTimeout = 2 * time.Minute // between two bytes of a body, either way
	// maxDocument bounds every body that is no object's: the XML of a deletion
	// of 1000 keys, or of a completion of 10,000 parts, has less.
	maxDocument = 4 << 20
	// maxObject is S3's limit for an object, or a part of one, in one request.
	maxObject = 5 << 30
	// maxFraming is what chunks with signatures add to an object: 90 bytes or so
	// to each, of which all but the last have 8 KiB at least.
	maxFraming = maxObject/64 + 64<<10
	// maxMeasured bounds the bodies without a length whose length is found by
	// reading them. Some clients send empty objects so; S3 has no larger ones.
	maxMeasured = 64 << 10
	// What a refused request's body is read on for, so that a client that sends
	// all before it reads anything finds the answer, and not a broken
	// connection: the parts that clients send by default have 5 to 16 MiB.
	maxDrain  = 16 << 20
	drainTime = time.Second
)

// bodyTooLarge reports whether a request announces a body larger than its kind
// may have, with the status to refuse it with.
func bodyTooLarge(r *http.Request) (status int, too bool) {
	if !carriesObject(r) {
		return http.StatusRequestEntityTooLarge, r.ContentLength > maxDocument
	}
	object, most := r.ContentLength, int64(maxObject)
	if decoded := r.Header.Get("X-Amz-Decoded-Content-Length"); decoded != "" {
		most += maxFraming
		n, err := strconv.ParseInt(decoded, 10, 64)
		if errors.Is(err, strconv.ErrRange) || err == nil && n > maxObject {
			return http.StatusBadRequest, true
		}
	}
	return http.StatusBadRequest, object > most
}

// measure gives a short body that came in chunks a length. Others are left
// without one, and so are those that the client waits to be asked for.
func measure(r *http.Request) error {
	if r.ContentLength >= 0 || r.Header.Get("Expect") != "" {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(r.Body, maxMeasured+1))
	if err != nil {
		return fmt.Errorf("read a body in chunks: %w", err)
	}
	if len(content) <= maxMeasured {
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(content)), int64(len(content)), nil
		if len(content) == 0 {
			r.Body = http.NoBody
		}
	}
	return nil
}

// watchedBody gives each read of a request's body its own time, and knows how
// much of it is still to come. The proxy may be reading on when the answer is
// there already; drain takes the body from it.
type watchedBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	left    atomic.Int64 // bytes that were announced and not read; -1: who knows

	deadline sync.Mutex // guards the two below, and the connection's read deadline
	started  bool       // somebody has read, so that the client was told to go on
	answered bool
	reading  sync.Mutex // guards body
}

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
	b.started = true
	_ = b.control.SetReadDeadline(time.Now().Add(stallTimeout)) // HTTP/1 connections have deadlines
	b.deadline.Unlock()
	n, err := b.read(p)
	if err != nil {
		b.deadline.Lock()
		if !b.answered {
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
	status  int
}

// WriteHeader implements http.ResponseWriter.
func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 || w.status < 200 {
		w.status = status
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

func (w *watchedWriter) giveTime() { _ = w.control.SetWriteDeadline(time.Now().Add(stallTimeout)) }

// Unwrap lets the proxy flush.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// patientConn is a connection to the gateway. The gateway may answer, and
// close, before it has read all of a request; the transport would give the
// answer up for the write that fails then. Here such a write says nothing: the
// next read gets the answer, or fails.
type patientConn struct{ net.Conn }

// Write implements io.Writer.
func (c patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return len(p), nil
	}
	return n, err
}
