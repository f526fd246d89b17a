// Package xfs reads XFS file systems of the on-disk versions 4 and 5, with
// directories of all forms. It does not read the realtime section.
//
// The format is described in "XFS Algorithms & Data Structures" (the xfs
// documentation project) and fs/xfs/libxfs/xfs_format.h of Linux; the names of
// fields in comments are those of that header.
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

var be = binary.BigEndian

const (
	superMagic = "XFSB"
	superSize  = 512 // of which 264 are defined
)

// Versions and features, sb_versionnum, sb_features2 and sb_features_incompat.
const (
	versionMask   = 0xf
	versionDirV2  = 0x2000
	versionMore   = 0x8000 // sb_features2 counts
	versionFoldCI = 0x4000

	features2Ftype = 0x200

	incompatFtype    = 0x1
	incompatSpinodes = 0x2
	incompatMetaUUID = 0x4
	incompatBigtime  = 0x8
	incompatRepair   = 0x10
	incompatNrext64  = 0x20
	incompatExchange = 0x40
	incompatParent   = 0x80

	incompatKnown = incompatFtype | incompatSpinodes | incompatMetaUUID | incompatBigtime | incompatRepair |
		incompatNrext64 | incompatExchange | incompatParent
)

// Volume is an XFS file system. It implements [filesystem.Volume].
type Volume struct {
	src  *filesystem.Source
	info filesystem.Info

	v5       bool
	ftype    bool // directory entries carry the kind of what they name
	fold     bool // upper and lower case are the same (ASCII)
	nrext64  bool
	root     uint64
	blocks   uint64 // sb_dblocks
	agBlocks uint64
	agCount  uint64

	blockSize, dirBlockSize, inodeSize int64
	blockLog, inopLog, agLog           uint // log2 of block size, inodes in a block, blocks in a group (rounded up)
}

// Detect reports whether the volume begins as XFS does.
func Detect(src *filesystem.Source) bool {
	b := make([]byte, len(superMagic))
	return src.ReadFull(b, 0) == nil && string(b) == superMagic
}

// Open reads the superblock and checks it against the size of src.
func Open(src *filesystem.Source) (*Volume, error) {
	v, err := open(src)
	if err != nil {
		return nil, fmt.Errorf("the XFS superblock: %w", err)
	}
	return v, nil
}

func open(src *filesystem.Source) (*Volume, error) {
	b := make([]byte, superSize)
	if err := src.ReadFull(b, 0); err != nil {
		return nil, err
	}
	corrupt := func(format string, args ...any) error {
		return filesystem.Errorf(filesystem.ErrCorrupt, format, args...)
	}
	if string(b[:4]) != superMagic {
		return nil, corrupt("sb_magicnum is %q, it must be %q", b[:4], superMagic)
	}
	version := be.Uint16(b[100:])
	v := &Volume{
		src: src, v5: version&versionMask == 5, fold: version&versionFoldCI != 0,
		root: be.Uint64(b[56:]), blocks: be.Uint64(b[8:]),
		agBlocks: uint64(be.Uint32(b[84:])), agCount: uint64(be.Uint32(b[88:])),
		blockSize: int64(be.Uint32(b[4:])), inodeSize: int64(be.Uint16(b[104:])),
		blockLog: uint(b[120]), inopLog: uint(b[123]), agLog: uint(b[124]),
	}
	inodeLog, dirLog := uint(b[122]), uint(b[192])
	switch {
	case version&versionMask == 4 && version&versionDirV2 != 0:
		v.ftype = version&versionMore != 0 && be.Uint32(b[200:])&features2Ftype != 0
	case v.v5:
		features := be.Uint32(b[216:])
		if unknown := features &^ incompatKnown; unknown != 0 {
			return nil, filesystem.Errorf(filesystem.ErrUnsupported, "sb_features_incompat has %#x, which is not read here", unknown)
		}
		v.ftype, v.nrext64 = features&incompatFtype != 0, features&incompatNrext64 != 0
	default:
		return nil, filesystem.Errorf(filesystem.ErrUnsupported, "sb_versionnum is %#x, versions 4 (with directories of version 2) and 5 are read", version)
	}
	switch {
	case v.blockLog < 9 || v.blockLog > 16 || v.blockSize != 1<<v.blockLog:
		return nil, corrupt("sb_blocksize is %d and its logarithm %d, from 512 to 65536 are defined", v.blockSize, v.blockLog)
	case inodeLog < 8 || inodeLog > 11 || v.inodeSize != 1<<inodeLog || inodeLog > v.blockLog || v.inopLog != v.blockLog-inodeLog:
		return nil, corrupt("sb_inodesize is %d and its logarithm %d, from 256 to 2048 are defined", v.inodeSize, inodeLog)
	case dirLog > 16 || v.blockLog+dirLog > 16:
		return nil, corrupt("sb_dirblklog is %d, directory blocks have at most 65536 bytes", dirLog)
	case v.agCount == 0 || v.agBlocks == 0 || v.agLog > 31 || v.agBlocks > 1<<v.agLog:
		return nil, corrupt("%d allocation groups of %d blocks, logarithm %d", v.agCount, v.agBlocks, v.agLog)
	case v.blocks > v.agCount*v.agBlocks || v.blocks <= (v.agCount-1)*v.agBlocks:
		return nil, corrupt("sb_dblocks is %d, with %d allocation groups of %d blocks", v.blocks, v.agCount, v.agBlocks)
	case v.blocks > uint64(src.Size())>>v.blockLog:
		return nil, filesystem.Errorf(filesystem.ErrTooLarge, "it has %d blocks of %d bytes, its partition has room for %d: the partition was made smaller, or the disk was cut off",
			v.blocks, v.blockSize, src.Size()>>v.blockLog)
	}
	v.dirBlockSize = v.blockSize << dirLog
	v.info = filesystem.Info{Type: "xfs", UUID: uuid(b[32:48]), Label: text(b[108:120])}
	return v, nil
}

// Info implements [filesystem.Volume]. Whether the log is empty is not looked at.
func (v *Volume) Info() filesystem.Info { return v.info }

// Root implements [filesystem.Volume].
func (v *Volume) Root() uint64 { return v.root }

// SameName implements [filesystem.Volume].
func (v *Volume) SameName(asked, entry string) bool {
	if v.fold {
		return strings.EqualFold(asked, entry)
	}
	return asked == entry
}

// position turns the number of a block, group and block in it side by side,
// into a byte, and checks that count blocks lie in that group.
func (v *Volume) position(fsblock, count uint64) (int64, error) {
	group, block := fsblock>>v.agLog, fsblock&(1<<v.agLog-1)
	if group >= v.agCount || block >= v.agBlocks || count > v.agBlocks-block || group*v.agBlocks+block+count > v.blocks {
		return 0, filesystem.Errorf(filesystem.ErrCorrupt, "%d blocks at %d of allocation group %d reach beyond it or the end", count, block, group)
	}
	return int64(group*v.agBlocks+block) << v.blockLog, nil
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "\ufffd")
}
