// Package diskformat says what a file of a disk is, from its bytes alone.
//
// It holds what all formats share: their names, [Detect] and [ReadHints], the
// [Image] interface that a reader of a format implements, and the kinds of
// errors that readers return. Each format that can be read has a package of
// its own below this one: zvhd2, zvhd, and bitmap for the map that lies beside
// a RAW file. A further format is a further folder whose File is an [Image].
//
// Terms. A disk is what a machine sees: sectors, addressed from 0 to its
// virtual size. A file is what stores it. A block is the unit a format stores
// or leaves out, a record one stored block. A hole is a range of the disk that
// is not stored and reads as zeros; an extent is a range that is wholly data
// or wholly hole.
//
// The bytes come from strangers. Every reader here checks a length before it
// allocates for it, does its arithmetic in ranges that cannot overflow, opens
// nothing that a file names, and reads through an [io.ReaderAt] in few and
// large pieces, because each call may be a request over a network.
package diskformat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// SectorSize is the unit of a disk's size in bytes: the disks of the image service
// consist of whole sectors of 512 bytes.
const SectorSize = 512

// Format is the name of a disk format, in the lower-case spelling that is
// usual for it in tools and APIs.
type Format string

// The formats that [Detect] tells apart.
const (
	// Raw is what remains when nothing else matches: the file is the disk.
	Raw Format = "raw"
	// ZVHD2 is the indexed, compressed format; see package zvhd2.
	ZVHD2 Format = "zvhd2"
	// ZVHD is its sequential forerunner; see package zvhd.
	ZVHD Format = "zvhd"

	QCOW      Format = "qcow" // version 1
	QCOW2     Format = "qcow2"
	QED       Format = "qed"
	VMDK      Format = "vmdk" // sparse extents of all kinds, and the text descriptor
	VHD       Format = "vhd"  // fixed, dynamic, differencing
	VHDX      Format = "vhdx"
	VDI       Format = "vdi"
	Parallels Format = "parallels"
	DMG       Format = "dmg"
	ISO       Format = "iso" // ISO 9660 or UDF, hybrid ones too
	WIM       Format = "wim"
)

// Extent is a range of a disk, in bytes, that is either data or a hole.
// Data may still be zeros; a hole always reads as zeros.
type Extent struct {
	Offset int64
	Length int64
	Data   bool
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Image is a disk that can be read at random. Implementations may be used by
// many goroutines at once.
type Image interface {
	// ReadAt reads the disk, holes as zeros. What cannot be read or does not
	// pass its checks is an error, never zeros.
	io.ReaderAt
	// Size is the virtual size in bytes.
	Size() int64
	// Map covers the disk from 0 to Size without gaps, in order, data and holes
	// in turn. It may read what it needs to know them, such as tables, a piece
	// at a time. It ends with the first error, which comes with a zero Extent;
	// ctx's end is one. Formats that know their extents once they are open have
	// an Extents of their own besides, which does no I/O.
	Map(ctx context.Context) iter.Seq2[Extent, error]
}

// ReadFull fills p from off. A source that ends earlier is an error that wraps
// [io.ErrUnexpectedEOF], since sizes are known here before anything is read.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil // io.ReaderAt may say io.EOF with the last full read
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("the source ended at byte %d, bytes %d to %d were expected: %w",
			off+int64(n), off, off+int64(len(p)), io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("reading bytes %d to %d: %w", off, off+int64(len(p)), err)
}
