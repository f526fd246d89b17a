package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

// credentials are the ways in, for WWW-Authenticate.
const credentials = "Keystone, SDK-HMAC-SHA256"

// retryAfter is how many seconds a client should wait after a 503.
const retryAfter = 1

// writeError answers with err. It is the only function that writes an error. What
// nobody classified is a 500 with a fixed text; the log has the cause, under the
// request's id.
func (s *server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	fault, status := s.classify(err)
	rec := recorderOf(w)
	if rec != nil {
		rec.code = fault.Code
	}
	if rec != nil && rec.face == faceGlance {
		if own := glanceStatus(fault); own != 0 {
			status = own
		}
	}
	level := slog.LevelError
	if status < http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	id := slog.String("request_id", w.Header().Get(requestIDHeader))
	if rec != nil && rec.wrote() {
		// Half an answer is out, under another status. Only a broken connection tells
		// the client so.
		s.log.LogAttrs(r.Context(), level, "answer broken off", id, slog.String("error", err.Error()))
		panic(http.ErrAbortHandler)
	}
	if level == slog.LevelError {
		s.log.LogAttrs(r.Context(), level, "request failed", id, slog.Int("status", status), slog.String("error", err.Error()))
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", credentials)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	var body wire.Error
	body.Error.Code, body.Error.Message, body.Error.Details = string(fault.Code), fault.Code.Message(), fault.Detail
	if belowImage(r.URL) {
		body.Error.Message = fault.Reason() // OpenStack's clients print the message alone
	}
	writeJSON(w, status, body)
}

// classify turns any error into what the client is told, and the status of the answer.
func (s *server) classify(err error) (*ims.Error, int) {
	e := s.fault(err)
	if own, ok := errors.AsType[*statusFault](err); ok && own.fault == e {
		return e, own.status
	}
	return e, keystone.Status(e.Kind())
}

// fault turns any error into one that the client may read.
func (s *server) fault(err error) *ims.Error {
	if e, ok := errors.AsType[*ims.Error](err); ok && e.Code.Known() {
		return e
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return ims.Faultf(ims.CodeBadFormat, "the body is longer than %d bytes", MaxBody)
	}
	switch {
	case errors.Is(err, admit.ErrBusy):
		return unavailable("too many requests are waiting; retry later")
	case s.unavailable(err):
		return unavailable("the database can't work now: it does not answer, or its disk is full, which the service's log tells; nothing was changed, try again")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("the request took too long and was given up; try again")
	}
	return (&ims.Error{Code: ims.CodeInternal}).WithKind(ims.KindInternal)
}

// unavailable is the fault of a moment: the same request may succeed a little later.
func unavailable(detail string) *ims.Error {
	return ims.Faultf(ims.CodeInternal, "%s", detail).WithKind(ims.KindUnavailable)
}

// unsupported is the fault of a path or method that no route has.
func unsupported(status int, format string, args ...any) error {
	return &statusFault{ims.Faultf(ims.CodeUnsupported, format, args...), status}
}

// statusFault is a fault with a status of HTTP that no kind stands for: of a method, a
// range, a condition.
type statusFault struct {
	fault  *ims.Error
	status int
}

func (e *statusFault) Error() string { return e.fault.Error() }
func (e *statusFault) Unwrap() error { return e.fault }

// writeJSON answers with v, whole or not at all: it is encoded before the first
// byte goes out.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // a wire type that can't be encoded; recovered into a 500
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	w.Write(buf.Bytes()) // an error means that the client has gone
}
