package files

import (
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// keepUploads is how long a multipart upload is kept that nothing is added to.
const keepUploads = 7 * 24 * time.Hour

// lockDir and lockFile are the file, beside the buckets, of which each process
// that serves them holds a shared lock. Earlier releases use the same. keysFile is
// another one there, of whose bytes a process locks the one of an object that it changes:
// some network file systems keep both sorts of locks in one place.
const (
	lockDir  = ".vgwlocks"
	lockFile = "serving"
	keysFile = "keys"
)

// legacyStateDir is where earlier releases kept what was in progress.
const legacyStateDir = objectstore.LegacyUploadsFolder

// enter says that this process serves the buckets, until serving is closed, and
// sweeps them first unless another does: what is in progress there looks like
// what a killed process left.
func (s *Store) enter(now time.Time) error {
	if err := mkdirAt(s.root, lockDir); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	f, err := openAt(s.root, lockDir+"/"+lockFile, unix.O_RDWR|unix.O_CREAT, fileMode)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		s.sweep(now)
	} else {
		s.log.Info("skipping clean-up of uploads: buckets in use or no file locks", "error", err)
	}
	// Waits for another's sweep at most. Where there are no locks, nobody sweeps.
	_ = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH) })
	s.serving = f
	return nil
}

// sweep removes what uploads left that did not end, most often because the
// process was killed. It knows what it removes by its name and its place. What
// cannot be removed is logged: it does no harm.
func (s *Store) sweep(now time.Time) {
	names, err := s.Buckets()
	if err != nil {
		s.log.Warn("clean-up of uploads cannot list the buckets", "error", err)
		return
	}
	w := sweeper{s, now.Add(-keepUploads)}
	for _, name := range names {
		b, err := s.Bucket(name)
		if err != nil {
			continue
		}
		w.bucket(b)
		w.legacy(b)
		b.Close()
	}
}

type sweeper struct {
	s      *Store
	before time.Time // uploads older than that go
}

// list lists a directory; nil if there is none.
func (w *sweeper) list(b *Bucket, path string) (*os.File, []string) {
	dir, err := openDir(b.dir, path)
	if err != nil {
		return nil, nil
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		w.s.log.Warn("clean-up of uploads cannot list a directory", "bucket", b.name, "path", path, "error", err)
	}
	return dir, names
}

func (w *sweeper) remove(b *Bucket, dir *os.File, path, name string) {
	if err := removeTree(dir, name); err != nil {
		w.s.log.Warn("clean-up of uploads cannot remove leftovers", "bucket", b.name, "path", path+"/"+name, "error", err)
		return
	}
	w.s.log.Info("removed what an upload left", "bucket", b.name, "path", path+"/"+name)
}

// temps removes the temporary files of a directory, but those that keep names.
func (w *sweeper) temps(b *Bucket, path string, keep map[string]bool) {
	dir, names := w.list(b, path)
	if dir == nil {
		return
	}
	defer dir.Close()
	for _, name := range names {
		if st, err := statAt(dir, name); err == nil && isPlain(st) && isTempName(name) && !keep[name] {
			w.remove(b, dir, path, name)
		}
	}
}

func (w *sweeper) bucket(b *Bucket) {
	w.temps(b, tempDir, nil)
	dir, names := w.list(b, uploadsDir)
	if dir == nil {
		return
	}
	defer dir.Close()
	for _, name := range names {
		if !IsUploadID(name) {
			continue
		}
		path := uploadsDir + "/" + name
		u, err := b.openUpload(name)
		switch {
		case errors.Is(err, ErrNoUpload): // it was being made or removed
			w.remove(b, dir, uploadsDir, name)
			continue
		case err != nil:
			w.s.log.Warn("an upload cannot be read", "bucket", b.name, "path", path, "error", err)
			continue
		case !w.touched(u):
			w.remove(b, dir, uploadsDir, name)
		default:
			keep := map[string]bool{}
			parts, err := u.Parts()
			for _, p := range parts {
				keep[p.File] = true
			}
			if err == nil {
				w.temps(b, path+"/files", keep)
				w.temps(b, path+"/parts", nil)
				w.temps(b, path, nil)
			}
		}
		u.Close()
	}
}

// touched reports whether something was added to an upload lately.
func (w *sweeper) touched(u *Upload) bool {
	if u.Info.Created.After(w.before) {
		return true
	}
	for _, name := range []string{"parts", "files", "data"} {
		if st, err := statAt(u.dir, name); err != nil || modTime(st).After(w.before) {
			return true
		}
	}
	return false
}

// legacy removes what earlier releases had in progress: single uploads, and
// uploads in parts that nothing was added to for keepUploads. This release
// cannot go on with them.
func (w *sweeper) legacy(b *Bucket) {
	files := func(path string) {
		dir, names := w.list(b, path)
		if dir == nil {
			return
		}
		defer dir.Close()
		for _, name := range names {
			hash, _, ok := strings.Cut(name, ".")
			if st, err := statAt(dir, name); ok && isHash(hash) && err == nil && isPlain(st) {
				w.remove(b, dir, path, name)
			}
		}
	}
	files(legacyStateDir)
	const uploads = legacyStateDir + "/multipart"
	top, objects := w.list(b, uploads)
	if top == nil {
		return
	}
	defer top.Close()
	for _, object := range objects {
		if !isHash(object) {
			continue
		}
		path := uploads + "/" + object
		files(path)
		dir, names := w.list(b, path)
		if dir == nil {
			continue
		}
		for _, name := range names {
			id, _, _ := strings.Cut(name, ".")
			if isLegacyID(id) && w.oldLegacy(b, path+"/"+name) {
				w.remove(b, dir, path, name)
			}
		}
		dir.Close()
		_ = unlinkAt(top, object, unix.AT_REMOVEDIR) // if it is empty
	}
}

// oldLegacy reports whether an earlier release's upload was not touched lately.
func (w *sweeper) oldLegacy(b *Bucket, path string) bool {
	dir, names := w.list(b, path)
	if dir == nil {
		return false
	}
	defer dir.Close()
	for _, name := range append(names, ".") {
		if st, err := statAt(dir, name); err != nil || modTime(st).After(w.before) {
			return false
		}
	}
	return true
}

// isHash reports whether s has the form of a SHA-256 sum.
func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return len(s) == 64 && err == nil
}

// isLegacyID reports whether s has the form of a UUID.
func isLegacyID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdef-") == "" && strings.Count(s, "-") == 4
}
