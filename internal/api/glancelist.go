package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

const (
	// defaultPage is how many images a request gets that names no limit.
	defaultPage = 25
	// maxListFilters bounds the tags and properties of one list.
	maxListFilters = 50
)

// pageOfImages is GET /v2/images, of both faces. Its pages are the OpenStack Image API's,
// its filters each face's own.
func (s *server) pageOfImages(c *call) error {
	q := readQuery(c.Request)
	var f ims.ImageFilter
	var err error
	if c.face == faceGlance {
		f, err = readGlanceFilter(q)
	} else {
		f, err = readImageFilter(q, defaultPage)
	}
	if err != nil {
		return err
	}
	images := []any{}
	next := ""
	if f.Limit > 0 && !f.None {
		if f.MarkerID != "" {
			if _, _, err := s.Catalog.VisibleImage(c.Context(), c.project(), f.MarkerID); err != nil {
				return imageFault(err)
			}
		}
		found, err := s.Catalog.Images(c.Context(), c.project(), f)
		if err != nil {
			return err
		}
		for _, img := range found {
			images = append(images, c.imageBody(img))
		}
		if len(found) == f.Limit {
			next = found[len(found)-1].ID
		}
	}
	body := struct {
		Images []any  `json:"images"`
		Schema string `json:"schema"`
		First  string `json:"first"`
		Next   string `json:"next,omitempty"`
	}{images, "/v2/schemas/images", pageLink("/v2/images", c.URL.Query(), ""), ""}
	if next != "" {
		body.Next = pageLink("/v2/images", c.URL.Query(), next)
	}
	writeJSON(c.w, http.StatusOK, body)
	return nil
}

// pageLink is the path of a page of the same list. Clients put the address from the
// catalogue before it, so it has no prefix.
func pageLink(path string, query url.Values, marker string) string {
	query.Del("marker")
	if marker != "" {
		query.Set("marker", marker)
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// readGlanceFilter reads the query of a list. What is no parameter of the list and no key
// of an image is a property.
func readGlanceFilter(q *query) (ims.ImageFilter, error) {
	f := ims.ImageFilter{Hidden: new(false)}
	readGlancePage(q, &f)
	readGlanceSharing(q, &f)
	f.IDs, f.Names = q.among("id"), q.among("name")
	f.DiskFormats, f.ContainerFormats = q.among("disk_format"), q.among("container_format")
	for _, status := range q.among("status") {
		f.Status = append(f.Status, ims.ImageStatus(status))
	}
	f.BareTags = q.repeated("tag")
	if hidden := q.truth("os_hidden"); hidden != nil {
		f.Hidden = hidden
	}
	f.Protected = q.truth("protected")
	f.MinDiskGiB, f.MinRAMMiB = q.whole("min_disk"), q.whole("min_ram")
	f.SizeMin, f.SizeMax = q.bytes("size_min"), q.bytes("size_max")
	if size := q.bytes("size"); size != nil {
		f.VirtualSizes = append(f.VirtualSizes, *size)
	}
	if size := q.bytes("virtual_size"); size != nil {
		f.VirtualSizes = append(f.VirtualSizes, *size)
	}
	f.Created, f.Updated = readGlanceTime(q, "created_at"), readGlanceTime(q, "updated_at")
	if sum := q.one("checksum"); sum != "" {
		f.MD5s = []string{sum}
	}
	if sum := q.one("os_hash_value"); sum != "" {
		f.SHA512s = []string{sum}
	}
	if algorithm := q.one("os_hash_algo"); algorithm != "" && algorithm != hashAlgorithm {
		f.None = true
	}
	for _, name := range q.rest() {
		if slices.Contains(declaredKeys, name) {
			q.refuse("a list can not be filtered by %s", name)
		}
		if f.Properties == nil {
			f.Properties = map[string]string{}
		}
		f.Properties[name] = q.one(name)
	}
	if n := max(len(f.BareTags), len(f.Properties)); n > maxListFilters {
		q.refuse("%d tags or properties in one list, at most %d are allowed", n, maxListFilters)
	}
	return f, q.fault
}

// readGlancePage reads which page is asked for, and in which order.
func readGlancePage(q *query, f *ims.ImageFilter) {
	f.Limit = defaultPage
	if text := q.one("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			q.refuse("limit is %q; it must be a number from 0 up", ims.Clip(text))
		}
		f.Limit = min(n, ims.MaxListLimit)
	}
	if f.MarkerID = q.one("marker"); f.MarkerID != "" && !ims.ValidUUID(f.MarkerID) {
		q.refuse("marker is %q; it must be the id of an image", ims.Clip(f.MarkerID))
	}
	text, keys, dirs := q.one("sort"), q.repeated("sort_key"), q.repeated("sort_dir")
	if text != "" && len(keys)+len(dirs) > 0 {
		q.refuse("sort and sort_key or sort_dir exclude each other")
		return
	}
	if text != "" {
		for part := range strings.SplitSeq(text, ",") {
			key, dir, given := strings.Cut(strings.TrimSpace(part), ":")
			if !given {
				dir = "desc"
			}
			keys, dirs = append(keys, key), append(dirs, dir)
		}
	}
	if len(keys) == 0 {
		keys = []string{"created_at"}
	}
	if len(dirs) > 1 && len(dirs) != len(keys) {
		q.refuse("%d sort_dir for %d sort_key; there must be one for all, or one for each", len(dirs), len(keys))
		return
	}
	for i, key := range keys {
		dir := "desc"
		if len(dirs) == 1 {
			dir = dirs[0]
		} else if i < len(dirs) {
			dir = dirs[i]
		}
		if !slices.Contains(ims.SortKeys, key) {
			q.refuse("sort key %q; it must be one of %s", ims.Clip(key), strings.Join(ims.SortKeys, ", "))
		}
		if dir != "asc" && dir != "desc" {
			q.refuse("sort direction %q; it must be asc or desc", ims.Clip(dir))
		}
		switch key {
		case "size":
			key = ims.SortDeliveredSize
		case "disk_format":
			key = ims.SortDeliveredFormat
		}
		f.Sort = append(f.Sort, ims.SortOrder{Key: key, Asc: dir == "asc"})
	}
}

// readGlanceSharing reads the filters by whose an image is and who sees it.
func readGlanceSharing(q *query, f *ims.ImageFilter) {
	f.Owner = q.one("owner")
	switch v := q.choice("visibility", "public", "private", "shared", "community", "all"); v {
	case "all":
	default:
		f.Visibility = ims.Visibility(v)
	}
	status := q.choice("member_status", "accepted", "rejected", "pending", "all")
	if f.Visibility != "" && f.Visibility != ims.VisibilityShared {
		return // member_status is about shared ones alone
	}
	switch status {
	case "":
	case "all":
		f.MemberStatus = ims.MemberStatuses
	default:
		f.MemberStatus = []ims.MemberStatus{ims.MemberStatus(status)}
	}
}

// readGlanceTime reads gt:TIME and its like; a time alone stands for itself.
func readGlanceTime(q *query, name string) ims.TimeFilter {
	text := q.one(name)
	if text == "" {
		return ims.TimeFilter{}
	}
	if text[0] >= '0' && text[0] <= '9' {
		text = "eq:" + text
	}
	op, at, _ := strings.Cut(text, ":")
	if t, err := time.Parse(time.RFC3339, at); err == nil {
		at = seconds(t)
	}
	f, err := ims.ParseTimeFilter(op+":"+at, name)
	if err != nil && q.fault == nil {
		q.fault = err
	}
	return f
}

// among reads a parameter that has one value, or as in:a,b one of several. Those may
// stand in quotes.
func (q *query) among(name string) []string {
	text := q.one(name)
	values, several := strings.CutPrefix(text, "in:")
	switch {
	case text == "":
		return nil
	case !several:
		return []string{text}
	}
	var out []string
	for values != "" {
		var v string
		if rest, quoted := strings.CutPrefix(values, `"`); quoted {
			var closed bool
			if v, values, closed = strings.Cut(rest, `"`); !closed {
				q.refuse("%s has a quote that does not end", name)
				return nil
			}
			if values != "" && values[0] != ',' {
				q.refuse("%s needs a comma behind a quoted value", name)
				return nil
			}
			values = strings.TrimPrefix(values, ",")
		} else {
			v, values, _ = strings.Cut(values, ",")
		}
		out = append(out, v)
	}
	return out
}

// repeated reads a parameter that may be repeated.
func (q *query) repeated(name string) []string {
	q.asked[name] = true
	for _, v := range q.values[name] {
		if !plainText(v) {
			q.refuse("%s holds characters that are not text", name)
			return nil
		}
	}
	return slices.DeleteFunc(slices.Clone(q.values[name]), func(s string) bool { return s == "" })
}

// truth reads a boolean as Python's clients write it; nil when it is absent.
func (q *query) truth(name string) *bool {
	switch v := strings.ToLower(q.one(name)); v {
	case "":
		return nil
	case "true", "1", "yes", "on", "t":
		return new(true)
	case "false", "0", "no", "off", "f":
		return new(false)
	default:
		q.refuse("%s is %q; it must be true or false", name, ims.Clip(v))
		return nil
	}
}

// bytes reads a size; nil when it is absent.
func (q *query) bytes(name string) *int64 {
	text := q.one(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		q.refuse("%s is %q; it must be a number of bytes", name, ims.Clip(text))
		return nil
	}
	return &n
}
