package objectstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
)

var src = objectstore.Location{Bucket: "source", Key: "folder/disk.raw"}

func image(key string) objectstore.Location { return objectstore.Location{Key: key} }

func stat(t *testing.T, s objectstore.Store, loc objectstore.Location) objectstore.ObjectInfo {
	t.Helper()
	info, err := s.Stat(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func adopt(t *testing.T, s objectstore.Store, from, to objectstore.Location) objectstore.ObjectInfo {
	t.Helper()
	info, err := s.Adopt(t.Context(), from, stat(t, s, from).Condition(), to, objectstore.AdoptOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func read(t *testing.T, s objectstore.Store, loc objectstore.Location, info objectstore.ObjectInfo) ([]byte, error) {
	t.Helper()
	body, err := s.Open(t.Context(), loc, info.Condition(), 0, info.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func wantRead(t *testing.T, s objectstore.Store, loc objectstore.Location, info objectstore.ObjectInfo, want []byte) {
	t.Helper()
	if got, err := read(t, s, loc, info); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %s: %d bytes, %v; want the %d adopted", loc, len(got), err, len(want))
	}
}

func wantChanged(t *testing.T, s objectstore.Store, loc objectstore.Location, info objectstore.ObjectInfo) {
	t.Helper()
	if got, err := read(t, s, loc, info); !errors.Is(err, objectstore.ErrChanged) || len(got) != 0 {
		t.Errorf("read %s: %d bytes, %v; want ErrChanged and no byte", loc, len(got), err)
	}
}

func changeTime(t *testing.T, path string) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ctim
}

// onNextTick does something to a file until its change time is another one: a
// kernel's coarse clock may stand still meanwhile.
func onNextTick(t *testing.T, path string, do func()) {
	t.Helper()
	for before := changeTime(t, path); ; {
		do()
		if changeTime(t, path) != before {
			return
		}
	}
}

// overwrite writes to a file in place.
func overwrite(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// overwriteQuietly writes to a file in place and puts its modification time back.
func overwriteQuietly(t *testing.T, path, text string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	onNextTick(t, path, func() {
		overwrite(t, path, text)
		if err := os.Chtimes(path, time.Time{}, st.ModTime()); err != nil {
			t.Fatal(err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// linkedImage is a directory store with an image that is a hard link.
type linkedImage struct {
	dirStore
	path    string // of the source
	content []byte
	loc     objectstore.Location
	info    objectstore.ObjectInfo
}

func newLinkedImage(t *testing.T) linkedImage {
	t.Helper()
	l := linkedImage{dirStore: newDirStore(t, t.TempDir()), content: bytes.Repeat([]byte("content "), 1000), loc: image("image/1/data")}
	l.path = l.dirStore.path(src.Bucket, src.Key)
	l.write(t, src.Bucket, src.Key, l.content)
	l.info = adopt(t, l, src, l.loc)
	a, err1 := os.Stat(l.path)
	b, err2 := os.Stat(filepath.Join(l.images, l.loc.Key))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if !os.SameFile(a, b) {
		t.Skip("the file system clones files; nothing is linked")
	}
	return l
}

// TestLinkedImageAndItsSource: what may happen to the source of an image that
// is a link to it, and what the image's readers are told.
func TestLinkedImageAndItsSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sound bool // the image's bytes are still those adopted
		do    func(t *testing.T, l linkedImage)
	}{
		{"nothing", true, func(*testing.T, linkedImage) {}},
		{"removed", true, func(t *testing.T, l linkedImage) { must(t, os.Remove(l.path)) }},
		{"uploaded anew", true, func(t *testing.T, l linkedImage) { l.write(t, src.Bucket, src.Key, []byte("other")) }},
		{"its bucket removed", true, func(t *testing.T, l linkedImage) { must(t, os.RemoveAll(filepath.Join(l.buckets, src.Bucket))) }},
		{"linked by somebody", true, func(t *testing.T, l linkedImage) { must(t, os.Link(l.path, l.path+".2")) }},
		{"mode set", true, func(t *testing.T, l linkedImage) { onNextTick(t, l.path, func() { must(t, os.Chmod(l.path, 0o640)) }) }},
		{"moved", true, func(t *testing.T, l linkedImage) { must(t, os.Rename(l.path, l.path+".moved")) }},
		{"its folder moved", true, func(t *testing.T, l linkedImage) {
			must(t, os.Rename(filepath.Dir(l.path), filepath.Join(l.buckets, src.Bucket, "elsewhere")))
		}},
		{"read", true, func(t *testing.T, l linkedImage) {
			_, err := os.ReadFile(l.path)
			must(t, err)
		}},
		{"written to", false, func(t *testing.T, l linkedImage) { overwrite(t, l.path, "changed") }},
		{"written to with its time put back", false, func(t *testing.T, l linkedImage) { overwriteQuietly(t, l.path, "changed") }},
		{"written to quietly, then removed", false, func(t *testing.T, l linkedImage) {
			overwriteQuietly(t, l.path, "changed")
			wantChanged(t, l, l.loc, l.info)
			must(t, os.Remove(l.path))
		}},
		{"moved, then written to quietly", false, func(t *testing.T, l linkedImage) {
			moved := l.path + ".moved"
			must(t, os.Rename(l.path, moved))
			wantRead(t, l, l.loc, l.info, l.content)
			overwriteQuietly(t, moved, "changed")
		}},
		{"truncated", false, func(t *testing.T, l linkedImage) { must(t, os.Truncate(l.path, 10)) }},
		{"appended to", false, func(t *testing.T, l linkedImage) { must(t, os.Truncate(l.path, 1<<20)) }},
		{"its time set", false, func(t *testing.T, l linkedImage) { must(t, os.Chtimes(l.path, time.Time{}, time.Unix(1, 0))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLinkedImage(t)
			held := hold(t, l, l.loc, l.info)
			c.do(t, l)
			for range 2 { // what is found is remembered
				p := make([]byte, len(l.content))
				err := held.ReadAt(t.Context(), p, 0)
				if c.sound {
					wantRead(t, l, l.loc, l.info, l.content)
					if err != nil || !bytes.Equal(p, l.content) {
						t.Errorf("what was held open reads with error %v, or as other bytes", err)
					}
				} else {
					wantChanged(t, l, l.loc, l.info)
					if !errors.Is(err, objectstore.ErrChanged) && !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("what was held open reads with error %v", err)
					}
				}
			}
			_, err := l.Stat(t.Context(), l.loc)
			if err != nil && c.sound {
				t.Errorf("Stat: %v", err)
			}
			must(t, l.Delete(t.Context(), l.loc)) // in any case it can be deleted
			if left, err := os.ReadDir(filepath.Join(l.images, ".pins")); err != nil || len(left) != 0 {
				t.Errorf("pins left: %v, %v", left, err)
			}
		})
	}
}

func TestWriteWhileImageIsRead(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*testing.T, string, string){"plainly": overwrite, "quietly": overwriteQuietly} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLinkedImage(t)
			body, err := l.Open(t.Context(), l.loc, l.info.Condition(), 0, l.info.Size)
			must(t, err)
			defer body.Close()
			_, err = io.ReadFull(body, make([]byte, 100))
			must(t, err)
			write(t, l.path, "changed")
			if n, err := body.Read(make([]byte, 100)); n != 0 || !errors.Is(err, objectstore.ErrChanged) {
				t.Errorf("read on: %d bytes, %v", n, err)
			}
		})
	}
}

func TestWriteWhileSourceIsRead(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.write(t, src.Bucket, src.Key, bytes.Repeat([]byte("x"), 1000))
	info := stat(t, s, src)
	body, err := s.Open(t.Context(), src, info.Condition(), 0, 1000)
	must(t, err)
	defer body.Close()
	_, err = io.ReadFull(body, make([]byte, 100))
	must(t, err)
	overwriteQuietly(t, s.path(src.Bucket, src.Key), "changed")
	if n, err := body.Read(make([]byte, 100)); n != 0 || !errors.Is(err, objectstore.ErrChanged) {
		t.Errorf("read on: %d bytes, %v", n, err)
	}
}

// TestTwoImagesOfOneFile: the images of one inode share its fate, and deleting
// one does not change what is known of the other.
func TestTwoImagesOfOneFile(t *testing.T) {
	t.Parallel()
	l := newLinkedImage(t)
	second, third := image("image/2/data"), image("image/3/data")
	info2 := adopt(t, l, src, second)
	info3 := adopt(t, l, src, third)
	must(t, l.Delete(t.Context(), third))
	wantRead(t, l, l.loc, l.info, l.content)
	wantRead(t, l, second, info2, l.content)

	overwriteQuietly(t, l.path, "changed")
	must(t, l.Delete(t.Context(), second)) // a new link count explains nothing that came before it
	wantChanged(t, l, l.loc, l.info)

	// The source as it is now is a fine source: its image has to be a copy.
	now := bytes.Clone(l.content)
	copy(now, "changed")
	fresh := adopt(t, l, src, third)
	wantRead(t, l, third, fresh, now)
	overwrite(t, l.path, "and again")
	wantRead(t, l, third, fresh, now)
	wantChanged(t, l, l.loc, l.info)
	_ = info3
}

func TestAcceptMakesTouchedImageReadable(t *testing.T) {
	t.Parallel()
	l := newLinkedImage(t)
	overwriteQuietly(t, l.path, "content ") // the bytes that were there
	wantChanged(t, l, l.loc, l.info)
	must(t, l.Accept(t.Context(), l.loc))
	wantRead(t, l, l.loc, l.info, l.content)
	overwriteQuietly(t, l.path, "changed")
	wantChanged(t, l, l.loc, l.info)
}

// TestImageAreaFromBackup: an image area that was copied to another disk reads
// as before, with its notes on inodes that are no longer the same and without.
func TestImageAreaFromBackup(t *testing.T) {
	t.Parallel()
	for _, keepPins := range []bool{true, false} {
		l := newLinkedImage(t)
		base := t.TempDir()
		if out, err := exec.Command("cp", "-a", l.buckets, l.images, base).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
		if !keepPins {
			must(t, os.RemoveAll(filepath.Join(base, "images", ".pins")))
		}
		restored := newDirStore(t, base)
		// cp keeps the link between source and image, as backups may.
		wantRead(t, restored, l.loc, l.info, l.content)
		overwrite(t, restored.path(src.Bucket, src.Key), "changed")
		wantChanged(t, restored, l.loc, l.info)
	}
}

// TestStatIsFitToPin: a write right behind Stat, which may come in the same tick
// of the clock that stamps files, is noticed.
func TestStatIsFitToPin(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	path := s.path(src.Bucket, src.Key)
	s.write(t, src.Bucket, src.Key, []byte("generation 00"))
	for range 20 {
		overwrite(t, path, "generation 01")
		info := stat(t, s, src)
		overwrite(t, path, "generation 02")
		if _, err := s.Open(t.Context(), src, info.Condition(), 0, 1); !errors.Is(err, objectstore.ErrChanged) {
			t.Fatalf("open after a write: %v", err)
		}
	}
}

// beingWritten is a context under which something is written to whenever the context is
// asked whether it has ended, which is right before each look: a goroutine that writes
// all the time would pause for longer than a file must rest on a busy machine.
type beingWritten struct {
	context.Context
	write func()
}

func (b beingWritten) Err() error {
	b.write()
	return b.Context.Err()
}

// TestStatOfFileBeingWritten: a file that is written to all the time is refused for now.
func TestStatOfFileBeingWritten(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.write(t, src.Bucket, src.Key, []byte("x"))
	path := s.path(src.Bucket, src.Key)
	writes := 0
	ctx := beingWritten{t.Context(), func() {
		writes++
		now := time.Now()
		must(t, os.Chtimes(path, now, now)) // what a write does to the time
	}}
	// The test itself may pause between a write and the look at it.
	_, err := s.Stat(ctx, src)
	for try := 0; err == nil && try < 100; try++ {
		_, err = s.Stat(ctx, src)
	}
	if !errors.Is(err, objectstore.ErrUnavailable) || writes < 5 {
		t.Errorf("Stat: %v after %d writes, want ErrUnavailable", err, writes)
	}
	must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))) // a time to come is no reason to wait
	stat(t, s, src)
}

// TestUnsettled: a file is at rest when a tick of the clock that stamps it has passed
// before it was looked at. That one passed since says nothing: it may have been written
// to behind the look, in the tick of its time.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	written := time.Unix(1_700_000_000, 123_456_789)
	second := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name                string
		mtime               time.Time
		before, after, want time.Duration // since written
	}{
		{"long ago", written, time.Hour, time.Hour, 0},
		{"just now", written, ms, ms, 19 * ms},
		{"a pause behind the look", written, ms, time.Second, 19 * ms},
		{"a pause before the look, written to in it", written, -time.Second, ms, 1020 * ms},
		{"a time to come", written, -time.Hour, -time.Hour, 0},
		{"whole seconds", second, 21 * ms, 21 * ms, 1999 * ms},
		{"whole seconds, long ago", second, 3 * time.Second, 3 * time.Second, 0},
	} {
		if got := objectstore.Unsettled(c.mtime, c.mtime, c.mtime.Add(c.before), c.mtime.Add(c.after)); got != c.want {
			t.Errorf("%s: rests after %v, want %v", c.name, got, c.want)
		}
	}
}

// TestPinOfAnEarlierFile: inode numbers are given out again, and a note on the
// file that had one before says nothing of the file that has it now.
func TestPinOfAnEarlierFile(t *testing.T) {
	t.Parallel()
	l := newLinkedImage(t)
	var st unix.Stat_t
	must(t, unix.Stat(l.path, &st))
	path := filepath.Join(l.images, ".pins", strconv.FormatUint(st.Ino, 16))
	text, err := os.ReadFile(path)
	must(t, err)
	var note map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	must(t, decoder.Decode(&note))
	note["broken"] = true
	for _, earlier := range []bool{false, true} {
		if earlier {
			note["born"] = 1
		}
		text, err = json.Marshal(note)
		must(t, err)
		must(t, os.WriteFile(path, text, 0o600))
		if earlier {
			wantRead(t, l, l.loc, l.info, l.content)
		} else {
			wantChanged(t, l, l.loc, l.info)
		}
	}
	must(t, os.WriteFile(path, text[:len(text)/2], 0o600)) // a power cut in the middle of writing it
	wantRead(t, l, l.loc, l.info, l.content)
}

// TestWriteWhileAdopted: a source that is written to at any moment of its
// adoption gives an image of the pinned bytes, or none; reads of it give those
// bytes, or fail.
func TestWriteWhileAdopted(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	pinned, other := bytes.Repeat([]byte("pinned"), 2000), bytes.Repeat([]byte("other!"), 2000)
	adopted := 0
	for i := range 60 {
		from := objectstore.Location{Bucket: src.Bucket, Key: strconv.Itoa(i)}
		to := image("race/" + from.Key)
		s.write(t, from.Bucket, from.Key, pinned)
		info := stat(t, s, from)
		written := make(chan struct{})
		timer := time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() {
			defer close(written)
			f, err := os.OpenFile(s.path(from.Bucket, from.Key), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.Write(other)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
		made, err := s.Adopt(t.Context(), from, info.Condition(), to, objectstore.AdoptOptions{})
		if err != nil && !errors.Is(err, objectstore.ErrChanged) {
			t.Errorf("write %d: %v", i, err)
		}
		reads := func() {
			if got, err := read(t, s, to, made); err != nil && !errors.Is(err, objectstore.ErrChanged) || err == nil && !bytes.Equal(got, pinned) {
				t.Errorf("write %d: read %.12q, %v", i, got, err)
			}
		}
		if err == nil {
			adopted++
			reads()
		}
		if !timer.Stop() {
			<-written
		}
		if err == nil {
			reads()
		} else if _, err := s.Stat(t.Context(), to); !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("write %d: a failed adoption left something: %v", i, err)
		}
	}
	t.Logf("%d of 60 were adopted before the write", adopted)
}
