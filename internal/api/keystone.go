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
	}
}
