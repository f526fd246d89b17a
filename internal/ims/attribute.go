package ims

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
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
	Value any    // string, float64 or nil, as JSON has it
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
	return checkRAM(img.MinRAMMiB, most)
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
	if i < 0 {
		return Faultf(CodeBadFormat, "%s: %s is no attribute of an image", at, Clip(name))
	}
	if !Attributes[i].Patchable {
		return Faultf(CodeConflict, "%s: %s can't be changed", at, name)
	}
	at += ": " + name
	if op.Op == "remove" {
		return img.unset(name, at)
	}
	return img.set(name, op, at)
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
		if _, ok := img.Attributes[name]; !ok {
			return Faultf(CodeConflict, "%s is not set, so it can't be removed", at)
		}
		delete(img.Attributes, name)
	}
	return nil
}

// set gives an attribute a value, for add and for replace: clients use replace for
// what was never set as well.
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
		if utf8.RuneCountInString(value) > maxAttributeValue || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return Faultf(CodeBadFormat, "%s: at most %d printable characters", at, maxAttributeValue)
		}
		// All of them are switches but the two that name a type of GPU.
		if !strings.HasSuffix(name, "_gpu_type") && value != "true" && value != "false" {
			return Faultf(CodeBadFormat, "%s is %q, it must be true or false", at, Clip(value))
		}
		if img.Attributes == nil {
			img.Attributes = map[string]string{}
		}
		img.Attributes[name] = value
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
