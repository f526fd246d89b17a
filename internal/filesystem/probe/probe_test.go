package probe_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/filesystem/probe"
	"github.com/quickims/quickims/internal/fuzztest"
)

const mib = 1 << 20

// at makes a disk of 4 MiB with pieces in it.
func at(pieces map[int64]string) *fstest.Disk {
	d := fstest.Unpack(binary.LittleEndian.AppendUint32(nil, 4*mib>>10))
	for off, s := range pieces {
		d.Put(off, []byte(s)...)
	}
	return d
}

const md = "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		disk      *fstest.Disk
		want      string
		container bool
		uuid      string
		label     string
	}{
		{"zeros", at(nil), "", false, "", ""},
		{"boot code", at(map[int64]string{0: "\xeb\x63\x90", 510: "\x55\xaa"}), "", false, "", ""},
		{"LUKS", at(map[int64]string{0: "LUKS\xba\xbe\x00\x02", 168: "0a1b2c3d-aaaa-bbbb-cccc-0123456789ab"}), "crypto_LUKS", true, "0a1b2c3d-aaaa-bbbb-cccc-0123456789ab", ""},
		{"LVM in sector 1", at(map[int64]string{512: "LABELONE", 536: "LVM2 001"}), "LVM2_member", true, "", ""},
		{"LVM in sector 3", at(map[int64]string{1536: "LABELONE", 1560: "LVM2 001"}), "LVM2_member", true, "", ""},
		{"LVM's word alone", at(map[int64]string{512: "LABELONE"}), "", false, "", ""},
		{"RAID 1.1", at(map[int64]string{0: md}), "linux_raid_member", true, "", ""},
		{"RAID 1.2", at(map[int64]string{4096: md}), "linux_raid_member", true, "", ""},
		{"RAID 1.0", at(map[int64]string{4*mib - 8192: md}), "linux_raid_member", true, "", ""},
		{"RAID 0.90", at(map[int64]string{4*mib - 65536: md[:4]}), "linux_raid_member", true, "", ""},
		{"LVM on RAID 1.0", at(map[int64]string{4*mib - 8192: md, 1080: "\x53\xef"}), "linux_raid_member", true, "", ""},
		{"bcache", at(map[int64]string{4120: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}), "bcache", true, "", ""},
		{"BitLocker", at(map[int64]string{0: "\xeb\x58\x90-FVE-FS-"}), "BitLocker", true, "", ""},
		{"ZFS", at(map[int64]string{128<<10 + 5*1024: "\x0c\xb1\xba\x00\x00\x00\x00\x00"}), "zfs_member", true, "", ""},
		{"NTFS", at(map[int64]string{0: "\xeb\x52\x90NTFS    ", 510: "\x55\xaa"}), "ntfs", false, "", ""},
		{"btrfs", at(map[int64]string{0x10040: "_BHRfS_M", 0x10020: "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef", 0x1012b: "ROOT\x00x"}), "btrfs", false, "01234567-89ab-cdef-0123-456789abcdef", "ROOT"},
		{"swap", at(map[int64]string{4086: "SWAPSPACE2", 1036: "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef", 1052: "sw"}), "swap", false, "01234567-89ab-cdef-0123-456789abcdef", "sw"},
		{"F2FS", at(map[int64]string{1024: "\x10\x20\xf5\xf2"}), "f2fs", false, "", ""},
		{"ReiserFS", at(map[int64]string{65588: "ReIsEr2Fs"}), "reiserfs", false, "", ""},
	} {
		c := probe.Probe(filesystem.NewSource(t.Context(), tt.disk, tt.disk.Size, 64*mib))
		if c.Type != tt.want || c.Container != tt.container || c.UUID != tt.uuid || c.Label != tt.label || c.Volume != nil || c.Err != nil {
			t.Errorf("%s: %+v, want %s", tt.name, c, tt.want)
		}
		if (c.Name == "") != (tt.want == "") {
			t.Errorf("%s: the name for people is %q", tt.name, c.Name)
		}
	}
}

// TestReadable: what the tools make is opened and says who it is.
func TestReadable(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, build := range map[string]func(t *testing.T) string{
		"ext2": func(t *testing.T) string { return fstest.Ext(t, folder, 4*mib, "-t", "ext2", "-L", "ROOT") },
		"ext4": func(t *testing.T) string { return fstest.Ext(t, folder, 8*mib, "-t", "ext4", "-L", "ROOT") },
		"xfs":  func(t *testing.T) string { return fstest.XFS(t, folder, 16*mib, "-L", "ROOT") },
		"vfat": func(t *testing.T) string { return fstest.FAT(t, folder, 4*mib, "-n", "ROOT") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := probe.Probe(fstest.Source(t, build(t), 64*mib))
			if c.Err != nil || c.Volume == nil || c.Type != name || c.Label != "ROOT" || c.UUID == "" || c.Container {
				t.Errorf("it is %+v", c)
			}
		})
	}
}

// TestBroken: a file system that is known but can't be opened says why.
func TestBroken(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*fstest.Disk{
		"ext4": at(map[int64]string{1024 + 0x38: "\x53\xef"}), "xfs": at(map[int64]string{0: "XFSB"}),
	} {
		c := probe.Probe(filesystem.NewSource(t.Context(), d, d.Size, 64*mib))
		if c.Type != name || c.Volume != nil || c.Err == nil || !errors.Is(c.Err, filesystem.ErrCorrupt) && !errors.Is(c.Err, filesystem.ErrUnsupported) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	// A disk that gives nothing but errors.
	c := probe.Probe(filesystem.NewSource(t.Context(), strings.NewReader(""), mib, 64*mib))
	if c.Type != "" || c.Err == nil {
		t.Errorf("a disk that can't be read: %+v", c)
	}
}

// FuzzProbe: whatever lies in a volume, probing it ends, in small time.
func FuzzProbe(f *testing.F) {
	for _, d := range []*fstest.Disk{
		at(map[int64]string{0: "XFSB", 1024 + 0x38: "\x53\xef"}), at(map[int64]string{0x10040: "_BHRfS_M", 4086: "SWAPSPACE2"}),
		at(map[int64]string{0: "\xeb\x58\x90MSDOS5.0\x00\x02\x01\x01\x00\x02\x70\x00\x00\x10\xf8\x10", 510: "\x55\xaa"}),
	} {
		f.Add(d.Pack())
	}
	d := new(fstest.Disk)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d.Refill(b)
		src := filesystem.NewSource(t.Context(), d, d.Size, 4*mib)
		defer src.Release()
		c := probe.Probe(src)
		if c.Volume != nil && (c.Err != nil || c.Type == "") {
			t.Errorf("%+v", c)
		}
	})
}
