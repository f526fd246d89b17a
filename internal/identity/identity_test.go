package identity

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2024, 11, 6, 6, 27, 3, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cheap is a cost at which tests need not wait.
var cheap = PasswordCost{MemoryKiB: 64, Passes: 1, Lanes: 1}

var testSealKey = []byte("0123456789abcdef0123456789abcdef")

var testSeed = Seed{
	DomainID: "d1", DomainName: "Default", ProjectID: "p1", ProjectName: "eu-de",
	User: "admin", Password: "correct horse", AccessKey: "AKADMIN", SecretKey: "secret-of-the-admin",
}

// world is a service whose first start has been.
type world struct {
	*Service
	clock *clock
	admin User
}

func newWorld(t testing.TB, db *database.DB) *world {
	t.Helper()
	c := newClock()
	s, err := New(db, Options{SealKey: testSealKey, Clock: c.Now, PasswordCost: cheap})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bootstrap(t.Context(), testSeed); err != nil {
		t.Fatal(err)
	}
	users, err := s.Users(t.Context(), testSeed.DomainID)
	if err != nil || len(users) != 1 {
		t.Fatalf("%d users after the first start: %v", len(users), err)
	}
	return &world{Service: s, clock: c, admin: users[0]}
}

// must unwraps a result that the test takes for granted.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refusedWith holds that err is the refusal of a credential with a part of its detail.
func refusedWith(t testing.TB, err error, detail string) {
	t.Helper()
	e, ok := errors.AsType[*ims.Error](err)
	if !ok || e.Code != ims.CodeToken || e.Kind() != ims.KindUnauthenticated || !strings.Contains(e.Detail, detail) {
		t.Fatalf("error %v, want a 401 with %q", err, detail)
	}
}

func (w *world) login(t testing.TB, scope Scope) string {
	t.Helper()
	token, _, err := w.LoginPassword(t.Context(), PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password}, scope)
	check(t, err)
	return token
}

func (w *world) byToken(token string) (ims.Principal, error) {
	r := httptest.NewRequest("GET", "/v2/cloudimages", nil)
	r.Header.Set("X-Auth-Token", token)
	return w.Authenticate(context.Background(), r, nil)
}

// signed makes a signed request. Header pairs are set before signing, which signs
// projects and domains.
func (w *world) signed(accessKey, secretKey string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/cloudimages?limit=1", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if err := signature.Sign(r, nil, accessKey, secretKey, w.clock.Now()); err != nil {
		panic(err)
	}
	return r
}

func (w *world) bySignature(accessKey, secretKey string, headers ...string) (ims.Principal, error) {
	return w.Authenticate(context.Background(), w.signed(accessKey, secretKey, headers...), nil)
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		s := must(New(db, Options{SealKey: testSealKey, PasswordCost: cheap}))
		if setup, err := ReadSetup(t.Context(), db); !errors.Is(err, ErrNotFound) {
			t.Fatalf("an empty database is set up: %v, %v", setup, err)
		}
		bad := testSeed
		bad.Password = "short"
		if err := s.Bootstrap(t.Context(), bad); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "short") {
			t.Fatalf("a short password: %v", err)
		}
		if setup, err := ReadSetup(t.Context(), db); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a refused seed left something behind: %v, %v", setup, err)
		}
		// Several processes start at once; one seed takes root.
		var wg sync.WaitGroup
		for range 4 { // as four processes with credentials of their own
			seed := testSeed
			seed.DomainID, seed.ProjectID, seed.AccessKey = must(s.newID()), must(s.newID()), must(s.makeUp(madeAccessKey))
			wg.Go(func() {
				if err := s.Bootstrap(t.Context(), seed); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		domains := must(s.Domains(t.Context()))
		if len(domains) != 1 {
			t.Fatalf("%d domains after four first starts", len(domains))
		}
		projects := must(s.Projects(t.Context(), domains[0].ID))
		users := must(s.Users(t.Context(), domains[0].ID))
		if len(projects) != 1 || projects[0].Name != "eu-de" || len(users) != 1 || users[0].Name != "admin" || !users[0].Enabled {
			t.Fatalf("projects %v, users %v", projects, users)
		}
		if setup := must(ReadSetup(t.Context(), db)); setup.DomainID != domains[0].ID || setup.ProjectID != projects[0].ID {
			t.Fatalf("the first start is recorded as %v", setup)
		}
		// A database with another seal key is found at the start, not in each request.
		other := must(New(db, Options{SealKey: []byte(strings.Repeat("x", SealKeySize))}))
		if err := other.Bootstrap(t.Context(), testSeed); err == nil || !strings.Contains(err.Error(), "seal key") {
			t.Fatalf("a wrong seal key: %v", err)
		}
	})
}

// TestSecretsAreNotInTheDatabase reads every text of every table.
func TestSecretsAreNotInTheDatabase(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		token := w.login(t, Scope{})
		made := must(w.CreateAccessKey(t.Context(), AccessKey{UserID: w.admin.ID, ProjectID: "p1"}))
		if len(made.AccessKey) != madeAccessKey || len(made.SecretKey) != madeSecretKey {
			t.Fatalf("access key of %d, secret of %d characters", len(made.AccessKey), len(made.SecretKey))
		}
		var all strings.Builder
		for _, query := range []string{
			`SELECT id || name || password_hash FROM identity_users`,
			`SELECT access_key || secret_sealed FROM identity_access_keys`,
			`SELECT hash || user_id || project_id || methods FROM identity_tokens`,
		} {
			rows := must(db.QueryContext(t.Context(), query))
			for rows.Next() {
				var s string
				check(t, rows.Scan(&s))
				all.WriteString(s)
			}
			check(t, rows.Close())
		}
		if !strings.Contains(all.String(), made.AccessKey) {
			t.Fatal("the access key is not in what was read")
		}
		for _, secret := range []string{token, testSeed.Password, testSeed.SecretKey, string(made.SecretKey)} {
			if strings.Contains(all.String(), secret) {
				t.Errorf("the database holds the secret %q", secret)
			}
		}
	})
}

func TestPasswordLogin(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		must(w.CreateProject(ctx, Project{ID: "p2", DomainID: "d1", Name: "lab"}))
		must(w.CreateProject(ctx, Project{ID: "p3", DomainID: "d1", Name: "closed"}))
		check(t, w.Grant(ctx, Grant{w.admin.ID, "p2", ims.RoleReader}))
		byID := PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password}
		for _, tc := range []struct {
			name    string
			in      PasswordLogin
			scope   Scope
			project string
			roles   string
			domain  bool
		}{
			{name: "by id, unscoped", in: byID},
			{name: "by name and domain name", in: PasswordLogin{UserName: "admin", DomainName: "Default", Password: testSeed.Password}},
			{name: "by name and domain id", in: PasswordLogin{UserName: "admin", DomainID: "d1", Password: testSeed.Password}},
			{name: "project by id", in: byID, scope: Scope{ProjectID: "p1"}, project: "p1", roles: "admin"},
			{name: "project by name and domain name", in: byID, scope: Scope{ProjectName: "lab", DomainName: "Default"}, project: "p2", roles: "reader"},
			{name: "project by name and domain id", in: byID, scope: Scope{ProjectName: "lab", DomainID: "d1"}, project: "p2", roles: "reader"},
			{name: "project by name alone", in: byID, scope: Scope{ProjectName: "lab"}, project: "p2", roles: "reader"},
			{name: "domain by id", in: byID, scope: Scope{DomainID: "d1"}, roles: "admin", domain: true}, // of the first project alone
			{name: "domain by name", in: byID, scope: Scope{DomainName: "Default"}, roles: "admin", domain: true},
		} {
			token, got, err := w.LoginPassword(ctx, tc.in, tc.scope)
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			p := got.Principal
			var roles []string
			for _, r := range p.Roles {
				roles = append(roles, string(r))
			}
			if p.UserID != w.admin.ID || p.UserName != "admin" || p.DomainID != "d1" || p.DomainName != "Default" ||
				p.ProjectID != tc.project || strings.Join(roles, " ") != tc.roles || got.DomainScoped != tc.domain {
				t.Errorf("%s: %+v", tc.name, got)
			}
			if got.ExpiresAt.Sub(got.IssuedAt) != DefaultTokenTTL || len(token) < 43 || len(got.Methods) != 1 {
				t.Errorf("%s: %+v", tc.name, got)
			}
			again, err := w.byToken(token)
			if err != nil || again.ProjectID != tc.project || len(again.Roles) != len(p.Roles) {
				t.Errorf("%s: the token stands for %+v, %v", tc.name, again, err)
			}
		}
		for name, scope := range map[string]Scope{
			"project without a role": {ProjectID: "p3"},
			"unknown project":        {ProjectID: "p9"},
			"unknown project name":   {ProjectName: "x", DomainID: "d1"},
			"unknown domain":         {DomainID: "d9"},
			"name in another domain": {ProjectName: "lab", DomainName: "Other"},
		} {
			_, _, err := w.LoginPassword(ctx, byID, scope)
			if err == nil {
				t.Fatalf("%s is given", name)
			}
			refusedWith(t, err, "the scope names no domain or project in which the user has a role")
		}
		// An unknown user, a user without a password and a wrong password say the same.
		must(w.CreateUser(ctx, User{DomainID: "d1", Name: "robot"}, ""))
		for _, in := range []PasswordLogin{
			{UserID: w.admin.ID, Password: "wrong"},
			{UserID: w.admin.ID, Password: ""},
			{UserID: w.admin.ID, Password: strings.Repeat("x", 1<<20)},
			{UserID: "nobody", Password: testSeed.Password},
			{UserName: "nobody", DomainID: "d1", Password: testSeed.Password},
			{UserName: "robot", DomainID: "d1", Password: ""},
			{UserName: "admin", DomainName: "Other", Password: testSeed.Password},
			{UserName: "adm\x00in", DomainName: "Default", Password: testSeed.Password},
			{UserName: "adm\xffin", DomainName: "Def\x00ault", Password: testSeed.Password},
			{UserName: strings.Repeat("a", 1<<20), DomainName: "Default", Password: testSeed.Password},
		} {
			_, _, err := w.LoginPassword(ctx, in, Scope{})
			refusedWith(t, err, "the user or the password is wrong")
		}
		check(t, w.RemoveUser(ctx, w.admin.ID))
		_, _, err := w.LoginPassword(ctx, byID, Scope{})
		refusedWith(t, err, "the user or the password is wrong")
		check(t, w.ReadmitUser(ctx, w.admin.ID, "another password"))
		_, _, err = w.LoginPassword(ctx, byID, Scope{})
		refusedWith(t, err, "the user or the password is wrong")
		byID.Password = "another password"
		_, _, err = w.LoginPassword(ctx, byID, Scope{})
		check(t, err)
	})
}

func TestTokenLife(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		ctx, scope := t.Context(), Scope{ProjectID: "p1"}
		const gone = "the token is unknown, expired or revoked"

		first := w.login(t, Scope{})
		w.clock.advance(time.Hour)
		second, info, err := w.LoginToken(ctx, first, scope)
		check(t, err)
		if info.ExpiresAt.Sub(info.IssuedAt) != DefaultTokenTTL-time.Hour || strings.Join(info.Methods, " ") != "token password" {
			t.Errorf("a token from a token: %+v", info)
		}
		third, info, err := w.LoginToken(ctx, second, scope)
		check(t, err)
		if len(info.Methods) != 2 {
			t.Errorf("methods %v", info.Methods)
		}
		p := must(w.byToken(third))
		if p.ProjectID != "p1" || p.ProjectName != "eu-de" || !p.May(ims.ActionImagesDelete) {
			t.Errorf("principal %+v", p)
		}

		// Its own user sees and revokes it; nobody else, who isn't told from unknown.
		stranger := must(w.CreateUser(ctx, User{DomainID: "d1", Name: "stranger"}, ""))
		must(w.CreateProject(ctx, Project{ID: "p2", DomainID: "d1", Name: "lab"}))
		check(t, w.Grant(ctx, Grant{stranger.ID, "p2", ims.RoleAdmin}))
		foreign := ims.Principal{UserID: stranger.ID, DomainID: "d1", ProjectID: "p2", Roles: []ims.Role{ims.RoleAdmin}}
		if _, err := w.Show(ctx, foreign, second); !errors.Is(err, ErrNotFound) {
			t.Errorf("a stranger sees the token: %v", err)
		}
		if err := w.RevokeToken(ctx, foreign, second); !errors.Is(err, ErrNotFound) {
			t.Errorf("a stranger revokes the token: %v", err)
		}
		foreign.ProjectID = "p1"
		if _, err := w.Show(ctx, foreign, second); err != nil {
			t.Errorf("the project's admin does not see the token: %v", err)
		}
		foreign.Roles = []ims.Role{ims.RoleMember}
		if _, err := w.Show(ctx, foreign, second); !errors.Is(err, ErrNotFound) {
			t.Errorf("a member of the project sees the token: %v", err)
		}
		if got := must(w.Show(ctx, p, second)); got.Principal.ProjectID != "p1" {
			t.Errorf("shown %+v", got)
		}
		check(t, w.RevokeToken(ctx, p, second))
		_, err = w.byToken(second)
		refusedWith(t, err, gone)
		_, _, err = w.LoginToken(ctx, second, scope)
		refusedWith(t, err, gone)
		if err := w.RevokeToken(ctx, p, second); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoked twice: %v", err)
		}

		// Rights count when they are used.
		reader := w.login(t, scope)
		check(t, w.Grant(ctx, Grant{w.admin.ID, "p1", ims.RoleReader}))
		check(t, w.Revoke(ctx, Grant{w.admin.ID, "p1", ims.RoleAdmin}))
		if p := must(w.byToken(reader)); p.May(ims.ActionImagesDelete) || !p.May(ims.ActionImagesGet) {
			t.Errorf("after the role was taken away: %+v", p)
		}
		check(t, w.Revoke(ctx, Grant{w.admin.ID, "p1", ims.RoleReader}))
		_, err = w.byToken(reader)
		refusedWith(t, err, gone)
		_, err = w.byToken(first)
		check(t, err)
		_, _, err = w.LoginPassword(ctx, PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password}, Scope{DomainID: "d1"})
		refusedWith(t, err, "no domain or project")

		// It ends to the millisecond, and is cleaned away.
		w.clock.advance(DefaultTokenTTL - time.Hour - time.Millisecond)
		_, err = w.byToken(first)
		check(t, err)
		w.clock.advance(time.Millisecond)
		_, err = w.byToken(first)
		refusedWith(t, err, gone)
		count := func() (n int) {
			check(t, db.QueryRowContext(ctx, `SELECT COUNT(*) FROM identity_tokens`).Scan(&n))
			return n
		}
		w.clock.advance(-time.Millisecond)
		young, _, err := w.LoginPassword(ctx, PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password}, Scope{})
		check(t, err)
		w.clock.advance(time.Millisecond)
		before := count()
		check(t, w.PurgeTokens(ctx))
		if n := before - count(); n != 1 { // first; third ended with the role
			t.Errorf("%d of %d tokens deleted as expired", n, before)
		}
		must(w.byToken(young))

		// A new password and a disabled user end all tokens.
		for name, end := range map[string]func() error{
			"password": func() error { return w.SetPassword(ctx, w.admin.ID, testSeed.Password) },
			"disabled": func() error {
				return errors.Join(w.RemoveUser(ctx, w.admin.ID), w.ReadmitUser(ctx, w.admin.ID, testSeed.Password))
			},
		} {
			token := w.login(t, Scope{})
			check(t, end())
			if _, err := w.byToken(token); err == nil {
				t.Errorf("%s: the token lives on", name)
			}
		}
		for _, bad := range []string{"x", "\x00", strings.Repeat("x", 1<<16), "ä\xff"} {
			_, err := w.byToken(bad)
			if err == nil {
				t.Fatalf("token %.10q is good", bad)
			}
			refusedWith(t, err, "")
		}
	})
}

func TestTokensOfOneUserAreBounded(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		old := w.login(t, Scope{})
		w.clock.advance(time.Second)
		_, err := db.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO identity_tokens (hash, user_id, project_id, domain_id, methods, issued_at, expires_at)
			SELECT 'h' || i, $2, '', '', 'password', $3, $4 FROM n`,
			MaxTokensPerUser-2, w.admin.ID, w.clock.Now().UnixMilli(), w.clock.Now().Add(time.Hour).UnixMilli())
		check(t, err)
		w.clock.advance(time.Second)
		w.login(t, Scope{})
		_, err = w.byToken(old)
		check(t, err)
		w.login(t, Scope{})
		_, err = w.byToken(old)
		refusedWith(t, err, "revoked")
		var n int
		check(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM identity_tokens`).Scan(&n))
		if n != MaxTokensPerUser {
			t.Errorf("%d tokens are kept", n)
		}
	})
}

func TestSignedRequests(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		ctx := t.Context()
		must(w.CreateProject(ctx, Project{ID: "p2", DomainID: "d1", Name: "lab"}))
		must(w.CreateProject(ctx, Project{ID: "p3", DomainID: "d1", Name: "closed"}))
		reader := must(w.CreateUser(ctx, User{DomainID: "d1", Name: "reader"}, ""))
		check(t, w.Grant(ctx, Grant{reader.ID, "p1", ims.RoleReader}))
		check(t, w.Grant(ctx, Grant{reader.ID, "p2", ims.RoleMember}))
		key := must(w.CreateAccessKey(ctx, AccessKey{UserID: reader.ID, ProjectID: "p1"}))
		ak, sk := key.AccessKey, string(key.SecretKey)

		p := must(w.bySignature(ak, sk))
		if p.UserID != reader.ID || p.ProjectID != "p1" || p.DomainID != "d1" || p.May(ims.ActionImagesUpdate) || !p.May(ims.ActionImagesList) {
			t.Errorf("in its own project: %+v", p)
		}
		p = must(w.bySignature(ak, sk, "X-Project-Id", "p2"))
		if p.ProjectID != "p2" || p.ProjectName != "lab" || !p.May(ims.ActionImagesUpdate) {
			t.Errorf("in the project asked for: %+v", p)
		}
		p = must(w.bySignature(ak, sk, "X-Domain-Id", "d1"))
		if p.ProjectID != "p1" || p.DomainID != "d1" {
			t.Errorf("in the domain asked for: %+v", p)
		}
		must(w.bySignature(ak, sk, "X-Project-Id", "p2", "X-Domain-Id", "d1"))
		// Unsigned, the header may name the key's own project alone.
		for project, want := range map[string]string{"p1": "", "p2": "not among the signed headers", "p3": "not among the signed headers"} {
			r := w.signed(ak, sk)
			r.Header.Set("X-Project-Id", project)
			p, err := w.Authenticate(ctx, r, nil)
			if want != "" {
				refusedWith(t, err, want)
			} else if err != nil || p.ProjectID != "p1" {
				t.Errorf("its own project, unsigned: %+v, %v", p, err)
			}
		}
		for _, tc := range []struct {
			name    string
			headers []string
			detail  string
		}{
			{"a project without a role", []string{"X-Project-Id", "p3"}, "X-Project-Id is no project"},
			{"an unknown project", []string{"X-Project-Id", "p9"}, "X-Project-Id is no project"},
			{"a project that can be none", []string{"X-Project-Id", "p\x00"}, "X-Project-Id is no project"},
			{"a giant project", []string{"X-Project-Id", strings.Repeat("p", 300)}, "longer"},
			{"another domain", []string{"X-Domain-Id", "d9"}, "X-Domain-Id names no domain"},
			{"two projects", []string{"X-Project-Id", "p1", "X-Project-Id", "p2"}, "2 X-Project-Id"},
			{"an empty token beside", []string{"X-Auth-Token", "", "X-Auth-Token", ""}, "2 X-Auth-Token"},
			{"a wrong token beside", []string{"X-Auth-Token", "x"}, "token is unknown"},
		} {
			_, err := w.bySignature(ak, sk, tc.headers...)
			if err == nil {
				t.Fatalf("%s is let in", tc.name)
			}
			refusedWith(t, err, tc.detail)
		}
		must(w.bySignature(ak, sk, "X-Auth-Token", ""))

		// A wrong secret and an unknown key can't be told apart, nor can the key of a
		// removed user.
		_, wrong := w.bySignature(ak, sk+"x")
		_, unknown := w.bySignature("AKUNKNOWN", sk)
		refusedWith(t, wrong, "the access key or the signature is wrong")
		if wrong.Error() != unknown.Error() {
			t.Errorf("a wrong secret says %q, an unknown key %q", wrong, unknown)
		}
		removed := must(w.CreateUser(ctx, User{DomainID: "d1", Name: "removed"}, ""))
		check(t, w.Grant(ctx, Grant{removed.ID, "p1", ims.RoleReader}))
		old := must(w.CreateAccessKey(ctx, AccessKey{UserID: removed.ID, ProjectID: "p1"}))
		check(t, w.RemoveUser(ctx, removed.ID))
		_, gone := w.bySignature(old.AccessKey, string(old.SecretKey))
		if gone == nil || gone.Error() != wrong.Error() {
			t.Errorf("a removed user: %v", gone)
		}
		if _, _, _, err := w.SecretFor(old.AccessKey); !errors.Is(err, ErrNotFound) {
			t.Errorf("the secret of a removed user: %v", err)
		}

		// The other face sees the same rights.
		secret, project, readOnly, err := w.SecretFor(ak)
		if err != nil || secret != sk || project != "p1" || !readOnly {
			t.Errorf("SecretFor: project %s, read only %v, %v", project, readOnly, err)
		}
		check(t, w.Grant(ctx, Grant{reader.ID, "p1", ims.RoleMember}))
		if _, _, readOnly, err = w.SecretFor(ak); err != nil || readOnly {
			t.Errorf("SecretFor of a member: read only %v, %v", readOnly, err)
		}
		check(t, w.Revoke(ctx, Grant{reader.ID, "p1", ims.RoleMember}))
		check(t, w.Revoke(ctx, Grant{reader.ID, "p1", ims.RoleReader}))
		if _, _, _, err = w.SecretFor(ak); !errors.Is(err, ErrNotFound) {
			t.Errorf("SecretFor of a user without a role in the project: %v", err)
		}
		// The key was for that project: it has ended, and a new role does not bring it back.
		check(t, w.Grant(ctx, Grant{reader.ID, "p1", ims.RoleReader}))
		_, err = w.bySignature(ak, sk)
		refusedWith(t, err, "the access key or the signature is wrong")

		again := must(w.CreateAccessKey(ctx, AccessKey{UserID: reader.ID, ProjectID: "p1"}))
		ak, sk = again.AccessKey, string(again.SecretKey)
		must(w.bySignature(ak, sk, "X-Project-Id", "p2"))
		check(t, w.DeleteAccessKey(ctx, ak))
		_, err = w.bySignature(ak, sk, "X-Project-Id", "p2")
		refusedWith(t, err, "the access key or the signature is wrong")
		for _, bad := range []string{ak, "", "a b", "x\x00"} {
			if _, _, _, err := w.SecretFor(bad); !errors.Is(err, ErrNotFound) {
				t.Errorf("SecretFor(%q): %v", bad, err)
			}
		}
	})
}

func TestRequestsWithoutCredential(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		for _, tc := range []struct{ header, value, detail string }{
			{"Accept", "*/*", "no credential"},
			{"X-Auth-Token", "", "no credential"},
			{"Authorization", "Bearer x", "must begin with SDK-HMAC-SHA256"},
			{"Authorization", "Basic YTpi", "must begin with SDK-HMAC-SHA256"},
			{"Authorization", "SDK-HMAC-SHA256", "may hold"},
		} {
			r := httptest.NewRequest("GET", "/v3/projects", nil)
			r.Header.Set(tc.header, tc.value)
			_, err := w.Authenticate(t.Context(), r, nil)
			refusedWith(t, err, tc.detail)
		}
		r := w.signed(testSeed.AccessKey, testSeed.SecretKey)
		w.clock.advance(signature.MaxSkew + time.Second)
		_, err := w.Authenticate(t.Context(), r, nil)
		refusedWith(t, err, "15 minutes")
	})
}

// TestDatabaseTroubleIsNoRefusal holds that a caller is not called unknown because
// nobody can be looked up.
func TestDatabaseTroubleIsNoRefusal(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		token := w.login(t, Scope{})
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Auth-Token", token)
		_, byToken := w.Authenticate(ctx, r, nil)
		_, bySignature := w.Authenticate(ctx, w.signed(testSeed.AccessKey, testSeed.SecretKey), nil)
		_, _, login := w.LoginPassword(ctx, PasswordLogin{UserID: w.admin.ID, Password: testSeed.Password}, Scope{})
		for name, err := range map[string]error{"token": byToken, "signature": bySignature, "password": login} {
			if err == nil || ims.CodeOf(err) != "" || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
