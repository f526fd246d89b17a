package ims

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ImportRequest is an import of a file as it was asked for. Nil means that the field was
// absent. Validate turns it into an ImportSpec.
type ImportRequest struct {
	// Common is an import that is not a quick one: the system need not be named, and a RAW
	// file needs no bitmap.
	Common bool
	// Nested is an import whose client reads the image's id from the first sub-job alone.
	Nested              bool
	Name                *string
	Description         *string
	OSVersion           *string
	OSType              *string
	ImageURL            *string
	MinDisk             *int64 // GiB
	MinRAM, MaxRAM      *int64 // MiB
	Tags                []string
	ImageTags           []Tag
	Type                *string
	EnterpriseProjectID *string
	Architecture        *string
	Firmware            *string
	LicenseType         *string
	// Config asks for drivers and boot files to be adapted to the cloud.
	Config *bool
	// CMKID is the key to encrypt the image with. Nothing here encrypts: it is read so
	// that it can be refused.
	CMKID *string
}

// ImportSpec is a valid import: every default filled in.
type ImportSpec struct {
	Name, Description   string
	Env                 EnvType
	OS                  OSVersion // Version is "" for a data disk
	Bucket, Key         string
	MinDiskGiB          int
	MinRAMMiB           int
	MaxRAMMiB           string // "" when unset
	Tags                []Tag
	EnterpriseProjectID string
	Architecture        string
	Firmware            string
	LicenseType         string

	Common, Nested, Config bool // as in ImportRequest
}

// DataDisk reports whether the import makes a data disk image.
func (s ImportSpec) DataDisk() bool { return s.Env == EnvData }

// JobType is the type of the job that carries the import out.
func (s ImportSpec) JobType() JobType {
	if s.DataDisk() {
		return JobImportData
	}
	return JobImportSystem
}

// Limits of texts, in characters.
const (
	MaxName        = 128
	MaxDescription = 1024
	maxLicense     = 64
	maxKeyBytes    = 1024 // of an object's key in S3
)

// Values of architecture and hw_firmware_type.
const (
	ArchX86      = "x86"
	ArchARM      = "arm"
	FirmwareBIOS = "bios"
	FirmwareUEFI = "uefi"
)

// IsDataDisk reports whether the request asks for a data disk image, which decides
// the right that it takes. It looks at the type alone and validates nothing.
func (r ImportRequest) IsDataDisk() bool { return r.Type != nil && *r.Type == string(EnvData) }

// Validate checks every field, in the order in which a client fills them in, and
// returns the first fault as an *Error that names the field.
func (r ImportRequest) Validate(known *OSVersions) (ImportSpec, error) {
	s := ImportSpec{Common: r.Common, Nested: r.Nested, Config: r.Config != nil && *r.Config}
	if r.Name == nil || *r.Name == "" {
		return s, Faultf(CodeNameMissing, "name is required, 1 to %d characters", MaxName)
	}
	s.Name = *r.Name
	if err := ValidateName(s.Name, "name"); err != nil {
		return s, err
	}
	if r.Description != nil {
		s.Description = *r.Description
	}
	if err := ValidateDescription(s.Description, "description"); err != nil {
		return s, err
	}
	if err := r.validateType(&s, known); err != nil {
		return s, err
	}
	if r.ImageURL == nil {
		return s, Faultf(CodeURLFormat, "image_url is required, of the form bucket:object")
	}
	var err error
	if s.Bucket, s.Key, err = ParseImageURL(*r.ImageURL); err != nil {
		return s, err
	}
	most := int64(MaxDiskGiB)
	if r.Common && s.DataDisk() {
		most = MaxDataDiskGiB
	}
	if r.MinDisk == nil {
		return s, Faultf(CodeDiskSize, "min_disk is required, 1 to %d GiB", most)
	}
	if *r.MinDisk < 1 || *r.MinDisk > most {
		return s, Faultf(CodeDiskSize, "min_disk is %d, it must be 1 to %d GiB", *r.MinDisk, most)
	}
	s.MinDiskGiB = int(*r.MinDisk)
	if err := r.validateRAM(&s); err != nil {
		return s, err
	}
	if err := r.validateTags(&s); err != nil {
		return s, err
	}
	if s.EnterpriseProjectID, err = ParseEnterpriseProject(r.EnterpriseProjectID); err != nil {
		return s, err
	}
	if err := r.validateMachine(&s); err != nil {
		return s, err
	}
	if r.LicenseType != nil {
		s.LicenseType = *r.LicenseType
		if utf8.RuneCountInString(s.LicenseType) > maxLicense || strings.ContainsFunc(s.LicenseType, unicode.IsControl) {
			return s, Faultf(CodeBadFormat, "license_type has at most %d printable characters", maxLicense)
		}
	}
	if r.CMKID != nil && *r.CMKID != "" {
		return s, Faultf(CodeUnsupported, "cmk_id: this service does not encrypt images, leave the key out")
	}
	return s, nil
}

// validateRAM settles the memory that a machine must have and may have.
func (r ImportRequest) validateRAM(s *ImportSpec) error {
	for _, field := range []struct {
		name  string
		value *int64
	}{{"min_ram", r.MinRAM}, {"max_ram", r.MaxRAM}} {
		if v := field.value; v != nil && (*v < 0 || *v > maxRAMMiB) {
			return Faultf(CodeDiskSize, "%s is %d, it must be 0 to %d MiB", field.name, *v, maxRAMMiB)
		}
	}
	if r.MinRAM != nil {
		s.MinRAMMiB = int(*r.MinRAM)
	}
	if r.MaxRAM == nil {
		return nil
	}
	s.MaxRAMMiB = strconv.FormatInt(*r.MaxRAM, 10)
	return checkRAM(s.MinRAMMiB, int(*r.MaxRAM))
}

func (r ImportRequest) validateType(s *ImportSpec, known *OSVersions) error {
	kind := "ECS"
	if r.Type != nil && *r.Type != "" {
		kind = *r.Type
	}
	switch kind {
	case "ECS", string(EnvECS):
		s.Env = EnvECS
	case "BMS", string(EnvBMS):
		s.Env = EnvBMS
	case string(EnvData):
		s.Env = EnvData
		s.OS.Type = r.osType()
		if s.OS.Type != "Linux" && s.OS.Type != "Windows" {
			return Faultf(CodeOSType, "os_type is %q, it must be Linux or Windows", Clip(s.OS.Type))
		}
		return nil
	case isoImage:
		if !r.Common {
			return unknownType(kind)
		}
		return Faultf(CodeUnsupported, "type is IsoImage: this service makes no images of discs; import the disk that was installed from it")
	default:
		return unknownType(kind)
	}
	return r.validateSystem(s, known)
}

// isoImage is the type of a disc, which the calls take that are not quick imports.
const isoImage = "IsoImage"

func unknownType(kind string) *Error {
	return Faultf(CodeTypeUnknown, "type is %q, it must be ECS, FusionCompute, BMS, Ironic or DataImage", Clip(kind))
}

// osType is the type of system that the request names, Linux if it names none.
func (r ImportRequest) osType() string {
	if r.OSType == nil || *r.OSType == "" {
		return "Linux"
	}
	return *r.OSType
}

// validateSystem settles the system on a system disk. A quick import names it; of a
// common one without a name it is an unknown system of the type. Nothing looks into the
// file for it.
func (r ImportRequest) validateSystem(s *ImportSpec, known *OSVersions) error {
	kind := r.osType()
	if r.Common && kind != "Linux" && kind != "Windows" && kind != "Other" {
		return Faultf(CodeOSType, "os_type is %q, it must be Linux, Windows or Other", Clip(kind))
	}
	if r.OSVersion == nil || *r.OSVersion == "" {
		if !r.Common {
			return Faultf(CodeOSVersion, "os_version is required for a system disk image; GET /v1/cloudimages/os_version lists the values")
		}
		s.OS = UnknownSystem(kind)
		return nil
	}
	os, ok := known.Lookup(*r.OSVersion)
	if !ok {
		return Faultf(CodeOSVersion, "os_version %q is unknown; GET /v1/cloudimages/os_version lists the values", Clip(*r.OSVersion))
	}
	if r.Common && r.OSType != nil && *r.OSType != "" && kind != os.Type {
		return Faultf(CodeOSType, "os_type is %s, but os_version %q is of the type %s: leave os_type out", kind, os.Version, os.Type)
	}
	s.OS = os
	return nil
}

func (r ImportRequest) validateTags(s *ImportSpec) error {
	if len(r.Tags) > 0 && len(r.ImageTags) > 0 {
		return Faultf(CodeTag, "tags and image_tags exclude each other, use one of them")
	}
	for _, text := range r.Tags {
		t, err := ParseDotTag(text, "tags")
		if err != nil {
			return err
		}
		s.Tags = append(s.Tags, t)
	}
	for _, t := range r.ImageTags {
		t = t.Trimmed()
		if err := t.Validate("image_tags"); err != nil {
			return err
		}
		s.Tags = append(s.Tags, t)
	}
	return CheckTags(s.Tags, "tags")
}

// validateMachine settles architecture and firmware. A data disk has neither in its
// request and gets the defaults.
func (r ImportRequest) validateMachine(s *ImportSpec) error {
	s.Architecture, s.Firmware = ArchX86, FirmwareBIOS
	if s.DataDisk() {
		return nil
	}
	if r.Architecture != nil && *r.Architecture != "" {
		s.Architecture = *r.Architecture
	}
	switch s.Architecture {
	case ArchX86:
	case ArchARM:
		s.Firmware = FirmwareUEFI
	default:
		return Faultf(CodeArchitecture, "architecture is %q, it must be x86 or arm", Clip(s.Architecture))
	}
	if r.Firmware == nil || *r.Firmware == "" {
		return nil
	}
	switch f := *r.Firmware; {
	case f != FirmwareBIOS && f != FirmwareUEFI:
		return Faultf(CodeFirmware, "hw_firmware_type is %q, it must be bios or uefi", Clip(f))
	case f == FirmwareBIOS && s.Architecture == ArchARM:
		return Faultf(CodeFirmware, "hw_firmware_type is bios, an arm image boots with uefi alone")
	default:
		s.Firmware = f
	}
	return nil
}

// ValidateName checks an image's name; field names it in the error.
func ValidateName(name, field string) error {
	if n := utf8.RuneCountInString(name); n > MaxName {
		return Faultf(CodeNameTooLong, "%s has %d characters, at most %d are allowed", field, n, MaxName)
	}
	if name == "" {
		return Faultf(CodeNameMissing, "%s is empty, it has 1 to %d characters", field, MaxName)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._ ", r)
	}) {
		return Faultf(CodeNameFormat, "%s may hold letters, digits, space and - . _", field)
	}
	if name[0] == ' ' || name[len(name)-1] == ' ' {
		return Faultf(CodeNameFormat, "%s must not begin or end with a space", field)
	}
	return nil
}

// ValidateDescription checks an image's description. It may have several lines; of the
// control characters only their ends and tabs are let in, and no carriage return.
func ValidateDescription(text, field string) error {
	if n := utf8.RuneCountInString(text); n > MaxDescription {
		return Faultf(CodeDescriptionTooLong, "%s has %d characters, at most %d are allowed", field, n, MaxDescription)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
		return r == '<' || r == '>' || unicode.IsControl(r) && r != '\n' && r != '\t'
	}) {
		return Faultf(CodeDescriptionFormat, "%s must be text without <, > and carriage returns", field)
	}
	return nil
}

// bucketName is the naming rule of S3 and OBS: 3 to 63 lower-case letters, digits,
// hyphens and dots, a letter or digit at both ends.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// ValidBucketName reports whether name keeps the naming rule of buckets.
func ValidBucketName(name string) bool {
	return bucketName.MatchString(name) && !strings.Contains(name, "..") && !strings.Contains(name, ".-") && !strings.Contains(name, "-.")
}

// ParseImageURL splits bucket:object. The object's key may hold slashes.
func ParseImageURL(url string) (bucket, key string, err error) {
	bucket, key, ok := strings.Cut(url, ":")
	switch {
	case !ok:
		return "", "", Faultf(CodeURLFormat, "image_url %q has no colon, it must be bucket:object", Clip(url))
	case bucket == "":
		return "", "", Faultf(CodeBucketEmpty, "image_url names no bucket before the colon")
	case strings.ContainsFunc(url, unicode.IsSpace):
		return "", "", Faultf(CodeSpaces, "image_url %q holds a space", Clip(url))
	case !ValidBucketName(bucket):
		return "", "", Faultf(CodeBucketName, "bucket %q: 3 to 63 lower-case letters, digits, hyphens and dots", Clip(bucket))
	case !ValidKey(key):
		return "", "", Faultf(CodeURLFormat, "image_url names no valid object after the colon: 1 to %d bytes of UTF-8, no empty, . or .. segment, not ending in /", maxKeyBytes)
	}
	return bucket, key, nil
}

// ValidKey reports whether key can be the key of a source object.
func ValidKey(key string) bool {
	if key == "" || len(key) > maxKeyBytes || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl) {
		return false
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// ParseEnterpriseProject settles the id's form: absent and "" mean the default one.
// Whether the project exists is for the catalog to say.
func ParseEnterpriseProject(id *string) (string, error) {
	if id == nil || *id == "" || *id == DefaultEnterpriseProject {
		return DefaultEnterpriseProject, nil
	}
	if !ValidUUID(strings.ToLower(*id)) {
		return "", Faultf(CodeEnterpriseProject, "enterprise_project_id %q is neither 0 nor a UUID", Clip(*id))
	}
	return strings.ToLower(*id), nil
}

// BitmapKey is the key of the bitmap that belongs to a RAW object: the same base
// name with the ending .mf (image01.raw → image01.mf).
func BitmapKey(key string) string {
	dir, base := "", key
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		dir, base = key[:i+1], key[i+1:]
	}
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		base = base[:i]
	}
	return dir + base + ".mf"
}

// BitmapKeys are the keys under which the bitmap of a RAW object is looked for, in
// this order: BitmapKey, then a block map (.bmap) under the two names that bmaptool
// gives it.
func BitmapKeys(key string) []string {
	mf := BitmapKey(key)
	return []string{mf, strings.TrimSuffix(mf, ".mf") + ".bmap", key + ".bmap"}
}

// NewImage is the queued image that a valid import begins with.
func (s ImportSpec) NewImage(id, projectID string) Image {
	img := Image{
		ID: id, ProjectID: projectID, EnterpriseProjectID: s.EnterpriseProjectID,
		Name: s.Name, Description: s.Description, Status: ImageQueued, Env: s.Env,
		OSVersion: s.OS.Version, OSType: s.OS.Type, Platform: s.OS.Platform,
		Architecture: s.Architecture, Firmware: s.Firmware, LicenseType: s.LicenseType,
		MinDiskGiB: s.MinDiskGiB, MinRAMMiB: s.MinRAMMiB, MaxRAMMiB: s.MaxRAMMiB,
		Tags: s.Tags, SourceURL: s.Bucket + ":" + s.Key,
		MadeVisible: VisibilityPrivate, DiskFormat: "raw", ContainerFormat: "bare",
		Attributes: map[string]string{}, Properties: map[string]string{},
	}
	switch s.OS.Bit {
	case 32:
		img.OSBit = "32"
	case 64:
		img.OSBit = "64"
	}
	return img
}
