package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func joinKey(parts []string) string { return strings.Join(parts, "/") }

// List implements Store. It holds no more than MaxList names of a folder in
// memory, however many there are.
func (d *Dir) List(ctx context.Context, bucket, prefix, after string, limit int) ([]ListedObject, error) {
	loc := Location{Bucket: bucket, Key: prefix}
	if limit < 1 || limit > MaxList {
		return nil, fail("list", loc, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, limit, MaxList))
	}
	top, done, err := d.area(bucket)
	if err != nil {
		return nil, fail("list", loc, err)
	}
	defer done()
	l := lister{ctx: ctx, bucket: bucket, prefix: prefix, after: after, limit: limit, page: MaxList}
	folder, err := openFolderAt(top, ".")
	if err == nil {
		err = l.walk(folder, "")
		folder.Close()
	}
	if err != nil {
		return nil, fail("list", loc, classify(err))
	}
	return l.found, nil
}

type lister struct {
	ctx                   context.Context
	bucket, prefix, after string
	limit, page           int
	found                 []ListedObject
}

// walk adds the objects of a folder whose keys begin with at, which is empty or
// ends in a slash.
func (l *lister) walk(folder *os.File, at string) error {
	last := ""
	for {
		names, more, err := l.smallest(folder, at, last)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := l.add(folder, at, name); err != nil {
				return err
			}
			if len(l.found) == l.limit {
				return nil
			}
		}
		if !more {
			return nil
		}
		last = names[len(names)-1]
	}
}

// add adds what a name in a folder stands for: an object, or the objects of a
// folder (its name then ends in a slash).
func (l *lister) add(folder *os.File, at, name string) error {
	key := at + name
	if !strings.HasSuffix(name, "/") {
		st, err := statAt(folder, name)
		if isAbsent(err) || err == nil && !st.regular() {
			return nil // gone, or replaced, since the folder was read
		}
		if err != nil {
			return err
		}
		l.found = append(l.found, ListedObject{Key: key, ObjectInfo: st.info(l.bucket)})
		return nil
	}
	below, err := openFolderAt(folder, strings.TrimSuffix(name, "/"))
	if isAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer below.Close()
	return l.walk(below, key)
}

// smallest returns, in order, the up to l.page smallest names of a folder that
// are greater than last and lead to wanted keys, and whether there are more. A
// folder's name has a slash at its end, which gives the order of whole keys.
func (l *lister) smallest(folder *os.File, at, last string) (names []string, more bool, err error) {
	if _, err := folder.Seek(0, io.SeekStart); err != nil {
		return nil, false, err
	}
	for {
		if err := l.ctx.Err(); err != nil {
			return nil, false, err
		}
		entries, err := folder.Readdirnames(l.page)
		for _, name := range entries {
			if name <= last && name+"/" <= last || !l.wanted(at+name) && !l.wanted(at+name+"/") {
				continue // spares the look at the file
			}
			st, serr := statAt(folder, name)
			switch {
			case serr != nil:
				continue // gone since
			case st.mode&unix.S_IFMT == unix.S_IFDIR:
				name += "/"
			case !st.regular():
				continue
			}
			if name > last && l.wanted(at+name) {
				names = append(names, name)
			}
		}
		if len(names) > l.page {
			sort.Strings(names)
			names, more = names[:l.page], true
		}
		if errors.Is(err, io.EOF) {
			sort.Strings(names)
			return names, more, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// wanted reports whether a key, or some key that begins with it if it ends in a
// slash, is to be listed.
func (l *lister) wanted(key string) bool {
	if reservedKey(Location{l.bucket, key}) || !utf8.ValidString(key) || len(key) > MaxKey {
		return false
	}
	if !strings.HasSuffix(key, "/") {
		return strings.HasPrefix(key, l.prefix) && key > l.after
	}
	if !strings.HasPrefix(key, l.prefix) && !strings.HasPrefix(l.prefix, key) {
		return false
	}
	return key > l.after || strings.HasPrefix(l.after, key)
}
