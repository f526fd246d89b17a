package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

// What the requests in flight may hold of the process, in all. A project, or the
// address of a stranger, may hold no more of each than it leaves free.
const (
	// credentialChecks is how many requests look their credentials up at once.
	credentialChecks = 16
	// strangersInFlight is how many requests without valid credentials there are at
	// once, until their responses are written.
	strangersInFlight = 4096
	// strangerBodyBytes bounds the bodies of signed requests, which must be read before
	// the signature can be verified; bodyBytes those of authenticated callers.
	strangerBodyBytes, bodyBytes = 32 << 20, 64 << 20
	// unsentBytes bounds the responses that wait for their readers without a place.
	unsentBytes = 64 << 20
	// maxWaiting is how many requests of a project, or an address, wait for a place.
	maxWaiting = 512

	// bodyTimeout bounds the time in which a body must have arrived.
	bodyTimeout = 10 * time.Second
	// drainTimeout bounds the time in which the server reads, and throws away, a body that
	// no response depends on: a client that sends all before it reads anything finds the
	// response, and not a broken connection.
	drainTimeout = 2 * time.Second
	// sendChunk is the part of a response that a client must take within sendTimeout;
	// writeTimeout bounds the whole.
	sendChunk   = 64 << 10
	sendTimeout = 10 * time.Second
	// smallResponse is what the kernel takes without a reader, about.
	smallResponse = 4 << 10
)

// shares are what requests hold of the process. Only work holds a place: neither a
// body that is still to come nor a response that waits for its reader does.
type shares struct {
	places, checks, strangers      *admit.Shares
	strangerBodies, bodies, unsent *admit.Shares
}

func newShares(places int) shares {
	return shares{
		places: admit.NewShares(int64(places), maxWaiting), checks: admit.NewShares(credentialChecks, maxWaiting),
		strangers:      admit.NewShares(strangersInFlight, 0),
		strangerBodies: admit.NewShares(strangerBodyBytes, 0), bodies: admit.NewShares(bodyBytes, 0),
		unsent: admit.NewShares(unsentBytes, 0),
	}
}

// take waits for a unit and gives the function that gives it back.
func take(ctx context.Context, s *admit.Shares, party string) (leave func(), err error) {
	if err := s.Take(ctx, party, 1); err != nil {
		return nil, err
	}
	return func() { s.Give(party, 1) }, nil
}

// enterStranger counts a request without valid credentials until its response is
// written. A request beyond the share of its address gets no response.
func (s *server) enterStranger(rec *recorder) {
	if rec.leave != nil {
		return
	}
	if !s.shares.strangers.Try(rec.address, 1) {
		panic(http.ErrAbortHandler)
	}
	rec.leave = func() { s.shares.strangers.Give(rec.address, 1) }
}

// authenticate finds the caller. The body is read for a signature alone; b holds it
// afterwards.
func (s *server) authenticate(rec *recorder, r *http.Request, b *requestBody) (p ims.Principal, err error) {
	leave, err := take(r.Context(), s.shares.checks, rec.address)
	if err != nil {
		return p, err
	}
	defer func() {
		if leave != nil {
			leave()
		}
	}()
	return s.Auth.Authenticate(r.Context(), r, func() ([]byte, error) {
		if r.ContentLength == 0 {
			return nil, b.read(r, s.shares.strangerBodies, rec.address)
		}
		leave() // a body takes as long as its sender likes
		leave = nil
		if err := b.read(r, s.shares.strangerBodies, rec.address); err != nil {
			return nil, err
		}
		var err error
		leave, err = take(r.Context(), s.shares.checks, rec.address)
		return b.content, err
	})
}

// requestBody is the body of one request in memory. The bytes count for a party until
// release.
type requestBody struct {
	rec     *recorder
	content []byte
	done    bool
	budget  *admit.Shares
	party   string
	held    int64
}

// read reads the body once, whoever asks first. The memory is taken as the bytes
// arrive: a client that announces much and sends nothing holds nothing.
func (b *requestBody) read(r *http.Request, budget *admit.Shares, party string) error {
	if b.done {
		return nil
	}
	b.done = true
	if r.ContentLength == 0 || r.Body == nil {
		return nil
	}
	if r.ContentLength > MaxBody {
		return &http.MaxBytesError{Limit: MaxBody}
	}
	b.budget, b.party = budget, party
	rc := http.NewResponseController(b.rec.base)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // a server without deadlines is a test's
	from := http.MaxBytesReader(b.rec.base, r.Body, MaxBody)
	var buf []byte
	for {
		if len(buf) == cap(buf) {
			size := max(2*cap(buf), 4<<10)
			if !budget.Try(party, int64(size-cap(buf))) {
				return unavailable("too many request bodies are in flight; retry later")
			}
			b.held += int64(size - cap(buf))
			buf = append(make([]byte, 0, size), buf...)
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		if err != nil {
			return ims.Faultf(ims.CodeBadFormat, "the request body is incomplete; send the request again").Cause(err)
		}
	}
	_ = rc.SetReadDeadline(time.Time{}) // it would end the request's context
	b.rec.unread = false
	b.content = buf
	r.Body = io.NopCloser(bytes.NewReader(buf))
	return nil
}

func (b *requestBody) release() {
	if b.held > 0 {
		b.budget.Give(b.party, b.held)
		b.held = 0
	}
}

// runOpen runs a route that asks for no credentials, or asks for them itself. Only
// Keystone's have bodies, which are short.
func (s *server) runOpen(rec *recorder, r *http.Request, route *Route) error {
	body := route.own && r.ContentLength != 0
	if route.Public || body {
		s.enterStranger(rec)
	}
	if body && r.ContentLength <= keystone.MaxBody {
		r.Body = http.MaxBytesReader(rec.base, r.Body, keystone.MaxBody)
		b := &requestBody{rec: rec}
		defer b.release()
		if err := b.read(r, s.shares.strangerBodies, rec.address); err != nil {
			r.Body = io.NopCloser(failing{err}) // the handler has a form for errors of its own
		}
	}
	if !route.Public { // the rest are lookups for a caller that the handler authenticates
		leave, err := take(r.Context(), s.shares.checks, rec.address)
		if err != nil {
			return err
		}
		defer leave()
	}
	return route.handle(s, &call{Request: r, w: rec, face: route.face})
}

// failing is a body that could not be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// outbox keeps a response until the work is done.
type outbox struct {
	http.ResponseWriter
	status int
	body   []byte
}

// Unwrap lets http.ResponseController reach the connection.
func (o *outbox) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (o *outbox) WriteHeader(status int) {
	switch {
	case status < http.StatusOK:
		o.ResponseWriter.WriteHeader(status)
	case o.status == 0:
		o.status = status
	}
}

// Write implements io.Writer.
func (o *outbox) Write(p []byte) (int, error) {
	o.WriteHeader(http.StatusOK)
	o.body = append(o.body, p...)
	return len(p), nil
}

// send writes the response without the place in which it was made, unless responses of
// the same party that nobody reads hold their share of memory: then the party waits for
// itself. It reports whether the connection must be broken.
func (s *server) send(rec *recorder, o *outbox) (broken bool) {
	defer func() { rec.release() }()
	if o.status == 0 {
		return false
	}
	party, n := rec.party, int64(len(o.body))
	if party == "" {
		party = rec.address
	}
	switch {
	case n <= smallResponse:
		if rec.party != "" {
			rec.release()
		}
	case s.shares.unsent.Try(party, n):
		defer s.shares.unsent.Give(party, n)
		if rec.party != "" {
			rec.release()
		}
	case rec.party == "":
		return true
	}
	if rec.leave == nil && rec.party == "" && !s.shares.strangers.Try(rec.address, 1) {
		return true
	} else if rec.leave == nil && rec.party == "" {
		defer s.shares.strangers.Give(rec.address, 1)
	}
	if h := o.Header(); h.Get("Content-Length") == "" && o.status != http.StatusNoContent && o.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.FormatInt(n, 10))
	}
	rc := http.NewResponseController(o.ResponseWriter)
	end := time.Now().Add(writeTimeout)
	deadline := func() {
		at := time.Now().Add(sendTimeout)
		if at.After(end) {
			at = end
		}
		_ = rc.SetWriteDeadline(at)
	}
	deadline()
	o.ResponseWriter.WriteHeader(o.status)
	rec.bytes = 0
	for rest := o.body; len(rest) > 0; {
		deadline()
		m, err := o.ResponseWriter.Write(rest[:min(len(rest), sendChunk)])
		rec.bytes += int64(m)
		if errors.Is(err, http.ErrBodyNotAllowed) { // HEAD
			return false
		}
		if err != nil {
			return true
		}
		rest = rest[m:]
	}
	return false
}
