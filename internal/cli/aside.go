package cli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// output is a file that is written aside and gets its name once it is whole and on
// the disk. Until commit there is nothing under its name, or what was there before.
type output struct {
	*os.File
	path  string
	force bool
}

// newOutput begins the file path. force lets it replace one; without it a file that
// is there is an error, now or at commit.
func newOutput(path string, force bool) (*output, error) {
	if err := checkOutput(path, force); err != nil {
		return nil, err
	}
	var r [6]byte
	rand.Read(r[:]) // never fails (crypto/rand)
	dir, base := filepath.Split(path)
	aside := filepath.Join(dir, "."+base+"."+hex.EncodeToString(r[:])+".part")
	f, err := os.OpenFile(aside, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, plain(err))
	}
	return &output{File: f, path: path, force: force}, nil
}

func checkOutput(path string, force bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("write %s: %w", path, plain(err))
	case info.IsDir():
		return fmt.Errorf("write %s: it is a folder; name a file in it", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("write %s: it is no regular file; write to a file and copy that", path)
	case !force:
		return existsError(path)
	}
	return nil
}

func existsError(path string) error {
	return fmt.Errorf("write %s: %w; --force replaces it", path, fs.ErrExist)
}

// commit syncs the file and gives it its name.
func (o *output) commit() error {
	if err := o.finish(); err != nil {
		o.cancel()
		return fmt.Errorf("write %s: %w", o.path, plain(err))
	}
	return nil
}

func (o *output) finish() error {
	if err := o.Sync(); err != nil {
		return err
	}
	if err := o.Close(); err != nil {
		return err
	}
	if err := o.name(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(o.path))
}

// name moves the file to its place. Without force it must not replace a file that
// came there meanwhile, which rename would and link does not.
func (o *output) name() error {
	if o.force {
		return os.Rename(o.File.Name(), o.path)
	}
	err := os.Link(o.File.Name(), o.path)
	switch {
	case err == nil:
		return os.Remove(o.File.Name())
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w; --force replaces it", fs.ErrExist)
	}
	// A file system without links.
	if _, err := os.Lstat(o.path); err == nil {
		return fmt.Errorf("%w; --force replaces it", fs.ErrExist)
	}
	return os.Rename(o.File.Name(), o.path)
}

// cancel throws the file away. After commit it does nothing of harm.
func (o *output) cancel() {
	o.Close()
	os.Remove(o.File.Name())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
