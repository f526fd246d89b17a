package xfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/filesystem/xfs"
	"github.com/quickims/quickims/internal/fuzztest"
)

const mib = 1 << 20

func open(src *filesystem.Source) (filesystem.Volume, error) { return xfs.Open(src) }

// variants are the ways to make a volume that differ in what a reader must know.
var variants = []struct {
	name string
	args []string
}{
	{"version 5", nil},
	{"version 5, blocks of 1 KiB, inodes of 512", []string{"-b", "size=1024", "-i", "size=512"}},
	{"version 5, directory blocks of 16 KiB, inodes of 2 KiB", []string{"-n", "size=16384", "-i", "size=2048"}},
	{"version 5, wide extent counters", []string{"-i", "nrext64=1"}},
	{"version 5, no sparse inodes, no reflink", []string{"-i", "sparse=0", "-m", "reflink=0,bigtime=0,rmapbt=1"}},
	{"version 4", []string{"-m", "crc=0"}},
	{"version 4, no kinds in directories", []string{"-m", "crc=0", "-n", "ftype=0"}},
	{"version 4, blocks of 512, inodes of 256", []string{"-m", "crc=0", "-b", "size=512", "-n", "size=4096"}},
}

func TestReadsWhatMkfsWrote(t *testing.T) {
	t.Parallel()
	folder := fstest.Folder(t, 4, 100, false)
	for _, tt := range variants {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			disk := fstest.XFS(t, folder, 160*mib, append(tt.args, "-L", "a-label")...)
			v, err := xfs.Open(fstest.Source(t, disk, 1<<40))
			if err != nil {
				t.Fatal(err)
			}
			info := v.Info()
			if uuid := fstest.Run(t, "", "xfs_db", "-r", "-c", "uuid", disk); info.Type != "xfs" || info.Label != "a-label" || !strings.Contains(uuid, info.UUID) {
				t.Errorf("info is %+v, want a-label and the %s", info, uuid)
			}
			fstest.Compare(t, v, folder)
		})
	}
}

// TestExtentTree: the blocks of a directory of thousands of files, each of them
// with a block of its own, lie so far apart that its extents need a B+tree.
func TestExtentTree(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for i := range 1200 {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%05d", strings.Repeat("name", 50), i)), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"-b", "size=1024"}, {"-m", "crc=0", "-b", "size=512", "-n", "size=4096"}} {
		disk := fstest.XFS(t, folder, 64*mib, args...)
		if out := fstest.Run(t, "", "xfs_db", "-r", "-c", "sb 0", "-c", "addr rootino", "-c", "print core.format", disk); !strings.Contains(out, "btree") {
			t.Fatalf("%v: the root's extents lie in no tree: %s", args, out)
		}
		v, err := xfs.Open(fstest.Source(t, disk, 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		fstest.Compare(t, v, folder)
	}
}

// small makes the volume that is poked, and that the seeds are made of.
func small(t testing.TB, args ...string) (name string, log [2]int64) {
	t.Helper()
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "dir"), 0o755), os.Mkdir(filepath.Join(folder, "big"), 0o755),
		os.Symlink("file", filepath.Join(folder, "link")), os.Symlink(strings.Repeat("./", 400)+"file", filepath.Join(folder, "longlink"))); err != nil {
		t.Fatal(err)
	}
	write("file", strings.Repeat("text ", 300))
	write("dir/a", "")
	for i := range 20 {
		write(fmt.Sprintf("big/%s%d", strings.Repeat("n", 100), i), "")
	}
	disk := fstest.XFS(t, folder, 16*mib, args...)
	out := fstest.Run(t, "", "xfs_db", "-r", "-c", "sb 0", "-c", "print blocksize logblocks", "-c", "convert fsblock "+
		strings.TrimSpace(strings.TrimPrefix(fstest.Run(t, "", "xfs_db", "-r", "-c", "sb 0", "-c", "print logstart", disk), "logstart = "))+" byte", disk)
	var blockSize, logBlocks, logStart int64
	if _, err := fmt.Sscanf(out, "blocksize = %d\nlogblocks = %d\n0x%x", &blockSize, &logBlocks, &logStart); err != nil {
		t.Fatalf("xfs_db: %v in %q", err, out)
	}
	return disk, [2]int64{logStart, logBlocks * blockSize}
}

// mend gives the long link of a small volume of version 5 with blocks of 1 KiB
// and inodes of 512 bytes the head that mkfs.xfs left out.
func mend(t testing.TB, d *fstest.Disk, name string) {
	t.Helper()
	inode := make([]byte, 512)
	at := inodeAt(t, name, "/longlink")
	if _, err := d.ReadAt(inode, at); err != nil {
		t.Fatal(err)
	}
	// The one extent: 52 bits of start, 21 of count. The group is the first.
	start := int64(binary.BigEndian.Uint64(inode[184:])>>21) * 1024
	target := make([]byte, 804)
	if _, err := d.ReadAt(target, start); err != nil || !strings.HasPrefix(string(target), "././") {
		t.Fatalf("%q is no target (%v)", target, err)
	}
	d.Put(start, append(append([]byte("XSLM"), make([]byte, 52)...), target...)...)
}

// TestHoles: what lies before an extent, behind it, or in one that was never
// written, are zeros.
func TestHoles(t *testing.T) {
	t.Parallel()
	name, log := small(t, "-b", "size=1024", "-i", "size=512")
	d := fstest.Load(t, name, log[0], log[1])
	file := inodeAt(t, name, "/file")
	read := func() string {
		t.Helper()
		v, err := xfs.Open(filesystem.NewSource(t.Context(), d, d.Size, 16*mib))
		if err != nil {
			t.Fatal(err)
		}
		tree, err := filesystem.NewTree(v)
		if err != nil {
			t.Fatal(err)
		}
		b, err := tree.ReadFile("file", mib)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	text := strings.Repeat("text ", 300)
	d.Put(file+56, 0, 0, 0, 0, 0, 0, 0x10, 0) // 4 KiB, of which 2 are written
	if got, want := read(), text+strings.Repeat("\x00", 4096-1500); got != want {
		t.Errorf("with a hole behind: %d bytes, %.20q…, want %d", len(got), got, len(want))
	}
	d.Put(file+176+6, 2) // the extent begins at block 1
	if got, want := read(), strings.Repeat("\x00", 1024)+text+strings.Repeat("\x00", 4096-1024-1500); got != want {
		t.Errorf("with a hole before: %d bytes, %.20q…, want %d", len(got), got, len(want))
	}
	d.Put(file+176, 0x80) // not written
	if got := read(); got != strings.Repeat("\x00", 4096) {
		t.Errorf("not written: %d bytes, %.20q…", len(got), got)
	}
}

// TestLongLink: a target that lies in a block, with its head.
func TestLongLink(t *testing.T) {
	t.Parallel()
	name, log := small(t, "-b", "size=1024", "-i", "size=512")
	d := fstest.Load(t, name, log[0], log[1])
	mend(t, d, name)
	v, err := xfs.Open(filesystem.NewSource(t.Context(), d, d.Size, 16*mib))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filesystem.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	link, err := tree.Lstat("longlink")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Target(link); err != nil || got != strings.Repeat("./", 400)+"file" {
		t.Errorf("the link leads to %q (%v)", got, err)
	}
	if n, err := tree.Stat("longlink"); err != nil || n.Kind != filesystem.Regular {
		t.Errorf("following it gave %v (%v)", n, err)
	}
}

// inodeAt asks xfs_db where the inode of a name in the root directory lies.
func inodeAt(t testing.TB, disk, name string) (at int64) {
	t.Helper()
	v, err := xfs.Open(fstest.Source(t, disk, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filesystem.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	n, err := tree.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	out := fstest.Run(t, "", "xfs_db", "-r", "-c", fmt.Sprintf("convert inode %d byte", n.ID), disk)
	if _, err := fmt.Sscanf(out, "0x%x", &at); err != nil {
		t.Fatalf("xfs_db: %v in %q", err, out)
	}
	return at
}

func TestHostile(t *testing.T) {
	name, log := small(t, "-b", "size=1024", "-i", "size=512")
	sound := fstest.Load(t, name, log[0], log[1])
	mend(t, sound, name)
	if err := fstest.Exercise(t, open, sound, sound.Size, 16*mib); err != nil {
		t.Fatalf("the sound volume: %v", err)
	}
	root, file, link, long, big := inodeAt(t, name, "/"), inodeAt(t, name, "/file"), inodeAt(t, name, "/link"), inodeAt(t, name, "/longlink"), inodeAt(t, name, "/big")
	const fork = 176
	ones := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, tt := range []struct {
		name string
		off  int64
		b    []byte
		want error
	}{
		{"no magic", 0, []byte{0}, filesystem.ErrCorrupt},
		{"version 3", 100, []byte{0xb4, 0xa3}, filesystem.ErrUnsupported},
		{"a feature of the future", 216, []byte{0x80}, filesystem.ErrUnsupported},
		{"blocks of 0 bytes", 4, make([]byte, 4), filesystem.ErrCorrupt},
		{"blocks of 4 GiB", 4, ones[:4], filesystem.ErrCorrupt},
		{"logarithm of block size is 255", 120, []byte{255}, filesystem.ErrCorrupt},
		{"inodes of 0 bytes", 104, []byte{0, 0}, filesystem.ErrCorrupt},
		{"inodes of 64 KiB", 104, ones[:2], filesystem.ErrCorrupt},
		{"logarithm of inode size is 255", 122, []byte{255}, filesystem.ErrCorrupt},
		{"2^255 inodes in a block", 123, []byte{255}, filesystem.ErrCorrupt},
		{"groups of 2^255 blocks", 124, []byte{255}, filesystem.ErrCorrupt},
		{"directory blocks of 2^255", 192, []byte{255}, filesystem.ErrCorrupt},
		{"2^64 blocks", 8, ones, filesystem.ErrCorrupt},
		{"no blocks", 8, make([]byte, 8), filesystem.ErrCorrupt},
		{"no groups", 88, make([]byte, 4), filesystem.ErrCorrupt},
		{"2^32 groups", 88, ones[:4], filesystem.ErrCorrupt},
		{"groups of no blocks", 84, make([]byte, 4), filesystem.ErrCorrupt},
		{"groups of 2^32 blocks", 84, ones[:4], filesystem.ErrCorrupt},
		{"root inode beyond the end", 56, ones, filesystem.ErrCorrupt},
		{"root inode in the wrong place", 56 + 7, []byte{1}, filesystem.ErrCorrupt},
		{"root without magic", root, []byte{0}, filesystem.ErrCorrupt},
		{"root of version 2", root + 4, []byte{2}, filesystem.ErrCorrupt},
		{"root is another inode", root + 159, []byte{1}, filesystem.ErrCorrupt},
		{"root is a file", root + 2, []byte{0x81, 0xed}, filesystem.ErrCorrupt},
		{"root is not in use", root + 2, []byte{0, 0}, filesystem.ErrCorrupt},
		{"root of no form", root + 5, []byte{9}, filesystem.ErrCorrupt},
		{"attributes beyond the inode", root + 82, []byte{255}, filesystem.ErrCorrupt},
		{"a short directory of no bytes", root + 56, make([]byte, 8), filesystem.ErrCorrupt},
		{"a short directory of 2^60 bytes", root + 56, []byte{0x0f}, filesystem.ErrCorrupt},
		{"a short directory of 255 entries", root + fork, []byte{255}, filesystem.ErrCorrupt},
		{"a short directory with wide numbers", root + fork + 1, []byte{1}, nil},
		{"a short name beyond the inode", root + fork + 6, []byte{255}, filesystem.ErrCorrupt},
		{"a directory of 2^60 bytes", big + 56, []byte{0x0f}, filesystem.ErrLimit},
		{"a directory of 16 MiB, the rest holes", big + 60, []byte{1}, nil},
		{"2^32 extents", big + 76, ones[:4], filesystem.ErrCorrupt},
		{"an extent beyond the end", big + fork, ones, nil},
		{"an extent in no group", big + fork + 8, ones[:6], filesystem.ErrCorrupt},
		{"an extent of no blocks", big + fork + 13, make([]byte, 3), nil},
		{"a tree of no levels", big + 5, []byte{3}, filesystem.ErrCorrupt},
		{"a file of 2^63 bytes", file + 56, []byte{0x7f}, filesystem.ErrCorrupt},
		{"a file of 2^59 bytes", file + 56, []byte{7}, nil},
		{"a file of extents out of order", file + fork, []byte{0x7f, 0xff}, nil},
		{"a realtime file", file + 91, []byte{1}, filesystem.ErrUnsupported},
		{"a link of no bytes", link + 56, make([]byte, 8), filesystem.ErrCorrupt},
		{"a link of 4 GiB", link + 59, []byte{1}, filesystem.ErrCorrupt},
		{"a link longer than its inode", link + 62, []byte{4}, filesystem.ErrCorrupt},
		{"a long link with a hole", long + fork + 13, make([]byte, 3), filesystem.ErrCorrupt},
		{"a long link that is too long", long + 62, []byte{15}, filesystem.ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := sound.Clone()
			d.Put(tt.off, tt.b...)
			fstest.Cheap(t, func() {
				if err := fstest.Exercise(t, open, d, d.Size, 16*mib); tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("it gave %v, want %v", err, tt.want)
				}
			})
		})
	}
	t.Run("a tree that leads to itself", func(t *testing.T) {
		d := sound.Clone()
		d.Put(big+5, 3)                // a B+tree
		d.Put(big+fork, 0, 9, 0, 1)    // nine levels, one record
		room := int64(512-fork-4) / 16 // of the root
		d.Put(big+fork+4, make([]byte, 8)...)
		d.Put(big+fork+4+room*8, 0, 0, 0, 0, 0, 0, 0, 100)
		d.Put(100*1024, append([]byte("BMA3\x00\x08\x00\x01"), make([]byte, 72)...)...)
		d.Put(100*1024+72+(1024-72)/16*8, 0, 0, 0, 0, 0, 0, 0, 100)
		fstest.Cheap(t, func() {
			if err := fstest.Exercise(t, open, d, d.Size, 16*mib); !errors.Is(err, filesystem.ErrCorrupt) {
				t.Errorf("it gave %v", err)
			}
		})
	})
}

// TestMakeSeeds writes the seeds of FuzzXFS anew when asked to.
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("QUICKIMS_MAKE_SEEDS") == "" {
		t.Skip("QUICKIMS_MAKE_SEEDS is not set: the seeds are made when the readers change")
	}
	if err := os.MkdirAll("testdata/seeds", 0o755); err != nil {
		t.Fatal(err)
	}
	for seed, args := range map[string][]string{
		"v5": {"-b", "size=1024", "-i", "size=512"}, "v4": {"-m", "crc=0", "-b", "size=1024", "-n", "size=4096"},
	} {
		name, log := small(t, args...)
		d := fstest.Load(t, name, log[0], log[1])
		if seed == "v5" {
			mend(t, d, name)
		}
		if err := os.WriteFile("testdata/seeds/"+seed, d.Pack(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzXFS(f *testing.F) {
	fstest.Seeds(f)
	d := new(fstest.Disk)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d.Refill(b)
		_ = fstest.Exercise(t, open, d, d.Size, 4*mib)
	})
}
