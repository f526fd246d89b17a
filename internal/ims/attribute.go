package ims

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

//go:embed imageattributes.csv
var imageAttributesCSV []byte

// Attribute describes a field of an image as clients see it.
type Attribute struct {
	Name      string
	JSONType  string // string, integer, boolean or "array of strings"
	Patchable bool   // PATCH /v2/cloudimages/{image_id} may change it
}

// Attributes is the published table of an image's attributes (release 20251110).
var Attributes = mustReadAttributes(imageAttributesCSV)

func mustReadAttributes(data []byte) []Attribute {
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		panic(fmt.Sprintf("ims: imageattributes.csv: %v", err)) // embedded: a broken build
	}
	var out []Attribute
	for _, row := range rows[1:] {
		out = append(out, Attribute{Name: row[0], JSONType: row[1], Patchable: row[2] == "yes"})
	}
	return out
}

// PatchOp is one step of a PATCH.
type PatchOp struct {
	Op    string // add, replace or remove
	Path  string // "/" and the attribute's name
	Value any    // string, float64, bool, array, object or nil, as JSON has it
}

const (
	maxPatchOps       = 100
	maxAttributeValue = 255
	// maxRAMMiB is far above any machine: 4 TiB is the largest flavor on offer.
	maxRAMMiB = 64 << 20
)

// Patch applies the operations in order. When one fails the image is left in an
// unspecified state and must be thrown away: the caller works on a copy.
func (img *Image) Patch(ops []PatchOp) error {
	if len(ops) == 0 {
		return Faultf(CodeBodyEmpty, "the body is an array of at least one operation")
	}
	if len(ops) > maxPatchOps {
		return Faultf(CodeBadFormat, "%d operations, at most %d are allowed", len(ops), maxPatchOps)
	}
	for i, op := range ops {
		if err := img.patchOne(op, fmt.Sprintf("operation %d", i+1)); err != nil {
			return err
		}
	}
	most, _ := strconv.Atoi(img.MaxRAMMiB) // "" is 0
	if err := checkRAM(img.MinRAMMiB, most); err != nil {
		return err
	}
	return img.checkAttributes()
}

// ofOneMachine are the attributes of machines that are neither plain Xen nor plain KVM: an
// image that has one shows no __support_kvm.
var ofOneMachine = []string{"__support_xen_hana", "__support_xen_gpu_type", "__support_kvm_gpu_type"}

// NoPlainKVM are the attributes beside which an image has no __support_kvm.
func NoPlainKVM() []string { return slices.Clone(ofOneMachine) }

// PlainKVM reports whether the image has __support_kvm.
func (img Image) PlainKVM() bool {
	return !slices.ContainsFunc(ofOneMachine, func(name string) bool { _, set := img.Attributes[name]; return set })
}

// checkAttributes is the fault of attributes that exclude each other, or are too many.
func (img *Image) checkAttributes() error {
	if n := len(img.Attributes) + len(img.Properties); n > MaxOpenStackProperties {
		return Faultf(CodeConflict, "the image would have %d additional attributes; at most %d are allowed", n, MaxOpenStackProperties)
	}
	if _, xen := img.Attributes["__support_xen"]; xen {
		for _, name := range append(NoPlainKVM(), "__support_kvm_infiniband") {
			if _, set := img.Attributes[name]; set {
				return Faultf(CodeConflict, "__support_xen and %s exclude each other; remove one", name)
			}
		}
	}
	return nil
}

// attributeValues are the values of the optional attributes.
var attributeValues = map[string][]string{
	"hw_vif_multiqueue_enabled": {"true", "false"}, "__is_config_init": {"true", "false"}, "__support_amd": {"true", "false"},
	"__support_xen": {"true"}, "__support_largememory": {"true"}, "__support_diskintensive": {"true"}, "__support_highperformance": {"true"},
	"__support_kvm_hi1822_hisriov": {"true"}, "__support_kvm_hi1822_hivirtionet": {"true"}, "__support_kvm_infiniband": {"true"},
	"__support_xen_hana": {"true"}, "__support_fc_inject": {"true"}, "__support_xen_gpu_type": {"M60_vGPU"},
	"__support_kvm_gpu_type": {"M60", "V100_vGPU", "P2V_V100", "P100", "V100"},
}

// extensionName is the form of an attribute that a client made up.
var extensionName = regexp.MustCompile(`^[a-z0-9_][a-z0-9_.:-]{0,254}$`)

// ShownProperty reports whether IMS shows a property of the Image API, too: one that its
// own calls could have set.
func ShownProperty(name, value string) bool {
	return len(name) <= maxOpenStackText && utf8.RuneCountInString(value) <= maxAttributeValue && !reservedExtension(name)
}

// reservedExtension reports whether a name means something to the service.
func reservedExtension(name string) bool {
	readOnly, declared := OpenStackKey(name)
	published := slices.ContainsFunc(Attributes, func(a Attribute) bool { return a.Name == name })
	return published || declared || readOnly && !strings.HasPrefix(name, "__") || name == "license_type"
}

// checkRAM holds the two sizes of memory, in MiB, against each other. A most of 0 is
// no bound.
func checkRAM(least, most int) error {
	if most != 0 && most < least {
		return Faultf(CodeDiskSize, "max_ram %d MiB is below min_ram %d MiB", most, least)
	}
	return nil
}

func (img *Image) patchOne(op PatchOp, at string) error {
	if op.Op != "add" && op.Op != "replace" && op.Op != "remove" {
		return Faultf(CodeBadFormat, "%s: op is %q, it must be add, replace or remove", at, Clip(op.Op))
	}
	name, ok := strings.CutPrefix(op.Path, "/")
	if !ok || name == "" {
		return Faultf(CodeBadFormat, "%s: path is %q, it must be / and an attribute's name", at, Clip(op.Path))
	}
	i := slices.IndexFunc(Attributes, func(a Attribute) bool { return a.Name == name })
	switch {
	case slices.Contains(nativeAttributes, name):
		if op.Op == "remove" {
			return Faultf(CodeConflict, "%s: %s can't be removed", at, name)
		}
		return img.setNative(name, op.Value, at+": "+name)
	case i < 0 && !extensionName.MatchString(name):
		return Faultf(CodeBadFormat, "%s: %q is no name of an attribute; it must have 1 to 255 lower-case letters, digits, and _ . : -", at, Clip(name))
	case i < 0 && reservedExtension(name) || i >= 0 && !Attributes[i].Patchable:
		return Faultf(CodeConflict, "%s: %s can't be changed", at, name)
	}
	at += ": " + name
	if op.Op == "remove" {
		return img.unset(name, at)
	}
	return img.set(name, op, at)
}

// nativeAttributes are those that clients change by PATCH though the table of IMS does not
// say so: OpenStack's do.
var nativeAttributes = []string{"protected", "visibility", "tags"}

// setNative sets one of them. Some clients have strings alone.
func (img *Image) setNative(name string, value any, at string) error {
	fault := func(err *Error) error {
		if err == nil {
			return nil
		}
		err.Detail = at + ": " + err.Detail
		return err
	}
	switch name {
	case "protected":
		if text, ok := value.(string); ok && (text == "true" || text == "false") {
			value = text == "true"
		}
		return fault(setBool(&img.Protected, name, value))
	case "visibility":
		return fault(img.setVisibility(value))
	}
	return img.setTags(value, at)
}

// setTags replaces the tags, each written as key=value or as a key.
func (img *Image) setTags(value any, at string) error {
	list, ok := value.([]any)
	if !ok {
		return Faultf(CodeBadFormat, "%s: the value must be an array of strings", at)
	}
	var tags []Tag
	for i, v := range list {
		text, ok := v.(string)
		if !ok {
			return Faultf(CodeBadFormat, "%s: value %d must be a string", at, i+1)
		}
		if i := slices.IndexFunc(img.Tags, func(t Tag) bool { return t.String() == text }); i >= 0 {
			tags = append(tags, img.Tags[i])
			continue
		}
		key, value, _ := strings.Cut(text, "=")
		t := Tag{Key: key, Value: value}.Trimmed()
		if err := t.Validate(fmt.Sprintf("%s: value %d", at, i+1)); err != nil {
			return err
		}
		tags = append(tags, t)
	}
	if err := CheckTags(tags, at); err != nil {
		return err
	}
	img.Tags = tags
	return nil
}

// additional is the map that holds an optional attribute, or one that a client made up.
func (img *Image) additional(name string) map[string]string {
	m := &img.Properties
	if _, published := attributeValues[name]; published || strings.HasPrefix(name, "__") {
		m = &img.Attributes
	}
	if *m == nil {
		*m = map[string]string{}
	}
	return *m
}

// unset gives an attribute back its default. One that a client insists on has none.
func (img *Image) unset(name, at string) error {
	switch name {
	case "name", "hw_firmware_type", "enterprise_project_id":
		return Faultf(CodeConflict, "%s can't be removed", at)
	case "__description":
		img.Description = ""
	case "min_ram":
		img.MinRAMMiB = 0
	case "max_ram":
		img.MaxRAMMiB = ""
	default:
		if _, ok := img.additional(name)[name]; !ok {
			return Faultf(CodeConflict, "%s is not set, so it can't be removed", at)
		}
		delete(img.additional(name), name)
	}
	return nil
}

// set gives an attribute a value. replace sets one that has a default though nobody set it,
// as clients expect; of the others it needs one that is there.
func (img *Image) set(name string, op PatchOp, at string) error {
	if name == "min_ram" || name == "max_ram" {
		n, err := ramMiB(op.Value, at)
		if err != nil {
			return err
		}
		if name == "min_ram" {
			img.MinRAMMiB = n
		} else {
			img.MaxRAMMiB = strconv.Itoa(n)
		}
		return nil
	}
	value, ok := op.Value.(string)
	if !ok {
		return Faultf(CodeBadFormat, "%s: the value must be a string", at)
	}
	switch name {
	case "name":
		if err := ValidateName(value, at); err != nil {
			return err
		}
		img.Name = value
	case "__description":
		if err := ValidateDescription(value, at); err != nil {
			return err
		}
		img.Description = value
	case "hw_firmware_type":
		if value != FirmwareBIOS && value != FirmwareUEFI || value == FirmwareBIOS && img.Architecture == ArchARM {
			return Faultf(CodeFirmware, "%s is %q, it must be bios or uefi, and uefi for arm", at, Clip(value))
		}
		img.Firmware = value
	case "enterprise_project_id":
		id, err := ParseEnterpriseProject(&value)
		if err != nil {
			return err
		}
		img.EnterpriseProjectID = id
	default:
		_, there := img.additional(name)[name]
		values, published := attributeValues[name]
		switch {
		case op.Op == "replace" && !there:
			return Faultf(CodeConflict, "%s is not set, so it can't be replaced; add it", at)
		case published && !slices.Contains(values, value):
			return Faultf(CodeBadFormat, "%s is %q; it must be %s", at, Clip(value), strings.Join(values, " or "))
		case utf8.RuneCountInString(value) > maxAttributeValue || !plain(value):
			return Faultf(CodeBadFormat, "%s: at most %d printable characters", at, maxAttributeValue)
		case name == "__support_fc_inject" && img.Env != EnvECS:
			return Faultf(CodeConflict, "%s is for system disk images of ECS, this one is %s", at, img.Env)
		}
		img.additional(name)[name] = value
	}
	return nil
}

// ramMiB reads a size of memory that clients send as a number or as a string.
func ramMiB(v any, at string) (int, error) {
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case string:
		n, err := strconv.Atoi(v)
		if err != nil {
			return 0, Faultf(CodeDiskSize, "%s is %q, it must be a number of MiB", at, Clip(v))
		}
		f = float64(n)
	default:
		return 0, Faultf(CodeBadFormat, "%s must be a number of MiB", at)
	}
	if f != math.Trunc(f) || f < 0 || f > maxRAMMiB {
		return 0, Faultf(CodeDiskSize, "%s must be a whole number of MiB, 0 to %d", at, maxRAMMiB)
	}
	return int(f), nil
}
