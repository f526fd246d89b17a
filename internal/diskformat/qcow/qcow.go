// Package qcow reads QCOW, version 1 of QEMU's format: the forerunner of qcow2.
//
// A file is a header, an L1 table, L2 tables and clusters, which may be compressed
// with deflate. All integers are big-endian. It follows QEMU's description in
// words and is verified against files that qemu-img makes.
//
// Files that need a backing file, and encrypted ones, are refused.
package qcow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/clusters"
)

// Where the fields of the header lie.
const (
	magic = "QFI\xfb"

	offVersion       = 4
	offBackingOffset = 8
	offBackingSize   = 16
	offSize          = 24
	offClusterBits   = 32
	offL2Bits        = 33
	offCrypt         = 36
	offL1            = 40
	headerLen        = 48
)

// Bounds of what is read.
const (
	// MaxSize is the largest disk, in bytes: 64 TiB.
	MaxSize = 64 << 40
	// QEMU takes clusters of 512 bytes to 64 KiB and L2 tables of 512 bytes to
	// 64 KiB.
	minClusterBits, maxClusterBits = 9, 16
	minL2Bits, maxL2Bits           = 9 - 3, 16 - 3

	flagCompressed = 1 << 63
)

// File is an open file. It may be used by many goroutines at once. It holds no
// resources besides memory, at most 6 MiB, and need not be closed.
type File struct{ clusters.Disk }

var _ diskformat.Image = (*File)(nil)

// Open reads and checks the header of the file r of size bytes. The tables are
// checked when they are read.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no QCOW,
// ErrUnsupported for encryption, a backing file and what is beyond the bounds,
// ErrIncomplete when the file was cut off, ErrCorrupt for a contradiction; or what
// r returned. r must stay readable for as long as the File is used, and must be
// safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := new(File)
	if err := f.open(r, size); err != nil {
		return nil, fmt.Errorf("opening a QCOW file: %w", err)
	}
	return f, nil
}

func (f *File) open(r io.ReaderAt, size int64) error {
	b := make([]byte, max(0, min(size, headerLen)))
	if err := diskformat.ReadFull(r, b, 0); err != nil {
		return fmt.Errorf("reading the header: %w", err)
	}
	be := binary.BigEndian
	switch {
	case len(b) < offBackingOffset || string(b[:offVersion]) != magic || be.Uint32(b[offVersion:]) != 1:
		return fault(diskformat.ErrWrongFormat, "header.magic", "the file does not begin with %q and version 1", magic)
	case len(b) < headerLen:
		return fault(diskformat.ErrIncomplete, "header", "the file has %d bytes, the header %d", size, headerLen)
	case be.Uint64(b[offBackingOffset:]) != 0 || be.Uint32(b[offBackingSize:]) != 0:
		return fault(diskformat.ErrUnsupported, "header.backing_file_offset",
			"what is not in the file lies in a backing file, which is not opened; make one file of both with qemu-img convert")
	case be.Uint32(b[offCrypt:]) != 0:
		return fault(diskformat.ErrUnsupported, "header.crypt_method", "the disk is encrypted; decrypt it with qemu-img convert")
	}
	clusterBits, l2Bits, disk := b[offClusterBits], b[offL2Bits], be.Uint64(b[offSize:])
	switch {
	case clusterBits < minClusterBits || clusterBits > maxClusterBits:
		return fault(diskformat.ErrUnsupported, "header.cluster_bits", "it is %d; it must be %d to %d", clusterBits, minClusterBits, maxClusterBits)
	case l2Bits < minL2Bits || l2Bits > maxL2Bits:
		return fault(diskformat.ErrUnsupported, "header.l2_bits", "it is %d; it must be %d to %d", l2Bits, minL2Bits, maxL2Bits)
	case disk > MaxSize:
		return fault(diskformat.ErrUnsupported, "header.size", "it is %d bytes; at most %d are read", disk, int64(MaxSize))
	case disk%diskformat.SectorSize != 0:
		return fault(diskformat.ErrCorrupt, "header.size", "it is %d bytes; it must be a multiple of %d", disk, diskformat.SectorSize)
	case be.Uint64(b[offL1:]) > uint64(size):
		return fault(diskformat.ErrIncomplete, "header.l1_table_offset", "it is %d, beyond the file's %d bytes", be.Uint64(b[offL1:]), size)
	}
	f.Disk = clusters.Disk{
		Format: diskformat.QCOW, R: r, FileSize: size, DiskSize: int64(disk), Cluster: 1 << clusterBits,
		L1: int64(be.Uint64(b[offL1:])), L2Len: 1 << l2Bits, Order: be, Unpack: inflate,
		Place: func(e uint64) (clusters.Place, error) { return place(e, uint(clusterBits)) },
	}
	return f.Init()
}

// place reads an L2 entry. That of a compressed cluster has the length of the
// compressed bytes above their place.
func place(e uint64, clusterBits uint) (clusters.Place, error) {
	if e == 0 {
		return clusters.Place{}, nil
	}
	if e&flagCompressed == 0 {
		if e > 1<<62 {
			return clusters.Place{}, fault(diskformat.ErrCorrupt, "L2 table", "an entry is %#x, beyond any file", e)
		}
		return clusters.Place{Stored: true, Host: int64(e)}, nil
	}
	packed := int64(e >> (63 - clusterBits) & (1<<clusterBits - 1))
	if packed == 0 {
		return clusters.Place{}, fault(diskformat.ErrCorrupt, "L2 table", "the entry %#x tells of a compressed cluster of no bytes", e)
	}
	return clusters.Place{Stored: true, Host: int64(e & (1<<(63-clusterBits) - 1)), Packed: packed}, nil
}

// inflate fills dst from raw deflate data (RFC 1951).
func inflate(dst, packed []byte) error {
	z := flate.NewReader(bytes.NewReader(packed))
	defer z.Close()
	_, err := io.ReadFull(z, dst)
	return err
}

func fault(kind error, field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.QCOW, kind, field, problem, args...)
}
