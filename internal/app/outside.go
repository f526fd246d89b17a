package app

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/identity/outside"
	"github.com/quickims/quickims/internal/ims"
)

// IdentityConfig says who callers are. Empty: the service keeps its own accounts.
type IdentityConfig struct {
	Keystone *KeystoneConfig `yaml:"keystone"`
}

// KeystoneConfig names an outside Keystone, which issues the tokens in place of the service.
type KeystoneConfig struct {
	// URL is Keystone's root as the service reaches it, with or without /v3.
	URL string `yaml:"url"`
	// PublicURL is the same as clients reach it. Empty: URL.
	PublicURL string `yaml:"public_url"`
	// User, with its Password, is as whom the service asks, by name in UserDomain; it has a
	// role in Project of ProjectDomain. Domains default to "Default", Project to "service".
	User          string `yaml:"user"`
	UserDomain    string `yaml:"user_domain"`
	Password      Secret `yaml:"password"`
	Project       string `yaml:"project"`
	ProjectDomain string `yaml:"project_domain"`
	// CAFile is a PEM file of the authorities to trust. Empty: those of the system.
	CAFile string `yaml:"ca_file"`
	// Timeout bounds each question.
	Timeout time.Duration `yaml:"timeout"`
	// Cache is how long what Keystone said of a token counts, at most a minute. 0: a minute.
	Cache time.Duration `yaml:"cache"`
	// Roles gives, for each role here, the names of the roles of Keystone that carry it.
	// Empty: those of the same name.
	Roles map[ims.Role][]string `yaml:"roles"`
	// AdminProject is the id of the project of Keystone whose admins publish images to all.
	// Empty: only an access key of the first project's admin does.
	AdminProject string `yaml:"admin_project"`
}

const maxKeystoneTimeout = time.Minute

func (c *KeystoneConfig) validate() error {
	if c == nil {
		return nil
	}
	for name, value := range map[string]string{"url": c.URL, "public_url": cmp.Or(c.PublicURL, c.URL)} {
		if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("identity.keystone.%s: %q is not http(s)://host:port, with or without a path", name, value)
		}
	}
	if c.User == "" || c.Password == "" {
		return fmt.Errorf("identity.keystone: user and password are required: as whom the service asks %s about tokens", c.URL)
	}
	if c.Timeout < 0 || c.Timeout > maxKeystoneTimeout {
		return fmt.Errorf("identity.keystone.timeout is %s, it must be at most %s", c.Timeout, maxKeystoneTimeout)
	}
	if c.Cache < 0 || c.Cache > identity.TokenCache {
		return fmt.Errorf("identity.keystone.cache is %s, it must be at most %s", c.Cache, identity.TokenCache)
	}
	if _, err := c.roles(); err != nil {
		return err
	}
	return absolute(&c.CAFile)
}

// roles gives the role here of each of Keystone's, by its name in lower case.
func (c *KeystoneConfig) roles() (map[string]ims.Role, error) {
	of := make(map[string]ims.Role)
	if len(c.Roles) == 0 {
		for _, role := range []ims.Role{ims.RoleAdmin, ims.RoleMember, ims.RoleReader} {
			of[string(role)] = role
		}
	}
	for role, names := range c.Roles {
		if !ims.ValidRole(role) {
			return nil, fmt.Errorf("identity.keystone.roles: %q is no role here, it must be %s, %s or %s", role, ims.RoleAdmin, ims.RoleMember, ims.RoleReader)
		}
		for _, name := range names {
			name = strings.ToLower(name)
			if other, twice := of[name]; twice {
				return nil, fmt.Errorf("identity.keystone.roles: Keystone's role %q stands at both %s and %s", name, other, role)
			}
			of[name] = role
		}
	}
	return of, nil
}

// outside is what the identity service needs to ask this Keystone, nil without one.
func (c *KeystoneConfig) outside() (*identity.Outside, error) {
	if c == nil {
		return nil, nil
	}
	roles, err := c.roles()
	if err != nil {
		return nil, err
	}
	client, err := outside.New(outside.Config{
		URL: c.URL, PublicURL: c.publicURL(), User: c.User, UserDomain: cmp.Or(c.UserDomain, "Default"), Password: string(c.Password),
		Project: cmp.Or(c.Project, "service"), ProjectDomain: cmp.Or(c.ProjectDomain, "Default"), CAFile: c.CAFile, Timeout: c.Timeout,
	})
	if err != nil {
		return nil, fmt.Errorf("identity.keystone: %w", err)
	}
	return &identity.Outside{Keystone: client, Roles: roles, Cache: c.Cache, Opened: catalog.Opened}, nil
}

// publicURL is Keystone's v3 address as clients reach it, "" without one.
func (c *KeystoneConfig) publicURL() string {
	if c == nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimRight(cmp.Or(c.PublicURL, c.URL), "/"), "/v3") + "/v3"
}

// serviceProject is the project whose admins publish images to all.
func (s *Service) serviceProject() string {
	if c := s.cfg.Identity.Keystone; c != nil && c.AdminProject != "" {
		return c.AdminProject
	}
	return s.seed.ProjectID
}
