package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/open"
)

// inputFlags are those of the commands that read a disk file of any format.
type inputFlags struct {
	Format       string `short:"f" name:"format" placeholder:"FORMAT" help:"Format of the file, instead of what its content says: raw, qcow2, vmdk, vhd, vhdx, vdi, qcow, qed, zvhd or zvhd2."`
	AllowBacking bool   `name:"allow-backing" help:"Open the backing and data files that a qcow2 file names. Only for files that you trust: it may name any file of yours."`
}

// diskFile is a disk file of any format that is read, opened as a disk.
type diskFile struct {
	*source
	*open.Disk
	files *besideFiles
}

// Close closes the file and those beside it.
func (d *diskFile) Close() {
	d.files.close()
	d.source.Close()
}

// unchanged fails when one of the files was written to since it was opened.
func (d *diskFile) unchanged() error {
	for _, src := range append([]*source{d.source}, d.files.opened...) {
		if err := src.unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// differs fails when path is one of the files.
func (d *diskFile) differs(path string) error {
	for _, src := range append([]*source{d.source}, d.files.opened...) {
		if err := src.differs(path); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt reads the disk, not the file.
func (d *diskFile) ReadAt(p []byte, off int64) (int, error) { return d.Disk.ReadAt(p, off) }

// openDisk opens a disk file. A format that is told from others but not read is an
// error that says what to do.
func (in inputFlags) openDisk(path string) (*diskFile, error) {
	var format diskformat.Format
	if in.Format != "" {
		var err error
		if format, err = open.ParseFormat(in.Format); err != nil {
			return nil, usagef("-f %v", err)
		}
	}
	src, err := openFile(path)
	if err != nil {
		return nil, err
	}
	d := &diskFile{source: src, files: &besideFiles{allow: in.AllowBacking, top: src}}
	if err := d.open(format); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *diskFile) open(format diskformat.Format) (err error) {
	if d.size == 0 {
		return fmt.Errorf("read %s: the file is empty; a disk file is wanted", d.path)
	}
	// Also for what the content says, for those that ask the source.
	d.source.format = format
	if format == "" {
		if d.source.format, err = diskformat.Detect(d.File, d.size); err != nil {
			return fmt.Errorf("read %s: %w", d.path, err)
		}
		if !slices.Contains(open.Formats, d.source.format) {
			return d.otherFormat()
		}
	}
	if d.Disk, err = open.Open(d.files.source(d.source), format); err != nil {
		return fmt.Errorf("read %s: %w", d.path, err)
	}
	return nil
}

// besideFiles opens the files that a disk file names, and holds them.
type besideFiles struct {
	allow  bool // backing and data files
	top    *source
	opened []*source
}

func (b *besideFiles) close() {
	for _, src := range b.opened {
		src.Close()
	}
}

// source is an open file, with what may be opened beside it.
func (b *besideFiles) source(src *source) open.Source {
	return open.Source{ReaderAt: src.File, Size: src.size, Beside: func(role open.Role, name string) (open.Source, error) {
		beside, err := b.open(src, role, name)
		if err != nil {
			return open.Source{}, err
		}
		return b.source(beside), nil
	}}
}

// protocol is how QEMU begins names that are no paths: "json:", "nbd:", "https:".
var protocol = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

func (b *besideFiles) open(from *source, role open.Role, name string) (*source, error) {
	refuse := func(format string, args ...any) error {
		return &kindError{diskformat.ErrUnsupported, fmt.Sprintf("%s names the file %q: ", from.path, name) + fmt.Sprintf(format, args...)}
	}
	dir := filepath.Dir(from.path)
	var beside *source
	var err error
	switch {
	case role == open.Extent:
		beside, err = openIn(dir, name)
	case !b.allow:
		return nil, refuse("it is not opened just because of that; if you trust both, --allow-backing opens it")
	case name == "" || strings.ContainsRune(name, 0) || protocol.MatchString(name):
		return nil, refuse("only a path of a file is opened")
	default:
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if beside, err = openFile(path); err == nil && !beside.info.Mode().IsRegular() {
			beside.Close()
			return nil, refuse("it is no regular file")
		}
	}
	if err != nil {
		return nil, err
	}
	for _, other := range append([]*source{b.top}, b.opened...) {
		// The parts of a disk of many files may lie in one, its layers may not.
		if os.SameFile(other.info, beside.info) && role != open.Extent {
			beside.Close()
			return nil, refuse("it is among the files that led there")
		}
	}
	if len(b.opened) >= maxBeside {
		beside.Close()
		return nil, refuse("a disk lies in at most %d files", maxBeside)
	}
	b.opened = append(b.opened, beside)
	return beside, nil
}

// maxBeside bounds how many files a disk file may have opened.
const maxBeside = 256

// openIn opens a regular file of a folder, and none elsewhere, whatever links lie
// there.
func openIn(dir, name string) (*source, error) {
	path := filepath.Join(dir, name)
	fail := func(err error) error { return fmt.Errorf("read %s: %w", path, plain(err)) }
	if name != filepath.Base(name) || name == "." || name == ".." {
		return nil, fail(errors.New("the name leads out of the folder"))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail(err)
	}
	defer root.Close()
	// A look before the opening: opening a named pipe would wait for its writer.
	info, err := root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is no regular file: %w", fs.ErrInvalid)
	}
	if err != nil {
		return nil, fail(err)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fail(err)
	}
	src := &source{File: f, path: path}
	if err := src.measure(); err != nil {
		f.Close()
		return nil, fail(err)
	}
	return src, nil
}
