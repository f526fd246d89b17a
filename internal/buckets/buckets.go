// Package buckets keeps the directory store's buckets and their owners together: a
// bucket is a folder, and a row in the catalog that says which project owns it.
//
// Whoever makes, removes or gives away a bucket has that bucket's lock meanwhile,
// across all processes that share the folder of the buckets; whoever puts an object into
// it shares the lock, see Hold. Under the lock the row is
// written before the folder is made and removed after the folder is gone. So a crash
// at any moment leaves at most a row without a folder, which keeps the name for its
// project, and never a folder without its owner.
//
// A folder without an owner was made by hand. It belongs to no project until the
// operator gives it to one.
package buckets

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/objectstore"
)

var (
	// ErrNotFound says that the project has no such bucket: there is none, or it
	// belongs to another project or to nobody.
	ErrNotFound = errors.New("bucket not found")
	// ErrExists says that the project has the bucket already.
	ErrExists = errors.New("the project has this bucket already")
	// ErrTaken says that the name is another project's, or that of a folder that
	// belongs to nobody.
	ErrTaken = errors.New("the bucket's name is taken")
	// ErrNotEmpty says that the bucket holds objects.
	ErrNotEmpty = errors.New("the bucket is not empty")
	// ErrBusy says that others worked on the bucket until the context ended.
	ErrBusy = errors.New("the bucket is in use")
	// ErrBadName says that no bucket can have the name.
	ErrBadName = errors.New("no bucket can have this name")
)

// LockFile is the name, in the folder of the buckets, of the file that the locks lie
// on. It stays empty; no bucket can have its name.
const LockFile = ".buckets.lock"

// Keeper makes, removes and gives away buckets. Its methods are safe for concurrent
// use, by several processes too. Errors other than those above come from the database
// or the file system.
type Keeper struct {
	catalog *catalog.Catalog
	folder  string // holds a folder for each bucket, and LockFile
}

// New makes a Keeper of the buckets in folder. All processes that use the folder must
// use the same database.
func New(c *catalog.Catalog, folder string) *Keeper {
	return &Keeper{catalog: c, folder: folder}
}

// Owner returns the project that owns a bucket; ErrNotFound if nobody does. It says
// nothing about the bucket's folder.
func (k *Keeper) Owner(ctx context.Context, bucket string) (projectID string, err error) {
	owner, err := k.catalog.BucketOwner(ctx, bucket)
	if errors.Is(err, catalog.ErrNotFound) {
		return "", ErrNotFound
	}
	return owner, err
}

// Make makes a bucket that the project owns. ErrBadName, ErrExists, ErrTaken.
func (k *Keeper) Make(ctx context.Context, bucket, projectID string) error {
	return k.locked(ctx, "make", bucket, func() error {
		there, err := k.there(bucket)
		if err != nil {
			return err
		}
		owner, err := k.Owner(ctx, bucket)
		switch {
		case errors.Is(err, ErrNotFound):
			if there {
				return ErrTaken
			}
		case err != nil:
			return err
		case owner != projectID:
			return ErrTaken
		case there:
			return ErrExists
		}
		return k.makeOwned(ctx, bucket, projectID)
	})
}

// makeOwned makes a folder that is not there, its owner first. The bucket is locked.
func (k *Keeper) makeOwned(ctx context.Context, bucket, projectID string) error {
	if err := k.catalog.ClaimBucket(ctx, bucket, projectID); err != nil {
		if errors.Is(err, catalog.ErrTaken) { // by a process that has other buckets
			return ErrTaken
		}
		return err
	}
	err := os.Mkdir(filepath.Join(k.folder, bucket), 0o750)
	if errors.Is(err, fs.ErrExist) {
		// Made by hand since it was looked for: it is not for this project to have.
		err = ErrTaken
	}
	if err != nil {
		return errors.Join(err, k.catalog.ReleaseBucket(context.WithoutCancel(ctx), bucket, projectID))
	}
	if err := k.hand(filepath.Join(k.folder, bucket)); err != nil {
		return err
	}
	return syncFolder(k.folder)
}

// hand gives what root has made to the user whose the folder of the buckets is: the
// service need not run as root, as the operator's command often does.
func (k *Keeper) hand(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(k.folder, &st); err != nil {
		return fmt.Errorf("find the owner of %s: %w", k.folder, err)
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// Remove removes the project's bucket, with its unfinished uploads. ErrNotFound,
// ErrNotEmpty. An object that comes into the folder meanwhile stays, and the bucket
// with it.
func (k *Keeper) Remove(ctx context.Context, bucket, projectID string) error {
	return k.locked(ctx, "remove", bucket, func() error {
		if owner, err := k.Owner(ctx, bucket); err != nil {
			return err
		} else if owner != projectID {
			return ErrNotFound
		}
		path := filepath.Join(k.folder, bucket)
		there, err := k.there(bucket)
		if errors.Is(err, ErrTaken) {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		if there {
			if err := removeEmpty(path); err != nil {
				return err
			}
			if err := syncFolder(k.folder); err != nil {
				return err
			}
		}
		// The folder is gone: that the caller hangs up must not keep its row.
		return k.catalog.ReleaseBucket(context.WithoutCancel(ctx), bucket, projectID)
	})
}

// removeEmpty removes a bucket's folder in which there is nothing but unfinished
// uploads and empty folders, which deleted objects leave.
func removeEmpty(path string) error {
	folders, err := emptyFolders(path)
	if err != nil {
		return err
	}
	for _, own := range []string{objectstore.UploadsFolder, objectstore.LegacyUploadsFolder} {
		if err := os.RemoveAll(filepath.Join(path, own)); err != nil {
			return err
		}
	}
	for _, folder := range folders {
		err := os.Remove(folder) // unlike RemoveAll, not what came meanwhile
		switch {
		case errors.Is(err, unix.ENOTEMPTY):
			return ErrNotEmpty
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// emptyFolders lists a bucket's folders, itself too, each behind those in it. It is
// ErrNotEmpty if there is anything else in them.
func emptyFolders(path string) ([]string, error) {
	var folders []string
	err := filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		switch own := filepath.Dir(at) == path && (e.Name() == objectstore.UploadsFolder || e.Name() == objectstore.LegacyUploadsFolder); {
		case err != nil:
			return err
		case !e.IsDir():
			return ErrNotEmpty
		case own:
			return fs.SkipDir
		}
		folders = append(folders, at)
		return nil
	})
	slices.Reverse(folders)
	return folders, err
}

// Give makes the project the owner of a bucket, for the operator; it makes the folder
// if there is none. ErrBadName, also of what is no folder; ErrTaken if another project owns the bucket, unless
// force is set. made says that the folder is new.
func (k *Keeper) Give(ctx context.Context, bucket, projectID string, force bool) (made bool, err error) {
	err = k.locked(ctx, "give away", bucket, func() error {
		there, err := k.there(bucket)
		if errors.Is(err, ErrTaken) {
			return fmt.Errorf("%s is no folder: %w", filepath.Join(k.folder, bucket), ErrBadName)
		}
		if err != nil {
			return err
		}
		owner, err := k.Owner(ctx, bucket)
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		case err == nil && owner != projectID && !force:
			return fmt.Errorf("%w: project %s owns it", ErrTaken, owner)
		case err == nil && owner != projectID:
			if err := k.catalog.ReleaseBucket(ctx, bucket, owner); err != nil {
				return err
			}
		}
		if !there {
			made = true
			return k.makeOwned(ctx, bucket, projectID)
		}
		return k.catalog.ClaimBucket(ctx, bucket, projectID)
	})
	return made, err
}

// Bucket is a bucket as List gives it.
type Bucket struct {
	Name      string
	ProjectID string // "" for a folder that belongs to nobody
}

// List lists the buckets that have a folder, with their owners, by name.
func (k *Keeper) List(ctx context.Context) ([]Bucket, error) {
	names, err := k.Folders()
	if err != nil {
		return nil, err
	}
	owners, err := k.catalog.BucketOwners(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Bucket, 0, len(names))
	for _, name := range names {
		out = append(out, Bucket{Name: name, ProjectID: owners[name]})
	}
	return out, nil
}

// Folders lists the names of the folders that can be buckets, sorted.
func (k *Keeper) Folders() ([]string, error) {
	entries, err := os.ReadDir(k.folder)
	if err != nil {
		return nil, fmt.Errorf("list the folders of the buckets: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && objectstore.CheckBucket(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// there reports whether a bucket has a folder. Something else under its name is an
// error: a link could lead anywhere.
func (k *Keeper) there(bucket string) (bool, error) {
	info, err := os.Lstat(filepath.Join(k.folder, bucket))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, ErrTaken
	}
	return true, nil
}

// Hold keeps the project's bucket from being removed or given away until release is
// called. Whoever puts something into a bucket's folder holds the bucket from before
// the last look at its owner until the object is in place: otherwise the folder could be
// gone meanwhile, and made again without an owner, or be another project's by then. Any
// number may hold a bucket. ErrNotFound. It waits until ctx ends for a removal.
func (k *Keeper) Hold(ctx context.Context, bucket, projectID string) (release func(), err error) {
	fail := func(err error) (func(), error) { return nil, fmt.Errorf("hold bucket %.80q: %w", bucket, err) }
	if objectstore.CheckBucket(bucket) != nil {
		return fail(ErrNotFound)
	}
	file, err := k.lock(ctx, bucket, unix.F_RDLCK)
	if err != nil {
		return fail(err)
	}
	owner, err := k.Owner(ctx, bucket)
	if err == nil && owner != projectID {
		err = ErrNotFound
	}
	if err == nil {
		var there bool
		if there, err = k.there(bucket); errors.Is(err, ErrTaken) || err == nil && !there {
			err = ErrNotFound
		}
	}
	if err != nil {
		file.Close()
		return fail(err)
	}
	return func() { file.Close() }, nil
}

// locked runs f while nobody else makes, removes, gives away or holds the bucket.
func (k *Keeper) locked(ctx context.Context, what, bucket string, f func() error) error {
	fail := func(err error) error { return fmt.Errorf("%s bucket %.80q: %w", what, bucket, err) }
	if objectstore.CheckBucket(bucket) != nil {
		return fail(ErrBadName)
	}
	file, err := k.lock(ctx, bucket, unix.F_WRLCK)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	if err := f(); err != nil {
		return fail(err)
	}
	return nil
}

// lockPause is how long a bucket that another one has locked is left alone.
const lockPause = 5 * time.Millisecond

// lock locks a bucket, shared (F_RDLCK) or alone (F_WRLCK), until the file is closed.
// ErrBusy if others have it until ctx ends.
func (k *Keeper) lock(ctx context.Context, bucket string, kind int16) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(k.folder, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := k.hand(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	// Each bucket is one byte of the file, so that nobody waits for the removal of
	// another bucket. Locks of open files, unlike those of processes, hold between
	// goroutines too.
	h := fnv.New64a()
	h.Write([]byte(bucket))
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: int64(h.Sum64() >> 2), Len: 1})
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR):
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case <-time.After(lockPause):
		}
	}
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
