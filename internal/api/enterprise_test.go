package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// newEnterprise makes an enterprise project and gives its id and name.
func (c caller) newEnterprise(t testing.TB) (id, name string) {
	t.Helper()
	name = "team-" + ims.NewJobID()
	v := c.as(t, ims.RoleAdmin, c.project).expect(t, http.StatusCreated, "POST", "/v1.0/enterprise-projects", `{"name":"`+name+`","description":"why"}`)
	id, _ = v["enterprise_project"].(map[string]any)["id"].(string)
	return id, name
}

const eps = "/v1.0/enterprise-projects"

func TestEnterpriseProjects(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	admin := c.as(t, ims.RoleAdmin, c.project)
	id, name := c.newEnterprise(t)
	want := func(v map[string]any, fields map[string]any) {
		t.Helper()
		p, _ := v["enterprise_project"].(map[string]any)
		for key, want := range fields {
			if fmt.Sprint(p[key]) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", key, p[key], want)
			}
		}
	}
	want(c.expect(t, http.StatusOK, "GET", eps+"/"+id, ""), map[string]any{"id": id, "name": name, "description": "why", "status": 1, "type": "prod"})
	want(c.expect(t, http.StatusOK, "GET", eps+"/0", ""), map[string]any{"id": "0", "name": "default", "status": 1})
	want(admin.expect(t, http.StatusOK, "PUT", eps+"/"+id, `{"description":""}`), map[string]any{"name": name, "description": ""})
	want(admin.expect(t, http.StatusOK, "PUT", eps+"/"+id, `{"name":"`+name+`-2"}`), map[string]any{"name": name + "-2"})

	listed := func(query string) string {
		t.Helper()
		v := c.expect(t, http.StatusOK, "GET", eps+"?"+query, "")
		list, _ := v["enterprise_projects"].([]any)
		var ids []string
		for _, p := range list {
			ids = append(ids, fmt.Sprint(p.(map[string]any)["id"]))
		}
		return strings.Join(ids, " ")
	}
	if got := listed("name=" + name); got != id {
		t.Errorf("by name: %s", got)
	}
	if got := listed("id=" + id); got != id {
		t.Errorf("by id: %s", got)
	}
	if got := listed("limit=1"); got != "0" {
		t.Errorf("the first: %s", got)
	}
	if got := listed("id=" + ims.NewImageID()); got != "" {
		t.Errorf("an unknown id: %s", got)
	}

	for _, tc := range []struct {
		method, path, body string
		status             int
		code               ims.Code
	}{
		{"POST", eps, `{}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":""}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"a b"}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"Default-1"}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"` + strings.Repeat("n", 65) + `"}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"n","description":"` + strings.Repeat("d", 513) + `"}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"n","description":"\u0000"}`, 400, "IMG.0001"},
		{"POST", eps, `{"name":"` + name + `-2"}`, 409, "IMG.0035"},
		{"PUT", eps + "/" + id, `{"name":"a/b"}`, 400, "IMG.0001"},
		{"PUT", eps + "/0", `{"name":"x"}`, 400, "IMG.0155"},
		{"PUT", eps + "/" + ims.NewImageID(), `{"name":"x"}`, 404, "IMG.0155"},
		{"GET", eps + "/" + ims.NewImageID(), "", 404, "IMG.0155"},
		{"GET", eps + "/nonsense", "", 404, "IMG.0155"},
		{"GET", eps + "?limit=0", "", 400, "IMG.0001"},
		{"GET", eps + "?offset=-1", "", 400, "IMG.0001"},
	} {
		admin.refused(t, tc.status, tc.code, tc.method, tc.path, tc.body)
	}
	// Another domain's are unknown.
	foreign := c.anotherDomain(t)
	foreign.refused(t, http.StatusNotFound, "IMG.0155", "GET", eps+"/"+id, "")
	foreign.refused(t, http.StatusNotFound, "IMG.0155", "PUT", eps+"/"+id, `{"name":"x"}`)
	foreign.refused(t, http.StatusBadRequest, "IMG.0155", "POST", quickImport, systemDisk(map[string]any{"enterprise_project_id": id}))
	foreign.expect(t, http.StatusCreated, "POST", eps, `{"name":"`+name+`-2"}`)
}

// TestMigrateResource moves an image as the Terraform provider does, and looks for it
// page by page.
func TestMigrateResource(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id, _ := c.newEnterprise(t)
	other := shared.newProject(t)
	foreign := other.active(t, systemDisk(nil))
	image := c.active(t, systemDisk(map[string]any{"name": "mover"}))
	migrate := func(image string) string {
		return `{"project_id":"` + c.project + `","region_id":"r","resource_id":"` + image + `","resource_type":"images"}`
	}
	found := func(ep, projects string) (ids []string) {
		t.Helper()
		for offset := 0; ; offset++ {
			v := c.expect(t, http.StatusOK, "POST", eps+"/"+ep+"/resources/filter",
				fmt.Sprintf(`{"limit":1,"offset":%d,"projects":%s,"resource_types":["images"]}`, offset, projects))
			page, _ := v["resources"].([]any)
			if len(page) == 0 {
				return ids
			}
			ids = append(ids, fmt.Sprint(page[0].(map[string]any)["resource_id"]))
		}
	}
	if got := found("0", "[]"); len(got) != 1 || got[0] != image {
		t.Errorf("the default one holds %v", got)
	}
	c.expect(t, http.StatusNoContent, "POST", eps+"/"+id+"/resources-migrate", migrate(image))
	if got := found(id, "[]"); len(got) != 1 || got[0] != image {
		t.Errorf("the new one holds %v", got)
	}
	if got := found(id, `["`+c.project+`","x"]`); len(got) != 1 {
		t.Errorf("by project: %v", got)
	}
	if got := found(id, `["`+other.project+`"]`); len(got) != 0 {
		t.Errorf("another project's: %v", got)
	}
	if got := found("0", "[]"); len(got) != 0 {
		t.Errorf("the default one still holds %v", got)
	}
	if v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+image, ""); v["enterprise_project_id"] != id {
		t.Errorf("the image is in %v", v["enterprise_project_id"])
	}
	v := c.expect(t, http.StatusOK, "POST", eps+"/"+id+"/resources/filter", `{"resource_types":["disk"]}`)
	if list, _ := v["resources"].([]any); len(list) != 0 {
		t.Errorf("resources of another type: %v", list)
	}

	c.refused(t, http.StatusNotFound, "IMG.0027", "POST", eps+"/"+id+"/resources-migrate", migrate(foreign))
	c.refused(t, http.StatusNotFound, "IMG.0027", "POST", eps+"/"+id+"/resources-migrate", migrate(ims.NewImageID()))
	c.refused(t, http.StatusNotFound, "IMG.0027", "POST", eps+"/"+id+"/resources-migrate", migrate("x"))
	c.refused(t, http.StatusNotFound, "IMG.0155", "POST", eps+"/"+ims.NewImageID()+"/resources-migrate", migrate(image))
	c.refused(t, http.StatusNotFound, "IMG.0155", "POST", eps+"/"+ims.NewImageID()+"/resources/filter", `{}`)
	c.refused(t, http.StatusBadRequest, "IMG.0030", "POST", eps+"/"+id+"/resources-migrate", strings.Replace(migrate(image), c.project, other.project, 1))
	c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", eps+"/"+id+"/resources-migrate", strings.Replace(migrate(image), "images", "disk", 1))
	c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", eps+"/"+id+"/resources-migrate", `{}`)
	for _, body := range []string{`{"limit":0}`, `{"limit":1001}`, `{"offset":-1}`, `{"offset":1e300}`} {
		c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", eps+"/"+id+"/resources/filter", body)
	}
	c.as(t, ims.RoleReader, c.project).refused(t, http.StatusForbidden, "IMG.0026", "POST", eps+"/"+id+"/resources-migrate", migrate(image))
}

// TestMigrateResourceOfADomain: the credential of a domain moves the images of those
// projects in which its user may change them, and lists those in which it has a role.
func TestMigrateResourceOfADomain(t *testing.T) {
	t.Parallel()
	const password = "correct horse"
	one, two, none := shared.newProject(t), shared.newProject(t), shared.newProject(t)
	id, _ := one.newEnterprise(t)
	u, err := shared.identity.CreateUser(t.Context(), identity.User{Name: "u " + ims.NewJobID(), DomainID: shared.domain}, password)
	if err != nil {
		t.Fatal(err)
	}
	for project, role := range map[string]ims.Role{one.project: ims.RoleMember, two.project: ims.RoleReader} {
		if err := shared.identity.Grant(t.Context(), identity.Grant{UserID: u.ID, ProjectID: project, Role: role}); err != nil {
			t.Fatal(err)
		}
	}
	token, _, err := shared.identity.LoginPassword(t.Context(), identity.PasswordLogin{UserID: u.ID, Password: password}, identity.Scope{DomainID: shared.domain})
	if err != nil {
		t.Fatal(err)
	}
	domain := caller{world: shared, token: token}
	migrate := func(c caller, project string) string {
		return `{"project_id":` + project + `,"resource_id":"` + c.active(t, systemDisk(nil)) + `","resource_type":"images"}`
	}
	path := eps + "/" + id + "/resources-migrate"
	domain.expect(t, http.StatusNoContent, "POST", path, migrate(one, `"`+one.project+`"`))
	two.expect(t, http.StatusNoContent, "POST", path, migrate(two, `"`+two.project+`"`))
	none.expect(t, http.StatusNoContent, "POST", path, migrate(none, `"`+none.project+`"`))
	domain.refused(t, http.StatusForbidden, "IMG.0026", "POST", path, migrate(two, `"`+two.project+`"`))
	domain.refused(t, http.StatusBadRequest, "IMG.0030", "POST", path, migrate(none, `"`+none.project+`"`))
	domain.refused(t, http.StatusBadRequest, "IMG.0030", "POST", path, migrate(one, `null`))
	domain.refused(t, http.StatusNotFound, "IMG.0027", "POST", path, migrate(none, `"`+one.project+`"`))
	for projects, want := range map[string][]string{
		`[]`: {one.project, two.project}, `["` + two.project + `"]`: {two.project}, `["` + none.project + `"]`: nil,
	} {
		v := domain.expect(t, http.StatusOK, "POST", eps+"/"+id+"/resources/filter", `{"projects":`+projects+`,"resource_types":["images"]}`)
		var got []string
		for _, r := range v["resources"].([]any) {
			got = append(got, r.(map[string]any)["project_id"].(string))
		}
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) || v["total_count"] != float64(len(want)) {
			t.Errorf("of the projects %s: images of %v, want %v", projects, got, want)
		}
	}
}
