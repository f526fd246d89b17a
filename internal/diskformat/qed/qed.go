// Package qed reads QED, a format that QEMU made before qcow2 version 3.
//
// A file is a header, an L1 table, L2 tables and clusters. All integers are
// little-endian. It follows QEMU's specification (docs/interop/qed_spec) in words
// and is verified against files that qemu-img and qemu-io make.
//
// Files that need a backing file are refused. A file that was not closed
// (need-check) is read: its tables are consistent, it may have leaked clusters.
package qed

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/clusters"
)

// Where the fields of the header lie.
const (
	magic = "QED\x00"

	offCluster   = 4
	offTable     = 8 // in clusters
	offHeader    = 12
	offFeatures  = 16
	offL1        = 40
	offSize      = 48
	headerLen    = 64
	featBacking  = 1 << 0
	featCheck    = 1 << 1
	featRawNames = 1 << 2 // the backing file is raw
)

// Bounds of what is read, from the specification.
const (
	MinCluster = 4 << 10
	MaxCluster = 64 << 20
	MaxTable   = 16 // clusters
	// MaxSize is the largest disk, in bytes: 64 TiB.
	MaxSize = 64 << 40

	entryZero = 1 // an L2 entry of a cluster of zeros
)

// File is an open file. It may be used by many goroutines at once. It holds no
// resources besides memory, at most 2 MiB, and need not be closed.
type File struct{ clusters.Disk }

var _ diskformat.Image = (*File)(nil)

// Open reads and checks the header of the file r of size bytes. The tables are
// checked when they are read.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no QED,
// ErrUnsupported for a backing file, unknown features and what is beyond the
// bounds, ErrIncomplete when the file was cut off, ErrCorrupt for a contradiction;
// or what r returned. r must stay readable for as long as the File is used, and
// must be safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := new(File)
	if err := f.open(r, size); err != nil {
		return nil, fmt.Errorf("opening a QED file: %w", err)
	}
	return f, nil
}

func (f *File) open(r io.ReaderAt, size int64) error {
	b := make([]byte, max(0, min(size, headerLen)))
	if err := diskformat.ReadFull(r, b, 0); err != nil {
		return fmt.Errorf("reading the header: %w", err)
	}
	le := binary.LittleEndian
	switch {
	case len(b) < len(magic) || string(b[:len(magic)]) != magic:
		return fault(diskformat.ErrWrongFormat, "header.magic", "the file does not begin with %q", magic)
	case len(b) < headerLen:
		return fault(diskformat.ErrIncomplete, "header", "the file has %d bytes, the header %d", size, headerLen)
	}
	cluster, table, features, disk := le.Uint32(b[offCluster:]), le.Uint32(b[offTable:]), le.Uint64(b[offFeatures:]), le.Uint64(b[offSize:])
	switch {
	case features&featBacking != 0:
		return fault(diskformat.ErrUnsupported, "header.features",
			"what is not in the file lies in a backing file, which is not opened; make one file of both with qemu-img convert")
	case features&^(featBacking|featCheck|featRawNames) != 0:
		return fault(diskformat.ErrUnsupported, "header.features", "the bits %#x have no known meaning", features)
	case cluster < MinCluster || cluster > MaxCluster || bits.OnesCount32(cluster) != 1:
		return fault(diskformat.ErrUnsupported, "header.cluster_size", "it is %d; it must be a power of two from %d to %d", cluster, MinCluster, MaxCluster)
	case table == 0 || table > MaxTable || bits.OnesCount32(table) != 1:
		return fault(diskformat.ErrUnsupported, "header.table_size", "it is %d clusters; it must be a power of two up to %d", table, MaxTable)
	case disk > MaxSize:
		return fault(diskformat.ErrUnsupported, "header.image_size", "it is %d bytes; at most %d are read", disk, int64(MaxSize))
	case disk%diskformat.SectorSize != 0:
		return fault(diskformat.ErrCorrupt, "header.image_size", "it is %d bytes; it must be a multiple of %d", disk, diskformat.SectorSize)
	case le.Uint64(b[offL1:]) > uint64(size):
		return fault(diskformat.ErrIncomplete, "header.l1_table_offset", "it is %d, beyond the file's %d bytes", le.Uint64(b[offL1:]), size)
	}
	entries := int64(table) * int64(cluster) / 8
	// An L1 table has as many entries as an L2 table. Entries times clusters stay
	// below 2^53.
	if l1 := entries * int64(cluster); int64(disk) > l1 && int64(disk)/l1 > entries {
		return fault(diskformat.ErrCorrupt, "header.image_size", "it is %d bytes, more than the tables can tell of", disk)
	}
	f.Disk = clusters.Disk{
		Format: diskformat.QED, R: r, FileSize: size, DiskSize: int64(disk), Cluster: int64(cluster),
		L1: int64(le.Uint64(b[offL1:])), L2Len: entries, Order: le,
		Place: func(e uint64) (clusters.Place, error) { return place(e, uint64(cluster)) },
	}
	return f.Init()
}

// place reads an L2 entry.
func place(e, cluster uint64) (clusters.Place, error) {
	switch {
	case e == 0, e == entryZero:
		return clusters.Place{}, nil
	case e%cluster != 0 || e > 1<<62:
		return clusters.Place{}, fault(diskformat.ErrCorrupt, "L2 table", "an entry is %#x; it must be a multiple of the cluster size %d within the file", e, cluster)
	}
	return clusters.Place{Stored: true, Host: int64(e)}, nil
}

func fault(kind error, field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.QED, kind, field, problem, args...)
}
