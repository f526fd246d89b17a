package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// maxUploads is how many uploads there are at once, half of them of one project.
const maxUploads = 16

// uploadFormats are the formats of a disk that can be uploaded: the bytes stay as they
// are.
var uploadFormats = []string{"raw"}

// uploadFile is PUT /image/v2/images/{image_id}/file: the bytes of a queued image, which is
// active afterwards. A download delivers the same bytes.
func (s *server) uploadFile(c *call) error { return s.upload(c, false) }

// stageFile is PUT /image/v2/images/{image_id}/stage: bytes that wait for an import.
func (s *server) stageFile(c *call) error { return s.upload(c, true) }

func (s *server) upload(c *call, stage bool) error {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if kind != "application/octet-stream" {
		return &statusFault{ims.Faultf(ims.CodeUnsupported, "the Content-Type is %q; it must be application/octet-stream", ims.Clip(kind)), http.StatusUnsupportedMediaType}
	}
	if e := c.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return ims.Faultf(ims.CodeBadFormat, "Content-Encoding is %q; the bytes must be sent as they are", ims.Clip(e))
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	img, err := s.image(c)
	if err != nil {
		return err
	}
	if img.DiskFormat != "" && !slices.Contains(uploadFormats, img.DiskFormat) {
		return ims.Faultf(ims.CodeFile, "bytes of the disk_format %s can not be uploaded here, only %s; convert the file (`quickims convert FILE OUT.raw`), or import it from a bucket (`quickims import FILE`)",
			img.DiskFormat, strings.Join(uploadFormats, ", ")).WithKind(ims.KindWrongFormat)
	}
	leave := s.uploads.enter(c.project())
	if leave == nil {
		return unavailable(fmt.Sprintf("too many uploads at once (at most %d, %d by one project); try again", s.uploads.max, s.uploads.share()))
	}
	defer leave()
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	rc := http.NewResponseController(c.w)
	// Both deadlines are those of short requests: the first moves on as bytes come.
	if err := rc.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("lift the write deadline: %w", err)
	}
	right := s.watchRight(ctx, rightEvery, func(ctx context.Context) error { return s.stillUploads(ctx, c) },
		func() { rc.SetReadDeadline(time.Now()) }) // ends a read that hangs
	defer right.stop()
	body := &uploadBody{r: c.Body, rec: recorderOf(c.w), right: right, deadline: func(at time.Time) { rc.SetReadDeadline(at) }}
	err = s.Importer.Upload(ctx, c.project(), img.ID, body, c.ContentLength, stage)
	right.stop()
	rc.SetWriteDeadline(time.Now().Add(sendTimeout))
	if lost := right.lost(); lost != nil {
		return lost
	}
	return s.noContent(c, err)
}

// stillUploads is the fault of going on with an upload of a caller whose access has ended.
// A database that does not answer ends no upload.
func (s *server) stillUploads(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	now, err := s.Auth.Holds(ctx, c.principal)
	switch {
	case ims.CodeOf(err) != "":
		return err
	case err == nil && !now.May(ims.ActionImagesUpload):
		return forbidden(ims.ActionImagesUpload)
	}
	return nil
}

// uploadBody reads the bytes of an upload. A client that sends nothing for chunkTimeout,
// or that hangs up, is a fault that says so.
type uploadBody struct {
	r        io.Reader
	rec      *recorder
	right    *right
	deadline func(time.Time)
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.right.unless(func() { b.deadline(time.Now().Add(chunkTimeout)) })
	n, err := b.r.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.deadline(time.Time{}) // it would end the request's context
		if b.rec != nil {
			b.rec.unread = false
		}
	case err != nil:
		err = ims.Faultf(ims.CodeBadFormat, "the upload broke off, or brought nothing for %s; the image is queued again and has no bytes", chunkTimeout).Cause(err)
	}
	return n, err
}

// importGlance is POST /image/v2/images/{image_id}/import: staged bytes become the image's.
func (s *server) importGlance(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	method := f.object("method", ims.CodeBadFormat)
	name := method.required("name", ims.CodeBadFormat)
	if err := f.failed(); err != nil {
		return err
	}
	if !slices.Contains(importMethods, name) {
		return ims.Faultf(ims.CodeBadFormat, "the method %q is not offered; it must be %s", ims.Clip(name), strings.Join(importMethods, " or "))
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	if err := s.Catalog.ImportStaged(c.Context(), c.project(), c.PathValue("image_id")); err != nil {
		return imageFault(err)
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
