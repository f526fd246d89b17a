package s3face

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/backend/meta"
	"golang.org/x/sys/unix"
)

// The attributes of versitygw's back end that have a meaning here.
const etagAttribute = "etag"

// sidecarFolder, in MetaDir, holds metadata where files have no extended
// attributes.
const sidecarFolder = "sidecar"

// metadata keeps what S3 knows of an object besides its bytes: in extended
// attributes of its file, or else in files of a folder of our own.
//
// It also decides about ETags. One that an upload left counts as long as the
// file is as the upload left it; a file that was written to since, or that came
// by other means than S3, has an ETag made of what the file system says of it.
type metadata struct{ meta.MetadataStorer }

func newMetadata(cfg Config) (metadata, error) {
	if (meta.XattrMeta{}).Test(cfg.BucketsDir) == nil && !cfg.noXattr {
		return metadata{meta.XattrMeta{}}, nil
	}
	dir := filepath.Join(cfg.MetaDir, sidecarFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return metadata{}, err
	}
	s, err := meta.NewSideCar(dir)
	return metadata{s}, err
}

// stamp says in which state a file was when its ETag was stored.
func stamp(st unix.Stat_t) string { return fmt.Sprintf("%x-%x", st.Size, st.Mtim.Nano()) }

// stampMark stands between an ETag and its stamp. No ETag holds it.
const stampMark = "\x00"

func fileState(f *os.File, bucket, object string) (st unix.Stat_t, err error) {
	if f != nil {
		err = unix.Fstat(int(f.Fd()), &st)
	} else {
		err = unix.Lstat(filepath.Join(bucket, object), &st)
	}
	if err != nil {
		err = &fs.PathError{Op: "stat", Path: object, Err: err}
	}
	return st, err
}

// StoreAttribute implements meta.MetadataStorer.
func (m metadata) StoreAttribute(f *os.File, bucket, object, attribute string, value []byte) error {
	if attribute == etagAttribute {
		st, err := fileState(f, bucket, object)
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			value = append(append(bytes.Clone(value), stampMark...), stamp(st)...)
		}
	}
	return m.MetadataStorer.StoreAttribute(f, bucket, object, attribute, value)
}

// RetrieveAttribute implements meta.MetadataStorer.
func (m metadata) RetrieveAttribute(f *os.File, bucket, object, attribute string) ([]byte, error) {
	if attribute != etagAttribute {
		return m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	}
	st, err := fileState(f, bucket, object)
	if err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR: // an object only if S3 made it, with an ETag
		return m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	case unix.S_IFREG:
	default:
		return nil, fs.ErrNotExist // a link, a pipe, a device: no object
	}
	stored, err := m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	if etag, at, ok := bytes.Cut(stored, []byte(stampMark)); err == nil && ok && string(at) == stamp(st) {
		return etag, nil
	}
	// Not 32 hex digits: no client takes it for an MD5 sum.
	return fmt.Appendf(nil, `"%x-%s"`, st.Ino, stamp(st)), nil
}
