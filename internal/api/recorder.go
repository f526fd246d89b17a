package api

import (
	"net/http"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// recorder notes what was answered, for the log and the metrics.
type recorder struct {
	http.ResponseWriter
	base   http.ResponseWriter // the server's own
	http2  bool
	status int
	bytes  int64
	// What the handlers learn on the way.
	code   ims.Code
	caller ims.Principal
	// login is the user's name or id in a request for a token, as it was sent.
	login string
	face  face
	// address is where the request came from; party is whose share it uses, "" before
	// the caller is authenticated.
	address, party string
	unread         bool   // the request has a body that was not read
	leave          func() // gives back the place that the request holds; nil: none
}

// NoteCaller implements keystone.Noter.
func (r *recorder) NoteCaller(p ims.Principal) { r.caller, r.party = p, p.Party() }

// NoteLogin implements keystone.Noter.
func (r *recorder) NoteLogin(user string) { r.login = user }

// WriteHeader notes the first final status. Interim ones (1xx) pass through.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
		if r.unread && !r.http2 {
			// The response would else wait for the body. The server reads what has arrived of
			// it behind the response, and closes the connection.
			r.Header().Set("Connection", "close")
			_ = http.NewResponseController(r.base).SetReadDeadline(time.Now().Add(drainTimeout))
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// release gives back the place that the request holds.
func (r *recorder) release() {
	if r.leave != nil {
		r.leave()
		r.leave = nil
	}
}

// wrote reports whether the answer has begun.
func (r *recorder) wrote() bool { return r.status != 0 }

// recorderOf finds the recorder below the wrappers of a handler.
func recorderOf(w http.ResponseWriter) *recorder {
	for {
		switch v := w.(type) {
		case *recorder:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}
