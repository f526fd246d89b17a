package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/zvhd"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// ConvertCmd makes ZVHD2 of RAW and RAW of ZVHD2.
type ConvertCmd struct {
	In     string `arg:"" name:"in" help:"RAW or ZVHD2 file, or a block device, which is RAW. ZVHD is read too."`
	Out    string `arg:"" name:"out" help:"File to write."`
	Format string `short:"O" name:"output-format" placeholder:"FORMAT" help:"Format of OUT, raw or zvhd2. Default: by the ending of OUT's name, else what IN is not."`
	Force  bool   `short:"f" help:"Replace OUT if it is there."`
}

// Help shows the command's use.
func (ConvertCmd) Help() string {
	return `What IN is decides its content, not its name. Holes of a sparse file are neither read nor stored, RAW is written sparse, and all cores are used. OUT appears when it is whole and on the disk, not before.

Examples:

    quickims convert disk.raw disk.zvhd2
    quickims convert disk.zvhd2 disk.raw
    quickims convert -O zvhd2 /dev/vg0/disk backup-of-disk
`
}

// endings are the names' endings that settle OUT's format.
var endings = map[string]diskformat.Format{
	".zvhd2": diskformat.ZVHD2,
	".raw":   diskformat.Raw, ".img": diskformat.Raw, ".bin": diskformat.Raw, ".dd": diskformat.Raw,
}

// otherEndings are those of formats that users may hope for.
var otherEndings = []string{".qcow2", ".qcow", ".vmdk", ".vhd", ".vhdx", ".vdi", ".qed", ".zvhd", ".iso", ".ova"}

// target is OUT's format as far as the call tells: "" leaves it to IN.
func (c *ConvertCmd) target() (diskformat.Format, error) {
	ending := strings.ToLower(filepath.Ext(c.Out))
	byName := endings[ending]
	switch f := diskformat.Format(strings.ToLower(c.Format)); {
	case c.Format == "":
		for _, other := range otherEndings {
			if ending == other {
				return "", usagef("%s: convert writes RAW and ZVHD2 only, not %s (-O raw or -O zvhd2 writes that under this name)", c.Out, ending[1:])
			}
		}
		return byName, nil
	case f != diskformat.Raw && f != diskformat.ZVHD2:
		return "", usagef("-O %s: the formats are raw and zvhd2", c.Format)
	default:
		return f, nil
	}
}

type convertedFile struct {
	Path   string            `json:"path"`
	Format diskformat.Format `json:"format"`
	Size   int64             `json:"size"` // bytes
}

type convertDoc struct {
	Input      convertedFile `json:"input"`
	Output     convertedFile `json:"output"`
	DiskSize   int64         `json:"disk_size"`        // bytes
	Blocks     uint32        `json:"blocks,omitempty"` // not known of ZVHD
	DataBlocks uint32        `json:"data_blocks"`
	Seconds    float64       `json:"seconds"`
}

// Run converts.
func (c *ConvertCmd) Run(ctx context.Context, s *session) error {
	target, err := c.target()
	if err != nil {
		return err
	}
	began := s.now()
	src, err := openSource(c.In)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := src.differs(c.Out); err != nil {
		return err
	}
	var convert func(context.Context, *session, *source, *output) (convertDoc, error)
	switch src.format {
	case diskformat.Raw:
		convert = toZVHD2
		if target == "" {
			target = diskformat.ZVHD2
		}
	case diskformat.ZVHD2:
		convert = toRaw
		if target == "" {
			target = diskformat.Raw
		}
	case diskformat.ZVHD:
		if target == diskformat.ZVHD2 {
			return src.otherFormat()
		}
		convert, target = zvhdToRaw, diskformat.Raw
	default:
		return src.otherFormat()
	}
	if target == src.format {
		return fmt.Errorf("convert %s to %s: it is %s already; cp --sparse=always copies it", c.In, c.Out, target)
	}
	if err := src.wholeSectors(); err != nil {
		return err
	}
	out, err := newOutput(c.Out, c.Force)
	if err != nil {
		return err
	}
	defer out.cancel()
	doc, err := convert(ctx, s, src, out)
	if err != nil {
		return fmt.Errorf("convert %s to %s: %w", c.In, c.Out, interrupted(ctx, err))
	}
	if err := src.unchanged(); err != nil {
		return err
	}
	info, err := out.Stat()
	if err != nil {
		return fmt.Errorf("write %s: %w", c.Out, plain(err))
	}
	if err := out.commit(); err != nil {
		return err
	}
	doc.Input = convertedFile{c.In, src.format, src.size}
	doc.Output = convertedFile{c.Out, target, info.Size()}
	doc.Seconds = s.now().Sub(began).Seconds()
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s, %s) -> %s (%s, %s): ", c.In, src.format, size(src.size), c.Out, target, size(info.Size()))
		if doc.Blocks > 0 {
			fmt.Fprintf(w, "%d of %d blocks hold data, ", doc.DataBlocks, doc.Blocks)
		}
		fmt.Fprintln(w, seconds(doc.Seconds))
	})
}

// toZVHD2 writes a RAW source as ZVHD2.
func toZVHD2(ctx context.Context, s *session, src *source, out *output) (convertDoc, error) {
	m := s.bytesMeter("convert", src.size)
	made, err := zvhd2.Convert(ctx, out.File, src.File, src.size, zvhd2.ConvertOptions{Options: zvhd2.Options{Progress: m.progress}})
	m.close(err)
	return convertDoc{DiskSize: src.size, Blocks: made.Blocks, DataBlocks: made.DataBlocks}, err
}

// toRaw writes the disk that a ZVHD2 source was made from.
func toRaw(ctx context.Context, s *session, src *source, out *output) (convertDoc, error) {
	disk, err := zvhd2.Open(src.File, src.size)
	if err != nil {
		return convertDoc{}, err
	}
	m := s.bytesMeter("convert", disk.OrigSize())
	err = disk.Extract(ctx, out.File, zvhd2.ExtractOptions{Options: zvhd2.Options{Progress: m.progress}})
	m.close(err)
	return convertDoc{DiskSize: disk.OrigSize(), Blocks: disk.Blocks(), DataBlocks: disk.DataBlocks()}, err
}

// zvhdToRaw writes the disk that a ZVHD source was made from.
func zvhdToRaw(ctx context.Context, s *session, src *source, out *output) (convertDoc, error) {
	head, err := zvhd.NewReader(io.NewSectionReader(src, 0, src.size))
	if err != nil {
		return convertDoc{}, err
	}
	m := s.bytesMeter("convert", head.OrigSize())
	err = zvhd.Extract(ctx, out.File, io.NewSectionReader(src, 0, src.size), m.progress)
	m.close(err)
	return convertDoc{DiskSize: head.OrigSize()}, err
}
