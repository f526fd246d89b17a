package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// scopeRow is where a caller acts and with which roles.
type scopeRow struct {
	projectID, projectName string
	domain                 bool // the user's domain as a whole
	first                  bool // which is the first one, where the user has a role in the first project
	roles                  []ims.Role
}

// principal is the user in the scope.
func (s *Service) principal(ctx context.Context, q database.Querier, u userRow, at scopeRow) (ims.Principal, error) {
	p := ims.Principal{
		UserID: u.id, UserName: u.name, DomainID: u.domainID, DomainName: u.domainName, Tenant: u.domainID,
		ProjectID: at.projectID, ProjectName: at.projectName, Roles: at.roles,
	}
	first, err := s.first(ctx, q)
	switch {
	case errors.Is(err, ErrNotFound):
		return p, nil
	case err != nil:
		return p, err
	// The first domain is where projects are made for which the operator names none: they
	// are strangers to each other, and the domain's enterprise projects the first one's.
	case u.domainID == first.DomainID && at.projectID != first.ProjectID && !at.first:
		p.Tenant = at.projectID
	}
	return p, nil
}

// first is what the first start made, read once: it does not change but for the region.
func (s *Service) first(ctx context.Context, q database.Querier) (Setup, error) {
	if known := s.setup.Load(); known != nil {
		return *known, nil
	}
	setup, err := ReadSetup(ctx, q)
	if err == nil {
		s.setup.Store(&setup)
	}
	return setup, err
}

// Within is the caller in each project that its credential reaches: the one in scope or,
// of a domain's credential, those that share the caller's enterprise projects and in
// which the user has a role, with the roles there. What an outside Keystone issued for a
// domain reaches none.
func (s *Service) Within(ctx context.Context, p ims.Principal) ([]ims.Principal, error) {
	switch {
	case p.ProjectID != "":
		return []ims.Principal{p}, nil
	case len(p.Roles) == 0 || p.Tenant != p.DomainID || p.Credential.Outside:
		return nil, nil
	}
	only := ""
	if first, err := s.first(ctx, s.db); err == nil && p.DomainID == first.DomainID {
		only = first.ProjectID
	} else if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	var all []ims.Principal
	_, err := collect(ctx, s.db, func(rows *sql.Rows) (struct{}, error) {
		var project, name string
		var role ims.Role
		if err := rows.Scan(&project, &name, &role); err != nil {
			return struct{}{}, err
		}
		if n := len(all); n == 0 || all[n-1].ProjectID != project {
			in := p
			in.ProjectID, in.ProjectName, in.Roles = project, name, nil
			all = append(all, in)
		}
		last := &all[len(all)-1]
		last.Roles = append(last.Roles, role)
		return struct{}{}, nil
	}, `SELECT p.id, p.name, g.role FROM identity_grants g JOIN identity_projects p ON p.id = g.project_id
		WHERE g.user_id = $1 AND p.domain_id = $2 AND ($3 = '' OR p.id = $3) ORDER BY p.id, g.role`, p.UserID, p.DomainID, only)
	if err != nil {
		return nil, fmt.Errorf("list the projects that user %s reaches: %w", p.UserID, err)
	}
	return all, nil
}

// resolve finds the scope among those that the user may use. A scope that is unknown
// and one that is not the user's are refused alike, with a 401.
func (s *Service) resolve(ctx context.Context, q database.Querier, u userRow, want Scope) (scopeRow, error) {
	if !u.isDomain(want.DomainID, want.DomainName) {
		return scopeRow{}, noScope()
	}
	want.ProjectName = lookupText(want.ProjectName)
	switch {
	case want.ProjectID != "":
		return s.projectScope(ctx, q, u.id, want.ProjectID)
	case want.ProjectName != "":
		return s.scope(ctx, q, `SELECT p.id, p.name, g.role FROM identity_grants g JOIN identity_projects p ON p.id = g.project_id
			WHERE g.user_id = $1 AND p.domain_id = $2 AND p.name = $3 ORDER BY g.role`, u.id, u.domainID, want.ProjectName)
	case want.DomainID != "" || want.DomainName != "":
		return s.domainScope(ctx, q, u)
	}
	return scopeRow{}, nil
}

// domainScope is the user's domain as a whole, with the roles that the user has in any
// project of it. In the first domain, whose enterprise projects are the first project's,
// the roles in that project count alone for who has one there.
func (s *Service) domainScope(ctx context.Context, q database.Querier, u userRow) (scopeRow, error) {
	first, err := s.first(ctx, q)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return scopeRow{}, err
	}
	if err == nil && u.domainID == first.DomainID {
		at, err := s.projectScope(ctx, q, u.id, first.ProjectID)
		if err == nil {
			return scopeRow{domain: true, first: true, roles: at.roles}, nil
		}
		if ims.CodeOf(err) != ims.CodeToken {
			return scopeRow{}, err
		}
	}
	roles, err := collect(ctx, q, func(rows *sql.Rows) (ims.Role, error) {
		var role ims.Role
		return role, rows.Scan(&role)
	}, `SELECT DISTINCT role FROM identity_grants WHERE user_id = $1 ORDER BY role`, u.id)
	if err == nil && len(roles) == 0 {
		err = noScope()
	}
	return scopeRow{domain: true, roles: roles}, err
}

// DefaultDomain is the name of the domain that the first start makes. Most set-ups of
// OpenStack's clients name it by the id "default" or the name "Default", so both are
// taken for it unless another domain is called exactly so.
const DefaultDomain = "default"

// isDomain reports whether what a request says of a domain, by id, by name, or nothing,
// is the user's.
func (u userRow) isDomain(id, name string) bool {
	isDefault := strings.EqualFold(u.domainName, DefaultDomain)
	return (id == "" || id == u.domainID || id == DefaultDomain && isDefault) &&
		(name == "" || name == u.domainName || strings.EqualFold(name, DefaultDomain) && isDefault)
}

func noScope() error {
	return unauthorized("the scope names no domain or project in which the user has a role")
}

// projectScope is a project by its id.
func (s *Service) projectScope(ctx context.Context, q database.Querier, userID, projectID string) (scopeRow, error) {
	return s.scope(ctx, q, `SELECT p.id, p.name, g.role FROM identity_grants g JOIN identity_projects p ON p.id = g.project_id
		WHERE g.user_id = $1 AND g.project_id = $2 ORDER BY g.role`, userID, lookupText(projectID))
}

func (s *Service) scope(ctx context.Context, q database.Querier, query string, args ...any) (scopeRow, error) {
	var at scopeRow
	roles, err := collect(ctx, q, func(rows *sql.Rows) (ims.Role, error) {
		var role ims.Role
		return role, rows.Scan(&at.projectID, &at.projectName, &role)
	}, query, args...)
	if err != nil {
		return scopeRow{}, err
	}
	if len(roles) == 0 {
		return scopeRow{}, noScope()
	}
	at.roles = roles
	return at, nil
}
