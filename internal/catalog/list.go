package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// sortColumns say which column each of ims.SortKeys orders by; the id settles ties.
var sortColumns = map[string]string{
	"":                 "created_at",
	"created_at":       "created_at",
	"updated_at":       "updated_at",
	"name":             "name",
	"container_format": "id", // it is "bare" for all
	"disk_format":      formatColumn,
	"status":           "status",
	"id":               "id",
	"size":             "file_size",
}

// formatColumn is the format as clients read it: of an image that is not active yet
// nothing is told.
const formatColumn = "CASE WHEN status = 'active' THEN data_format ELSE '' END"

// maxFilterValues bounds the values of one filter.
const maxFilterValues = 1000

// where collects the conditions of a query and their arguments.
type where struct {
	text strings.Builder
	args []any
	none bool // nothing can match
}

// add appends a condition; each ? in it stands for the next argument.
func (w *where) add(condition string, args ...any) {
	for _, arg := range args {
		w.args = append(w.args, arg)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	if w.text.Len() > 0 {
		w.text.WriteString(" AND ")
	}
	w.text.WriteString(condition)
}

// oneOf asks for a column to be one of the values. No value is no condition.
func (w *where) oneOf(column string, values []string) error {
	if len(values) == 0 {
		return nil
	}
	if len(values) > maxFilterValues {
		return ims.Faultf(ims.CodeBadFormat, "%d values in one filter, at most %d are allowed", len(values), maxFilterValues)
	}
	values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return !database.Storable(s) })
	w.none = w.none || len(values) == 0
	first := len(w.args) + 1
	for _, v := range values {
		w.args = append(w.args, v)
	}
	w.add(column + " IN " + placeholders(first, len(values)))
	return nil
}

// equal asks for a column to have the value. No value is no condition.
func (w *where) equal(column, value string) {
	if value == "" {
		return
	}
	w.none = w.none || !database.Storable(value)
	w.add(column+" = ?", value)
}

// when asks for a column of milliseconds to be a time that the filter matches.
func (w *where) when(column string, f ims.TimeFilter) {
	var bounds []string
	var args []any
	if !f.From.IsZero() {
		bounds, args = append(bounds, column+" >= ?"), append(args, f.From.UnixMilli())
	}
	if !f.Before.IsZero() {
		bounds, args = append(bounds, column+" < ?"), append(args, f.Before.UnixMilli())
	}
	if len(bounds) == 0 {
		w.none = w.none || f.Except
		return
	}
	condition := "(" + strings.Join(bounds, " AND ") + ")"
	if f.Except {
		condition = "NOT " + condition
	}
	w.add(condition, args...)
}

// attribute asks for an attribute to be set to the value. The column holds a JSON
// object of strings as encoding/json writes it: a pair written the same way occurs in
// it as a member or not at all, because inside a string every quote has a backslash
// before it. replace is the search for a text that SQLite and PostgreSQL share.
func (w *where) attribute(name, value string) error {
	w.none = w.none || !database.Storable(name) || !database.Storable(value)
	pair, err := json.Marshal(map[string]string{name: value})
	if err != nil {
		return fmt.Errorf("filter by the attribute %s: %w", name, err)
	}
	w.add("replace(attributes, ?, '') <> attributes", string(pair[1:len(pair)-1]))
	return nil
}

// Images lists a project's images, and those that are shared with it. The order is that of the sort key, then of the id,
// both in the direction asked for, so that it is the same at every call. MarkerID
// continues behind that image, which may have been deleted since; behind one that the
// project never had, and that is not shared with it, there is nothing. Filter values are compared byte by byte.
func (c *Catalog) Images(ctx context.Context, projectID string, f ims.ImageFilter) ([]ims.Image, error) {
	column, ok := sortColumns[f.SortKey]
	if !ok {
		return nil, ims.Faultf(ims.CodeBadFormat, "sort_key is %q, it must be one of %s", f.SortKey, strings.Join(ims.SortKeys, ", "))
	}
	w, err := c.matching(ctx, projectID, f)
	if err != nil {
		return nil, err
	}
	if f.MarkerID != "" {
		if err := c.behindMarker(ctx, w, column, projectID, f); err != nil {
			return nil, err
		}
	}
	if w.none {
		return nil, nil
	}
	limit := min(f.Limit, ims.MaxListLimit)
	if limit < 1 {
		limit = ims.DefaultListLimit
	}
	dir := "DESC"
	if f.SortAsc {
		dir = "ASC"
	}
	w.args = append(w.args, limit)
	page := fmt.Sprintf("WHERE %s ORDER BY %s %s, id %s LIMIT $%d", w.text.String(), column, dir, dir, len(w.args))
	order := fmt.Sprintf("%s %s, id %s", column, dir, dir) // image_tags has no such columns
	list, err := selectImages(ctx, c.db, page, order, w.args)
	if err != nil {
		return nil, fmt.Errorf("list the images of project %s: %w", projectID, err)
	}
	return list, nil
}

func (c *Catalog) matching(ctx context.Context, projectID string, f ims.ImageFilter) (*where, error) {
	w := &where{none: f.None}
	if err := c.within(ctx, w, projectID, f); err != nil {
		return nil, err
	}
	w.add("deleted_at IS NULL")
	status := []string{string(ims.ImageQueued), string(ims.ImageSaving), string(ims.ImageActive)}
	if len(f.Status) > 0 {
		status = status[:0]
		for _, s := range f.Status {
			status = append(status, string(s))
		}
	}
	err := errors.Join(w.oneOf("status", status), w.oneOf("id", f.IDs), w.oneOf("name", f.Names), w.oneOf("platform", f.Platforms))
	if err != nil {
		return nil, err
	}
	w.equal("env", string(f.Env))
	if f.EnterpriseProjectID != ims.AllEnterpriseProjects {
		w.equal("enterprise_project_id", f.EnterpriseProjectID)
	}
	w.equal("os_type", f.OSType)
	w.equal("os_bit", f.OSBit)
	w.equal("os_version", f.OSVersion)
	w.equal("architecture", f.Architecture)
	w.equal("firmware", f.Firmware)
	w.equal(formatColumn, f.DiskFormat)
	if f.Protected != nil {
		w.add("protected = ?", *f.Protected)
	}
	if f.MinDiskGiB != nil {
		w.add("min_disk_gib = ?", *f.MinDiskGiB)
	}
	if f.MinRAMMiB != nil {
		w.add("min_ram_mib = ?", *f.MinRAMMiB)
	}
	w.when("created_at", f.Created)
	w.when("updated_at", f.Updated)
	if len(f.Attributes) > maxFilterValues {
		return nil, ims.Faultf(ims.CodeBadFormat, "%d attributes in one filter, at most %d are allowed", len(f.Attributes), maxFilterValues)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if err := w.attribute(name, f.Attributes[name]); err != nil {
			return nil, err
		}
	}
	if len(f.Tags) > maxFilterValues {
		return nil, ims.Faultf(ims.CodeBadFormat, "%d tags in one filter, at most %d are allowed", len(f.Tags), maxFilterValues)
	}
	for _, t := range f.Tags {
		w.none = w.none || !database.Storable(t.Key) || !database.Storable(t.Value)
		if t.HasValue {
			w.add("EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id AND t.tag_key = ? AND t.tag_value = ?)", t.Key, t.Value)
		} else {
			w.add("EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id AND t.tag_key = ?)", t.Key)
		}
	}
	return w, nil
}

// behindMarker restricts a list to what comes after the marker in the order.
func (c *Catalog) behindMarker(ctx context.Context, w *where, column, projectID string, f ims.ImageFilter) error {
	if !ims.ValidUUID(f.MarkerID) {
		return ims.Faultf(ims.CodeBadFormat, "marker must be the id of the last image of the page before")
	}
	var at any
	err := c.db.QueryRowContext(ctx, "SELECT "+column+` FROM images WHERE id = $2 AND (project_id = $1
		OR EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = images.id AND m.member_id = $1))`, projectID, f.MarkerID).Scan(&at)
	if err := orNotFound(err); errors.Is(err, ErrNotFound) {
		w.none = true
		return nil
	} else if err != nil {
		return fmt.Errorf("look up the marker %s: %w", f.MarkerID, err)
	}
	than := "<"
	if f.SortAsc {
		than = ">"
	}
	w.add(fmt.Sprintf("(%s, id) %s (?, ?)", column, than), at, f.MarkerID)
	return nil
}
