package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// unknownImage is the answer for an image that does not exist, or is another
// project's: nobody can tell which.
func unknownImage() *ims.Error {
	return ims.NotFoundf(ims.CodeImageUnknown, "the project has no image with this id")
}

// imageFault turns the catalog's "not found" into the client's.
func imageFault(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return unknownImage()
	}
	return err
}

// imageID is the image's id in the path.
func imageID(c *call) (string, error) {
	id := c.PathValue("image_id")
	if !ims.ValidUUID(id) {
		return "", unknownImage()
	}
	return id, nil
}

// image is the image that the path names.
func (s *server) image(c *call) (ims.Image, error) {
	id, err := imageID(c)
	if err != nil {
		return ims.Image{}, err
	}
	img, err := s.Catalog.Image(c.Context(), c.project(), id)
	return img, imageFault(err)
}

// visibleImage is the image that the path names: the project's own, or one that is
// shared with it, with the membership.
func (s *server) visibleImage(c *call) (ims.Image, *ims.Member, error) {
	id, err := imageID(c)
	if err != nil {
		return ims.Image{}, nil, err
	}
	img, m, err := s.Catalog.VisibleImage(c.Context(), c.project(), id)
	return img, m, imageFault(err)
}

// noContent is the answer to a change that has nothing to tell.
func (s *server) noContent(c *call, err error) error {
	if err != nil {
		return imageFault(err)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// showImage is GET /v2/images/{image_id}, of both faces.
func (s *server) showImage(c *call) error {
	img, _, err := s.visibleImage(c)
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, c.imageBody(img))
	return nil
}

// listImages is GET /v2/cloudimages.
func (s *server) listImages(c *call) error {
	filter, err := readImageFilter(readQuery(c.Request), ims.DefaultListLimit)
	if err != nil {
		return err
	}
	list := []wire.Image{}
	if !filter.None {
		images, err := s.Catalog.Images(c.Context(), c.project(), filter)
		if err != nil {
			return err
		}
		for _, img := range images {
			list = append(list, newCloudImageWire(img, c.project()))
		}
	}
	writeJSON(c.w, http.StatusOK, struct {
		Images []wire.Image `json:"images"`
	}{list})
	return nil
}

// deleteImage is DELETE /v2/images/{image_id}. Its body is optional.
func (s *server) deleteImage(c *call) error {
	force := false
	if len(strings.TrimSpace(string(c.body))) > 0 {
		f, err := objectBody(c.body)
		if err != nil {
			return err
		}
		f.boolean("delete_backup") // no image here comes from a backup
		if v := f.boolean("force"); v != nil {
			force = *v
		}
		if err := f.failed(); err != nil {
			return err
		}
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	if err := s.Catalog.DeleteImage(c.Context(), c.project(), id, force); err != nil {
		return imageFault(err)
	}
	s.Importer.Nudge()
	return s.noContent(c, nil)
}

// patchImage is PATCH /v2/cloudimages/{image_id}.
func (s *server) patchImage(c *call) error { return s.patch(c, readPatch, newCloudImageWire) }

// patchNative is PATCH /v2/images/{image_id}, in both media types of the OpenStack Image API.
func (s *server) patchNative(c *call) error {
	read := readPatch
	if kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type")); kind == patchV20 {
		read = readOldPatch
	}
	return s.patch(c, read, newImageWire)
}

func (s *server) patch(c *call, read func([]byte) ([]ims.PatchOp, error), show func(ims.Image, string) wire.Image) error {
	ops, err := read(c.body)
	if err != nil {
		return err
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	img, err := s.Catalog.UpdateImage(c.Context(), c.principal.Tenant, c.project(), id, func(img *ims.Image) error {
		if img.Status != ims.ImageActive {
			return ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one can be changed", img.Status)
		}
		was := img.MadeVisible
		if err := img.Patch(ops); err != nil {
			return err
		}
		return s.mayPublish(c, was, *img)
	})
	if err != nil {
		return imageFault(err)
	}
	writeJSON(c.w, http.StatusOK, show(img, c.project()))
	return nil
}

// maxPatchOps is how many operations a PATCH may hold.
const maxPatchOps = 100

// eachPatchOp reads the array of operations of a PATCH and hands each to read, with its
// number from 1. It stops at the first error.
func eachPatchOp(body []byte, read func(n int, o *fields) error) error {
	v, err := jsonBody(body)
	if err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		return ims.Faultf(ims.CodeBadFormat, "the body must be an array of operations, it is %s", typeName(v))
	}
	if len(list) > maxPatchOps {
		return ims.Faultf(ims.CodeBadFormat, "%d operations, at most %d are allowed", len(list), maxPatchOps)
	}
	for i, v := range list {
		o := &fields{at: fmt.Sprintf("operation %d: ", i+1), fault: new(error)}
		if o.values, ok = v.(map[string]any); !ok {
			return ims.Faultf(ims.CodeBadFormat, "operation %d must be an object, it is %s", i+1, typeName(v))
		}
		if err := read(i+1, o); err != nil {
			return err
		}
	}
	return nil
}

// readOldPatch reads the operations of version 2.0 of the Image API's PATCH.
func readOldPatch(body []byte) ([]ims.PatchOp, error) {
	old, err := readGlancePatch(body, true)
	var ops []ims.PatchOp
	for _, op := range old {
		ops = append(ops, ims.PatchOp{Op: op.Op, Path: "/" + op.Key, Value: op.Value})
	}
	return ops, err
}

// readPatch reads the operations as IMS spells them.
func readPatch(body []byte) ([]ims.PatchOp, error) {
	var ops []ims.PatchOp
	err := eachPatchOp(body, func(_ int, o *fields) error {
		op := ims.PatchOp{Op: o.required("op", ims.CodeBadFormat), Path: o.required("path", ims.CodeBadFormat), Value: o.values["value"]}
		if n, ok := op.Value.(json.Number); ok {
			op.Value, _ = n.Float64() // what no float64 holds is infinite, beyond every range
		}
		ops = append(ops, op)
		return o.failed()
	})
	if err != nil {
		return nil, err
	}
	return ops, nil
}
