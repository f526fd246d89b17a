package fat_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/fat"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/fuzztest"
)

const mib = 1 << 20

func open(src *filesystem.Source) (filesystem.Volume, error) { return fat.Open(src) }

func TestReadsWhatMtoolsWrote(t *testing.T) {
	t.Parallel()
	folder := fstest.Folder(t, 3, 0, false)
	for _, tt := range []struct {
		name string
		size int64
		args []string
	}{
		{"FAT12", 16 * mib, []string{"-F", "12", "-s", "16", "-r", "512"}},
		{"FAT16", 32 * mib, []string{"-F", "16", "-s", "4"}},
		{"FAT32", 64 * mib, []string{"-F", "32", "-s", "1"}},
		{"FAT32, sectors of 4 KiB", 300 * mib, []string{"-F", "32", "-S", "4096", "-s", "1"}},
		{"as mkfs.vfat chooses", 100 * mib, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			disk := fstest.FAT(t, folder, tt.size, append(tt.args, "-n", "EFI SYSTEM", "-i", "1234abcd")...)
			v, err := fat.Open(fstest.Source(t, disk, 1<<40))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := v.Info(), (filesystem.Info{Type: "vfat", UUID: "1234-ABCD", Label: "EFI SYSTEM"}); got != want {
				t.Errorf("info is %+v, want %+v", got, want)
			}
			fstest.Compare(t, v, folder)
			tree, err := filesystem.NewTree(v)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tree.Stat("nAmEs/lOwEr.TxT"); err != nil {
				t.Errorf("a name in other case: %v", err)
			}
		})
	}
}

// TestBootSectorAlone: the boot sector of another file system, or code of a boot
// loader, is not taken for FAT.
func TestBootSectorAlone(t *testing.T) {
	t.Parallel()
	for name, sector := range map[string]string{
		"empty": "", "signature": strings.Repeat("\x00", 510) + "\x55\xaa",
		"NTFS": "\xeb\x52\x90NTFS    \x00\x02\x08\x00\x00\x00\x00\x00\x00\x00\xf8" + strings.Repeat("\x00", 488) + "\x55\xaa",
		"GRUB": "\xeb\x63\x90" + strings.Repeat("\x10", 507) + "\x55\xaa",
	} {
		disk := fstest.Blank(t, mib)
		if err := os.WriteFile(disk, []byte(sector+strings.Repeat("\x00", mib)), 0o600); err != nil {
			t.Fatal(err)
		}
		src := fstest.Source(t, disk, mib)
		if _, err := fat.Open(src); fat.Detect(src) || !errors.Is(err, filesystem.ErrCorrupt) {
			t.Errorf("%s is taken for FAT (%v)", name, err)
		}
	}
}

// small makes the volume that is poked, and that the seeds are made of.
func small(t testing.TB, size int64, args ...string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"FILE.TXT": strings.Repeat("text ", 300), "a long name.txt": "x", "dir/another long name": "y", "dir/B": "z",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fstest.FAT(t, folder, size, append([]string{"-s", "1"}, args...)...)
}

func TestHostile(t *testing.T) {
	name := small(t, mib, "-F", "12", "-a", "-R", "1", "-f", "1", "-r", "112")
	sound := fstest.Load(t, name, 0, 0)
	if err := fstest.Exercise(t, open, sound, sound.Size, 4*mib); err != nil {
		t.Fatalf("the sound volume: %v", err)
	}
	// Where mkfs.vfat put things: the table behind the boot sector, then the root.
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	table := int64(512)
	root := table + 512*int64(b[22])
	at := func(short string) int64 {
		for off := root; off < root+112*32; off += 32 {
			if string(b[off:off+11]) == short {
				return off
			}
		}
		t.Fatalf("%q is not in the root", short)
		return 0
	}
	file, dir := at("FILE    TXT"), at("DIR        ")
	cluster := int64(b[file+26])
	for _, tt := range []struct {
		name string
		off  int64
		b    []byte
		want error
	}{
		{"no signature", 510, []byte{0}, filesystem.ErrCorrupt},
		{"sectors of 0 bytes", 11, []byte{0, 0}, filesystem.ErrCorrupt},
		{"sectors of 32 KiB", 11, []byte{0, 0x80}, filesystem.ErrCorrupt},
		{"clusters of 0 sectors", 13, []byte{0}, filesystem.ErrCorrupt},
		{"clusters of 3 sectors", 13, []byte{3}, filesystem.ErrCorrupt},
		{"nothing reserved", 14, []byte{0, 0}, filesystem.ErrCorrupt},
		{"all reserved", 14, []byte{0xff, 0xff}, filesystem.ErrCorrupt},
		{"no table", 16, []byte{0}, filesystem.ErrCorrupt},
		{"255 tables", 16, []byte{0xff}, filesystem.ErrCorrupt},
		{"no sectors", 19, []byte{0, 0}, filesystem.ErrCorrupt},
		{"more sectors than disk", 19, []byte{0xff, 0xff}, filesystem.ErrCorrupt},
		{"2^32 sectors", 19, make([]byte, 2), filesystem.ErrCorrupt},
		{"table of 0 sectors", 22, []byte{0, 0}, filesystem.ErrCorrupt},
		{"table of 65535 sectors", 22, []byte{0xff, 0xff}, filesystem.ErrCorrupt},
		{"table too small", 22, []byte{1, 0}, filesystem.ErrCorrupt},
		{"a root of 2 MiB", 17, []byte{0xff, 0xff}, filesystem.ErrCorrupt},
		{"a root of no entries is FAT32", 17, []byte{0, 0}, filesystem.ErrCorrupt},
		{"a file in cluster 0", file + 26, []byte{0, 0}, filesystem.ErrCorrupt},
		{"a file in cluster 65535", file + 26, []byte{0xff, 0xff}, filesystem.ErrCorrupt},
		{"a file of 4 GiB", file + 28, []byte{0xff, 0xff, 0xff, 0xff}, filesystem.ErrCorrupt},
		{"a directory in cluster 0", dir + 26, []byte{0, 0}, filesystem.ErrCorrupt},
		{"a file as directory", file + 11, []byte{0x10}, nil},
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
	t.Run("a chain that leads to itself", func(t *testing.T) {
		d := sound.Clone()
		// The entry's 12 bits, in whichever half of a byte.
		pos := table + cluster*3/2
		if cluster&1 == 0 {
			d.Put(pos, byte(cluster), b[pos+1]&0xf0|byte(cluster>>8))
		} else {
			d.Put(pos, b[pos]&0x0f|byte(cluster<<4), byte(cluster>>4))
		}
		d.Put(file+28, 0xff, 0xff, 0xff, 0x7f)
		fstest.Cheap(t, func() {
			if err := fstest.Exercise(t, open, d, d.Size, 16*mib); !errors.Is(err, filesystem.ErrCorrupt) {
				t.Errorf("it gave %v", err)
			}
		})
	})
	t.Run("a directory that leads to itself", func(t *testing.T) {
		d := sound.Clone()
		first := int64(b[dir+26])
		data := root + 112*32
		for i := int64(0); i < 512; i += 32 { // no entry that would end it
			d.Put(data+(first-2)*512+i, 0xe5)
		}
		for i := int64(0); i < 30; i++ { // every chain goes on at its cluster, forever
			d.Put(table+3+i*3, byte(first), byte(first>>8)|byte(first<<4), byte(first>>4))
		}
		fstest.Cheap(t, func() {
			if err := fstest.Exercise(t, open, d, d.Size, 16*mib); err == nil {
				t.Error("it was read")
			}
		})
	})
}

// TestLongNames pokes at the pieces of a long name: what does not fit together
// falls back to the short one.
func TestLongNames(t *testing.T) {
	t.Parallel()
	name := small(t, mib, "-F", "12", "-a", "-R", "1", "-f", "1", "-r", "112")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sound := fstest.Load(t, name, 0, 0)
	root := 512 + 512*int64(b[22])
	var long int64
	for off := root; off < root+112*32; off += 32 {
		if b[off+11] == 0x0f && b[off]&0x40 != 0 {
			long = off
		}
	}
	for _, tt := range []struct {
		what string
		off  int64
		b    byte
		want string
	}{
		{"as it is", 0, b[long], "a long name.txt"},
		{"wrong checksum", 13, b[long+13] + 1, "ALONGN~1.TXT"},
		{"piece 21", 0, 0x40 | 21, "ALONGN~1.TXT"},
		{"piece 0", 0, 0x40, "ALONGN~1.TXT"},
		{"a piece is missing", 0, 0x43, "ALONGN~1.TXT"},
		{"deleted", 0, 0xe5, "ALONGN~1.TXT"},
	} {
		d := sound.Clone()
		d.Put(long+tt.off, tt.b)
		v, err := fat.Open(filesystem.NewSource(t.Context(), d, d.Size, mib))
		if err != nil {
			t.Fatal(err)
		}
		tree, err := filesystem.NewTree(v)
		if err != nil {
			t.Fatal(err)
		}
		list, err := tree.ReadDir("/")
		if err != nil {
			t.Fatal(err)
		}
		if names := fmt.Sprint(list); !strings.Contains(names, "{"+tt.want+" ") {
			t.Errorf("%s: the names are %s, want %q among them", tt.what, names, tt.want)
		}
	}
}

// TestMakeSeeds writes the seeds of FuzzFAT anew when asked to.
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("QUICKIMS_MAKE_SEEDS") == "" {
		t.Skip("QUICKIMS_MAKE_SEEDS is not set: the seeds are made when the readers change")
	}
	if err := os.MkdirAll("testdata/seeds", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, bits := range []string{"12", "16", "32"} {
		size := map[string]int64{"12": mib, "16": 4 * mib, "32": 36 * mib}[bits]
		d := fstest.Load(t, small(t, size, "-F", bits, "-f", "1"), 0, 0)
		if err := os.WriteFile("testdata/seeds/fat"+bits, d.Pack(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzFAT(f *testing.F) {
	fstest.Seeds(f)
	d := new(fstest.Disk)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d.Refill(b)
		_ = fstest.Exercise(t, open, d, d.Size, 4*mib)
	})
}
