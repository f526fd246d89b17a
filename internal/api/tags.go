package api

import (
	"net/http"

	"github.com/quickims/quickims/internal/ims"
)

type tagWire struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// maxTagsDeleted is how many tags one request may delete. An image has far fewer.
const maxTagsDeleted = 100

// readTags reads an array of {key, value}. Both must be there, but the value of a
// tag that goes away.
func readTags(f *fields, key string, needValue bool) []ims.Tag {
	var out []ims.Tag
	for _, t := range f.objects(key) {
		out = append(out, readTag(t, needValue))
	}
	return out
}

func readTag(f *fields, needValue bool) ims.Tag {
	t := ims.Tag{Key: f.required("key", ims.CodeTag)}
	if needValue {
		t.Value = f.required("value", ims.CodeTag)
	} else {
		t.Value = f.textOr("value", "")
	}
	return t
}

// imageTags is GET /v2/{project_id}/images/{image_id}/tags.
func (s *server) imageTags(c *call) error {
	img, err := s.image(c)
	if err != nil {
		return err
	}
	list := []tagWire{}
	for _, t := range img.Tags {
		list = append(list, tagWire(t))
	}
	writeJSON(c.w, http.StatusOK, struct {
		Tags []tagWire `json:"tags"`
	}{list})
	return nil
}

// addImageTag is POST /v2/{project_id}/images/{image_id}/tags.
func (s *server) addImageTag(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	tag := readTag(f.object("tag", ims.CodeTag), true).Trimmed()
	if err := f.failed(); err != nil {
		return err
	}
	if err := tag.Validate("tag"); err != nil {
		return err
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.SetTags(c.Context(), c.project(), id, []ims.Tag{tag}))
}

// batchImageTags is POST /v2/{project_id}/images/{image_id}/tags/action.
func (s *server) batchImageTags(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	action := f.required("action", ims.CodeBadFormat)
	tags := readTags(f, "tags", action == "create")
	if err := f.failed(); err != nil {
		return err
	}
	if action != "create" && action != "delete" {
		return ims.Faultf(ims.CodeBadFormat, "action is %q, it must be create or delete", ims.Clip(action))
	}
	if len(tags) == 0 {
		return ims.Faultf(ims.CodeTag, "tags must hold at least one tag")
	}
	if len(tags) > maxTagsDeleted {
		return ims.Faultf(ims.CodeTagQuota, "tags: %d tags in one request, at most %d are allowed", len(tags), maxTagsDeleted)
	}
	for i, t := range tags {
		if action == "create" {
			tags[i] = t.Trimmed()
			err = tags[i].Validate(index("tags", i))
		} else {
			err = t.ValidateDelete(index("tags", i))
		}
		if err != nil {
			return err
		}
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	if action == "delete" {
		return s.noContent(c, s.Catalog.DeleteTags(c.Context(), c.project(), id, tags))
	}
	if err := ims.CheckTags(tags, "tags"); err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.SetTags(c.Context(), c.project(), id, tags))
}

// deleteImageTag is DELETE /v2/{project_id}/images/{image_id}/tags/{key}.
func (s *server) deleteImageTag(c *call) error {
	id, err := imageID(c)
	if err != nil {
		return err
	}
	key := c.PathValue("key")
	if err := (ims.Tag{Key: key}).ValidateDelete("the path"); err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.DeleteTag(c.Context(), c.project(), id, key))
}

// projectTags is GET /v2/{project_id}/images/tags.
func (s *server) projectTags(c *call) error {
	tags, err := s.Catalog.ProjectTags(c.Context(), c.project())
	if err != nil {
		return err
	}
	type tagValues struct {
		Key    string   `json:"key"`
		Values []string `json:"values"`
	}
	list := []tagValues{}
	for _, t := range tags {
		list = append(list, tagValues{t.Key, append([]string{}, t.Values...)})
	}
	writeJSON(c.w, http.StatusOK, struct {
		Tags []tagValues `json:"tags"`
	}{list})
	return nil
}
