package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// Accounts manages projects, users and keys in a service's database, whether the
// service runs or not. Close it.
type Accounts struct {
	db       *database.DB
	identity *identity.Service
	domain   identity.Domain
	region   string
}

// Account is a user in a project.
type Account struct {
	Project, ProjectID string
	User, UserID       string
	Roles              []ims.Role
	AccessKeys         []string
}

// OpenAccounts opens the database of a service that was started at least once.
func OpenAccounts(ctx context.Context, cfg Config) (*Accounts, error) {
	earlier, err := readCredentials(filepath.Join(cfg.Data, credentialsFile))
	if err != nil {
		return nil, err
	}
	if earlier == nil {
		return nil, fmt.Errorf("%s holds no credentials.env: start the service on it once", cfg.Data)
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "seal.key")); err != nil {
		return nil, fmt.Errorf("the sealing key: %w", err)
	}
	key, err := sealKey(cfg.Data)
	if err != nil {
		return nil, err
	}
	db, err := database.Open(ctx, cfg.databaseURL(), database.Options{LockTimeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	a := &Accounts{db: db, region: earlier["QUICKIMS_REGION"]}
	if a.identity, err = identity.New(db, identity.Options{SealKey: key}); err == nil {
		err = a.findDomain(ctx, earlier["QUICKIMS_DOMAIN_ID"])
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return a, nil
}

func (a *Accounts) findDomain(ctx context.Context, id string) error {
	domains, err := a.identity.Domains(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(domains, func(d identity.Domain) bool { return d.ID == id })
	if i < 0 {
		return fmt.Errorf("the database has no domain %s, which credentials.env names", id)
	}
	a.domain = domains[i]
	return nil
}

// Close closes the database.
func (a *Accounts) Close() error { return a.db.Close() }

// Add gives a user a role in a project and a new access key for it. Project and user
// are made if they are not there; a new user gets a password. What it returns is what
// the user needs; Password is empty for a user who was there.
func (a *Accounts) Add(ctx context.Context, project, user string, role ims.Role) (Seed, error) {
	seed := Seed{DomainID: a.domain.ID, User: user, Region: a.region}
	projects, err := a.identity.Projects(ctx, a.domain.ID)
	if err != nil {
		return seed, err
	}
	p, err := findOr(projects, func(p identity.Project) bool { return p.Name == project || p.ID == project }, func() (identity.Project, error) {
		return a.identity.CreateProject(ctx, identity.Project{DomainID: a.domain.ID, Name: project})
	})
	if err != nil {
		return seed, err
	}
	seed.ProjectID = p.ID
	users, err := a.identity.Users(ctx, a.domain.ID)
	if err != nil {
		return seed, err
	}
	u, err := findOr(users, func(u identity.User) bool { return u.Name == user }, func() (identity.User, error) {
		seed.Password = Secret(randomText(24))
		return a.identity.CreateUser(ctx, identity.User{DomainID: a.domain.ID, Name: user}, string(seed.Password))
	})
	if err != nil {
		return seed, err
	}
	if err := a.identity.Grant(ctx, identity.Grant{UserID: u.ID, ProjectID: p.ID, Role: role}); err != nil {
		return seed, err
	}
	key, err := a.identity.CreateAccessKey(ctx, identity.AccessKey{UserID: u.ID, ProjectID: p.ID})
	if err != nil {
		return seed, err
	}
	seed.AccessKey, seed.SecretKey = key.AccessKey, key.SecretKey
	return seed, nil
}

func findOr[T any](all []T, is func(T) bool, create func() (T, error)) (T, error) {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	return create()
}

// List gives every user of every project, ordered by project, then user.
func (a *Accounts) List(ctx context.Context) ([]Account, error) {
	projects, err := a.identity.Projects(ctx, a.domain.ID)
	if err != nil {
		return nil, err
	}
	users, err := a.identity.Users(ctx, a.domain.ID)
	if err != nil {
		return nil, err
	}
	var out []Account
	for _, p := range projects {
		grants, err := a.identity.Grants(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		for _, u := range users {
			account := Account{Project: p.Name, ProjectID: p.ID, User: u.Name, UserID: u.ID}
			for _, g := range grants {
				if g.UserID == u.ID {
					account.Roles = append(account.Roles, g.Role)
				}
			}
			if len(account.Roles) == 0 {
				continue
			}
			keys, err := a.identity.AccessKeys(ctx, u.ID)
			if err != nil {
				return nil, err
			}
			for _, k := range keys {
				if k.ProjectID == p.ID {
					account.AccessKeys = append(account.AccessKeys, k.AccessKey)
				}
			}
			out = append(out, account)
		}
	}
	return out, nil
}

// Revoke deletes an access key.
func (a *Accounts) Revoke(ctx context.Context, accessKey string) error {
	return a.identity.DeleteAccessKey(ctx, accessKey)
}
