package objectstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin is what the driver notes of an inode that it linked into the image area,
// in .pins/<inode number in hex>. A linked file has names outside the image
// area too, and through those somebody may write to it. Such a write changes
// the modification time, which the image's ETag holds; the pin is for the write
// whose author puts the modification time back, which he cannot do to the
// change time.
type pin struct {
	Ino   uint64 `json:"ino"`
	Born  int64  `json:"born"` // with Ino the file's identity: inode numbers are given out again
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Ctime int64  `json:"ctime"`
	Nlink uint32 `json:"nlink"`
	Mode  uint16 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`

	// Names is how many names in the image area the file has. With the last
	// of them the pin goes.
	Names int `json:"names"`
	// Source is where the file was linked from, empty once it was seen to be
	// no longer there: moving a file changes its change time too.
	Source Location `json:"source"`
	// Broken: the file was touched, and nothing that came later mends that.
	Broken bool `json:"broken,omitempty"`
}

func (p *pin) state() fileState {
	return fileState{ino: p.Ino, born: p.Born, size: p.Size, mtime: p.Mtime, ctime: p.Ctime,
		nlink: p.Nlink, mode: p.Mode, uid: p.UID, gid: p.GID}
}

func (p *pin) note(st fileState) {
	p.Ino, p.Born, p.Size, p.Mtime, p.Ctime = st.ino, st.born, st.size, st.mtime, st.ctime
	p.Nlink, p.Mode, p.UID, p.GID = st.nlink, st.mode, st.uid, st.gid
}

// checkPin returns the state of an open file of the image area, or ErrChanged
// when somebody else touched it since it was pinned:
//
//   - size or modification time differ: written to;
//   - the change time differs and nothing accounts for it: written to, and the
//     modification time put back. What accounts for it is another link count
//     (another name was made or removed: the source deleted), another mode or
//     owner, or the source's name being gone (moved). It is then pinned anew.
//
// A file with one name is ours alone and its change time does not matter. A
// file without a pin, as after a restored backup, is pinned as it is.
func (d *Dir) checkPin(f *os.File) (fileState, error) {
	d.pins.Lock()
	defer d.pins.Unlock()
	st, _, err := d.checkPinLocked(f)
	return st, err
}

// checkPinLocked is checkPin for a caller that holds the lock; it also returns
// the file's pin, nil if it needs none.
func (d *Dir) checkPinLocked(f *os.File) (fileState, *pin, error) {
	st, err := stateOf(f)
	if err != nil {
		return st, nil, classify(err)
	}
	p := d.loadPin(st)
	touched := func(what string) (fileState, *pin, error) {
		return st, p, fmt.Errorf("%w: its file was %s after it was linked into the image area (inode %d)", ErrChanged, what, st.ino)
	}
	switch {
	case p == nil && st.nlink <= 1:
		return st, nil, nil
	case p == nil:
		p = &pin{Names: 1}
	case p.Broken:
		return touched("touched")
	case !st.sameBytes(p.state()):
		return touched("written to")
	case st.nlink <= 1 || st.ctime == p.Ctime:
		return st, p, nil
	case st.explains(p.state()):
	case d.sourceMoved(p):
		p.Source = Location{}
	default:
		p.Broken = true
		_ = d.savePin(p, false) // found again with the next read if this fails
		return touched("touched")
	}
	p.note(st)
	_ = d.savePin(p, false) // as above: what explains it now explains it again
	return st, p, nil
}

// sourceMoved reports whether the name that a file was linked from no longer
// names it.
func (d *Dir) sourceMoved(p *pin) bool {
	if p.Source.Key == "" {
		return false
	}
	top, done, err := d.area(p.Source.Bucket)
	if err != nil {
		return errors.Is(err, ErrNoBucket)
	}
	defer done()
	parent, name, err := openParent(top, p.Source.Key)
	if err != nil {
		return isAbsent(err)
	}
	defer parent.Close()
	st, err := statAt(parent, name)
	if err != nil {
		return isAbsent(err)
	}
	return st.ino != p.Ino
}

func pinName(ino uint64) string { return strconv.FormatUint(ino, 16) }

// maxPin bounds a pin's file: the numbers, a bucket's name and a key of 1 KiB
// whose every byte may be escaped to six.
const maxPin = 8 << 10

// loadPin returns the pin of the file in this state, nil if it has none. One
// that cannot be read, as after a power cut, or that is of an earlier file with
// this inode number, is none.
func (d *Dir) loadPin(st fileState) *pin {
	folder, err := openFolderAt(d.images, pinFolder)
	if err != nil {
		return nil
	}
	defer folder.Close()
	f, err := openAt(folder, pinName(st.ino), unix.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPin))
	p := new(pin)
	if err != nil || json.Unmarshal(text, p) != nil || p.Ino != st.ino || p.Born != st.born {
		return nil
	}
	return p
}

// savePin writes a pin in one step. With durable it also survives a power cut:
// that is for pins that note what the driver did itself. Two such changes of
// which the second undoes the first's link count would otherwise look like a
// stranger's when both their pins are lost.
func (d *Dir) savePin(p *pin, durable bool) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	folder, err := openFolderAt(d.images, pinFolder)
	if err != nil {
		return classify(err)
	}
	defer folder.Close()
	fresh := pinName(p.Ino) + ".new"
	f, err := openAt(folder, fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return classify(err)
	}
	_, err = f.Write(text)
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = unix.Renameat(int(folder.Fd()), fresh, int(folder.Fd()), pinName(p.Ino))
	}
	if err == nil && durable {
		err = folder.Sync()
	}
	if err != nil {
		_ = unlinkAt(folder, fresh, 0)
	}
	return classify(err)
}

func (d *Dir) dropPin(ino uint64) error {
	folder, err := openFolderAt(d.images, pinFolder)
	if err != nil {
		return classify(err)
	}
	defer folder.Close()
	if err := unlinkAt(folder, pinName(ino), 0); err != nil && !isAbsent(err) {
		return classify(err)
	}
	return nil
}

// Accept pins an object of the image area as it is now, for one whose reads
// fail with ErrChanged though its bytes were proved right by other means, such
// as block checksums. It does not help when size or modification time differ
// from the object's ETag.
func (d *Dir) Accept(ctx context.Context, loc Location) error {
	err := checkTarget(loc)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fail("accept", loc, err)
	}
	f, _, err := d.open(loc)
	if err != nil {
		return fail("accept", loc, err)
	}
	defer f.Close()
	d.pins.Lock()
	defer d.pins.Unlock()
	st, err := stateOf(f)
	if err != nil {
		return fail("accept", loc, classify(err))
	}
	p := d.loadPin(st)
	if p == nil {
		p = &pin{Names: 1}
	}
	p.Broken = false
	p.note(st)
	return fail("accept", loc, d.savePin(p, true))
}
