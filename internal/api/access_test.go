package api_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
)

// fill puts values into a route's path.
func fill(path string, values map[string]string) string {
	for name, v := range values {
		path = strings.ReplaceAll(path, "{"+name+"}", v)
	}
	return path
}

// TestEveryRouteAsksForCredentials: without any, with a wrong token, with a wrong
// signature, and before the body is looked at.
func TestEveryRouteAsksForCredentials(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	values := map[string]string{
		"project_id": c.project, "image_id": ims.NewImageID(), "job_id": ims.NewJobID(), "key": "k", "member_id": "m", "attachment_id": "a", "enterprise_project_id": "0",
	}
	for _, r := range api.Routes() {
		if r.Public || strings.HasPrefix(r.Path, "/v3") {
			continue
		}
		path := fill(r.Path, values)
		nobody := caller{world: shared}
		for _, header := range [][]string{
			nil, {"X-Auth-Token", "wrong"}, {"X-Auth-Token", c.logins[ims.RoleMember] + "x"},
			{"Authorization", "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=00", "X-Sdk-Date", "20250101T000000Z"},
			{"Authorization", "Basic YWRtaW46YWRtaW4="},
		} {
			a := nobody.send(t, r.Method, path, "no json", header...)
			a.refused(t, http.StatusUnauthorized, "IMG.0087")
			if a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: no WWW-Authenticate", r.Method, path)
			}
		}
	}
}

// TestRightsOfRoles sends every role to every route: who lacks the right is told so
// before the body is looked at, and the reader changes nothing.
func TestRightsOfRoles(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	image := c.active(t, systemDisk(map[string]any{"tags": []string{"k.v"}}))
	before := c.send(t, "GET", "/v2/images/"+image, "").body
	values := map[string]string{
		"project_id": c.project, "image_id": image, "job_id": ims.NewJobID(), "key": "k", "member_id": "m", "attachment_id": "a", "enterprise_project_id": "0",
	}
	for _, role := range []ims.Role{ims.RoleReader, ims.RoleMember} {
		caller := c.as(t, role, c.project)
		for _, r := range api.Routes() {
			if r.Public || len(r.Actions) == 0 {
				continue
			}
			allowed := false
			for _, a := range r.Actions {
				allowed = allowed || role.Allows(a)
			}
			if allowed && (r.Method == "DELETE" || r.Method == "PUT" && strings.HasSuffix(r.Path, "{tag}") || r.Stream) {
				continue // would do it
			}
			a := caller.send(t, r.Method, fill(r.Path, values), "no json")
			if forbidden := a.status == http.StatusForbidden; forbidden == allowed {
				t.Errorf("%s: %s %s: status %d, may it: %v", role, r.Method, r.Path, a.status, allowed)
			}
			if !allowed {
				details := a.refused(t, http.StatusForbidden, "IMG.0026")
				if !strings.Contains(details, string(r.Actions[0])) {
					t.Errorf("%s %s: details %q do not name the action", r.Method, r.Path, details)
				}
			}
		}
	}
	if after := c.send(t, "GET", "/v2/images/"+image, "").body; !bytes.Equal(before, after) {
		t.Errorf("the image is\n%s\nit was\n%s", after, before)
	}
}

// TestProjectInThePath: the token's project and the path's must be one, whether the
// path's exists or not, and before the right is looked at.
func TestProjectInThePath(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	other := shared.newProject(t)
	reader := c.as(t, ims.RoleReader, c.project)
	for _, r := range api.Routes() {
		if r.Scope != api.ScopePathProject {
			continue
		}
		for _, project := range []string{other.project, ims.NewJobID(), "x", "%00"} {
			values := map[string]string{"project_id": project, "image_id": ims.NewImageID(), "job_id": ims.NewJobID(), "key": "k", "member_id": "m", "attachment_id": "a"}
			reader.refused(t, http.StatusBadRequest, "IMG.0030", r.Method, fill(r.Path, values), "no json")
		}
	}
}

// TestTokensWithoutAProject open what needs none, and nothing else.
func TestTokensWithoutAProject(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	unscoped := caller{world: shared, token: shared.logins[ims.RoleMember]}
	token, _, err := shared.identity.LoginToken(t.Context(), shared.logins[ims.RoleMember], identity.Scope{DomainID: shared.domain})
	if err != nil {
		t.Fatal(err)
	}
	domain := caller{world: shared, token: token}
	for _, r := range api.Routes() {
		if r.Scope != api.ScopeProject && r.Scope != api.ScopePathProject {
			continue
		}
		values := map[string]string{"project_id": c.project, "image_id": ims.NewImageID(), "job_id": ims.NewJobID(), "key": "k", "member_id": "m", "attachment_id": "a", "enterprise_project_id": "0"}
		unscoped.refused(t, http.StatusBadRequest, "IMG.0030", r.Method, fill(r.Path, values), "")
		domain.refused(t, http.StatusBadRequest, "IMG.0030", r.Method, fill(r.Path, values), "")
	}
	for _, who := range []caller{unscoped, domain} {
		if a := who.send(t, "GET", "/v1/cloudimages/os_version", ""); a.status != http.StatusOK {
			t.Errorf("os_version: %d %s", a.status, a.body)
		}
	}
	domain.expect(t, http.StatusOK, "GET", eps, "")
	unscoped.refused(t, http.StatusForbidden, "IMG.0026", "GET", eps, "")
}

// TestForeignIsUnknown: what belongs to another project answers byte for byte as what
// never was, on every route, and stays as it is.
func TestForeignIsUnknown(t *testing.T) {
	t.Parallel()
	owner := shared.newProject(t)
	job, image := owner.accepted(t, systemDisk(map[string]any{"tags": []string{"k.v"}}))
	owner.publish(t, job, image, 4096)
	before := owner.send(t, "GET", "/v2/images/"+image, "").body
	c := shared.newProject(t)
	c = c.as(t, ims.RoleAdmin, c.project) // has every right
	bodies := map[string]string{
		"PATCH /v2/images/{image_id}":                         `[{"op":"replace","path":"/name","value":"mine"}]`,
		"PATCH /v2/cloudimages/{image_id}":                    `[{"op":"replace","path":"/name","value":"mine"}]`,
		"POST /v2/{project_id}/images/{image_id}/tags":        `{"tag":{"key":"a","value":"b"}}`,
		"POST /v2/images/{image_id}/members":                  `{"member":"p"}`,
		"PUT /v1/cloudimages/{image_id}/upload":               `{"image_url":"disks:web.raw"}`,
		"POST /v1/cloudimages/{image_id}/copy":                `{"name":"n"}`,
		"POST /v2.1/cloudimages/{image_id}/copy":              `{"name":"n"}`,
		"POST /v1/cloudimages/{image_id}/cross_region_copy":   `{"name":"n","region":"r","project_name":"r","agency_name":"a"}`,
		"POST /v1/cloudimages/{image_id}/file":                `{"bucket_url":"disks:out","is_quick_export":true}`,
		"POST /v2.1/cloudimages/{image_id}/file":              `{"bucket_url":"disks:out","is_quick_export":true}`,
		"PUT /v2/images/{image_id}/members/{member_id}":       `{"status":"accepted"}`,
		"POST /image/v2/images/{image_id}/members":            `{"member":"p"}`,
		"PATCH /image/v2/images/{image_id}":                   `[{"op":"replace","path":"/name","value":"mine"}]`,
		"POST /image/v2/images/{image_id}/import":             `{"method":{"name":"glance-direct"}}`,
		"PUT /image/v2/images/{image_id}/members/{member_id}": `{"status":"accepted"}`,
		"POST /v2/{project_id}/images/{image_id}/tags/action": `{"action":"delete","tags":[{"key":"k"}]}`,

		"DELETE /v1/{project_id}/cloudimages/{image_id}/tags/delete": `{"tags":[{"key":"k"}]}`,
	}
	compared := 0
	for _, r := range api.Routes() {
		if !strings.Contains(r.Path, "{image_id}") && !strings.Contains(r.Path, "{job_id}") {
			continue
		}
		ask := func(image, job string) answer {
			path := fill(r.Path, map[string]string{"project_id": c.project, "image_id": image, "job_id": job, "key": "k", "tag": "k", "member_id": "m", "attachment_id": "a"})
			return c.send(t, r.Method, path, bodies[r.Method+" "+r.Path], "X-Request-Id", "the-same")
		}
		foreign, unknown := ask(image, job), ask(ims.NewImageID(), ims.NewJobID())
		foreign.refused(t, http.StatusNotFound, map[bool]ims.Code{true: "IMG.0023", false: "IMG.0027"}[strings.Contains(r.Path, "{job_id}")])
		foreign.header.Del("Date")
		unknown.header.Del("Date")
		if foreign.status != unknown.status || !bytes.Equal(foreign.body, unknown.body) || jsonText(foreign.header) != jsonText(unknown.header) {
			t.Errorf("%s %s: foreign and unknown differ:\n%d %v %s\n%d %v %s", r.Method, r.Path,
				foreign.status, foreign.header, foreign.body, unknown.status, unknown.header, unknown.body)
		}
		compared++
	}
	if compared < 9 {
		t.Errorf("only %d routes were compared", compared)
	}
	// Lists, filters, markers and tags show nothing of it either.
	for _, query := range []string{"", "id=" + image, "name=web+server", "tag=k", "status=active"} {
		if got := c.list(t, query); len(got) != 0 {
			t.Errorf("?%s shows %v", query, got)
		}
	}
	foreign := c.send(t, "GET", "/v2/cloudimages?marker="+image, "", "X-Request-Id", "the-same")
	unknown := c.send(t, "GET", "/v2/cloudimages?marker="+ims.NewImageID(), "", "X-Request-Id", "the-same")
	if !bytes.Equal(foreign.body, unknown.body) {
		t.Errorf("markers differ:\n%s\n%s", foreign.body, unknown.body)
	}
	if v := c.expect(t, http.StatusOK, "GET", "/v2/"+c.project+"/images/tags", ""); jsonText(v) != `{"tags":[]}` {
		t.Errorf("tags %v", v)
	}
	if after := owner.send(t, "GET", "/v2/images/"+image, "").body; !bytes.Equal(before, after) {
		t.Errorf("the image is\n%s\nit was\n%s", after, before)
	}
}

// TestSignedRequests: the other way in works on the same routes.
func TestSignedRequests(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	users, err := c.identity.Users(t.Context(), c.domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if u.Name != string(ims.RoleMember) {
			continue
		}
		key, err := c.identity.CreateAccessKey(t.Context(), identity.AccessKey{UserID: u.ID, ProjectID: c.project})
		if err != nil {
			t.Fatal(err)
		}
		signedImport(t, c, key)
	}
}

// signedImport imports with a signature, and with the same one over other bytes.
func signedImport(t *testing.T, c caller, key identity.AccessKey) {
	t.Helper()
	for _, sent := range []string{systemDisk(nil), systemDisk(map[string]any{"name": "changed"})} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", c.url+quickImport, strings.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		if err := signature.Sign(req, []byte(systemDisk(nil)), key.AccessKey, string(key.SecretKey), time.Now()); err != nil {
			t.Fatal(err)
		}
		resp, err := c.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if sent == systemDisk(nil) {
			if resp.StatusCode != http.StatusOK {
				t.Errorf("signed: %d %s", resp.StatusCode, content)
			}
			continue
		}
		answer{status: resp.StatusCode, header: resp.Header, body: content}.refused(t, http.StatusUnauthorized, "IMG.0087")
	}
	c.owns(t, 1)
}
