package objectstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/objectstore/storetest"
)

// TestWhatIsNoObject: links, pipes, sockets, devices and folders in a bucket are
// as good as absent, and looking at them hangs nobody.
func TestWhatIsNoObject(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.write(t, "bucket", "file", []byte("x"))
	s.write(t, "bucket", ".sgwtmp/multipart/part", []byte("x"))
	s.write(t, "bucket", ".file.sgwtmp.1700000000", []byte("x"))
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Symlink(secret, s.path("bucket", "link-out")))
	must(t, os.Symlink(filepath.Dir(secret), s.path("bucket", "folder-link-out")))
	must(t, os.Symlink("file", s.path("bucket", "link-in")))
	must(t, os.Symlink(".", s.path("bucket", "folder-link-in")))
	must(t, os.Symlink("bucket", filepath.Join(s.buckets, "linked-bucket")))
	must(t, os.WriteFile(filepath.Join(s.buckets, "plain-file"), nil, 0o600))
	must(t, unix.Mkfifo(s.path("bucket", "pipe"), 0o600))
	names := []string{"link-out", "folder-link-out/secret", "link-in", "folder-link-in/file", "pipe", "folder-link-in", ".sgwtmp/multipart/part", ".file.sgwtmp.1700000000"}
	if path := s.path("bucket", "socket"); len(path) < 100 {
		l, err := net.Listen("unix", path)
		must(t, err)
		defer l.Close()
		names = append(names, "socket")
	}
	if err := unix.Mknod(s.path("bucket", "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err == nil { // /dev/zero; root alone may
		names = append(names, "device")
	}
	for _, name := range names {
		loc := objectstore.Location{Bucket: "bucket", Key: name}
		_, err := s.Stat(t.Context(), loc)
		if !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("Stat of %s: %v", name, err)
		}
		if _, err := s.Open(t.Context(), loc, objectstore.Condition{}, 0, 1); !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("Open of %s: %v", name, err)
		}
		if _, err := s.Adopt(t.Context(), loc, objectstore.Condition{}, image("never"), objectstore.AdoptOptions{}); !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("Adopt of %s: %v", name, err)
		}
	}
	for _, name := range []string{"linked-bucket", "plain-file"} {
		if _, err := s.StatBucket(t.Context(), name); !errors.Is(err, objectstore.ErrNoBucket) {
			t.Errorf("StatBucket of %s: %v", name, err)
		}
	}
	if all, err := s.List(t.Context(), "bucket", "", "", 100); err != nil || len(all) != 1 || all[0].Key != "file" {
		t.Errorf("List: %v, %v", all, err)
	}
}

// sparseFile makes a file of a size with text at some offsets.
func sparseFile(t *testing.T, path string, size int64, text string, at ...int64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte(text), off)
		must(t, err)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	return st.Sys().(*syscall.Stat_t).Blocks
}

// TestAdoptOneTebibyte: the size of a file costs nothing, whichever way it is
// adopted.
func TestAdoptOneTebibyte(t *testing.T) {
	t.Parallel()
	const size = 1 << 40
	for _, copying := range []bool{false, true} {
		s := newDirStore(t, t.TempDir())
		if copying {
			s.ForceCopy()
		}
		path := s.path(src.Bucket, src.Key)
		marks := []int64{0, 1 << 30, 777 << 30, size - 6}
		sparseFile(t, path, size, "marked", marks...)
		pinned := stat(t, s, src)
		start, calls := time.Now(), 0
		info, err := s.Adopt(t.Context(), src, pinned.Condition(), image("tebi/data"), objectstore.AdoptOptions{
			Progress: func(int64, int64) { calls++ },
		})
		must(t, err)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("copying %v: adoption took %s", copying, took)
		} else {
			t.Logf("copying %v: adopted 1 TiB in %s", copying, took)
		}
		if copying && calls < len(marks) {
			t.Errorf("progress was told %d times", calls)
		}
		if got := blocks(t, filepath.Join(s.images, "tebi/data")); got > 2*blocks(t, path) {
			t.Errorf("copying %v: the image takes %d blocks", copying, got)
		}
		must(t, os.Remove(path))
		r := objectstore.NewReaderAt(t.Context(), s, image("tebi/data"), info)
		for _, off := range marks {
			p := make([]byte, 6)
			if _, err := r.ReadAt(p, off); err != nil || string(p) != "marked" {
				t.Errorf("copying %v: at %d: %q, %v", copying, off, p, err)
			}
		}
		p := make([]byte, 4096)
		if _, err := r.ReadAt(p, 5<<30); err != nil || !bytes.Equal(p, make([]byte, 4096)) {
			t.Errorf("copying %v: a hole reads %v", copying, err)
		}
	}
}

// TestCopyNoticesWrites: a source that is written to while it is copied.
func TestCopyNoticesWrites(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.ForceCopy()
	path := s.path(src.Bucket, src.Key)
	sparseFile(t, path, 1<<30, "data", 0, 100<<20, 900<<20)
	for name, write := range map[string]func(){
		"plainly":   func() { overwrite(t, path, "changed") },
		"quietly":   func() { overwriteQuietly(t, path, "changed") },
		"truncated": func() { must(t, os.Truncate(path, 10)) },
	} {
		pinned := stat(t, s, src)
		wrote := false
		_, err := s.Adopt(t.Context(), src, pinned.Condition(), image("noticed/data"), objectstore.AdoptOptions{
			Progress: func(int64, int64) {
				if !wrote {
					wrote = true
					write()
				}
			},
		})
		if !errors.Is(err, objectstore.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
		sparseFile(t, path, 1<<30, "data", 0, 100<<20, 900<<20)
	}
	wantEmptyImageArea(t, s)
}

// wantEmptyImageArea checks that no file is left in an image area, under
// whatever name.
func wantEmptyImageArea(t *testing.T, s dirStore) {
	t.Helper()
	must(t, filepath.WalkDir(s.images, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("left behind: %s", path)
		}
		return err
	}))
}

// TestListBigFolder pages through more names than a listing holds in memory.
func TestListBigFolder(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	const files = 2*objectstore.MaxList + 345
	must(t, os.MkdirAll(s.path("bucket", "f"), 0o755))
	for i := range files {
		must(t, os.WriteFile(s.path("bucket", fmt.Sprintf("f/%05d", i)), nil, 0o600))
	}
	must(t, os.Mkdir(s.path("bucket", "f/00000-empty"), 0o755))
	after := ""
	for next := 0; next < files; {
		page, err := s.List(t.Context(), "bucket", "f/", after, 700)
		must(t, err)
		if len(page) != min(700, files-next) {
			t.Fatalf("after %q: %d names", after, len(page))
		}
		for _, o := range page {
			if after = fmt.Sprintf("f/%05d", next); o.Key != after {
				t.Fatalf("listed %s, want %s", o.Key, after)
			}
			next++
		}
	}
	// Folders without a file fill a page of names, and no page of objects.
	for i := range objectstore.MaxList + 10 {
		must(t, os.Mkdir(s.path("bucket", fmt.Sprintf("e%05d", i)), 0o755))
	}
	if page, err := s.List(t.Context(), "bucket", "", "", 1); err != nil || len(page) != 1 || page[0].Key != "f/00000" {
		t.Errorf("behind empty folders: %v, %v", page, err)
	}
}

func TestDeletePrunesFolders(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	for _, key := range []string{"a/b/c/1", "a/b/2"} {
		_, err := s.Put(t.Context(), image(key), strings.NewReader("x"), 1, objectstore.PutOptions{})
		must(t, err)
	}
	must(t, s.Delete(t.Context(), image("a/b/c/1")))
	if _, err := os.Stat(filepath.Join(s.images, "a/b/c")); !os.IsNotExist(err) {
		t.Errorf("a/b/c: %v", err)
	}
	must(t, s.Delete(t.Context(), image("a/b/2")))
	if _, err := os.Stat(filepath.Join(s.images, "a")); !os.IsNotExist(err) {
		t.Errorf("a: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(s.images, "x/y/z"), 0o755)) // a crash in a deletion
	must(t, s.Delete(t.Context(), image("x/y/z/gone")))
	if _, err := os.Stat(filepath.Join(s.images, "x")); !os.IsNotExist(err) {
		t.Errorf("x: %v", err)
	}
	wantEmptyImageArea(t, s)
}

// TestOpenSweepsTemporaryFiles: what a killed process left goes with the next
// start; what may be in use stays.
func TestOpenSweepsTemporaryFiles(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	fresh := filepath.Join(s.images, ".tmp", "fresh")
	must(t, os.WriteFile(fresh, []byte("x"), 0o600))
	newDirStore(t, filepath.Dir(s.images))
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a fresh file: %v", err)
	}
	must(t, s.SweepTemp(time.Now().Add(2*time.Hour)))
	wantEmptyImageArea(t, s)
}

func TestOpenDirRefusesFoldersInOneAnother(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(base, "a/b"), 0o755))
	must(t, os.Symlink("a", filepath.Join(base, "link")))
	for _, pair := range [][2]string{{"a", "a/b"}, {"a/b", "a"}, {"a", "a"}, {"a", "link/b"}, {"a", "none"}, {"none", "a"}} {
		s, err := objectstore.OpenDir(filepath.Join(base, pair[0]), filepath.Join(base, pair[1]))
		if err == nil {
			s.Close()
			t.Errorf("OpenDir(%q, %q) succeeded", pair[0], pair[1])
		}
	}
}

// TestAdoptAcrossFileSystems copies, and the copy is whole.
func TestAdoptAcrossFileSystems(t *testing.T) {
	t.Parallel()
	shm, err := os.MkdirTemp("/dev/shm", "quickims-test")
	if err != nil {
		t.Skip("no second file system: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	buckets := t.TempDir()
	if device(t, shm) == device(t, buckets) {
		t.Skip("/dev/shm and the temporary folder are one file system")
	}
	s := dirStore{buckets: buckets, images: shm}
	s.Dir, err = objectstore.OpenDir(buckets, shm)
	must(t, err)
	defer s.Close()
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	s.write(t, src.Bucket, src.Key, content)
	info := adopt(t, s, src, image("far/data"))
	must(t, os.Remove(s.path(src.Bucket, src.Key)))
	wantRead(t, s, image("far/data"), info, content)
}

func device(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Dev
}

// TestAdoptAnothersFile: the kernel does not let a user link a file that is
// another's and that he may not write (fs.protected_hardlinks); one that he may
// not read is none he can adopt.
func TestAdoptAnothersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can play two users")
	}
	base := t.TempDir()
	const nobody = 65534
	s := newDirStore(t, base)
	s.write(t, "bucket", "readable", []byte("content"))
	must(t, os.Chmod(s.path("bucket", "readable"), 0o644))
	s.write(t, "bucket", "private", []byte("content")) // mode 0600
	for _, dir := range []string{s.images, filepath.Join(s.images, ".pins"), filepath.Join(s.images, ".tmp")} {
		must(t, os.Chown(dir, nobody, nobody))
	}
	runtime.LockOSThread() // fsuid is the thread's
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsgid(nobody))
	must(t, unix.Setfsuid(nobody))
	defer func() {
		must(t, unix.Setfsuid(0))
		must(t, unix.Setfsgid(0))
	}()
	info := adopt(t, s, objectstore.Location{Bucket: "bucket", Key: "readable"}, image("readable"))
	wantRead(t, s, image("readable"), info, []byte("content"))
	if _, err := s.Stat(t.Context(), objectstore.Location{Bucket: "bucket", Key: "private"}); !errors.Is(err, objectstore.ErrDenied) {
		t.Errorf("an unreadable file: %v", err)
	}
}

// TestCloneWhereTheFileSystemCan runs on btrfs: the image shares the source's
// blocks and nothing that is done to the source can touch it.
func TestCloneWhereTheFileSystemCan(t *testing.T) {
	mount := btrfs(t)
	s := newDirStore(t, mount)
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	s.write(t, src.Bucket, src.Key, content)
	info := adopt(t, s, src, image("clone/data"))
	overwrite(t, s.path(src.Bucket, src.Key), "changed")
	wantRead(t, s, image("clone/data"), info, content)
	a, err := os.Stat(s.path(src.Bucket, src.Key))
	must(t, err)
	b, err := os.Stat(filepath.Join(s.images, "clone/data"))
	must(t, err)
	if os.SameFile(a, b) {
		t.Error("the image is a link")
	}
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			base, err := os.MkdirTemp(mount, "suite")
			must(t, err)
			return newDirStore(t, base).harness()
		})
	})
}

func btrfs(t *testing.T) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and mkfs.btrfs (Debian package btrfs-progs)")
	}
	dir := t.TempDir()
	disk, mount := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	sparseFile(t, disk, 256<<20, "", 0)
	must(t, os.Mkdir(mount, 0o755))
	if out, err := exec.Command(mkfs, "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.btrfs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", disk, mount).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a loop device here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", mount).Run() })
	return mount
}

// inTinyFileSystem runs the calling test again in a process of its own, in
// which a tmpfs of 1 MiB is mounted: in a user and mount namespace, so that
// this needs no root and leaves no mount. In that process it returns the
// mount, elsewhere "" when the other process has passed.
func inTinyFileSystem(t *testing.T) string {
	t.Helper()
	const env = "QUICKIMS_TEST_TINY"
	if dir := os.Getenv(env); dir != "" {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
		return dir
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), env+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in the tiny file system: %v\n%s", err, out)
	}
	return ""
}

func TestDirDiskFull(t *testing.T) {
	t.Parallel()
	mount := inTinyFileSystem(t)
	if mount == "" {
		return
	}
	s := newDirStore(t, mount)
	s.ForceCopy()
	_, err := s.Put(t.Context(), image("big"), io.LimitReader(rand.Reader, 4<<20), 4<<20, objectstore.PutOptions{})
	if !errors.Is(err, objectstore.ErrNoSpace) {
		t.Errorf("Put: %v", err)
	}
	content := make([]byte, 600<<10)
	_, _ = rand.Read(content)
	s.write(t, src.Bucket, src.Key, content)
	_, err = s.Adopt(t.Context(), src, stat(t, s, src).Condition(), image("copy"), objectstore.AdoptOptions{})
	if !errors.Is(err, objectstore.ErrNoSpace) {
		t.Errorf("Adopt: %v", err)
	}
	wantEmptyImageArea(t, s)
	wantRead(t, s, src, stat(t, s, src), content)
}

// TestExportTellsItsOwn: an export is found complete by its mark alone.
// Disks out of reproducible builds have one size and one time.
func TestExportTellsItsOwn(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*objectstore.Dir){"linked": func(d *objectstore.Dir) { d.WithoutClone() }, "copied": func(d *objectstore.Dir) { d.ForceCopy() }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDirStore(t, t.TempDir())
			prepare(s.Dir)
			when := time.Now().Add(-time.Hour).Truncate(time.Second)
			contents := map[string][]byte{"one": bytes.Repeat([]byte("1"), 5000), "two": bytes.Repeat([]byte("2"), 5000)}
			for key, content := range contents {
				s.write(t, "bucket", key, content)
				must(t, os.Chtimes(s.path("bucket", key), when, when))
				adopt(t, s, objectstore.Location{Bucket: "bucket", Key: key}, image(key+"/disk"))
			}
			made := map[string]string{} // the marks
			export := func(key, to string) error {
				from := image(key + "/disk")
				return s.Export(t.Context(), from, stat(t, s, from).Condition(), objectstore.Location{Bucket: "bucket", Key: to}, objectstore.ExportOptions{
					Token: key, Made: made[key],
					Making: func(_ context.Context, mark string) error {
						made[key] = mark
						return nil
					},
				})
			}
			must(t, export("one", "out"))
			must(t, export("one", "out")) // again
			for _, to := range []string{"out", "out/below"} {
				if err := export("two", to); !errors.Is(err, objectstore.ErrExists) {
					t.Errorf("another export to %s: %v", to, err)
				}
			}
			if got, err := os.ReadFile(s.path("bucket", "out")); err != nil || !bytes.Equal(got, contents["one"]) {
				t.Errorf("the object has %d other bytes (%v)", len(got), err)
			}
		})
	}
}

// TestCopyAsksForRoom: a copy that has no room leaves nothing, whichever way it goes.
func TestCopyAsksForRoom(t *testing.T) {
	t.Parallel()
	s := newDirStore(t, t.TempDir())
	s.ForceCopy()
	s.write(t, "bucket", "source", []byte("bytes"))
	from, full := objectstore.Location{Bucket: "bucket", Key: "source"}, errors.New("no room")
	asked := int64(0)
	room := func(n int64) error { asked += n; return full }
	if _, err := s.Adopt(t.Context(), from, stat(t, s, from).Condition(), image("x/disk"), objectstore.AdoptOptions{Room: room}); !errors.Is(err, full) || asked != 5 {
		t.Errorf("adopt: %v, asked for %d bytes", err, asked)
	}
	info := adopt(t, s, from, image("y/disk"))
	to := objectstore.Location{Bucket: "bucket", Key: "out"}
	if err := s.Export(t.Context(), image("y/disk"), info.Condition(), to, objectstore.ExportOptions{Token: "t", Room: room}); !errors.Is(err, full) || asked != 10 {
		t.Errorf("export: %v, asked for %d bytes", err, asked)
	}
	for _, loc := range []objectstore.Location{image("x/disk"), to} {
		if _, err := s.Stat(t.Context(), loc); !errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("%s is there: %v", loc, err)
		}
	}
}
