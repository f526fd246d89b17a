package api

import (
	"net/http"

	"github.com/quickims/quickims/internal/ims"
)

// recorder notes what was answered, for the log and the metrics.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	// What the handlers learn on the way.
	code   ims.Code
	caller ims.Principal
	// login is the user's name or id in a request for a token, as it was sent.
	login string
	face  face
}

// NoteCaller implements keystone.Noter.
func (r *recorder) NoteCaller(p ims.Principal) { r.caller = p }

// NoteLogin implements keystone.Noter.
func (r *recorder) NoteLogin(user string) { r.login = user }

// WriteHeader notes the first final status. Interim ones (1xx) pass through.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

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
