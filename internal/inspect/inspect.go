// Package inspect judges a disk file as a quick import does. It is one judgement for
// the service, which reads the file from a bucket, and for the commands, which read it
// before they upload it: what the job would refuse is refused before a byte is sent.
//
// It reads little, and no more of a large file than of a small one: the front, the end,
// and the index of a ZVHD2 file; of the system on the disk what a bounded number of
// reads tells.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/probe"
	"github.com/quickims/quickims/internal/ims"
)

// File is a file that may become an image.
type File struct {
	// Name is what errors call it.
	Name string
	io.ReaderAt
	// Size in bytes.
	Size int64
}

// Options are what of the request bears on the file.
type Options struct {
	// DataDisk: the image is a data disk; no machine starts from it.
	DataDisk bool
	// MinDiskGiB is the request's min_disk; 0: it is not compared with the disk.
	MinDiskGiB int
	// MinDiskGreater: min_disk must be greater than a system disk, not just as large.
	MinDiskGreater bool
}

// Found is what a quick import learns from a file that it takes.
type Found struct {
	// Format is Raw or ZVHD2.
	Format diskformat.Format
	// VirtualSize is the size of the disk in bytes.
	VirtualSize int64
	// Notes are for the owner; nothing in them keeps the file from being imported.
	Notes []diskformat.Note
	// Disk reads the disk, VirtualSize bytes.
	Disk io.ReaderAt
}

// QuickImport judges a file. What a quick import refuses is an *ims.Error; any other
// error came from reading the file or from ctx.
func QuickImport(ctx context.Context, f File, o Options) (Found, error) {
	if f.Size == 0 {
		return Found{}, ims.Faultf(ims.CodeFile, "%q is empty", f.Name)
	}
	if err := ims.CheckFileSize(fmt.Sprintf("%q", f.Name), f.Size); err != nil {
		return Found{}, err
	}
	found := Found{}
	format, err := diskformat.Detect(f, f.Size)
	if err != nil {
		return found, f.fault(err)
	}
	encrypted := format == diskformat.LUKS && o.DataDisk
	if encrypted {
		format = diskformat.Raw
	}
	found.Format = format
	switch format {
	case diskformat.ZVHD2:
		disk, err := zvhd2.Open(f, f.Size)
		if err != nil {
			return found, f.fault(err)
		}
		found.VirtualSize, found.Disk = disk.Size(), disk
	case diskformat.Raw:
		if f.Size%diskformat.SectorSize != 0 {
			return found, ims.Faultf(ims.CodeFile, "%q has %d bytes, which is no disk: the size of a RAW file is a multiple of %d", f.Name, f.Size, diskformat.SectorSize)
		}
		found.VirtualSize, found.Disk = f.Size, f
		if found.Notes, err = rawNotes(ctx, f, encrypted); err != nil {
			return found, f.fault(err)
		}
	default:
		return found, ims.Faultf(ims.CodeFile, "%q is %s, quick import takes RAW and ZVHD2; %s", f.Name, format.Describe(), advice(format))
	}
	most, least := int64(o.MinDiskGiB)*ims.GiB, ims.LeastMinDisk(found.VirtualSize)
	if o.MinDiskGreater && !o.DataDisk {
		most, least = most-1, ims.LeastMinDisk(found.VirtualSize+1)
	}
	if o.MinDiskGiB > 0 && found.VirtualSize > most {
		return found, ims.Faultf(ims.CodeDiskSize, "the disk in %q has %s, min_disk is %d GiB (%d bytes); it must be at least %d GiB",
			f.Name, gib(found.VirtualSize), o.MinDiskGiB, int64(o.MinDiskGiB)*ims.GiB, least)
	}
	return found, nil
}

// advice is what to do with a file of a format that a quick import does not take.
func advice(format diskformat.Format) string {
	if slices.Contains(open.Formats, format) {
		return "`quickims convert` makes ZVHD2 of it"
	}
	return format.Advice()
}

// fault says that the file is at fault, unless reading it failed.
func (f File) fault(err error) error {
	if _, ok := errors.AsType[*diskformat.Error](err); ok {
		return ims.Faultf(ims.CodeFile, "%q: %v", f.Name, err).Cause(err)
	}
	return fmt.Errorf("read %q: %w", f.Name, err)
}

func gib(n int64) string {
	if n%ims.GiB == 0 {
		return fmt.Sprintf("%d GiB (%d bytes)", n/ims.GiB, n)
	}
	return fmt.Sprintf("%.2f GiB (%d bytes)", float64(n)/float64(ims.GiB), n)
}

// rawNotes looks at a RAW disk.
func rawNotes(ctx context.Context, f File, encrypted bool) ([]diskformat.Note, error) {
	hints, err := diskformat.ReadHints(f, f.Size)
	if err != nil {
		return nil, err
	}
	notes := TableNotes(hints)
	if encrypted {
		return append(notes, diskformat.Note{ID: diskformat.NoteEncrypted, Text: "the whole disk is an encrypted volume (LUKS)"}), nil
	}
	known, err := hasContent(ctx, f, f.Size, hints)
	if err == nil && !known {
		notes = append(notes, noContent())
	}
	return notes, err
}

// TableNotes are what a disk's partition table gives to say.
func TableNotes(h diskformat.Hints) (notes []diskformat.Note) {
	if h.LargeSectors {
		notes = append(notes, diskformat.Note{ID: diskformat.NoteSectorSize,
			Text: "the partition table (GPT) was made for sectors of 4096 bytes; " + diskformat.LargeSectors})
	}
	if h.CutOff {
		notes = append(notes, diskformat.Note{ID: diskformat.NoteCutOff,
			Text: "the partition table reaches beyond the disk's end: the file may have been cut off; \"quickims check\" tells more"})
	}
	return notes
}

func noContent() diskformat.Note {
	return diskformat.Note{ID: diskformat.NoteNoContent,
		Text: "the file counts as a RAW disk because it has the marks of no other format, but it has neither a partition table nor a file system nor a known volume signature: make sure that it is a disk"}
}

// Disk looks at an opened disk of size bytes: its notes besides those of its reader. Of
// a disk in a RAW file, raw, it is asked too whether it holds anything that is known; in
// other formats the format itself says that it is a disk.
func Disk(ctx context.Context, disk io.ReaderAt, size int64, raw bool) (diskformat.Hints, []diskformat.Note, error) {
	hints, err := diskformat.ReadHints(disk, size)
	if err != nil {
		return hints, nil, err
	}
	notes := TableNotes(hints)
	if raw {
		known, err := hasContent(ctx, disk, size, hints)
		if err != nil {
			return hints, nil, err
		}
		if !known {
			notes = append(notes, noContent())
		}
	}
	return hints, notes, nil
}

// budget is more than [probe.Identify] reads of a disk, in bytes.
const budget = 4 << 20

// hasContent reports whether a disk has a partition table, a file system or a signature
// of a volume.
func hasContent(ctx context.Context, disk io.ReaderAt, size int64, hints diskformat.Hints) (bool, error) {
	if hints.Table != diskformat.NoTable {
		return true, nil
	}
	d := &watched{disk: disk}
	src := filesystem.NewSource(ctx, d, size, budget)
	defer src.Release()
	c := probe.Identify(src)
	if d.err != nil {
		return false, d.err
	}
	return c.Type != "", ctx.Err()
}

// watched notes the first error of the disk, which a look for signatures takes for
// bytes that do not match.
type watched struct {
	disk io.ReaderAt
	err  error
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.disk.ReadAt(p, off)
	if n < len(p) && err != nil && w.err == nil {
		w.err = err
	}
	return n, err
}
