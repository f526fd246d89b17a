// Package open opens a disk file of any format that is read here.
//
// It goes by content, or by a format that the caller forces, and hands out a
// [Disk]: one interface for all formats, with the size of the disk that the
// file was made from and the ranges of it that hold data. It opens no file by
// itself: what a header or a descriptor names is opened by [Source].Beside, by
// whose rules it is, or refused.
package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/internal/extents"
	"github.com/quickims/quickims/internal/diskformat/qcow"
	"github.com/quickims/quickims/internal/diskformat/qcow2"
	"github.com/quickims/quickims/internal/diskformat/qed"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/vdi"
	"github.com/quickims/quickims/internal/diskformat/vhd"
	"github.com/quickims/quickims/internal/diskformat/vhdx"
	"github.com/quickims/quickims/internal/diskformat/vmdk"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// Formats are the formats that [Open] reads.
var Formats = []diskformat.Format{
	diskformat.Raw, diskformat.QCOW2, diskformat.VMDK, diskformat.VHD, diskformat.VHDX,
	diskformat.VDI, diskformat.QCOW, diskformat.QED, diskformat.ZVHD, diskformat.ZVHD2,
}

// aliases are other tools' names of formats.
var aliases = map[string]diskformat.Format{"vpc": diskformat.VHD}

// ParseFormat finds the format of Formats that a user means, also by QEMU's
// name for it, in any case.
func ParseFormat(name string) (diskformat.Format, error) {
	f := diskformat.Format(strings.ToLower(name))
	if other, ok := aliases[string(f)]; ok {
		f = other
	}
	if !slices.Contains(Formats, f) {
		names := make([]string, len(Formats))
		for i, f := range Formats {
			names[i] = string(f)
		}
		return "", fmt.Errorf("%q is no format that is read; those are %s", name, strings.Join(names, ", "))
	}
	return f, nil
}

// MaxDepth is how many files may lie below each other: a disk, its backing
// file, the backing file's own, and so on.
const MaxDepth = 16

// Role is why a file is wanted beside another.
type Role int

// The roles.
const (
	// Extent: a VMDK descriptor names it, by a plain name without folders. It
	// holds a part of the disk, as it is.
	Extent Role = iota
	// DataFile: a qcow2 header names it; it holds the disk's clusters.
	DataFile
	// Backing: what the file does not hold lies in this disk.
	Backing
)

// Source is a file: its bytes, its size, and how to open those it names.
type Source struct {
	io.ReaderAt
	Size int64
	// Beside opens the file that this one names, by a stranger's bytes. Whoever
	// sets it decides what may be opened, and closes it. nil refuses all.
	Beside func(role Role, name string) (Source, error)
}

// Disk is a disk file that was opened. It may be used by many goroutines at
// once. It holds no resources besides memory and need not be closed; the
// sources must stay readable meanwhile.
type Disk struct {
	diskformat.Image
	// Format is what the file is.
	Format diskformat.Format
	// Source is the file itself.
	Source Source
	// OrigSize is the size in bytes of the disk that the file was made from:
	// less than Size, the virtual size, in formats that round that up.
	OrigSize int64
	// Depth is how many backing files lie below.
	Depth int

	below *Disk // the backing disk
}

// Notes are what the readers of the file and of those below have noticed so far; see
// [diskformat.Noted].
func (d *Disk) Notes() (notes []diskformat.Note) {
	for ; d != nil; d = d.below {
		if noted, ok := d.Image.(diskformat.Noted); ok {
			notes = append(notes, noted.Notes()...)
		}
	}
	return notes
}

// ErrRefused is what Open returns when a file names another one that there is
// no permission to open. It comes with an ErrUnsupported of package diskformat.
var ErrRefused = errors.New("the file names another one, which is not opened")

// Open opens a disk file. format forces one of Formats; "" goes by content. A
// forced format that the content contradicts is an ErrWrongFormat, but Raw
// takes anything. Errors else are those of package diskformat and of the
// formats' readers, and what the sources say.
func Open(src Source, format diskformat.Format) (*Disk, error) { return openAt(src, format, 0) }

func openAt(src Source, format diskformat.Format, depth int) (*Disk, error) {
	found, err := diskformat.Detect(src, src.Size)
	switch {
	case format == diskformat.Raw:
		found = diskformat.Raw // whatever it looks like
	case format == "" && err != nil:
		return nil, err
	case format == "":
	case found != format && !errors.Is(err, diskformat.ErrAmbiguous):
		if err != nil && found == "" {
			return nil, err
		}
		return nil, diskformat.Errorf(format, diskformat.ErrWrongFormat, "", "the file's content is %s", found)
	default:
		found = format // the reader says what is wrong with it
	}
	d := &Disk{Format: found, Source: src}
	if err := d.open(depth); err != nil {
		return nil, err
	}
	if d.OrigSize == 0 {
		d.OrigSize = d.Size()
	}
	return d, nil
}

func (d *Disk) open(depth int) (err error) {
	src := d.Source
	switch d.Format {
	case diskformat.Raw:
		d.Image = raw{src}
	case diskformat.ZVHD2:
		f, err := zvhd2.Open(src.ReaderAt, src.Size)
		if err != nil {
			return err
		}
		d.Image, d.OrigSize = f, f.OrigSize()
	case diskformat.ZVHD:
		f, err := zvhd.Open(src.ReaderAt, src.Size)
		if err != nil {
			return err
		}
		d.Image, d.OrigSize = f, f.OrigSize()
	case diskformat.QCOW2:
		return d.openQCOW2(depth)
	case diskformat.VMDK:
		d.Image, err = given(vmdk.Open(src.ReaderAt, src.Size, src.extents()))
	case diskformat.VHD:
		d.Image, err = given(vhd.Open(src.ReaderAt, src.Size))
	case diskformat.VHDX:
		d.Image, err = given(vhdx.Open(src.ReaderAt, src.Size))
	case diskformat.VDI:
		d.Image, err = given(vdi.Open(src.ReaderAt, src.Size))
	case diskformat.QCOW:
		d.Image, err = given(qcow.Open(src.ReaderAt, src.Size))
	case diskformat.QED:
		d.Image, err = given(qed.Open(src.ReaderAt, src.Size))
	default:
		return diskformat.Errorf(d.Format, diskformat.ErrUnsupported, "", "this format is told from others but not read")
	}
	return err
}

// given keeps a nil of a reader's own type from becoming an Image.
func given[T diskformat.Image](f T, err error) (diskformat.Image, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// extents is the source as what opens a VMDK's extents.
func (s Source) extents() vmdk.Opener {
	if s.Beside == nil {
		return nil
	}
	return func(name string) (io.ReaderAt, int64, error) {
		f, err := s.Beside(Extent, name)
		return f.ReaderAt, f.Size, err
	}
}

func (d *Disk) openQCOW2(depth int) error {
	src := d.Source
	info, err := qcow2.ReadInfo(src, src.Size)
	if err != nil {
		return err
	}
	var opts qcow2.Options
	if info.BackingFile != "" && src.Beside != nil {
		below, err := src.backing(info.BackingFile, info.BackingFormat, depth)
		if err != nil {
			return err
		}
		opts.Backing, d.Depth, d.below = below, below.Depth+1, below
	}
	if info.DataFile && src.Beside != nil {
		f, err := src.Beside(DataFile, info.DataFileName)
		if err != nil {
			return fmt.Errorf("opening the data file %q: %w", info.DataFileName, err)
		}
		opts.Data, opts.DataSize = f.ReaderAt, f.Size
	}
	d.Image, err = given(qcow2.Open(src.ReaderAt, src.Size, opts))
	if err != nil && src.Beside == nil && (info.BackingFile != "" || info.DataFile) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// backing opens the disk below. If the header does not tell its format, its
// content does; then it may name no further file, since RAW that begins as another
// format was written by a guest, maybe to have such a file opened.
func (s Source) backing(name, format string, depth int) (*Disk, error) {
	fail := func(err error) error { return fmt.Errorf("opening the backing file %q: %w", name, err) }
	if depth+1 >= MaxDepth {
		return nil, fail(diskformat.Errorf("", diskformat.ErrUnsupported, "", "it is the %dth below the disk; do backing files name each other?", MaxDepth))
	}
	f, err := s.Beside(Backing, name)
	if err != nil {
		return nil, fail(err)
	}
	var forced diskformat.Format
	if format == "" {
		f.Beside = nil
	} else {
		if forced, err = ParseFormat(format); err != nil {
			return nil, fail(err)
		}
	}
	below, err := openAt(f, forced, depth+1)
	if err != nil {
		return nil, fail(err)
	}
	return below, nil
}

// Data yields the ranges that may be other than zero, in order, within
// OrigSize.
func (d *Disk) Data(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return func(yield func(diskformat.Extent, error) bool) {
		for e, err := range d.Map(ctx) {
			e.Length = min(e.Length, d.OrigSize-e.Offset)
			if err == nil && (!e.Data || e.Length <= 0) {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// raw is a RAW disk: the file itself.
type raw struct{ src Source }

var _ diskformat.Image = raw{}

func (r raw) ReadAt(p []byte, off int64) (int, error) { return r.src.ReadAt(p, off) }
func (r raw) Size() int64                             { return r.src.Size }

// Map asks the file system for the holes.
func (r raw) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	return extents.Merge(func(add extents.Add) error {
		_, err := sparse.NewHoles(ctx, r.src.ReaderAt, r.Size()).Range(0, r.Size(), add)
		return err
	})
}
