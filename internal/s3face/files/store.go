// Package files keeps S3's objects as plain files: a directory for each bucket,
// in it a file for each object, at the path that its key is. Whatever else is
// put there, by cp or rsync, is an object too. It knows neither HTTP nor XML,
// and not whose a bucket is.
//
//   - A Bucket is one open bucket. Its methods take keys that CheckKey accepts.
//   - A key that ends in a slash is an object beside the directory of its name:
//     a file named markerName in that directory.
//   - An object is there at once and whole, or not at all: it is written to a
//     file of its own and renamed. Runs of zeros are stored as holes.
//   - A Record is what S3 knows of an object besides its bytes.
//   - An Upload is a multipart upload in progress; see upload.go.
//   - What is in progress lies in stateDir, at the top of the bucket.
//
// Several processes may serve the same buckets.
package files

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

// Names that are the store's own.
const (
	stateDir   = objectstore.UploadsFolder
	markerName = objectstore.FolderMarker
	tempDir    = stateDir + "/tmp"
	uploadsDir = stateDir + "/uploads"
)

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Errors that callers tell apart.
var (
	ErrNoBucket = errors.New("no such bucket")
	ErrNoObject = errors.New("no such object")
	ErrNoUpload = errors.New("no such upload")
)

// PathError says that a key cannot be stored beside what is there: a file lies
// where the key needs a directory, or a directory where it needs a file.
type PathError struct {
	Key string
	// At is the key that is in the way.
	At string
	// Dir: At is a directory, and not a file.
	Dir bool
	// Strange: At is neither.
	Strange bool
}

// Error implements error.
func (e *PathError) Error() string {
	switch {
	case e.Strange:
		return fmt.Sprintf("store %q: %q is neither a file nor a directory", e.Key, e.At)
	case e.Dir:
		return fmt.Sprintf("store %q: %q is a directory", e.Key, e.At)
	}
	return fmt.Sprintf("store %q: %q is a file, not a directory", e.Key, e.At)
}

// Config says where the store is.
type Config struct {
	// Buckets is the directory of the buckets, Meta one of the store's own for
	// records that are not kept with their file. Both must exist.
	Buckets, Meta string
	Log           *slog.Logger
	// Room is asked before a copy writes n bytes; an error ends the copy. A clone of
	// blocks and a hole take no room. Nil: there is room.
	Room func(n int64) error
	// NoAttributes: act as if files had no extended attributes. For tests.
	NoAttributes bool
}

// Store is all buckets. It is safe for concurrent use.
type Store struct {
	root       *os.File
	meta       string
	attributes bool
	room       func(n int64) error
	log        *slog.Logger
	serving    *os.File // see sweep.go

	keys [256]sync.Mutex // see lockKey
	// dirs is held for reading while a file is renamed into a directory, for
	// writing while empty directories are removed.
	dirs sync.RWMutex
}

// Open opens the store, and removes what killed processes left in it unless
// another process serves it too.
func Open(cfg Config) (*Store, error) {
	fd, err := unix.Open(cfg.Buckets, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: cfg.Buckets, Err: err}
	}
	s := &Store{root: os.NewFile(uintptr(fd), cfg.Buckets), meta: cfg.Meta, log: cfg.Log, room: cfg.Room}
	if s.room == nil {
		s.room = func(int64) error { return nil }
	}
	if fi, err := os.Stat(cfg.Meta); err != nil || !fi.IsDir() {
		s.root.Close()
		return nil, errors.Join(fmt.Errorf("%s is not a directory", cfg.Meta), err)
	}
	_, err = unix.Fgetxattr(fd, recordAttr, nil)
	s.attributes = !errors.Is(err, unix.EOPNOTSUPP) && !cfg.NoAttributes
	if err := s.enter(time.Now()); err != nil {
		s.root.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the store. Buckets that are open stay so.
func (s *Store) Close() error { return errors.Join(s.serving.Close(), s.root.Close()) }

// lockKey locks the change of an object and returns how to unlock it: for this process
// by a mutex, for others that serve the same buckets by a byte of keysFile. Where the
// file system has no such locks, a condition holds against this process alone.
func (s *Store) lockKey(bucket, key string) func() {
	name := fnv.New64a()
	_, _ = name.Write([]byte(bucket + "\x00" + key)) // never fails
	n := name.Sum64()
	m := &s.keys[n%uint64(len(s.keys))]
	m.Lock()
	f, err := openAt(s.root, lockDir+"/"+keysFile, unix.O_RDWR|unix.O_CREAT, fileMode)
	if err == nil {
		err = flock(f, int64(n>>2), unix.F_WRLCK, true)
	}
	if err != nil {
		s.log.Debug("no lock between processes", "bucket", bucket, "error", err)
	}
	return func() {
		if f != nil {
			f.Close()
		}
		m.Unlock()
	}
}

// Bucket is an open bucket.
type Bucket struct {
	store *Store
	name  string
	dir   *os.File
}

// Bucket opens a bucket; ErrNoBucket if there is none. The caller closes it.
func (s *Store) Bucket(name string) (*Bucket, error) {
	dir, err := openDir(s.root, name)
	if absent(err) {
		return nil, ErrNoBucket
	}
	if err != nil {
		return nil, err
	}
	return &Bucket{s, name, dir}, nil
}

// Close closes the bucket.
func (b *Bucket) Close() error { return b.dir.Close() }

// Created is when the bucket's directory was made, or last changed where the
// file system does not keep that.
func (b *Bucket) Created() time.Time {
	var sx unix.Statx_t
	err := unix.Statx(int(b.dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME|unix.STATX_MTIME, &sx)
	switch {
	case err != nil:
		return time.Time{}
	case sx.Mask&unix.STATX_BTIME != 0:
		return time.Unix(sx.Btime.Sec, int64(sx.Btime.Nsec)).UTC()
	}
	return time.Unix(sx.Mtime.Sec, int64(sx.Mtime.Nsec)).UTC()
}

// Buckets lists the names of all buckets in order.
func (s *Store) Buckets() ([]string, error) {
	entries, err := os.ReadDir(procPath(s.root, "."))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && objectstore.CheckBucket(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// filePath is the path of a key's file in its bucket.
func filePath(key string) string {
	if strings.HasSuffix(key, "/") {
		return key + markerName
	}
	return key
}
