package filesystem_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/ext4"
	"github.com/quickims/quickims/internal/filesystem/fat"
	"github.com/quickims/quickims/internal/filesystem/fstest"
)

const mib = 1 << 20

// tree makes a Tree of an ext4 volume with the links of the test and a FAT
// volume mounted at /boot/efi.
func tree(t *testing.T) *filesystem.Tree {
	t.Helper()
	root, esp := t.TempDir(), t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"usr/bin", "usr/lib", "etc", "boot/efi/hidden", "a/b", "deep_"} {
		must(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	write := func(dir, name, text string) {
		must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write(root, "usr/bin/sh", "shell")
	write(root, "usr/lib/os-release", "ID=debian\n")
	write(root, "a/b/file", "text")
	for name, target := range map[string]string{
		"bin": "usr/bin", "etc/os-release": "../usr/lib/os-release", "etc/absolute": "/usr/lib/os-release",
		"outside": "../../../../../etc/absolute", "loop": "loop", "one": "two", "two": "one", "a/up": "..", "dangling": "/nowhere/at/all",
		"esp": "/boot/efi", "through": "bin/../lib/os-release", "steps": strings.Repeat("a/../", 150) + "bin/sh",
	} {
		must(os.Symlink(target, filepath.Join(root, name)))
	}
	// Thirty links, each of which names the next twice.
	for i := range 30 {
		next := "deep" + string(rune('A'+i+1))
		must(os.Symlink(next+"/../"+next, filepath.Join(root, "deep"+string(rune('A'+i)))))
	}
	must(os.MkdirAll(filepath.Join(esp, "EFI", "BOOT"), 0o755))
	write(esp, "EFI/BOOT/BOOTX64.EFI", "MZ")

	v, err := ext4.Open(fstest.Source(t, fstest.Ext(t, root, 8*mib, "-t", "ext4"), 1<<30))
	must(err)
	tr, err := filesystem.NewTree(v)
	must(err)
	f, err := fat.Open(fstest.Source(t, fstest.FAT(t, esp, 8*mib), 1<<30))
	must(err, tr.Mount("/boot/efi", f))
	return tr
}

func TestPaths(t *testing.T) {
	t.Parallel()
	tr := tree(t)
	for name, want := range map[string]string{
		"/usr/bin/sh": "shell", "usr/bin/sh": "shell", "//usr/./bin/../bin/sh": "shell", "/bin/sh": "shell",
		"/etc/os-release": "ID=debian\n", "/etc/absolute": "ID=debian\n", "/../../etc/absolute": "ID=debian\n",
		"/outside": "ID=debian\n", "/through": "ID=debian\n", "/a/up/a/b/file": "text", "/a/up/up/../a/b/file": "",
		"/boot/efi/EFI/BOOT/BOOTX64.EFI": "MZ", "/boot/efi/efi/boot/bootx64.efi": "MZ", "/esp/../../usr/bin/sh": "shell",
		"/boot/efi/../efi/EFI/../../../bin/sh": "shell", "/steps": "shell",
	} {
		b, err := tr.ReadFile(name, 100)
		if want == "" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %q and %v, want that it does not exist", name, b, err)
			}
		} else if string(b) != want || err != nil {
			t.Errorf("%s: %q and %v, want %q", name, b, err, want)
		}
	}
	for name, want := range map[string]error{
		"/nothing": fs.ErrNotExist, "/dangling": fs.ErrNotExist, "/usr/bin/sh/x": fs.ErrNotExist, "/BIN/sh": fs.ErrNotExist,
		"/boot/efi/hidden": fs.ErrNotExist, "/loop": filesystem.ErrLimit, "/one/x": filesystem.ErrLimit, "/deepA": filesystem.ErrLimit,
		strings.Repeat("/a", 4000): filesystem.ErrLimit, "/usr": fs.ErrInvalid, "/a/b/file/": nil,
	} {
		if _, err := tr.ReadFile(name, 100); !errors.Is(err, want) {
			t.Errorf("%.60s: %v, want %v", name, err, want)
		}
	}
	if _, err := tr.ReadFile("/etc/os-release", 9); !errors.Is(err, filesystem.ErrLimit) {
		t.Errorf("a file of 10 bytes where 9 are allowed: %v", err)
	}
	if n, err := tr.Lstat("/dangling"); n.Kind != filesystem.Symlink || err != nil {
		t.Errorf("the dangling link: %v, %v", n, err)
	}
	if n, err := tr.Lstat("/loop"); n.Kind != filesystem.Symlink || err != nil {
		t.Errorf("the link to itself: %v, %v", n, err)
	}
	list, err := tr.ReadDir("/usr")
	if err != nil || len(list) != 2 || list[0].Name != "bin" || list[1].Name != "lib" {
		t.Errorf("/usr holds %v (%v)", list, err)
	}
	if _, err := tr.ReadDir("/usr/bin/sh"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("listing a file: %v", err)
	}
	f, err := tr.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f.Reader()); string(b) != "shell" || err != nil || f.Size() != 5 {
		t.Errorf("reading on: %q, %v", b, err)
	}
	if n, err := tr.Stat("/bin"); n.Kind != filesystem.Directory || err != nil {
		t.Errorf("what the link /bin leads to: %v, %v", n, err)
	}
	if _, err := tr.Stat("/dangling"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the dangling link leads to: %v", err)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	disk := strings.NewReader(strings.Repeat("0123456789", 30_000))
	s := filesystem.NewSource(t.Context(), disk, disk.Size(), 1<<30)
	for _, tt := range []struct{ off, n int64 }{{0, 1}, {65530, 20}, {5, 150_000}, {299_990, 10}, {65536, 65536}, {300_000, 0}} {
		b := make([]byte, tt.n)
		if err := s.ReadFull(b, tt.off); err != nil {
			t.Errorf("%d at %d: %v", tt.n, tt.off, err)
		}
		want := make([]byte, tt.n)
		_, _ = disk.ReadAt(want, tt.off)
		if string(b) != string(want) {
			t.Errorf("%d at %d: wrong bytes", tt.n, tt.off)
		}
	}
	for _, tt := range []struct{ off, n int64 }{{-1, 1}, {300_000, 1}, {299_999, 2}, {1 << 62, 10}} {
		if err := s.ReadFull(make([]byte, tt.n), tt.off); !errors.Is(err, filesystem.ErrCorrupt) {
			t.Errorf("%d at %d: %v", tt.n, tt.off, err)
		}
	}
	part, err := s.Section(10, 5)
	b := make([]byte, 5)
	if err != nil || part.ReadFull(b, 0) != nil || string(b) != "01234" {
		t.Errorf("the section holds %q (%v)", b, err)
	}
	if err := part.ReadFull(b, 1); !errors.Is(err, filesystem.ErrCorrupt) {
		t.Errorf("beyond the section: %v", err)
	}
	for _, tt := range []struct{ off, n int64 }{{-1, 1}, {0, -1}, {300_000, 1}, {1 << 62, 1 << 62}} {
		if _, err := s.Section(tt.off, tt.n); !errors.Is(err, filesystem.ErrCorrupt) {
			t.Errorf("a section of %d at %d: %v", tt.n, tt.off, err)
		}
	}
}

// TestRelease: what was let go of reads the same again, whoever has its memory.
func TestRelease(t *testing.T) {
	t.Parallel()
	one, other := strings.NewReader(strings.Repeat("one", 50_000)), strings.NewReader(strings.Repeat("another", 11_000))
	a := filesystem.NewSource(t.Context(), one, one.Size(), 1<<30)
	b := filesystem.NewSource(t.Context(), other, other.Size(), 1<<30)
	part, err := a.Section(3, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // pages of the one may become pages of the other
		p, q := make([]byte, 6), make([]byte, 7)
		if err := part.ReadFull(p, 99_000); err != nil || string(p) != "oneone" {
			t.Errorf("%q, %v", p, err)
		}
		a.Release()
		if err := b.ReadFull(q, 70_000); err != nil || string(q) != "another" {
			t.Errorf("%q, %v", q, err)
		}
		b.Release()
	}
}

// TestBudget: what was read once costs again, pages from the disk cost whole,
// and a cancelled context ends every read.
func TestBudget(t *testing.T) {
	t.Parallel()
	disk := strings.NewReader(strings.Repeat("x", 1<<20))
	s := filesystem.NewSource(t.Context(), disk, disk.Size(), 64<<10+1000)
	b := make([]byte, 1)
	reads := 0
	for ; s.ReadFull(b, 5) == nil; reads++ {
		if reads > 1000 {
			t.Fatal("the budget never ends")
		}
	}
	if err := s.ReadFull(b, 5); reads != 15 || !errors.Is(err, filesystem.ErrLimit) {
		t.Errorf("%d reads of one byte, then %v, want 15", reads, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s = filesystem.NewSource(ctx, disk, disk.Size(), 1<<30)
	if err := s.ReadFull(b, 0); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.ReadFull(b, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

// failing fails from its n-th read on.
type failing struct {
	io.ReaderAt
	n int
}

var errDisk = errors.New("bad sector")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestBadSector: an error of the disk comes through, and the page it left half
// read is not served.
func TestBadSector(t *testing.T) {
	t.Parallel()
	disk := strings.NewReader(strings.Repeat("x", 1<<20))
	bad := &failing{disk, 0}
	s := filesystem.NewSource(t.Context(), bad, disk.Size(), 1<<30)
	b := make([]byte, 1)
	if err := s.ReadFull(b, 0); !errors.Is(err, errDisk) {
		t.Errorf("it gave %v", err)
	}
	bad.n = 1
	if err := s.ReadFull(b, 0); err != nil || b[0] != 'x' {
		t.Errorf("after the disk recovered: %q, %v", b, err)
	}
	// A disk that ends before its size is an error, not zeros.
	s = filesystem.NewSource(t.Context(), disk, 2<<20, 1<<30)
	if err := s.ReadFull(b, 1<<20+5); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the end of the source: %v", err)
	}
}
