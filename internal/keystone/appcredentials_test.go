package keystone_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/keystone"
)

// TestApplicationCredentials: made, shown without its secret, logged in with by id and by
// name; the token is for its project with its roles. It ends with its deletion, its time,
// its user's role and its user; a restricted one makes no others.
func TestApplicationCredentials(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		token, _ := s.issue(`{"project":{"id":"p1"}}`)
		own := "/v3/users/" + s.admin.ID + "/application_credentials"
		create := func(token, fields string) reply {
			return s.do("POST", own, `{"application_credential":{`+fields+`}}`, "X-Auth-Token", token)
		}
		login := func(credential string) reply {
			return s.do("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["application_credential"],"application_credential":{`+credential+`}}}}`)
		}
		valid := func(token string) int {
			return s.do("GET", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token).status
		}
		made := create(token, `"name":"ci","roles":[{"name":"admin"}]`)
		id, _ := made.at("application_credential", "id").(string)
		secret, _ := made.at("application_credential", "secret").(string)
		if made.status != 201 || id == "" || len(secret) < 32 || made.at("application_credential", "project_id") != "p1" || made.at("application_credential", "unrestricted") != false {
			t.Fatalf("create: %d %v", made.status, made.body)
		}
		if r := s.do("GET", own+"/"+id, "", "X-Auth-Token", token); r.status != 200 || r.at("application_credential", "secret") != nil || r.at("application_credential", "name") != "ci" {
			t.Errorf("show: %d %v", r.status, r.body)
		}
		if r := s.do("GET", own+"?name=ci", "", "X-Auth-Token", token); r.at("application_credentials", 0, "id") != id {
			t.Errorf("list: %v", r.body)
		}
		s.wantError("a taken name", create(token, `"name":"ci"`), 409, "name")
		s.wantError("a role that is not the user's", create(token, `"name":"x","roles":[{"name":"root"}]`), 400, "role")
		s.wantError("a time that is over", create(token, `"name":"x","expires_at":"2020-01-01T00:00:00"`), 400, "future")
		s.wantError("access rules", create(token, `"name":"x","access_rules":[{"path":"/"}]`), 400, "access_rules")
		s.wantError("another user's", s.do("GET", "/v3/users/other/application_credentials", "", "X-Auth-Token", token), 403, "own user")

		byID := fmt.Sprintf(`"id":%q,"secret":%q`, id, secret)
		for _, credential := range []string{
			byID, fmt.Sprintf(`"name":"ci","secret":%q,"user":{"id":%q}`, secret, s.admin.ID),
			fmt.Sprintf(`"name":"ci","secret":%q,"user":{"name":"admin","domain":{"name":"default"}}`, secret),
		} {
			r := login(credential)
			if r.status != 201 || r.at("token", "project", "id") != "p1" || r.at("token", "roles", 0, "name") != "admin" || r.at("token", "methods", 0) != "application_credential" {
				t.Errorf("login with %s: %d %v", credential, r.status, r.body)
			}
		}
		s.wantError("a wrong secret", login(fmt.Sprintf(`"id":%q,"secret":"wrong secret"`, id)), 401, "wrong")
		s.wantError("an unknown one", login(`"id":"nothing","secret":"wrong secret"`), 401, "wrong")
		s.wantError("no user", login(`"name":"ci","secret":"x"`), 400, "user")
		s.wantError("a scope", s.do("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["application_credential"],"application_credential":{`+byID+`}},"scope":{"project":{"id":"p1"}}}}`), 401, "scope")

		restricted := login(byID).header.Get("X-Subject-Token")
		s.wantError("a restricted one makes another", create(restricted, `"name":"y"`), 403, "restricted")
		s.wantError("a restricted one deletes", s.do("DELETE", own+"/"+id, "", "X-Auth-Token", restricted), 403, "restricted")
		if r := s.do("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["token"],"token":{"id":"`+restricted+`"}}}}`); r.status != 401 {
			t.Errorf("out of its project: %d %v", r.status, r.body)
		}
		free := create(token, `"name":"free","unrestricted":true,"secret":"a secret of mine","expires_at":"2024-11-06T07:00:00Z"`)
		freeID, _ := free.at("application_credential", "id").(string)
		free = login(fmt.Sprintf(`"id":%q,"secret":"a secret of mine"`, freeID))
		freeToken := free.header.Get("X-Subject-Token")
		if free.status != 201 || free.at("token", "expires_at") != "2024-11-06T07:00:00.000000Z" {
			t.Errorf("the token outlives its credential: %v", free.body)
		}
		if r := create(freeToken, `"name":"z"`); r.status != 201 {
			t.Errorf("an unrestricted one: %d %v", r.status, r.body)
		}
		s.advance(time.Hour)
		if r := login(fmt.Sprintf(`"id":%q,"secret":"a secret of mine"`, freeID)); r.status != 401 || valid(freeToken) != 401 {
			t.Errorf("expired: %d, its token %d", r.status, valid(freeToken))
		}
		if valid(restricted) != 200 {
			t.Fatal("the token has ended too early")
		}
		if r := s.do("DELETE", own+"/"+id, "", "X-Auth-Token", token); r.status != 204 {
			t.Errorf("delete: %d %v", r.status, r.body)
		}
		if valid(restricted) != 401 || login(byID).status != 401 {
			t.Error("it outlives its deletion")
		}
		s.wantError("a second deletion", s.do("DELETE", own+"/"+id, "", "X-Auth-Token", token), 404, "application credential")

		last := create(token, `"name":"last"`)
		lastOne := fmt.Sprintf(`"id":%q,"secret":%q`, last.at("application_credential", "id"), last.at("application_credential", "secret"))
		if err := s.users.Revoke(t.Context(), identity.Grant{UserID: s.admin.ID, ProjectID: "p1", Role: ims.RoleAdmin}); err != nil {
			t.Fatal(err)
		}
		if r := login(lastOne); r.status != 401 {
			t.Errorf("without its role: %d %v", r.status, r.body)
		}
	})
}

// TestDirectory: entries by id, the default domain by its usual names, and a project of
// somebody else's, which a client looks up to share an image with it.
func TestDirectory(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := newSite(t, db, keystone.Options{Region: "eu-de"})
		ctx := t.Context()
		if _, err := s.users.CreateDomain(ctx, "d2", "elsewhere"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.users.CreateProject(ctx, identity.Project{ID: "p9", DomainID: "d2", Name: "secret name"}); err != nil {
			t.Fatal(err)
		}
		token, issued := s.issue(`{"project":{"id":"p1"}}`)
		get := func(path string) reply { return s.do("GET", path, "", "X-Auth-Token", token) }
		service := issued.at("token", "catalog", 0, "id").(string)
		endpoint := issued.at("token", "catalog", 0, "endpoints", 0, "id").(string)
		for path, want := range map[string][]any{
			"/v3/projects/p1": {"project", "name", "eu-de"}, "/v3/projects/p9": {"project", "name", "p9"}, "/v3/users/" + s.admin.ID: {"user", "name", "admin"},
			"/v3/domains/d1": {"domain", "name", "Default"}, "/v3/domains/default": {"domain", "id", "d1"}, "/v3/domains?name=default": {"domains", 0, "id", "d1"},
			"/v3/regions/eu-de": {"region", "id", "eu-de"}, "/v3/roles/reader": {"role", "name", "reader"}, "/v3/services/" + service: {"service", "type", "image"},
			"/v3/endpoints/" + endpoint: {"endpoint", "service_id", service}, "/v3/endpoints?service_id=" + service: {"endpoints", 0, "id", endpoint},
			"/v3/services?type=identity": {"services", 0, "type", "identity"},
		} {
			r := get(path)
			if last := len(want) - 1; r.status != 200 || r.at(want[:last]...) != want[last] {
				t.Errorf("%s: %d %v, want %v", path, r.status, r.body, want)
			}
		}
		if r := get("/v3/projects/p9"); r.at("project", "domain_id") != "" {
			t.Errorf("too much of a stranger's project: %v", r.body)
		}
		if r := get("/v3/auth/system"); r.status != 200 || r.at("system", 0) != nil {
			t.Errorf("/v3/auth/system: %d %v", r.status, r.body)
		}
		for _, path := range []string{"/v3/projects/nothing", "/v3/users/other", "/v3/domains/d2", "/v3/regions/x", "/v3/services/x", "/v3/endpoints/x", "/v3/roles/x"} {
			s.wantError(path, get(path), 404, "Could not find")
		}
		r := s.do("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"`+s.admin.ID+`","password":"correct horse"}}},"scope":{"system":{"all":true}}}}`)
		s.wantError("the system as a scope", r, 401, "system")
	})
}
