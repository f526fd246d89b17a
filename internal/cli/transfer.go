package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
)

// publicFlags name an image whose visibility changes.
type publicFlags struct {
	serverFlags
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
}

func (c publicFlags) set(ctx context.Context, s *session, visibility ims.Visibility, what, done string) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	img, err := service.PatchImage(ctx, id, []ims.PatchOp{{Op: "replace", Path: "/visibility", Value: string(visibility)}})
	if err != nil {
		return fmt.Errorf("%s image %s: %w", what, c.Image, interrupted(ctx, err))
	}
	return s.result(withNumbers(img.Raw), func(w io.Writer) { fmt.Fprintf(w, "%s (%s) %s\n", img.ID, img.Name, done) })
}

// ImagePublishCmd makes an image public.
type ImagePublishCmd struct{ publicFlags }

// Help shows the command's use.
func (ImagePublishCmd) Help() string {
	return `Every project then sees, reads, attaches and copies the image, and changes nothing of it. Admins of the service's own project alone may publish.

Example:

    quickims image publish debian-12
`
}

// Run publishes it.
func (c *ImagePublishCmd) Run(ctx context.Context, s *session) error {
	return c.set(ctx, s, ims.VisibilityPublic, "publish", "is public")
}

// ImageWithdrawCmd makes a public image private.
type ImageWithdrawCmd struct{ publicFlags }

// Help shows the command's use.
func (ImageWithdrawCmd) Help() string {
	return `The image is private again, and the attachments of other projects end. Copies that they made stay.

Example:

    quickims image withdraw debian-12
`
}

// Run withdraws it.
func (c *ImageWithdrawCmd) Run(ctx context.Context, s *session) error {
	return c.set(ctx, s, ims.VisibilityPrivate, "withdraw", "is private")
}

// ImageCopyCmd copies an image.
type ImageCopyCmd struct {
	serverFlags
	Image             string `arg:"" name:"image" help:"The image's id, or its name if no other has the same: one of the project, one that it accepted, or a public one."`
	Name              string `required:"" help:"The copy's name."`
	Description       string `placeholder:"TEXT" help:"One line about the copy."`
	EnterpriseProject string `placeholder:"ID" help:"Enterprise project of the copy. Default: 0."`
	NoWait            bool   `help:"Do not wait for the job's end: print its id."`
}

// Help shows the command's use.
func (ImageCopyCmd) Help() string {
	return `The copy shares the stored bytes with its source where the store can, is there at once whatever the size, and stays when the source is deleted. Tags and members are not copied.

Example:

    quickims image copy web --name web-2026
`
}

// Run copies.
func (c *ImageCopyCmd) Run(ctx context.Context, s *session) error {
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	request := ims.CopyRequest{Name: &c.Name}
	if c.Description != "" {
		request.Description = &c.Description
	}
	if c.EnterpriseProject != "" {
		request.EnterpriseProjectID = &c.EnterpriseProject
	}
	doc := struct {
		ImageID string          `json:"image_id,omitempty"` // absent with --no-wait
		Source  string          `json:"source_image_id"`
		JobID   string          `json:"job_id"`
		Job     json.RawMessage `json:"job,omitempty"`
	}{Source: id}
	if doc.JobID, err = service.Copy(ctx, id, request); err != nil {
		return fmt.Errorf("copy image %s: %w", c.Image, interrupted(ctx, err))
	}
	if c.NoWait {
		return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "job %s\n", doc.JobID) })
	}
	job, err := s.wait(ctx, service, doc.JobID)
	if err == nil {
		err = job.Err()
	}
	if err != nil {
		return fmt.Errorf("copy image %s: %w", c.Image, err)
	}
	doc.ImageID, doc.Job = job.ImageID, job.Raw
	return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "image %s (%s) is active, a copy of %s\n", job.ImageID, c.Name, id) })
}

// ImageExportCmd writes an image into a bucket.
type ImageExportCmd struct {
	serverFlags
	Image  string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	To     string `arg:"" name:"bucket:key" help:"The object to make. Nothing that is there is replaced."`
	Format string `enum:",zvhd2,raw,qcow2,vhd,vmdk,zvhd" default:"" placeholder:"FORMAT" help:"Format of the object: zvhd2 or raw, whichever the stored data has, takes a moment; qcow2, vhd, vmdk and zvhd are converted, of disks up to 128 GiB. Default: that of the stored data."`
	Wait   bool   `short:"w" help:"Wait until the job has ended. A job that failed is then a failed command."`
}

// Help shows the command's use.
func (ImageExportCmd) Help() string {
	return `The stored data is linked or copied inside the store; a RAW image gets its bitmap beside it (web.raw, web.mf), so that both can be imported again. With --format the service converts the disk and writes the object piece by piece; it is there when it is whole. "quickims image save" writes the disk to a local file instead.

Examples:

    quickims image export web backup:web.zvhd2 --wait
    quickims image export web backup:web.qcow2 --format qcow2 --wait
`
}

// Run exports.
func (c *ImageExportCmd) Run(ctx context.Context, s *session) error {
	to, err := parseObject(c.To)
	if err != nil {
		return err
	}
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	request := ims.ExportRequest{BucketURL: ptr(to.String())}
	switch diskformat.Format(c.Format) {
	case "", diskformat.Raw, diskformat.ZVHD2:
		request.Quick = ptr(true)
		img, err := service.Image(ctx, id)
		if err != nil {
			return fmt.Errorf("export image %s: %w", c.Image, interrupted(ctx, err))
		}
		if c.Format != "" && img.DiskFormat != "" && c.Format != img.DiskFormat {
			return usagef("--format %s: the image's stored data is %s, leave --format out to export it as it is", c.Format, img.DiskFormat)
		}
	default:
		request.Format = &c.Format
	}
	doc := struct {
		ImageID string          `json:"image_id"`
		Object  string          `json:"object"` // bucket:key
		JobID   string          `json:"job_id"`
		Job     json.RawMessage `json:"job,omitempty"` // with --wait
	}{ImageID: id, Object: to.String()}
	if doc.JobID, err = service.Export(ctx, id, request); err != nil {
		return fmt.Errorf("export image %s: %w", c.Image, interrupted(ctx, err))
	}
	if !c.Wait {
		return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "job %s\n", doc.JobID) })
	}
	job, err := s.wait(ctx, service, doc.JobID)
	if err == nil {
		err = job.Err()
	}
	if err != nil {
		return fmt.Errorf("export image %s: %w", c.Image, err)
	}
	doc.Job = job.Raw
	return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "image %s -> %s\n", id, to) })
}
