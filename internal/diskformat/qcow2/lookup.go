package qcow2

import (
	"encoding/binary"
	"fmt"
)

// Parts of table entries. Bits that are in none of them are reserved and zero.
const (
	// The offset of an L2 table or of a cluster, bits 9 to 55.
	offsetMask = 1<<56 - 1<<9
	// Bit 63 says that nobody shares what is pointed to: for writers.
	flagCopied = 1 << 63
	// Bit 62 of an L2 entry: compressed.
	flagCompressed = 1 << 62
	// Bit 0 of a standard L2 entry of version 3: reads as zeros.
	flagZero = 1 << 0

	subclusters = 32
)

// kind is how a range of the disk is stored.
type kind uint8

const (
	unallocated kind = iota // in the backing disk, or zero
	zero
	standard
	compressed
)

// run is a range of the disk, of length bytes, that is stored in one way.
type run struct {
	kind   kind
	length int64
	// host is where a standard run begins in the file, or where the
	// compressed bytes of the cluster do.
	host int64
	// sectors is how many sectors of the file the compressed bytes touch.
	sectors int64
}

// lookup tells how the disk is stored from off on, for at most most bytes and
// at least one; off+most is at most the disk's size. A compressed run is what is
// left of one cluster; others may be any number of clusters.
func (f *File) lookup(off, most int64) (run, error) {
	span := f.h.l1Span()
	i := off / span
	// Within the file, as checkL1 saw.
	b, err := f.tables.At(0, f.r, f.size, f.h.l1+8*i)
	if err != nil {
		return run{}, fmt.Errorf("reading a table: %w", err)
	}
	b = b[:min(int64(len(b)), 8*(f.h.l1Entries-i))&^7]
	table, err := f.l2Table(b, i)
	if err != nil {
		return run{}, err
	}
	if table != 0 {
		return f.lookupL2(table, i, off, min(most, span-off%span))
	}
	length := span - off%span
	for b = b[8:]; len(b) > 0 && length < most; b = b[8:] {
		i++
		if table, err := f.l2Table(b, i); err != nil || table != 0 {
			break // whoever looks there meets it
		}
		length += span
	}
	return run{kind: unallocated, length: min(length, most)}, nil
}

// l2Table is where the L2 table of L1 entry i, the first of b, lies in the
// file; 0: there is none.
func (f *File) l2Table(b []byte, i int64) (int64, error) {
	e := binary.BigEndian.Uint64(b)
	off := int64(e & offsetMask)
	if e&^(offsetMask|flagCopied) != 0 {
		return 0, corrupt("L1 table", "entry %d is %#016x, which has reserved bits set", i, e)
	}
	if off%f.h.clusterSize() != 0 {
		return 0, corrupt("L1 table", "entry %d points to %d, no multiple of the cluster size %d", i, off, f.h.clusterSize())
	}
	if off != 0 && off > f.size-f.h.clusterSize() {
		return 0, incomplete("L1 table", "entry %d points to an L2 table at %d, which does not end within the file's %d bytes", i, off, f.fileSize)
	}
	if off > f.fileSize-f.h.clusterSize() {
		f.short.Store(true)
	}
	return off, nil
}

// lookupL2 is lookup in the L2 table of L1 entry i.
func (f *File) lookupL2(table, i, off, most int64) (run, error) {
	clusterSize, entrySize := f.h.clusterSize(), f.h.entrySize()
	entries := clusterSize / entrySize
	j := off / clusterSize % entries
	b, err := f.tables.At(0, f.r, f.size, table+j*entrySize)
	if err != nil {
		return run{}, fmt.Errorf("reading a table: %w", err)
	}
	b = b[:min(int64(len(b)), (entries-j)*entrySize)]

	unit := clusterSize
	if f.h.extended {
		unit = clusterSize / subclusters
	}
	within := off % clusterSize
	var first run
	for n := int64(0); n < most; {
		r, err := f.entry(b, within/unit)
		if err != nil {
			if n > 0 {
				break // whoever looks there meets it
			}
			return run{}, fmt.Errorf("cluster %d of the disk: %w", i*entries+j, err)
		}
		skip := within % unit
		if r.kind == compressed {
			unit, skip = clusterSize, within
		}
		switch {
		case n == 0:
			first = r
			if first.kind == standard {
				first.host += skip
			}
		case r.kind != first.kind || r.kind == compressed || r.kind == standard && r.host != first.host+n:
			return first, nil
		}
		n += unit - skip
		first.length = min(n, most)
		if r.kind == compressed {
			break
		}
		if within += unit - skip; within == clusterSize {
			within, j = 0, j+1
			if b = b[entrySize:]; int64(len(b)) < entrySize {
				break // the next page
			}
		}
	}
	return first, nil
}

// entry tells how subcluster sub of the first entry of b is stored; without
// subclusters, sub is 0. The run's length is not set.
func (f *File) entry(b []byte, sub int64) (run, error) {
	const field = "L2 table"
	e := binary.BigEndian.Uint64(b)
	if e&flagCompressed != 0 {
		return f.compressedEntry(e)
	}
	host := int64(e & offsetMask)
	reserved := e &^ (offsetMask | flagCopied)
	if !f.h.extended && f.h.version >= 3 {
		reserved &^= flagZero
	}
	if reserved != 0 {
		return run{}, corrupt(field, "the entry is %#016x, which has reserved bits set", e)
	}
	if host%f.h.clusterSize() != 0 {
		return run{}, corrupt(field, "the entry points to %d, no multiple of the cluster size %d", host, f.h.clusterSize())
	}
	// In a data file, a cluster may lie at 0; it is marked as not shared.
	stored := host != 0 || f.info.DataFile && e&flagCopied != 0
	if !f.h.extended {
		switch {
		case e&flagZero != 0:
			return run{kind: zero}, nil
		case stored:
			return run{kind: standard, host: host}, nil
		}
		return run{kind: unallocated}, nil
	}
	state := binary.BigEndian.Uint64(b[8:])
	allocated, zeros := uint32(state), uint32(state>>32)
	if allocated&zeros != 0 {
		return run{}, corrupt(field, "the bitmap of the entry is %#016x, which says of a subcluster that it is allocated and zero", state)
	}
	if allocated != 0 && !stored {
		return run{}, corrupt(field, "the bitmap of the entry is %#016x, which says that subclusters are allocated, but the entry points nowhere", state)
	}
	switch {
	case zeros>>sub&1 != 0:
		return run{kind: zero}, nil
	case allocated>>sub&1 != 0:
		return run{kind: standard, host: host + sub*(f.h.clusterSize()/subclusters)}, nil
	}
	return run{kind: unallocated}, nil
}

// compressedEntry takes the descriptor of a compressed cluster apart: the lower
// bits are the place of the compressed bytes, those above say how many sectors
// follow the one where they begin.
func (f *File) compressedEntry(e uint64) (run, error) {
	if f.info.DataFile {
		return run{}, corrupt("L2 table", "the entry is %#016x, of a compressed cluster, which can't be in a data file", e)
	}
	offsetBits := 62 - (f.h.clusterBits - 8)
	host := e & (1<<offsetBits - 1)
	more := e &^ (flagCopied | flagCompressed) >> offsetBits
	return run{kind: compressed, host: int64(host), sectors: int64(more) + 1}, nil
}
