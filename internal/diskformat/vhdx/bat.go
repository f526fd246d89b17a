package vhdx

import (
	"encoding/binary"
	"fmt"
)

// An entry of the block allocation table, from [MS-VHDX] 2.5: a state, and
// where the block lies in MiB.
const (
	entrySize    = 8
	entryState   = 7
	entryReserve = 1<<20 - 8 // bits that are zero
)

// States of a payload block. The first four read as zeros: whoever trimmed or
// never wrote a block may not count on anything else.
const (
	stateNotPresent = 0
	stateUndefined  = 1
	stateZero       = 2
	stateUnmapped   = 3
	statePresent    = 6
	statePartial    = 7
)

// table is where the block allocation table lies and how it is laid out: after
// the entries of so many blocks as share one bitmap of sectors (a chunk) comes
// the entry of that bitmap. Only differencing disks use bitmaps; those entries
// are not looked at, and some versions of QEMU left odd values in them.
type table struct {
	off    int64
	blocks int64
	chunk  int64 // in blocks
}

// layTable checks that the table fits its region and the file.
func layTable(m *metadata, at region, size int64) (table, error) {
	t := table{
		off:    at.off,
		blocks: (m.size + m.blockSize - 1) / m.blockSize,
		// A bitmap has 1 MiB, a bit for each logical sector.
		chunk: (1 << 23) * m.logicalSector / m.blockSize,
	}
	need := (t.entry(t.blocks-1) + 1) * entrySize
	if need > at.size {
		return t, corrupt("block allocation table", "the disk has %d blocks, which take %d bytes; the region has %d", t.blocks, need, at.size)
	}
	if at.off > size-need {
		return t, incomplete("block allocation table", "%d bytes at %d lie beyond the file's %d", need, at.off, size)
	}
	return t, nil
}

// entry is the number of the entry of a block.
func (t table) entry(block int64) int64 { return block + block/t.chunk }

// places looks up blocks from one on, at least one and at most as many as at
// holds: where in the file each lies, 0 for one that reads as zeros. It returns
// how many it did, which are those in a page.
func (f *File) places(at []int64, block int64) (int, error) {
	first := f.bat.entry(block)
	b, err := f.pages.At(0, f.r, f.size, f.bat.off+first*entrySize)
	if err != nil {
		return 0, fmt.Errorf("reading the block allocation table: %w", err)
	}
	for i := range at {
		k := int(f.bat.entry(block+int64(i))-first) * entrySize
		if k >= len(b) {
			return i, nil
		}
		if at[i], err = f.place(block+int64(i), binary.LittleEndian.Uint64(b[k:])); err != nil {
			return i, err
		}
	}
	return len(at), nil
}

// place checks the entry e of a block.
func (f *File) place(block int64, e uint64) (int64, error) {
	switch state := e & entryState; state {
	case stateNotPresent, stateUndefined, stateZero, stateUnmapped:
		return 0, nil
	case statePartial:
		return 0, unsupported("block allocation table", "block %d is present in part, as in a disk with a parent", block)
	case statePresent:
	default:
		return 0, corrupt("block allocation table", "block %d has the state %d, which means nothing", block, state)
	}
	if e&entryReserve != 0 {
		return 0, corrupt("block allocation table", "the entry of block %d has the reserved bits %#x set", block, e&entryReserve)
	}
	off, need := e&^(mib-1), f.length(block)
	if off > uint64(f.size) || int64(off) > f.size-need {
		return 0, incomplete("block allocation table", "block %d lies at %d, beyond the file's %d bytes; "+
			"it was cut off or is damaged", block, off, f.size)
	}
	if !f.regions.free(int64(off), need) {
		return 0, corrupt("block allocation table", "block %d lies at %d, where the file has something else", block, off)
	}
	return int64(off), nil
}

// length of a block as far as it is of the disk.
func (f *File) length(block int64) int64 {
	return min(f.meta.blockSize, f.meta.size-block*f.meta.blockSize)
}
