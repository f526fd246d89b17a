package api

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// Limits of a search by tags (API reference, release 20251110).
const (
	maxTagConditions = 10 // keys of a list, and values of a key
	// maxConditionKey and maxConditionValue are in characters.
	maxConditionKey   = 128
	maxConditionValue = 255
	// maxTagPage is the longest page, defaultTagPage that of a request without a limit.
	maxTagPage     = 1000
	defaultTagPage = 10
)

// searchByTags is POST /v2/{project_id}/images/resource_instances/action: a page of the
// project's own images, or how many they are.
func (s *server) searchByTags(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	action := f.required("action", ims.CodeBadFormat)
	filter := ims.ImageFilter{OwnAlone: true}
	readTagConditions(f, &filter)
	readMatches(f, &filter)
	filter.Limit = f.digits("limit", defaultTagPage, 1, maxTagPage)
	filter.Offset = f.digits("offset", 0, 0, math.MaxInt32)
	if err := f.failed(); err != nil {
		return err
	}
	if action != "filter" && action != "count" {
		return ims.Faultf(ims.CodeBadFormat, "action is %q; it must be filter or count", ims.Clip(action))
	}
	total, err := s.Catalog.CountMatching(c.Context(), c.project(), filter)
	if err != nil {
		return err
	}
	if action == "count" {
		writeJSON(c.w, http.StatusOK, wire.TaggedCount{Total: total})
		return nil
	}
	page := wire.TaggedImages{Resources: []wire.TaggedImage{}, Total: total}
	if filter.Offset < total {
		images, err := s.Catalog.Images(c.Context(), c.project(), filter)
		if err != nil {
			return err
		}
		for _, img := range images {
			page.Resources = append(page.Resources, wire.TaggedImage{
				ID: img.ID, Name: img.Name, Detail: wire.TaggedImageDetail{Status: string(img.Status)}, Tags: newTags(img.Tags),
			})
		}
	}
	writeJSON(c.w, http.StatusOK, page)
	return nil
}

// readTagConditions reads the conditions on tags. Beside without_any_tag the others do
// not count.
func readTagConditions(f *fields, filter *ims.ImageFilter) {
	filter.Tags, filter.AnyTags = tagConditions(f, "tags"), tagConditions(f, "tags_any")
	filter.NotAllTags, filter.NotAnyTags = tagConditions(f, "not_tags"), tagConditions(f, "not_tags_any")
	if untagged := f.boolean("without_any_tag"); untagged != nil && *untagged {
		filter.Untagged = true
		filter.Tags, filter.AnyTags, filter.NotAllTags, filter.NotAnyTags = nil, nil, nil, nil
	}
}

// tagConditions reads an array of {key, values}. An empty array of values stands for all.
func tagConditions(f *fields, name string) []ims.TagCondition {
	list := f.objects(name)
	if len(list) > maxTagConditions {
		f.refuse(ims.Faultf(ims.CodeTag, "%s has %d keys; it may have at most %d", name, len(list), maxTagConditions))
		return nil
	}
	var out []ims.TagCondition
	for _, o := range list {
		t := ims.TagCondition{Key: o.required("key", ims.CodeTag), Values: o.texts("values")}
		n := utf8.RuneCountInString(t.Key)
		switch {
		case n == 0 || n > maxConditionKey:
			f.refuse(ims.Faultf(ims.CodeTag, "%skey has %d characters; it must have 1 to %d", o.at, n, maxConditionKey))
		case slices.ContainsFunc(out, func(other ims.TagCondition) bool { return other.Key == t.Key }):
			f.refuse(ims.Faultf(ims.CodeTag, "%skey is %q, which occurs twice in %s", o.at, ims.Clip(t.Key), name))
		case len(t.Values) > maxTagConditions:
			f.refuse(ims.Faultf(ims.CodeTag, "%svalues has %d values; it may have at most %d", o.at, len(t.Values), maxTagConditions))
			return nil
		}
		for i, v := range t.Values {
			if n := utf8.RuneCountInString(v); n > maxConditionValue {
				f.refuse(ims.Faultf(ims.CodeTag, "%svalues[%d] has %d characters; it must have at most %d", o.at, i, n, maxConditionValue))
			}
			if slices.Contains(t.Values[:i], v) {
				f.refuse(ims.Faultf(ims.CodeTag, "%svalues[%d] is %q, which occurs twice", o.at, i, ims.Clip(v)))
			}
		}
		out = append(out, t)
	}
	return out
}

// readMatches reads the conditions on name and id. The value of a name is a part of it;
// an empty one is the whole name.
func readMatches(f *fields, filter *ims.ImageFilter) {
	list := f.objects("matches")
	if f.has("matches") && len(list) == 0 {
		f.refuse(ims.Faultf(ims.CodeBadFormat, "matches must hold at least one condition; leave it out for none"))
	}
	seen := map[string]bool{}
	for _, o := range list {
		key, value := o.required("key", ims.CodeBadFormat), o.required("value", ims.CodeBadFormat)
		if o.failed() != nil {
			return
		}
		if seen[key] {
			f.refuse(ims.Faultf(ims.CodeBadFormat, "%skey is %q, which occurs twice", o.at, ims.Clip(key)))
		}
		seen[key] = true
		if utf8.RuneCountInString(value) > maxConditionValue {
			f.refuse(ims.Faultf(ims.CodeBadFormat, "%svalue must have at most %d characters", o.at, maxConditionValue))
		}
		switch {
		case key == "resource_id":
			filter.IDs = []string{value}
		case key == "resource_name" && value == "":
			filter.Names = []string{value}
		case key == "resource_name":
			filter.NameParts = []string{value}
		default:
			f.refuse(ims.Faultf(ims.CodeBadFormat, "%skey is %q; it must be resource_name or resource_id", o.at, ims.Clip(key)))
		}
	}
}

// digits reads a whole number of a range that is written as a string, or as a number.
func (f *fields) digits(key string, absent, least, most int) int {
	n := int64(absent)
	switch text, isText := f.values[key].(string); {
	case isText && text == "": // some clients send it for none
	case isText:
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			n = int64(least) - 1
		}
	default:
		if v := f.integer(key); v != nil {
			n = *v
		}
	}
	if n < int64(least) || n > int64(most) {
		f.refuse(ims.Faultf(ims.CodeBadFormat, "%s%s must be a number from %d to %d", f.at, key, least, most))
		return absent
	}
	return int(n)
}
