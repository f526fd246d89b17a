package xfs

import (
	"fmt"

	"github.com/quickims/quickims/internal/filesystem"
)

// run is a stretch of a file that lies in one piece, or a hole.
type run struct {
	start uint64 // the volume's block, if data
	count uint64 // at least 1
	data  bool
}

// An extent is 16 bytes: one bit for "not written yet", 54 of the file's block,
// 52 of the volume's, 21 of the number of blocks.
const (
	extentSize   = 16
	endOfFile    = 1 << 54
	maxTreeLevel = 10 // XFS_BTREE_MAXLEVELS is 9 in Linux
)

type extent struct {
	first, start, count uint64
	unwritten           bool
}

func unpack(b []byte) extent {
	hi, lo := be.Uint64(b), be.Uint64(b[8:])
	return extent{
		first: hi << 1 >> 10, start: hi<<43&(1<<52-1) | lo>>21, count: lo & (1<<21 - 1), unwritten: hi>>63 != 0,
	}
}

// run finds where a file's block lies.
func (v *Volume) run(n *inode, block uint64) (run, error) {
	list, end, err := v.extentsNear(n, block)
	if err != nil {
		return run{}, err
	}
	for ; len(list) > 0; list = list[extentSize:] {
		e := unpack(list)
		if e.first > block {
			end = min(end, e.first)
			break
		}
		if block-e.first >= e.count {
			continue
		}
		done := block - e.first
		return run{start: e.start + done, count: e.count - done, data: !e.unwritten}, nil
	}
	if end <= block {
		return run{}, filesystem.Errorf(filesystem.ErrCorrupt, "its extents are not in order")
	}
	return run{count: end - block}, nil
}

// extentsNear gives the list of extents that would hold the block, and the first
// block that the list says nothing of.
func (v *Volume) extentsNear(n *inode, block uint64) (list []byte, end uint64, err error) {
	switch n.form {
	case formExtents:
		if n.extents > uint64(len(n.fork)/extentSize) {
			return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "di_nextents is %d in %d bytes", n.extents, len(n.fork))
		}
		return n.fork[:n.extents*extentSize], endOfFile, nil
	case formTree:
		return v.extentTree(n, block)
	}
	return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "di_format is %d", n.form)
}

// extentTree descends the B+tree: the root in the inode has level, number of
// records, keys, pointers; a block has a longer head before the same.
func (v *Volume) extentTree(n *inode, block uint64) (list []byte, end uint64, err error) {
	head, magic := 24, "BMAP"
	if v.v5 {
		head, magic = 72, "BMA3"
	}
	end = endOfFile
	body := n.fork
	if len(body) < 4 {
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "the root of its extent tree has %d bytes", len(body))
	}
	level, count := int(be.Uint16(body)), int(be.Uint16(body[2:]))
	body = body[4:]
	if level == 0 || level > maxTreeLevel {
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "bb_level is %d in the root of its extent tree", level)
	}
	for ; level > 0; level-- {
		room := len(body) / 16
		if count == 0 || count > room {
			return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "bb_numrecs is %d at level %d of its extent tree, there is room for %d", count, level, room)
		}
		found := 0
		for i := 1; i < count; i++ {
			if key := be.Uint64(body[i*8:]); key > block {
				end = min(end, key)
				break
			}
			found = i
		}
		child := be.Uint64(body[(room+found)*8:])
		at, err := v.position(child, 1)
		if err != nil {
			return nil, 0, fmt.Errorf("its extent tree: %w", err)
		}
		b := make([]byte, v.blockSize)
		if err := v.src.ReadFull(b, at); err != nil {
			return nil, 0, fmt.Errorf("its extent tree: %w", err)
		}
		if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level-1 {
			return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "a block of its extent tree begins with %q and has level %d, it must be %q and %d",
				b[:4], be.Uint16(b[4:]), magic, level-1)
		}
		count, body = int(be.Uint16(b[6:])), b[head:]
	}
	if count > len(body)/extentSize {
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "bb_numrecs is %d in a leaf of its extent tree", count)
	}
	return body[:count*extentSize], end, nil
}
