// Package probe tells what lies in a disk or a partition, and opens the file
// systems that can be read. What can't be read is named, so that a caller can
// say so: another file system, an encrypted one, a container of other volumes.
package probe

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/ext4"
	"github.com/quickims/quickims/internal/filesystem/fat"
	"github.com/quickims/quickims/internal/filesystem/xfs"
)

// Content is what lies in a volume.
type Content struct {
	// Type as blkid names it, such as ext4, btrfs or LVM2_member; "" when
	// nothing known was found.
	Type string
	// Name for people, such as "an LVM physical volume".
	Name string
	// UUID and Label as blkid prints them; "" when not known.
	UUID, Label string
	// Container: volumes that are not seen from here may lie in it.
	Container bool
	// Volume reads it; nil when the type is not read here, or for the reason Err.
	Volume filesystem.Volume
	// Err: why a file system of a type that is read here could not be opened.
	Err error
}

// mark is the signature of something that is not read here.
type mark struct {
	at        int64
	magic     string
	typ, name string
	uuid      int64 // where 16 bytes of UUID lie; 0: not known
	label     int64 // where a label of at most labelLen bytes lies
	labelLen  int
}

const (
	mdMagic1  = "\xfc\x4e\x2b\xa9\x01\x00\x00\x00" // version 1 superblocks
	mdMagic0  = "\xfc\x4e\x2b\xa9"                 // version 0.90
	raidType  = "linux_raid_member"
	raidName  = "a member of a Linux software RAID"
	swapName  = "swap space"
	luksType  = "crypto_LUKS"
	pageSmall = 4 << 10
	pageLarge = 64 << 10
)

// containers are looked for first: what they hold may look like a file system
// from outside.
var containers = []mark{
	{at: 0, magic: "LUKS\xba\xbe", typ: luksType, name: "an encrypted volume (LUKS)"},
	{at: 0, magic: mdMagic1, typ: raidType, name: raidName},
	{at: 4096, magic: mdMagic1, typ: raidType, name: raidName},
	{at: 3, magic: "-FVE-FS-", typ: "BitLocker", name: "an encrypted volume (BitLocker)"},
	{at: 4096 + 24, magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", typ: "bcache", name: "a bcache device"},
	{at: 0, magic: "bluestore block device", typ: "ceph_bluestore", name: "a device of Ceph"},
	{at: 512 + 4, magic: "!Stra0tis\x86\xff\x02^\x41rh", typ: "stratis", name: "a device of Stratis"},
	{at: 0, magic: "dmvdo001", typ: "vdo", name: "a VDO volume"},
	{at: 32, magic: "ORCLDISK", typ: "oracleasm", name: "a disk of Oracle ASM"},
	{at: 32, magic: "NXSB", typ: "apfs", name: "an APFS container"},
}

// others are file systems that are not read here, and swap.
var others = []mark{
	{at: 3, magic: "NTFS    ", typ: "ntfs", name: "NTFS, a file system of Windows"},
	{at: 3, magic: "ReFS\x00\x00\x00\x00", typ: "ReFS", name: "ReFS, a file system of Windows"},
	{at: 3, magic: "EXFAT   ", typ: "exfat", name: "exFAT"},
	{at: 0x10040, magic: "_BHRfS_M", typ: "btrfs", name: "btrfs", uuid: 0x10020, label: 0x1012b, labelLen: 256},
	{at: pageSmall - 10, magic: "SWAPSPACE2", typ: "swap", name: swapName, uuid: 1036, label: 1052, labelLen: 16},
	{at: pageLarge - 10, magic: "SWAPSPACE2", typ: "swap", name: swapName, uuid: 1036, label: 1052, labelLen: 16},
	{at: 1024, magic: "\x10\x20\xf5\xf2", typ: "f2fs", name: "F2FS"},
	{at: 1024, magic: "\xe2\xe1\xf5\xe0", typ: "erofs", name: "EROFS"},
	{at: 0, magic: "hsqs", typ: "squashfs", name: "squashfs"},
	{at: 32768, magic: "JFS1", typ: "jfs", name: "JFS"},
	{at: 65588, magic: "ReIsEr", typ: "reiserfs", name: "ReiserFS"},
	{at: 32769, magic: "CD001", typ: "iso9660", name: "ISO 9660"},
	{at: 1024, magic: "H+\x00\x04", typ: "hfsplus", name: "HFS+"},
	{at: 1024, magic: "HX\x00\x05", typ: "hfsplus", name: "HFS+"},
	{at: 4096 + 24, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", typ: "bcachefs", name: "bcachefs"},
	{at: 0x10000, magic: "\x01\x16\x19\x70", typ: "gfs2", name: "GFS2"},
	{at: 8192 + 1372, magic: "\x54\x19\x01\x00", typ: "ufs", name: "UFS"},
	{at: 8192 + 1372, magic: "\x19\x01\x54\x19", typ: "ufs", name: "UFS"},
	{at: 65536 + 1372, magic: "\x19\x01\x54\x19", typ: "ufs", name: "UFS"},
	{at: 2048, magic: "OCFSV2", typ: "ocfs2", name: "OCFS2"},
	{at: 4096, magic: "OCFSV2", typ: "ocfs2", name: "OCFS2"},
	{at: 1024, magic: "OCFSV2", typ: "ocfs2", name: "OCFS2"},
	{at: 0, magic: "\x45\x3d\xcd\x28", typ: "cramfs", name: "cramfs"},
	{at: 8192 - 10, magic: "SWAPSPACE2", typ: "swap", name: swapName, uuid: 1036, label: 1052, labelLen: 16},
	{at: 16384 - 10, magic: "SWAPSPACE2", typ: "swap", name: swapName, uuid: 1036, label: 1052, labelLen: 16},
	// Partition tables that are not read here.
	{at: 512, magic: "PM\x00\x00", typ: "mac", name: "a partition table of Apple's"},
	{at: 512, magic: "\x57\x45\x56\x82", typ: "bsd", name: "a disk label of BSD"},
	{at: 0, magic: "\x0b\xe5\xa9\x41", typ: "sgi", name: "a volume header of SGI's"},
	{at: 8192, magic: "\xe5\xd6\xd3\xf1", typ: "dasd", name: "a volume label of an IBM DASD"},
}

// Probe looks at a volume and opens what can be read. What makes no sense is a Content
// without a type, with Err if the disk gave an error.
func Probe(src *filesystem.Source) Content {
	c := Identify(src)
	open := openers[c.Type]
	if open == nil {
		return c
	}
	v, err := open(src)
	if err != nil {
		c.Err = err
		return c
	}
	info := v.Info()
	c.Volume, c.Type, c.UUID, c.Label = v, info.Type, info.UUID, info.Label
	return c
}

// openers open the file systems that are read here, by the type that Identify gives.
var openers = map[string]func(*filesystem.Source) (filesystem.Volume, error){
	"ext4": func(src *filesystem.Source) (filesystem.Volume, error) { return given(ext4.Open(src)) },
	"xfs":  func(src *filesystem.Source) (filesystem.Volume, error) { return given(xfs.Open(src)) },
	"vfat": func(src *filesystem.Source) (filesystem.Volume, error) { return given(fat.Open(src)) },
}

// given keeps a nil of a file system's own type from becoming a Volume.
func given[T filesystem.Volume](v T, err error) (filesystem.Volume, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Reach is how far from the front, in bytes, and EndReach from how far before the end
// Identify reads at most.
const (
	Reach    = 320 << 10
	EndReach = 192 << 10
)

// Identify tells what lies in a volume by its signature alone, and opens nothing. It
// reads the first [Reach] and the last [EndReach] bytes at most.
func Identify(src *filesystem.Source) Content {
	if err := src.ReadFull(make([]byte, min(src.Size(), 1)), 0); err != nil {
		return Content{Err: err}
	}
	if c, ok := container(src); ok {
		return c
	}
	switch {
	case ext4.Detect(src):
		return Content{Type: "ext4", Name: "an ext4 file system"}
	case xfs.Detect(src):
		return Content{Type: "xfs", Name: "an XFS file system"}
	case fat.Detect(src):
		return Content{Type: "vfat", Name: "a FAT file system"}
	}
	if c, ok := match(src, others); ok {
		return c
	}
	if isZFS(src) {
		return Content{Type: "zfs_member", Name: "a member of a ZFS pool", Container: true}
	}
	return Content{}
}

func container(src *filesystem.Source) (Content, bool) {
	c, ok := match(src, containers)
	if !ok {
		c, ok = lvm(src)
	}
	if !ok && raidAtEnd(src) {
		c, ok = Content{Type: raidType, Name: raidName}, true
	}
	c.Container = ok
	if c.Type == luksType {
		c.UUID = text(src, 168, 40)
	}
	return c, ok
}

// lvm looks for the label of a physical volume in one of the first four sectors.
func lvm(src *filesystem.Source) (Content, bool) {
	for sector := range int64(4) {
		if matches(src, sector*512, "LABELONE") && matches(src, sector*512+24, "LVM2 001") {
			return Content{Type: "LVM2_member", Name: "a physical volume of LVM"}, true
		}
	}
	return Content{}, false
}

// raidAtEnd looks for the superblocks that lie behind the data: of version 1.0
// at least 8 KiB before the end, of 0.90 in the last whole 64 KiB but one.
func raidAtEnd(src *filesystem.Source) bool {
	return matches(src, (src.Size()/512-16)&^7*512, mdMagic1) || matches(src, src.Size()&^(64<<10-1)-64<<10, mdMagic0)
}

func match(src *filesystem.Source, list []mark) (Content, bool) {
	for _, m := range list {
		if !matches(src, m.at, m.magic) {
			continue
		}
		c := Content{Type: m.typ, Name: m.name}
		b := make([]byte, 16)
		if m.uuid != 0 && src.ReadFull(b, m.uuid) == nil {
			c.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
		}
		c.Label = text(src, m.label, m.labelLen)
		return c, true
	}
	return Content{}, false
}

// isZFS looks for one of the 128 uberblocks of the first label, in either byte
// order.
func isZFS(src *filesystem.Source) bool {
	const from, to = 128 << 10, 256 << 10
	if src.Size() < to {
		return false
	}
	b := make([]byte, 8)
	for at := int64(from); at < to; at += 1024 {
		if src.ReadFull(b, at) != nil {
			return false
		}
		if m := string(b); m == "\x0c\xb1\xba\x00\x00\x00\x00\x00" || m == "\x00\x00\x00\x00\x00\xba\xb1\x0c" {
			return true
		}
	}
	return false
}

// matches is false for bytes that lie outside or can't be read.
func matches(src *filesystem.Source, at int64, magic string) bool {
	b := make([]byte, len(magic))
	return src.ReadFull(b, at) == nil && string(b) == magic
}

func text(src *filesystem.Source, at int64, n int) string {
	b := make([]byte, n)
	if src.ReadFull(b, at) != nil {
		return ""
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "\ufffd")
}
