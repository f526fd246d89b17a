package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
)

// mfFile is the bitmap file beside a RAW file, with what it says.
type mfFile struct {
	*source
	*bitmap.Map
}

// findMf reads the bitmap file beside a RAW file. There being none is
// fs.ErrNotExist.
func findMf(raw *source) (*mfFile, error) {
	path := mfPath(raw.path)
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	m, err := bitmap.Parse(f.File, f.size, raw.size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w; \"quickims mf --force %s\" makes it anew", path, err, raw.path)
	}
	return &mfFile{f, m}, nil
}

// compare reads the RAW file and compares it with its bitmap.
func (s *session) compare(ctx context.Context, raw *source, mf *mfFile) error {
	m := s.bytesMeter("verify", raw.size)
	err := mf.Verify(ctx, raw.File, bitmap.Options{Progress: m.progress})
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
