package objectstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// ReaderAt reads one generation of an object as an io.ReaderAt. Each ReadAt is
// one conditional ranged Open, so parsers that read little cause little
// traffic, and no two reads can come from different generations. It is safe
// for concurrent use.
type ReaderAt struct {
	ctx   context.Context
	store Store
	loc   Location
	info  ObjectInfo
}

// NewReaderAt returns a ReaderAt of the object that info, from Stat or Adopt,
// describes. ctx bounds all its reads.
func NewReaderAt(ctx context.Context, store Store, loc Location, info ObjectInfo) *ReaderAt {
	return &ReaderAt{ctx: ctx, store: store, loc: loc, info: info}
}

// Size returns the object's size in bytes.
func (r *ReaderAt) Size() int64 { return r.info.Size }

// ReadAt implements io.ReaderAt. At the object's end it returns io.EOF with the
// bytes before it; any other early end is an error that is not io.EOF.
func (r *ReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fail("read", r.loc, checkRange(off, int64(len(p))))
	}
	if off >= r.info.Size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), r.info.Size-off)]
	if len(want) == 0 {
		return 0, nil
	}
	body, err := r.store.Open(r.ctx, r.loc, r.info.Condition(), off, int64(len(want)))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(body, want)
	if cerr := body.Close(); err == nil && cerr != nil {
		err = fail("read", r.loc, cerr)
	}
	if errors.Is(err, io.EOF) { // an empty body where bytes were promised
		err = fail("read", r.loc, io.ErrUnexpectedEOF)
	}
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// exactReader passes on the size bytes that r holds. It fails instead of
// ending when there are fewer (io.ErrUnexpectedEOF) or more (ErrInvalid), and
// then has held back at least the last byte, so that nobody can take what it
// gave for the whole.
type exactReader struct {
	r    *bufio.Reader
	left int64
	size int64
	err  error // what it failed with
}

func newExactReader(r io.Reader, size int64) *exactReader {
	return &exactReader{r: bufio.NewReaderSize(r, 64<<10), left: size, size: size}
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}

func (e *exactReader) read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	if e.left == 0 {
		return 0, e.atEnd()
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		return n, fmt.Errorf("%w: %d bytes came, %d were announced", io.ErrUnexpectedEOF, e.size-e.left, e.size)
	}
	if e.left == 0 {
		if err := e.atEnd(); !errors.Is(err, io.EOF) {
			return 0, err
		}
		return n, nil
	}
	return n, err
}

// atEnd returns io.EOF if nothing follows the announced bytes.
func (e *exactReader) atEnd() error {
	switch _, err := e.r.Peek(1); {
	case err == nil:
		return fmt.Errorf("%w: more than the %d bytes announced", ErrInvalid, e.size)
	default:
		return err
	}
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// fill reads until p is full or r ends, which it tells. Unlike io.ReadFull it mixes up no
// end with an io.ErrUnexpectedEOF of r, which a cut request gives.
func fill(r io.Reader, p []byte) (n int, end bool, err error) {
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// bodyOf reads exactly size bytes of r, or all of them if the size is UnknownSize.
func bodyOf(r io.Reader, size int64) (io.Reader, error) {
	if size == UnknownSize {
		return r, nil
	}
	if err := checkRange(0, size); err != nil {
		return nil, err
	}
	return newExactReader(r, size), nil
}
