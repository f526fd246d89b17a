package ims

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CopyRequest asks for a copy of an image in the region. Nil means that the field was
// absent.
type CopyRequest struct {
	Name, Description, EnterpriseProjectID, CMKID *string
}

// NewImage checks the fields and makes the queued copy of src for a project: what the disk
// is and what it runs on are src's, name, description, tags and members its own.
func (r CopyRequest) NewImage(src Image, project string) (Image, error) {
	img := src
	img.ID, img.ProjectID, img.Status = NewImageID(), project, ImageQueued
	img.Description, img.Tags, img.Members, img.MadeVisible = "", nil, 0, VisibilityPrivate
	img.Protected, img.Hidden, img.Data = false, false, Data{}
	if src.ProjectID != project {
		img.SourceURL = "" // where its owner has its files is its own affair
	}
	if r.Name == nil || *r.Name == "" {
		return img, Faultf(CodeNameMissing, "name is required, 1 to %d characters", MaxName)
	}
	if err := ValidateName(*r.Name, "name"); err != nil {
		return img, err
	}
	img.Name = *r.Name
	if r.Description != nil {
		if err := ValidateDescription(*r.Description, "description"); err != nil {
			return img, err
		}
		img.Description = *r.Description
	}
	if r.CMKID != nil && *r.CMKID != "" {
		return img, Faultf(CodeUnsupported, "cmk_id: this service does not encrypt images, leave the key out")
	}
	var err error
	img.EnterpriseProjectID, err = ParseEnterpriseProject(r.EnterpriseProjectID)
	return img, err
}

// ExportRequest asks for an image's data to be written to a bucket. Nil means that the
// field was absent.
type ExportRequest struct {
	BucketURL, Format *string
	Quick             *bool
}

// Export is a valid export: where the image goes.
type Export struct {
	Bucket, Key string
	// Format is what the disk is converted to; "": the stored data as it is.
	Format string
}

// MaxConverted is the largest disk that an export converts, in bytes.
const MaxConverted = 128 * GiB

// exportFormats are the formats of an export that is not a quick one.
var exportFormats = []string{"qcow2", "vhd", "zvhd", "vmdk"}

// maxExportName is the longest name of an exported file, in characters, with its folders.
const maxExportName = 128

// Validate checks every field and returns the first fault as an *Error that names it.
func (r ExportRequest) Validate() (Export, error) {
	var e Export
	if r.BucketURL == nil {
		return e, Faultf(CodeURLFormat, "bucket_url is required, of the form bucket:object")
	}
	bucket, key, ok := strings.Cut(*r.BucketURL, ":")
	switch {
	case !ok:
		return e, Faultf(CodeURLFormat, "bucket_url %q has no colon, it must be bucket:object", Clip(*r.BucketURL))
	case bucket == "":
		return e, Faultf(CodeBucketEmpty, "bucket_url names no bucket before the colon")
	case strings.ContainsFunc(*r.BucketURL, unicode.IsSpace):
		return e, Faultf(CodeSpaces, "bucket_url %q holds a space", Clip(*r.BucketURL))
	case !ValidBucketName(bucket):
		return e, Faultf(CodeBucketName, "bucket %q: 3 to 63 lower-case letters, digits, hyphens and dots", Clip(bucket))
	case key == "":
		return e, Faultf(CodeExportNameEmpty, "bucket_url names no object after the colon")
	case utf8.RuneCountInString(key) > maxExportName:
		return e, Faultf(CodeExportNameTooLong, "bucket_url: the object's name has %d characters, at most %d are allowed", utf8.RuneCountInString(key), maxExportName)
	case !ValidKey(key) || strings.ContainsFunc(key, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-._/", c)
	}):
		return e, Faultf(CodeExportNameFormat, "bucket_url: the object's name may hold letters, digits, - . _ and / between folders, none of them empty, . or ..")
	}
	e.Bucket, e.Key = bucket, key
	format := ""
	if r.Format != nil {
		format = *r.Format
	}
	switch quick := r.Quick != nil && *r.Quick; {
	case quick && format == "":
		return e, nil
	case quick:
		return e, Faultf(CodeExportFormat, "file_format is %q, and is_quick_export is true: a quick export has the format of the stored data, leave file_format out", Clip(format))
	case format == "":
		return e, Faultf(CodeExportFormat, "file_format is required unless is_quick_export is true; it must be one of %s", strings.Join(exportFormats, ", "))
	case !slices.Contains(exportFormats, format):
		return e, Faultf(CodeExportFormat, "file_format is %q, it must be one of %s", Clip(format), strings.Join(exportFormats, ", "))
	}
	e.Format = format
	return e, nil
}
