package measure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Sizes in bytes.
const (
	MiB = int64(1) << 20
	GiB = int64(1) << 30
	TiB = int64(1) << 40
)

// MakeDisk makes a RAW disk of size bytes that holds an ext4 file system with about
// data bytes of the files of from, in the order of their names: what a system disk
// holds, and the same for as long as from is.
func MakeDisk(path, from string, size, data int64) error {
	tree := path + ".tree"
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	taken, err := gather(tree, from, data)
	if err != nil {
		return fmt.Errorf("gather files of %s: %w", from, err)
	}
	if taken < data*9/10 {
		return fmt.Errorf("%s has %d MiB of files, %d are wanted; name another folder with -from", from, taken/MiB, data/MiB)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs (package e2fsprogs): %w: %s", err, out)
	}
	return nil
}

// errEnough ends the walk of gather.
var errEnough = errors.New("enough")

// gather links the files of from into the folder to, or copies them, until they
// have most bytes together.
func gather(to, from string, most int64) (taken int64, err error) {
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // what can't be read is left out
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			name, err := os.Readlink(path)
			if err != nil {
				return nil
			}
			return os.Symlink(name, target)
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > most/4 {
			return nil
		}
		if taken+info.Size() > most {
			return errEnough
		}
		if err := os.Link(path, target); err != nil {
			if err := copyFile(target, path); err != nil {
				return err
			}
		}
		taken += info.Size()
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return taken, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// DataExtents calls each with the parts of a file that are no holes, in order:
// offset and length in bytes.
func DataExtents(f *os.File, each func(off, n int64) error) error {
	const seekData, seekHole = 3, 4 // lseek(2)
	for at := int64(0); ; {
		begin, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = f.Seek(begin, seekHole); err != nil {
			return err
		}
		if err := each(begin, at-begin); err != nil {
			return err
		}
	}
}
