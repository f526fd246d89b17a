package files

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Records that are not kept with their file lie in the store's metadata
// directory, in records/BUCKET/HASH-OF-KEY/STAMP. The stamp is the state of the
// file that the record belongs to, so that the record of a new file can be
// there before the file takes the old one's place; the old one's is removed
// afterwards, and is harmless if it is not.

const sidecarDir = "records"

func (s *Store) sidecarPath(bucket, key string) string {
	return filepath.Join(s.meta, sidecarDir, bucket, fmt.Sprintf("%x", sha256.Sum256([]byte(key))))
}

func (s *Store) readSidecar(bucket, key string, st unix.Stat_t) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(s.sidecarPath(bucket, key), stamp(st)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

func (s *Store) writeSidecar(bucket, key string, st unix.Stat_t, raw []byte) error {
	dir := s.sidecarPath(bucket, key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, stamp(st)))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// dropSidecars removes the records of a key but the one of the state keep; all
// if keep is nil.
func (s *Store) dropSidecars(bucket, key string, keep *unix.Stat_t) {
	dir := s.sidecarPath(bucket, key)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // most often there is none
	}
	for _, e := range entries {
		if keep == nil || e.Name() != stamp(*keep) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // it stands for no file any more
		}
	}
	_ = os.Remove(dir) // if it is empty now
}

// ForgetBucket removes the records of a bucket that was removed.
func (s *Store) ForgetBucket(bucket string) error {
	return os.RemoveAll(filepath.Join(s.meta, sidecarDir, bucket))
}

// legacySidecar reads an attribute that an earlier release kept where files
// have no extended attributes.
func (s *Store) legacySidecar(bucket, key, attr string) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Join(s.meta, "sidecar"))
	if err != nil {
		return nil, nil
	}
	defer root.Close()
	raw, err := root.ReadFile(filepath.Join(bucket, key, "meta", attr))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	return raw, err
}

// dropLegacyMarker removes the ETag that made a directory an object.
func (s *Store) dropLegacyMarker(bucket, key string) error {
	root, err := os.OpenRoot(filepath.Join(s.meta, "sidecar"))
	if err != nil {
		return ErrNoObject
	}
	defer root.Close()
	return root.Remove(filepath.Join(bucket, key, "meta", "etag"))
}
