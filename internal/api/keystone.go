package api

import (
	"net/http"

	"github.com/quickims/quickims/internal/keystone"
)

// keystoneRoutes are those of /v3. What answers them asks for the credentials itself:
// a token may be the very thing that is asked for.
func keystoneRoutes() []Route {
	type handler = func(*keystone.Handlers, http.ResponseWriter, *http.Request)
	entry := func(method, path string, public bool, h handler) Route {
		return Route{Method: method, Path: path, Public: public, own: true, handle: func(s *server, c *call) error {
			h(s.Keystone, c.w, c.Request)
			return nil
		}}
	}
	return []Route{
		entry(http.MethodGet, "/", true, (*keystone.Handlers).Versions),
		entry(http.MethodGet, "/v3", true, (*keystone.Handlers).Version),
		entry(http.MethodGet, "/v3/", true, (*keystone.Handlers).Version),
		entry(http.MethodPost, "/v3/auth/tokens", true, (*keystone.Handlers).IssueToken),
		entry(http.MethodGet, "/v3/auth/tokens", false, (*keystone.Handlers).ShowToken),
		entry(http.MethodDelete, "/v3/auth/tokens", false, (*keystone.Handlers).RevokeToken),
		entry(http.MethodGet, "/v3/auth/catalog", false, (*keystone.Handlers).Catalog),
		entry(http.MethodGet, "/v3/auth/projects", false, (*keystone.Handlers).Projects),
		entry(http.MethodGet, "/v3/auth/domains", false, (*keystone.Handlers).Domains),
		entry(http.MethodGet, "/v3/projects", false, (*keystone.Handlers).Projects),
		entry(http.MethodGet, "/v3/users", false, (*keystone.Handlers).Users),
		entry(http.MethodGet, "/v3/users/{user_id}", false, (*keystone.Handlers).User),
		entry(http.MethodGet, "/v3/users/{user_id}/projects", false, (*keystone.Handlers).UserProjects),
		entry(http.MethodGet, "/v3/users/{user_id}/application_credentials", false, (*keystone.Handlers).AppCredentials),
		entry(http.MethodPost, "/v3/users/{user_id}/application_credentials", false, (*keystone.Handlers).CreateAppCredential),
		entry(http.MethodGet, "/v3/users/{user_id}/application_credentials/{credential_id}", false, (*keystone.Handlers).AppCredential),
		entry(http.MethodDelete, "/v3/users/{user_id}/application_credentials/{credential_id}", false, (*keystone.Handlers).DeleteAppCredential),
		entry(http.MethodGet, "/v3/projects/{project_id}", false, (*keystone.Handlers).Project),
		entry(http.MethodGet, "/v3/domains", false, (*keystone.Handlers).Domains),
		entry(http.MethodGet, "/v3/domains/{domain_id}", false, (*keystone.Handlers).Domain),
		entry(http.MethodGet, "/v3/auth/system", false, (*keystone.Handlers).System),
		entry(http.MethodGet, "/v3/regions", false, (*keystone.Handlers).Regions),
		entry(http.MethodGet, "/v3/regions/{region_id}", false, (*keystone.Handlers).Region),
		entry(http.MethodGet, "/v3/services", false, (*keystone.Handlers).Services),
		entry(http.MethodGet, "/v3/services/{service_id}", false, (*keystone.Handlers).Service),
		entry(http.MethodGet, "/v3/endpoints", false, (*keystone.Handlers).Endpoints),
		entry(http.MethodGet, "/v3/endpoints/{endpoint_id}", false, (*keystone.Handlers).Endpoint),
		entry(http.MethodGet, "/v3/roles", false, (*keystone.Handlers).Roles),
		entry(http.MethodGet, "/v3/roles/{role_id}", false, (*keystone.Handlers).Role),
	}
}
