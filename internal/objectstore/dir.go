package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Folders of the driver's own at the top of the image area; no keys lead there.
const (
	pinFolder  = ".pins"
	tempFolder = ".tmp"
)

// Dir is the directory store: one folder for each bucket, in it plain (and
// possibly sparse) files, and a folder on the same file system for the image
// area. Linux only.
//
// A key is a path below its bucket's folder. No symbolic link is ever followed,
// so no key leads out, and only regular files are objects; what else lies in a
// bucket (links, pipes, devices, sockets) is as good as absent and is not
// opened.
//
// An object's ETag is made of what the file system says of its file: in a
// bucket inode number, birth time, size and modification time; in the image
// area size and modification time alone, which a backup keeps. The change time
// is no part of it, because linking a file changes that, but every read
// compares it before and after (see checkPin). Stat waits until a file's last
// write is older than the clock tick it was stamped with, so that a later write
// cannot leave the same modification time.
//
// One process at a time may use an image area.
type Dir struct {
	buckets, images *os.File // the two folders
	pins            sync.Mutex
	noClone         bool // tests: as if the file system could not clone
	noLink          bool // tests: as if it could not link either
	// syncFolder makes the names in a folder durable; tests look on.
	syncFolder func(*os.File) error
}

// OpenDir opens the directory store with its buckets in one folder and its
// image area in another. Both must exist. They should be on one file system,
// else adoption has to copy. Close it when done.
func OpenDir(bucketsDir, imagesDir string) (*Dir, error) {
	fail := func(err error) (*Dir, error) {
		return nil, fmt.Errorf("open the directory store (buckets %s, images %s): %w", bucketsDir, imagesDir, err)
	}
	buckets, err := openFolder(bucketsDir)
	if err != nil {
		return fail(err)
	}
	images, err := openFolder(imagesDir)
	if err != nil {
		buckets.Close()
		return fail(err)
	}
	d := &Dir{buckets: buckets, images: images, syncFolder: (*os.File).Sync}
	if inside(bucketsDir, imagesDir) || inside(imagesDir, bucketsDir) {
		err = errors.New("one folder lies in the other")
	}
	for _, own := range []string{pinFolder, tempFolder} {
		if err == nil {
			err = mkdirAt(images, own)
		}
	}
	if err == nil {
		err = images.Sync()
	}
	if err != nil {
		d.Close()
		return fail(err)
	}
	return d, nil
}

// inside reports whether path is base or lies in it.
func inside(base, path string) bool {
	b, err1 := filepath.EvalSymlinks(base)
	p, err2 := filepath.EvalSymlinks(path)
	if err1 != nil || err2 != nil {
		return false
	}
	if b, err1 = filepath.Abs(b); err1 != nil {
		return false
	}
	if p, err2 = filepath.Abs(p); err2 != nil {
		return false
	}
	rel, err := filepath.Rel(b, p)
	return err == nil && filepath.IsLocal(rel)
}

// Close releases the two folders. Readers that are open stay so.
func (d *Dir) Close() error { return errors.Join(d.buckets.Close(), d.images.Close()) }

// area returns the open folder that a location's key is relative to, and
// whether the caller has to close it.
func (d *Dir) area(bucket string) (folder *os.File, done func(), err error) {
	if bucket == ImageArea {
		return d.images, func() {}, nil
	}
	if err := CheckBucket(bucket); err != nil {
		return nil, nil, err
	}
	f, err := openFolderAt(d.buckets, bucket)
	if err != nil {
		if isAbsent(err) {
			return nil, nil, ErrNoBucket
		}
		return nil, nil, classify(err)
	}
	return f, func() { f.Close() }, nil
}

// open opens the object at loc. The file's state is the one at opening.
func (d *Dir) open(loc Location) (*os.File, fileState, error) {
	if err := checkSource(loc); err != nil {
		return nil, fileState{}, err
	}
	top, done, err := d.area(loc.Bucket)
	if err != nil {
		return nil, fileState{}, err
	}
	defer done()
	f, st, err := openRegular(top, loc.Key)
	if err != nil {
		return nil, fileState{}, classify(err)
	}
	return f, st, nil
}

// StatBucket implements Store. A folder has no class and no region.
func (d *Dir) StatBucket(ctx context.Context, bucket string) (BucketInfo, error) {
	loc := Location{Bucket: bucket}
	if err := ctx.Err(); err != nil {
		return BucketInfo{}, fail("stat bucket", loc, err)
	}
	top, done, err := d.area(bucket)
	if err != nil {
		return BucketInfo{}, fail("stat bucket", loc, err)
	}
	defer done()
	if _, err := stateOf(top); err != nil {
		return BucketInfo{}, fail("stat bucket", loc, classify(err))
	}
	return BucketInfo{Name: bucket, Class: ClassStandard}, nil
}

// Stat implements Store. It fails with ErrUnavailable when the file is being
// written to all the while that it waits.
func (d *Dir) Stat(ctx context.Context, loc Location) (ObjectInfo, error) {
	f, _, err := d.open(loc)
	if err != nil {
		return ObjectInfo{}, fail("stat", loc, err)
	}
	defer f.Close()
	var st fileState
	if loc.Bucket == ImageArea {
		st, err = d.checkPin(f) // nothing is written to in place there
	} else {
		st, err = settle(ctx, f)
	}
	if err != nil {
		return ObjectInfo{}, fail("stat", loc, err)
	}
	return st.info(loc.Bucket), nil
}

// The times that settle knows. A file's times are stamped with the kernel's
// coarse clock, whose tick is 10 ms at most (HZ=100); settleTick leaves the same
// again. A file system that stamps whole seconds is known by times without a
// fraction (ext3, ext4 with small inodes: 1 s; FAT: 2 s).
const (
	settleTick   = 20 * time.Millisecond
	settleSecond = 2*time.Second + settleTick
	settleTries  = 5
)

// settle returns the file's state as soon as a write from now on would change
// its modification time.
func settle(ctx context.Context, f *os.File) (fileState, error) {
	for range settleTries {
		if err := ctx.Err(); err != nil {
			return fileState{}, err
		}
		before := time.Now()
		st, err := stateOf(f)
		if err != nil {
			return fileState{}, classify(err)
		}
		young := st.unsettled(before, time.Now())
		if young == 0 {
			return st, nil
		}
		if err := wait(ctx, young); err != nil {
			return fileState{}, err
		}
	}
	return fileState{}, fmt.Errorf("%w: the file is being written to; try again when that is done", ErrUnavailable)
}

// unsettled is how long it takes at least until a write is sure to change the
// modification time, 0 if that is so already; the state was read between before and
// after. How old it is goes by the earlier of the two, since the file may have been
// written to between its state and the later one, in the tick that stamped it.
func (st fileState) unsettled(before, after time.Time) time.Duration {
	window := settleTick
	if st.mtime%int64(time.Second) == 0 && st.ctime%int64(time.Second) == 0 {
		window = settleSecond
	}
	if st.mtime-after.UnixNano() > int64(window) { // set to a time to come
		return 0
	}
	age := time.Duration(before.UnixNano() - st.mtime)
	if age >= window {
		return 0
	}
	return window - age
}

// check reports whether a file in this state meets cond, as ErrChanged.
func (st fileState) check(bucket string, cond Condition) error {
	if cond.Version != "" {
		return fmt.Errorf("%w: a folder has no versions, asked for %.80q", ErrChanged, cond.Version)
	}
	if got := st.etag(bucket); cond.ETag != "" && cond.ETag != got {
		return fmt.Errorf("%w: its ETag is %s, not %.80s", ErrChanged, got, cond.ETag)
	}
	return nil
}

// Open implements Store.
func (d *Dir) Open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error) {
	if err := checkRange(off, n); err != nil {
		return nil, fail("open", loc, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fail("open", loc, err)
	}
	f, st, err := d.open(loc)
	if err != nil {
		return nil, fail("open", loc, err)
	}
	if loc.Bucket == ImageArea {
		st, err = d.checkPin(f)
	}
	if err == nil {
		err = st.check(loc.Bucket, cond)
	}
	if err == nil && n > 0 && off >= st.size {
		err = fmt.Errorf("%w: %d bytes from %d in an object of %d", io.ErrUnexpectedEOF, n, off, st.size)
	}
	if err != nil {
		f.Close()
		return nil, fail("open", loc, err)
	}
	return &dirBody{ctx: ctx, d: d, loc: loc, f: f, seen: st, off: off, left: n}, nil
}

// dirBody reads a range of a file. Bytes leave it only after the file was seen
// to be the same behind the read as before it.
type dirBody struct {
	ctx       context.Context
	d         *Dir
	loc       Location
	f         *os.File
	seen      fileState // what the bytes so far belong to
	off, left int64
}

// readStep is the most that one Read takes before it looks at the context and
// the file's state again.
const readStep = 1 << 20

func (b *dirBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fail("read", b.loc, err)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), b.left, readStep)]
	n, err := b.f.ReadAt(p, b.off)
	if cerr := b.unchanged(); cerr != nil {
		clear(p[:n])
		return 0, fail("read", b.loc, cerr)
	}
	b.off += int64(n)
	b.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF):
		return n, fail("read", b.loc, io.ErrUnexpectedEOF)
	case err != nil:
		return n, fail("read", b.loc, classify(err))
	}
	return n, nil
}

func (b *dirBody) unchanged() error {
	now, err := stateOf(b.f)
	if err != nil {
		return classify(err)
	}
	b.seen, err = b.d.still(b.f, b.loc, b.seen, now)
	return err
}

// still returns what is to be compared with the next time when the file's state now is
// another than the one seen before, but its bytes are the same; else ErrChanged.
func (d *Dir) still(f *os.File, loc Location, seen, now fileState) (fileState, error) {
	if now.ctime == seen.ctime && now.sameBytes(seen) {
		return seen, nil
	}
	if loc.Bucket == ImageArea {
		var err error
		if now, err = d.checkPin(f); err != nil {
			return seen, err
		}
	} else if !now.explains(seen) {
		return seen, fmt.Errorf("%w while it was read", ErrChanged)
	}
	if !now.sameBytes(seen) {
		return seen, fmt.Errorf("%w while it was read", ErrChanged)
	}
	return now, nil
}

func (b *dirBody) Close() error { return b.f.Close() }

// classify gives an error of the operating system its meaning.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case isAbsent(err):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ESTALE),
		errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EBUSY),
		errors.Is(err, unix.EEXIST): // another adoption of the same key won; it is found complete
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
