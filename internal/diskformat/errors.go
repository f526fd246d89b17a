package diskformat

import (
	"errors"
	"fmt"
)

// The kinds of faults in a file. Test for them with [errors.Is]; get the field
// and the text with [errors.As] and [*Error]. An error that is none of these
// came from the source (a failed read) or from the caller's context.
var (
	// ErrCorrupt: the bytes contradict the format or their own checksum.
	ErrCorrupt = errors.New("corrupt")
	// ErrIncomplete: the file is the beginning of a valid one, cut off.
	ErrIncomplete = errors.New("incomplete")
	// ErrUnsupported: well formed, but of a version, a size or a kind that is
	// not read or not written here.
	ErrUnsupported = errors.New("unsupported")
	// ErrTooLarge: well formed, but the disk is larger than an image can be. It is an
	// ErrUnsupported, too.
	ErrTooLarge = fmt.Errorf("%w size", ErrUnsupported)
	// ErrWrongFormat: the file is not of the format that the reader was asked
	// to read.
	ErrWrongFormat = errors.New("wrong format")
	// ErrAmbiguous: the file carries the marks of more than one format, so
	// that two readers could see two different disks in it.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrMismatch: the file is sound but belongs to another disk.
	ErrMismatch = errors.New("mismatch")
)

// Error is a fault in a file.
type Error struct {
	// Format is what the file was read as; may be empty.
	Format Format
	// Kind is one of the sentinels above; Unwrap returns it.
	Kind error
	// Field names the part at fault as the format's description does.
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
}

func (e *Error) Error() string {
	s := e.Kind.Error()
	if e.Format != "" {
		s = string(e.Format) + ": " + s
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Problem
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Errorf makes an [*Error] whose Problem is formatted.
func Errorf(f Format, kind error, field, problem string, args ...any) error {
	return &Error{Format: f, Kind: kind, Field: field, Problem: fmt.Sprintf(problem, args...)}
}
