package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// source is a disk file that a command reads: a regular file or a block device.
type source struct {
	*os.File
	path   string
	info   fs.FileInfo       // as it was opened
	size   int64             // bytes
	format diskformat.Format // "" before it was looked at
}

// openSource opens a disk file and tells its format by its content.
func openSource(path string) (*source, error) {
	src, err := openFile(path)
	if err != nil {
		return nil, err
	}
	if src.size == 0 {
		src.Close()
		return nil, fmt.Errorf("read %s: the file is empty; a disk file is wanted", path)
	}
	if src.format, err = diskformat.Detect(src, src.size); err != nil {
		src.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return src, nil
}

// openFile opens a file, whatever is in it.
func openFile(path string) (*source, error) {
	// A look before the opening: opening a named pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, plain(err))
	}
	if mode := info.Mode(); !mode.IsRegular() && (mode&fs.ModeDevice == 0 || mode&fs.ModeCharDevice != 0) {
		kind := "no regular file or block device"
		if info.IsDir() {
			kind = "a folder"
		}
		return nil, fmt.Errorf("read %s: it is %s; a file is wanted", path, kind)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, plain(err))
	}
	src := &source{File: f, path: path}
	if err := src.measure(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", path, plain(err))
	}
	return src, nil
}

func (src *source) measure() (err error) {
	if src.info, err = src.Stat(); err != nil {
		return err
	}
	src.size = src.info.Size()
	if !src.info.Mode().IsRegular() {
		src.size, err = src.Seek(0, io.SeekEnd) // a device's size is not in its inode
	}
	return err
}

// plain takes the path out of an error of the file system: it is named already.
func plain(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}

// unchanged fails when the file was written to since it was opened: what was read
// of it may be of two generations.
func (src *source) unchanged() error {
	if !src.info.Mode().IsRegular() {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", src.path, plain(err))
	}
	if info.Size() != src.size || !info.ModTime().Equal(src.info.ModTime()) {
		return fmt.Errorf("read %s: the file was changed meanwhile; try again once nothing writes to it", src.path)
	}
	return nil
}

// differs fails when path is the source itself.
func (src *source) differs(path string) error {
	info, err := os.Stat(path)
	if err == nil && os.SameFile(info, src.info) {
		return fmt.Errorf("%s and %s are the same file; write to another one", src.path, path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, plain(err))
	}
	return nil
}

// wholeSectors fails for a RAW disk of a size that no disk has.
func (src *source) wholeSectors() error {
	if src.format != diskformat.Raw || src.size%diskformat.SectorSize == 0 {
		return nil
	}
	return fmt.Errorf("read %s: a RAW disk consists of whole sectors, but its %d bytes are no multiple of %d; if it was cut off, get it again, else pad it: truncate -s %%%d %s",
		src.path, src.size, diskformat.SectorSize, diskformat.SectorSize, src.path)
}

// stored is how many bytes of the file are not holes.
func (src *source) stored() (n int64, err error) {
	for e, err := range sparse.Data(src.File, src.size) {
		if err != nil {
			return 0, err
		}
		n += e.Length
	}
	return n, nil
}

// otherFormat is the error for a file that must be RAW or ZVHD2 and is neither.
func (src *source) otherFormat() error {
	hint := strings.ReplaceAll(src.format.Advice(), "FILE", src.path)
	switch {
	case slices.Contains(open.Formats, src.format):
		hint = "make it ZVHD2 first: " + src.convertCommand()
	case slices.Contains(qemuFormats, src.format):
		hint = fmt.Sprintf("make it RAW first: qemu-img convert -f %s -O raw %s %s.raw", src.format, src.path, src.base())
	}
	return &kindError{diskformat.ErrWrongFormat, fmt.Sprintf("%s is %s, neither RAW nor ZVHD2; %s", src.path, src.format.Describe(), hint)}
}

// convertCommand is the command line that makes ZVHD2 of the file.
func (src *source) convertCommand() string {
	return fmt.Sprintf("quickims convert %s %s.zvhd2", src.path, src.base())
}

// base is the path without the ending of the name.
func (src *source) base() string {
	base := strings.TrimSuffix(src.path, filepath.Ext(src.path))
	if filepath.Base(base) == "" || strings.HasSuffix(base, string(filepath.Separator)) {
		return src.path
	}
	return base
}

// qemuFormats are those that are not read here but by qemu-img, under the same name.
var qemuFormats = []diskformat.Format{diskformat.Parallels, diskformat.DMG}

// mfPath is where the bitmap of a RAW file is put.
func mfPath(path string) string { return bitmapPaths(path)[0] }
