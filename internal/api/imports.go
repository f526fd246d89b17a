package api

import (
	"net/http"

	"github.com/quickims/quickims/internal/ims"
)

// importKeys are the keys of an import. Beside data_images none of them may stand:
// it would be dropped without a word.
var importKeys = []string{
	"name", "description", "os_version", "os_type", "image_url", "min_disk", "min_ram", "max_ram", "tags", "image_tags", "type",
	"enterprise_project_id", "architecture", "hw_firmware_type", "license_type", "cmk_id",
}

// quickImportKey marks an import of the common call as a quick one.
const quickImportKey = "is_quick_import"

// quickImport is POST /v2/cloudimages/quickimport/action.
func (s *server) quickImport(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	request := readImport(f)
	if err := f.failed(); err != nil {
		return err
	}
	return s.accept(c, request)
}

// commonImport is POST /v2/cloudimages/action, in the forms that mean a quick import:
// the keys at the top, or one entry of data_images, with is_quick_import true.
func (s *server) commonImport(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	quick := f.boolean(quickImportKey)
	entries := f.objects("data_images")
	if err := f.failed(); err != nil {
		return err
	}
	if f.has("data_images") {
		return s.dataImageEntry(c, f, quick, entries)
	}
	if quick == nil || !*quick {
		return ims.Faultf(ims.CodeUnsupported, "%s must be true: this service makes images by quick import alone", quickImportKey)
	}
	request := readImport(f)
	if err := f.failed(); err != nil {
		return err
	}
	return s.accept(c, request)
}

// dataImageEntry imports the one entry of data_images as a data disk image.
func (s *server) dataImageEntry(c *call, f *fields, quick *bool, entries []*fields) error {
	if len(entries) != 1 {
		return ims.Faultf(ims.CodeBadFormat, "data_images has %d entries, a quick import takes exactly one: send a request for each image", len(entries))
	}
	for _, key := range importKeys {
		if f.has(key) {
			return ims.Faultf(ims.CodeBadFormat, "%s stands beside data_images: a quick import is of one image, send a request for each", key)
		}
	}
	e := entries[0]
	if own := e.boolean(quickImportKey); own != nil {
		quick = own
	}
	request := readImport(e)
	if err := e.failed(); err != nil {
		return err
	}
	if quick == nil || !*quick {
		return ims.Faultf(ims.CodeUnsupported, "data_images[0].%s must be true: this service makes images by quick import alone", quickImportKey)
	}
	// An entry has no type of its own: where it stands says what it is.
	kind := string(ims.EnvData)
	request.Type = &kind
	return s.accept(c, request)
}

// readImport reads the keys of an import; their values are checked later.
func readImport(f *fields) ims.ImportRequest {
	r := ims.ImportRequest{
		Name:                f.text("name"),
		Description:         f.text("description"),
		OSVersion:           f.text("os_version"),
		OSType:              f.text("os_type"),
		ImageURL:            f.text("image_url"),
		MinDisk:             f.integer("min_disk"),
		MinRAM:              f.integer("min_ram"),
		MaxRAM:              f.integer("max_ram"),
		Tags:                f.texts("tags"),
		ImageTags:           readTags(f, "image_tags", true),
		Type:                f.text("type"),
		EnterpriseProjectID: f.text("enterprise_project_id"),
		Architecture:        f.text("architecture"),
		Firmware:            f.text("hw_firmware_type"),
		LicenseType:         f.text("license_type"),
		CMKID:               f.text("cmk_id"),
	}
	return r
}

// accept validates the import and hands it on.
func (s *server) accept(c *call, request ims.ImportRequest) error {
	right := ims.ActionServerImagesCreate
	if request.IsDataDisk() {
		right = ims.ActionDataImagesCreate
	}
	if !c.principal.May(right) {
		return forbidden(right)
	}
	spec, err := request.Validate(s.OSVersions())
	if err != nil {
		return err
	}
	id, err := s.Importer.Accept(c.Context(), c.principal, spec)
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, struct {
		JobID string `json:"job_id"`
	}{id})
	return nil
}
