package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/installation"
)

// Accounts manages projects, users and keys in a service's database, whether the
// service runs or not. Close it.
type Accounts struct {
	db       *database.DB
	identity *identity.Service
	buckets  *buckets.Keeper
	data     string // the service's data folder
	// The domain that projects and users are looked for in: what the first start of the
	// service made, unless In chose another.
	domainID, domainName string
	region               string
}

// Account is a user in a project.
type Account struct {
	Domain, DomainID   string
	Project, ProjectID string
	User, UserID       string
	Roles              []ims.Role
	AccessKeys         []string
}

// OpenAccounts opens the database of a service that was started at least once.
func OpenAccounts(ctx context.Context, cfg Config) (*Accounts, error) {
	if cfg.Database == "" {
		if _, err := os.Stat(filepath.Join(cfg.Data, databaseFile)); err != nil {
			return nil, fmt.Errorf("%s holds no service: start one on it first: %w", cfg.Data, err)
		}
	}
	db, err := database.Open(ctx, cfg.databaseURL(), database.Options{LockTimeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	a := &Accounts{db: db, data: cfg.Data, buckets: cfg.bucketKeeper(catalog.New(db, catalog.Options{}))}
	if err := a.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return a, nil
}

func (a *Accounts) open(ctx context.Context, cfg Config) error {
	setup, err := identity.ReadSetup(ctx, a.db)
	if err != nil {
		return fmt.Errorf("the database has no projects yet: start the service on it once: %w", err)
	}
	id, err := installation.Read(ctx, a.db)
	if err != nil {
		return fmt.Errorf("start the service of this version on the database once: %w", err)
	}
	if err := cfg.checkFiles(id.ID); err != nil {
		return err
	}
	key, err := sealKey(a.data, id.ID, false)
	if err != nil {
		return err
	}
	a.domainID, a.domainName, a.region = setup.DomainID, setup.DomainName, setup.Region
	a.identity, err = identity.New(a.db, identity.Options{SealKey: key, End: catalog.EndAccess})
	return err
}

// In chooses the domain, by name or id, in which the other methods look for projects and
// users. One that does not exist is made if create is set. A name that differs from an
// existing one in upper and lower case alone is refused: clients mix them up.
func (a *Accounts) In(ctx context.Context, domain string, create bool) error {
	domains, err := a.identity.Domains(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(domains, func(d identity.Domain) bool { return d.ID == domain || d.Name == domain })
	if i >= 0 {
		a.domainID, a.domainName = domains[i].ID, domains[i].Name
		return nil
	}
	if !create {
		return fmt.Errorf("find domain %q: not found; \"quickims account list\" lists the domains", domain)
	}
	if i := slices.IndexFunc(domains, func(d identity.Domain) bool { return strings.EqualFold(d.Name, domain) }); i >= 0 {
		return fmt.Errorf("make domain %q: there is a domain %q, whose name differs in upper and lower case alone; choose another name, or that domain", domain, domains[i].Name)
	}
	d, err := a.identity.CreateDomain(ctx, "", domain)
	a.domainID, a.domainName = d.ID, d.Name
	return err
}

// Close closes the database.
func (a *Accounts) Close() error { return a.db.Close() }

// Endpoints are where the service of the data folder listened last, as variables of
// credentials.env.
func (a *Accounts) Endpoints() ([]Variable, error) {
	last, err := readCredentials(filepath.Join(a.data, credentialsFile))
	if err != nil {
		return nil, err
	}
	var out []Variable
	for _, name := range []string{endpointVariable, s3EndpointVariable} {
		if value := last[name]; value != "" {
			out = append(out, Variable{name, &value})
		}
	}
	return out, nil
}

// Add gives a user a role in a project, in place of any other, and a new access key.
// Project and user are made in the domain if they are not there; a new user gets a
// password. What it returns is what the user needs; Password is empty for a user who was
// there.
func (a *Accounts) Add(ctx context.Context, project, user string, role ims.Role) (Seed, error) {
	seed := Seed{DomainID: a.domainID, DomainName: a.domainName, User: user, Region: a.region}
	projects, err := a.identity.Projects(ctx, a.domainID)
	if err != nil {
		return seed, err
	}
	p, err := findOr(projects, func(p identity.Project) bool { return p.Name == project || p.ID == project }, func() (identity.Project, error) {
		if err := a.refuseElsewhere(ctx, project); err != nil {
			return identity.Project{}, err
		}
		return a.identity.CreateProject(ctx, identity.Project{DomainID: a.domainID, Name: project})
	})
	if err != nil {
		return seed, err
	}
	seed.ProjectID = p.ID
	users, err := a.identity.Users(ctx, a.domainID)
	if err != nil {
		return seed, err
	}
	if i := slices.IndexFunc(users, func(u identity.User) bool { return u.Name == user && !u.Enabled }); i >= 0 {
		seed.Password = Secret(randomText(24))
		if err := a.identity.ReadmitUser(ctx, users[i].ID, string(seed.Password)); err != nil {
			return seed, err
		}
	}
	u, err := findOr(users, func(u identity.User) bool { return u.Name == user }, func() (identity.User, error) {
		seed.Password = Secret(randomText(24))
		return a.identity.CreateUser(ctx, identity.User{DomainID: a.domainID, Name: user}, string(seed.Password))
	})
	if err != nil {
		return seed, err
	}
	if err := a.identity.SetRole(ctx, identity.Grant{UserID: u.ID, ProjectID: p.ID, Role: role}); err != nil {
		return seed, err
	}
	key, err := a.identity.CreateAccessKey(ctx, identity.AccessKey{UserID: u.ID, ProjectID: p.ID})
	if err != nil {
		return seed, err
	}
	seed.AccessKey, seed.SecretKey = key.AccessKey, key.SecretKey
	return seed, nil
}

// refuseElsewhere is the error of naming a project of another domain by its id: a project
// of that name is not what was meant.
func (a *Accounts) refuseElsewhere(ctx context.Context, id string) error {
	domains, err := a.identity.Domains(ctx)
	if err != nil {
		return err
	}
	for _, d := range domains {
		projects, err := a.identity.Projects(ctx, d.ID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(projects, func(p identity.Project) bool { return p.ID == id }) {
			return fmt.Errorf("find project %s in domain %q: it is in domain %q; add --domain %s", id, a.domainName, d.Name, d.ID)
		}
	}
	return nil
}

func findOr[T any](all []T, is func(T) bool, create func() (T, error)) (T, error) {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	return create()
}

// List gives every user of every project of all domains, ordered by domain, project and
// user.
func (a *Accounts) List(ctx context.Context) ([]Account, error) {
	domains, err := a.identity.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var out []Account
	for _, d := range domains {
		list, err := a.listDomain(ctx, d)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func (a *Accounts) listDomain(ctx context.Context, d identity.Domain) ([]Account, error) {
	projects, err := a.identity.Projects(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	users, err := a.identity.Users(ctx, d.ID)
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
			if !u.Enabled {
				continue
			}
			account := Account{Domain: d.Name, DomainID: d.ID, Project: p.Name, ProjectID: p.ID, User: u.Name, UserID: u.ID}
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

// Remove takes a user out of a project, both by name or id. Without a project it takes
// everything from the user: password, tokens, access keys and roles; without a user it
// takes the project from all its users. In each case what was opened ends: attachments
// and downloads. What a user made stays with its projects, and what a project owns with
// the project.
func (a *Accounts) Remove(ctx context.Context, user, project string) error {
	var userID, projectID string
	if user != "" {
		users, err := a.identity.Users(ctx, a.domainID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(users, func(u identity.User) bool { return u.Name == user || u.ID == user })
		if i < 0 {
			return fmt.Errorf("remove user %q: not found; \"quickims account list\" lists the users", user)
		}
		userID = users[i].ID
	}
	if project != "" {
		projects, err := a.identity.Projects(ctx, a.domainID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(projects, func(p identity.Project) bool { return p.Name == project || p.ID == project })
		if i < 0 {
			return fmt.Errorf("remove project %q: not found; \"quickims account list\" lists the projects", project)
		}
		projectID = projects[i].ID
	}
	switch {
	case project == "":
		return a.identity.RemoveUser(ctx, userID)
	case user == "":
		return a.identity.RemoveProject(ctx, projectID)
	}
	return a.identity.RemoveMembership(ctx, userID, projectID)
}

// Revoke deletes an access key. What was opened with it ends.
func (a *Accounts) Revoke(ctx context.Context, accessKey string) error {
	return a.identity.DeleteAccessKey(ctx, accessKey)
}

// Bucket is a bucket of the directory store and its owner.
type Bucket struct {
	Name               string
	Project, ProjectID string // "" for a folder that belongs to nobody
}

// Buckets lists the buckets of the directory store, by name.
func (a *Accounts) Buckets(ctx context.Context) ([]Bucket, error) {
	list, err := a.buckets.List(ctx)
	if err != nil {
		return nil, err
	}
	domains, err := a.identity.Domains(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range domains {
		projects, err := a.identity.Projects(ctx, d.ID)
		if err != nil {
			return nil, err
		}
		for _, p := range projects {
			names[p.ID] = p.Name
		}
	}
	out := make([]Bucket, 0, len(list))
	for _, b := range list {
		out = append(out, Bucket{Name: b.Name, Project: names[b.ProjectID], ProjectID: b.ProjectID})
	}
	return out, nil
}

// GiveBucket makes a project, by its name or id, the owner of a bucket of the directory
// store; made says that the bucket's folder is new. With force the bucket may be
// another project's.
func (a *Accounts) GiveBucket(ctx context.Context, bucket, project string, force bool) (b Bucket, made bool, err error) {
	projects, err := a.identity.Projects(ctx, a.domainID)
	if err != nil {
		return b, false, err
	}
	i := slices.IndexFunc(projects, func(p identity.Project) bool { return p.Name == project || p.ID == project })
	if i < 0 {
		if err := a.refuseElsewhere(ctx, project); err != nil {
			return b, false, err
		}
		return b, false, fmt.Errorf("give away bucket %q: project %q not found; \"quickims account list\" lists the projects", bucket, project)
	}
	made, err = a.buckets.Give(ctx, bucket, projects[i].ID, force)
	if errors.Is(err, buckets.ErrTaken) {
		err = fmt.Errorf("%w; add --force to take it from that project", err)
	}
	return Bucket{Name: bucket, Project: projects[i].Name, ProjectID: projects[i].ID}, made, err
}
