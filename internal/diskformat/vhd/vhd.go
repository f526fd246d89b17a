// Package vhd reads VHD, the disk format of Virtual PC, Hyper-V, Azure and
// XenServer: fixed and dynamic disks.
//
// It follows the public specification (Microsoft's "Virtual Hard Disk Image
// Format", version 1.0) and is verified against files that qemu-img and qemu-io
// make (they call the format vpc), which qemu-img then reads too.
//
// A fixed disk is the disk itself with a footer after it. A dynamic disk begins
// with a copy of the footer; a header follows, the block allocation table (BAT)
// and the blocks, 2 MiB each as a rule. Before the data of each block lies a
// bitmap of its sectors, the most significant bit of a byte first: a sector
// whose bit is clear is zero. All integers are big-endian.
//
// [Open] reads and checks footer, header and BAT, which it holds: 4 bytes for
// each block, at most 8 MiB. [File.Extents] does no I/O: a block that is stored
// counts as data whatever its bitmap says.
//
// The size of a disk is the footer's current size, as the specification says
// and as Hyper-V, VirtualBox and XenServer take it. The footer also holds a
// geometry (cylinders, heads, sectors) that may make another size; Virtual PC
// goes by that, and QEMU too for some creators. In the files that they make
// themselves both agree; [Info.GeometrySize] tells where they do not.
//
// QEMU takes no notice of the bitmaps. In its own files all bits of a stored
// block are set, so both see the same disk.
//
// Differencing disks, which depend on another one, are refused.
package vhd

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// Bounds of what is read.
const (
	// MaxDiskSize is the largest fixed disk, 64 TiB. Nothing grows with it; the
	// bound keeps arithmetic far from overflow.
	MaxDiskSize = 64 << 40
	// MaxDynamicSize is the largest dynamic disk, 2040 GiB: the format's bound.
	MaxDynamicSize = 2040 << 30
	// MaxBlocks is the largest number of blocks of a dynamic disk: with 2 MiB
	// each, twice the largest disk.
	MaxBlocks = 2 << 20
	// MinBlockSize and MaxBlockSize bound the powers of two that a block may
	// have. Writers make blocks of 512 KiB and 2 MiB.
	MinBlockSize = sectorSize
	MaxBlockSize = 64 << 20

	sectorSize  = diskformat.SectorSize
	maxFileSize = 1 << 60
)

// File is an open VHD file. It may be used by many goroutines at once. It
// holds no resources besides memory and need not be closed.
type File struct {
	r    io.ReaderAt
	info Info
	// end is where what is stored ends: at the footer or at the file's end.
	end int64

	// otherUUID: footer and copy differ in the UUID alone.
	otherUUID bool

	// Of a dynamic disk:
	table     []uint32 // the BAT: where a block's bitmap lies, in sectors
	bitmapLen int64
	bitmaps   bitmaps
}

// Info is what footer and header say.
type Info struct {
	Size int64 // of the disk, in bytes
	// Dynamic: blocks are stored as they were written; else the disk is fixed.
	Dynamic bool
	// BlockSize is that of a dynamic disk in bytes, a power of two.
	BlockSize int64
	// Blocks and DataBlocks are how many blocks a dynamic disk has and how many
	// of them are stored.
	Blocks, DataBlocks int
	// Creator is the application that made the file, four characters of a
	// stranger, such as "win ", "vpc ", "qem2".
	Creator string
	// GeometrySize is the size in bytes that cylinders, heads and sectors make.
	GeometrySize int64
	// NoFooter: the file does not end with a sound footer, as it should. The
	// copy at the front was taken, and all stored blocks are there.
	NoFooter bool
	// UUID is the file's own.
	UUID [16]byte
}

var _ diskformat.Image = (*File)(nil)

// Open reads and checks the footer of the file r of size bytes and, of a
// dynamic disk, the footer's copy, the header and the BAT. Every stored block
// must lie within the file.
//
// Errors are those of package diskformat: ErrWrongFormat when it is no VHD;
// ErrUnsupported for another version, a differencing disk or one beyond the
// bounds; ErrIncomplete when it was cut off; ErrAmbiguous when the footer and
// its copy describe two disks; ErrCorrupt for any other contradiction; or what
// r returned. r must stay readable for as long as the File is used, and must be
// safe for concurrent use if the File is to be.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("opening a VHD file: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt, size int64) (*File, error) {
	if size < 0 || size > maxFileSize {
		return nil, unsupported("file size", "it is %d, at most %d is read", size, int64(maxFileSize))
	}
	ft, end, err := findFooter(r, size)
	if err != nil {
		return nil, err
	}
	f := &File{r: r, end: end, otherUUID: ft.otherUUID}
	f.info = Info{
		Size:         ft.size,
		Dynamic:      ft.diskType != typeFixed,
		Creator:      ft.creator,
		GeometrySize: ft.geometry,
		NoFooter:     end == size,
		UUID:         ft.uuid,
	}
	if f.info.Dynamic {
		return f, f.openDynamic(ft)
	}
	if ft.size > end {
		return nil, incomplete("footer.current_size", "it is %d, before the footer there are %d bytes", ft.size, end)
	}
	return f, nil
}

// Notes implements [diskformat.Noted].
func (f *File) Notes() []diskformat.Note {
	switch {
	case f.info.NoFooter:
		return []diskformat.Note{{ID: diskformat.NoteFooter,
			Text: "the footer at the file's end is missing or damaged; its copy at the front was taken: the file may have been cut off"}}
	case f.otherUUID:
		return []diskformat.Note{{ID: diskformat.NoteFooter,
			Text: "the footer and its copy at the front have different UUIDs, and agree on the disk: the footer's counts"}}
	}
	return nil
}

// Info is what footer and header say.
func (f *File) Info() Info { return f.info }

// Size is the virtual size in bytes.
func (f *File) Size() int64 { return f.info.Size }

// ReadAt reads the disk; see [diskformat.Image].
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a VHD disk: the offset %d is negative", off)
	}
	if off >= f.Size() {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.Size()-off)]
	for done := 0; done < len(p); {
		at, n := off+int64(done), len(p)-done
		var err error
		if f.info.Dynamic {
			n = int(min(int64(n), f.info.BlockSize-at%f.info.BlockSize))
			err = f.readBlock(p[done:done+n], at)
		} else {
			err = diskformat.ReadFull(f.r, p, at)
		}
		if err != nil {
			return done, fmt.Errorf("reading a VHD disk at byte %d: %w", at, err)
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// Map yields what Extents does, and asks the file system, if the file is an
// [*os.File], for the holes of what is stored: fixed disks have many.
func (f *File) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		holes := sparse.NewHoles(ctx, f.r, f.end)
		if !f.info.Dynamic {
			_, err := holes.Range(0, f.Size(), add)
			return err
		}
		for i, x := range f.table {
			n := min(f.info.BlockSize, f.Size()-int64(i)*f.info.BlockSize)
			more, err := true, ctx.Err()
			switch {
			case err != nil:
			case x != unused:
				more, err = holes.Range(int64(x)*sectorSize+f.bitmapLen, n, add)
			default:
				more = add(n, false)
			}
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
}

// Extents yields the extents of the disk; see [diskformat.Image]. A fixed disk
// is all data. It does no I/O.
func (f *File) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		var e diskformat.Extent
		if !f.info.Dynamic {
			e = diskformat.Extent{Length: f.Size(), Data: true}
		}
		for i, x := range f.table {
			if data := x != unused; e.Length > 0 && data != e.Data {
				if !yield(e) {
					return
				}
				e = diskformat.Extent{Offset: e.End(), Data: data}
			} else {
				e.Data = data
			}
			e.Length = min(int64(i+1)*f.info.BlockSize, f.Size()) - e.Offset
		}
		if e.Length > 0 {
			yield(e)
		}
	}
}

func corrupt(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHD, diskformat.ErrCorrupt, field, problem, args...)
}

func unsupported(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHD, diskformat.ErrUnsupported, field, problem, args...)
}

func incomplete(field, problem string, args ...any) error {
	return diskformat.Errorf(diskformat.VHD, diskformat.ErrIncomplete, field, problem, args...)
}
