package api

import (
	"github.com/quickims/quickims/internal/ims"
)

// copyImage is POST /v1/cloudimages/{image_id}/copy: a new image over the same bytes.
func (s *server) copyImage(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	request := ims.CopyRequest{
		Name: f.text("name"), Description: f.text("description"), EnterpriseProjectID: f.text("enterprise_project_id"), CMKID: f.text("cmk_id"),
	}
	if err := f.failed(); err != nil {
		return err
	}
	id, err := imageID(c)
	if err != nil {
		return err
	}
	job, err := s.Importer.Copy(c.Context(), c.principal, id, request)
	return c.answerJob(job, err)
}

// copyAcrossRegions is POST /v1/cloudimages/{image_id}/cross_region_copy. There is one
// region.
func (s *server) copyAcrossRegions(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	name := f.required("name", ims.CodeNameMissing)
	f.required("region", ims.CodeBadFormat)
	f.required("project_name", ims.CodeProjectName)
	f.required("agency_name", ims.CodeBadFormat)
	for _, key := range []string{"description", "vault_id"} {
		f.text(key)
	}
	if err := f.failed(); err != nil {
		return err
	}
	if err := ims.ValidateName(name, "name"); err != nil {
		return err
	}
	if _, _, err := s.visibleImage(c); err != nil {
		return err
	}
	return ims.Faultf(ims.CodeUnsupported, "a copy to another region takes an agency of the identity service and the image service there, and none is connected to this one")
}

// exportImage is POST /v1/cloudimages/{image_id}/file: the stored data becomes an object of
// a bucket.
func (s *server) exportImage(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	request := ims.ExportRequest{BucketURL: f.text("bucket_url"), Format: f.text("file_format"), Quick: f.boolean("is_quick_export")}
	if err := f.failed(); err != nil {
		return err
	}
	img, _, err := s.visibleImage(c)
	switch {
	case err != nil:
		return err
	case img.ProjectID != c.project() && img.Visibility() == ims.VisibilityPublic:
		return ims.Faultf(ims.CodeExportPublic, "the image is public; copy it first, the copy is this project's own")
	}
	if err := s.ownerAlone(c); err != nil {
		return err
	}
	to, err := request.Validate()
	if err != nil {
		return err
	}
	id, err := s.Importer.Export(c.Context(), c.principal, img.ID, to)
	return c.answerJob(id, err)
}
