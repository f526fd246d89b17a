package api

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

// enterpriseWire is an enterprise project as clients read it.
type enterpriseWire struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Status      int    `json:"status"` // 1 enabled, 2 disabled
	Type        string `json:"type"`
	CreatedAt   string `json:"created_at"`
	UpdatedAt   string `json:"updated_at"`
}

// The states of an enterprise project on the wire.
const (
	enterpriseEnabled  = 1
	enterpriseDisabled = 2
)

func newEnterpriseWire(p ims.EnterpriseProject) enterpriseWire {
	w := enterpriseWire{
		ID: p.ID, Name: p.Name, Description: p.Description, Status: enterpriseDisabled, Type: "prod",
		CreatedAt: seconds(p.CreatedAt), UpdatedAt: seconds(p.UpdatedAt),
	}
	if p.Enabled {
		w.Status = enterpriseEnabled
	}
	return w
}

// Limits of an enterprise project's texts, in characters, and of a list's page.
const (
	maxEnterpriseName        = 64
	maxEnterpriseDescription = 512
	maxEnterprisePage        = 1000
	maxOffset                = 1 << 30
)

// unknownEnterprise is the answer for an enterprise project that does not exist, or is
// another domain's.
func unknownEnterprise() error {
	return ims.NotFoundf(ims.CodeEnterpriseProject, "the domain has no enterprise project with this id")
}

func enterpriseFault(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return unknownEnterprise()
	}
	return err
}

// enterpriseID is the enterprise project in the path.
func enterpriseID(c *call) (string, error) {
	id := strings.ToLower(c.PathValue("enterprise_project_id"))
	if id != ims.DefaultEnterpriseProject && !ims.ValidUUID(id) {
		return "", unknownEnterprise()
	}
	return id, nil
}

// answerEnterprise shows one enterprise project.
func answerEnterprise(c *call, status int, p ims.EnterpriseProject) {
	writeJSON(c.w, status, struct {
		Project enterpriseWire `json:"enterprise_project"`
	}{newEnterpriseWire(p)})
}

// listEnterpriseProjects is GET /v1.0/enterprise-projects.
func (s *server) listEnterpriseProjects(c *call) error {
	q := readQuery(c.Request)
	f := catalog.EnterpriseFilter{
		Name: q.one("name"), ID: q.one("id"),
		Limit:  q.number("limit", maxEnterprisePage, 1, maxEnterprisePage),
		Offset: q.number("offset", 0, 0, maxOffset),
	}
	if q.fault != nil {
		return q.fault
	}
	projects, total, err := s.Catalog.EnterpriseProjects(c.Context(), c.principal.Tenant, f)
	if err != nil {
		return err
	}
	list := []enterpriseWire{}
	for _, p := range projects {
		list = append(list, newEnterpriseWire(p))
	}
	writeJSON(c.w, http.StatusOK, struct {
		Projects []enterpriseWire `json:"enterprise_projects"`
		Total    int              `json:"total_count"`
	}{list, total})
	return nil
}

// showEnterpriseProject is GET /v1.0/enterprise-projects/{enterprise_project_id}.
func (s *server) showEnterpriseProject(c *call) error {
	id, err := enterpriseID(c)
	if err != nil {
		return err
	}
	p, err := s.Catalog.EnterpriseProject(c.Context(), c.principal.Tenant, id)
	if err != nil {
		return enterpriseFault(err)
	}
	answerEnterprise(c, http.StatusOK, p)
	return nil
}

// createEnterpriseProject is POST /v1.0/enterprise-projects.
func (s *server) createEnterpriseProject(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	p := ims.EnterpriseProject{
		ID: uuid.NewString(), DomainID: c.principal.Tenant, Enabled: true,
		Name: f.required("name", ims.CodeBadFormat), Description: f.textOr("description", ""),
	}
	if err := f.failed(); err != nil {
		return err
	}
	if err := validateEnterprise(p); err != nil {
		return err
	}
	created, err := s.Catalog.CreateEnterpriseProject(c.Context(), p)
	if err != nil {
		return err
	}
	answerEnterprise(c, http.StatusCreated, created)
	return nil
}

// updateEnterpriseProject is PUT /v1.0/enterprise-projects/{enterprise_project_id}.
func (s *server) updateEnterpriseProject(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	name, description := f.text("name"), f.text("description")
	if err := f.failed(); err != nil {
		return err
	}
	id, err := enterpriseID(c)
	if err != nil {
		return err
	}
	if id == ims.DefaultEnterpriseProject {
		return ims.Faultf(ims.CodeEnterpriseProject, "the default enterprise project can't be changed")
	}
	p, err := s.Catalog.UpdateEnterpriseProject(c.Context(), c.principal.Tenant, id, func(p *ims.EnterpriseProject) error {
		if name != nil {
			p.Name = *name
		}
		if description != nil {
			p.Description = *description
		}
		return validateEnterprise(*p)
	})
	if err != nil {
		return enterpriseFault(err)
	}
	answerEnterprise(c, http.StatusOK, p)
	return nil
}

// validateEnterprise checks the texts. The name "default" is the default one's.
func validateEnterprise(p ims.EnterpriseProject) error {
	n := utf8.RuneCountInString(p.Name)
	switch {
	case n < 1 || n > maxEnterpriseName:
		return ims.Faultf(ims.CodeBadFormat, "name has %d characters, 1 to %d are allowed", n, maxEnterpriseName)
	case strings.ContainsFunc(p.Name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-'
	}):
		return ims.Faultf(ims.CodeBadFormat, "name may hold letters, digits, _ and -")
	case strings.Contains(strings.ToLower(p.Name), "default"):
		return ims.Faultf(ims.CodeBadFormat, "name must not hold the word default")
	case utf8.RuneCountInString(p.Description) > maxEnterpriseDescription:
		return ims.Faultf(ims.CodeBadFormat, "description has more than %d characters", maxEnterpriseDescription)
	case strings.ContainsRune(p.Description, 0):
		return ims.Faultf(ims.CodeBadFormat, "description holds a NUL character")
	}
	return nil
}

// imagesType is what a resource of ours is called in enterprise-project calls.
const imagesType = "images"

// migrateResource is POST /v1.0/enterprise-projects/{enterprise_project_id}/resources-migrate.
func (s *server) migrateResource(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	project := f.text("project_id")
	f.text("region_id") // there is one
	kind := f.textOr("resource_type", imagesType)
	image := f.required("resource_id", ims.CodeBadFormat)
	if err := f.failed(); err != nil {
		return err
	}
	switch {
	case kind != imagesType:
		return ims.Faultf(ims.CodeBadFormat, "resource_type is %q, it must be %s", ims.Clip(kind), imagesType)
	case !ims.ValidUUID(image):
		return unknownImage()
	}
	id, err := enterpriseID(c)
	if err != nil {
		return err
	}
	in, err := s.projectOf(c, project)
	if err != nil {
		return err
	}
	err = s.Catalog.MigrateResource(c.Context(), in.Tenant, in.ProjectID, image, id)
	if ims.CodeOf(err) == ims.CodeEnterpriseProject {
		err = unknownEnterprise() // here it is what the path names
	}
	return s.noContent(c, err)
}

// projectOf is the caller in the project that it names, which its credential must reach,
// and in which it must be allowed to change images. The credential of a project need not
// name it.
func (s *server) projectOf(c *call, named *string) (ims.Principal, error) {
	reached, err := s.Auth.Within(c.Context(), c.principal)
	if err != nil {
		return ims.Principal{}, err
	}
	id := c.project()
	if named != nil {
		id = *named
	}
	at := slices.IndexFunc(reached, func(p ims.Principal) bool { return p.ProjectID == id })
	switch {
	case id == "":
		return ims.Principal{}, ims.Faultf(ims.CodeProjectMismatch, "project_id is missing, and the credentials are a domain's: name the project of the image")
	case at < 0:
		return ims.Principal{}, ims.Faultf(ims.CodeProjectMismatch, "project_id is no project of the credentials")
	case !reached[at].May(ims.ActionImagesUpdate):
		return ims.Principal{}, forbidden(ims.ActionImagesUpdate)
	}
	return reached[at], nil
}

// resourceWire is an image in an enterprise project's list of resources.
type resourceWire struct {
	ID                string `json:"resource_id"`
	Name              string `json:"resource_name"`
	Type              string `json:"resource_type"`
	ProjectID         string `json:"project_id"`
	ProjectName       string `json:"project_name"`
	EnterpriseProject string `json:"enterprise_project_id"`
}

// filterResources is POST /v1.0/enterprise-projects/{enterprise_project_id}/resources/filter.
// It shows the projects that the caller's credential reaches alone, whichever the body names.
func (s *server) filterResources(c *call) error {
	f, err := objectBody(c.body)
	if err != nil {
		return err
	}
	limit, offset := f.integer("limit"), f.integer("offset")
	projects, kinds := f.texts("projects"), f.texts("resource_types")
	if err := f.failed(); err != nil {
		return err
	}
	n, at := int64(maxEnterprisePage), int64(0)
	if limit != nil {
		n = *limit
	}
	if offset != nil {
		at = *offset
	}
	if n < 1 || n > maxEnterprisePage {
		return ims.Faultf(ims.CodeBadFormat, "limit is %d, it must be 1 to %d", n, maxEnterprisePage)
	}
	if at < 0 || at > maxOffset {
		return ims.Faultf(ims.CodeBadFormat, "offset is %d, it must be 0 to %d", at, maxOffset)
	}
	id, err := enterpriseID(c)
	if err != nil {
		return err
	}
	if _, err := s.Catalog.EnterpriseProject(c.Context(), c.principal.Tenant, id); err != nil {
		return enterpriseFault(err)
	}
	answer := struct {
		Resources []resourceWire `json:"resources"`
		Errors    []struct{}     `json:"errors"`
		Total     int            `json:"total_count"`
	}{[]resourceWire{}, []struct{}{}, 0}
	reached, err := s.Auth.Within(c.Context(), c.principal)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, p := range reached {
		if named(projects, p.ProjectID) && named(kinds, imagesType) && p.May(ims.ActionEPSList) {
			names[p.ProjectID] = p.ProjectName
		}
	}
	list, total, err := s.Catalog.ResourcesOf(c.Context(), slices.Sorted(maps.Keys(names)), id, int(n), int(at))
	if err != nil {
		return err
	}
	answer.Total = total
	for _, r := range list {
		answer.Resources = append(answer.Resources, resourceWire{
			ID: r.ID, Name: r.Name, Type: imagesType, ProjectID: r.ProjectID,
			ProjectName: names[r.ProjectID], EnterpriseProject: id,
		})
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

// named reports whether a list asks for a value: an empty one asks for all.
func named(list []string, value string) bool {
	if len(list) == 0 {
		return true
	}
	for _, v := range list {
		if v == value {
			return true
		}
	}
	return false
}
