package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/qcow2"
	"github.com/quickims/quickims/internal/diskformat/vdi"
	"github.com/quickims/quickims/internal/diskformat/vhd"
	"github.com/quickims/quickims/internal/diskformat/vhdx"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

// InfoCmd tells what a file is.
type InfoCmd struct {
	inputFlags
	File string `arg:"" name:"file" help:"Disk file of any format, or a block device."`
}

// Help shows the command's use.
func (InfoCmd) Help() string {
	return `It reads the file's tables and the disk's partition table, not its data: "quickims verify" does that, and "quickims check" looks into the system on the disk. A disk that can be read but not quick-imported is told as such; a file that can't be opened as a disk is an error.

Examples:

    quickims info disk.zvhd2
    quickims info --json disk.qcow2
`
}

// infoDoc is what a file is. Sizes are bytes.
type infoDoc struct {
	Path     string            `json:"path"`
	Format   diskformat.Format `json:"format"`
	FileSize int64             `json:"file_size"`
	// DiskSize is that of the source disk, VirtualSize what a machine sees: in ZVHD2
	// the same rounded up to whole GiB. 0 for formats that are not looked into.
	DiskSize    int64 `json:"disk_size,omitempty"`
	VirtualSize int64 `json:"virtual_size,omitempty"`
	// Data is how much of the disk is not holes, Extents in how many pieces.
	Data    *int64 `json:"data_size,omitempty"`
	Extents *int64 `json:"data_extents,omitempty"`
	// Backing is how many files lie below, Files those that the disk lies in
	// besides this one.
	Backing     int      `json:"backing_files,omitempty"`
	Files       []string `json:"files,omitempty"`
	BlockSize   int64    `json:"block_size,omitempty"`
	Blocks      int64    `json:"blocks,omitempty"`
	DataBlocks  *int64   `json:"data_blocks,omitempty"`
	Compression string   `json:"compression,omitempty"`
	// FrameSize is how many bytes of the disk a frame of ZVHD2 holds, which is the least
	// that is read: 65536, or the size of a block.
	FrameSize int64      `json:"frame_size,omitempty"`
	Created   *time.Time `json:"created,omitempty"`

	Partitions *partitionDoc  `json:"partition_table,omitempty"`
	Bitmap     *bitmapDoc     `json:"bitmap,omitempty"`
	Import     quickImportDoc `json:"quick_import"`
	Warnings   warnings       `json:"warnings,omitempty"`
}

type partitionDoc struct {
	Type       diskformat.PartitionTable `json:"type"`
	Partitions int                       `json:"partitions"`
	EFISystem  bool                      `json:"efi_system"`
	BIOSBoot   bool                      `json:"bios_boot"`
	CutOff     bool                      `json:"cut_off,omitempty"` // it reaches beyond the disk's end
	// SectorSize is 4096 when the table was made for such sectors, else absent.
	SectorSize int64 `json:"sector_size,omitempty"`
}

// bitmapDoc is the .mf beside a RAW file.
type bitmapDoc struct {
	Path  string      `json:"path"`
	Found bool        `json:"found"`
	Kind  bitmap.Kind `json:"kind,omitempty"`
	// Problem is why it can't be used, or why it tells nothing.
	Problem string `json:"problem,omitempty"`
}

// quickImportDoc is what a quick import would say.
type quickImportDoc struct {
	Ready   bool   `json:"ready"`
	MinDisk int64  `json:"min_disk,omitempty"` // GiB, the least
	Reason  string `json:"reason,omitempty"`   // why not, and what to do
}

// Run tells.
func (c *InfoCmd) Run(ctx context.Context, s *session) error {
	doc := infoDoc{Path: c.File}
	src, err := c.openDisk(c.File)
	if err != nil {
		return c.runUnread(s, &doc, err)
	}
	defer src.Close()
	doc.Format, doc.FileSize, doc.Backing = src.Format, src.size, src.Depth
	for _, beside := range src.files.opened {
		doc.Files = append(doc.Files, beside.path)
	}
	if err := doc.add(ctx, src); err != nil {
		return fmt.Errorf("read %s: %w", c.File, interrupted(ctx, err))
	}
	return s.result(doc, doc.print)
}

// runUnread tells what is known of a file that can't be opened as a disk, and fails.
// With -f nothing is: what the file is was not looked at.
func (c *InfoCmd) runUnread(s *session, doc *infoDoc, cause error) error {
	if c.Format != "" {
		return cause
	}
	src, err := openSource(c.File)
	if err != nil {
		return cause
	}
	defer src.Close()
	doc.Format, doc.FileSize, doc.Import.Reason = src.format, src.size, cause.Error()
	brief := *doc
	brief.Import.Reason = "it can't be opened as a disk" // the error says why
	if err := s.result(doc, brief.print); err != nil {
		return err
	}
	return cause
}

// add looks at the disk.
func (doc *infoDoc) add(ctx context.Context, src *diskFile) error {
	doc.DiskSize, doc.VirtualSize = src.OrigSize, src.Size()
	var data, extents int64
	for e, err := range src.Data(ctx) {
		if err != nil {
			return err
		}
		data, extents = data+e.Length, extents+1
	}
	doc.Data, doc.Extents = &data, &extents
	switch disk := src.Image.(type) {
	case *zvhd2.File:
		n, created := int64(disk.DataBlocks()), disk.Created().UTC()
		doc.BlockSize, doc.Blocks, doc.DataBlocks = disk.BlockSize(), int64(disk.Blocks()), &n
		doc.Compression, doc.Created = disk.Compression(), &created
		doc.FrameSize = frameSize(disk)
	case *zvhd.File:
		n := int64(disk.DataBlocks())
		doc.BlockSize, doc.Blocks, doc.DataBlocks, doc.Compression = zvhd.BlockSize, int64(disk.Blocks()), &n, "zlib"
	case *qcow2.File:
		info := disk.Info()
		doc.BlockSize, doc.Compression = info.ClusterSize, info.Compression
	case *vhdx.File:
		doc.BlockSize = disk.BlockSize()
	case *vdi.File:
		doc.BlockSize = disk.Info().BlockSize
	case *vhd.File:
		doc.BlockSize = disk.Info().BlockSize
	}
	hints, notes, err := src.survey(ctx)
	if err != nil {
		return err
	}
	doc.addPartitions(hints)
	for _, note := range notes {
		doc.Warnings = append(doc.Warnings, warningDoc(note))
	}
	reason := ""
	switch src.Format {
	case diskformat.Raw:
		reason = doc.addBitmap(src.source)
		if err := src.wholeSectors(); err != nil {
			reason = err.Error()
		} else if err := src.refused(ctx, inspect.Options{DataDisk: true}); err != nil {
			reason = err.Error()
		}
	case diskformat.ZVHD2:
	default:
		reason = fmt.Sprintf("not as it is; \"quickims import\" converts it to ZVHD2 on the way, \"%s\" makes a file of it", src.convertCommand())
	}
	doc.judge(src.source, reason)
	return nil
}

// frameSize is how many bytes of the disk a frame of the file holds.
func frameSize(disk *zvhd2.File) int64 {
	if disk.Framed() {
		return zvhd2.UnitSize
	}
	return disk.BlockSize()
}

// addBitmap looks at the bitmap beside a RAW file and says what keeps it from
// being used.
func (doc *infoDoc) addBitmap(src *source) (reason string) {
	doc.Bitmap = &bitmapDoc{Path: mfPath(src.path)}
	mf, err := findMf(src)
	switch {
	case noMf(err):
		command := src.mfCommand("")
		if command == "" {
			return fmt.Sprintf("%s is missing; \"quickims import\" makes it", doc.Bitmap.Path)
		}
		return fmt.Sprintf("%s is missing; \"%s\" makes it, \"quickims import\" too", doc.Bitmap.Path, command)
	case err != nil:
		doc.Bitmap.Found, doc.Bitmap.Problem = true, err.Error()
		return err.Error()
	}
	defer mf.Close()
	doc.Bitmap.Path = mf.path
	doc.Bitmap.Found, doc.Bitmap.Kind, doc.Bitmap.Problem = true, mf.Kind(), mf.Reason()
	if mf.Kind() != bitmap.Unknown {
		data := mf.DataBlocks()
		doc.BlockSize, doc.Blocks, doc.DataBlocks = bitmap.BlockSize, mf.Blocks(), &data
	}
	return ""
}

func (doc *infoDoc) addPartitions(h diskformat.Hints) {
	doc.Partitions = &partitionDoc{h.Table, h.Partitions, h.EFISystem, h.BIOSBoot, h.CutOff, 0}
	if h.LargeSectors {
		doc.Partitions.SectorSize = 4096
	}
}

// judge says whether a quick import would take the file. reason is what keeps it
// from that, as far as is known.
func (doc *infoDoc) judge(src *source, reason string) {
	doc.Import.MinDisk = ims.LeastMinDisk(doc.VirtualSize)
	err := ims.CheckDiskSize(doc.VirtualSize)
	if err == nil {
		err = ims.CheckFileSize("the file", src.size)
	}
	if fault, ok := errors.AsType[*ims.Error](err); ok {
		reason = fault.Detail
	}
	doc.Import.Ready, doc.Import.Reason = reason == "", reason
}

func (doc infoDoc) print(w io.Writer) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	row("File", "%s", doc.Path)
	row("Format", "%s", doc.Format)
	row("File size", "%s", exactSize(doc.FileSize))
	if doc.DiskSize > 0 {
		row("Disk size", "%s", exactSize(doc.DiskSize))
	}
	if doc.VirtualSize != doc.DiskSize {
		row("Virtual size", "%s", exactSize(doc.VirtualSize))
	}
	if doc.Data != nil {
		extents := "1 extent"
		if *doc.Extents != 1 {
			extents = fmt.Sprintf("%d extents", *doc.Extents)
		}
		row("Stored", "%s in %s, %s are holes", size(*doc.Data), extents, size(doc.DiskSize-*doc.Data))
	}
	if doc.DataBlocks != nil {
		row("Data blocks", "%d of %d, %s each", *doc.DataBlocks, doc.Blocks, size(doc.BlockSize))
	} else if doc.BlockSize > 0 {
		row("Block size", "%s", size(doc.BlockSize))
	}
	if doc.Backing > 0 {
		row("Backing files", "%d", doc.Backing)
	}
	for _, path := range doc.Files {
		row("Also in", "%s", path)
	}
	if doc.Compression != "" {
		row("Compression", "%s", doc.Compression)
	}
	switch {
	case doc.FrameSize == 0:
	case doc.FrameSize < doc.BlockSize:
		row("Frames", "%s, each read alone", size(doc.FrameSize))
	default:
		row("Frames", "%s, a whole block", size(doc.FrameSize))
	}
	if doc.Created != nil {
		row("Created", "%s", when(doc.Created.Format(time.RFC3339)))
	}
	if p := doc.Partitions; p != nil {
		row("Partitions", "%s", p)
	}
	if b := doc.Bitmap; b != nil {
		row("Bitmap", "%s", b)
	}
	if doc.Import.Ready {
		row("Quick import", "ready, min_disk %d or more", doc.Import.MinDisk)
	} else {
		row("Quick import", "no: %s", doc.Import.Reason)
	}
	for _, warning := range doc.Warnings {
		row("Warning", "%s", strings.Join(wrap(warning.Text, wrapAt), "\n\t"))
	}
}

func (p *partitionDoc) String() string {
	if p.Type == diskformat.NoTable {
		return "no partition table"
	}
	s := fmt.Sprintf("%s, %d", p.Type, p.Partitions)
	switch {
	case p.SectorSize != 0:
		s += fmt.Sprintf(", for sectors of %d bytes", p.SectorSize)
	case p.EFISystem && p.BIOSBoot:
		s += ", boots with uefi or bios"
	case p.EFISystem:
		s += ", boots with uefi"
	case p.BIOSBoot:
		s += ", boots with bios"
	}
	if p.CutOff {
		s += "; it reaches beyond the disk's end, which may have been cut off"
	}
	return s
}

func (b *bitmapDoc) String() string {
	switch {
	case !b.Found:
		return "none"
	case b.Kind == "":
		return b.Path + ", of no use"
	case b.Problem != "":
		return fmt.Sprintf("%s, %s: %s; all blocks count as data", b.Path, b.Kind, b.Problem)
	}
	return fmt.Sprintf("%s, %s", b.Path, b.Kind)
}
