package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
	"github.com/quickims/quickims/internal/ims"
)

// InfoCmd tells what a file is.
type InfoCmd struct {
	File string `arg:"" name:"file" help:"The file."`
}

// Help shows the command's use.
func (InfoCmd) Help() string {
	return `It reads a few pages of the file, not its data: "quickims verify" does that.

Examples:

    quickims info disk.zvhd2
    quickims info --json disk.raw
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
	// Stored is how much of a RAW file is not holes.
	Stored      int64      `json:"stored,omitempty"`
	BlockSize   int64      `json:"block_size,omitempty"`
	Blocks      int64      `json:"blocks,omitempty"`
	DataBlocks  *int64     `json:"data_blocks,omitempty"`
	Compression string     `json:"compression,omitempty"`
	Created     *time.Time `json:"created,omitempty"`

	Partitions *partitionDoc  `json:"partition_table,omitempty"`
	Bitmap     *bitmapDoc     `json:"bitmap,omitempty"`
	Import     quickImportDoc `json:"quick_import"`
}

type partitionDoc struct {
	Type       diskformat.PartitionTable `json:"type"`
	Partitions int                       `json:"partitions"`
	EFISystem  bool                      `json:"efi_system"`
	BIOSBoot   bool                      `json:"bios_boot"`
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
func (c *InfoCmd) Run(_ context.Context, s *session) error {
	src, err := openSource(c.File)
	if err != nil {
		return err
	}
	defer src.Close()
	doc := infoDoc{Path: c.File, Format: src.format, FileSize: src.size}
	switch src.format {
	case diskformat.ZVHD2:
		err = doc.addZVHD2(src)
	case diskformat.Raw:
		err = doc.addRaw(src)
	case diskformat.ZVHD:
		err = doc.addZVHD(src)
	default:
		doc.Import.Reason = src.otherFormat().Error()
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	return s.result(doc, doc.print)
}

func (doc *infoDoc) addZVHD2(src *source) error {
	disk, err := zvhd2.Open(src.File, src.size)
	if err != nil {
		return err
	}
	data, created := int64(disk.DataBlocks()), disk.Created().UTC()
	doc.DiskSize, doc.VirtualSize, doc.BlockSize = disk.OrigSize(), disk.Size(), disk.BlockSize()
	doc.Blocks, doc.DataBlocks = int64(disk.Blocks()), &data
	doc.Compression, doc.Created = disk.Compression(), &created
	doc.judge(src, "")
	return doc.addPartitions(disk, disk.OrigSize())
}

func (doc *infoDoc) addZVHD(src *source) error {
	disk, err := zvhd.NewReader(io.NewSectionReader(src, 0, src.size))
	if err != nil {
		return err
	}
	doc.DiskSize, doc.VirtualSize = disk.OrigSize(), disk.Size()
	doc.Import.Reason = src.otherFormat().Error()
	return nil
}

func (doc *infoDoc) addRaw(src *source) error {
	doc.DiskSize, doc.VirtualSize = src.size, src.size
	var err error
	if doc.Stored, err = src.stored(); err != nil {
		return err
	}
	reason := ""
	if err := src.wholeSectors(); err != nil {
		reason = err.Error()
	}
	if because := doc.addBitmap(src); reason == "" {
		reason = because
	}
	doc.judge(src, reason)
	return doc.addPartitions(src.File, src.size)
}

// addBitmap looks at the bitmap beside a RAW file and says what keeps it from
// being used.
func (doc *infoDoc) addBitmap(src *source) (reason string) {
	doc.Bitmap = &bitmapDoc{Path: mfPath(src.path)}
	mf, err := findMf(src)
	switch {
	case noMf(err):
		return fmt.Sprintf("%s is missing; \"quickims mf %s\" makes it, \"quickims import\" too", doc.Bitmap.Path, src.path)
	case err != nil:
		doc.Bitmap.Found, doc.Bitmap.Problem = true, err.Error()
		return err.Error()
	}
	defer mf.Close()
	doc.Bitmap.Found, doc.Bitmap.Kind, doc.Bitmap.Problem = true, mf.Kind(), mf.Reason()
	if mf.Kind() != bitmap.Unknown {
		data := mf.DataBlocks()
		doc.BlockSize, doc.Blocks, doc.DataBlocks = bitmap.BlockSize, mf.Blocks(), &data
	}
	return ""
}

func (doc *infoDoc) addPartitions(disk io.ReaderAt, size int64) error {
	h, err := diskformat.ReadHints(disk, size)
	if err != nil {
		return err
	}
	doc.Partitions = &partitionDoc{h.Table, h.Partitions, h.EFISystem, h.BIOSBoot}
	return nil
}

// judge says whether a quick import would take the file. reason is what keeps it
// from that, as far as is known.
func (doc *infoDoc) judge(src *source, reason string) {
	doc.Import.MinDisk = minDisk(doc.VirtualSize)
	switch {
	case src.size > ims.MaxFileSize:
		reason = fmt.Sprintf("the file has %s, a quick import takes at most %s", size(src.size), size(ims.MaxFileSize))
	case doc.Import.MinDisk > ims.MaxDiskGiB:
		reason = fmt.Sprintf("the disk has %s, an image at most %d GiB", size(doc.VirtualSize), ims.MaxDiskGiB)
	}
	doc.Import.Ready, doc.Import.Reason = reason == "", reason
}

// minDisk is the least min_disk in GiB for a disk of so many bytes.
func minDisk(size int64) int64 {
	n := size / ims.GiB
	if size%ims.GiB != 0 {
		n++
	}
	return n
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
	if doc.Format == diskformat.Raw {
		row("Stored", "%s, %s are holes", size(doc.Stored), size(doc.DiskSize-doc.Stored))
	}
	if doc.DataBlocks != nil {
		row("Data blocks", "%d of %d, %s each", *doc.DataBlocks, doc.Blocks, size(doc.BlockSize))
	}
	if doc.Compression != "" {
		row("Compression", "%s", doc.Compression)
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
}

func (p *partitionDoc) String() string {
	if p.Type == diskformat.NoTable {
		return "no partition table"
	}
	s := fmt.Sprintf("%s, %d", p.Type, p.Partitions)
	switch {
	case p.EFISystem && p.BIOSBoot:
		return s + ", boots with uefi or bios"
	case p.EFISystem:
		return s + ", boots with uefi"
	case p.BIOSBoot:
		return s + ", boots with bios"
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
