package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/bitmap"
	"github.com/quickims/quickims/internal/diskformat/open"
	"github.com/quickims/quickims/internal/diskformat/sparse"
	"github.com/quickims/quickims/internal/diskformat/zvhd2"
)

// VerifyCmd checks a file against its checksums, or against another disk.
type VerifyCmd struct {
	inputFlags
	File    string `arg:"" name:"file" help:"Disk file of any format that is read; RAW with its .mf beside it."`
	Against string `placeholder:"RAW" help:"Compare the disk with this RAW file, byte for byte."`
}

// Help shows the command's use.
func (VerifyCmd) Help() string {
	return `All that the file stores of the disk is read and decoded, and every checksum that the format has is compared: ZVHD2 of ours has one for each block or frame, the other formats have few or none. Of ZVHD2 the header and its copies are compared with the footer, too, and the frame table with the records. A RAW file is compared with the .mf beside it. What no reader uses is not looked at: padding, reserved bytes, space between the parts of a file. The exit status is 0 only if all of it holds.

With --against the disk is compared with a RAW file instead, which takes reading and decoding all of it.

Examples:

    quickims verify disk.zvhd2
    quickims verify disk.zvhd2 --against disk.raw
    quickims verify disk.raw
`
}

type verifyDoc struct {
	Path       string            `json:"path"`
	Format     diskformat.Format `json:"format"`
	OK         bool              `json:"ok"`
	Against    string            `json:"against"`   // "records", or the path of the bitmap or of the RAW file
	DiskSize   int64             `json:"disk_size"` // bytes
	Blocks     int64             `json:"blocks,omitempty"`
	DataBlocks int64             `json:"data_blocks,omitempty"`
	Seconds    float64           `json:"seconds"`
}

// Run verifies.
func (c *VerifyCmd) Run(ctx context.Context, s *session) error {
	began := s.now()
	src, err := c.openDisk(c.File)
	if err != nil {
		return err
	}
	defer src.Close()
	var doc verifyDoc
	var found string
	switch {
	case c.Against != "":
		doc, err = s.verifyAgainst(ctx, src, c.Against)
		found = "every byte is that of " + c.Against
	case src.Format == diskformat.Raw:
		doc, err = s.verifyRaw(ctx, src.source)
		found = "every block agrees with " + doc.Against
	case src.Format == diskformat.ZVHD2:
		doc, err = s.verifyZVHD2(ctx, src)
		found = "header, copy and footer agree, every record decodes and every checksum holds"
		if src.Image.(*zvhd2.File).Framed() {
			found = "header, copies and footer agree, every record decodes, every checksum holds and the frame table is that of the records"
		}
	default:
		doc, err = s.verifyRecords(ctx, src)
		found = "all of the disk can be read and decoded"
	}
	if err == nil {
		err = src.unchanged()
	}
	if err != nil {
		return err
	}
	doc.Path, doc.Format, doc.OK, doc.Seconds = c.File, src.Format, true, s.now().Sub(began).Seconds()
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s, %s): %s; ", c.File, src.Format, size(doc.DiskSize), found)
		if doc.Blocks > 0 {
			fmt.Fprintf(w, "%d of %d blocks hold data, ", doc.DataBlocks, doc.Blocks)
		}
		fmt.Fprintln(w, seconds(doc.Seconds))
	})
}

func (s *session) verifyZVHD2(ctx context.Context, src *diskFile) (verifyDoc, error) {
	disk := src.Image.(*zvhd2.File)
	m := s.bytesMeter("verify", disk.OrigSize())
	err := disk.Verify(ctx, zvhd2.Options{Progress: m.progress})
	m.close(err)
	if err != nil {
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, interrupted(ctx, err))
	}
	return verifyDoc{
		Against: "records", DiskSize: disk.OrigSize(),
		Blocks: int64(disk.Blocks()), DataBlocks: int64(disk.DataBlocks()),
	}, nil
}

// verifyRecords reads all that a file of another format stores.
func (s *session) verifyRecords(ctx context.Context, src *diskFile) (verifyDoc, error) {
	m := s.bytesMeter("verify", src.OrigSize)
	err := sparse.Each(ctx, src, src.OrigSize, sparse.CopyOptions{Data: src.Data(ctx), Progress: m.progress},
		func(int64, []byte) error { return nil }, false)
	m.close(err)
	if err != nil {
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, interrupted(ctx, err))
	}
	return verifyDoc{Against: "records", DiskSize: src.OrigSize}, nil
}

// verifyAgainst compares the disk with a RAW file. What is a hole in both is not
// read.
func (s *session) verifyAgainst(ctx context.Context, src *diskFile, path string) (verifyDoc, error) {
	raw, err := inputFlags{Format: string(diskformat.Raw)}.openDisk(path)
	if err != nil {
		return verifyDoc{}, err
	}
	defer raw.Close()
	fail := func(err error) (verifyDoc, error) {
		if errors.Is(err, diskformat.ErrMismatch) {
			err = cmp.Or(notRaw(src, raw), err)
		}
		return verifyDoc{}, fmt.Errorf("compare %s with %s: %w", src.path, path, interrupted(ctx, err))
	}
	if raw.size != src.OrigSize {
		return fail(diskformat.Errorf("", diskformat.ErrMismatch, "size", "the disk has %d bytes, the RAW file %d", src.OrigSize, raw.size))
	}
	m := s.bytesMeter("compare", src.OrigSize)
	err = sparse.Compare(ctx, src, raw, src.OrigSize, src.Data(ctx), raw.Data(ctx), m.progress)
	if m.close(err); err == nil {
		err = raw.unchanged()
	}
	if err != nil {
		return fail(err)
	}
	return verifyDoc{Against: path, DiskSize: src.OrigSize}, nil
}

// notRaw is why a file that a disk differs from is none to compare it with: it looks
// like another format. A RAW disk may look so, but would be the same then.
func notRaw(src, other *diskFile) error {
	found, err := diskformat.Detect(other.File, other.size)
	if err != nil || found == diskformat.Raw {
		return nil
	}
	hint := ""
	switch {
	case !slices.Contains(open.Formats, found):
	case src.Format == diskformat.Raw:
		hint = fmt.Sprintf("; the other way round it works: quickims verify %s --against %s", other.path, src.path)
	default:
		hint = fmt.Sprintf("; make it RAW first: quickims convert -O raw %s OUT", other.path)
	}
	return &kindError{diskformat.ErrWrongFormat, fmt.Sprintf("%s is %s, and --against takes a RAW file%s", other.path, found, hint)}
}

func (s *session) verifyRaw(ctx context.Context, src *source) (verifyDoc, error) {
	path := mfPath(src.path)
	if path == src.path {
		return verifyDoc{}, fmt.Errorf("verify %s: it is a bitmap, to go by its name; verify the RAW file that it belongs to", src.path)
	}
	mf, err := findMf(src)
	command := src.mfCommand("")
	switch {
	case noMf(err) && command != "":
		return verifyDoc{}, &kindError{fs.ErrNotExist, fmt.Sprintf(
			"verify %s: a RAW file has no checksums of its own, and there is no %s to compare it with; \"%s\" makes it of the file as it is now",
			src.path, path, command)}
	case noMf(err):
		if err := src.wholeSectors(); err != nil {
			return verifyDoc{}, err
		}
		return verifyDoc{}, &kindError{fs.ErrNotExist, fmt.Sprintf(
			"verify %s: a RAW disk has no checksums of its own, and there is no bitmap beside a device; --against compares it with a RAW file", src.path)}
	case err != nil:
		return verifyDoc{}, fmt.Errorf("verify %s: %w", src.path, err)
	}
	defer mf.Close()
	if mf.Kind() == bitmap.Unknown {
		advice := ""
		if command := src.mfCommand("--force "); command != "" {
			advice = fmt.Sprintf("; \"%s\" makes one of the file as it is now", command)
		}
		return verifyDoc{}, fmt.Errorf("verify %s: %s has no checksums to compare with: %s%s", src.path, mf.path, mf.Reason(), advice)
	}
	if err := s.compare(ctx, src, mf); err != nil {
		return verifyDoc{}, err
	}
	return verifyDoc{Against: mf.path, DiskSize: src.size, Blocks: mf.Blocks(), DataBlocks: mf.DataBlocks()}, nil
}
