package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/ims"
)

// requestIDHeader carries the id that is in the log too.
const requestIDHeader = "X-Request-Id"

// openStackIDHeader carries the same id for OpenStack's clients, which print it.
const openStackIDHeader = "X-Openstack-Request-Id"

// harmlessID is the form in which a caller's own request id is taken over.
var harmlessID = regexp.MustCompile(`^[0-9A-Za-z._-]{1,64}$`)

func requestID(r *http.Request) string {
	if id := r.Header.Get(requestIDHeader); harmlessID.MatchString(id) {
		return id
	}
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// call is one authenticated request on its way through a handler.
type call struct {
	*http.Request
	w    http.ResponseWriter
	body []byte
	face face
	// principal is the caller; its ProjectID is set where the route needs a project.
	principal ims.Principal
}

func (c *call) project() string { return c.principal.ProjectID }

// ServeHTTP answers one request, logs and counts it.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w, base: w, http2: r.ProtoMajor >= 2}
	id := requestID(r)
	rec.Header().Set(requestIDHeader, id)
	rec.Header().Set(openStackIDHeader, id)
	rec.Header().Set("X-Content-Type-Options", "nosniff")

	found := s.routes.find(r.Method, r.URL)
	pattern := "unmatched"
	if found.pattern != "" {
		pattern = found.pattern
		found.setPathValues(r)
	}
	rec.address = admit.Network(admit.Caller(r))
	rec.unread = r.ContentLength != 0
	var out *outbox
	if found.route == nil || !found.route.Stream {
		out = &outbox{ResponseWriter: w}
		rec.ResponseWriter = out
	}
	s.metrics.running.Inc()
	aborted := s.answer(rec, r, found)
	s.metrics.running.Dec()
	if out != nil && !aborted {
		aborted = s.send(rec, out)
	}
	rec.release()

	took := time.Since(start)
	s.metrics.observe(r.Method, pattern, rec.status, took)
	level := slog.LevelInfo
	if found.route != nil && found.route.Public && !found.route.own && rec.status < http.StatusBadRequest {
		level = slog.LevelDebug // probes come every few seconds
	}
	line := []slog.Attr{
		slog.String("method", ims.Clip(r.Method)), slog.String("route", pattern), slog.Int("status", rec.status),
		slog.Float64("ms", float64(took.Microseconds())/1000), slog.Int64("bytes", rec.bytes),
		slog.String("request_id", rec.Header().Get(requestIDHeader)), slog.String("from", from(r)),
		slog.String("user_id", rec.caller.UserID), slog.String("project", rec.caller.ProjectID), slog.String("code", string(rec.code)),
	}
	if rec.login != "" && rec.status >= http.StatusBadRequest {
		line = append(line, slog.String("login", strconv.Quote(ims.Clip(rec.login))))
	}
	if aborted {
		line = append(line, slog.Bool("aborted", true))
	}
	s.log.LogAttrs(r.Context(), level, "request", line...)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// from is the address of the client, for the log; "" for a connection without addresses.
func from(r *http.Request) string {
	if a := admit.Caller(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// answer runs the route and turns its error, or its panic, into an answer. It
// reports whether the connection must be broken because half an answer is out.
func (s *server) answer(rec *recorder, r *http.Request, found match) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			if aborted = true; !rec.wrote() {
				rec.status = statusClientGone // no handler gives up before its first byte for anything else
			}
			return
		}
		s.log.LogAttrs(r.Context(), slog.LevelError, "panic",
			slog.String("request_id", rec.Header().Get(requestIDHeader)), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		if aborted = rec.wrote(); !aborted {
			s.writeError(rec, r, fmt.Errorf("panic: %v", v))
		}
	}()
	switch {
	case found.pattern == "":
		s.writeError(rec, r, unsupported(http.StatusNotFound, "nothing has this path"))
		return
	case found.route == nil:
		allow := strings.Join(found.allow, ", ")
		rec.Header().Set("Allow", allow)
		s.writeError(rec, r, unsupported(http.StatusMethodNotAllowed, "this path answers %s", allow))
		return
	}
	rec.face = found.route.face
	if err := s.run(rec, r, found.route); err != nil {
		if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			// The caller hung up: nobody reads an answer, and nothing is wrong here.
			if aborted = rec.wrote(); !aborted {
				rec.status = statusClientGone
			}
			return
		}
		s.writeError(rec, r, err)
	}
	return
}

// statusClientGone stands in log and metrics for a caller that hung up.
const statusClientGone = 499

// run takes a request through credentials, right, body and place to its handler.
func (s *server) run(rec *recorder, r *http.Request, route *Route) error {
	if route.Public || route.own {
		return s.runOpen(rec, r, route)
	}
	if !route.Stream {
		ctx, cancel := context.WithTimeout(r.Context(), s.Timeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	if _, err := parseQuery(r); err != nil {
		return err // on every route: none may take half of it
	}
	rec.Header().Set("Cache-Control", "no-store") // X-Auth-Token tells no cache that an answer is one caller's
	body := &requestBody{rec: rec}
	defer body.release()
	c := &call{Request: r, w: rec, face: route.face}
	var err error
	if c.principal, err = s.authenticate(rec, r, body); err != nil {
		return err
	}
	rec.NoteCaller(c.principal)
	admit.Known(r, rec.party)
	if err := route.admit(c); err != nil {
		return err
	}
	if route.Upload {
		return route.handle(s, c)
	}
	if err := body.read(r, s.shares.bodies, rec.party); err != nil {
		return err
	}
	c.body = body.content
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") && len(c.body) > 0 {
		return ims.Faultf(ims.CodeBadFormat, "Content-Encoding is %q, a body must be sent as it is", ims.Clip(e))
	}
	if !route.Stream {
		if rec.leave, err = take(r.Context(), s.shares.places, rec.party); err != nil {
			return err
		}
	}
	return route.handle(s, c)
}
