package api

import (
	"net/http"
	"slices"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

// The calls that make an image of a file read one body, with rules that differ a little
// (ims.ImportRequest). What the same calls make of something else than a file takes a
// service that is not here.

// importKeys are the keys of an import. Beside data_images none of them may stand but the
// inheritedKeys: it would be dropped without a word.
var importKeys = []string{
	"name", "description", "os_version", "os_type", "image_url", "min_disk", "min_ram", "max_ram", "tags", "image_tags", "type",
	"enterprise_project_id", "architecture", "hw_firmware_type", "license_type", "cmk_id", "is_config",
}

// inheritedKeys are those that an entry of data_images has from the top if it has none of
// its own.
var inheritedKeys = []string{"name", "description", "os_type", "tags", "image_tags", "enterprise_project_id"}

// quickImportKey marks an import of the common call as a quick one.
const quickImportKey = "is_quick_import"

// otherSources are the keys that name what an image is made of when it is no file, and
// what that takes.
var otherSources = []struct{ key, what, needs string }{
	{"instance_id", "an image of a server", "a compute service"},
	{"volume_id", "an image of a volume", "a block storage service"},
	{"backup_id", "an image of a backup", "a backup service (CBR, CSBS)"},
	{"whole_image_type", "an image of a whole machine", "a backup service (CBR, CSBS)"},
	{"vault_id", "an image of a whole machine", "a backup service (CBR, CSBS)"},
}

// quickImport is POST /v2/cloudimages/quickimport/action.
func (s *server) quickImport(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	return s.accept(c, f, ims.ImportRequest{})
}

// commonImport is POST /v2/cloudimages/action: the keys of one import at the top, or in the
// one entry of data_images. A quick import is said to be one.
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
	if len(entries) == 0 && !f.has("data_images") {
		return s.accept(c, f, ims.ImportRequest{Common: quick == nil || !*quick})
	}
	if err := fileAlone(f, entries...); err != nil {
		return err
	}
	if len(entries) != 1 {
		return ims.Faultf(ims.CodeBadFormat, "data_images has %d entries, this service takes exactly one: send a request for each image", len(entries))
	}
	e := entries[0]
	for _, key := range importKeys {
		if !slices.Contains(inheritedKeys, key) && f.has(key) {
			return ims.Faultf(ims.CodeBadFormat, "%s stands beside data_images: an import is of one image, send a request for each", key)
		}
	}
	for _, key := range inheritedKeys {
		// The two forms of tags are one key.
		if tags := key == "tags" || key == "image_tags"; !e.has(key) && f.has(key) && !(tags && (e.has("tags") || e.has("image_tags"))) {
			e.values[key] = f.values[key]
		}
	}
	if own := e.boolean(quickImportKey); own != nil {
		quick = own
	}
	return s.acceptData(c, e, ims.ImportRequest{Common: quick == nil || !*quick})
}

// dataImport is POST /v1/cloudimages/dataimages/action.
func (s *server) dataImport(c *call) error { return s.importData(c, false) }

// plainDataImport is POST /v1/cloudimages/action. Its client reads the id of the image out
// of the first sub-job.
func (s *server) plainDataImport(c *call) error { return s.importData(c, true) }

func (s *server) importData(c *call, nested bool) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	quick := f.boolean(quickImportKey)
	return s.acceptData(c, f, ims.ImportRequest{Common: quick == nil || !*quick, Nested: nested})
}

// wholeImage is POST /v1/cloudimages/wholeimages/action.
func (s *server) wholeImage(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	f.required("name", ims.CodeNameMissing)
	for _, other := range otherSources {
		f.text(other.key)
	}
	if err := f.failed(); err != nil {
		return err
	}
	return ims.Faultf(ims.CodeUnsupported, "an image of a whole machine takes a backup service (CBR, CSBS), and none is connected to this one; import the disks' files")
}

// fileAlone refuses a body that names another source than a file, or two. An empty text
// names none.
func fileAlone(f *fields, entries ...*fields) error {
	for _, f := range append([]*fields{f}, entries...) {
		for _, other := range otherSources {
			switch v := f.text(other.key); {
			case v == nil || *v == "":
			case f.has("image_url"):
				f.refuse(ims.Faultf(ims.CodeBadFormat, "%s%s stands beside image_url: an image has one source", f.at, other.key))
			default:
				f.refuse(ims.Faultf(ims.CodeUnsupported, "%s%s: %s takes %s, and none is connected to this one; images are made of files (image_url)",
					f.at, other.key, other.what, other.needs))
			}
		}
	}
	return f.failed()
}

// readImport reads the keys of an import into r; their values are checked later.
func readImport(f *fields, r ims.ImportRequest) ims.ImportRequest {
	r.Name = f.text("name")
	r.Description = f.text("description")
	r.OSVersion = f.text("os_version")
	r.OSType = f.text("os_type")
	r.ImageURL = f.text("image_url")
	r.MinDisk = f.integer("min_disk")
	r.MinRAM = f.integer("min_ram")
	r.MaxRAM = f.integer("max_ram")
	r.Tags = f.texts("tags")
	r.ImageTags = readTags(f, "image_tags", true)
	r.Type = f.text("type")
	r.EnterpriseProjectID = f.text("enterprise_project_id")
	r.Architecture = f.text("architecture")
	r.Firmware = f.text("hw_firmware_type")
	r.LicenseType = f.text("license_type")
	r.Config = f.boolean("is_config")
	r.CMKID = f.text("cmk_id")
	return r
}

// acceptData makes a data disk image of the keys, whatever type they name: the call says
// what it is.
func (s *server) acceptData(c *call, f *fields, request ims.ImportRequest) error {
	f.values["type"] = string(ims.EnvData)
	return s.accept(c, f, request)
}

// accept validates the import and hands it on.
func (s *server) accept(c *call, f *fields, request ims.ImportRequest) error {
	if err := fileAlone(f); err != nil {
		return err
	}
	request = readImport(f, request)
	if err := f.failed(); err != nil {
		return err
	}
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
	return c.answerJob(id, err)
}

// answerJob names the job that carries a request out.
func (c *call) answerJob(id string, err error) error {
	if err != nil {
		return imageFault(err)
	}
	writeJSON(c.w, http.StatusOK, wire.Accepted{JobID: id})
	return nil
}

// createImage is POST /v2/images: an image without data, as IMS spells it, into which a
// file is registered or uploaded.
func (s *server) createImage(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	request := ims.QueuedRequest{
		Name: f.text("name"), OSVersion: f.text("__os_version"), DiskFormat: f.text("disk_format"), ContainerFormat: f.text("container_format"),
		Visibility: f.text("visibility"), Protected: f.boolean("protected"), MinDisk: f.integer("min_disk"), MinRAM: f.integer("min_ram"),
		Tags: f.texts("tags"), Attributes: map[string]any{},
	}
	if err := f.failed(); err != nil {
		return err
	}
	for _, a := range ims.Attributes {
		if a.Patchable && a.Name != "name" && a.Name != "min_ram" && f.has(a.Name) {
			request.Attributes[a.Name] = withFloat(f.values[a.Name])
		}
	}
	img, err := request.NewImage(c.project(), s.OSVersions())
	if err != nil {
		return err
	}
	if err := s.mayPublish(c, ims.VisibilityPrivate, img); err != nil {
		return err
	}
	if img, err = s.Catalog.CreateImage(c.Context(), c.principal.Tenant, img, s.Limits); err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v2/images/"+img.ID)
	writeJSON(c.w, http.StatusCreated, newImageWire(img, c.project()))
	return nil
}

// register is PUT /v1/cloudimages/{image_id}/upload: a file becomes the data of a queued
// image.
func (s *server) register(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	url := f.required("image_url", ims.CodeURLFormat)
	if err := f.failed(); err != nil {
		return err
	}
	bucket, key, err := ims.ParseImageURL(url)
	if err != nil {
		return err
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	id, err := s.Importer.Register(c.Context(), c.principal, c.PathValue("image_id"), bucket, key)
	return c.answerJob(id, err)
}
