package objectstore

import (
	"errors"
	"fmt"
)

// What can be wrong. Every error of a Store is an *Error that wraps at most one
// of these; one that wraps none is a fault nobody classified.
var (
	// ErrNotFound: the bucket is there, the object is not.
	ErrNotFound = errors.New("object not found")
	// ErrNoBucket: no such bucket, or none that may be named.
	ErrNoBucket = errors.New("bucket not found")
	// ErrExists: there is an object where a new one was to be made.
	ErrExists = errors.New("object exists")
	// ErrChanged: the object is not, or is no longer, the generation asked for.
	ErrChanged = errors.New("object changed")
	// ErrDenied: the store does not let the service do this.
	ErrDenied = errors.New("access denied by the store")
	// ErrUnavailable: the store could not answer now; a retry helps.
	ErrUnavailable = errors.New("store unavailable")
	// ErrNoSpace: the store is full, or a quota of it is.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrInvalid: the request itself is wrong, whatever the store holds.
	ErrInvalid = errors.New("invalid request")
)

// Error says what was being done to which object when Err happened.
type Error struct {
	Op       string // "stat bucket", "stat", "open", "read", "adopt", "export", "undo export", "put", "list", "delete", "list uploads", "abort upload", "swap", "load"
	Location Location
	Err      error
}

// Error implements error.
func (e *Error) Error() string {
	where := e.Location.String()
	if e.Location.Bucket == ImageArea {
		where = "image area" + where
	}
	return fmt.Sprintf("%s %s: %v", e.Op, where, e.Err)
}

// Unwrap lets errors.Is and errors.As see the cause.
func (e *Error) Unwrap() error { return e.Err }

// fail wraps err for the caller; nil stays nil, and an error that already says
// what was done to this object is left alone.
func fail(op string, loc Location, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) && known.Op == op && known.Location == loc {
		return err
	}
	return &Error{Op: op, Location: loc, Err: err}
}
