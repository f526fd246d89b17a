package ext4_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"errors"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/ext4"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/fuzztest"
)

const mib = 1 << 20

func open(src *filesystem.Source) (filesystem.Volume, error) { return ext4.Open(src) }

// variants are the ways to make a volume that differ in what a reader must know.
var variants = []struct {
	name, want string
	size       int64
	args       []string
}{
	{"ext2", "ext2", 64 * mib, []string{"-t", "ext2", "-b", "1024"}},
	{"ext2 of revision 0", "ext2", 64 * mib, []string{"-t", "ext2", "-b", "1024", "-r", "0", "-O", "none"}},
	{"ext3", "ext3", 64 * mib, []string{"-t", "ext3", "-b", "2048"}},
	{"ext4", "ext4", 64 * mib, []string{"-t", "ext4"}},
	{"ext4, blocks of 1 KiB", "ext4", 64 * mib, []string{"-t", "ext4", "-b", "1024"}},
	{"ext4, blocks of 64 KiB", "ext4", 96 * mib, []string{"-t", "ext4", "-b", "65536", "-N", "2000"}},
	{"ext4, 32 bit", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "^64bit,^metadata_csum", "-I", "128"}},
	{"ext4, inline data", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "inline_data", "-I", "512"}},
	{"ext4, meta block groups", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"}},
	{"ext4, two backups", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "sparse_super2,meta_bg,^resize_inode", "-b", "1024", "-g", "1024"}},
	{"ext4, bigalloc", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "bigalloc", "-C", "16384"}},
	{"ext4, no journal, quota, project", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "^has_journal,quota,project,large_dir,ea_inode,encrypt"}},
	{"ext4, block maps", "ext4", 64 * mib, []string{"-t", "ext4", "-O", "^extent,^64bit", "-b", "1024"}},
}

func TestReadsWhatMke2fsWrote(t *testing.T) {
	t.Parallel()
	folder, plain := fstest.Folder(t, 1, 1000, true), fstest.Folder(t, 2, 1000, false)
	for _, tt := range variants {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			folder := folder
			if strings.Contains(tt.name, "inline") {
				folder = plain // mke2fs 1.47.0 cuts sparse files off when it inlines data
			}
			disk := fstest.Ext(t, folder, tt.size, append(tt.args, "-L", "a-label", "-U", "01234567-89ab-cdef-0123-456789abcdef")...)
			v, err := ext4.Open(fstest.Source(t, disk, 1<<40))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := v.Info(), (filesystem.Info{Type: tt.want, UUID: "01234567-89ab-cdef-0123-456789abcdef", Label: "a-label"}); got != want && !strings.Contains(tt.name, "revision 0") {
				t.Errorf("info is %+v, want %+v", got, want)
			}
			fstest.Compare(t, v, folder)
		})
	}
}

// TestHashedDirectory: e2fsck -D gives directories their hash trees, which
// mke2fs alone does not.
func TestHashedDirectory(t *testing.T) {
	t.Parallel()
	fstest.Need(t, "mke2fs", "e2fsck", "debugfs")
	folder := t.TempDir()
	for i := range 700 {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s%05d", strings.Repeat("a-name-that-takes-much-room-", 7), i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk := fstest.Ext(t, folder, 32*mib, "-t", "ext4", "-b", "1024", "-N", "1000")
	if out, err := exec.Command("e2fsck", "-f", "-y", "-D", disk).CombinedOutput(); err != nil && !strings.Contains(string(out), "MODIFIED") {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	if out := fstest.Run(t, "", "debugfs", "-R", "htree_dump /", disk); !strings.Contains(out, "Indirect levels: 1") {
		t.Fatalf("the directory has no hash tree of two levels:\n%.300s", out)
	}
	v, err := ext4.Open(fstest.Source(t, disk, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	fstest.Compare(t, v, folder)
}

// TestUnwritten: blocks that are allocated but were never written are zeros,
// whatever the disk holds there.
func TestUnwritten(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "f"), []byte(strings.Repeat("secret", 4000)), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := fstest.Ext(t, folder, 8*mib, "-t", "ext4", "-b", "1024")
	fstest.Run(t, "", "debugfs", "-w", "-R", "fallocate /f 100 120", disk)
	fstest.Run(t, "", "debugfs", "-w", "-R", "sif /f size 123904", disk)
	v, err := ext4.Open(fstest.Source(t, disk, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filesystem.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	b, err := tree.ReadFile("/f", mib)
	if err != nil || len(b) != 121*1024 || strings.Trim(string(b[24000:]), "\x00") != "" {
		t.Errorf("%d bytes (%v), want %d, of them zeros from 24000 on", len(b), err, 121*1024)
	}
}

func TestJournalNotReplayed(t *testing.T) {
	t.Parallel()
	disk := fstest.Ext(t, t.TempDir(), 8*mib, "-t", "ext4")
	fstest.Run(t, "", "debugfs", "-w", "-R", "feature needs_recovery", disk)
	v, err := ext4.Open(fstest.Source(t, disk, 1<<40))
	if err != nil || !v.Info().Dirty {
		t.Errorf("a volume that was not unmounted: %+v, %v", v.Info(), err)
	}
}

// hostile are pokes at a sound volume with blocks of 1 KiB, and what must come
// of them. The superblock lies at 1024, the group descriptors at 2048.
var hostile = []struct {
	name string
	poke func(t *testing.T, d *fstest.Disk, at places)
	want error // nil: anything of a known kind, but it must end
}{
	{"no magic", put(1024+0x38, 0), filesystem.ErrCorrupt},
	{"blocks of 2 TiB", put(1024+0x18, 31), filesystem.ErrCorrupt},
	{"block size overflows", put(1024+0x18, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"more blocks than disk", put(1024+0x4, 0xff, 0xff, 0xff, 0x7f), filesystem.ErrCorrupt},
	{"2^63 blocks", put(1024+0x150, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"no blocks", put(1024+0x4, 0, 0, 0, 0), filesystem.ErrCorrupt},
	{"first data block beyond", put(1024+0x14, 0, 0, 1), filesystem.ErrCorrupt},
	{"no blocks in a group", put(1024+0x20, 0, 0, 0, 0), filesystem.ErrCorrupt},
	{"one block in a group", put(1024+0x20, 1, 0, 0, 0), nil},
	{"no inodes in a group", put(1024+0x28, 0, 0, 0, 0), filesystem.ErrCorrupt},
	{"2^32 inodes in a group", put(1024+0x28, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"more inodes than groups hold", put(1024, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"inodes of 0 bytes", put(1024+0x58, 0, 0), filesystem.ErrCorrupt},
	{"inodes of 129 bytes", put(1024+0x58, 129, 0), filesystem.ErrCorrupt},
	{"inodes of 32 KiB", put(1024+0x58, 0, 0x80), filesystem.ErrCorrupt},
	{"descriptors of 0 bytes", put(1024+0xfe, 0, 0), filesystem.ErrCorrupt},
	{"descriptors of 65 bytes", put(1024+0xfe, 65, 0), filesystem.ErrCorrupt},
	{"a feature of the future", put(1024+0x63, 0x80), filesystem.ErrUnsupported},
	{"compression", put(1024+0x60, 0xc3), filesystem.ErrUnsupported},
	{"inode table beyond the end", put(2048+0x8, 0xff, 0xff, 0xff, 0x7f), filesystem.ErrCorrupt},
	{"inode table beyond 2^32", put(2048+0x28, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"root is a file", inode("root", 0, 0xed, 0x81), filesystem.ErrCorrupt},
	{"root is not in use", inode("root", 0, 0, 0), filesystem.ErrCorrupt},
	{"a directory of 4 GiB", inode("root", 4, 0xff, 0xff, 0xff, 0xff), filesystem.ErrLimit},
	{"no extent magic", inode("root", 0x28, 0), filesystem.ErrCorrupt},
	{"too many extents", inode("root", 0x28+2, 0xff, 0xff), filesystem.ErrCorrupt},
	{"a tree of 65535 levels", inode("root", 0x28+6, 0xff, 0xff), filesystem.ErrCorrupt},
	{"a tree of one level that is none", inode("root", 0x28+6, 1), filesystem.ErrCorrupt},
	{"an extent beyond the end", inode("root", 0x28+12+8, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"an extent beyond 2^48", inode("root", 0x28+12+6, 0xff, 0xff), filesystem.ErrCorrupt},
	{"an extent that is too long", inode("root", 0x28+12+4, 0xff, 0x7f), filesystem.ErrCorrupt},
	{"an extent of no blocks", inode("root", 0x28+12+4, 0, 0), nil},
	{"encrypted root", inode("root", 0x20+1, 0x8), filesystem.ErrUnsupported},
	{"inline data that is none", inode("root", 0x20+3, 0x10), filesystem.ErrCorrupt},
	{"a file of 2^63 bytes", inode("file", 0x6c, 0xff, 0xff, 0xff, 0xff), filesystem.ErrCorrupt},
	{"a file of 2^59 bytes", inode("file", 0x6c, 0, 0, 0, 7), nil},
	{"a link without end", inode("link", 4, 0xff, 0xff), filesystem.ErrCorrupt},
	{"a link to nothing", inode("link", 4, 0, 0), filesystem.ErrCorrupt},
	{"an entry of no bytes", entry(4, 0, 0), filesystem.ErrCorrupt},
	{"an entry of 10 bytes", entry(4, 10, 0), filesystem.ErrCorrupt},
	{"an entry beyond its block", entry(4, 0xfc, 0xff), filesystem.ErrCorrupt},
	{"a name longer than its entry", entry(6, 0xff), filesystem.ErrCorrupt},
	{"an inode beyond the last", entry(0, 0xff, 0xff, 0xff, 0xff), nil},
}

// places are the bytes at which parts of the sound volume lie.
type places struct{ root, file, link, rootBlock int64 }

func put(off int64, b ...byte) func(*testing.T, *fstest.Disk, places) {
	return func(_ *testing.T, d *fstest.Disk, _ places) { d.Put(off, b...) }
}

func inode(which string, off int64, b ...byte) func(*testing.T, *fstest.Disk, places) {
	return func(_ *testing.T, d *fstest.Disk, at places) {
		d.Put(map[string]int64{"root": at.root, "file": at.file, "link": at.link}[which]+off, b...)
	}
}

func entry(off int64, b ...byte) func(*testing.T, *fstest.Disk, places) {
	return func(_ *testing.T, d *fstest.Disk, at places) { d.Put(at.rootBlock+off, b...) }
}

// small makes the volume that is poked, and that the seeds are made of.
func small(t testing.TB, args ...string) string {
	t.Helper()
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("file", strings.Repeat("text ", 500))
	write("short", "a few bytes")
	if err := errors.Join(os.Symlink("file", filepath.Join(folder, "link")), os.Symlink(strings.Repeat("./", 40)+"file", filepath.Join(folder, "longlink")),
		os.Mkdir(filepath.Join(folder, "dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		write(fmt.Sprintf("dir/entry-with-a-name-%d", i), "")
	}
	f, err := os.Create(filepath.Join(folder, "holes"))
	for i := range int64(7) {
		if err == nil {
			_, err = f.WriteAt([]byte("x"), i*9000)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return fstest.Ext(t, folder, 256<<10, append([]string{"-b", "1024", "-N", "24", "-O", "^has_journal"}, args...)...)
}

// imap asks debugfs where an inode lies.
func imap(t testing.TB, disk, name string) int64 {
	t.Helper()
	out := fstest.Run(t, "", "debugfs", "-R", "imap "+name, disk)
	var ino, group, block, off int64
	_, text, _ := strings.Cut(out, "\n")
	text = strings.ReplaceAll(strings.ReplaceAll(strings.Join(strings.Fields(text), " "), ",", " "), ".", " ")
	if _, err := fmt.Sscanf(strings.Join(strings.Fields(text), " "), "Inode %d is part of block group %d located at block %d offset 0x%x", &ino, &group, &block, &off); err != nil {
		t.Fatalf("debugfs imap: %v in %q", err, text)
	}
	return block*1024 + off
}

func TestHostile(t *testing.T) {
	name := small(t, "-t", "ext4", "-O", "64bit")
	var at places
	at.root, at.file, at.link = imap(t, name, "/"), imap(t, name, "/file"), imap(t, name, "/link")
	var block int64
	if _, err := fmt.Sscan(fstest.Run(t, "", "debugfs", "-R", "blocks /", name), new(string), new(string), &block); err != nil {
		out := strings.Fields(fstest.Run(t, "", "debugfs", "-R", "blocks /", name))
		if _, err := fmt.Sscan(out[len(out)-1], &block); err != nil {
			t.Fatalf("debugfs blocks: %v in %q", err, out)
		}
	}
	at.rootBlock = block * 1024
	sound := fstest.Load(t, name, 0, 0)
	if err := fstest.Exercise(t, open, sound, sound.Size, 4*mib); err != nil {
		t.Fatalf("the sound volume: %v", err)
	}
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			d := sound.Clone()
			tt.poke(t, d, at)
			fstest.Cheap(t, func() {
				if err := fstest.Exercise(t, open, d, d.Size, 16*mib); tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("it gave %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// TestLoops: trees that lead back to themselves end.
func TestLoops(t *testing.T) {
	name := small(t, "-t", "ext4", "-O", "64bit")
	root := imap(t, name, "/")
	sound := fstest.Load(t, name, 0, 0)
	// The root directory's extent tree: one index that leads to a block which is
	// an index that leads to itself.
	for level := byte(1); level <= 5; level++ {
		d := sound.Clone()
		d.Put(root+0x28, 0x0a, 0xf3, 1, 0, 4, 0, level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0)
		d.Put(200*1024, 0x0a, 0xf3, 1, 0, 4, 0, level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0)
		fstest.Cheap(t, func() {
			if err := fstest.Exercise(t, open, d, d.Size, 16*mib); !errors.Is(err, filesystem.ErrCorrupt) {
				t.Errorf("level %d: %v", level, err)
			}
		})
	}
	// A directory of 30 MiB whose every block is the same: the budget ends it.
	d := sound.Clone()
	d.Put(root+4, 0, 0, 0xe0, 1)
	d.Put(root+0x20, 0, 0, 0, 0) // a block map: all pointers of three levels lead to block 200
	for i := range int64(15) {
		d.Put(root+0x28+i*4, 200, 0, 0, 0)
	}
	for i := range int64(256) {
		d.Put(200*1024+i*4, 200, 0, 0, 0)
	}
	fstest.Cheap(t, func() {
		if err := fstest.Exercise(t, open, d, d.Size, 4*mib); err == nil {
			t.Error("a directory whose blocks are all the same was read")
		}
	})
}

func TestDoesNotExist(t *testing.T) {
	t.Parallel()
	v, err := ext4.Open(fstest.Source(t, small(t), 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filesystem.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/nothing", "/dir/nothing", "/file/below", "/link/.."} {
		if _, err := tree.Stat(name); !errors.Is(err, fs.ErrNotExist) && name != "/link/.." {
			t.Errorf("%s: %v, want that it does not exist", name, err)
		}
	}
}

// TestMakeSeeds writes the seeds of FuzzExt4 anew when asked to.
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("QUICKIMS_MAKE_SEEDS") == "" {
		t.Skip("QUICKIMS_MAKE_SEEDS is not set: the seeds are made when the readers change")
	}
	if err := os.MkdirAll("testdata/seeds", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"ext2": {"-t", "ext2"}, "ext4": {"-t", "ext4", "-O", "64bit"},
		"inline": {"-t", "ext4", "-O", "inline_data", "-I", "256"}, "metabg": {"-t", "ext4", "-O", "meta_bg,^resize_inode"},
	} {
		d := fstest.Load(t, small(t, args...), 0, 0)
		if err := os.WriteFile("testdata/seeds/"+name, d.Pack(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzExt4(f *testing.F) {
	fstest.Seeds(f)
	d := new(fstest.Disk)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d.Refill(b)
		_ = fstest.Exercise(t, open, d, d.Size, 4*mib)
	})
}
