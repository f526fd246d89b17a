package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// unknownImage is the answer for an image that does not exist, or is another
// project's: nobody can tell which.
func unknownImage() error {
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

// noContent is the answer to a change that has nothing to tell.
func (s *server) noContent(c *call, err error) error {
	if err != nil {
		return imageFault(err)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// showImage is GET /v2/images/{image_id}.
func (s *server) showImage(c *call) error {
	img, err := s.image(c)
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, newImageWire(img))
	return nil
}

// listImages is GET /v2/cloudimages.
func (s *server) listImages(c *call) error {
	filter, err := readImageFilter(readQuery(c.Request))
	if err != nil {
		return err
	}
	list := []imageWire{}
	if !filter.None {
		images, err := s.Catalog.Images(c.Context(), c.project(), filter)
		if err != nil {
			return err
		}
		for _, img := range images {
			list = append(list, newCloudImageWire(img))
		}
	}
	writeJSON(c.w, http.StatusOK, struct {
		Images []imageWire `json:"images"`
	}{list})
	return nil
}

// isoImage is the virtual_env_type of images that a quick import does not make.
const isoImage = "IsoImage"

// readImageFilter reads the query of a list.
func readImageFilter(q *query) (ims.ImageFilter, error) {
	f := ims.ImageFilter{
		SortKey:  q.choice("sort_key", ims.SortKeys...),
		SortAsc:  q.choice("sort_dir", "asc", "desc") == "asc",
		Limit:    q.number("limit", ims.DefaultListLimit, 1, ims.MaxListLimit),
		MarkerID: q.one("marker"),
	}
	if f.MarkerID != "" && !ims.ValidUUID(f.MarkerID) {
		q.refuse("marker is %q, it must be the id of an image", clip(f.MarkerID))
	}
	if id := q.one("id"); id != "" {
		f.IDs = []string{id}
		f.None = f.None || !ims.ValidUUID(id)
	}
	if name := q.one("name"); name != "" {
		f.Names = []string{name}
	}
	if status := q.choice("status", string(ims.ImageQueued), string(ims.ImageSaving), string(ims.ImageActive),
		string(ims.ImageKilled), string(ims.ImageDeleted)); status != "" {
		f.Status = []ims.ImageStatus{ims.ImageStatus(status)}
		f.None = f.None || status == string(ims.ImageDeleted)
	}
	// All images here are their project's own.
	if kind := q.choice("__imagetype", "private", "gold", "shared", "market"); kind != "" && kind != "private" {
		f.None = true
	}
	f.Env = ims.EnvType(q.choice("virtual_env_type", string(ims.EnvECS), string(ims.EnvBMS), string(ims.EnvData), isoImage))
	f.None = f.None || f.Env == isoImage
	for _, text := range q.all("tag") {
		t := ims.ParseTagFilter(text)
		if t.Key == "" {
			q.refuse("tag is %q, it must be key=value or a key", clip(text))
		}
		f.Tags = append(f.Tags, t)
	}
	if len(f.Tags) > ims.MaxTags {
		// Each is a join of its own.
		q.refuse("tag occurs %d times, at most %d are allowed", len(f.Tags), ims.MaxTags)
	}
	if eps := q.one("enterprise_project_id"); eps != "" && eps != ims.AllEnterpriseProjects && q.fault == nil {
		f.EnterpriseProjectID, q.fault = ims.ParseEnterpriseProject(&eps)
	}
	return f, q.fault
}

// deleteImage is DELETE /v2/images/{image_id}. Its body is optional.
func (s *server) deleteImage(c *call) error {
	if len(strings.TrimSpace(string(c.body))) > 0 {
		f, err := objectBody(c.body)
		if err != nil {
			return err
		}
		f.boolean("delete_backup") // no image here comes from a backup
		if err := f.failed(); err != nil {
			return err
		}
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	if err := s.Catalog.DeleteImage(c.Context(), c.project(), id); err != nil {
		return imageFault(err)
	}
	s.Importer.Sweep()
	return s.noContent(c, nil)
}

// patchImage is PATCH /v2/cloudimages/{image_id}.
func (s *server) patchImage(c *call) error {
	ops, err := readPatch(c.body)
	if err != nil {
		return err
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	img, err := s.Catalog.UpdateImage(c.Context(), c.principal.DomainID, c.project(), id, func(img *ims.Image) error {
		if img.Status != ims.ImageActive {
			return ims.Faultf(ims.CodeImageNotActive, "the image is %s, only an active one can be changed", img.Status)
		}
		return img.Patch(ops)
	})
	if err != nil {
		return imageFault(err)
	}
	writeJSON(c.w, http.StatusOK, newCloudImageWire(img))
	return nil
}

// maxPatchOps is how many operations a PATCH may hold.
const maxPatchOps = 100

// readPatch reads an array of operations.
func readPatch(body []byte) ([]ims.PatchOp, error) {
	v, err := jsonBody(body)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, ims.Faultf(ims.CodeBadFormat, "the body must be an array of operations, it is %s", typeName(v))
	}
	if len(list) > maxPatchOps {
		return nil, ims.Faultf(ims.CodeBadFormat, "%d operations, at most %d are allowed", len(list), maxPatchOps)
	}
	var ops []ims.PatchOp
	for i, v := range list {
		o := &fields{at: fmt.Sprintf("operation %d: ", i+1), fault: new(error)}
		if o.values, ok = v.(map[string]any); !ok {
			return nil, ims.Faultf(ims.CodeBadFormat, "operation %d must be an object, it is %s", i+1, typeName(v))
		}
		op := ims.PatchOp{Op: o.required("op", ims.CodeBadFormat), Path: o.required("path", ims.CodeBadFormat), Value: o.values["value"]}
		if n, ok := op.Value.(json.Number); ok {
			op.Value, _ = n.Float64() // what no float64 holds is infinite, beyond every range
		}
		if err := o.failed(); err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}
