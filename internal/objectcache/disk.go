package objectcache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is that of the file whose lock a process holds that uses a folder.
const lockName = "quickims-cache.lock"

// disk is a folder on a disk. Each call may take any time. Names are plain.
type disk interface {
	// List lists the regular files.
	List() ([]fileInfo, error)
	// Open opens a file to be read and written, and makes it first if there is none and
	// create is set.
	Open(name string, create bool) (file, error)
	Remove(name string) error
	// Free is how many bytes the file system has left, and how many it has.
	Free() (free, total int64, err error)
	Close() error
}

// file is a file in the folder.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Allocated is what the file takes, in bytes.
	Allocated() (int64, error)
	// NextData is where data begins at or behind off; io.EOF if none does.
	NextData(off int64) (int64, error)
	// Punch makes a range a hole. errors.ErrUnsupported: the file system cannot.
	Punch(off, n int64) error
	Truncate() error // to no bytes
	Touch()          // notes in the file that it is used now
}

type fileInfo struct {
	name      string
	allocated int64
	used      time.Time
}

// folder is the disk that the operating system has.
type folder struct {
	root *os.Root
	lock *os.File
}

// errInUse says that another process has the folder's lock.
var errInUse = errors.New("another process uses the folder")

// openFolder makes the folder if there is none and takes its lock. A folder of other files
// is refused: it is not the cache's. One that has been the cache's may hold others.
func openFolder(dir string) (_ disk, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return nil, &RefusedError{fmt.Sprintf("%s is no folder", dir)}
		}
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{root: root}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if _, err := root.Lstat(lockName); errors.Is(err, fs.ErrNotExist) {
		list, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.Name() != "lost+found" && e.Name() != lockName {
				return nil, &RefusedError{fmt.Sprintf("the folder %s holds %q, which is not the cache's; name an empty folder or one that does not exist", dir, e.Name())}
			}
		}
	}
	if err := root.Chmod(".", 0o700); err != nil {
		return nil, err
	}
	if f.lock, err = root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errInUse
		}
		return nil, err
	}
	// What releases before the folder survived left there.
	if err := root.Remove("quickims-cache.blocks"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return f, nil
}

func (f *folder) List() ([]fileInfo, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []fileInfo
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		all = append(all, fileInfo{name, st.Blocks * 512, time.Unix(st.Mtim.Unix())})
	}
	return all, nil
}

func (f *folder) Open(name string, create bool) (file, error) {
	flags := os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK // a pipe of that name must not be waited for
	if create {
		flags |= os.O_CREATE
	}
	opened, err := f.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := opened.Stat(); err != nil || !info.Mode().IsRegular() {
		opened.Close()
		return nil, fmt.Errorf("open %s: it is no file: %w", filepath.Base(name), errors.Join(fs.ErrNotExist, err))
	}
	return osFile{opened}, nil
}

func (f *folder) Remove(name string) error { return f.root.Remove(name) }

func (f *folder) Free() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.lock.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

func (f *folder) Close() error {
	var err error
	if f.lock != nil {
		err = f.lock.Close()
	}
	return errors.Join(err, f.root.Close())
}

type osFile struct{ *os.File }

func (f osFile) Allocated() (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Blocks * 512, err
}

func (f osFile) NextData(off int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, io.EOF
	case errors.Is(err, unix.EINVAL): // it tells no holes: all is data, up to the end
		info, err := f.Stat()
		if err == nil && off >= info.Size() {
			err = io.EOF
		}
		return off, err
	}
	return at, err
}

func (f osFile) Punch(off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = errors.ErrUnsupported
	}
	return err
}

func (f osFile) Truncate() error { return f.File.Truncate(0) }

func (f osFile) Touch() {
	now := unix.NsecToTimespec(time.Now().UnixNano())
	_ = unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: now.Sec}, {Sec: now.Sec}}) // it tells the order alone
}
