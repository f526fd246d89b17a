package cli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// output is a file that is written aside and gets its name once it is whole and on
// the disk. Until commit there is nothing under its name, or what was there before.
type output struct {
	*os.File
	path   string // as the user named it
	target string // where it goes: path, or what a symbolic link there leads to
	aside  string // the name that it has meanwhile; "": none
	force  bool
}

// newOutput begins the file path. force lets it replace one, whose permissions it
// takes over; without it a file that is there is an error, now or at commit.
func newOutput(path string, force bool) (*output, error) {
	fail := func(err error) (*output, error) { return nil, fmt.Errorf("write %s: %w", path, plain(err)) }
	before, err := checkOutput(path, force)
	if err != nil {
		return nil, err
	}
	o := &output{path: path, force: force}
	if o.target, err = followLinks(path); err != nil {
		return fail(err)
	}
	if o.File = openUnnamed(filepath.Dir(o.target), path); o.File == nil {
		o.aside = o.nameAside()
		if o.File, err = os.OpenFile(o.aside, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
			return fail(err)
		}
	}
	if before != nil {
		if err := o.Chmod(before.Mode().Perm()); err != nil {
			o.cancel()
			return fail(err)
		}
	}
	return o, nil
}

// nameAside draws a name beside the target.
func (o *output) nameAside() string {
	var r [6]byte
	rand.Read(r[:])    // never fails (crypto/rand)
	const longest = 64 // of the file's own name: all together must be a name too
	dir, base := filepath.Split(o.target)
	return filepath.Join(dir, "."+base[:min(len(base), longest)]+"."+hex.EncodeToString(r[:])+".part")
}

// followLinks is where a file is that a symbolic link leads to, also one that is not
// there.
func followLinks(path string) (string, error) {
	const most = 40 // as Linux has it
	for range most {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", syscall.ELOOP
}

// checkOutput looks whether path can be written; info is of the file that will be
// replaced, nil if there is none.
func checkOutput(path string, force bool) (info fs.FileInfo, err error) {
	info, err = os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("write %s: %w", path, plain(err))
	case info.IsDir():
		return nil, fmt.Errorf("write %s: it is a folder; name a file in it", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("write %s: it is no regular file; write to a file and copy that", path)
	case !force:
		return nil, existsError(path)
	}
	return info, nil
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
	if err := o.name(); err != nil {
		return err
	}
	if err := o.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(o.target))
}

// name moves the file to its place. Without force it must not replace a file that
// came there meanwhile, which rename would and link does not.
func (o *output) name() error {
	link := func(to string) error {
		if o.aside == "" {
			return linkUnnamed(o.File, to)
		}
		return os.Link(o.aside, to)
	}
	if !o.force {
		err := link(o.target)
		switch {
		case err == nil && o.aside != "":
			return os.Remove(o.aside)
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return fmt.Errorf("%w; --force replaces it", fs.ErrExist)
		case o.aside == "":
			return err
		}
		// A file system without links.
		if _, err := os.Lstat(o.target); err == nil {
			return fmt.Errorf("%w; --force replaces it", fs.ErrExist)
		}
	}
	if o.aside == "" {
		at := o.nameAside()
		if err := link(at); err != nil {
			return err
		}
		o.aside = at
	}
	return os.Rename(o.aside, o.target)
}

// cancel throws the file away. After commit it does nothing of harm.
func (o *output) cancel() {
	o.Close()
	if o.aside != "" {
		os.Remove(o.aside)
	}
}

// syncDir has the names in a folder go to the disk. A folder that can't be read, and
// a file system that can't do it, are no fault: the file is there.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
