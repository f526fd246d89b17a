package objectstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNotRegular stands for a name that is taken by something that is no object.
var errNotRegular = errors.New("not a regular file")

// isAbsent reports whether an error means that no object can be under a name:
// nothing there, something that is no file, a part of the path that is no
// folder or is a symbolic link, or a name longer than the file system's.
func isAbsent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) ||
		errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EISDIR) || errors.Is(err, errNotRegular)
}

// fileState is what the file system says of a file. Times are nanoseconds since
// 1970; born is 0 where the file system does not keep it.
type fileState struct {
	ino                      uint64
	size, mtime, ctime, born int64
	nlink, uid, gid          uint32
	mode                     uint16
}

// sameBytes reports whether nothing says that the bytes differ.
func (st fileState) sameBytes(than fileState) bool {
	return st.ino == than.ino && st.born == than.born && st.size == than.size && st.mtime == than.mtime
}

// explains reports whether st, the later state of a file, differs from the
// earlier one in a way that accounts for a new change time without a write:
// another name was made or removed, or its mode or owner was set.
func (st fileState) explains(earlier fileState) bool {
	return st.sameBytes(earlier) &&
		(st.ctime == earlier.ctime || st.nlink != earlier.nlink ||
			st.mode != earlier.mode || st.uid != earlier.uid || st.gid != earlier.gid)
}

// etag spells the state as an ETag, see Dir.
func (st fileState) etag(bucket string) string {
	if bucket == ImageArea {
		return fmt.Sprintf("%x-%x", st.size, uint64(st.mtime))
	}
	return fmt.Sprintf("%x-%x-%x-%x", st.ino, uint64(st.born), st.size, uint64(st.mtime))
}

func (st fileState) info(bucket string) ObjectInfo {
	return ObjectInfo{Size: st.size, ETag: st.etag(bucket), Class: ClassStandard, ModTime: time.Unix(0, st.mtime).UTC()}
}

// retryEINTR repeats a system call that a signal interrupted.
func retryEINTR[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// statAt returns the state of a name in a folder (of the folder itself when
// name is empty), not following a symbolic link.
func statAt(folder *os.File, name string) (fileState, error) {
	const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	var sx unix.Statx_t
	raw, err := folder.SyscallConn()
	if err == nil {
		// A held object may be closed while it is read: its number is another file's then.
		cerr := raw.Control(func(fd uintptr) {
			_, err = retryEINTR(func() (struct{}, error) {
				return struct{}{}, unix.Statx(int(fd), name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, want, &sx)
			})
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return fileState{}, &os.PathError{Op: "statx", Path: name, Err: err}
	}
	nanos := func(t unix.StatxTimestamp) int64 { return t.Sec*int64(time.Second) + int64(t.Nsec) }
	st := fileState{
		ino: sx.Ino, size: int64(sx.Size), mtime: nanos(sx.Mtime), ctime: nanos(sx.Ctime),
		nlink: sx.Nlink, uid: sx.Uid, gid: sx.Gid, mode: sx.Mode,
	}
	if sx.Mask&unix.STATX_BTIME != 0 {
		st.born = nanos(sx.Btime)
	}
	return st, nil
}

// stateOf returns the state of an open file.
func stateOf(f *os.File) (fileState, error) { return statAt(f, "") }

func (st fileState) regular() bool { return st.mode&unix.S_IFMT == unix.S_IFREG }

func openAt(folder *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(folder.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openFolder(path string) (*os.File, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openFolderAt(folder *os.File, name string) (*os.File, error) {
	return openAt(folder, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// splitKey splits a key into the folders that lead to it and its last part.
func splitKey(key string) (folders []string, name string) {
	parts := strings.Split(key, "/")
	return parts[:len(parts)-1], parts[len(parts)-1]
}

// openParent opens the folder that holds a key's file. The caller closes it;
// it is never top itself.
func openParent(top *os.File, key string) (*os.File, string, error) {
	folders, name := splitKey(key)
	at, err := openFolderAt(top, ".")
	for _, part := range folders {
		if err != nil {
			return nil, "", err
		}
		var next *os.File
		next, err = openFolderAt(at, part)
		at.Close()
		at = next
	}
	if err != nil {
		return nil, "", err
	}
	return at, name, nil
}

// openRegular opens the regular file at key for reading. It looks before it
// opens, since opening alone can hang (a pipe) or do something (a device), and
// opens so that what was put there in between can do neither.
func openRegular(top *os.File, key string) (*os.File, fileState, error) {
	parent, name, err := openParent(top, key)
	if err != nil {
		return nil, fileState{}, err
	}
	defer parent.Close()
	st, err := statAt(parent, name)
	if err != nil {
		return nil, fileState{}, err
	}
	if !st.regular() {
		return nil, fileState{}, errNotRegular
	}
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fileState{}, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, fileState{}, err
	}
	f := os.NewFile(uintptr(fd), name)
	if st, err = stateOf(f); err == nil && !st.regular() {
		err = errNotRegular
	}
	if err != nil {
		f.Close()
		return nil, fileState{}, err
	}
	return f, st, nil
}

// folderMode is for the image area's folders: nobody but the service.
const folderMode = 0o700

// mkdirAt makes a folder unless it is there.
func mkdirAt(folder *os.File, name string) error {
	_, err := retryEINTR(func() (struct{}, error) {
		return struct{}{}, unix.Mkdirat(int(folder.Fd()), name, folderMode)
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	return nil
}

// makeParent opens the folder that is to hold a key's file, making what is
// missing of it.
func makeParent(top *os.File, key string) (*os.File, string, error) {
	folders, name := splitKey(key)
	at, err := openFolderAt(top, ".")
	for _, part := range folders {
		if err != nil {
			return nil, "", err
		}
		if err = mkdirAt(at, part); err != nil {
			at.Close()
			return nil, "", err
		}
		var next *os.File
		next, err = openFolderAt(at, part)
		at.Close()
		at = next
	}
	if err != nil {
		return nil, "", err
	}
	return at, name, nil
}

// syncParents makes the names on a key's path durable, from the file's folder
// up to the top. All of them every time: another one may have made a folder and not
// come to syncing it.
func (d *Dir) syncParents(top *os.File, key string) error {
	folders, _ := splitKey(key)
	for n := len(folders); n >= 0; n-- {
		parent, _, err := openParent(top, strings.Join(append(folders[:n:n], "."), "/"))
		if err != nil {
			return err
		}
		err = d.syncFolder(parent)
		parent.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func unlinkAt(folder *os.File, name string, flags int) error {
	_, err := retryEINTR(func() (struct{}, error) {
		return struct{}{}, unix.Unlinkat(int(folder.Fd()), name, flags)
	})
	if err != nil {
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	return nil
}

// linkFile gives the open file, this very inode, a name in a folder.
func linkFile(f, folder *os.File, name string) error {
	_, err := retryEINTR(func() (struct{}, error) {
		return struct{}{}, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()),
			int(folder.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return &os.LinkError{Op: "linkat", Old: f.Name(), New: name, Err: err}
	}
	return nil
}
