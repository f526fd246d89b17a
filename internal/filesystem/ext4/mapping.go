package ext4

import (
	"fmt"
	"math"

	"github.com/quickims/quickims/internal/filesystem"
)

// run is a stretch of a file that lies in one piece, or a hole.
type run struct {
	start uint64 // the volume's block, if data
	count uint64 // at least 1, at most 2³²
	data  bool
}

// run finds where a file's block lies.
func (v *Volume) run(n *inode, block uint64) (run, error) {
	if block > math.MaxUint32 { // ee_block and the block map have 32 bits
		return run{count: 1 << 32}, nil
	}
	if n.flags&flagExtents != 0 {
		return v.extent(n, block)
	}
	return v.mapped(n, block)
}

// Extents: a tree whose root lies in i_block. Each node has a header of 12
// bytes and entries of 12.
const (
	extentMagic    = 0xf30a
	extentSize     = 12
	maxExtentDepth = 5
	maxExtentLen   = 32768 // longer ones are allocated but not written
)

func (v *Volume) extent(n *inode, block uint64) (run, error) {
	node := n.block()
	end := uint64(1) << 32 // the first block after what this node covers
	for depth := -1; ; {
		entries, level, err := extentNode(node, depth)
		if err != nil {
			return run{}, err
		}
		// The last entry that begins at or before the block; entries are sorted.
		found := -1
		for i := range len(entries) / extentSize {
			first := uint64(le.Uint32(entries[i*extentSize:]))
			if first > block {
				end = min(end, first)
				break
			}
			found = i
		}
		hole := run{count: end - block}
		if found < 0 {
			return hole, nil
		}
		e := entries[found*extentSize:][:extentSize]
		if level == 0 {
			return leafRun(e, block, hole), nil
		}
		child := uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32
		if child == 0 || child >= v.blocks {
			return run{}, filesystem.Errorf(filesystem.ErrCorrupt, "its extent tree leads to block %d of %d", child, v.blocks)
		}
		node = make([]byte, v.blockSize)
		if err := v.src.ReadFull(node, int64(child)*v.blockSize); err != nil {
			return run{}, fmt.Errorf("its extent tree: %w", err)
		}
		depth = level - 1
	}
}

// leafRun is the rest of the extent e from block on, or the hole behind it.
func leafRun(e []byte, block uint64, hole run) run {
	first, length := uint64(le.Uint32(e)), uint64(le.Uint16(e[4:]))
	start := uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32
	data := true
	if length > maxExtentLen {
		length, data = length-maxExtentLen, false
	}
	if block-first >= length {
		return hole
	}
	left := length - (block - first)
	if !data {
		return run{count: left}
	}
	return run{start: start + block - first, count: left, data: true}
}

// extentNode checks a node's header and gives its entries. Its depth must be
// the one given, so that a tree that leads back to itself ends; -1 is the root.
func extentNode(node []byte, depth int) (entries []byte, level int, err error) {
	count, level := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	switch {
	case le.Uint16(node) != extentMagic:
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "eh_magic is %#x, it must be %#x", le.Uint16(node), extentMagic)
	case depth < 0 && level > maxExtentDepth, depth >= 0 && level != depth:
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "eh_depth is %d", level)
	case count > len(node)/extentSize-1:
		return nil, 0, filesystem.Errorf(filesystem.ErrCorrupt, "eh_entries is %d in %d bytes", count, len(node))
	}
	return node[extentSize:][:count*extentSize], level, nil
}

// mapped reads the block map: twelve blocks, then one block of pointers, one of
// pointers to those, and one more level.
func (v *Volume) mapped(n *inode, block uint64) (run, error) {
	const direct = 12
	root := n.block()
	if block < direct {
		return pointers(root[block*4 : direct*4]), nil
	}
	block -= direct
	perBlock := uint64(v.blockSize) / 4
	for level, covers := 1, perBlock; level <= 3; level, covers = level+1, covers*perBlock {
		if block >= covers {
			block -= covers
			continue
		}
		at := uint64(le.Uint32(root[(direct+level-1)*4:]))
		for covers > 1 {
			covers /= perBlock
			if at == 0 {
				return run{count: covers*perBlock - block}, nil
			}
			if at >= v.blocks {
				return run{}, filesystem.Errorf(filesystem.ErrCorrupt, "its block map leads to block %d of %d", at, v.blocks)
			}
			from := block / covers
			// The last level is read to its end, so that a run is found.
			want := uint64(1)
			if covers == 1 {
				want = perBlock - from
			}
			p := make([]byte, want*4)
			if err := v.src.ReadFull(p, int64(at)*v.blockSize+int64(from)*4); err != nil {
				return run{}, fmt.Errorf("its block map: %w", err)
			}
			if covers == 1 {
				return pointers(p), nil
			}
			at, block = uint64(le.Uint32(p)), block%covers
		}
	}
	return run{count: 1 << 32}, nil
}

// pointers is the run that a list of block numbers begins with.
func pointers(p []byte) run {
	first := uint64(le.Uint32(p))
	r := run{start: first, count: 1, data: first != 0}
	for p = p[4:]; len(p) > 0; p = p[4:] {
		next := uint64(le.Uint32(p))
		if r.data && next != first+r.count || !r.data && next != 0 {
			break
		}
		r.count++
	}
	return r
}
