package objectstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errNotHere stands for a way to adopt that this file system, or this pair of
// files, does not offer: the next one is tried.
var errNotHere = errors.New("not offered here")

// Adopt implements Store. It clones the file where the file system can (btrfs,
// XFS), else links it, and copies only where neither is possible: across file
// systems, or where the kernel forbids linking another user's file.
func (d *Dir) Adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (ObjectInfo, error) {
	st, err := d.adopt(ctx, src, cond, dst, opts)
	if err != nil {
		return ObjectInfo{}, fail("adopt", src, err)
	}
	if opts.Progress != nil {
		opts.Progress(st.size, st.size)
	}
	return st.info(ImageArea), nil
}

func (d *Dir) adopt(ctx context.Context, src Location, cond Condition, dst Location, opts AdoptOptions) (fileState, error) {
	if err := checkTarget(dst); err != nil {
		return fileState{}, err
	}
	if src == dst {
		return fileState{}, fmt.Errorf("%w: %s cannot be adopted as itself", ErrInvalid, src)
	}
	f, st, err := d.open(src)
	if err != nil {
		return fileState{}, err
	}
	defer f.Close()
	if cond.ETag == "" {
		st, err = settle(ctx, f)
	}
	if err == nil && src.Bucket == ImageArea {
		st, err = d.checkPin(f)
	}
	if err == nil {
		err = st.check(src.Bucket, cond)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fileState{}, err
	}
	if made, err := d.alreadyAdopted(st, dst); err != nil || made.ino != 0 {
		return made, err
	}
	// Sync before linking: the name must not be there before the bytes are.
	// It also write-protects mapped pages, so that a write through a mapping
	// from here on changes the modification time.
	if err := f.Sync(); err != nil {
		return fileState{}, classify(err)
	}
	for _, way := range []func() error{
		func() error { return d.clone(f, st, dst) },
		func() error { return d.link(f, st, src, dst) },
		func() error {
			if opts.Copies != nil {
				opts.Copies(d.whyCopied(f, err))
			}
			return d.copy(ctx, f, st, dst, opts.Room, opts.Progress)
		},
	} {
		if err = way(); !errors.Is(err, errNotHere) {
			break
		}
	}
	if err != nil {
		return fileState{}, err
	}
	err = classify(d.syncParents(d.images, dst.Key))
	var made fileState
	if err == nil {
		made, err = d.stateAt(dst)
	}
	if err == nil && (made.size != st.size || made.mtime != st.mtime) {
		err = errMoved // a link, and written to since
	}
	if err != nil {
		return fileState{}, errors.Join(err, d.remove(dst.Key))
	}
	return made, nil
}

// whyCopied says why a file was not linked, by the error that link gave, and what to do.
func (d *Dir) whyCopied(f *os.File, link error) string {
	const reflink = "or keep buckets and images on a file system with reflinks (XFS, btrfs)"
	switch {
	case errors.Is(link, unix.EPERM), errors.Is(link, unix.EACCES):
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil {
			break
		}
		return fmt.Sprintf("the file belongs to the user %d, and the kernel does not let the service's user %d link it (fs.protected_hardlinks), "+
			"so its bytes were copied: chown the files of the bucket to %[2]d, or let the service's group read and write them (chgrp, chmod g+rw), "+reflink, st.Uid, os.Geteuid())
	case errors.Is(link, unix.EXDEV):
		return "the bucket and the image area lie on different file systems, so the bytes were copied: put both on one, " + reflink
	case errors.Is(link, unix.EMLINK):
		return "the file has as many links as the file system allows, so its bytes were copied: upload it anew, " + reflink
	}
	return "the file system neither links nor clones the file, so its bytes were copied: keep buckets and images on one that does, such as ext4, XFS or btrfs"
}

func (d *Dir) stateAt(loc Location) (fileState, error) {
	f, st, err := d.open(loc)
	if err != nil {
		return fileState{}, err
	}
	return st, f.Close()
}

// alreadyAdopted returns the state of dst when an earlier attempt linked this
// very inode there. Anything else at dst is removed, to be made again.
func (d *Dir) alreadyAdopted(st fileState, dst Location) (fileState, error) {
	f, there, err := d.open(dst)
	if errors.Is(err, ErrNotFound) {
		return fileState{}, nil
	}
	if err != nil {
		return fileState{}, err
	}
	defer f.Close()
	if !there.sameBytes(st) {
		return fileState{}, d.remove(dst.Key)
	}
	if err := f.Sync(); err != nil {
		return fileState{}, classify(err)
	}
	if err := d.syncParents(d.images, dst.Key); err != nil {
		return fileState{}, classify(err)
	}
	return d.checkPin(f)
}

// errMoved is what an adoption says of a source that did not hold still.
var errMoved = fmt.Errorf("%w while it was adopted", ErrChanged)

// clone makes dst a copy that shares its blocks with the source.
func (d *Dir) clone(f *os.File, st fileState, dst Location) error {
	if d.noClone || d.noLink {
		return errNotHere
	}
	t, err := d.newTemp()
	if err != nil {
		return err
	}
	defer t.discard()
	if err := unix.IoctlFileClone(int(t.f.Fd()), int(f.Fd())); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) {
			return classify(err)
		}
		return errNotHere
	}
	return t.publishAs(f, st, dst)
}

// copy makes dst a copy of the source's bytes, with its holes.
func (d *Dir) copy(ctx context.Context, f *os.File, st fileState, dst Location, room func(n int64) error, progress func(done, total int64)) error {
	t, err := d.newTemp()
	if err != nil {
		return err
	}
	defer t.discard()
	err = copySparse(ctx, t.f, f, st.size, room, func(done int64) {
		if progress != nil {
			progress(done, st.size)
		}
	})
	if err != nil {
		return err
	}
	return t.publishAs(f, st, dst)
}

// link gives the source's inode a name in the image area, and pins it.
func (d *Dir) link(f *os.File, st fileState, src, dst Location) error {
	if d.noLink {
		return errNotHere
	}
	return intoParent(d.images, dst.Key, func(parent *os.File, name string) error {
		d.pins.Lock()
		defer d.pins.Unlock()
		before, err := stateOf(f)
		if err != nil {
			return err
		}
		if !before.explains(st) {
			return errMoved
		}
		p, err := d.pinToExtend(f, before, src)
		if err != nil {
			return err
		}
		if err := linkFile(f, parent, name); err != nil {
			switch {
			case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES),
				errors.Is(err, unix.EMLINK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
				return fmt.Errorf("%w: %w", errNotHere, err)
			}
			return err
		}
		after, err := stateOf(f)
		if err == nil && !after.sameBytes(before) {
			err = errMoved
		}
		if err == nil {
			p.Names++
			p.Source = src
			p.note(after)
			err = d.savePin(p, true)
		}
		if err != nil {
			err = errors.Join(classify(err), classify(unlinkAt(parent, name, 0)))
		}
		return err
	})
}

// pinToExtend returns the pin of a file that is about to get one more name in
// the image area. A file that somebody touched after it was pinned for an image
// is not pinned anew for another, since the first would then pass for sound:
// the second has to have a copy.
func (d *Dir) pinToExtend(f *os.File, st fileState, src Location) (*pin, error) {
	fresh := &pin{}
	if src.Bucket == ImageArea {
		fresh.Names = 1
	} else if st.nlink <= 1 {
		return fresh, nil // no image has it: a pin of it is a leftover
	}
	if d.loadPin(st) == nil {
		return fresh, nil
	}
	_, p, err := d.checkPinLocked(f)
	if errors.Is(err, ErrChanged) {
		return nil, errNotHere
	}
	return p, err
}

// intoParent calls put with the folder that is to hold a key's file. It makes
// the folder again when a Delete next to it removed it in between.
func intoParent(top *os.File, key string, put func(parent *os.File, name string) error) error {
	const tries = 100
	for try := 1; ; try++ {
		parent, name, err := makeParent(top, key)
		if err == nil {
			err = put(parent, name)
			parent.Close()
		}
		if try < tries && errors.Is(err, unix.ENOENT) {
			continue
		}
		return classify(err)
	}
}

// temp is a file on the image area's file system that is not an object yet. If
// it can be it has no name at all, so that a crash leaves nothing.
type temp struct {
	d    *Dir
	f    *os.File
	name string // in tempFolder; empty when it has none
}

func (d *Dir) newTemp() (*temp, error) {
	folder, err := openFolderAt(d.images, tempFolder)
	if err != nil {
		return nil, classify(err)
	}
	defer folder.Close()
	f, err := openAt(folder, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == nil {
		return &temp{d: d, f: f}, nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil, classify(err)
	}
	return d.newNamedTemp(folder)
}

func (d *Dir) newNamedTemp(folder *os.File) (*temp, error) {
	name := rand.Text()
	f, err := openAt(folder, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	return &temp{d: d, f: f, name: name}, nil
}

// discard closes the file, and removes it if it has not become an object.
func (t *temp) discard() {
	_ = t.f.Close() // synced before it got a name; without one nobody wants it
	if t.name == "" {
		return
	}
	if folder, err := openFolderAt(t.d.images, tempFolder); err == nil {
		_ = unlinkAt(folder, t.name, 0) // SweepTemp finds what stays
		folder.Close()
	}
}

// publishAs makes the file, a clone or copy of src, the object dst, if src is
// still what it was.
func (t *temp) publishAs(src *os.File, was fileState, dst Location) error {
	now, err := stateOf(src)
	if err != nil {
		return classify(err)
	}
	if !now.explains(was) {
		return errMoved
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(was.mtime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", t.f.Fd()), times, 0); err != nil {
		return classify(err)
	}
	st, err := stateOf(t.f)
	if err == nil && st.size != was.size {
		err = fmt.Errorf("%w: %d bytes became %d", ErrChanged, was.size, st.size)
	}
	if err == nil {
		err = t.f.Sync()
	}
	if err != nil {
		return classify(err)
	}
	return t.publish(dst)
}

// publish gives the file, synced before, its name in one step. A file without a
// name does not replace what is there; one with a name does.
func (t *temp) publish(dst Location) error {
	return intoParent(t.d.images, dst.Key, func(parent *os.File, name string) error {
		if t.name == "" {
			return linkFile(t.f, parent, name)
		}
		folder, err := openFolderAt(t.d.images, tempFolder)
		if err != nil {
			return err
		}
		defer folder.Close()
		if err := unix.Renameat(int(folder.Fd()), t.name, int(parent.Fd()), name); err != nil {
			return &os.LinkError{Op: "renameat", Old: t.name, New: name, Err: err}
		}
		t.name = ""
		return nil
	})
}

// staleTemp is how old a temporary file's change time must be, for it to belong
// to a process that is gone. A copy that is under way touches its file often.
const staleTemp = time.Hour

// SweepTemp removes the unfinished copies that a killed process left in the driver's own
// folder of the image area: those not touched for an hour before now. The caller knows
// that the area is its own.
func (d *Dir) SweepTemp(now time.Time) error {
	folder, err := openFolderAt(d.images, tempFolder)
	if err != nil {
		return err
	}
	defer folder.Close()
	for {
		names, err := folder.Readdirnames(1000)
		for _, name := range names {
			st, serr := statAt(folder, name)
			if serr == nil && st.regular() && now.UnixNano()-st.ctime > int64(staleTemp) {
				if err := unlinkAt(folder, name, 0); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, dst Location, r io.Reader, size int64, _ PutOptions) (ObjectInfo, error) {
	st, err := d.put(ctx, dst, r, size)
	if err != nil {
		return ObjectInfo{}, fail("put", dst, err)
	}
	return st.info(ImageArea), nil
}

func (d *Dir) put(ctx context.Context, dst Location, r io.Reader, size int64) (fileState, error) {
	if err := checkTarget(dst); err != nil {
		return fileState{}, err
	}
	body, err := bodyOf(contextReader{ctx, r}, size)
	if err != nil {
		return fileState{}, err
	}
	folder, err := openFolderAt(d.images, tempFolder)
	if err != nil {
		return fileState{}, classify(err)
	}
	defer folder.Close()
	t, err := d.newNamedTemp(folder) // named: it may have to replace an object
	if err != nil {
		return fileState{}, err
	}
	defer t.discard()
	if err := writeSparse(t.f, body); err != nil {
		return fileState{}, err
	}
	if err := t.f.Sync(); err != nil {
		return fileState{}, classify(err)
	}
	st, err := stateOf(t.f)
	if err != nil {
		return fileState{}, classify(err)
	}
	if err := t.publish(dst); err != nil {
		return fileState{}, err
	}
	return st, classify(d.syncParents(d.images, dst.Key))
}

// Uploads implements Store: the directory store has no multipart uploads.
func (d *Dir) Uploads(ctx context.Context, _ string) ([]Upload, error) {
	return nil, fail("list uploads", Location{}, ctx.Err())
}

// AbortUpload implements Store: the directory store knows no upload.
func (d *Dir) AbortUpload(ctx context.Context, loc Location, _ string) error {
	err := checkTarget(loc)
	if err == nil {
		err = ctx.Err()
	}
	return fail("abort upload", loc, err)
}

// Delete implements Store. It also removes the folders that it empties.
func (d *Dir) Delete(ctx context.Context, loc Location) error {
	err := checkTarget(loc)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = d.remove(loc.Key)
	}
	return fail("delete", loc, err)
}

// remove removes a file of the image area, if it is there, and the folders on
// the way to it that this empties.
func (d *Dir) remove(key string) error {
	parent, name, err := openParent(d.images, key)
	if err == nil {
		err = d.unlink(parent, name)
		if err == nil {
			err = parent.Sync()
		}
		parent.Close()
	}
	if err != nil && !isAbsent(err) {
		return classify(err)
	}
	for folders, _ := splitKey(key); len(folders) > 0; folders = folders[:len(folders)-1] {
		above, name, err := openParent(d.images, joinKey(folders))
		if err != nil {
			if isAbsent(err) {
				continue // another one removed it
			}
			return classify(err)
		}
		removed := unlinkAt(above, name, unix.AT_REMOVEDIR) == nil
		if removed {
			err = above.Sync()
		}
		above.Close()
		if !removed || err != nil {
			return classify(err) // not empty: as it should be
		}
	}
	return nil
}

// unlink removes one name of a file and brings the pin of the inode up to date.
func (d *Dir) unlink(parent *os.File, name string) error {
	d.pins.Lock()
	defer d.pins.Unlock()
	st, err := statAt(parent, name)
	if err != nil {
		if isAbsent(err) {
			return nil
		}
		return classify(err)
	}
	if !st.regular() {
		return nil // a folder: no object
	}
	f, _, err := openRegular(parent, name)
	var p *pin
	if err == nil {
		defer f.Close()
		_, p, _ = d.checkPinLocked(f) // what it finds is in the pin
	}
	if err := unlinkAt(parent, name, 0); err != nil && !isAbsent(err) {
		return classify(err)
	}
	if p == nil {
		return nil
	}
	if p.Names--; p.Names <= 0 || st.nlink <= 1 {
		return d.dropPin(st.ino)
	}
	if !p.Broken {
		now, err := stateOf(f)
		if err != nil {
			return classify(err)
		}
		if now.sameBytes(p.state()) {
			p.note(now)
		}
	}
	return d.savePin(p, true)
}
