package catalog

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// EnterpriseFilter selects enterprise projects of a list. Empty fields do not filter.
type EnterpriseFilter struct {
	ID   string
	Name string // a part of the name, in upper or lower case (of ASCII letters)
	// Limit is 1 to 1000, 0 means 1000; Offset counts from 0.
	Limit, Offset int
}

// Resource is an image as a list of an enterprise project shows it.
type Resource struct {
	ID, Name, ProjectID string
}

// enterpriseProjects is a table of a domain's enterprise projects ($1), the default
// one among them.
const enterpriseProjects = `(
	SELECT '0' AS id, 'default' AS name, '' AS description, TRUE AS enabled,
		CAST(0 AS BIGINT) AS created_at, CAST(0 AS BIGINT) AS updated_at, CAST($1 AS TEXT) AS domain_id
	UNION ALL
	SELECT id, name, description, enabled, created_at, updated_at, domain_id
	FROM enterprise_projects WHERE domain_id = $1) AS ep`

const enterpriseColumns = "id, domain_id, name, description, enabled, created_at, updated_at"

func scanEnterprise(scan func(...any) error) (ims.EnterpriseProject, error) {
	var p ims.EnterpriseProject
	var created, updated int64
	err := scan(&p.ID, &p.DomainID, &p.Name, &p.Description, &p.Enabled, &created, &updated)
	p.CreatedAt, p.UpdatedAt = fromMilli(created), fromMilli(updated)
	return p, err
}

// EnterpriseProjects lists a domain's enterprise projects, the default one first, the
// others by their age; and how many there are on all pages.
func (c *Catalog) EnterpriseProjects(ctx context.Context, domainID string, f EnterpriseFilter) ([]ims.EnterpriseProject, int, error) {
	w := &where{args: []any{domainID}}
	w.add("domain_id = $1")
	w.equal("id", f.ID)
	if f.Name != "" {
		w.none = w.none || !database.Storable(f.Name)
		// strpos and instr are one function by two names, so it takes replace. The
		// length tells, not the text, so that an empty one would match too.
		w.add("length(replace(lower(name), lower(?), '')) < length(name)", f.Name)
	}
	if w.none {
		return nil, 0, nil
	}
	total, err := count(ctx, c.db, "SELECT COUNT(*) FROM "+enterpriseProjects+" WHERE "+w.text.String(), w.args...)
	if err != nil {
		return nil, 0, fmt.Errorf("count enterprise projects: %w", err)
	}
	limit := f.Limit
	if limit < 1 || limit > maxFilterValues {
		limit = maxFilterValues
	}
	page := fmt.Sprintf(" ORDER BY created_at, id LIMIT $%d OFFSET $%d", len(w.args)+1, len(w.args)+2)
	var out []ims.EnterpriseProject
	err = each(ctx, c.db, "SELECT "+enterpriseColumns+" FROM "+enterpriseProjects+" WHERE "+w.text.String()+page,
		append(w.args, limit, max(f.Offset, 0)), func(rows *sql.Rows) error {
			p, err := scanEnterprise(rows.Scan)
			out = append(out, p)
			return err
		})
	if err != nil {
		return nil, 0, fmt.Errorf("list enterprise projects: %w", err)
	}
	return out, total, nil
}

// EnterpriseProject reads one; ErrNotFound when the domain does not have it.
func (c *Catalog) EnterpriseProject(ctx context.Context, domainID, id string) (ims.EnterpriseProject, error) {
	if !validEnterpriseID(id) {
		return ims.EnterpriseProject{}, ErrNotFound
	}
	p, err := scanEnterprise(c.db.QueryRowContext(ctx, "SELECT "+enterpriseColumns+" FROM "+enterpriseProjects+" WHERE id = $2", domainID, id).Scan)
	return p, wrap(orNotFound(err), "read enterprise project "+id)
}

func validEnterpriseID(id string) bool {
	return id == ims.DefaultEnterpriseProject || ims.ValidUUID(id)
}

// enterpriseProjectExists is nil when the domain has the enterprise project, IMG.0155
// when it has not.
func enterpriseProjectExists(ctx context.Context, tx *database.Tx, domainID, id string) error {
	if id == ims.DefaultEnterpriseProject {
		return nil
	}
	n := 0
	if validEnterpriseID(id) {
		var err error
		if n, err = count(ctx, tx, "SELECT COUNT(*) FROM enterprise_projects WHERE domain_id = $1 AND id = $2", domainID, id); err != nil {
			return fmt.Errorf("look up enterprise project %s: %w", id, err)
		}
	}
	if n == 0 {
		return ims.Faultf(ims.CodeEnterpriseProject, "enterprise_project_id: the domain has no enterprise project with this id")
	}
	return nil
}

// nameTaken is the answer to a second enterprise project of a name.
func nameTaken(p ims.EnterpriseProject, err error) error {
	return ims.Faultf(ims.CodeConflict, "name: the domain has an enterprise project %q already", p.Name).
		WithKind(ims.KindConflict).Cause(err)
}

// CreateEnterpriseProject writes a new one and returns it with its times. A name that
// the domain has already is a conflict; so is one more than ims.MaxEnterpriseProjects.
func (c *Catalog) CreateEnterpriseProject(ctx context.Context, p ims.EnterpriseProject) (ims.EnterpriseProject, error) {
	if !ims.ValidUUID(p.ID) {
		return p, fmt.Errorf("enterprise project id %q is no UUID", p.ID)
	}
	p.CreatedAt = c.now()
	p.UpdatedAt = p.CreatedAt
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		if err := takeTurn(ctx, tx, "domain "+p.DomainID); err != nil {
			return err
		}
		n, err := count(ctx, tx, "SELECT COUNT(*) FROM enterprise_projects WHERE domain_id = $1", p.DomainID)
		if err != nil {
			return err
		}
		if n >= ims.MaxEnterpriseProjects {
			return ims.Faultf(ims.CodeConflict, "the domain has %d enterprise projects, at most %d are allowed", n, ims.MaxEnterpriseProjects).
				WithKind(ims.KindConflict)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO enterprise_projects ("+enterpriseColumns+") VALUES "+placeholders(1, 7),
			p.ID, p.DomainID, p.Name, p.Description, p.Enabled, p.CreatedAt.UnixMilli(), p.UpdatedAt.UnixMilli())
		if database.Duplicate(err) {
			return nameTaken(p, err)
		}
		return err
	})
	return p, wrap(err, "make enterprise project "+p.Name)
}

// UpdateEnterpriseProject changes name, description or whether it is enabled, and
// returns it as it is then. The default one can't be changed: ErrNotFound. change may
// be called again, on a fresh copy; its error leaves everything as it was.
func (c *Catalog) UpdateEnterpriseProject(ctx context.Context, domainID, id string, change func(*ims.EnterpriseProject) error) (ims.EnterpriseProject, error) {
	if !ims.ValidUUID(id) {
		return ims.EnterpriseProject{}, ErrNotFound
	}
	var out ims.EnterpriseProject
	err := c.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := scanEnterprise(tx.QueryRowContext(ctx,
			"SELECT "+enterpriseColumns+" FROM enterprise_projects WHERE domain_id = $1 AND id = $2"+tx.ForUpdate(), domainID, id).Scan)
		if err != nil {
			return orNotFound(err)
		}
		created := p.CreatedAt
		if err := change(&p); err != nil {
			return err
		}
		p.ID, p.DomainID, p.CreatedAt, p.UpdatedAt = id, domainID, created, c.now()
		_, err = tx.ExecContext(ctx, "UPDATE enterprise_projects SET name = $3, description = $4, enabled = $5, updated_at = $6 WHERE domain_id = $1 AND id = $2",
			domainID, id, p.Name, p.Description, p.Enabled, p.UpdatedAt.UnixMilli())
		if database.Duplicate(err) {
			return nameTaken(p, err)
		}
		out = p
		return err
	})
	return out, wrap(err, "change enterprise project "+id)
}

// MigrateResource moves an image into an enterprise project of the domain. ErrNotFound
// for an unknown image, IMG.0155 for an unknown enterprise project.
func (c *Catalog) MigrateResource(ctx context.Context, domainID, projectID, imageID, epID string) error {
	_, err := c.UpdateImage(ctx, domainID, projectID, imageID, func(img *ims.Image) error {
		img.EnterpriseProjectID = epID
		return nil
	})
	return err
}

// ResourcesOf lists the images that projects have in an enterprise project, by their
// age, as the list of images shows them: neither killed nor deleted; and how many
// there are on all pages. limit is 1 to 1000.
func (c *Catalog) ResourcesOf(ctx context.Context, projectIDs []string, epID string, limit, offset int) ([]Resource, int, error) {
	if len(projectIDs) == 0 || !validEnterpriseID(epID) {
		return nil, 0, nil
	}
	w := &where{}
	if err := w.oneOf("project_id", projectIDs); err != nil {
		return nil, 0, err
	}
	if w.none {
		return nil, 0, nil
	}
	w.add("deleted_at IS NULL AND status <> ? AND enterprise_project_id = ?", string(ims.ImageKilled), epID)
	total, err := count(ctx, c.db, "SELECT COUNT(*) FROM images WHERE "+w.text.String(), w.args...)
	if err != nil {
		return nil, 0, fmt.Errorf("count the images of enterprise project %s: %w", epID, err)
	}
	var out []Resource
	page := fmt.Sprintf(" ORDER BY created_at, id LIMIT $%d OFFSET $%d", len(w.args)+1, len(w.args)+2)
	err = each(ctx, c.db, "SELECT id, name, project_id FROM images WHERE "+w.text.String()+page,
		append(w.args, max(1, min(limit, maxFilterValues)), max(offset, 0)), func(rows *sql.Rows) error {
			var r Resource
			err := rows.Scan(&r.ID, &r.Name, &r.ProjectID)
			out = append(out, r)
			return err
		})
	if err != nil {
		return nil, 0, fmt.Errorf("list the images of enterprise project %s: %w", epID, err)
	}
	return out, total, nil
}
