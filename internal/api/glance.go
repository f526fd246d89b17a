package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// createGlanceImage is POST /image/v2/images: an image without data, made for an upload.
func (s *server) createGlanceImage(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	img, err := ims.NewOpenStackImage(c.project(), floats(f.values))
	if err != nil {
		return err
	}
	if err := s.mayPublish(c, ims.VisibilityPrivate, img); err != nil {
		return err
	}
	if img, err = s.Catalog.CreateImage(c.Context(), c.principal.Tenant, img, s.Limits); err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Location", "/v2/images/"+img.ID)
	h.Set("OpenStack-image-import-methods", strings.Join(importMethods, ","))
	writeJSON(c.w, http.StatusCreated, newGlanceImage(img))
	return nil
}

// floats has the numbers of a body as float64. A number that none holds is infinite,
// beyond every range.
func floats(values map[string]any) map[string]any {
	for key, v := range values {
		values[key] = withFloat(v)
	}
	return values
}

func withFloat(v any) any {
	if n, ok := v.(json.Number); ok {
		f, _ := n.Float64()
		return f
	}
	return v
}

// The media types of a PATCH.
const (
	patchV20 = "application/openstack-images-v2.0-json-patch"
	patchV21 = "application/openstack-images-v2.1-json-patch"
)

// patchGlanceImage is PATCH /image/v2/images/{image_id}: all operations or none.
func (s *server) patchGlanceImage(c *call) error {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if kind != patchV20 && kind != patchV21 {
		c.w.Header().Set("Accept-Patch", patchV21+", "+patchV20)
		return &statusFault{ims.Faultf(ims.CodeUnsupported, "the Content-Type is %q; it must be %s", ims.Clip(kind), patchV21), http.StatusUnsupportedMediaType}
	}
	ops, err := readGlancePatch(c.body, kind == patchV20)
	if err != nil {
		return err
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	img, err := s.Catalog.UpdateImage(c.Context(), c.principal.Tenant, c.project(), c.PathValue("image_id"), func(img *ims.Image) error {
		was := img.MadeVisible
		if err := img.PatchOpenStack(ops); err != nil {
			return err
		}
		return s.mayPublish(c, was, *img)
	})
	if err != nil {
		return imageFault(err)
	}
	writeJSON(c.w, http.StatusOK, newGlanceImage(img))
	return nil
}

// mayPublish is the fault of a caller who may not give the image its visibility.
func (s *server) mayPublish(c *call, was ims.Visibility, img ims.Image) error {
	return ims.MayPublish(c.principal, s.ServiceProject, was, img.MadeVisible)
}

// readGlancePatch reads the operations. In version 2.0 the operation's name is the key of
// its path.
func readGlancePatch(body []byte, v20 bool) ([]ims.OpenStackOp, error) {
	var ops []ims.OpenStackOp
	err := eachPatchOp(body, func(n int, o *fields) error {
		op := ims.OpenStackOp{Strict: v20}
		path := ""
		if v20 {
			for _, name := range []string{"add", "replace", "remove"} {
				if o.has(name) {
					op.Op, path = name, o.required(name, ims.CodeBadFormat)
				}
			}
		} else {
			op.Op, path = o.required("op", ims.CodeBadFormat), o.required("path", ims.CodeBadFormat)
		}
		if err := o.failed(); err != nil {
			return err
		}
		if op.Op != "add" && op.Op != "replace" && op.Op != "remove" {
			return ims.Faultf(ims.CodeBadFormat, "operation %d is %q; it must be add, replace or remove", n, ims.Clip(op.Op))
		}
		var ok bool
		if op.Key, ok = pointerKey(path); !ok {
			return ims.Faultf(ims.CodeBadFormat, "operation %d: the path is %q; it must be / and the name of a key", n, ims.Clip(path))
		}
		value, given := o.values["value"]
		if !given && op.Op != "remove" {
			return ims.Faultf(ims.CodeBadFormat, "operation %d: value is required", n)
		}
		op.Value = withFloat(value)
		ops = append(ops, op)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ops, nil
}

// pointerKey is the key that a JSON pointer of one segment names. The one that goes deeper,
// into locations, names a key that can't be changed.
func pointerKey(path string) (string, bool) {
	key, ok := strings.CutPrefix(path, "/")
	if strings.HasPrefix(key, "locations/") {
		return "locations", true
	}
	if !ok || key == "" || strings.Contains(key, "/") || strings.HasSuffix(key, "~") {
		return "", false
	}
	for rest := key; ; {
		_, after, found := strings.Cut(rest, "~")
		if !found {
			return strings.NewReplacer("~1", "/", "~0", "~").Replace(key), true
		}
		if after[0] != '0' && after[0] != '1' {
			return "", false
		}
		rest = after
	}
}

// putGlanceTag is PUT /image/v2/images/{image_id}/tags/{tag}.
func (s *server) putGlanceTag(c *call) error {
	tag := c.PathValue("tag")
	if !ims.ValidOpenStackTag(tag) {
		return ims.Faultf(ims.CodeTag, "the tag must be a text of 1 to %d characters", ims.MaxOpenStackTag)
	}
	return s.changeTags(c, func(tags []any) ([]any, error) { return append(tags, tag), nil })
}

// deleteTag is DELETE /v2/images/{image_id}/tags/{tag}, of both faces: the tag that an
// image lists as this text.
func (s *server) deleteTag(c *call) error {
	tag := c.PathValue("tag")
	return s.changeTags(c, func(tags []any) ([]any, error) {
		var out []any
		for _, t := range tags {
			if t != tag {
				out = append(out, t)
			}
		}
		if len(out) == len(tags) {
			return nil, ims.NotFoundf(ims.CodeTag, "the image has no such tag")
		}
		return append([]any{}, out...), nil
	})
}

// changeTags replaces the texts of an image's tags.
func (s *server) changeTags(c *call, change func([]any) ([]any, error)) error {
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	_, err := s.Catalog.UpdateImage(c.Context(), c.principal.Tenant, c.project(), c.PathValue("image_id"), func(img *ims.Image) error {
		texts := []any{}
		for _, t := range img.Tags {
			texts = append(texts, t.String())
		}
		texts, err := change(texts)
		if err != nil {
			return err
		}
		return img.PatchOpenStack([]ims.OpenStackOp{{Op: "replace", Key: "tags", Value: texts}})
	})
	return s.noContent(c, err)
}

// deactivateImage is POST /image/v2/images/{image_id}/actions/deactivate.
func (s *server) deactivateImage(c *call) error { return s.setDeactivated(c, true) }

// reactivateImage is POST /image/v2/images/{image_id}/actions/reactivate.
func (s *server) reactivateImage(c *call) error { return s.setDeactivated(c, false) }

func (s *server) setDeactivated(c *call, deactivated bool) error {
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.SetDeactivated(c.Context(), c.project(), c.PathValue("image_id"), deactivated))
}

// importMethods are the ways of POST /image/v2/images/{image_id}/import.
var importMethods = []string{"glance-direct"}

// importInfo is GET /image/v2/info/import.
func (s *server) importInfo(c *call) error {
	writeJSON(c.w, http.StatusOK, map[string]any{"import-methods": map[string]any{
		"description": "Import methods available.", "type": "array", "value": importMethods,
	}})
	return nil
}

// storesInfo is GET /image/v2/info/stores. A service with one store has no list of them:
// clients that find one expect each image to name its stores.
func (s *server) storesInfo(*call) error {
	return ims.NotFoundf(ims.CodeUnsupported, "there is one store of images, which nobody chooses")
}

// usageInfo is GET /image/v2/info/usage.
func (s *server) usageInfo(c *call) error {
	used, err := s.Catalog.Quota(c.Context(), c.project())
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"usage": map[string]any{
		"image_count_total": map[string]int{"usage": used, "limit": s.Limits.Images},
	}})
	return nil
}

// glanceStatus is the status that the Image API has for a fault where IMS has another; 0:
// there is none.
func glanceStatus(e *ims.Error) int {
	switch e.Code {
	case ims.CodeImageProtected, ims.CodeShareWithSelf, ims.CodeOwnerOnly:
		return http.StatusForbidden
	case ims.CodeQuota, ims.CodeTagQuota, ims.CodeMemberQuota, ims.CodeFileTooBig:
		return http.StatusRequestEntityTooLarge
	case ims.CodeImageBeingMade, ims.CodeTooManyJobs:
		return http.StatusConflict
	case ims.CodeImageNotActive:
		if e.Kind() == ims.KindInvalid {
			return http.StatusConflict
		}
	}
	return 0
}
