package cli

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// VerifyCmd checks a file against its checksums.
type VerifyCmd struct {
	File string `arg:"" name:"file" help:"ZVHD2 file, or RAW file with its .mf beside it."`
}

// Help shows the command's use.
func (VerifyCmd) Help() string {
	return `Of a ZVHD2 file every record is decoded and every checksum compared; of a RAW file every block is compared with the .mf beside it. The exit status is 0 only if all of it holds.

Examples:

    quickims verify disk.zvhd2
    quickims verify disk.raw
`
}

type verifyDoc struct {
	Path       string            `json:"path"`
	Format     diskformat.Format `json:"format"`
	OK         bool              `json:"ok"`
	Against    string            `json:"against"`   // "records", or the bitmap's path
	DiskSize   int64             `json:"disk_size"` // bytes
	Blocks     int64             `json:"blocks"`
	DataBlocks int64             `json:"data_blocks"`
	Seconds    float64           `json:"seconds"`
}

// Run verifies.
func (c *VerifyCmd) Run(ctx context.Context, s *session) error {
	began := s.now()
	src, err := openSource(c.File)
	if err != nil {
		return err
	}
	defer src.Close()
	var doc verifyDoc
	switch src.format {
	case diskformat.ZVHD2:
		doc, err = s.verifyZVHD2(ctx, src)
	case diskformat.Raw:
		doc, err = s.verifyRaw(ctx, src)
	default:
		err = src.otherFormat()
	}
	if err != nil {
		return err
	}
	doc.Path, doc.Format, doc.OK, doc.Seconds = c.File, src.format, true, s.now().Sub(began).Seconds()
	return s.result(doc, func(w io.Writer) {
		against := "every record decodes and every checksum holds"
		if src.format == diskformat.Raw {
			against = "every block agrees with " + doc.Against
		}
		fmt.Fprintf(w, "%s (%s, %s): %s; %d of %d blocks hold data, %s\n",
			c.File, src.format, size(doc.DiskSize), against, doc.DataBlocks, doc.Blocks, seconds(doc.Seconds))
	})
}

func (s *session) verifyZVHD2(ctx context.Context, src *source) (verifyDoc, error) {
	disk, err := zvhd2.Open(src.File, src.size)
	if err != nil {
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, err)
	}
	m := s.bytesMeter("verify", disk.OrigSize())
	err = disk.Verify(ctx, zvhd2.Options{Progress: m.progress})
	m.close(err)
	if err != nil {
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, interrupted(ctx, err))
	}
	return verifyDoc{
		Against: "records", DiskSize: disk.OrigSize(),
		Blocks: int64(disk.Blocks()), DataBlocks: int64(disk.DataBlocks()),
	}, src.unchanged()
}

func (s *session) verifyRaw(ctx context.Context, src *source) (verifyDoc, error) {
	path := mfPath(src.path)
	if path == src.path {
		return verifyDoc{}, fmt.Errorf("verify %s: it is a bitmap, to go by its name; verify the RAW file that it belongs to", src.path)
	}
	mf, err := findMf(src)
	if noMf(err) {
		return verifyDoc{}, &kindError{fs.ErrNotExist, fmt.Sprintf(
			"verify %s: a RAW file has no checksums of its own, and there is no %s to compare it with; \"quickims mf %s\" makes it of the file as it is now",
			src.path, path, src.path)}
	}
	if err != nil {
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, err)
	}
	defer mf.Close()
	if mf.Kind() == bitmap.Unknown {
		return verifyDoc{}, fmt.Errorf("verify %s: %s has no checksums to compare with: %s; \"quickims mf --force %s\" makes one of the file as it is now",
			src.path, path, mf.Reason(), src.path)
	}
	if err := s.compare(ctx, src, mf); err != nil {
		return verifyDoc{}, err
	}
	return verifyDoc{Against: path, DiskSize: src.size, Blocks: mf.Blocks(), DataBlocks: mf.DataBlocks()}, nil
}
