// Package vmdk reads VMware's virtual disks.
//
// A disk consists of extents, which a text, the descriptor, lists. Read are
// those that hold whole disks:
//
//   - monolithicSparse: one sparse extent with the descriptor in it;
//   - streamOptimized: the same with compressed grains, as in an OVA;
//   - monolithicFlat, twoGbMaxExtentFlat, vmfs: a descriptor and flat files,
//     which hold the disk byte for byte;
//   - twoGbMaxExtentSparse: a descriptor and sparse extents;
//   - extents of zeros, which lie in no file.
//
// Refused, with what to do: files that hold only what differs from a parent
// (snapshots), among them ESX's own sparse formats, physical devices, encrypted
// disks, and a sparse extent without descriptor, which is a part of a disk.
//
// Terms. A grain is the unit of allocation of a sparse extent, mostly 64 KiB.
// A grain table says where 512 grains lie in the file, a grain directory where
// the tables lie. Both are read when they are needed, and what is kept of them
// is bounded. The redundant copies of them are not looked at.
//
// A descriptor names files, and who wrote it may be a stranger. This package
// opens nothing by itself: see [Opener].
//
// The facts are from VMware's "Virtual Disk Format 1.1"; where it is silent,
// qemu-img is the judge.
package vmdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sort"
	"sync/atomic"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/internal/padded"
	"github.com/quickims/quickims/internal/diskformat/internal/recent"
)

// Opener opens a file that a descriptor names and tells its size in bytes. It
// is called with plain names only: no folder, drive or device, no "..", at
// most 255 bytes. It should look nowhere but in the folder of the descriptor
// and take regular files only. What it returns must stay readable for as long
// as the File is used, be safe for concurrent use, and be closed by the caller.
type Opener func(name string) (io.ReaderAt, int64, error)

// sniffed is how much of a file is looked at to tell what it is: the title of
// a descriptor may follow other comments.
const sniffed = 4096

// File is an open disk. It may be used by many goroutines at once. It holds no
// resources besides at most about 6 MiB of memory and need not be closed.
type File struct {
	createType string
	size       int64
	parts      []part
	names      []string
	unclean    bool
	compressed bool
	encoding   string // of the descriptor, "" if it does not matter
	short      atomic.Int64
}

var _ diskformat.Image = (*File)(nil)

// part is an extent in its place on the disk.
type part struct {
	off, size int64
	extent
}

type extent interface {
	// readAt fills p from off within the extent.
	readAt(p []byte, off int64) error
	// mapped tells add the lengths of data and holes in turn, from the
	// extent's beginning to its end, until add says false.
	mapped(ctx context.Context, add extents.Add) error
}

// Open reads the header or the descriptor of the file r of size bytes and
// opens, through open, the files that a descriptor names. If open is nil, a
// disk that lies in more than this one file is refused.
//
// Errors are those of package diskformat: ErrWrongFormat when nothing of the
// file is VMDK, ErrIncomplete when something lies beyond its end,
// ErrUnsupported for what is not read, ErrCorrupt for a contradiction; or what
// r, open or a file said. What is wrong in grain tables and grains shows when
// they are read. r must stay readable for as long as the File is used, and
// must be safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64, open Opener) (*File, error) {
	f, err := openAny(r, size, open)
	if err != nil {
		return nil, fmt.Errorf("opening a VMDK file: %w", err)
	}
	return f, nil
}

func openAny(r io.ReaderAt, size int64, open Opener) (*File, error) {
	if size < 0 || size > maxFile {
		return nil, unsupported("file size", "it is %d; right is 0 to %d", size, int64(maxFile))
	}
	head := make([]byte, min(size, sniffed))
	if err := diskformat.ReadFull(r, head, 0); err != nil {
		return nil, fmt.Errorf("reading the file's front: %w", err)
	}
	if len(head) >= 4 {
		switch string(head[:4]) {
		case magicHosted, magicESX, magicSESparse:
			return openMonolithic(r, size)
		}
	}
	if !bytes.Contains(bytes.ToLower(head), []byte(descriptorTitle)) {
		return nil, diskformat.Errorf(diskformat.VMDK, diskformat.ErrWrongFormat, "",
			"the file begins neither as a sparse extent (%q) nor as a descriptor (%q)", magicHosted, "# Disk DescriptorFile")
	}
	if size > maxDescriptor {
		return nil, unsupported("file size", "it is %d; a descriptor may have %d bytes", size, maxDescriptor)
	}
	text := make([]byte, size)
	if err := diskformat.ReadFull(r, text, 0); err != nil {
		return nil, fmt.Errorf("reading the descriptor: %w", err)
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	return openParts(d, open)
}

// openMonolithic opens a disk that is one sparse extent.
func openMonolithic(r io.ReaderAt, size int64) (*File, error) {
	x, d, err := openSparse(r, size)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, unsupported("header.descriptorOffset",
			"there is no descriptor: the file is one extent of a disk; use the .vmdk file that names this one")
	}
	f := &File{createType: d.createType, encoding: d.encoding}
	f.add(x, x.h.size)
	f.share()
	return f, nil
}

// openParts opens a disk whose descriptor is a file of its own.
func openParts(d *descriptor, open Opener) (*File, error) {
	f := &File{createType: d.createType, encoding: d.encoding}
	for _, l := range d.extents {
		if l.kind == zero {
			f.add(zeros(l.size), l.size)
			continue
		}
		if open == nil {
			return nil, unsupported("descriptor.extent", "the disk's data is in another file, %s, which is not opened here; "+
				"use the disk where its files are together, or as one streamOptimized file", shown(l.file))
		}
		r, size, err := open(l.file)
		if err != nil {
			return nil, fmt.Errorf("opening the extent %s: %w", shown(l.file), err)
		}
		f.names = append(f.names, l.file)
		x, err := openPart(l, r, size)
		if err != nil {
			return nil, fmt.Errorf("the extent %s: %w", shown(l.file), err)
		}
		f.add(x, l.size)
	}
	f.share()
	return f, nil
}

func openPart(l line, r io.ReaderAt, size int64) (extent, error) {
	if size < 0 || size > maxFile {
		return nil, unsupported("file size", "it is %d; right is 0 to %d", size, int64(maxFile))
	}
	if l.kind == flat {
		if l.off > size || l.size > size-l.off {
			return nil, incomplete("descriptor.extent", "it has %d bytes at byte %d, the file has %d", l.size, l.off, size)
		}
		return &flatExtent{r, l.off, l.size}, nil
	}
	x, _, err := openSparse(r, size)
	if err != nil {
		return nil, err
	}
	if x.h.size != l.size {
		return nil, corrupt("header.capacity", "it is %d sectors, the descriptor's extent has %d", x.h.size/sectorSize, l.size/sectorSize)
	}
	return x, nil
}

// add puts an extent of size bytes at the disk's end. Whoever calls has
// checked the sum.
func (f *File) add(x extent, size int64) {
	f.parts = append(f.parts, part{f.size, size, x})
	f.size += size
}

// share gives the sparse extents the caches that they have together.
func (f *File) share() {
	tables, plain := recent.NewPages(tableMemory), recent.New[grainKey](grainMemory)
	for i, p := range f.parts {
		if x, ok := p.extent.(*sparseExtent); ok {
			x.id, x.tables, x.plain, x.short = i, tables, plain, &f.short
			f.unclean = f.unclean || x.h.unclean
			f.compressed = f.compressed || x.h.compressed
		}
	}
}

// Size is the virtual size in bytes, a multiple of 512 and at most MaxSize.
func (f *File) Size() int64 { return f.size }

// CreateType is what the descriptor calls the kind of the disk.
func (f *File) CreateType() string { return f.createType }

// Files are the names of the files that were opened besides the one given.
func (f *File) Files() []string { return f.names }

// Compressed tells whether grains are compressed.
func (f *File) Compressed() bool { return f.compressed }

// Unclean tells whether the last writer did not close the disk: what it wrote
// last may be missing.
func (f *File) Unclean() bool { return f.unclean }

// Notes implements [diskformat.Noted].
func (f *File) Notes() (notes []diskformat.Note) {
	if f.encoding != "" {
		notes = append(notes, diskformat.Note{ID: diskformat.NoteEncoding,
			Text: fmt.Sprintf("the descriptor is in the encoding %s, as it says; the names in it were read so", shown(f.encoding))})
	}
	if size := f.short.Load(); size > 0 {
		notes = append(notes, padded.Note("grain", size))
	}
	return notes
}

// ReadAt reads the disk. It checks what it reads of tables and grains.
// Compressed grains of which it reads a part are kept, up to 4 MiB.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a VMDK disk: the offset %d is negative", off)
	}
	if off >= f.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var atEnd error
	if rest := f.size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	n := 0
	i := sort.Search(len(f.parts), func(i int) bool { return f.parts[i].off+f.parts[i].size > off })
	for ; n < len(p); i++ {
		x := f.parts[i]
		within := off + int64(n) - x.off
		k := int(min(int64(len(p)-n), x.size-within))
		if err := x.readAt(p[n:n+k], within); err != nil {
			return n, fmt.Errorf("reading a VMDK disk, %d bytes at %d: %w", k, off+int64(n), err)
		}
		n += k
	}
	return n, atEnd
}
