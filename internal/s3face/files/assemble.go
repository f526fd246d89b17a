package files

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Complete makes an object of the upload's parts, in the order given, and
// removes the upload. The upload must be frozen, and the parts be of its Parts.
// condition may be nil. After an error the upload can be completed again.
func (u *Upload) Complete(ctx context.Context, parts []Part, r *Record, condition Condition) (*Object, error) {
	f, dir, name, err := u.assemble(ctx, parts)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	defer f.Close()
	r.Upload = u.ID
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if name == "data" {
		// From here on nobody may write to data: it is an object's file.
		if _, err := u.frozen.WriteAt([]byte{stateClosed}, 0); err != nil {
			return nil, err
		}
	}
	o, err := u.b.publish(f, dir, name, u.Info.Key, r, condition)
	if err != nil {
		if name == "data" {
			// Once the rename is done, data is an object's file, whatever failed after it:
			// the upload stays closed, so that no late part writes into the object.
			if _, gone := statAt(u.dir, "data"); gone == nil {
				_, _ = u.frozen.WriteAt([]byte{0}, 0) // else Freeze does it
			}
		} else {
			_ = unlinkAt(dir, name, 0)
		}
		return nil, err
	}
	if err := u.remove(); err != nil {
		u.b.store.log.Warn("what a completed upload left cannot be removed", "bucket", u.b.name, "upload", u.ID, "error", err)
	}
	u.frozen.Close() // whoever waits to write a part finds out now
	u.frozen = nil
	return o, nil
}

// assemble puts the parts together in one file, and returns it with its place.
func (u *Upload) assemble(ctx context.Context, parts []Part) (f, dir *os.File, name string, err error) {
	data, err := openAt(u.dir, "data", unix.O_RDWR, 0)
	if err != nil {
		return nil, nil, "", u.gone(err)
	}
	stride, err := u.stride(0)
	if err != nil {
		data.Close()
		return nil, nil, "", err
	}
	fi, err := data.Stat()
	if err != nil {
		data.Close()
		return nil, nil, "", err
	}
	if err := u.reached(parts, stride, fi.Size()); err != nil {
		data.Close()
		return nil, nil, "", err
	}
	if aligned(parts, stride) {
		if err = u.fill(ctx, data, parts, stride); err == nil {
			dir, err = openDir(u.dir, "")
		}
		if err != nil {
			data.Close()
			return nil, nil, "", err
		}
		return data, dir, "data", nil
	}
	defer data.Close()
	return u.copyParts(ctx, data, parts, stride)
}

// reached checks that data reaches to the end of each part that lies in it. It
// does not after a completion was cut off that had left out some.
func (u *Upload) reached(parts []Part, stride, size int64) error {
	for _, p := range parts {
		if p.File == "" && p.Size > 0 && int64(p.Number-1)*stride+p.Size > size {
			return &LostPart{p.Number}
		}
	}
	return nil
}

// LostPart says that a part has to be sent again.
type LostPart struct{ Number int }

// Error implements error.
func (e *LostPart) Error() string { return fmt.Sprintf("part %d is lost; send it again", e.Number) }

// aligned reports whether the parts lie, or fit, side by side in data.
func aligned(parts []Part, stride int64) bool {
	if stride <= 0 || int64(len(parts))*stride > maxData {
		return false
	}
	for i, p := range parts {
		last := i == len(parts)-1
		if p.Number != i+1 || p.Size > stride || p.Size < stride && !last {
			return false
		}
	}
	return true
}

// fill copies the parts that have files of their own to their slots, and cuts
// data off where the object ends.
func (u *Upload) fill(ctx context.Context, data *os.File, parts []Part, stride int64) error {
	var end int64
	for _, p := range parts {
		off := int64(p.Number-1) * stride
		end = off + p.Size
		if p.File == "" {
			continue
		}
		own, err := openAt(u.dir, "files/"+p.File, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if err = clear(data, off, stride); err == nil {
			err = u.b.store.copyRange(ctx, data, off, own, 0, p.Size)
		}
		own.Close()
		if err != nil {
			return err
		}
	}
	return data.Truncate(end)
}

// copyParts copies the parts to a new file, one behind the other.
func (u *Upload) copyParts(ctx context.Context, data *os.File, parts []Part, stride int64) (f, dir *os.File, name string, err error) {
	if dir, err = openDir(u.dir, "files"); err != nil {
		return nil, nil, "", u.gone(err)
	}
	t, err := u.b.createIn(dir)
	if err != nil {
		dir.Close()
		return nil, nil, "", err
	}
	for _, p := range parts {
		src, off := data, int64(p.Number-1)*stride
		if p.File != "" {
			if src, err = openAt(u.dir, "files/"+p.File, unix.O_RDONLY, 0); err != nil {
				break
			}
			off = 0
		}
		err = t.CopyRange(ctx, src, off, p.Size)
		if p.File != "" {
			src.Close()
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = t.f.Truncate(t.off)
	}
	if err != nil {
		t.Discard()
		return nil, nil, "", err
	}
	return t.f, dir, t.name, nil
}
