package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Object is what is known of an object. Its Record's ETag is in force: the one
// that the upload left, or one made of the file's state. Of a file that was
// written to since its upload, the record has neither checksum nor parts.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time
	Record
}

func (b *Bucket) object(key string, st unix.Stat_t, r Record) *Object {
	if !r.intact(st) {
		r.ETag = r.etag(st)
		r.Checksum, r.Parts, r.Upload = nil, Parts{}, ""
	}
	return &Object{Key: key, Size: st.Size, ModTime: modTime(st), Record: r}
}

// Open opens an object for reading; ErrNoObject if there is none. What was
// opened stays as it is when the object is replaced or deleted.
func (b *Bucket) Open(key string) (*os.File, *Object, error) {
	dir, name := splitPath(filePath(key))
	parent, err := openDir(b.dir, dir)
	if absent(err) {
		return nil, nil, ErrNoObject
	}
	if err != nil {
		return nil, nil, err
	}
	defer parent.Close()
	f, st, err := openPlain(parent, name)
	if absent(err) {
		if name == markerName {
			return b.openLegacyMarker(parent, key)
		}
		return nil, nil, ErrNoObject
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := b.record(f, "", key, st)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, b.object(key, st, r), nil
}

// Stat says what an object is; ErrNoObject if there is none.
func (b *Bucket) Stat(key string) (*Object, error) {
	f, o, err := b.Open(key)
	if err == nil {
		f.Close()
	}
	return o, err
}

// statEntry is Stat for a name that a listing found; nil if it is gone.
func (b *Bucket) statEntry(dir *os.File, name, key string) (*Object, error) {
	st, err := statAt(dir, name)
	if absent(err) || err == nil && !isPlain(st) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := b.record(dir, name, key, st)
	if err != nil {
		return nil, err
	}
	return b.object(key, st, r), nil
}

// openLegacyMarker opens the object that an earlier release kept beside a
// directory: attributes of the directory itself. It has no bytes.
func (b *Bucket) openLegacyMarker(dir *os.File, key string) (*os.File, *Object, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, nil, err
	}
	r, err := b.legacyRecord(dir, "", strings.TrimSuffix(key, "/"))
	if err != nil {
		return nil, nil, err
	}
	if r.ETag == "" {
		return nil, nil, ErrNoObject
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	return null, &Object{Key: key, ModTime: modTime(st), Record: r}, nil
}

// Condition looks at the object that is about to be replaced or deleted, nil if
// there is none, and returns an error to prevent that.
type Condition func(*Object) error

// publish gives a file of the bucket's, which lies at from/name, its place as
// an object, durably. condition may be nil. A file that is in the way stays.
func (b *Bucket) publish(f, from *os.File, name, key string, r *Record, condition Condition) (*Object, error) {
	if err := b.writeRecord(f, key, r); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	unlock := b.store.lockKey(b.name, key)
	defer unlock()
	if condition != nil {
		now, err := b.Stat(key)
		if errors.Is(err, ErrNoObject) {
			now, err = nil, nil
		}
		if err == nil {
			err = condition(now)
		}
		if err != nil {
			b.dropNewSidecar(key, f)
			return nil, err
		}
	}
	parent, err := b.place(from, name, key)
	if err != nil {
		b.dropNewSidecar(key, f)
		return nil, err
	}
	err = parent.Sync()
	parent.Close()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	b.store.dropSidecars(b.name, key, &st)
	return b.object(key, st, *r), nil
}

// dropNewSidecar removes the record of a file that was not published, if it has one.
func (b *Bucket) dropNewSidecar(key string, f *os.File) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		dir := b.store.sidecarPath(b.name, key)
		_ = os.Remove(filepath.Join(dir, stamp(st)))
		_ = os.Remove(dir) // if it is empty now
	}
}

// placeTries bounds how often place begins anew because another process removed
// the directory that it had just made. In this process none does: see Store.dirs.
const placeTries = 100

// place renames from/name to a key's path and returns the directory there.
func (b *Bucket) place(from *os.File, name, key string) (*os.File, error) {
	path := filePath(key)
	dir, last := splitPath(path)
	for try := 0; ; try++ {
		b.store.dirs.RLock()
		parent, err := b.placeOnce(from, name, dir, last)
		b.store.dirs.RUnlock()
		switch {
		case err == nil:
			return parent, nil
		case errors.Is(err, unix.ENOENT) && try < placeTries:
			if _, serr := statAt(from, name); serr != nil { // not the target's directory: the bucket was removed
				return nil, ErrNoBucket
			}
			continue
		}
		if conflict := b.conflict(key, path); conflict != nil {
			return nil, conflict
		}
		return nil, err
	}
}

func (b *Bucket) placeOnce(from *os.File, name, dir, last string) (*os.File, error) {
	if _, err := statAt(b.store.root, b.name); err != nil {
		return nil, ErrNoBucket
	}
	parent, err := makeDirs(b.dir, dir)
	if err != nil {
		return nil, err
	}
	st, err := statAt(parent, last)
	switch {
	case err == nil && !isPlain(st):
		err = errNotPlain // rename would replace a link or a pipe
	case err == nil || errors.Is(err, unix.ENOENT):
		err = renameAt(from, name, parent, last)
	}
	if err != nil {
		parent.Close()
		return nil, err
	}
	return parent, nil
}

// CheckPlace says, as a PathError, what on a key's path is in the way of storing
// it; nil if nothing is now.
func (b *Bucket) CheckPlace(key string) error { return b.conflict(key, filePath(key)) }

func (b *Bucket) conflict(key, path string) error {
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		parent, name := splitPath(path[:i])
		dir, err := openDir(b.dir, parent)
		if err != nil {
			return nil
		}
		st, err := statAt(dir, name)
		dir.Close()
		switch last := i == len(path); {
		case err != nil:
			return nil
		case isDir(st) && last:
			return &PathError{Key: key, At: path[:i], Dir: true}
		case isPlain(st) && !last:
			return &PathError{Key: key, At: path[:i]}
		case !isDir(st) && !isPlain(st):
			return &PathError{Key: key, At: path[:i], Strange: true}
		}
	}
	return nil
}

// Delete removes an object, and the directories that are empty then. It returns
// ErrNoObject if there is none. condition may be nil.
func (b *Bucket) Delete(key string, condition Condition) error {
	unlock := b.store.lockKey(b.name, key)
	defer unlock()
	if condition != nil {
		now, err := b.Stat(key)
		if errors.Is(err, ErrNoObject) {
			now, err = nil, nil
		}
		if err == nil {
			err = condition(now)
		}
		if err != nil {
			return err
		}
	}
	path := filePath(key)
	dir, name := splitPath(path)
	parent, err := openDir(b.dir, dir)
	if absent(err) {
		return ErrNoObject
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	st, err := statAt(parent, name)
	switch {
	case (absent(err) || err == nil && !isPlain(st)) && name == markerName:
		if err := b.deleteLegacyMarker(parent, key); err != nil {
			return err
		}
	case absent(err) || err == nil && !isPlain(st):
		return ErrNoObject
	case err != nil:
		return err
	default:
		if err := unlinkAt(parent, name, 0); err != nil {
			if errors.Is(err, unix.ENOENT) {
				return ErrNoObject
			}
			return err
		}
	}
	b.store.dropSidecars(b.name, key, nil)
	if err := parent.Sync(); err != nil {
		return err
	}
	b.prune(dir)
	return nil
}

func (b *Bucket) deleteLegacyMarker(dir *os.File, key string) error {
	f, _, err := b.openLegacyMarker(dir, key)
	if err != nil {
		return err
	}
	f.Close()
	if !b.store.attributes {
		return b.store.dropLegacyMarker(b.name, strings.TrimSuffix(key, "/"))
	}
	err = unix.Fremovexattr(int(dir.Fd()), legacyETag)
	if errors.Is(err, unix.ENODATA) {
		return ErrNoObject
	}
	return err
}

// prune removes a directory and those above it, as far as they are empty. What
// cannot be removed stays: an empty directory does no harm.
func (b *Bucket) prune(dir string) {
	if dir == "" {
		return
	}
	b.store.dirs.Lock()
	defer b.store.dirs.Unlock()
	for dir != "" {
		above, name := splitPath(dir)
		parent, err := openDir(b.dir, above)
		if err != nil {
			return
		}
		if d, derr := openDir(parent, name); derr == nil {
			raw, _ := getAttr(d, "", legacyETag)
			d.Close()
			if raw != nil { // an earlier release's object
				parent.Close()
				return
			}
		}
		err = unlinkAt(parent, name, unix.AT_REMOVEDIR)
		parent.Close()
		if err != nil {
			return
		}
		dir = above
	}
}
