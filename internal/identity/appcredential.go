package identity

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// MethodApplicationCredential is the way to get a token with an application credential.
const MethodApplicationCredential = "application_credential"

// MaxApplicationCredentials bounds what one user can make the service keep.
const MaxApplicationCredentials = 100

// ApplicationCredential stands for a user in one project, with some of the user's roles.
// A role that the user loses counts no longer; the credential ends with the user and with
// the user's last role in the project.
type ApplicationCredential struct {
	ID, UserID, ProjectID string
	Name, Description     string // the name is unique among the user's
	Roles                 []ims.Role
	// Unrestricted says that its tokens may make and delete application credentials.
	Unrestricted bool
	CreatedAt    time.Time
	ExpiresAt    time.Time // zero: never
}

const appCredentialColumns = "id, user_id, project_id, name, description, roles, unrestricted, created_at, expires_at"

func scanAppCredential(row interface{ Scan(...any) error }, more ...any) (ApplicationCredential, error) {
	var a ApplicationCredential
	var roles string
	var created int64
	var expires sql.NullInt64
	err := row.Scan(append([]any{&a.ID, &a.UserID, &a.ProjectID, &a.Name, &a.Description, &roles, &a.Unrestricted, &created, &expires}, more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return a, fmt.Errorf("application credential %w", ErrNotFound)
	}
	a.Roles = splitRoles(roles)
	a.CreatedAt = time.UnixMilli(created).UTC()
	if expires.Valid {
		a.ExpiresAt = time.UnixMilli(expires.Int64).UTC()
	}
	return a, err
}

// CreateApplicationCredential makes an application credential for the caller in its
// project, and returns it with its secret, which is made up if it is empty. Roles must be
// the caller's; none: all of them. ErrExists: the name is taken. ErrInvalid: a field is
// wrong. A caller with a restricted application credential is refused.
func (s *Service) CreateApplicationCredential(ctx context.Context, caller ims.Principal, a ApplicationCredential, secret string) (ApplicationCredential, string, error) {
	fail := func(err error) (ApplicationCredential, string, error) {
		return ApplicationCredential{}, "", fmt.Errorf("make application credential %q: %w", a.Name, err)
	}
	if caller.ProjectID == "" {
		return fail(fmt.Errorf("%w: the token must be for a project", ErrInvalid))
	}
	if err := checkName("application credential", a.Name); err != nil {
		return fail(err)
	}
	if len(a.Description) > maxPassword || !database.Storable(a.Description) {
		return fail(fmt.Errorf("%w: the description has at most %d bytes of text", ErrInvalid, maxPassword))
	}
	now := s.opts.Clock()
	if !a.ExpiresAt.IsZero() && !a.ExpiresAt.After(now) {
		return fail(fmt.Errorf("%w: expires_at must be in the future", ErrInvalid))
	}
	if len(a.Roles) == 0 {
		a.Roles = caller.Roles
	}
	for _, r := range a.Roles {
		if !slices.Contains(caller.Roles, r) {
			return fail(fmt.Errorf("%w: role %q is not the caller's in the project", ErrInvalid, r))
		}
	}
	if secret == "" {
		random, err := s.random(48)
		if err != nil {
			return fail(err)
		}
		secret = base64.RawURLEncoding.EncodeToString(random)
	}
	hash, err := s.hashPassword(ctx, secret)
	if err != nil {
		return fail(err)
	}
	if a.ID, err = s.newID(); err != nil {
		return fail(err)
	}
	a.UserID, a.ProjectID, a.CreatedAt = caller.UserID, caller.ProjectID, now.Truncate(time.Millisecond).UTC()
	var expires any
	if !a.ExpiresAt.IsZero() {
		expires = a.ExpiresAt.UnixMilli()
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, caller.UserID); err != nil {
			return err
		}
		now, err := s.holds(ctx, tx, caller)
		if err != nil {
			return err
		}
		if err := s.mayManage(ctx, tx, now); err != nil {
			return err
		}
		var has int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM identity_application_credentials WHERE user_id = $1`, caller.UserID).Scan(&has); err != nil {
			return err
		}
		if has >= MaxApplicationCredentials {
			return fmt.Errorf("%w: the user has %d application credentials, at most %d are allowed", ErrInvalid, has, MaxApplicationCredentials)
		}
		return insert(ctx, tx, `INSERT INTO identity_application_credentials (`+appCredentialColumns+`, secret_hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
			a.ID, a.UserID, a.ProjectID, a.Name, a.Description, joinRoles(a.Roles), a.Unrestricted, a.CreatedAt.UnixMilli(), expires, hash)
	})
	if err != nil {
		return fail(err)
	}
	return a, secret, nil
}

// mayManage refuses a caller whose own application credential is restricted.
func (s *Service) mayManage(ctx context.Context, q database.Querier, caller ims.Principal) error {
	if caller.Credential.Application == "" {
		return nil
	}
	a, err := s.appCredential(ctx, q, `id = $1`, caller.Credential.Application)
	if err == nil && !a.Unrestricted {
		err = ims.Faultf(ims.CodeForbidden, "a restricted application credential may not make or delete application credentials").WithKind(ims.KindForbidden)
	}
	return err
}

func (s *Service) appCredential(ctx context.Context, q database.Querier, condition string, args ...any) (ApplicationCredential, error) {
	return scanAppCredential(q.QueryRowContext(ctx, `SELECT `+appCredentialColumns+` FROM identity_application_credentials WHERE `+condition, args...))
}

// ApplicationCredentials lists the application credentials of a user, by name.
func (s *Service) ApplicationCredentials(ctx context.Context, userID string) ([]ApplicationCredential, error) {
	all, err := collect(ctx, s.db, func(rows *sql.Rows) (ApplicationCredential, error) { return scanAppCredential(rows) },
		`SELECT `+appCredentialColumns+` FROM identity_application_credentials WHERE user_id = $1 ORDER BY name`, userID)
	if err != nil {
		return nil, fmt.Errorf("list the application credentials of user %s: %w", userID, err)
	}
	return all, nil
}

// ApplicationCredential reads one of a user's. ErrNotFound: it has none with this id.
func (s *Service) ApplicationCredential(ctx context.Context, userID, id string) (ApplicationCredential, error) {
	return s.appCredential(ctx, s.db, `user_id = $1 AND id = $2`, userID, lookupText(id))
}

// DeleteApplicationCredential ends one of the caller's application credentials, its
// tokens, and what was opened with them. ErrNotFound: the caller has none with this id.
func (s *Service) DeleteApplicationCredential(ctx context.Context, caller ims.Principal, id string) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, caller.UserID); err != nil {
			return err
		}
		if err := s.mayManage(ctx, tx, caller); err != nil {
			return err
		}
		n, err := changed(tx.ExecContext(ctx, `DELETE FROM identity_application_credentials WHERE user_id = $1 AND id = $2`, caller.UserID, lookupText(id)))
		if err == nil && n == 0 {
			err = fmt.Errorf("application credential %w", ErrNotFound)
		}
		if err != nil {
			return err
		}
		return s.endTokens(ctx, tx, `application_credential = $1`, id)
	})
	if err != nil {
		return fmt.Errorf("delete application credential %s: %w", id, err)
	}
	return nil
}

// ApplicationLogin names an application credential by id, or by name and user.
type ApplicationLogin struct {
	ID, Name             string
	UserID, UserName     string
	DomainID, DomainName string
	Secret               string
	Source               string
}

// LoginApplicationCredential checks a secret and issues a token for the credential's
// project, with its roles as far as the user still has them. Refusals are those of
// LoginPassword.
func (s *Service) LoginApplicationCredential(ctx context.Context, in ApplicationLogin) (string, Token, error) {
	for _, field := range []*string{&in.ID, &in.Name, &in.UserID, &in.UserName, &in.DomainID, &in.DomainName} {
		*field = lookupText(*field)
	}
	var user userRow
	var hash string
	name := in.DomainName
	if in.DomainID != "" {
		name = ""
	}
	a, err := scanAppCredential(s.db.QueryRowContext(ctx, `SELECT a.id, a.user_id, a.project_id, a.name, a.description, a.roles, a.unrestricted, a.created_at, a.expires_at,
			a.secret_hash, u.id, u.name, u.enabled, d.id, d.name
		FROM identity_application_credentials a JOIN identity_users u ON u.id = a.user_id JOIN identity_domains d ON d.id = u.domain_id
		WHERE a.id = $1 OR $1 = '' AND a.name = $2 AND (u.id = $3 OR $3 = '' AND u.name = $4 AND (d.id = $5 OR d.name = $6 OR $7 AND lower(d.name) = $8))
		ORDER BY CASE WHEN d.id = $5 OR d.name = $6 THEN 0 ELSE 1 END, a.id LIMIT 1`,
		in.ID, in.Name, in.UserID, in.UserName, in.DomainID, name,
		in.DomainID == DefaultDomain || strings.EqualFold(name, DefaultDomain), DefaultDomain),
		&hash, &user.id, &user.name, &user.enabled, &user.domainID, &user.domainName)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", Token{}, fmt.Errorf("look up an application credential: %w", err)
	}
	good, err := s.tryPassword(ctx, PasswordLogin{Password: in.Secret, Source: in.Source}, user.id, hash)
	if err != nil {
		return "", Token{}, err
	}
	if !good || !user.isEnabled() || !a.ExpiresAt.IsZero() && !s.opts.Clock().Before(a.ExpiresAt) {
		return "", Token{}, s.refuseLogin(in.Source, user.id, "the application credential or its secret is wrong, or it has expired")
	}
	s.logins.give(userKey(in.Source, user.id))
	return s.issue(ctx, user, Scope{ProjectID: a.ProjectID}, []string{MethodApplicationCredential}, opened{application: a.ID, notAfter: a.ExpiresAt})
}

// within restricts a scope to what an application credential stands for: its project, and
// those of its roles that the user has. "" restricts nothing.
func (s *Service) within(ctx context.Context, q database.Querier, application string, at scopeRow) (scopeRow, error) {
	if application == "" {
		return at, nil
	}
	a, err := s.appCredential(ctx, q, `id = $1`, application)
	if errors.Is(err, ErrNotFound) {
		return at, noToken()
	}
	if err != nil {
		return at, err
	}
	at.roles = slices.DeleteFunc(slices.Clone(at.roles), func(r ims.Role) bool { return !slices.Contains(a.Roles, r) })
	if at.projectID != a.ProjectID || len(at.roles) == 0 {
		return at, noScope()
	}
	return at, nil
}
