// Package qcow2 reads qcow2, the copy-on-write disk format of QEMU, versions 2
// and 3.
//
// It follows the public description of the format (QEMU's interop document
// "qcow2"), written anew, and is verified against files that qemu-img and
// qemu-io make, which qemu-img then reads too.
//
// A file consists of clusters of one size. Two levels of tables lead from a
// cluster of the disk to the cluster of the file that holds it: an entry of the
// L1 table points to an L2 table of one cluster, whose entries are standard (a
// whole cluster, maybe in 32 subclusters with a state of their own), compressed
// alone, zero, or unallocated. What is unallocated is taken from a backing
// disk or is zero. All integers are big-endian.
//
// [Open] reads the header alone. Tables are read when they are needed, 64 KiB
// at a time, and the last few MiB of them are kept, whatever a header says of
// their size. So the extents of a disk cost reads.
//
// Only the active layer is read: internal snapshots, bitmaps and refcounts are
// not looked at. Nothing that a header names is ever opened; the caller may
// open it and hand it in with [Options].
package qcow2

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/padded"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// Bounds of what is read.
const (
	// MaxDiskSize is the largest disk, 64 TiB. Nothing is held in memory that
	// grows with it; the bound keeps arithmetic far from overflow and sums
	// that grow with the disk within reason.
	MaxDiskSize = 64 << 40
	// MinClusterSize and MaxClusterSize bound the powers of two that a
	// cluster may have; the lower bound is the format's, the upper one QEMU's.
	MinClusterSize = 1 << minClusterBits
	MaxClusterSize = 1 << maxClusterBits

	minClusterBits = 9
	maxClusterBits = 21
	// With extended L2 entries a cluster has 32 subclusters, each at least a
	// sector long.
	minExtendedBits = 14
	// QEMU opens no file with a larger L1 table, 32 MiB.
	maxL1Entries = 4 << 20
	// The file's offsets have 56 bits; ReaderAt's have 63.
	maxFileSize = 1 << 56

	sectorSize = diskformat.SectorSize

	// What is kept between calls: pages of tables, each of which holds the whole L2
	// table of a file with QEMU's default cluster size, and decoded clusters.
	tableMemory   = 4 << 20
	clusterMemory = 4 << 20
)

// Options are what the caller adds to a file that is not whole by itself.
type Options struct {
	// Backing is the disk that unallocated clusters are read from. It must be
	// given exactly if the header names one ([Info.BackingFile]). It may be
	// shorter or longer than the disk.
	Backing diskformat.Image
	// Data is the file of DataSize bytes that holds the clusters, if the
	// header says that they are not in the file itself ([Info.DataFile]).
	Data     io.ReaderAt
	DataSize int64
}

// File is an open qcow2 file. It may be used by many goroutines at once. It
// holds no resources besides memory, at most about 8 MiB between calls, and
// need not be closed.
type File struct {
	info Info
	h    header

	file     io.ReaderAt // of fileSize bytes
	fileSize int64
	// r is the file as tables are read from it: if it ends within its last cluster,
	// zeros follow to the end of that, at size.
	r    io.ReaderAt
	size int64
	data part // what holds the clusters: the same file, or Options.Data
	// short: a table or a cluster lies at such an end.
	short   atomic.Bool
	backing diskformat.Image

	tables   recent.Pages
	clusters *recent.Cache[int64] // decoded, by the place of their compressed bytes
}

var _ diskformat.Image = (*File)(nil)

// Open reads and checks the header of the file r of size bytes.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no qcow2;
// ErrUnsupported for version 1, for encryption, for features that are not
// known here, for a disk or a table beyond the bounds, for a file that the
// header says is damaged, and for one that needs a backing disk or a data file
// that opts does not give; ErrIncomplete when it was cut off; ErrCorrupt for
// any other contradiction; or what r returned. r, and what is in opts, must
// stay readable for as long as the File is used, and must be safe for
// concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64, opts Options) (*File, error) {
	f, err := open(r, size, opts)
	if err != nil {
		return nil, fmt.Errorf("opening a qcow2 file: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt, size int64, opts Options) (*File, error) {
	h, info, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	if err := h.refuse(&info); err != nil {
		return nil, err
	}
	whole := h.wholeClusters(size)
	f := &File{info: info, h: *h, file: r, fileSize: size, r: padded.Reader{R: r, Size: size}, size: whole,
		data: part{r, size, whole}, backing: opts.Backing, tables: recent.NewPages(tableMemory), clusters: recent.New[int64](clusterMemory)}
	switch {
	case info.BackingFile != "" && opts.Backing == nil:
		return nil, unsupported("header.backing_file_offset",
			"what is not in the file lies in its backing file %q, which is not opened just because a header names it; "+
				"allow and give it, or make one file of both with qemu-img convert", info.BackingFile)
	case info.BackingFile == "" && opts.Backing != nil:
		return nil, fmt.Errorf("a backing disk was given, but the header names none")
	case info.DataFile && opts.Data == nil:
		return nil, unsupported("header.incompatible_features",
			"the disk's data lies in another file, %q, which is not opened just because a header names it; "+
				"allow and give it, or make one file of both with qemu-img convert", info.DataFileName)
	case !info.DataFile && opts.Data != nil:
		return nil, fmt.Errorf("a data file was given, but the header says that the data lies in the file itself")
	case info.DataFile:
		f.data = part{opts.Data, opts.DataSize, h.wholeClusters(opts.DataSize)}
	}
	return f, nil
}

// part is a file that holds clusters: its own size, and up to where its last cluster
// would go.
type part struct {
	r           io.ReaderAt
	size, whole int64
}

// wholeClusters is size rounded up to whole clusters.
func (h *header) wholeClusters(size int64) int64 {
	return (size + h.clusterSize() - 1) &^ (h.clusterSize() - 1)
}

// Notes implements [diskformat.Noted].
func (f *File) Notes() []diskformat.Note {
	if !f.short.Load() {
		return nil
	}
	return []diskformat.Note{padded.Note("cluster", f.data.size)}
}

// Info is what the header says.
func (f *File) Info() Info { return f.info }

// Size is the virtual size in bytes.
func (f *File) Size() int64 { return f.info.Size }

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.QCOW2, diskformat.ErrCorrupt, field, problem, args...)
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.QCOW2, diskformat.ErrUnsupported, field, problem, args...)
}

func incomplete(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.QCOW2, diskformat.ErrIncomplete, field, problem, args...)
}
