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

// sortColumns say which column each key of ims.SortOrder orders by.
var sortColumns = map[string]string{
	"created_at":       "created_at",
	"updated_at":       "updated_at",
	"name":             "name",
	"container_format": "container_format",
	"disk_format":      formatColumn,
	"status":           statusColumn,
	"id":               "id",
	"size":             "file_size",

	ims.SortDeliveredFormat: "disk_format",
	ims.SortDeliveredSize:   sizeColumn,
}

// formatColumn is the format as clients of IMS read it: of the stored data, or what an
// image without a source was announced as.
const formatColumn = "CASE WHEN status = 'active' THEN data_format WHEN status = 'queued' AND source_url = '' THEN disk_format ELSE '' END"

// sizeColumn is the size of a download, 0 while there is none.
const sizeColumn = "CASE WHEN status = 'active' THEN data_virtual_size ELSE 0 END"

// statusColumn is the status as clients see it.
const statusColumn = "CASE WHEN phase <> '' THEN phase ELSE status END"

// maxSortKeys bounds the keys of an order.
const maxSortKeys = 8

// maxFilterValues bounds the values of one filter.
const maxFilterValues = 1000

// where collects the conditions of a query and their arguments.
type where struct {
	text strings.Builder
	args []any
	none bool // nothing can match
}

// bind gives a condition in which each ? stands for the next argument.
func (w *where) bind(condition string, args ...any) string {
	for _, arg := range args {
		w.args = append(w.args, arg)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	return condition
}

// add appends a condition; each ? in it stands for the next argument.
func (w *where) add(condition string, args ...any) {
	condition = w.bind(condition, args...)
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

// member asks for a column, attributes or properties, to have a member with the value.
// The column holds a JSON object of strings as encoding/json writes it: a pair written
// the same way occurs in it as a member or not at all, because inside a string every
// quote has a backslash before it. replace is the search for a text that SQLite and
// PostgreSQL share.
func (w *where) member(column, name, value string) error {
	w.none = w.none || !database.Storable(name) || !database.Storable(value)
	pair, err := json.Marshal(map[string]string{name: value})
	if err != nil {
		return fmt.Errorf("filter by %s: %w", name, err)
	}
	w.add("replace("+column+", ?, '') <> "+column, string(pair[1:len(pair)-1]))
	return nil
}

// tagged asks for what the filter says of the tags.
func (w *where) tagged(f ims.ImageFilter) error {
	n := 0
	for _, list := range [][]ims.TagCondition{f.Tags, f.AnyTags, f.NotAllTags, f.NotAnyTags} {
		for _, t := range list {
			n += 1 + len(t.Values)
		}
	}
	if n > maxFilterValues {
		return ims.Faultf(ims.CodeTag, "%d keys and values of tags in one filter, at most %d are allowed", n, maxFilterValues)
	}
	if f.Untagged {
		w.add("NOT EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id)")
	}
	for _, c := range []struct {
		tags    []ims.TagCondition
		between string
		not     bool
	}{
		{tags: f.Tags, between: " AND "}, {tags: f.AnyTags, between: " OR "},
		{tags: f.NotAllTags, between: " AND ", not: true}, {tags: f.NotAnyTags, between: " OR ", not: true},
	} {
		if len(c.tags) == 0 {
			continue
		}
		var terms []string
		var args []any
		for _, t := range c.tags {
			term, values := tagCondition(t)
			terms, args = append(terms, term), append(args, values...)
		}
		text := "(" + strings.Join(terms, c.between) + ")"
		if c.not {
			text = "NOT " + text
		}
		w.add(text, args...)
	}
	return nil
}

// tagCondition is a condition on an image's tags, with its arguments.
func tagCondition(t ims.TagCondition) (string, []any) {
	values := slices.DeleteFunc(slices.Clone(t.Values), func(s string) bool { return !database.Storable(s) })
	if !database.Storable(t.Key) || len(values) == 0 && len(t.Values) > 0 {
		return "1 = 0", nil // no image carries such a tag
	}
	text, args := "EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id AND t.tag_key = ?", []any{t.Key}
	if len(values) > 0 {
		text, args = text+" AND t.tag_value IN "+marks(len(values)), append(args, anys(values)...)
	}
	return text + ")", args
}

// CountMatching counts what Images lists, whatever its order and page.
func (c *Catalog) CountMatching(ctx context.Context, projectID string, f ims.ImageFilter) (int, error) {
	w, parts, err := matching(projectID, f)
	if err != nil || w.none || len(parts) == 0 {
		return 0, err
	}
	n, err := count(ctx, c.db, "SELECT COUNT(*) FROM images WHERE "+w.all(parts), w.args...)
	return n, wrap(err, "count the images of project "+projectID)
}

// all is the condition on an image that is in any of the parts.
func (w *where) all(parts []string) string {
	return "(" + strings.Join(parts, " OR ") + ") AND " + w.text.String()
}

// Images lists a project's images, those that are shared with it, and public ones. The
// order is that of the sort key, then of the id, both in the direction asked for, so that
// it is the same at every call. MarkerID continues behind that image, which may have been
// deleted since; behind one that the project never had, and that it does not see, there is
// nothing. Filter values are compared byte by byte.
func (c *Catalog) Images(ctx context.Context, projectID string, f ims.ImageFilter) ([]ims.Image, error) {
	order, err := orderOf(f.Sort)
	if err != nil {
		return nil, err
	}
	w, parts, err := matching(projectID, f)
	if err != nil {
		return nil, err
	}
	if f.MarkerID != "" {
		if err := c.behindMarker(ctx, w, order, projectID, f); err != nil {
			return nil, err
		}
	}
	if w.none || len(parts) == 0 {
		return nil, nil
	}
	limit := min(f.Limit, ims.MaxListLimit)
	if limit < 1 {
		limit = ims.DefaultListLimit
	}
	var terms []string
	for _, k := range order {
		terms = append(terms, k.column+" "+k.dir())
	}
	by := strings.Join(terms, ", ") // image_tags has no such columns
	offset := max(0, f.Offset)
	page := "WHERE " + parts[0] + " AND " + w.text.String()
	if len(parts) > 1 {
		// Each part is read in the list's order by itself, as far as the page may reach.
		reach := w.bind(" ORDER BY "+by+" LIMIT ?", limit+offset)
		for i, part := range parts {
			parts[i] = fmt.Sprintf("SELECT id FROM (SELECT id FROM images WHERE %s AND %s%s) AS part%d", part, w.text.String(), reach, i)
		}
		page = "WHERE id IN (" + strings.Join(parts, " UNION ALL ") + ")"
	}
	page += w.bind(" ORDER BY "+by+" LIMIT ? OFFSET ?", limit, offset)
	list, err := selectImages(ctx, c.db, page, by, w.args)
	if err != nil {
		return nil, fmt.Errorf("list the images of project %s: %w", projectID, err)
	}
	return list, nil
}

// orderKey is a column that a list is ordered by.
type orderKey struct {
	column string
	asc    bool
}

func (k orderKey) dir() string {
	if k.asc {
		return "ASC"
	}
	return "DESC"
}

// orderOf gives the columns of an order. The id is the last: it settles ties.
func orderOf(keys []ims.SortOrder) ([]orderKey, error) {
	if len(keys) > maxSortKeys {
		return nil, ims.Faultf(ims.CodeBadFormat, "%d sort keys, at most %d are allowed", len(keys), maxSortKeys)
	}
	if len(keys) == 0 {
		keys = []ims.SortOrder{{Key: "created_at"}}
	}
	var out []orderKey
	for _, k := range keys {
		column, ok := sortColumns[k.Key]
		if !ok {
			return nil, ims.Faultf(ims.CodeBadFormat, "sort_key is %q, it must be one of %s", k.Key, strings.Join(ims.SortKeys, ", "))
		}
		out = append(out, orderKey{column, k.Asc})
	}
	return append(out, orderKey{"id", keys[len(keys)-1].Asc}), nil
}

// matching gives what all images of a list must meet, and the parts of which an image
// must meet one.
func matching(projectID string, f ims.ImageFilter) (w *where, parts []string, err error) {
	w = &where{none: f.None}
	if parts, err = w.within(projectID, f); err != nil {
		return nil, nil, err
	}
	w.add("deleted_at IS NULL")
	w.equal("project_id", f.Owner)
	var status []string
	for _, s := range f.Status {
		status = append(status, string(s))
	}
	if len(status) == 0 {
		w.add("status <> 'killed'")
	}
	err = errors.Join(w.oneOf(statusColumn, status), w.oneOf("id", f.IDs), w.oneOf("name", f.Names), w.oneOf("platform", f.Platforms),
		w.oneOf("disk_format", f.DiskFormats), w.oneOf("container_format", f.ContainerFormats), w.oneOf("md5", f.MD5s), w.oneOf("sha512", f.SHA512s))
	if err != nil {
		return nil, nil, err
	}
	w.equal("env", string(f.Env))
	w.equal("os_type", f.OSType)
	w.equal("os_bit", f.OSBit)
	w.equal("os_version", f.OSVersion)
	w.equal("architecture", f.Architecture)
	w.equal("firmware", f.Firmware)
	w.equal(formatColumn, f.DiskFormat)
	switch {
	case f.Protected == nil:
	case f.PublicProtected:
		w.add("(protected OR visibility = 'public' AND project_id <> ?) = ?", projectID, *f.Protected)
	default:
		w.add("protected = ?", *f.Protected)
	}
	if f.MinDiskGiB != nil {
		w.add("min_disk_gib = ?", *f.MinDiskGiB)
	}
	if f.MinRAMMiB != nil {
		w.add("min_ram_mib = ?", *f.MinRAMMiB)
	}
	if f.MinRAMAtMost != nil {
		w.add("min_ram_mib <= ?", *f.MinRAMAtMost)
	}
	if f.Hidden != nil {
		w.add("hidden = ?", *f.Hidden)
	}
	if f.SizeMin != nil {
		w.add(sizeColumn+" >= ?", *f.SizeMin)
	}
	if f.SizeMax != nil {
		w.add(sizeColumn+" <= ?", *f.SizeMax)
	}
	for _, size := range f.VirtualSizes {
		w.add("status = 'active' AND data_virtual_size = ?", size)
	}
	for _, part := range f.NameParts {
		w.none = w.none || !database.Storable(part)
		w.add("replace(name, ?, '') <> name", part)
	}
	w.when("created_at", f.Created)
	w.when("updated_at", f.Updated)
	if n := max(len(f.Attributes), len(f.Properties), len(f.BareTags), len(f.NameParts), len(f.Unset)); n > maxFilterValues {
		return nil, nil, ims.Faultf(ims.CodeBadFormat, "%d attributes or tags in one filter, at most %d are allowed", n, maxFilterValues)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if err := w.member("attributes", name, f.Attributes[name]); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range f.Unset {
		// A name stands before a colon as a key alone; see member.
		w.add("replace(attributes, ?, '') = attributes", `"`+name+`":`)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Properties)) {
		if err := w.member("properties", name, f.Properties[name]); err != nil {
			return nil, nil, err
		}
	}
	for _, text := range f.BareTags {
		w.none = w.none || !database.Storable(text)
		w.add(`EXISTS (SELECT 1 FROM image_tags t WHERE t.image_id = images.id
			AND CASE WHEN t.tag_value = '' THEN t.tag_key ELSE t.tag_key || '=' || t.tag_value END = ?)`, text)
	}
	if err := w.tagged(f); err != nil {
		return nil, nil, err
	}
	return w, parts, nil
}

// behindMarker restricts a list to what comes after the marker in the order.
func (c *Catalog) behindMarker(ctx context.Context, w *where, order []orderKey, projectID string, f ims.ImageFilter) error {
	if !ims.ValidUUID(f.MarkerID) {
		return ims.Faultf(ims.CodeBadFormat, "marker must be the id of the last image of the page before")
	}
	at, into, columns := make([]any, len(order)), make([]any, len(order)), make([]string, len(order))
	for i, k := range order {
		into[i], columns[i] = &at[i], k.column
	}
	err := c.db.QueryRowContext(ctx, "SELECT "+strings.Join(columns, ", ")+` FROM images WHERE id = $2 AND (project_id = $1 OR visibility = 'public'
		OR EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = images.id AND m.member_id = $1))`, projectID, f.MarkerID).Scan(into...)
	if err := orNotFound(err); errors.Is(err, ErrNotFound) {
		w.none = true
		return nil
	} else if err != nil {
		return fmt.Errorf("look up the marker %s: %w", f.MarkerID, err)
	}
	// Behind it by the first key, or equal in that and behind it by the next, and so on.
	var ways []string
	var args []any
	for i, k := range order {
		var way []string
		for j := range i {
			way, args = append(way, order[j].column+" = ?"), append(args, at[j])
		}
		than := " < ?"
		if k.asc {
			than = " > ?"
		}
		way, args = append(way, k.column+than), append(args, at[i])
		ways = append(ways, strings.Join(way, " AND "))
	}
	w.add("("+strings.Join(ways, " OR ")+")", args...)
	return nil
}
