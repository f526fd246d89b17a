package api

import (
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// isoImage is the virtual_env_type of images that a quick import does not make.
const isoImage = "IsoImage"

// readImageFilter reads the query of a list of a project's images. A filter that the
// list can't be narrowed by is refused: who sends it would take every image for one
// that it lets through. limit is the length of a page that names none.
func readImageFilter(q *query, limit int) (ims.ImageFilter, error) {
	f := ims.ImageFilter{
		Limit:    q.number("limit", limit, 1, ims.MaxListLimit),
		MarkerID: q.one("marker"),
	}
	order := ims.SortOrder{Key: q.choice("sort_key", ims.SortKeys...), Asc: q.choice("sort_dir", "asc", "desc") == "asc"}
	if order.Key == "" {
		order.Key = "created_at"
	}
	f.Sort = []ims.SortOrder{order}
	if f.MarkerID != "" && !ims.ValidUUID(f.MarkerID) {
		q.refuse("marker is %q, it must be the id of an image", ims.Clip(f.MarkerID))
	}
	if id := q.one("id"); id != "" {
		f.IDs = []string{id}
		f.None = f.None || !ims.ValidUUID(id)
	}
	if name := q.one("name"); name != "" {
		f.Names = []string{name}
	}
	readStatus(q, &f)
	readSharing(q, &f)
	readConstants(q, &f)
	readMachine(q, &f)
	readSupport(q, &f)
	f.Protected, f.PublicProtected = q.boolean("protected"), true
	f.MinDiskGiB = q.whole("min_disk")
	f.MinRAMMiB = q.whole("min_ram")
	f.Created = readTime(q, "created_at")
	f.Updated = readTime(q, "updated_at")
	f.Env = ims.EnvType(q.choice("virtual_env_type", string(ims.EnvECS), string(ims.EnvBMS), string(ims.EnvData), isoImage))
	f.None = f.None || f.Env == isoImage
	readFlavor(q, &f)
	if f.SizeMin, f.SizeMax = q.bytes("size_min"), q.bytes("size_max"); f.SizeMax != nil && *f.SizeMax == 0 {
		f.SizeMax = nil // some clients send the zero value with every list
	}
	for _, text := range q.all("tag") {
		t := ims.ParseTagFilter(text)
		if t.Key == "" {
			q.refuse("tag is %q, it must be key=value or a key", ims.Clip(text))
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
	refuseOthers(q)
	return f, q.fault
}

// readStatus reads the two filters by an image's state: it is registered when it is
// active.
func readStatus(q *query, f *ims.ImageFilter) {
	status := ims.ImageStatus(q.choice("status", string(ims.ImageQueued), string(ims.ImageSaving), string(ims.ImageActive),
		string(ims.ImageKilled), string(ims.ImageDeleted)))
	if status != "" {
		f.Status = []ims.ImageStatus{status}
		f.None = f.None || status == ims.ImageDeleted
	}
	switch registered := q.boolean("__isregistered"); {
	case registered == nil:
	case status != "":
		f.None = f.None || *registered != (status == ims.ImageActive)
	case *registered:
		f.Status = []ims.ImageStatus{ims.ImageActive}
	default:
		f.Status = []ims.ImageStatus{ims.ImageQueued, ims.ImageSaving}
	}
}

// readSharing reads the filters by whose an image is and who sees it. No image here is
// sold.
func readSharing(q *query, f *ims.ImageFilter) {
	f.Owner = q.one("owner")
	f.Visibility = ims.Visibility(q.choice("visibility", "private", "public", "shared"))
	switch q.choice("__imagetype", "private", "gold", "shared", "market") {
	case "private":
		f.OwnAlone = true
	case "shared":
		f.SharedAlone = true
	case "gold":
		f.None = f.None || f.Visibility != "" && f.Visibility != ims.VisibilityPublic
		f.Visibility = ims.VisibilityPublic
	case "market":
		f.None = true
	}
	switch status := q.choice("member_status", "accepted", "rejected", "pending", "all"); status {
	case "":
	case "all":
		f.ForeignAlone, f.MemberStatus = true, ims.MemberStatuses
	default:
		f.ForeignAlone, f.MemberStatus = true, []ims.MemberStatus{ims.MemberStatus(status)}
	}
}

// readConstants reads the filters by what is the same for all of a project's images:
// each matches all of them or none.
func readConstants(q *query, f *ims.ImageFilter) {
	for _, c := range []struct {
		name, value string
		of          []string // the values that the filter takes; none: any text
	}{
		{name: "__whole_image", value: "false", of: []string{"true", "false"}},
		{name: "__system__cmkid"}, // nothing is encrypted
		{name: "container_format", value: "bare"},
	} {
		var v string
		if c.of == nil {
			v = q.one(c.name)
		} else {
			v = q.choice(c.name, c.of...)
		}
		f.None = f.None || v != "" && v != c.value
	}
}

// readMachine reads the filters by the system on the disk and the machine it is for.
func readMachine(q *query, f *ims.ImageFilter) {
	f.OSType, f.OSBit, f.OSVersion = q.one("__os_type"), q.one("__os_bit"), q.one("__os_version")
	switch p := q.one("__platform"); p {
	case "":
	case "RedHat": // so the reference spells it for this filter, and "Red Hat" in its list of systems
		f.Platforms = []string{p, "Red Hat"}
	default:
		f.Platforms = []string{p}
	}
	f.Architecture = q.choice("architecture", ims.ArchX86, ims.ArchARM)
	f.Firmware = q.choice("hw_firmware_type", ims.FirmwareBIOS, ims.FirmwareUEFI)
	f.DiskFormat = q.one("disk_format")
	switch q.one(supportPrefix + "kvm") {
	case "":
	case "true":
		f.Unset = ims.NoPlainKVM()
	default:
		f.None = true
	}
}

// supportPrefix is how the attributes begin that say what kinds of machines an image
// is good for.
const supportPrefix = "__support_"

// readSupport reads the filters by those attributes. Of __support_kvm see
// readMachine; the others that nobody can set, no image has.
func readSupport(q *query, f *ims.ImageFilter) {
	for name := range q.values {
		if !strings.HasPrefix(name, supportPrefix) || name == supportPrefix+"kvm" {
			continue
		}
		v := q.one(name)
		settable := slices.ContainsFunc(ims.Attributes, func(a ims.Attribute) bool { return a.Name == name && a.Patchable })
		switch {
		case v == "":
		case settable:
			if f.Attributes == nil {
				f.Attributes = map[string]string{}
			}
			f.Attributes[name] = v
		case name == supportPrefix+"arm" && v == "true" && f.Architecture != ims.ArchX86:
			f.Architecture = ims.ArchARM
		default:
			f.None = true
		}
	}
}

func readTime(q *query, name string) ims.TimeFilter {
	text := q.one(name)
	if text == "" {
		return ims.TimeFilter{}
	}
	f, err := ims.ParseTimeFilter(text, name)
	if err != nil && q.fault == nil {
		q.fault = err
	}
	return f
}

// readFlavor reads the filter by the machine that the images are to fit.
func readFlavor(q *query, f *ims.ImageFilter) {
	name := q.one("flavor_id")
	if name == "" || q.fault != nil {
		return
	}
	flavor, err := ims.ParseFlavor(name)
	if err != nil {
		q.fault = err
		return
	}
	f.None = f.None || f.Env != "" && f.Env != flavor.Env || f.Architecture != "" && f.Architecture != flavor.Architecture
	f.Env, f.Architecture = flavor.Env, flavor.Architecture
	if flavor.RAMMiB > 0 {
		f.MinRAMAtMost = &flavor.RAMMiB
	}
}

// refuseOthers refuses the filters that nobody has asked the query for. Parameters
// that are no filters in any version of the protocol are left alone.
func refuseOthers(q *query) {
	for _, name := range q.rest() {
		attribute := slices.ContainsFunc(ims.Attributes, func(a ims.Attribute) bool { return a.Name == name })
		if attribute || strings.HasPrefix(name, "__") {
			q.refuse("this service can't filter a list of images by %s, leave it out", ims.Clip(name))
		}
	}
}
