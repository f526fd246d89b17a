package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/quickims/quickims/internal/diskformat/bitmap"
)

// mfFile is the bitmap file beside a RAW file, with what it says.
type mfFile struct {
	*source
	*bitmap.Map
}

// bitmapPaths are where the service looks for the bitmap of a RAW file, in its order:
// the .mf, and a block map under the names that bmaptool gives it.
func bitmapPaths(raw string) []string {
	mf := mfPath(raw)
	return []string{mf, strings.TrimSuffix(mf, ".mf") + ".bmap", raw + ".bmap"}
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
		return nil, fmt.Errorf("read %s: %w; \"quickims mf --force %s\" makes one anew, which comes first", f.path, err, raw.path)
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
