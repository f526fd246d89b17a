package api

import (
	"math"
	"net/http"
	"slices"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

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
	writeJSON(c.w, http.StatusOK, wire.Tags{Tags: newTags(img.Tags)})
	return nil
}

func newTags(tags []ims.Tag) []wire.Tag {
	list := []wire.Tag{}
	for _, t := range tags {
		list = append(list, wire.Tag(t))
	}
	return list
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
	switch action := f.required("action", ims.CodeBadFormat); {
	case f.failed() != nil:
		return f.failed()
	case action == "create":
		return s.createTags(c, f)
	case action == "delete":
		return s.deleteTags(c, f)
	default:
		return ims.Faultf(ims.CodeBadFormat, "action is %q, it must be create or delete", ims.Clip(action))
	}
}

// deleteImageTags is DELETE /v1/{project_id}/cloudimages/{image_id}/tags/delete.
func (s *server) deleteImageTags(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	return s.deleteTags(c, f)
}

// createTags adds the tags of a body to the image, all or none.
func (s *server) createTags(c *call, f *fields) error {
	tags, err := batchOfTags(f, true)
	if err != nil {
		return err
	}
	for i, t := range tags {
		tags[i] = t.Trimmed()
		if err := tags[i].Validate(index("tags", i)); err != nil {
			return err
		}
	}
	if err := ims.CheckTags(tags, "tags"); err != nil {
		return err
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.SetTags(c.Context(), c.project(), id, tags))
}

// deleteTags removes the tags of a body from the image.
func (s *server) deleteTags(c *call, f *fields) error {
	tags, err := batchOfTags(f, false)
	if err != nil {
		return err
	}
	for i, t := range tags {
		if err := t.ValidateDelete(index("tags", i)); err != nil {
			return err
		}
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	return s.noContent(c, s.Catalog.DeleteTags(c.Context(), c.project(), id, tags))
}

// batchOfTags reads the tags of a body that must have some.
func batchOfTags(f *fields, needValue bool) ([]ims.Tag, error) {
	tags := readTags(f, "tags", needValue)
	switch {
	case f.failed() != nil:
		return nil, f.failed()
	case len(tags) == 0:
		return nil, ims.Faultf(ims.CodeTag, "tags must hold at least one tag")
	case len(tags) > maxTagsDeleted:
		return nil, ims.Faultf(ims.CodeTagQuota, "tags: %d tags in one request, at most %d are allowed", len(tags), maxTagsDeleted)
	}
	return tags, nil
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

// putImageTag is PUT /v2/images/{image_id}/tags/{tag}: a key without a value.
func (s *server) putImageTag(c *call) error {
	tag := c.PathValue("tag")
	if !ims.ValidNativeTag(tag) {
		return ims.Faultf(ims.CodeTag, "the tag in the path is %q; it must be 1 to %d letters, digits, _ and -", ims.Clip(tag), ims.MaxOpenStackTag)
	}
	return s.changeTags(c, func(tags []any) ([]any, error) {
		if slices.Contains(tags, any(tag)) {
			return tags, nil
		}
		if len(tags) >= ims.MaxTags {
			return nil, ims.Faultf(ims.CodeTagQuota, "the image has %d tags; at most %d are allowed", len(tags), ims.MaxTags)
		}
		return append(tags, tag), nil
	})
}

// setTag is PUT /v1/cloudimages/tags. Some clients send the empty form of the two, too.
func (s *server) setTag(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	id := f.required("image_id", ims.CodeBadFormat)
	text := f.textOr("tag", "")
	var object *ims.Tag
	if f.has("image_tag") {
		o := f.object("image_tag", ims.CodeTag)
		key, value := o.text("key"), o.text("value")
		if given := key != nil && *key != "" || value != nil && *value != ""; given {
			t := readTag(o, true).Trimmed()
			object = &t
		}
	}
	if err := f.failed(); err != nil {
		return err
	}
	var tag ims.Tag
	switch {
	case (text == "") == (object == nil):
		return ims.Faultf(ims.CodeTag, "either tag or image_tag is required, and not both")
	case object != nil:
		tag, err = *object, object.Validate("image_tag")
	default:
		tag, err = ims.ParseDotTag(text, "tag")
	}
	if err != nil {
		return err
	}
	if !ims.ValidUUID(id) {
		return unknownImage()
	}
	return s.noContent(c, s.Catalog.SetTags(c.Context(), c.project(), id, []ims.Tag{tag}))
}

// projectTags is GET /v2/{project_id}/images/tags.
func (s *server) projectTags(c *call) error {
	tags, err := s.Catalog.Tags(c.Context(), c.project(), ims.ImageFilter{Owner: c.project()}, 0, 0)
	if err != nil {
		return err
	}
	list := []wire.TagValues{}
	for _, t := range tags {
		if len(list) == 0 || list[len(list)-1].Key != t.Key {
			list = append(list, wire.TagValues{Key: t.Key})
		}
		last := &list[len(list)-1]
		last.Values = append(last.Values, t.Value)
	}
	writeJSON(c.w, http.StatusOK, wire.ProjectTags{Tags: list})
	return nil
}

// listTags is GET /v1/cloudimages/tags: of the project's own images, unless a filter asks
// for others. limit and page are of tags, the filters of images.
func (s *server) listTags(c *call) error {
	q := readQuery(c.Request)
	limit, page := q.number("limit", 0, 1, math.MaxInt32), q.number("page", 1, 1, math.MaxInt32)
	q.values.Del("limit")
	if q.values.Has("__protected") { // one client spells it so
		q.values["protected"] = append(q.values["protected"], q.values["__protected"]...)
		q.values.Del("__protected")
	}
	filter, err := readImageFilter(q, ims.DefaultListLimit)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc([]string{"owner", "visibility", "__imagetype", "member_status", "id"}, q.values.Has) {
		filter.Owner = c.project()
	}
	texts := []string{}
	if limit > 0 || page == 1 {
		tags, err := s.Catalog.Tags(c.Context(), c.project(), filter, (page-1)*limit, limit)
		if err != nil {
			return err
		}
		for _, t := range tags {
			texts = append(texts, t.String())
		}
	}
	writeJSON(c.w, http.StatusOK, wire.TagTexts{Tags: texts})
	return nil
}
