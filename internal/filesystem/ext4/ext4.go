// Package ext4 reads ext2, ext3 and ext4 file systems: block maps and extents,
// 32- and 64-bit, inline data, hashed directories (read from front to back),
// meta block groups, bigalloc. It does not read encrypted or compressed files,
// external journals, or a file whose data lies in other inodes.
//
// The format is described in the Linux kernel, Documentation/filesystems/ext4;
// the names of fields in comments are those of that description.
package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

var le = binary.LittleEndian

// SuperblockOffset and its length, in bytes from the start of the volume.
const (
	SuperblockOffset = 1024
	superblockSize   = 1024
	superMagic       = 0xef53
)

// Features, from the description's tables of s_feature_*.
const (
	compatHasJournal   = 0x4
	compatSparseSuper2 = 0x200

	incompatFiletype   = 0x2
	incompatRecover    = 0x4
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompat64Bit      = 0x80
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatCsumSeed   = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit |
		incompatMMP | incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargeDir |
		incompatInlineData | incompatEncrypt | incompatCasefold

	roCompatSparseSuper = 0x1
	roCompatHugeFile    = 0x8 // ext4 alone, as extents and 64 bits are
)

const rootInode = 2

// Volume is an ext2, ext3 or ext4 file system. It implements
// [filesystem.Volume].
type Volume struct {
	src  *filesystem.Source
	info filesystem.Info

	blockSize      int64 // 1 KiB to 64 KiB
	blocks         uint64
	firstData      uint64
	blocksPerGroup uint64
	inodesPerGroup uint64
	inodes         uint64
	groups         uint64
	inodeSize      int64
	descSize       uint64
	firstMetaBG    uint64
	backupGroups   [2]uint32

	compat, incompat, roCompat uint32

	room filesystem.Room // for directories
}

// Detect reports whether the volume begins as one of this family does.
func Detect(src *filesystem.Source) bool {
	var b [2]byte
	return src.ReadFull(b[:], SuperblockOffset+0x38) == nil && le.Uint16(b[:]) == superMagic
}

// Open reads the superblock and checks it against the size of src.
func Open(src *filesystem.Source) (*Volume, error) {
	v, err := open(src)
	if err != nil {
		return nil, fmt.Errorf("the ext4 superblock: %w", err)
	}
	return v, nil
}

func open(src *filesystem.Source) (*Volume, error) {
	b := make([]byte, superblockSize)
	if err := src.ReadFull(b, SuperblockOffset); err != nil {
		return nil, err
	}
	if le.Uint16(b[0x38:]) != superMagic {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "s_magic is %#x, it must be %#x", le.Uint16(b[0x38:]), superMagic)
	}
	logSize := le.Uint32(b[0x18:])
	if logSize > 6 {
		return nil, filesystem.Errorf(filesystem.ErrCorrupt, "s_log_block_size is %d, at most 6 (64 KiB) is defined", logSize)
	}
	v := &Volume{
		src: src, blockSize: 1024 << logSize,
		inodes: uint64(le.Uint32(b)), blocks: uint64(le.Uint32(b[0x4:])), firstData: uint64(le.Uint32(b[0x14:])),
		blocksPerGroup: uint64(le.Uint32(b[0x20:])), inodesPerGroup: uint64(le.Uint32(b[0x28:])),
		inodeSize: 128, descSize: 32,
	}
	if rev := le.Uint32(b[0x4c:]); rev >= 1 {
		v.inodeSize = int64(le.Uint16(b[0x58:]))
		v.compat, v.incompat, v.roCompat = le.Uint32(b[0x5c:]), le.Uint32(b[0x60:]), le.Uint32(b[0x64:])
	}
	if unknown := v.incompat &^ incompatKnown; unknown != 0 {
		return nil, filesystem.Errorf(filesystem.ErrUnsupported, "s_feature_incompat has %#x, which is not read here", unknown)
	}
	if v.incompat&incompat64Bit != 0 {
		v.blocks |= uint64(le.Uint32(b[0x150:])) << 32
		v.descSize = uint64(le.Uint16(b[0xfe:]))
	}
	v.firstMetaBG = uint64(le.Uint32(b[0x104:]))
	v.backupGroups = [2]uint32{le.Uint32(b[0x24c:]), le.Uint32(b[0x250:])}
	v.info = filesystem.Info{Type: v.family(), UUID: uuid(b[0x68:0x78]), Label: text(b[0x78:0x88]), Dirty: v.incompat&incompatRecover != 0}
	return v, v.validate()
}

func (v *Volume) validate() error {
	corrupt := func(format string, args ...any) error {
		return filesystem.Errorf(filesystem.ErrCorrupt, format, args...)
	}
	block := uint64(v.blockSize)
	switch {
	case v.inodeSize < 128 || v.inodeSize > v.blockSize || bits.OnesCount64(uint64(v.inodeSize)) != 1:
		return corrupt("s_inode_size is %d, it must be a power of two from 128 to the block size", v.inodeSize)
	case v.descSize < 32 || v.descSize > 1024 || bits.OnesCount64(v.descSize) != 1:
		return corrupt("s_desc_size is %d, it must be a power of two from 64 to 1024", v.descSize)
	case v.blocks > uint64(v.src.Size())/block:
		return filesystem.Errorf(filesystem.ErrTooLarge, "it has %d blocks of %d bytes, its partition has room for %d: the partition was made smaller, or the disk was cut off",
			v.blocks, block, uint64(v.src.Size())/block)
	case v.firstData >= v.blocks || v.firstData > 1:
		return corrupt("s_first_data_block is %d", v.firstData)
	case v.blocksPerGroup == 0:
		return corrupt("s_blocks_per_group is 0")
	case v.inodesPerGroup == 0 || v.inodesPerGroup > 8*block:
		return corrupt("s_inodes_per_group is %d, one block of bitmap holds %d", v.inodesPerGroup, 8*block)
	}
	v.groups = (v.blocks - v.firstData + v.blocksPerGroup - 1) / v.blocksPerGroup
	if v.inodes > v.groups*v.inodesPerGroup {
		return corrupt("s_inodes_count is %d, %d groups have %d each", v.inodes, v.groups, v.inodesPerGroup)
	}
	return nil
}

// family goes by features, as blkid does: extents and their kin make it ext4, a
// journal ext3.
func (v *Volume) family() string {
	const ext3Incompat, ext3ROCompat = incompatFiletype | incompatRecover | incompatMetaBG, roCompatHugeFile - 1
	switch {
	case v.incompat&^ext3Incompat != 0 || v.roCompat&^ext3ROCompat != 0:
		return "ext4"
	case v.compat&compatHasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// Info implements [filesystem.Volume].
func (v *Volume) Info() filesystem.Info { return v.info }

// Root implements [filesystem.Volume].
func (v *Volume) Root() uint64 { return rootInode }

// SameName implements [filesystem.Volume]: upper and lower case differ, also in
// directories that were made not to (casefold), which no system disk uses.
func (v *Volume) SameName(asked, entry string) bool { return asked == entry }

// inodeTable finds a group's inode table, bg_inode_table of its descriptor.
func (v *Volume) inodeTable(group uint64) (uint64, error) {
	perBlock := uint64(v.blockSize) / v.descSize
	descBlock := group / perBlock
	// With blocks of 1 KiB the superblock lies in block 1 even where the first
	// group begins at block 0, as bigalloc makes it.
	start := v.firstData
	if v.blockSize == 1024 && start == 0 {
		start = 1
	}
	var at uint64
	if v.incompat&incompatMetaBG == 0 || descBlock < v.firstMetaBG {
		at = start + 1 + descBlock
	} else {
		// The descriptors of a meta group lie in its first group, behind that
		// group's copy of the superblock if it has one.
		first := descBlock * perBlock
		at = v.firstData + first*v.blocksPerGroup
		if first == 0 {
			at = start
		}
		if v.hasSuper(first) {
			at++
		}
	}
	if at >= v.blocks {
		return 0, filesystem.Errorf(filesystem.ErrCorrupt, "the descriptor of group %d would lie in block %d of %d", group, at, v.blocks)
	}
	d := make([]byte, v.descSize)
	if err := v.src.ReadFull(d, int64(at)*v.blockSize+int64(group%perBlock*v.descSize)); err != nil {
		return 0, fmt.Errorf("the descriptor of group %d: %w", group, err)
	}
	table := uint64(le.Uint32(d[0x8:]))
	if v.descSize >= 64 {
		table |= uint64(le.Uint32(d[0x28:])) << 32
	}
	return table, nil
}

// hasSuper tells whether a group begins with a copy of the superblock.
func (v *Volume) hasSuper(group uint64) bool {
	switch {
	case group == 0:
		return true
	case v.compat&compatSparseSuper2 != 0:
		return group == uint64(v.backupGroups[0]) || group == uint64(v.backupGroups[1])
	case v.roCompat&roCompatSparseSuper == 0 || group == 1:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := group
		for n%base == 0 {
			n /= base
		}
		if n == 1 {
			return true
		}
	}
	return false
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "\ufffd")
}
