package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
)

// MfCmd makes the bitmap of a RAW file.
type MfCmd struct {
	Format string `short:"f" name:"format" placeholder:"raw" help:"raw: IN is a RAW disk, whatever its content looks like."`
	In     string `arg:"" name:"in" help:"RAW file."`
	Out    string `arg:"" optional:"" name:"out" help:"File to write. Default: IN with the ending .mf in place of its own."`
	Force  bool   `help:"Replace OUT if it is there."`
}

// Help shows the command's use.
func (MfCmd) Help() string {
	return `The file says which blocks of the disk hold data and what their checksums are. A quick import of a RAW file wants it in the same bucket under the same base name; "quickims import" makes it by itself.

Examples:

    quickims mf disk.raw
    quickims mf disk.raw /srv/upload/disk.mf
`
}

type mfDoc struct {
	Input      string  `json:"input"`
	Output     string  `json:"output"`
	Size       int64   `json:"size"`       // of the bitmap, bytes
	DiskSize   int64   `json:"disk_size"`  // bytes
	BlockSize  int64   `json:"block_size"` // bytes
	Blocks     int64   `json:"blocks"`
	DataBlocks int64   `json:"data_blocks"`
	Seconds    float64 `json:"seconds"`
}

// Run makes it.
func (c *MfCmd) Run(ctx context.Context, s *session) error {
	began := s.now()
	if f := diskformat.Format(strings.ToLower(c.Format)); f != "" && f != diskformat.Raw {
		return usagef("-f %s: a bitmap belongs to a RAW file alone", c.Format)
	}
	src, err := openRaw(c.In, c.Format != "")
	if err != nil {
		return err
	}
	defer src.Close()
	path := c.Out
	if path == "" {
		if !src.info.Mode().IsRegular() {
			return usagef("OUT is wanted: %s is a device, and beside it is no place for files", c.In)
		}
		path = mfPath(c.In)
	}
	if err := src.differs(path); err != nil {
		return err
	}
	out, err := newOutput(path, c.Force)
	if err != nil {
		return err
	}
	defer out.cancel()
	m, err := s.buildMap(ctx, src)
	if err != nil {
		return err
	}
	n, err := m.WriteTo(out)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := out.commit(); err != nil {
		return err
	}
	doc := mfDoc{c.In, path, n, src.size, bitmap.BlockSize, m.Blocks(), m.DataBlocks(), s.now().Sub(began).Seconds()}
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s (raw, %s) -> %s (%s): %d of %d blocks hold data, %s\n",
			c.In, size(src.size), path, size(n), doc.DataBlocks, doc.Blocks, seconds(doc.Seconds))
	})
}

// openRaw opens a RAW file. forced: it is one whatever its content looks like.
func openRaw(path string, forced bool) (*source, error) {
	var src *source
	var err error
	if forced {
		if src, err = openFile(path); err == nil {
			src.format = diskformat.Raw
		}
	} else {
		src, err = openSource(path)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case src.format == diskformat.ZVHD2:
		err = &kindError{diskformat.ErrWrongFormat, path + " is ZVHD2, which carries its own map: it needs no .mf"}
	case src.format != diskformat.Raw:
		err = src.otherFormat()
	default:
		err = src.wholeSectors()
	}
	if err != nil {
		src.Close()
		return nil, err
	}
	return src, nil
}

// buildMap reads a RAW file and makes its map.
func (s *session) buildMap(ctx context.Context, src *source) (*bitmap.Built, error) {
	m := s.bytesMeter("bitmap", src.size)
	made, err := bitmap.Build(ctx, src.File, src.size, bitmap.Options{Progress: m.progress})
	m.close(err)
	if err != nil {
		return nil, fmt.Errorf("make the bitmap of %s: %w", src.path, interrupted(ctx, err))
	}
	return made, src.unchanged()
}
