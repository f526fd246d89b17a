package keystone

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// notFound is the answer to an id that names nothing the caller may see.
func notFound(kind string) error {
	return ims.NotFoundf(ims.CodeObjectUnknown, "Could not find %s.", kind)
}

// Project answers GET /v3/projects/{project_id}. Whoever has a project's id may ask for
// it, so that clients can share an image with it; what else there is to know of it, its
// name and domain, is told to the callers of its domain alone.
func (h *Handlers) Project(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(ctx context.Context, caller ims.Principal) (answer, error) {
		p, err := h.identity.Project(ctx, r.PathValue("project_id"))
		if errors.Is(err, identity.ErrNotFound) || err == nil && caller.ProjectID == "" && p.DomainID != caller.DomainID {
			err = notFound("project")
		}
		if err != nil {
			return answer{}, err
		}
		e := h.projectEntry(r, p)
		if p.DomainID != caller.DomainID || caller.Tenant != caller.DomainID && p.ID != caller.ProjectID {
			e.Name, e.DomainID, e.ParentID = p.ID, "", ""
		}
		return answer{status: http.StatusOK, body: map[string]any{"project": e}}, nil
	})
}

func (h *Handlers) projectEntry(r *http.Request, p identity.Project) projectEntry {
	return projectEntry{
		ID: p.ID, Name: p.Name, DomainID: p.DomainID, ParentID: p.DomainID, Enabled: true,
		Links: map[string]string{"self": h.Root(r) + "/v3/projects/" + p.ID},
	}
}

// User answers GET /v3/users/{user_id} for the caller itself.
func (h *Handlers) User(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		if r.PathValue("user_id") != caller.UserID {
			return answer{}, notFound("user")
		}
		return answer{status: http.StatusOK, body: map[string]any{"user": h.userEntry(r, caller)}}, nil
	})
}

// UserProjects answers GET /v3/users/{user_id}/projects for the caller itself, as Projects
// does.
func (h *Handlers) UserProjects(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(ctx context.Context, caller ims.Principal) (answer, error) {
		if r.PathValue("user_id") != caller.UserID {
			return answer{}, notFound("user")
		}
		return h.projects(ctx, r, caller)
	})
}

func (h *Handlers) userEntry(r *http.Request, caller ims.Principal) userEntry {
	return userEntry{ID: caller.UserID, Name: caller.UserName, DomainID: caller.DomainID, Enabled: true,
		Links: map[string]string{"self": h.Root(r) + "/v3/users/" + caller.UserID}}
}

// Domain answers GET /v3/domains/{domain_id} for the caller's domain, which may be named
// "default" if that is its name.
func (h *Handlers) Domain(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		id := r.PathValue("domain_id")
		if id != caller.DomainID && !(id == identity.DefaultDomain && isDefault(caller)) {
			return answer{}, notFound("domain")
		}
		return answer{status: http.StatusOK, body: map[string]any{"domain": h.domainEntry(r, caller)}}, nil
	})
}

func (h *Handlers) domainEntry(r *http.Request, caller ims.Principal) domainEntry {
	return domainEntry{ID: caller.DomainID, Name: caller.DomainName, Enabled: true,
		Links: map[string]string{"self": h.Root(r) + "/v3/domains/" + caller.DomainID}}
}

// isDefault reports whether the caller's domain is the one that clients call the default.
func isDefault(caller ims.Principal) bool {
	return strings.EqualFold(caller.DomainName, identity.DefaultDomain)
}

// System answers GET /v3/auth/system: nobody has a role on the system as a whole.
func (h *Handlers) System(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(context.Context, ims.Principal) (answer, error) {
		return answer{status: http.StatusOK, body: map[string]any{"system": []any{}, "links": h.links(r, "/v3/auth/system")}}, nil
	})
}

// list answers with the entries that the query's filters let through, or, where one is
// asked for by its id, with that one.
func (h *Handlers) list(w http.ResponseWriter, r *http.Request, one, many, id string, entries func(caller ims.Principal) []map[string]any) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		all := []map[string]any{}
		for _, e := range entries(caller) {
			text := map[string]string{}
			for key, v := range e {
				if s, ok := v.(string); ok && key != "id" {
					text[key] = s
				}
			}
			e["links"] = map[string]string{"self": h.Root(r) + "/v3/" + many + "/" + e["id"].(string)}
			if id != "" && r.PathValue(id) == e["id"] {
				return answer{status: http.StatusOK, body: map[string]any{one: e}}, nil
			}
			if id == "" && admits(r.URL.Query(), text) {
				all = append(all, e)
			}
		}
		if id != "" {
			return answer{}, notFound(one)
		}
		return answer{status: http.StatusOK, body: map[string]any{many: all, "links": h.links(r, "/v3/"+many)}}, nil
	})
}

func (h *Handlers) regions(r *http.Request) func(ims.Principal) []map[string]any {
	return func(caller ims.Principal) (out []map[string]any) {
		for _, e := range h.catalog(r, caller)[0].Endpoints {
			out = append(out, map[string]any{"id": e.Region, "description": "", "parent_region_id": nil})
		}
		return out
	}
}

// Regions answers GET /v3/regions, Region GET /v3/regions/{region_id}: those of the
// catalogue.
func (h *Handlers) Regions(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "region", "regions", "", h.regions(r))
}

// Region answers GET /v3/regions/{region_id}.
func (h *Handlers) Region(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "region", "regions", "region_id", h.regions(r))
}

func (h *Handlers) services(r *http.Request) func(ims.Principal) []map[string]any {
	return func(caller ims.Principal) (out []map[string]any) {
		for _, s := range h.catalog(r, caller) {
			out = append(out, map[string]any{"id": s.ID, "type": s.Type, "name": s.Name, "description": "", "enabled": true})
		}
		return out
	}
}

// Services answers GET /v3/services: those of the catalogue.
func (h *Handlers) Services(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "service", "services", "", h.services(r))
}

// Service answers GET /v3/services/{service_id}.
func (h *Handlers) Service(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "service", "services", "service_id", h.services(r))
}

func (h *Handlers) endpoints(r *http.Request) func(ims.Principal) []map[string]any {
	return func(caller ims.Principal) (out []map[string]any) {
		for _, s := range h.catalog(r, caller) {
			for _, e := range s.Endpoints {
				out = append(out, map[string]any{"id": e.ID, "service_id": s.ID, "interface": e.Interface, "region": e.Region,
					"region_id": e.RegionID, "url": e.URL, "enabled": true})
			}
		}
		return out
	}
}

// Endpoints answers GET /v3/endpoints: those of the catalogue.
func (h *Handlers) Endpoints(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "endpoint", "endpoints", "", h.endpoints(r))
}

// Endpoint answers GET /v3/endpoints/{endpoint_id}.
func (h *Handlers) Endpoint(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "endpoint", "endpoints", "endpoint_id", h.endpoints(r))
}

func roles(ims.Principal) (out []map[string]any) {
	for _, role := range []ims.Role{ims.RoleAdmin, ims.RoleMember, ims.RoleReader} {
		out = append(out, map[string]any{"id": string(role), "name": string(role), "domain_id": nil, "description": "", "options": map[string]any{}})
	}
	return out
}

// Roles answers GET /v3/roles: the roles that there are.
func (h *Handlers) Roles(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "role", "roles", "", roles)
}

// Role answers GET /v3/roles/{role_id}.
func (h *Handlers) Role(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "role", "roles", "role_id", roles)
}
