package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/ims"
)

// mfFile is the bitmap file beside a RAW file, with what it says.
type mfFile struct {
	*source
	*bitmap.Map
}

// bitmapPaths are where the bitmap of a RAW file is looked for: beside it, by the
// service's rule for objects.
func bitmapPaths(raw string) []string {
	dir, base := filepath.Split(raw)
	paths := ims.BitmapKeys(base)
	for i := range paths {
		paths[i] = dir + paths[i]
	}
	return paths
}

// findMf reads the bitmap file beside a RAW file. There being none is
// fs.ErrNotExist.
func findMf(raw *source) (*mfFile, error) {
	var f *source
	var err error
	for _, path := range bitmapPaths(raw.path) {
		if f, err = openFile(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	m, err := bitmap.Parse(f.File, f.size, raw.size)
	if err != nil {
		f.Close()
		if command := raw.mfCommand("--force "); command != "" {
			return nil, fmt.Errorf("read %s: %w (\"%s\" makes it anew)", f.path, err, command)
		}
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return &mfFile{f, m}, nil
}

// mfCommand is the command line that makes the bitmap of a RAW file as it is now, with
// the flags, each with a space after it. "": there is none that would.
func (src *source) mfCommand(flags string) string {
	if !src.info.Mode().IsRegular() || src.wholeSectors() != nil {
		return ""
	}
	if found, err := diskformat.Detect(src.File, src.size); err != nil || found != diskformat.Raw {
		flags += "-f raw " // it was said to be RAW here, too
	}
	return "quickims mf " + flags + src.path
}

// compare reads the RAW file and compares it with its bitmap.
func (s *session) compare(ctx context.Context, raw *source, mf *mfFile) error {
	m := s.bytesMeter("verify", raw.size)
	err := mf.Verify(ctx, raw.File, mf.File, bitmap.Options{Progress: m.progress})
	m.close(err)
	switch {
	case err == nil:
		return raw.unchanged()
	case errors.Is(err, bitmap.ErrUnverifiable):
		return fmt.Errorf("compare %s with %s: %w", raw.path, mf.path, err)
	}
	return fmt.Errorf("compare %s with %s: %w", raw.path, mf.path, interrupted(ctx, err))
}

// noMf reports whether findMf found none.
func noMf(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// mfToSend is the bitmap file of a RAW file: one of the two.
type mfToSend struct {
	found *mfFile       // beside it, compared with the disk
	made  *bitmap.Built // a new one
}

func (m mfToSend) close() {
	if m.found != nil {
		m.found.Close()
	}
}

// mfOf gives the bitmap file of a RAW file: the one beside it, once it was compared
// with the disk, or a new one.
func (s *session) mfOf(ctx context.Context, src *source) (mfToSend, error) {
	mf, err := findMf(src)
	if noMf(err) {
		made, err := s.buildMap(ctx, src)
		return mfToSend{made: made}, err
	}
	if err != nil {
		return mfToSend{}, err
	}
	if mf.Kind() == bitmap.Unknown {
		s.note("%s is uploaded as it is but tells nothing (%s): all of the disk counts as data; \"quickims mf --force %s\" makes one that counts",
			mf.path, mf.Reason(), src.path)
	} else if err := s.compare(ctx, src, mf); err != nil && !errors.Is(err, bitmap.ErrUnverifiable) {
		mf.Close()
		return mfToSend{}, err
	}
	return mfToSend{found: mf}, nil
}

// sendMf uploads the bitmap file of a RAW file.
func (s *session) sendMf(ctx context.Context, store *client.Store, mf mfToSend, to objectName, restart bool) error {
	if mf.found != nil {
		if !restart {
			if there, err := s.there(ctx, store, mf.found.source, to); err != nil || there {
				return err
			}
		}
		_, err := s.upload(ctx, store, mf.found.source, to, restart)
		return err
	}
	if object, ok, err := s.stat(ctx, store, to); err == nil && ok && object.Size == mf.made.Size() {
		if etag, err := client.ETagOf(ctx, mf.made, mf.made.Size(), nil); err == nil && etag == object.ETag {
			return nil // an import of the same file left it, or goes on: it is not written anew under that
		}
	}
	if _, err := store.Put(ctx, to.bucket, to.key, mf.made, mf.made.Size(), nil); err != nil {
		return fmt.Errorf("upload the bitmap to %s: %w", to, interrupted(ctx, err))
	}
	return nil
}
