// Package clusters reads disks whose clusters are found through a table of tables:
// an L1 table of the places of L2 tables, and in these the places of the clusters.
// What an entry means, each format says.
package clusters

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// entrySize is that of both tables, in bytes.
const entrySize = 8

// tableMemory and clusterMemory bound what a disk keeps of its tables and of its
// decoded clusters, in bytes.
const (
	tableMemory   = 2 << 20
	clusterMemory = 4 << 20
)

// Place is where a cluster lies in the file.
type Place struct {
	// Stored is false for a cluster that reads as zeros.
	Stored bool
	Host   int64 // in bytes
	// Packed is the length of compressed bytes; 0: the cluster lies there as it is.
	Packed int64
}

// Disk is a disk of which everything about the file is known. It may be used by many
// goroutines at once.
type Disk struct {
	Format   diskformat.Format
	R        io.ReaderAt
	FileSize int64
	DiskSize int64 // in bytes
	Cluster  int64 // bytes, a power of two
	L1       int64 // where the L1 table lies
	L2Len    int64 // entries of an L2 table
	Order    binary.ByteOrder
	// Place says what an L2 entry means, or that it cannot be right.
	Place func(entry uint64) (Place, error)
	// Unpack decodes a compressed cluster.
	Unpack func(dst, packed []byte) error

	tables recent.Pages
	plain  *recent.Cache[int64] // decoded clusters, by the place of their packed bytes
}

// Init prepares the disk and checks that the L1 table lies in the file.
func (d *Disk) Init() error {
	d.tables, d.plain = recent.NewPages(tableMemory), recent.New[int64](clusterMemory)
	if need := d.l1Len() * entrySize; d.L1 <= 0 || d.L1 > d.FileSize-need {
		return diskformat.Errorf(d.Format, diskformat.ErrIncomplete, "header.l1_table_offset",
			"the L1 table, %d bytes at %d, does not end within the file's %d bytes", need, d.L1, d.FileSize)
	}
	return nil
}

// span is how much of the disk one L2 table tells of, in bytes.
func (d *Disk) span() int64 { return d.Cluster * d.L2Len }

func (d *Disk) l1Len() int64 { return (d.DiskSize + d.span() - 1) / d.span() }

// Size is the virtual size in bytes.
func (d *Disk) Size() int64 { return d.DiskSize }

// entry reads an entry of a table at off.
func (d *Disk) entry(off int64) (uint64, error) {
	b, err := d.tables.At(0, d.R, d.FileSize, off)
	if err != nil {
		return 0, fmt.Errorf("reading a table at byte %d: %w", off, err)
	}
	if len(b) < entrySize {
		return 0, d.corrupt("table", "an entry at byte %d crosses a page: the table is not aligned", off)
	}
	return d.Order.Uint64(b), nil
}

func (d *Disk) corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(d.Format, diskformat.ErrCorrupt, field, problem, args...)
}

// l2 is where the L2 table of the range of the disk at off lies; 0: there is none.
func (d *Disk) l2(off int64) (int64, error) {
	i := off / d.span()
	e, err := d.entry(d.L1 + i*entrySize)
	if err != nil || e == 0 {
		return 0, err
	}
	if e%entrySize != 0 {
		return 0, d.corrupt("L1 table", "entry %d is %#x; it must be a multiple of %d", i, e, entrySize)
	}
	if need := d.L2Len * entrySize; e > uint64(d.FileSize) || int64(e) > d.FileSize-need {
		return 0, diskformat.Errorf(d.Format, diskformat.ErrIncomplete, "L1 table",
			"entry %d names a table of %d bytes at %d, beyond the file's %d bytes: the file was cut off or is damaged", i, need, e, d.FileSize)
	}
	return int64(e), nil
}

// place finds the cluster of the disk at off.
func (d *Disk) place(off int64) (Place, error) {
	table, err := d.l2(off)
	if err != nil || table == 0 {
		return Place{}, err
	}
	return d.placeIn(table, off)
}

func (d *Disk) placeIn(table, off int64) (Place, error) {
	e, err := d.entry(table + off%d.span()/d.Cluster*entrySize)
	if err != nil {
		return Place{}, err
	}
	p, err := d.Place(e)
	if err != nil || !p.Stored {
		return p, err
	}
	need := p.Packed
	if need == 0 {
		need = min(d.Cluster, d.DiskSize-off/d.Cluster*d.Cluster)
	}
	if p.Host <= 0 || p.Host > d.FileSize-need {
		return p, diskformat.Errorf(d.Format, diskformat.ErrIncomplete, "L2 table",
			"the cluster at byte %d of the disk, %d bytes at %d, does not end within the file's %d bytes: the file was cut off or is damaged", off, need, p.Host, d.FileSize)
	}
	return p, nil
}

// ReadAt reads the disk; see [diskformat.Image].
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a %s disk: the offset %d is negative", d.Format, off)
	}
	if off >= d.DiskSize {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), d.DiskSize-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		n, err := d.read(p[done:], at)
		if err != nil {
			return done, fmt.Errorf("reading a %s disk at byte %d: %w", d.Format, at, err)
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// read reads the front of p, as much as lies together.
func (d *Disk) read(p []byte, off int64) (int, error) {
	first, err := d.place(off)
	if err != nil {
		return 0, err
	}
	within := off % d.Cluster
	n := min(int64(len(p)), d.Cluster-within)
	switch {
	case first.Packed > 0:
		b, err := d.unpacked(first)
		if err != nil {
			return 0, err
		}
		copy(p[:n], b[within:])
		return int(n), nil
	case !first.Stored:
		clear(p[:n])
		return int(n), nil
	}
	for n < int64(len(p)) {
		next, err := d.place(off + n)
		if err != nil || !next.Stored || next.Packed > 0 || next.Host != first.Host+within+n {
			break // an error shows when its turn comes
		}
		n = min(int64(len(p)), n+d.Cluster)
	}
	return int(n), diskformat.ReadFull(d.R, p[:n], first.Host+within)
}

// unpacked is the decoded cluster at p.
func (d *Disk) unpacked(p Place) ([]byte, error) {
	if b := d.plain.Get(p.Host); b != nil {
		return b, nil
	}
	packed := make([]byte, p.Packed)
	if err := diskformat.ReadFull(d.R, packed, p.Host); err != nil {
		return nil, fmt.Errorf("reading a compressed cluster: %w", err)
	}
	b := make([]byte, d.Cluster)
	if err := d.Unpack(b, packed); err != nil {
		return nil, d.corrupt("cluster", "its compressed bytes at %d: %v", p.Host, err)
	}
	d.plain.Put(p.Host, b)
	return b, nil
}

// Map covers the disk with extents; see [diskformat.Image].
func (d *Disk) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		for off := int64(0); off < d.DiskSize; {
			if err := ctx.Err(); err != nil {
				return err
			}
			end := min(d.DiskSize, (off/d.span()+1)*d.span())
			table, err := d.l2(off)
			if err != nil {
				return err
			}
			if table == 0 {
				if !add(end-off, false) {
					return nil
				}
				off = end
				continue
			}
			for off < end {
				p, err := d.placeIn(table, off)
				if err != nil {
					return err
				}
				n := min(d.Cluster, end-off)
				if !add(n, p.Stored) {
					return nil
				}
				off += n
			}
		}
		return nil
	})
}
