package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// Seed is what the first start makes: a domain, a project, an admin of it and the
// admin's access key. It prints with its secrets masked.
type Seed struct {
	DomainID, DomainName   string
	ProjectID, ProjectName string
	Region                 string
	User                   string
	Password               string
	AccessKey, SecretKey   string
}

// String masks the secrets.
func (s Seed) String() string {
	return fmt.Sprintf("domain %s (%s), project %s (%s), user %s, access key %s",
		s.DomainID, s.DomainName, s.ProjectID, s.ProjectName, s.User, s.AccessKey)
}

// GoString masks the secrets for %#v.
func (s Seed) GoString() string { return s.String() }

// LogValue masks the secrets in logs.
func (s Seed) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Setup is what the first start made and every later one goes by.
type Setup struct{ DomainID, DomainName, ProjectID, Region string }

// ReadSetup says what the first start made. ErrNotFound: there was none yet. It takes
// no Service, since what a Service needs may depend on it.
func ReadSetup(ctx context.Context, q database.Querier) (Setup, error) {
	var s Setup
	err := q.QueryRowContext(ctx, `SELECT d.id, d.name, s.project_id, s.region
		FROM identity_setup s JOIN identity_domains d ON d.id = s.domain_id WHERE s.id = 1`).
		Scan(&s.DomainID, &s.DomainName, &s.ProjectID, &s.Region)
	if errors.Is(err, sql.ErrNoRows) {
		return Setup{}, ErrNotFound
	}
	if err != nil {
		return Setup{}, fmt.Errorf("look for the first start: %w", err)
	}
	return s, nil
}

// SetRegion changes the region that every later start goes by. The name of the first
// project, which was the region's at the first start, stays.
func SetRegion(ctx context.Context, db *database.DB, region string) error {
	if _, err := db.ExecContext(ctx, `UPDATE identity_setup SET region = $1 WHERE id = 1`, region); err != nil {
		return fmt.Errorf("change the region to %s: %w", region, err)
	}
	return nil
}

// Bootstrap makes what the seed says, whole or not at all, on the first start of all
// processes that share the database. Later it changes nothing, whatever the seed
// says, and checks that the seal key is the one that the database was made with.
func (s *Service) Bootstrap(ctx context.Context, seed Seed) error {
	_, err := ReadSetup(ctx, s.db)
	if err == nil {
		return s.checkSeal(ctx)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := s.plant(ctx, seed); err != nil {
		return fmt.Errorf("make the first domain, project, user and access key: %w", err)
	}
	return s.checkSeal(ctx)
}

func (s *Service) plant(ctx context.Context, seed Seed) error {
	now := s.opts.Clock()
	domain := Domain{ID: seed.DomainID, Name: seed.DomainName, CreatedAt: now}
	project := Project{ID: seed.ProjectID, DomainID: domain.ID, Name: seed.ProjectName, CreatedAt: now}
	user := User{DomainID: domain.ID, Name: seed.User, Enabled: true, CreatedAt: now}
	var err error
	if user.ID, err = s.newID(); err != nil {
		return err
	}
	err = errors.Join(checkID("domain", domain.ID), checkName("domain", domain.Name), checkID("project", project.ID),
		checkName("project", project.Name), checkName("user", user.Name), checkPassword(seed.Password))
	if err != nil {
		return err
	}
	key := AccessKey{AccessKey: seed.AccessKey, UserID: user.ID, ProjectID: project.ID, SecretKey: Secret(seed.SecretKey), CreatedAt: now}
	sealed, err := s.sealAccessKey(key)
	if err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, seed.Password)
	if err != nil {
		return err
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		// The row is the lock: of two processes that start at once one waits here
		// and then finds it done.
		err := insert(ctx, tx, `INSERT INTO identity_setup (id, domain_id, project_id, region, done_at)
			VALUES (1, $1, $2, $3, $4) ON CONFLICT DO NOTHING`, domain.ID, project.ID, seed.Region, now.UnixMilli())
		if errors.Is(err, ErrExists) {
			return nil
		}
		if err == nil {
			err = insertDomain(ctx, tx, domain)
		}
		if err == nil {
			err = insertProject(ctx, tx, project)
		}
		if err == nil {
			err = insertUser(ctx, tx, user, hash)
		}
		if err == nil {
			err = insertGrant(ctx, tx, Grant{UserID: user.ID, ProjectID: project.ID, Role: ims.RoleAdmin})
		}
		if err == nil {
			err = insertAccessKey(ctx, tx, key, sealed)
		}
		return err
	})
}

// checkSeal opens one sealed secret, so that a wrong key is found at the start and not
// in each request.
func (s *Service) checkSeal(ctx context.Context) error {
	var accessKey, sealed string
	err := s.db.QueryRowContext(ctx, `SELECT access_key, secret_sealed FROM identity_access_keys ORDER BY created_at LIMIT 1`).
		Scan(&accessKey, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = s.seal.open(accessKey, sealed)
	}
	if err != nil {
		return fmt.Errorf("check the seal key: %w", err)
	}
	return nil
}
