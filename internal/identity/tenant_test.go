package identity_test

import (
	"testing"

	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

// TestTenants: whose enterprise projects a caller shares, and with which rights.
func TestTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx := t.Context()
		acme, err := w.CreateDomain(ctx, "", "acme")
		must(t, err)
		project := func(name string) identity.Project {
			t.Helper()
			p, err := w.CreateProject(ctx, identity.Project{DomainID: acme.ID, Name: name})
			must(t, err)
			return p
		}
		web, shop := project("web"), project("shop")
		// A user's name is the domain's: there is an alice in both.
		bob, err := w.CreateUser(ctx, identity.User{DomainID: acme.ID, Name: "alice"}, password)
		must(t, err)
		for _, g := range []identity.Grant{
			{UserID: bob.ID, ProjectID: web.ID, Role: ims.RoleAdmin}, {UserID: bob.ID, ProjectID: shop.ID, Role: ims.RoleReader},
			{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleReader}, {UserID: w.alice.ID, ProjectID: other, Role: ims.RoleAdmin},
		} {
			must(t, w.SetRole(ctx, g))
		}
		carol, err := w.CreateUser(ctx, identity.User{DomainID: "d1", Name: "carol"}, password)
		must(t, err)
		must(t, w.SetRole(ctx, identity.Grant{UserID: carol.ID, ProjectID: other, Role: ims.RoleAdmin}))
		for name, tc := range map[string]struct {
			in     identity.PasswordLogin
			scope  identity.Scope
			tenant string
			admin  bool
		}{
			"a project of a domain":             {identity.PasswordLogin{UserName: "alice", DomainName: "acme"}, identity.Scope{ProjectName: "web"}, acme.ID, true},
			"another project of it":             {identity.PasswordLogin{UserName: "alice", DomainID: acme.ID}, identity.Scope{ProjectID: shop.ID}, acme.ID, false},
			"the domain":                        {identity.PasswordLogin{UserName: "alice", DomainID: acme.ID}, identity.Scope{DomainName: "acme"}, acme.ID, true},
			"the first project":                 {identity.PasswordLogin{UserName: "alice", DomainName: "Default"}, identity.Scope{ProjectID: lab}, "d1", false},
			"another project beside the first":  {identity.PasswordLogin{UserName: "alice", DomainID: "d1"}, identity.Scope{ProjectID: other}, other, true},
			"the first domain":                  {identity.PasswordLogin{UserName: "alice", DomainID: "d1"}, identity.Scope{DomainID: "d1"}, "d1", false},
			"the first domain, for a stranger":  {identity.PasswordLogin{UserID: carol.ID}, identity.Scope{DomainID: "d1"}, "", true},
			"nothing, in the first domain":      {identity.PasswordLogin{UserID: carol.ID}, identity.Scope{}, "", false},
			"nothing, in a domain of their own": {identity.PasswordLogin{UserID: bob.ID}, identity.Scope{}, acme.ID, false},
		} {
			tc.in.Password = password
			secret, token, err := w.LoginPassword(ctx, tc.in, tc.scope)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if p := token.Principal; p.Tenant != tc.tenant || p.May(ims.ActionEPSUpdate) != tc.admin {
				t.Errorf("%s: tenant %q, may change %v; want %q, %v", name, p.Tenant, p.May(ims.ActionEPSUpdate), tc.tenant, tc.admin)
			}
			if shown, err := w.Show(ctx, token.Principal, secret); err != nil || shown.Principal.Tenant != tc.tenant {
				t.Errorf("%s, by its token: tenant %q, %v", name, shown.Principal.Tenant, err)
			}
		}
		for name, scope := range map[string]identity.Scope{
			"a project of another domain": {ProjectID: lab}, "by name": {ProjectName: "lab", DomainName: "Default"}, "the other domain": {DomainID: "d1"},
		} {
			if _, _, err := w.LoginPassword(ctx, identity.PasswordLogin{UserID: bob.ID, Password: password}, scope); ims.CodeOf(err) != ims.CodeToken {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
