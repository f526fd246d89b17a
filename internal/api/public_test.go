package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// TestPublicImage: an admin of the service's own project publishes an image, on either
// face it is seen, read and attached by all others and changed by none of them, and it can
// be withdrawn again. Nobody else publishes.
func TestPublicImage(t *testing.T) {
	t.Parallel()
	service := ims.NewJobID()
	w := newWorld(t, func(c *api.Config) { c.ServiceProject = service })
	if _, err := w.identity.CreateProject(t.Context(), identity.Project{ID: service, Name: "service", DomainID: w.domain}); err != nil {
		t.Fatal(err)
	}
	admin, member := w.as(t, ims.RoleAdmin, service), w.as(t, ims.RoleMember, service)
	other := w.newProject(t)
	stranger := w.as(t, ims.RoleAdmin, other.project)
	id := member.active(t, systemDisk(nil))
	w.disks.put(id, []byte("the disk of a public image"), -1, nil)
	glance, cloud := glanceImages+"/"+id, "/v2/images/"+id
	const publish = `[{"op":"replace","path":"/visibility","value":"public"}]`

	member.refused(t, http.StatusForbidden, "IMG.0161", "PATCH", glance, publish)
	stranger.refused(t, http.StatusNotFound, "IMG.0027", "PATCH", glance, publish)
	own := stranger.active(t, systemDisk(nil))
	stranger.refused(t, http.StatusForbidden, "IMG.0161", "PATCH", glanceImages+"/"+own, publish)
	stranger.refused(t, http.StatusForbidden, "IMG.0161", "POST", glanceImages, `{"visibility":"public"}`)
	admin.expect(t, http.StatusCreated, "POST", glanceImages, `{"visibility":"public","os_hidden":true}`)

	if v := admin.expect(t, 200, "PATCH", glance, publish); v["visibility"] != "public" {
		t.Errorf("published: %v", v)
	}
	if v := other.expect(t, 200, "GET", glance, ""); v["visibility"] != "public" || v["protected"] != false {
		t.Errorf("Glance shows %v", v)
	}
	v := other.expect(t, 200, "GET", cloud, "")
	for key, want := range map[string]any{
		"visibility": "public", "__imagetype": "gold", "protected": true, "owner": service, "__data_origin": "file", "enterprise_project_id": "0",
	} {
		if v[key] != want {
			t.Errorf("IMS: %s is %v, want %v", key, v[key], want)
		}
	}
	for query, want := range map[string]bool{
		"": true, "visibility=public": true, "__imagetype=gold": true, "__imagetype=gold&visibility=public&protected=true": true,
		"__imagetype=gold&enterprise_project_id=0&status=active": true, "enterprise_project_id=all_granted_eps": true, "id=" + id: true, "owner=" + service: true,
		"visibility=private": false, "__imagetype=private": false, "__imagetype=shared": false, "__imagetype=market": false,
		"__imagetype=gold&visibility=private": false, "enterprise_project_id=0": false, "protected=false": false, "owner=" + other.project: false,
	} {
		for _, path := range []string{"/v2/cloudimages", "/v2/images"} {
			if path == "/v2/images" && query == "enterprise_project_id=all_granted_eps" {
				continue
			}
			if got := slices.Contains(other.ids(t, path+"?"+query), id); got != want {
				t.Errorf("%s?%s lists it: %v, want %v", path, query, got, want)
			}
		}
	}
	for query, want := range map[string]bool{
		"": true, "visibility=public": true, "visibility=public&sort=created_at:desc&limit=1&status=active": true, "owner=" + service: true,
		"visibility=private": false, "visibility=shared": false, "member_status=all&visibility=shared": false,
	} {
		if got := slices.Contains(other.ids(t, glanceImages+"?"+query), id); got != want {
			t.Errorf("%s?%s lists it: %v, want %v", glanceImages, query, got, want)
		}
	}

	if a := other.send(t, "GET", cloud+"/file", ""); a.status != 200 || string(a.body) != "the disk of a public image" {
		t.Errorf("read: %d %s", a.status, a.body)
	}
	attachment, _ := other.attach(t, id)
	for _, tc := range []struct {
		status             int
		code               ims.Code
		method, path, body string
	}{
		{403, "IMG.0047", "PATCH", glance, `[{"op":"replace","path":"/name","value":"x"}]`},
		{404, "IMG.0027", "PATCH", "/v2/cloudimages/" + id, `[{"op":"replace","path":"/name","value":"x"}]`},
		{404, "IMG.0027", "DELETE", cloud, ""},
		{404, "IMG.0027", "DELETE", glance, `{"force":true}`},
		{403, "IMG.0047", "POST", glance + "/members", `{"member":"` + other.project + `"}`},
		{404, "IMG.0121", "PUT", glance + "/members/" + other.project, `{"status":"accepted"}`},
		{403, "IMG.0047", "PUT", glance + "/tags/x", ""},
		{403, "IMG.0047", "POST", glance + "/actions/deactivate", ""},
		{404, "IMG.0027", "POST", "/v2/" + other.project + "/images/" + id + "/tags", `{"tag":{"key":"a","value":"b"}}`},
	} {
		stranger.refused(t, tc.status, tc.code, tc.method, tc.path, tc.body)
	}
	admin.refused(t, http.StatusBadRequest, "IMG.0089", "POST", cloud+"/members", `{"member":"`+other.project+`"}`)
	if n := other.expect(t, 200, "GET", "/v1/cloudimages/quota", "")["quotas"].(map[string]any)["resources"].([]any)[0].(map[string]any)["used"]; n != 1.0 {
		t.Errorf("the others' quota counts %v images, want their own one", n)
	}

	member.refused(t, http.StatusForbidden, "IMG.0161", "PATCH", glance, `[{"op":"replace","path":"/visibility","value":"private"}]`)
	admin.expect(t, 200, "PATCH", glance, `[{"op":"replace","path":"/visibility","value":"shared"}]`)
	other.refused(t, http.StatusNotFound, "IMG.0027", "GET", cloud, "")
	other.refused(t, http.StatusNotFound, "IMG.0121", "GET", "/v1/"+other.project+"/attachments/"+attachment, "")
	if got := other.ids(t, "/v2/cloudimages?visibility=public"); slices.Contains(got, id) {
		t.Errorf("withdrawn, and listed: %v", got)
	}
}

// ids are those of a list, without its hidden images.
func (c caller) ids(t testing.TB, path string) []string {
	t.Helper()
	var out []string
	for _, v := range c.expect(t, http.StatusOK, "GET", path, "")["images"].([]any) {
		out = append(out, fmt.Sprint(v.(map[string]any)["id"]))
	}
	return out
}
