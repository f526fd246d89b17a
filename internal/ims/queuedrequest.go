package ims

import (
	"maps"
	"slices"
	"strings"
)

// QueuedRequest asks, as IMS spells it, for an image that has no data yet: a file is
// registered into it later, or uploaded. Nil means that the field was absent.
type QueuedRequest struct {
	Name, OSVersion             *string
	DiskFormat, ContainerFormat *string
	Visibility                  *string
	Protected                   *bool
	MinDisk                     *int64 // GiB
	MinRAM                      *int64 // MiB
	Tags                        []string
	// Attributes are the others that a PATCH could set, as JSON has their values.
	Attributes map[string]any
}

// queuedFormats are the disk formats that a queued image may announce: those of IMS and
// those of the OpenStack Image API.
var queuedFormats = append([]string{"zvhd2", "zvhd"}, DiskFormats...)

// NewImage checks every field and makes the queued image. The fault is an *Error that
// names the field.
func (r QueuedRequest) NewImage(project string, known *OSVersions) (Image, error) {
	system := OSVersion{Version: "Other Linux(64 bit)", Platform: "Other", Type: "Linux", Bit: 64} // as published for this call
	if r.OSVersion != nil && *r.OSVersion != "" {
		var ok bool
		if system, ok = known.Lookup(*r.OSVersion); !ok {
			return Image{}, Faultf(CodeOSVersion, "__os_version %q is unknown; GET /v1/cloudimages/os_version lists the values", Clip(*r.OSVersion))
		}
	}
	img := ImportSpec{OS: system, Env: EnvECS, EnterpriseProjectID: DefaultEnterpriseProject, Architecture: ArchX86, Firmware: FirmwareBIOS}.NewImage(NewImageID(), project)
	img.SourceURL, img.DiskFormat = "", "zvhd2"
	if r.Name != nil && *r.Name != "" {
		if err := ValidateName(*r.Name, "name"); err != nil {
			return img, err
		}
		img.Name = *r.Name
	}
	if r.Visibility != nil {
		if err := img.setVisibility(*r.Visibility); err != nil {
			return img, err
		}
	}
	img.Protected = r.Protected != nil && *r.Protected
	for _, format := range []struct {
		value *string
		into  *string
		of    []string
		name  string
	}{{r.DiskFormat, &img.DiskFormat, queuedFormats, "disk_format"}, {r.ContainerFormat, &img.ContainerFormat, ContainerFormats, "container_format"}} {
		if format.value == nil || *format.value == "" {
			continue
		}
		if !slices.Contains(format.of, *format.value) {
			return img, Faultf(CodeBadFormat, "%s is %q, it must be one of %s", format.name, Clip(*format.value), strings.Join(format.of, ", "))
		}
		*format.into = *format.value
	}
	if v := r.MinDisk; v != nil {
		if *v < 1 || *v > MaxDiskGiB {
			return img, Faultf(CodeDiskSize, "min_disk is %d, it must be 1 to %d GiB", *v, MaxDiskGiB)
		}
		img.MinDiskGiB = int(*v)
	}
	if v := r.MinRAM; v != nil {
		if *v < 0 || *v > maxRAMMiB {
			return img, Faultf(CodeDiskSize, "min_ram is %d, it must be 0 to %d MiB", *v, maxRAMMiB)
		}
		img.MinRAMMiB = int(*v)
	}
	for _, text := range r.Tags {
		if !ValidOpenStackTag(text) {
			return img, Faultf(CodeTag, "tags: %q must be a text of 1 to %d characters", Clip(text), MaxOpenStackTag)
		}
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return img, Faultf(CodeTag, "tags: %q has no key, it must be key=value", Clip(text))
		}
		img.Tags = append(img.Tags, Tag{Key: key, Value: value})
	}
	if err := CheckTags(img.Tags, "tags"); err != nil {
		return img, err
	}
	if len(r.Attributes) == 0 {
		return img, nil
	}
	var ops []PatchOp
	for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
		ops = append(ops, PatchOp{Op: "add", Path: "/" + name, Value: r.Attributes[name]})
	}
	return img, img.Patch(ops)
}
