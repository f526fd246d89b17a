package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Export implements Store. It clones the file where the file system can, else links it,
// and copies only where neither is possible. A link is pinned as one that was adopted is:
// who writes to the exported file damages the image, and the next read of it finds that.
func (d *Dir) Export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error {
	return fail("export", dst, d.export(ctx, src, cond, dst, opts))
}

func (d *Dir) export(ctx context.Context, src Location, cond Condition, dst Location, opts ExportOptions) error {
	if err := checkExport(src, dst); err != nil {
		return err
	}
	f, _, err := d.open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := d.checkPin(f)
	if err == nil {
		err = st.check(ImageArea, cond)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	top, done, err := d.area(dst.Bucket)
	if err != nil {
		return err
	}
	defer done()
	err = intoParent(top, dst.Key, func(parent *os.File, name string) error {
		there, err := statAt(parent, name)
		switch {
		case err == nil && there.marked(dst, opts.Made):
			return nil
		case err == nil:
			return ErrExists
		case !errors.Is(err, unix.ENOENT):
			return err
		}
		for _, way := range []func() error{
			func() error { return d.exportCopy(ctx, f, st, dst, opts, parent, name, d.cloneFile) },
			func() error { return d.exportLink(ctx, f, st, dst, opts, parent, name) },
			func() error {
				return d.exportCopy(ctx, f, st, dst, opts, parent, name, func(ctx context.Context, to, from *os.File) error {
					return copySparse(ctx, to, from, st.size, opts.Room, func(done int64) { opts.report(done, st.size) })
				})
			},
		} {
			if err = way(); !errors.Is(err, errNotHere) {
				break
			}
		}
		if errors.Is(err, unix.EEXIST) {
			return ErrExists
		}
		return err
	})
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w in the place of a folder: %w", ErrExists, err)
	case err != nil:
		return err
	}
	opts.report(st.size, st.size)
	return classify(d.syncParents(top, dst.Key))
}

func (d *Dir) cloneFile(_ context.Context, to, from *os.File) error {
	if d.noClone || d.noLink {
		return errNotHere
	}
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if err == nil || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) {
		return err
	}
	return errNotHere
}

// exportCopy makes a file of the image's bytes, with its time.
func (d *Dir) exportCopy(ctx context.Context, f *os.File, st fileState, dst Location, opts ExportOptions, parent *os.File, name string,
	fill func(ctx context.Context, to, from *os.File) error,
) error {
	return exportFile(ctx, parent, dst, opts, func(to *os.File) error {
		if err := fill(ctx, to, f); err != nil {
			return err
		}
		now, err := stateOf(f)
		if err != nil {
			return err
		}
		if !now.explains(st) {
			return errMoved
		}
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(st.mtime)}
		return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", to.Fd()), times, 0)
	}, func(to *os.File) error { return linkFile(to, parent, name) })
}

// exportFile fills a file without a name in a folder and then has it given its name.
func exportFile(ctx context.Context, folder *os.File, dst Location, opts ExportOptions, fill, link func(to *os.File) error) error {
	to, err := openAt(folder, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%w: the bucket's file system has no files without a name", errNotHere)
	}
	if err != nil {
		return err
	}
	defer to.Close()
	if err := fill(to); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	made, err := stateOf(to)
	if err == nil {
		err = opts.making(ctx, made.etag(dst.Bucket))
	}
	if err != nil {
		return err
	}
	return link(to)
}

// ExportStream implements Store.
func (d *Dir) ExportStream(ctx context.Context, r io.Reader, dst Location, opts ExportOptions) error {
	return fail("export", dst, d.exportStream(ctx, r, dst, opts))
}

func (d *Dir) exportStream(ctx context.Context, r io.Reader, dst Location, opts ExportOptions) error {
	if err := checkExported(dst); err != nil {
		return err
	}
	top, done, err := d.area(dst.Bucket)
	if err != nil {
		return err
	}
	defer done()
	switch f, there, err := d.open(dst); {
	case err == nil:
		f.Close()
		if !there.marked(dst, opts.Made) {
			return ErrExists
		}
		return classify(d.syncParents(top, dst.Key))
	case !errors.Is(err, ErrNotFound):
		return err
	}
	err = exportFile(ctx, top, dst, opts, func(to *os.File) error { return writeSparse(to, contextReader{ctx, r}) }, func(to *os.File) error {
		return intoParent(top, dst.Key, func(parent *os.File, name string) error {
			err := linkFile(to, parent, name)
			if errors.Is(err, unix.EEXIST) {
				return ErrExists
			}
			return err
		})
	})
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w in the place of a folder: %w", ErrExists, err)
	case err != nil:
		return classify(err)
	}
	return classify(d.syncParents(top, dst.Key))
}

// exportLink gives the image's inode a name in the bucket, and pins it.
func (d *Dir) exportLink(ctx context.Context, f *os.File, st fileState, dst Location, opts ExportOptions, parent *os.File, name string) error {
	if d.noLink {
		return errNotHere
	}
	if err := opts.making(ctx, st.etag(dst.Bucket)); err != nil {
		return err
	}
	d.pins.Lock()
	defer d.pins.Unlock()
	before, p, err := d.checkPinLocked(f)
	if err != nil {
		return err
	}
	if !before.sameBytes(st) {
		return errMoved
	}
	if p == nil {
		p = &pin{Names: 1}
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
		if p.Source.Key == "" {
			p.Source = dst // should it be moved
		}
		p.note(after)
		err = d.savePin(p, true)
	}
	if err != nil {
		err = errors.Join(err, unlinkAt(parent, name, 0))
	}
	return err
}

// marked reports whether this is the file that an export to dst gave its name. The mark
// of a copy is of that one file; that of a link is the image's own, whose bytes are in the
// image area whatever becomes of the name.
func (st fileState) marked(dst Location, mark string) bool {
	return mark != "" && st.regular() && st.etag(dst.Bucket) == mark
}

// Unexport implements Store. Folders that the export made stay: they are no objects, and
// may be somebody else's by now.
func (d *Dir) Unexport(ctx context.Context, dst Location, opts ExportOptions) error {
	return fail("undo export", dst, d.unexport(ctx, dst, opts))
}

func (d *Dir) unexport(ctx context.Context, dst Location, opts ExportOptions) error {
	if err := checkExported(dst); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	top, done, err := d.area(dst.Bucket)
	if errors.Is(err, ErrNoBucket) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	parent, name, err := openParent(top, dst.Key)
	if err == nil {
		defer parent.Close()
		var there fileState
		if there, err = statAt(parent, name); err == nil && there.marked(dst, opts.Made) {
			err = unlinkAt(parent, name, 0)
		}
	}
	switch {
	case err == nil:
		return classify(d.syncFolder(parent))
	case isAbsent(err):
		return nil
	}
	return classify(err)
}
