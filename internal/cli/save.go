package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// ImageSaveCmd writes an image's disk to a file.
type ImageSaveCmd struct {
	serverFlags
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	Out   string `arg:"" name:"out" help:"File to write, RAW; - is standard output."`
	Force bool   `short:"f" help:"Replace OUT if it is there."`
}

// Help shows the command's use.
func (ImageSaveCmd) Help() string {
	return `The file is RAW whatever was imported, sparse, and appears when it is whole and on the disk.

Example:

    quickims image save web web.raw
    quickims image save web - | nbdcopy - nbd://127.0.0.1
`
}

// saveDoc is what was saved.
type saveDoc struct {
	ImageID string  `json:"image_id"`
	Output  string  `json:"output"`
	Size    int64   `json:"size"` // bytes
	Seconds float64 `json:"seconds"`
}

// Run saves.
func (c *ImageSaveCmd) Run(ctx context.Context, s *session) error {
	began := s.now()
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	if c.Out == "-" {
		return c.stream(ctx, s, service)
	}
	out, err := newOutput(c.Out, c.Force)
	if err != nil {
		return err
	}
	defer out.cancel()
	id, err := s.imageID(ctx, service, c.Image)
	if err != nil {
		return err
	}
	disk, total, err := service.Disk(ctx, id)
	if err != nil {
		return fmt.Errorf("save image %s: %w", c.Image, interrupted(ctx, err))
	}
	defer disk.Close()
	m := s.bytesMeter("save", total)
	err = writeSparse(out, disk, total, m.at)
	m.close(err)
	if err != nil {
		return fmt.Errorf("save image %s to %s: %w", c.Image, c.Out, interrupted(ctx, err))
	}
	if err := out.commit(); err != nil {
		return err
	}
	doc := saveDoc{id, c.Out, total, s.now().Sub(began).Seconds()}
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "image %s -> %s (raw, %s), %s\n", id, c.Out, size(total), seconds(doc.Seconds))
	})
}

// stream writes the disk to standard output, and nothing else there.
func (c *ImageSaveCmd) stream(ctx context.Context, s *session, service *client.Client) error {
	if s.json {
		return usagef("--json and the disk can't both go to standard output")
	}
	id, err := s.imageID(ctx, service, c.Image)
	if err != nil {
		return err
	}
	disk, total, err := service.Disk(ctx, id)
	if err != nil {
		return fmt.Errorf("save image %s: %w", c.Image, interrupted(ctx, err))
	}
	defer disk.Close()
	n, err := io.Copy(s.Stdout, disk)
	if err == nil && n != total {
		err = fmt.Errorf("the disk ended at byte %d of %d: %w", n, total, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("save image %s to standard output: %w", c.Image, interrupted(ctx, err))
	}
	return nil
}

// writeSparse writes total bytes of r, leaving holes where there are zeros. r
// ending early is an error.
func writeSparse(out *output, r io.Reader, total int64, progress func(done int64)) error {
	if _, err := sparse.Prepare(out.File, total); err != nil { // a regular file can always be made sparse
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < total; {
		p := buf[:min(int64(len(buf)), total-off)]
		if _, err := io.ReadFull(r, p); err != nil {
			return fmt.Errorf("read the disk at byte %d of %d: %w", off, total, err)
		}
		if err := sparse.WriteAt(out.File, p, off); err != nil {
			return err
		}
		off += int64(len(p))
		progress(off)
	}
	return nil
}
