package identity_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
	"github.com/quickims/quickims/internal/identity"
	"github.com/quickims/quickims/internal/ims"
)

const (
	lab   = "a0000000000000000000000000000001"
	other = "b0000000000000000000000000000002"
)

// world is identity and a catalog, wired as the service is.
type world struct {
	*identity.Service
	rows  *catalog.Catalog
	image string // an active image of lab's
	alice identity.User
}

const password = "a good password"

func newWorld(t *testing.T, db *database.DB) world {
	t.Helper()
	s, err := identity.New(db, identity.Options{SealKey: make([]byte, 32), End: catalog.EndAccess,
		PasswordCost: identity.PasswordCost{MemoryKiB: 64, Passes: 1, Lanes: 1}})
	must(t, err)
	must(t, s.Bootstrap(t.Context(), identity.Seed{DomainID: "d1", DomainName: "Default", ProjectID: lab, ProjectName: "lab",
		User: "admin", Password: password, AccessKey: "AKADMIN", SecretKey: "secret-of-admin"}))
	_, err = s.CreateProject(t.Context(), identity.Project{ID: other, DomainID: "d1", Name: "other"})
	must(t, err)
	w := world{Service: s, rows: catalog.New(db, catalog.Options{Holds: s.HoldsUntil}), image: ims.NewImageID()}
	now := time.Now().UnixMilli()
	_, err = db.ExecContext(t.Context(), `INSERT INTO images (id, project_id, enterprise_project_id, name, description, status, env, os_version,
		os_type, os_bit, platform, architecture, firmware, license_type, min_disk_gib, min_ram_mib, max_ram_mib, protected, attributes, source_url,
		file_size, data_key, data_etag, data_format, data_size, data_virtual_size, data_bitmap_key, data_bitmap_etag, data_bitmap_size,
		created_at, updated_at, active_at) VALUES ($1, $2, '0', 'disk', '', 'active', '', '', 'Linux', '64', '', 'x86', 'bios', '', 1, 0, '', FALSE, '{}', '',
		512, $3, 'etag', 'raw', 512, 512, '', '', 0, $4, $4, $4)`, w.image, lab, w.image+"/1/disk", now)
	must(t, err)
	w.alice, err = s.CreateUser(t.Context(), identity.User{DomainID: "d1", Name: "alice"}, password)
	must(t, err)
	must(t, s.SetRole(t.Context(), identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleMember}))
	return w
}

func onBoth(t *testing.T, f func(t *testing.T, w world)) {
	t.Helper()
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) { f(t, newWorld(t, db)) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// login gives a token of alice's and whom it stands for.
func (w world) login(t *testing.T, scope identity.Scope) (string, ims.Principal) {
	t.Helper()
	secret, token, err := w.LoginPassword(t.Context(), identity.PasswordLogin{UserID: w.alice.ID, Password: password}, scope)
	must(t, err)
	return secret, token.Principal
}

func (w world) attach(ctx context.Context, p ims.Principal) (string, error) {
	token := ims.HashAttachToken(ims.NewAttachToken())
	_, err := w.rows.Attach(ctx, p, ims.Attachment{ID: ims.NewAttachmentID(), ImageID: w.image}, token, catalog.AttachLife{TTL: time.Hour},
		ims.Limits{Images: 100, Imports: 100, Attachments: 100})
	return token, err
}

// attached is attach that must succeed.
func (w world) attached(t *testing.T, p ims.Principal) string {
	t.Helper()
	token, err := w.attach(t.Context(), p)
	must(t, err)
	return token
}

// want says which attachments live.
func (w world) want(t *testing.T, what string, lives bool, tokens ...string) {
	t.Helper()
	for _, token := range tokens {
		_, _, err := w.rows.AttachmentByToken(t.Context(), token)
		if lives && err != nil || !lives && !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: the attachment lives: want %v, got %v", what, lives, err)
		}
	}
}

func (w world) wantHolds(t *testing.T, what string, p ims.Principal, holds bool) {
	t.Helper()
	_, err := w.Holds(t.Context(), p)
	if holds && err != nil || !holds && ims.CodeOf(err) != ims.CodeToken {
		t.Errorf("%s: access lasts: want %v, got %v", what, holds, err)
	}
}

// TestWhatEndsWithWhat: every way to end a grant ends what was opened by it, and nothing
// of anybody else.
func TestWhatEndsWithWhat(t *testing.T) {
	t.Parallel()
	inLab := identity.Scope{ProjectID: lab}
	for name, end := range map[string]struct {
		do func(ctx context.Context, w world, key, token string) error
		// what of alice's lives on: what she opened with the token, with one that was made
		// from it, with another password login, with an access key
		token, child, login, key bool
		// whether her access by the token lasts, and what she has may be opened anew
		holds bool
	}{
		"user removed":    {do: func(ctx context.Context, w world, _, _ string) error { return w.RemoveUser(ctx, w.alice.ID) }},
		"out of project":  {do: func(ctx context.Context, w world, _, _ string) error { return w.RemoveMembership(ctx, w.alice.ID, lab) }},
		"project removed": {do: func(ctx context.Context, w world, _, _ string) error { return w.RemoveProject(ctx, lab) }},
		"role taken away": {do: func(ctx context.Context, w world, _, _ string) error {
			return w.Revoke(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleMember})
		}},
		"role made weaker": {do: func(ctx context.Context, w world, _, _ string) error {
			return w.SetRole(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleReader})
		}, holds: true},
		"role made stronger": {do: func(ctx context.Context, w world, _, _ string) error {
			return w.SetRole(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleAdmin})
		}, token: true, child: true, login: true, key: true, holds: true},
		"same role again": {do: func(ctx context.Context, w world, _, _ string) error {
			return w.SetRole(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleMember})
		}, token: true, child: true, login: true, key: true, holds: true},
		"key revoked": {do: func(ctx context.Context, w world, key, _ string) error { return w.DeleteAccessKey(ctx, key) }, token: true, child: true, login: true, holds: true},
		"all keys deleted": {do: func(ctx context.Context, w world, _, _ string) error {
			if n, err := w.DeleteAllAccessKeys(ctx); err != nil || n < 2 {
				return fmt.Errorf("%d keys were deleted, want alice's and the first one: %w", n, err)
			}
			return nil
		}, token: true, child: true, login: true, holds: true},
		"new password": {do: func(ctx context.Context, w world, _, _ string) error {
			return w.SetPassword(ctx, w.alice.ID, "another password")
		}, key: true},
		"token revoked": {do: func(ctx context.Context, w world, _, token string) error {
			return w.RevokeToken(ctx, ims.Principal{UserID: w.alice.ID}, token)
		}, login: true, key: true},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, w world) {
				ctx := t.Context()
				first, p := w.login(t, inLab)
				second, middle, err := w.LoginToken(ctx, first, identity.Scope{})
				must(t, err)
				_, last, err := w.LoginToken(ctx, second, inLab)
				must(t, err)
				_, again := w.login(t, inLab)
				key, err := w.CreateAccessKey(ctx, identity.AccessKey{UserID: w.alice.ID, ProjectID: lab})
				must(t, err)
				byKey := p
				byKey.Credential = ims.Credential{AccessKey: key.AccessKey}
				admin, err := w.adminOf(ctx)
				must(t, err)
				byToken, byChild, byLogin, signed := w.attached(t, p), w.attached(t, last.Principal), w.attached(t, again), w.attached(t, byKey)
				admins := w.attached(t, admin)
				must(t, end.do(ctx, w, key.AccessKey, first))
				w.want(t, "by the token", end.token, byToken)
				w.want(t, "by a token made from it", end.child, byChild)
				w.want(t, "by another login", end.login, byLogin)
				w.want(t, "by an access key", end.key, signed)
				w.want(t, "the admin's", name != "project removed", admins)
				w.wantHolds(t, "the token", p, end.holds)
				w.wantHolds(t, "a token made from it", last.Principal, end.holds)
				w.wantHolds(t, "an unscoped token made from it", middle.Principal, end.holds)
				w.wantHolds(t, "the access key", byKey, end.key || end.holds && name != "key revoked" && name != "all keys deleted")
				if _, err := w.attach(ctx, p); (err == nil) != end.holds {
					t.Errorf("attach anew by the token: %v", err)
				}
			})
		})
	}
}

// adminOf is the first project's admin with a token.
func (w world) adminOf(ctx context.Context) (ims.Principal, error) {
	_, token, err := w.LoginPassword(ctx, identity.PasswordLogin{UserName: "admin", DomainID: "d1", Password: password}, identity.Scope{ProjectID: lab})
	return token.Principal, err
}

// TestReadmittedUser has the new grant alone.
func TestReadmittedUser(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx := t.Context()
		token, p := w.login(t, identity.Scope{ProjectID: lab})
		key, err := w.CreateAccessKey(ctx, identity.AccessKey{UserID: w.alice.ID, ProjectID: lab})
		must(t, err)
		must(t, w.RemoveUser(ctx, w.alice.ID))
		must(t, w.ReadmitUser(ctx, w.alice.ID, password))
		must(t, w.SetRole(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: other, Role: ims.RoleReader}))
		if _, _, err := w.LoginPassword(ctx, identity.PasswordLogin{UserID: w.alice.ID, Password: password}, identity.Scope{ProjectID: lab}); ims.CodeOf(err) != ims.CodeToken {
			t.Errorf("a token for the old project: %v", err)
		}
		if _, _, err := w.LoginToken(ctx, token, identity.Scope{}); ims.CodeOf(err) != ims.CodeToken {
			t.Errorf("the old token works: %v", err)
		}
		if _, _, _, err := w.SecretFor(key.AccessKey); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("the old key works: %v", err)
		}
		must(t, w.SetRole(ctx, identity.Grant{UserID: w.alice.ID, ProjectID: lab, Role: ims.RoleReader}))
		w.wantHolds(t, "the old token", p, false)
	})
}

// TestEndAgainstOpen: what is opened in the moment in which the grant ends is refused, or
// ended with it.
func TestEndAgainstOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ctx := t.Context()
		for range 10 {
			first, p := w.login(t, identity.Scope{ProjectID: lab})
			var mu sync.Mutex
			var attached, tokens []string
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					<-begin
					token, err := w.attach(ctx, p)
					if err == nil {
						mu.Lock()
						attached = append(attached, token)
						mu.Unlock()
					} else if ims.CodeOf(err) != ims.CodeToken {
						t.Error(err)
					}
				})
				wg.Go(func() {
					<-begin
					from := first
					for range 3 { // a chain
						secret, _, err := w.LoginToken(ctx, from, identity.Scope{ProjectID: lab})
						if err != nil {
							if ims.CodeOf(err) != ims.CodeToken {
								t.Error(err)
							}
							return
						}
						mu.Lock()
						tokens = append(tokens, secret)
						mu.Unlock()
						from = secret
					}
				})
			}
			wg.Go(func() {
				<-begin
				if err := w.RevokeToken(ctx, p, first); err != nil {
					t.Error(err)
				}
			})
			close(begin)
			wg.Wait()
			w.want(t, "after the revocation", false, attached...)
			for _, token := range tokens {
				if _, _, err := w.LoginToken(ctx, token, identity.Scope{}); ims.CodeOf(err) != ims.CodeToken {
					t.Errorf("a token made from the revoked one works: %v", err)
				}
			}
		}
	})
}
