package s3face

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/versity/versitygw/backend/posix"
	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// keepUploads is how long a multipart upload is kept that nothing is added to.
const keepUploads = 7 * 24 * time.Hour

// inProgress ends the name of an upload's folder while it is put together. What
// stands before it is the upload's id, a dot and a hash.
const inProgress = ".inprogress"

// servingLock is a file, in the folder that the back end keeps its own locks in,
// that whoever serves the buckets holds a shared lock of.
const servingLock = ".vgwlocks/serving"

// enter says that this process serves the buckets, until the file is closed,
// and sweeps them first unless another does: what is under way there looks like
// what a killed process left.
func enter(root string, store metadata, now time.Time, logger *slog.Logger) (*os.File, error) {
	name := filepath.Join(root, servingLock)
	if err := os.Mkdir(filepath.Dir(name), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = sweep(root, store, now, logger)
	} else {
		logger.Info("What uploads left is not cleared: others serve the buckets, or there are no locks", "error", err)
		err = nil
	}
	if err == nil {
		// Waits for another's sweep at most. Where there are no locks, nobody
		// sweeps.
		for {
			if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); !errors.Is(err, unix.EINTR) {
				return f, nil
			}
		}
	}
	f.Close()
	return nil, err
}

// sweep removes what uploads left in the buckets that did not end, most often
// because the process was killed: files on their way to be objects or parts,
// and multipart uploads untouched for keepUploads. Younger ones can be gone on
// with; one that was being put together can be completed again. It must run
// while nothing is uploaded. What cannot be removed is logged: it does no harm.
func sweep(root string, store metadata, now time.Time, logger *slog.Logger) error {
	dir, err := os.OpenRoot(root) // no link in it leads out
	if err != nil {
		return err
	}
	defer dir.Close()
	s := sweeper{dir, store, now.Add(-keepUploads), logger}
	for _, bucket := range s.folder(".") {
		if bucket.IsDir() && objectstore.CheckBucket(bucket.Name()) == nil {
			s.bucket(bucket.Name())
		}
	}
	return nil
}

type sweeper struct {
	root   *os.Root
	store  metadata
	before time.Time // uploads older than that go
	logger *slog.Logger
}

// folder lists a folder that is no link; nil if there is none.
func (s *sweeper) folder(name string) []fs.DirEntry {
	if fi, err := s.root.Lstat(name); err != nil || !fi.IsDir() {
		return nil
	}
	entries, err := fs.ReadDir(s.root.FS(), name)
	if err != nil {
		s.warn("list", name, err)
	}
	return entries
}

func (s *sweeper) warn(what, name string, err error) {
	s.logger.Warn("Leftovers of uploads could not be cleared", "what", what, "path", name, "error", err)
}

func (s *sweeper) remove(name string) bool {
	if err := s.root.RemoveAll(name); err != nil {
		s.warn("remove", name, err)
		return false
	}
	s.logger.Info("Removed what an upload left", "path", name)
	return true
}

// isHash reports whether s has the form of a SHA-256 sum, which the back end
// names what belongs to an object by.
func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return len(s) == 64 && err == nil
}

// files removes the files of a folder that are on their way: each is called by
// a hash, a dot and a number.
func (s *sweeper) files(folder string) {
	for _, e := range s.folder(folder) {
		if hash, _, ok := strings.Cut(e.Name(), "."); ok && isHash(hash) && e.Type().IsRegular() {
			s.remove(path.Join(folder, e.Name()))
		}
	}
}

func (s *sweeper) bucket(bucket string) {
	s.files(path.Join(bucket, posix.MetaTmpDir))
	for _, object := range s.folder(path.Join(bucket, posix.MetaTmpMultipartDir)) {
		if !object.IsDir() || !isHash(object.Name()) {
			continue
		}
		inBucket := path.Join(posix.MetaTmpMultipartDir, object.Name())
		s.files(path.Join(bucket, inBucket))
		for _, e := range s.folder(path.Join(bucket, inBucket)) {
			if e.IsDir() {
				s.upload(bucket, path.Join(inBucket, e.Name()))
			}
		}
		// If nothing is left; otherwise it says so and stays.
		if s.root.Remove(path.Join(bucket, inBucket)) == nil {
			_ = s.store.DeleteAttributes(bucket, inBucket)
		}
	}
}

// upload takes up one multipart upload's folder.
func (s *sweeper) upload(bucket, upload string) {
	folder, name := path.Join(bucket, upload), path.Base(upload)
	id, _, begun := strings.Cut(name, ".")
	switch {
	case !isUploadID(id), begun && !strings.HasSuffix(name, inProgress):
		return // not ours
	case !s.touched(folder):
		parts := s.folder(folder)
		if s.remove(folder) {
			for _, part := range parts {
				_ = s.store.DeleteAttributes(bucket, path.Join(upload, part.Name()))
			}
			_ = s.store.DeleteAttributes(bucket, upload)
		}
	case begun:
		whole := path.Join(path.Dir(upload), id)
		if _, err := s.root.Lstat(path.Join(bucket, whole)); !errors.Is(err, fs.ErrNotExist) {
			return
		}
		err := s.root.Rename(folder, path.Join(bucket, whole))
		if err == nil {
			err = s.store.RenameObject(bucket, upload, whole)
		}
		if err != nil {
			s.warn("reopen", folder, err)
		}
	}
}

// touched reports whether something was added to an upload lately.
func (s *sweeper) touched(folder string) bool {
	fi, err := s.root.Lstat(folder)
	if err != nil || fi.ModTime().After(s.before) {
		return true
	}
	for _, part := range s.folder(folder) {
		if fi, err := part.Info(); err != nil || fi.ModTime().After(s.before) {
			return true
		}
	}
	return false
}
