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
}

// Probe looks at a volume. What can't be read, or makes no sense, is a Content
// without a type, with Err if the disk gave an error.
func Probe(src *filesystem.Source) Content {
	if err := src.ReadFull(make([]byte, min(src.Size(), 1)), 0); err != nil {
		return Content{Err: err}
	}
	if c, ok := container(src); ok {
		return c
	}
	if c, ok := readable(src); ok {
		return c
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

func readable(src *filesystem.Source) (c Content, ok bool) {
	switch {
	case ext4.Detect(src):
		c.Type, c.Name = "ext4", "an ext4 file system"
		if v, err := ext4.Open(src); err != nil {
			c.Err = err
		} else {
			c.Volume = v
		}
	case xfs.Detect(src):
		c.Type, c.Name = "xfs", "an XFS file system"
		if v, err := xfs.Open(src); err != nil {
			c.Err = err
		} else {
			c.Volume = v
		}
	case fat.Detect(src):
		c.Type, c.Name = "vfat", "a FAT file system"
		if v, err := fat.Open(src); err != nil {
			c.Err = err
		} else {
			c.Volume = v
		}
	default:
		return c, false
	}
	if c.Volume != nil {
		info := c.Volume.Info()
		c.Type, c.UUID, c.Label = info.Type, info.UUID, info.Label
	}
	return c, true
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
