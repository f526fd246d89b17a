package keystone

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// Headers of the token routes.
const headerSubject = "X-Subject-Token"

// Version answers GET /v3 and GET /v3/: the version document, for everybody.
func (h *Handlers) Version(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusOK, map[string]any{"version": h.version(r)})
}

// Versions answers GET /, the address that clients call the identity service's: a list
// with v3 alone. A version of the image service must not stand in it, because a client
// that logs in without a domain would take that for Keystone's v2.0.
func (h *Handlers) Versions(w http.ResponseWriter, r *http.Request) {
	write(w, http.StatusMultipleChoices, map[string]any{"versions": map[string]any{"values": []any{h.version(r)}}})
}

// version is the entry of v3. Some clients use its link as it is: it must be the address
// that they reach the service at.
func (h *Handlers) version(r *http.Request) any {
	return map[string]any{
		"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
		"links": []link{{Rel: "self", Href: h.Root(r) + "/v3/"}},
		"media-types": []map[string]string{
			{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"},
		},
	}
}

// IssueToken answers POST /v3/auth/tokens with 201, the token in X-Subject-Token and
// what it stands for in the body. With ?nocatalog the body has no catalog.
func (h *Handlers) IssueToken(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, func(ctx context.Context, r *http.Request, body func() ([]byte, error)) (answer, error) {
		content, err := body()
		if err != nil {
			return answer{}, err
		}
		in, err := readLogin(content)
		if err != nil {
			return answer{}, err
		}
		var secret string
		var t identity.Token
		switch {
		case in.system:
			return answer{}, ims.Faultf(ims.CodeToken, "nobody has a role on the system as a whole; ask for a project").WithKind(ims.KindUnauthenticated)
		case slices.Equal(in.methods, []string{identity.MethodApplicationCredential}):
			if in.app.ID == "" && (in.app.Name == "" || in.app.UserID == "" && (in.app.UserName == "" || in.app.DomainID == "" && in.app.DomainName == "")) {
				return answer{}, badRequestf("auth.identity.application_credential must have an id, or a name and a user.")
			}
			if in.scope != (identity.Scope{}) {
				return answer{}, ims.Faultf(ims.CodeToken, "an application credential has a project of its own; leave the scope out").WithKind(ims.KindUnauthenticated)
			}
			noteLogin(w, cmp.Or(in.app.ID, in.app.Name))
			in.app.Source = admit.Network(admit.Caller(r))
			secret, t, err = h.identity.LoginApplicationCredential(ctx, in.app)
		case slices.Equal(in.methods, []string{identity.MethodPassword}):
			if in.user.UserID == "" && (in.user.UserName == "" || in.user.DomainID == "" && in.user.DomainName == "") {
				return answer{}, badRequestf("auth.identity.password.user must have an id, or a name with a domain.")
			}
			noteLogin(w, cmp.Or(in.user.UserName, in.user.UserID))
			in.user.Source = admit.Network(admit.Caller(r))
			secret, t, err = h.identity.LoginPassword(ctx, in.user, in.scope)
		case slices.Equal(in.methods, []string{identity.MethodToken}):
			if in.token == "" {
				return answer{}, badRequestf("auth.identity.token must have an id.")
			}
			secret, t, err = h.identity.LoginToken(ctx, in.token, in.scope)
		default:
			return answer{}, ims.Faultf(ims.CodeToken, "the only methods are %s, %s and %s, one at a time", identity.MethodPassword, identity.MethodToken,
				identity.MethodApplicationCredential).WithKind(ims.KindUnauthenticated)
		}
		if err != nil {
			return answer{}, err
		}
		admit.Known(r, t.Principal.Party())
		noteCaller(w, t.Principal)
		return answer{http.StatusCreated, map[string]string{headerSubject: secret}, h.tokenBody(r, t)}, nil
	})
}

// ShowToken answers GET and HEAD /v3/auth/tokens about the token in X-Subject-Token.
func (h *Handlers) ShowToken(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(ctx context.Context, caller ims.Principal) (answer, error) {
		subject, err := subject(r)
		if err != nil {
			return answer{}, err
		}
		t, err := h.identity.Show(ctx, caller, subject)
		if err != nil {
			return answer{}, err
		}
		// Clients take the token from the answer's header, as after issuing it.
		return answer{http.StatusOK, map[string]string{headerSubject: subject}, h.tokenBody(r, t)}, nil
	})
}

// RevokeToken answers DELETE /v3/auth/tokens for the token in X-Subject-Token.
func (h *Handlers) RevokeToken(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(ctx context.Context, caller ims.Principal) (answer, error) {
		subject, err := subject(r)
		if err == nil {
			err = h.identity.RevokeToken(ctx, caller, subject)
		}
		return answer{status: http.StatusNoContent}, err
	})
}

func subject(r *http.Request) (string, error) {
	values := r.Header.Values(headerSubject)
	if len(values) != 1 || values[0] == "" {
		return "", badRequestf("The request must have one %s header.", headerSubject)
	}
	return values[0], nil
}

// Catalog answers GET /v3/auth/catalog.
func (h *Handlers) Catalog(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		return answer{status: http.StatusOK, body: map[string]any{
			"catalog": h.catalog(r, caller), "links": h.links(r, "/v3/auth/catalog"),
		}}, nil
	})
}

// Projects answers GET /v3/projects and GET /v3/auth/projects: the projects in which
// the caller has a role, filtered by name, domain_id, parent_id and enabled.
func (h *Handlers) Projects(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(ctx context.Context, caller ims.Principal) (answer, error) { return h.projects(ctx, r, caller) })
}

func (h *Handlers) projects(ctx context.Context, r *http.Request, caller ims.Principal) (answer, error) {
	all, err := h.identity.ProjectsOf(ctx, caller.UserID)
	if err != nil {
		return answer{}, err
	}
	list := []projectEntry{}
	for _, p := range all {
		if admits(filters(r, caller), map[string]string{"name": p.Name, "domain_id": p.DomainID, "parent_id": p.DomainID}) {
			list = append(list, h.projectEntry(r, p))
		}
	}
	return answer{status: http.StatusOK, body: map[string]any{"projects": list, "links": h.links(r, r.URL.Path)}}, nil
}

// Domains answers GET /v3/domains and GET /v3/auth/domains: the caller's domain, filtered
// by name and enabled.
func (h *Handlers) Domains(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		list := []domainEntry{}
		name := caller.DomainName
		if asked := r.URL.Query().Get("name"); isDefault(caller) && strings.EqualFold(asked, name) {
			name = asked
		}
		if admits(r.URL.Query(), map[string]string{"name": name}) {
			list = append(list, h.domainEntry(r, caller))
		}
		return answer{status: http.StatusOK, body: map[string]any{"domains": list, "links": h.links(r, r.URL.Path)}}, nil
	})
}

// Users answers GET /v3/users: the caller alone, filtered by name, domain_id and
// enabled.
func (h *Handlers) Users(w http.ResponseWriter, r *http.Request) {
	h.asCaller(w, r, func(_ context.Context, caller ims.Principal) (answer, error) {
		list := []userEntry{}
		if admits(filters(r, caller), map[string]string{"name": caller.UserName, "domain_id": caller.DomainID}) {
			list = append(list, h.userEntry(r, caller))
		}
		return answer{status: http.StatusOK, body: map[string]any{"users": list, "links": h.links(r, r.URL.Path)}}, nil
	})
}

// filters are the query's, the default domain's other id read as its own.
func filters(r *http.Request, caller ims.Principal) url.Values {
	query := r.URL.Query()
	if isDefault(caller) {
		for _, key := range []string{"domain_id", "parent_id"} {
			for i, id := range query[key] {
				if id == identity.DefaultDomain {
					query[key][i] = caller.DomainID
				}
			}
		}
	}
	return query
}

// admits reports whether an entry passes the query's filters. Everything that is
// listed is enabled. Keys that are no filter are ignored.
func admits(query url.Values, entry map[string]string) bool {
	for key, have := range entry {
		for _, want := range query[key] {
			if want != have {
				return false
			}
		}
	}
	for _, want := range query["enabled"] {
		if want = strings.ToLower(want); want == "false" || want == "0" {
			return false
		}
	}
	return true
}

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// links are those of a list that is whole.
func (h *Handlers) links(r *http.Request, path string) map[string]any {
	return map[string]any{"self": h.Root(r) + path, "next": nil, "previous": nil}
}

type projectEntry struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	DomainID    string            `json:"domain_id"`
	ParentID    string            `json:"parent_id"`
	Description string            `json:"description"`
	Enabled     bool              `json:"enabled"`
	IsDomain    bool              `json:"is_domain"`
	Links       map[string]string `json:"links"`
}

type domainEntry struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Enabled     bool              `json:"enabled"`
	Links       map[string]string `json:"links"`
}

type userEntry struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	DomainID string            `json:"domain_id"`
	Enabled  bool              `json:"enabled"`
	Links    map[string]string `json:"links"`
}

// named is a thing with its id and, where it has one, its domain.
type named struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Domain *named `json:"domain,omitempty"`
}

// tokenBody is the document of a token. Lists are absent where the token has no
// scope, as clients expect.
func (h *Handlers) tokenBody(r *http.Request, t identity.Token) any {
	type token struct {
		Methods   []string  `json:"methods"`
		User      named     `json:"user"`
		Project   *named    `json:"project,omitempty"`
		IsDomain  *bool     `json:"is_domain,omitempty"`
		Domain    *named    `json:"domain,omitempty"`
		Roles     []named   `json:"roles,omitempty"`
		Catalog   []service `json:"catalog,omitempty"`
		IssuedAt  string    `json:"issued_at"`
		ExpiresAt string    `json:"expires_at"`
	}
	p := t.Principal
	domain := named{ID: p.DomainID, Name: p.DomainName}
	body := token{
		Methods: t.Methods, User: named{ID: p.UserID, Name: p.UserName, Domain: &domain},
		IssuedAt: timestamp(t.IssuedAt), ExpiresAt: timestamp(t.ExpiresAt),
	}
	switch {
	case p.ProjectID != "":
		body.Project = &named{ID: p.ProjectID, Name: p.ProjectName, Domain: &domain}
		body.IsDomain = new(bool)
	case t.DomainScoped:
		body.Domain = &domain
	}
	for _, role := range p.Roles {
		body.Roles = append(body.Roles, named{ID: string(role), Name: string(role)})
	}
	if _, without := r.URL.Query()["nocatalog"]; !without && (body.Project != nil || body.Domain != nil) {
		body.Catalog = h.catalog(r, p)
	}
	return map[string]any{"token": body}
}

// timestamp is a time in Keystone's form.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }
