package files

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openAt opens a path below a directory. No symbolic link on the path is
// followed, and nothing above the directory is reached.
func openAt(dir *os.File, path string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat2(int(dir.Fd()), path, &how)
		if errors.Is(err, unix.EAGAIN) { // a directory was moved meanwhile
			return unix.EINTR
		}
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openDir(dir *os.File, path string) (*os.File, error) {
	if path == "" {
		path = "."
	}
	return openAt(dir, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// openPlain opens a plain file for reading. It waits for nothing: of a pipe or
// a device it opens, at most, the name.
func openPlain(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	st, err := statAt(dir, name)
	if err != nil {
		return nil, st, err
	}
	if !isPlain(st) {
		return nil, st, errNotPlain
	}
	f, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, st, err
	}
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && !isPlain(st) {
		err = errNotPlain
	}
	if err != nil {
		f.Close()
		return nil, st, err
	}
	return f, st, nil
}

// errNotPlain stands for a name whose file is neither a plain file nor absent.
var errNotPlain = errors.New("not a plain file")

func isPlain(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }
func isDir(st unix.Stat_t) bool   { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// absent reports whether an error means that there is no object of a name.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) ||
		errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EXDEV) || errors.Is(err, errNotPlain)
}

func statAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		err = &os.PathError{Op: "fstatat", Path: name, Err: err}
	}
	return st, err
}

func mkdirAt(dir *os.File, name string) error {
	err := retry(func() error { return unix.Mkdirat(int(dir.Fd()), name, dirMode) })
	if err != nil {
		return &os.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	return nil
}

func unlinkAt(dir *os.File, name string, flags int) error {
	err := retry(func() error { return unix.Unlinkat(int(dir.Fd()), name, flags) })
	if err != nil {
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	return nil
}

func renameAt(from *os.File, name string, to *os.File, as string) error {
	err := retry(func() error { return unix.Renameat(int(from.Fd()), name, int(to.Fd()), as) })
	if err != nil {
		return &os.LinkError{Op: "renameat", Old: name, New: as, Err: err}
	}
	return nil
}

// makeDirs opens the directory at a path below dir and makes what is missing of
// it. It may fail with ENOENT when another request removes an empty directory
// at the same moment.
func makeDirs(dir *os.File, path string) (*os.File, error) {
	d, err := openDir(dir, path)
	if !errors.Is(err, unix.ENOENT) {
		return d, err
	}
	at, err := openDir(dir, "")
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(path, "/") {
		if err := mkdirAt(at, part); err != nil && !errors.Is(err, unix.EEXIST) {
			at.Close()
			return nil, err
		}
		next, err := openDir(at, part)
		at.Close()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// removeTree removes a directory of ours with all that is in it. Links are
// removed, not followed.
func removeTree(dir *os.File, name string) error {
	err := unlinkAt(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	d, derr := openDir(dir, name)
	if derr != nil {
		return errors.Join(err, derr)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeTree(d, n); err != nil {
			return err
		}
	}
	err = unlinkAt(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// splitPath splits a path into the directory's path, "" for none, and the last name.
func splitPath(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func modTime(st unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()).UTC() }

// stamp says in which state a file's bytes were: a write changes it.
func stamp(st unix.Stat_t) string { return fmt.Sprintf("%x-%x", st.Size, st.Mtim.Nano()) }

// procPath is a path by which a system call without an *at form finds a name
// in an open directory.
func procPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}
