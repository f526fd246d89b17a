package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// Domain holds projects and users.
type Domain struct {
	ID, Name  string
	CreatedAt time.Time
}

// Project owns images, jobs and buckets. Its name is unique in its domain.
type Project struct {
	ID, DomainID, Name string
	CreatedAt          time.Time
}

// User is somebody, or a program, that calls. Its name is unique in its domain.
type User struct {
	ID, DomainID, Name string
	Enabled            bool
	CreatedAt          time.Time
}

// Grant is a role that a user has in a project of its own domain.
type Grant struct {
	UserID, ProjectID string
	Role              ims.Role
}

// CreateDomain makes a domain. An empty id is made up. ErrExists: the id or the name
// is taken.
func (s *Service) CreateDomain(ctx context.Context, id, name string) (Domain, error) {
	d := Domain{Name: name, CreatedAt: s.opts.Clock()}
	var err error
	if d.ID, err = s.orNewID("domain", id); err == nil {
		err = checkName("domain", name)
	}
	if err == nil {
		err = s.db.InTx(ctx, func(tx *database.Tx) error { return insertDomain(ctx, tx, d) })
	}
	if err != nil {
		return Domain{}, fmt.Errorf("make domain %q: %w", name, err)
	}
	return d, nil
}

func insertDomain(ctx context.Context, tx *database.Tx, d Domain) error {
	return insert(ctx, tx, `INSERT INTO identity_domains (id, name, created_at) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, d.ID, d.Name, d.CreatedAt.UnixMilli())
}

// CreateProject makes a project in a domain. An empty id is made up. ErrNotFound: no
// such domain; ErrExists: the id, or the name in the domain, is taken.
func (s *Service) CreateProject(ctx context.Context, p Project) (Project, error) {
	name := p.Name
	var err error
	p.CreatedAt = s.opts.Clock()
	if p.ID, err = s.orNewID("project", p.ID); err == nil {
		err = checkName("project", p.Name)
	}
	if err == nil {
		err = s.db.InTx(ctx, func(tx *database.Tx) error {
			if err := exists(ctx, tx, "domain", `SELECT 1 FROM identity_domains WHERE id = $1`, p.DomainID); err != nil {
				return err
			}
			return insertProject(ctx, tx, p)
		})
	}
	if err != nil {
		return Project{}, fmt.Errorf("make project %q: %w", name, err)
	}
	return p, nil
}

func insertProject(ctx context.Context, tx *database.Tx, p Project) error {
	return insert(ctx, tx, `INSERT INTO identity_projects (id, domain_id, name, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT DO NOTHING`, p.ID, p.DomainID, p.Name, p.CreatedAt.UnixMilli())
}

// CreateUser makes an enabled user in a domain. An empty id is made up. With an empty
// password the user cannot log in with one, but can hold access keys. ErrNotFound: no
// such domain; ErrExists: the id, or the name in the domain, is taken.
func (s *Service) CreateUser(ctx context.Context, u User, password string) (User, error) {
	name := u.Name
	fail := func(err error) (User, error) { return User{}, fmt.Errorf("make user %q: %w", name, err) }
	var err error
	u.CreatedAt, u.Enabled = s.opts.Clock(), true
	if u.ID, err = s.orNewID("user", u.ID); err == nil {
		err = checkName("user", u.Name)
	}
	if err != nil {
		return fail(err)
	}
	hash, err := s.hashPassword(ctx, password)
	if err != nil {
		return fail(err)
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := exists(ctx, tx, "domain", `SELECT 1 FROM identity_domains WHERE id = $1`, u.DomainID); err != nil {
			return err
		}
		return insertUser(ctx, tx, u, hash)
	})
	if err != nil {
		return fail(err)
	}
	return u, nil
}

func insertUser(ctx context.Context, tx *database.Tx, u User, hash string) error {
	return insert(ctx, tx, `INSERT INTO identity_users (id, domain_id, name, password_hash, enabled, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		u.ID, u.DomainID, u.Name, hash, boolInt(u.Enabled), u.CreatedAt.UnixMilli())
}

// hashPassword gives the stored form; "" for no password.
func (s *Service) hashPassword(ctx context.Context, password string) (string, error) {
	if password == "" {
		return "", nil
	}
	if err := checkPassword(password); err != nil {
		return "", err
	}
	return s.hasher.hash(ctx, password)
}

// Grant gives a user a role in a project of its own domain. Granting twice is once.
// ErrNotFound: no such user or project, or they are of two domains.
func (s *Service) Grant(ctx context.Context, g Grant) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := checkGrant(ctx, tx, g); err != nil {
			return err
		}
		if err := insertGrant(ctx, tx, g); !errors.Is(err, ErrExists) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant role %s in project %s to user %s: %w", g.Role, g.ProjectID, g.UserID, err)
	}
	return nil
}

// checkGrant is nil for a role that can be given.
func checkGrant(ctx context.Context, tx *database.Tx, g Grant) error {
	if !ims.ValidRole(g.Role) {
		return fmt.Errorf("%w: role %q must be %s, %s or %s", ErrInvalid, g.Role, ims.RoleAdmin, ims.RoleMember, ims.RoleReader)
	}
	return exists(ctx, tx, "user and project of one domain", `SELECT 1 FROM identity_users u
		JOIN identity_projects p ON p.domain_id = u.domain_id WHERE u.id = $1 AND p.id = $2`, g.UserID, g.ProjectID)
}

func insertGrant(ctx context.Context, tx *database.Tx, g Grant) error {
	return insert(ctx, tx, `INSERT INTO identity_grants (user_id, project_id, role) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`, g.UserID, g.ProjectID, string(g.Role))
}

// Domains lists all domains by name.
func (s *Service) Domains(ctx context.Context) ([]Domain, error) {
	all, err := collect(ctx, s.db, func(rows *sql.Rows) (Domain, error) {
		var d Domain
		var at int64
		err := rows.Scan(&d.ID, &d.Name, &at)
		d.CreatedAt = time.UnixMilli(at).UTC()
		return d, err
	}, `SELECT id, name, created_at FROM identity_domains ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list domains: %w", err)
	}
	return all, nil
}

// Projects lists a domain's projects by name.
func (s *Service) Projects(ctx context.Context, domainID string) ([]Project, error) {
	all, err := collect(ctx, s.db, scanProject,
		`SELECT id, domain_id, name, created_at FROM identity_projects WHERE domain_id = $1 ORDER BY name`, domainID)
	if err != nil {
		return nil, fmt.Errorf("list the projects of domain %s: %w", domainID, err)
	}
	return all, nil
}

// ProjectsOf lists the projects in which a user has a role, by name.
func (s *Service) ProjectsOf(ctx context.Context, userID string) ([]Project, error) {
	all, err := collect(ctx, s.db, scanProject, `SELECT DISTINCT p.id, p.domain_id, p.name, p.created_at
		FROM identity_projects p JOIN identity_grants g ON g.project_id = p.id WHERE g.user_id = $1 ORDER BY p.name, p.id`, userID)
	if err != nil {
		return nil, fmt.Errorf("list the projects of user %s: %w", userID, err)
	}
	return all, nil
}

func scanProject(rows *sql.Rows) (Project, error) {
	var p Project
	var at int64
	err := rows.Scan(&p.ID, &p.DomainID, &p.Name, &at)
	p.CreatedAt = time.UnixMilli(at).UTC()
	return p, err
}

// Users lists a domain's users by name.
func (s *Service) Users(ctx context.Context, domainID string) ([]User, error) {
	all, err := collect(ctx, s.db, func(rows *sql.Rows) (User, error) {
		var u User
		var enabled, at int64
		err := rows.Scan(&u.ID, &u.DomainID, &u.Name, &enabled, &at)
		u.Enabled, u.CreatedAt = enabled == 1, time.UnixMilli(at).UTC()
		return u, err
	}, `SELECT id, domain_id, name, enabled, created_at FROM identity_users WHERE domain_id = $1 ORDER BY name`, domainID)
	if err != nil {
		return nil, fmt.Errorf("list the users of domain %s: %w", domainID, err)
	}
	return all, nil
}

// Grants lists who has which role in a project.
func (s *Service) Grants(ctx context.Context, projectID string) ([]Grant, error) {
	all, err := collect(ctx, s.db, func(rows *sql.Rows) (Grant, error) {
		var g Grant
		err := rows.Scan(&g.UserID, &g.ProjectID, &g.Role)
		return g, err
	}, `SELECT user_id, project_id, role FROM identity_grants WHERE project_id = $1 ORDER BY user_id, role`, projectID)
	if err != nil {
		return nil, fmt.Errorf("list the roles in project %s: %w", projectID, err)
	}
	return all, nil
}

// exists gives ErrNotFound unless the query has a row.
func exists(ctx context.Context, q database.Querier, kind, query string, args ...any) error {
	var one int
	err := q.QueryRowContext(ctx, query, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %w", kind, ErrNotFound)
	}
	return err
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Project reads a project. ErrNotFound: there is none with this id.
func (s *Service) Project(ctx context.Context, id string) (Project, error) {
	all, err := collect(ctx, s.db, scanProject, `SELECT id, domain_id, name, created_at FROM identity_projects WHERE id = $1`, lookupText(id))
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Project{}, fmt.Errorf("read project %s: %w", id, err)
	}
	return all[0], nil
}
