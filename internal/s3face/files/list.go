package files

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// Found is called for each key of a walk. stat says what the object is; it
// returns nil if the object was deleted meanwhile. What Found returns is a
// prefix whose further keys are passed over, "" for none, and whether to go on.
type Found func(key string, stat func() (*Object, error)) (pass string, more bool, err error)

// Walk calls found for the bucket's keys that begin with prefix and are greater
// than after, in ascending byte order, until found has enough. It holds no more
// than some thousand names of a directory in memory, however many there are.
func (b *Bucket) Walk(ctx context.Context, prefix, after string, found Found) error {
	w := walker{ctx: ctx, b: b, prefix: prefix, after: after, found: found}
	// A walk may begin in the directory that the prefix names: no other has keys
	// of it.
	at := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		at = prefix[:i+1]
		if objectstore.CheckKey(prefix[:i]) != nil || objectstore.ReservedKey(prefix[:i]) {
			return nil // no key begins so
		}
	}
	dir, err := openDir(b.dir, strings.TrimSuffix(at, "/"))
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = w.walk(dir, at)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// namesPage is how many names of a directory are sorted at a time.
const namesPage = 4096

var errEnough = errors.New("enough was found")

type walker struct {
	ctx           context.Context
	b             *Bucket
	prefix, after string
	found         Found
	pass          string
}

func (w *walker) passed(key string) bool { return w.pass != "" && strings.HasPrefix(key, w.pass) }

func (w *walker) emit(key string, stat func() (*Object, error)) error {
	if key <= w.after || !strings.HasPrefix(key, w.prefix) || w.passed(key) {
		return nil
	}
	pass, more, err := w.found(key, stat)
	switch {
	case err != nil:
		return err
	case !more:
		return errEnough
	case pass != "":
		w.pass = pass
	}
	return nil
}

// walk visits a directory whose keys begin with at, which is empty or ends in a
// slash.
func (w *walker) walk(dir *os.File, at string) error {
	if at != "" {
		if err := w.marker(dir, at); err != nil {
			return err
		}
	}
	last := ""
	for {
		names, more, err := w.smallest(dir, at, last)
		if err != nil {
			return err
		}
		for _, name := range names {
			key := at + name
			if w.passed(key) {
				continue
			}
			below, isDir := strings.CutSuffix(name, "/")
			if !isDir {
				err = w.emit(key, func() (*Object, error) { return w.b.statEntry(dir, name, key) })
			} else {
				err = w.enter(dir, below, key)
			}
			if err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		last = names[len(names)-1]
	}
}

func (w *walker) enter(dir *os.File, name, at string) error {
	below, err := openDir(dir, name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer below.Close()
	return w.walk(below, at)
}

// marker visits the object beside a directory, whose key is at.
func (w *walker) marker(dir *os.File, at string) error {
	if at <= w.after || !strings.HasPrefix(at, w.prefix) || w.passed(at) {
		return nil
	}
	st, err := statAt(dir, markerName)
	if err == nil && isPlain(st) {
		return w.emit(at, func() (*Object, error) { return w.b.statEntry(dir, markerName, at) })
	}
	if err != nil && !absent(err) {
		return err
	}
	f, o, err := w.b.openLegacyMarker(dir, at)
	if errors.Is(err, ErrNoObject) {
		return nil
	}
	if err != nil {
		return err
	}
	f.Close()
	return w.emit(at, func() (*Object, error) { return o, nil })
}

// smallest returns, in order, up to namesPage of the smallest names of a
// directory that are greater than last and lead to wanted keys, and whether
// there are more. A directory's name has a slash at its end, which gives the
// order of whole keys.
func (w *walker) smallest(dir *os.File, at, last string) (names []string, more bool, err error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, false, err
	}
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, false, err
		}
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			name := e.Name()
			switch {
			case e.IsDir():
				name += "/"
			case !e.Type().IsRegular():
				continue
			}
			if name > last && w.wanted(at+name) {
				names = append(names, name)
			}
		}
		if len(names) > 2*namesPage {
			slices.Sort(names)
			names, more = names[:namesPage], true
		}
		switch {
		case errors.Is(err, io.EOF):
			slices.Sort(names)
			if len(names) > namesPage {
				names, more = names[:namesPage], true
			}
			return names, more, nil
		case errors.Is(err, unix.ENOENT): // removed meanwhile
			return nil, false, nil
		case err != nil:
			return nil, false, err
		}
	}
}

// wanted reports whether a key, or some key that begins with it if it ends in a
// slash, may be asked for.
func (w *walker) wanted(key string) bool {
	path, isDir := strings.CutSuffix(key, "/")
	if objectstore.ReservedKey(path) || !utf8.ValidString(key) || len(key) > objectstore.MaxKey || w.passed(key) {
		return false
	}
	if !isDir {
		return strings.HasPrefix(key, w.prefix) && key > w.after
	}
	if !strings.HasPrefix(key, w.prefix) && !strings.HasPrefix(w.prefix, key) {
		return false
	}
	return key > w.after || strings.HasPrefix(w.after, key)
}
