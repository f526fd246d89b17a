package identity

import (
	"context"
	"database/sql"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// scopeRow is where a caller acts and with which roles.
type scopeRow struct {
	projectID, projectName string
	domain                 bool // the user's domain as a whole
	roles                  []ims.Role
}

// principal is the user in the scope.
func (at scopeRow) principal(u userRow) ims.Principal {
	return ims.Principal{
		UserID: u.id, UserName: u.name, DomainID: u.domainID, DomainName: u.domainName,
		ProjectID: at.projectID, ProjectName: at.projectName, Roles: at.roles,
	}
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
		roles, err := collect(ctx, q, func(rows *sql.Rows) (ims.Role, error) {
			var role ims.Role
			return role, rows.Scan(&role)
		}, `SELECT DISTINCT role FROM identity_grants WHERE user_id = $1 ORDER BY role`, u.id)
		if err == nil && len(roles) == 0 {
			err = noScope()
		}
		return scopeRow{domain: true, roles: roles}, err
	}
	return scopeRow{}, nil
}

// defaultDomain is the name of the domain that the first start makes. Most set-ups of
// OpenStack's clients name it by the id "default" or the name "Default", so both are
// taken for it unless another domain is called exactly so.
const defaultDomain = "default"

// isDomain reports whether what a request says of a domain, by id, by name, or nothing,
// is the user's.
func (u userRow) isDomain(id, name string) bool {
	isDefault := strings.EqualFold(u.domainName, defaultDomain)
	return (id == "" || id == u.domainID || id == defaultDomain && isDefault) &&
		(name == "" || name == u.domainName || strings.EqualFold(name, defaultDomain) && isDefault)
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
