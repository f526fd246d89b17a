package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Held is one generation of an object that is kept open for many small reads. It may be
// used by many goroutines at once.
type Held interface {
	// ReadAt fills p from off, under the promises of Store.Open: all of it, of that
	// generation, or an error. An object that was removed meanwhile is ErrNotFound.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// ReadReady fills the parts of v, one after the other, from off on with as much as is
	// in the machine's memory already, under the same promises and without waiting for a
	// disk, and returns how much that is: 0 if nothing is, if that can't be told, or if
	// reading fails. What lies behind it in v is unspecified.
	ReadReady(v [][]byte, off int64) int
	// Close lets the object go. Reads under way may fail.
	Close() error
}

// Holder is a Store in which holding an object saves work for each read.
type Holder interface {
	// Hold is like Open, without a range. No Held and no error mean that the store does
	// not offer it after all.
	Hold(ctx context.Context, loc Location, cond Condition) (Held, error)
}

// Hold keeps an object open where the store can; else it returns nil and no error.
func Hold(ctx context.Context, store Store, loc Location, cond Condition) (Held, error) {
	if h, ok := store.(Holder); ok {
		return h.Hold(ctx, loc, cond)
	}
	return nil, nil
}

// Hold implements Holder. What is held keeps its space on the disk when it is removed,
// until it is let go.
func (d *Dir) Hold(ctx context.Context, loc Location, cond Condition) (Held, error) {
	if err := ctx.Err(); err != nil {
		return nil, fail("open", loc, err)
	}
	f, st, err := d.open(loc)
	if err != nil {
		return nil, fail("open", loc, err)
	}
	if loc.Bucket == ImageArea {
		st, err = d.checkPin(f)
	}
	if err == nil {
		err = st.check(loc.Bucket, cond)
	}
	if err != nil {
		f.Close()
		return nil, fail("open", loc, err)
	}
	h := &dirHeld{d: d, loc: loc, f: f}
	h.seen.Store(&st)
	return h, nil
}

// dirHeld is an open file. As with dirBody, bytes leave it only after the file was seen
// to be the same behind the read as before it.
type dirHeld struct {
	d    *Dir
	loc  Location
	f    *os.File
	seen atomic.Pointer[fileState]
	// waits: the file system can't read without waiting.
	waits atomic.Bool
}

func (h *dirHeld) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return fail("read", h.loc, err)
	}
	if err := checkRange(off, int64(len(p))); err != nil {
		return fail("read", h.loc, err)
	}
	seen := h.seen.Load()
	_, err := h.f.ReadAt(p, off)
	if cerr := h.unchanged(seen); cerr != nil {
		clear(p)
		return fail("read", h.loc, cerr)
	}
	switch {
	case errors.Is(err, io.EOF):
		return fail("read", h.loc, io.ErrUnexpectedEOF)
	case err != nil:
		return fail("read", h.loc, classify(err))
	}
	return nil
}

func (h *dirHeld) ReadReady(v [][]byte, off int64) int {
	want := 0
	for _, p := range v {
		want += len(p)
	}
	if h.waits.Load() || want == 0 || checkRange(off, int64(want)) != nil {
		return 0
	}
	seen := h.seen.Load()
	n, err := preadReady(h.f, v, off)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		h.waits.Store(true)
	}
	if n <= 0 || h.unchanged(seen) != nil {
		for _, p := range v {
			clear(p)
		}
		return 0
	}
	return n
}

// preadReady is a pread of what the page cache has (preadv2(2), RWF_NOWAIT).
func preadReady(f *os.File, v [][]byte, off int64) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		n, err = unix.Preadv2(int(fd), v, off, unix.RWF_NOWAIT)
	})
	return n, errors.Join(err, cerr)
}

func (h *dirHeld) unchanged(seen *fileState) error {
	now, err := stateOf(h.f)
	switch {
	case err != nil:
		return classify(err)
	case now.nlink == 0:
		return fmt.Errorf("%w: it was removed while it was held open", ErrNotFound)
	case now.ctime == seen.ctime && now.sameBytes(*seen):
		return nil
	}
	next, err := h.d.still(h.f, h.loc, *seen, now)
	if err == nil {
		h.seen.CompareAndSwap(seen, &next)
	}
	return err
}

func (h *dirHeld) Close() error { return h.f.Close() }
