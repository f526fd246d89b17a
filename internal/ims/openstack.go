package ims

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a client of the OpenStack Image API may say of an image.
const (
	MaxOpenStackTags       = 128
	MaxOpenStackTag        = 255 // characters
	MaxOpenStackProperties = 128
	maxOpenStackText       = 255       // characters of a name, or of a property's key
	maxPropertyValue       = 65_535    // bytes
	maxOpenStackSize       = 1<<31 - 1 // GiB of min_disk, MiB of min_ram
)

// The formats that the Image API names.
var (
	DiskFormats      = []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
	ContainerFormats = []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
)

// readOnlyKeys are the keys of an image that the service alone sets.
var readOnlyKeys = []string{
	"status", "checksum", "size", "virtual_size", "os_hash_algo", "os_hash_value", "created_at", "updated_at",
	"self", "file", "schema", "direct_url", "locations", "stores",
}

// declaredKeys are the keys that a client may set and that are no properties.
var declaredKeys = []string{
	"id", "owner", "name", "visibility", "protected", "os_hidden", "disk_format", "container_format", "min_disk", "min_ram", "tags",
}

// reservedKey reports whether the Image API, or IMS, keeps a key for itself.
func reservedKey(key string) bool {
	return slices.Contains([]string{"location", "deleted", "deleted_at"}, key) || strings.HasPrefix(key, "os_glance") || strings.HasPrefix(key, "__")
}

// OpenStackKey says what a key of an image is: one that the service alone sets, one that
// is declared, or, when neither, a property.
func OpenStackKey(key string) (readOnly, declared bool) {
	return slices.Contains(readOnlyKeys, key) || reservedKey(key), slices.Contains(declaredKeys, key)
}

// NewOpenStackImage makes a queued image of a project out of what a client of the Image
// API says of it. The values are those of a JSON text: nil, bool, float64, string, []any
// and map[string]any.
func NewOpenStackImage(project string, values map[string]any) (Image, error) {
	img := Image{
		ID: NewImageID(), ProjectID: project, EnterpriseProjectID: DefaultEnterpriseProject, Status: ImageQueued,
		Env: EnvECS, OSType: "Linux", Architecture: ArchX86, Firmware: FirmwareBIOS, MadeVisible: VisibilityShared,
		Attributes: map[string]string{}, Properties: map[string]string{},
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if key == "id" {
			id, ok := values[key].(string)
			if !ok || !ValidUUID(id) {
				return img, Faultf(CodeBadFormat, "id must be a UUID in lower case")
			}
			img.ID = id
			continue
		}
		if err := img.SetOpenStack(key, values[key]); err != nil {
			return img, err
		}
	}
	return img, img.checkOpenStack()
}

// OpenStackOp is one step of a PATCH of the Image API. Its key is unescaped.
type OpenStackOp struct {
	Op    string // add, replace or remove
	Key   string
	Value any
	// Strict refuses to add a property that there is.
	Strict bool
}

// PatchOpenStack applies the operations in order. When one fails the image is left in an
// unspecified state and must be thrown away: the caller works on a copy.
func (img *Image) PatchOpenStack(ops []OpenStackOp) error {
	for i, op := range ops {
		if err := img.patchOpenStack(op); err != nil {
			err.Detail = fmt.Sprintf("operation %d: %s", i+1, err.Detail)
			return err
		}
	}
	return img.checkOpenStack()
}

func (img *Image) patchOpenStack(op OpenStackOp) *Error {
	readOnly, declared := OpenStackKey(op.Key)
	_, there := img.Properties[op.Key]
	conflict := func(text string) *Error {
		return Faultf(CodeConflict, "the property %s is %s", Clip(op.Key), text).WithKind(KindConflict)
	}
	switch {
	case readOnly:
		return readOnlyKey(op.Key)
	case op.Op == "remove" && declared:
		return Faultf(CodeConflict, "%s can not be removed", op.Key).WithKind(KindForbidden)
	case !declared && op.Op != "add" && !there:
		return conflict("not set, so it can not be replaced or removed")
	case !declared && op.Op == "add" && op.Strict && there:
		return conflict("set, so it can not be added; replace it")
	case op.Op == "remove":
		delete(img.Properties, op.Key)
		return nil
	case op.Key == "id":
		return readOnlyKey(op.Key)
	}
	return img.setOpenStack(op.Key, op.Value)
}

func readOnlyKey(key string) *Error {
	return Faultf(CodeConflict, "%s is set by the service alone", Clip(key)).WithKind(KindForbidden)
}

// SetOpenStack sets a key of an image to a value of a JSON text.
func (img *Image) SetOpenStack(key string, value any) error {
	if readOnly, _ := OpenStackKey(key); readOnly {
		return readOnlyKey(key)
	}
	if err := img.setOpenStack(key, value); err != nil {
		return err
	}
	return nil
}

func (img *Image) setOpenStack(key string, value any) *Error {
	switch key {
	case "name":
		return setText(&img.Name, key, value)
	case "owner":
		if value != img.ProjectID {
			return Faultf(CodeNotAllowed, "owner must be the project of the credentials: an image stays with its project").WithKind(KindForbidden)
		}
		return nil
	case "visibility":
		return img.setVisibility(value)
	case "protected":
		return setBool(&img.Protected, key, value)
	case "os_hidden":
		return setBool(&img.Hidden, key, value)
	case "disk_format":
		return img.setFormat(&img.DiskFormat, DiskFormats, key, value)
	case "container_format":
		return img.setFormat(&img.ContainerFormat, ContainerFormats, key, value)
	case "min_disk":
		return setSize(&img.MinDiskGiB, key, value)
	case "min_ram":
		return setSize(&img.MinRAMMiB, key, value)
	case "tags":
		return img.setOpenStackTags(value)
	}
	return img.setProperty(key, value)
}

// setVisibility settles who sees the image. Whether the caller may publish is for
// MayPublish to say.
func (img *Image) setVisibility(value any) *Error {
	text, _ := value.(string)
	switch v := Visibility(text); v {
	case VisibilityPrivate, VisibilityPublic:
		img.MadeVisible, img.Members = v, 0
	case VisibilityShared:
		img.MadeVisible = v
	case VisibilityCommunity:
		if v != img.MadeVisible {
			return Faultf(CodeNotAllowed, "visibility %s is not offered; private, shared and, to who may publish, public are", v).WithKind(KindForbidden)
		}
	default:
		return Faultf(CodeBadFormat, "visibility is %s; it must be private, shared or public", show(value))
	}
	return nil
}

// setFormat sets a format, which describes bytes and so stays once there are some.
func (img *Image) setFormat(into *string, of []string, key string, value any) *Error {
	text, ok := value.(string)
	if value != nil && (!ok || !slices.Contains(of, text)) {
		return Faultf(CodeBadFormat, "%s is %s; it must be null or one of %s", key, show(value), strings.Join(of, ", "))
	}
	if text != *into && img.Status != ImageQueued {
		return Faultf(CodeConflict, "%s can not be changed: the image is %s", key, img.Status).WithKind(KindForbidden)
	}
	*into = text
	return nil
}

// setOpenStackTags replaces the tags. A tag of IMS whose text is among the new ones stays
// the key and value that it is.
func (img *Image) setOpenStackTags(value any) *Error {
	list, ok := value.([]any)
	if !ok {
		return Faultf(CodeBadFormat, "tags must be an array of strings")
	}
	var tags []Tag
	for _, v := range list {
		text, ok := v.(string)
		if !ok || !ValidOpenStackTag(text) {
			return Faultf(CodeBadFormat, "a tag is %s; it must be a text of 1 to %d characters", show(v), MaxOpenStackTag)
		}
		if slices.ContainsFunc(tags, func(t Tag) bool { return t.String() == text }) {
			continue
		}
		if i := slices.IndexFunc(img.Tags, func(t Tag) bool { return t.String() == text }); i >= 0 {
			tags = append(tags, img.Tags[i])
		} else {
			tags = append(tags, Tag{Key: text})
		}
	}
	img.Tags = tags
	return nil
}

// ValidOpenStackTag reports whether a text can be a tag.
func ValidOpenStackTag(text string) bool {
	n := utf8.RuneCountInString(text)
	return n >= 1 && n <= MaxOpenStackTag && plain(text)
}

func (img *Image) setProperty(key string, value any) *Error {
	if n := utf8.RuneCountInString(key); n < 1 || n > maxOpenStackText || !plain(key) {
		return Faultf(CodeBadFormat, "a property's key is %q; it must be a text of 1 to %d characters", Clip(key), maxOpenStackText)
	}
	text, ok := value.(string)
	if !ok || len(text) > maxPropertyValue || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return Faultf(CodeBadFormat, "the property %s is %s; it must be a text of at most %d bytes", Clip(key), show(value), maxPropertyValue)
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	img.Properties[key] = text
	return nil
}

// checkOpenStack checks what depends on several keys, and has the properties that IMS
// has fields for, too, decide these.
func (img *Image) checkOpenStack() error {
	if n := len(img.Properties); n > MaxOpenStackProperties {
		return Faultf(CodeQuota, "the image would have %d properties; at most %d are allowed", n, MaxOpenStackProperties)
	}
	if n := len(img.Tags); n > MaxOpenStackTags {
		return Faultf(CodeTagQuota, "the image would have %d tags; at most %d are allowed", n, MaxOpenStackTags)
	}
	keys := map[string]string{}
	for _, t := range img.Tags {
		if other, twice := keys[t.Key]; twice {
			return Faultf(CodeConflict, "the tags %q and %q have the same key; remove one", Clip(other), Clip(t.String())).WithKind(KindConflict)
		}
		keys[t.Key] = t.String()
	}
	switch strings.ToLower(img.Properties["architecture"]) {
	case "aarch64", "arm64", ArchARM:
		img.Architecture, img.Firmware = ArchARM, FirmwareUEFI
	case "x86_64", "i686", ArchX86:
		img.Architecture = ArchX86
	}
	if f := img.Properties["hw_firmware_type"]; f == FirmwareUEFI || f == FirmwareBIOS && img.Architecture != ArchARM {
		img.Firmware = f
	}
	switch strings.ToLower(img.Properties["os_type"]) {
	case "windows":
		img.OSType = "Windows"
	case "linux":
		img.OSType = "Linux"
	}
	return nil
}

func setText(into *string, key string, value any) *Error {
	text, ok := value.(string)
	if value != nil && !ok || utf8.RuneCountInString(text) > maxOpenStackText || !plain(text) {
		return Faultf(CodeBadFormat, "%s is %s; it must be a text of at most %d characters", key, show(value), maxOpenStackText)
	}
	*into = text
	return nil
}

func setBool(into *bool, key string, value any) *Error {
	b, ok := value.(bool)
	if !ok {
		return Faultf(CodeBadFormat, "%s is %s; it must be true or false", key, show(value))
	}
	*into = b
	return nil
}

func setSize(into *int, key string, value any) *Error {
	f, ok := value.(float64)
	if !ok || f != math.Trunc(f) || f < 0 || f > maxOpenStackSize {
		return Faultf(CodeBadFormat, "%s is %s; it must be a whole number from 0 to %d", key, show(value), maxOpenStackSize)
	}
	*into = int(f)
	return nil
}

// plain reports whether s is text without control characters.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// show is a value of a JSON text as an error repeats it.
func show(v any) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprintf("%q", Clip(fmt.Sprint(v)))
}
