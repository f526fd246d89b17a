package identity

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// The ways to get a token.
const (
	MethodPassword = "password"
	MethodToken    = "token"
)

// tokenBytes is a token's randomness.
const tokenBytes = 32

// maxTokenLength bounds what is hashed for a lookup. Ours have 43 characters, those of
// an outside Keystone some hundred, or a thousand if they are signed.
const maxTokenLength = 4096

// purgeBatch is how many expired tokens one transaction deletes.
const purgeBatch = 1000

// Scope says for what a token is wanted: a project by id, or by name in a domain; a
// domain by id or name; or, when all are empty, nothing.
type Scope struct {
	ProjectID, ProjectName string
	DomainID, DomainName   string
}

// Token is what a token stands for. The secret itself is not in it.
type Token struct {
	// Principal is the caller. For a token scoped to a domain its roles are those
	// that the user has in any project of it.
	Principal ims.Principal
	// Methods are the ways in which the caller proved itself.
	Methods             []string
	IssuedAt, ExpiresAt time.Time
	// DomainScoped says that the token is for the principal's domain.
	DomainScoped bool
}

// PasswordLogin names a user by id, or by name and domain (by id or name), and where
// the request came from, for the limit on failed logins.
type PasswordLogin struct {
	UserID, UserName     string
	DomainID, DomainName string
	Password             string
	Source               string
}

// userRow is a user with its domain.
type userRow struct {
	id, name             string
	enabled              int
	domainID, domainName string
}

func (u userRow) isEnabled() bool { return u.enabled == 1 }

// LoginPassword checks a password and issues a token. A refusal is of
// KindUnauthenticated and does not tell an unknown user from a wrong password; it is
// KindThrottled after many failures, KindUnavailable when too many wait.
func (s *Service) LoginPassword(ctx context.Context, in PasswordLogin, scope Scope) (string, Token, error) {
	for _, field := range []*string{&in.UserID, &in.UserName, &in.DomainID, &in.DomainName} {
		*field = lookupText(*field)
	}
	var user userRow
	var hash string
	const columns = `SELECT u.id, u.name, u.enabled, d.id, d.name, u.password_hash
		FROM identity_users u JOIN identity_domains d ON d.id = u.domain_id WHERE `
	var row *database.Row
	switch {
	case in.UserID != "":
		row = s.db.QueryRowContext(ctx, columns+`u.id = $1`, in.UserID)
	default:
		name := in.DomainName
		if in.DomainID != "" {
			name = "" // an id says it all
		}
		// The domain that is called exactly so comes before the one that is so by default.
		row = s.db.QueryRowContext(ctx, columns+`u.name = $1 AND (d.id = $2 OR d.name = $3 OR $4 AND lower(d.name) = $5)
			ORDER BY CASE WHEN d.id = $2 OR d.name = $3 THEN 0 ELSE 1 END, d.id LIMIT 1`, in.UserName, in.DomainID, name,
			in.DomainID == DefaultDomain || strings.EqualFold(name, DefaultDomain), DefaultDomain)
	}
	err := row.Scan(&user.id, &user.name, &user.enabled, &user.domainID, &user.domainName, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", Token{}, fmt.Errorf("look up a user: %w", err)
	}
	good, err := s.tryPassword(ctx, in, user.id, hash)
	if err != nil {
		return "", Token{}, err
	}
	if !good || !user.isEnabled() {
		return "", Token{}, s.refuseLogin(in.Source, user.id, "the user or the password is wrong")
	}
	s.logins.give(userKey(in.Source, user.id))
	return s.issue(ctx, user, scope, []string{MethodPassword}, opened{passwordHash: hash})
}

// Failed logins are counted by what the lookup found, whatever else the request said: by
// the user, or, if there is none, by the address alone. The user's count is by address
// too, so that nobody can lock a user out from elsewhere.
func userKey(source, userID string) string { return "user " + source + " " + userID }
func addressKey(source string) string      { return "address " + source }

// refuseLogin is the error of a login that failed. When the address has guessed too many
// names, a right name is told no more.
func (s *Service) refuseLogin(source, userID, why string) error {
	if wait := s.logins.wait(addressKey(source)); userID != "" && wait > 0 {
		return throttled(wait)
	}
	return unauthorized("%s", why)
}

func throttled(wait time.Duration) error {
	return ims.Faultf(ims.CodeToken, "too many failed logins, try again in %d s", int(wait.Seconds())+1).WithKind(ims.KindThrottled)
}

// tryPassword compares a password with the hash of the user that the lookup found, "" and
// "" if it found none. The try counts as failed before the hashing begins, so that no
// more can be made at once than one after the other; the caller gives it back.
func (s *Service) tryPassword(ctx context.Context, in PasswordLogin, userID, hash string) (good bool, err error) {
	key, try := userKey(in.Source, userID), s.logins.wait
	if userID == "" { // it fails for sure: it takes its try before it waits in the queue
		key, try = addressKey(in.Source), s.logins.take
	}
	if wait := try(key); wait > 0 {
		return false, throttled(wait)
	}
	defer admit.Working(ctx)()
	leave, err := s.hasher.enter(ctx, in.Source)
	if err != nil {
		return false, err
	}
	defer leave()
	if userID != "" {
		if wait := s.logins.take(key); wait > 0 {
			return false, throttled(wait)
		}
	}
	if len(in.Password) > maxPassword {
		return false, nil
	}
	// An unknown user has no hash, which takes as long to refuse as a wrong password.
	if good, err = s.hasher.matches(hash, in.Password); err != nil {
		s.logins.give(key)
	}
	return good, err
}

// LoginToken issues a token for another scope to the bearer of a token. The new one
// expires no later than the old one.
func (s *Service) LoginToken(ctx context.Context, token string, scope Scope) (string, Token, error) {
	row, err := s.tokenRow(ctx, token)
	if err != nil {
		return "", Token{}, err
	}
	methods := row.methods
	if !slices.Contains(methods, MethodToken) {
		methods = append([]string{MethodToken}, methods...)
	}
	return s.issue(ctx, row.user, scope, methods, opened{parent: hashToken(token), application: row.application, notAfter: row.expiresAt})
}

// opened is what a token is made from: a password, or another token.
type opened struct {
	passwordHash string // the hash that the password matched
	parent       string // the hash of the other token
	application  string // the id of an application credential
	notAfter     time.Time
}

// check locks the user and makes sure that what the token is made from is still good.
func (o opened) check(ctx context.Context, tx *database.Tx, userID string) error {
	user, err := lockUser(ctx, tx, userID)
	if err != nil {
		return err
	}
	if !user.enabled || o.parent == "" && o.application == "" && user.passwordHash != o.passwordHash {
		return unauthorized("the user or the password is wrong")
	}
	if o.parent == "" {
		return nil
	}
	err = exists(ctx, tx, "token", `SELECT 1 FROM identity_tokens WHERE hash = $1`, o.parent)
	if errors.Is(err, ErrNotFound) {
		return noToken()
	}
	return err
}

func noToken() error { return unauthorized("the token is unknown, expired or revoked") }

// oldestTokens are a user's beyond those that it may have, but for one. LIMIT is there
// because SQLite takes OFFSET with it alone. With a token go those that were made from it,
// so that each token's parent is there.
const oldestTokens = `hash IN (SELECT hash FROM identity_tokens
	WHERE user_id = $1 AND hash <> $4 ORDER BY issued_at DESC, hash LIMIT $2 OFFSET $3)`

// issue makes and keeps a token. It expires no later than what it is made from.
func (s *Service) issue(ctx context.Context, user userRow, scope Scope, methods []string, from opened) (string, Token, error) {
	fail := func(err error) (string, Token, error) {
		return "", Token{}, fmt.Errorf("issue a token: %w", err)
	}
	if s.remote != nil {
		return fail(unauthorized("the Keystone at %s issues the tokens, not this service: log in there", s.remote.Keystone.URL()))
	}
	random, err := s.random(tokenBytes)
	if err != nil {
		return fail(err)
	}
	secret := base64.RawURLEncoding.EncodeToString(random)
	now := s.opts.Clock().Truncate(time.Millisecond)
	expires := now.Add(s.opts.TokenTTL)
	if !from.notAfter.IsZero() && from.notAfter.Before(expires) {
		expires = from.notAfter
	}
	var t Token
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, user.id); err != nil {
			return err
		}
		if _, err := deleteTokens(ctx, tx, oldestTokens, user.id, purgeBatch, MaxTokensPerUser-1, ""); err != nil {
			return err
		}
		if err := from.check(ctx, tx, user.id); err != nil {
			return err
		}
		at, err := s.resolve(ctx, tx, user, scope)
		if err == nil {
			at, err = s.within(ctx, tx, from.application, at)
		}
		if err != nil {
			return err
		}
		domain := ""
		if at.domain {
			domain = user.domainID
		}
		p, err := s.principal(ctx, tx, user, at)
		if err != nil {
			return err
		}
		t = Token{Principal: p, Methods: methods, DomainScoped: at.domain, IssuedAt: now, ExpiresAt: expires}
		t.Principal.Credential = ims.Credential{TokenHash: hashToken(secret), TokenExpires: expires, Application: from.application}
		_, err = tx.ExecContext(ctx, `INSERT INTO identity_tokens (hash, user_id, project_id, domain_id, methods, issued_at, expires_at, parent, application_credential)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, hashToken(secret), user.id, at.projectID, domain,
			strings.Join(methods, ","), t.IssuedAt.UnixMilli(), t.ExpiresAt.UnixMilli(), from.parent, from.application)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return secret, t, nil
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// tokenRow is a token as it is kept, still good.
type tokenRow struct {
	user                userRow
	project, domain     string
	application         string // the application credential that it was made with
	methods             []string
	issuedAt, expiresAt time.Time
}

// tokenRow looks a token up. One that is unknown, expired, revoked or of a disabled
// user is a 401 that does not say which.
func (s *Service) tokenRow(ctx context.Context, token string) (tokenRow, error) {
	refused := noToken()
	if token == "" || len(token) > maxTokenLength {
		return tokenRow{}, refused
	}
	var t tokenRow
	var methods string
	var issued, expires int64
	err := s.db.QueryRowContext(ctx, `SELECT t.project_id, t.domain_id, t.application_credential, t.methods, t.issued_at, t.expires_at,
			u.id, u.name, u.enabled, d.id, d.name
		FROM identity_tokens t
		JOIN identity_users u ON u.id = t.user_id
		JOIN identity_domains d ON d.id = u.domain_id
		WHERE t.hash = $1 AND t.checked_at IS NULL`, hashToken(token)).
		Scan(&t.project, &t.domain, &t.application, &methods, &issued, &expires,
			&t.user.id, &t.user.name, &t.user.enabled, &t.user.domainID, &t.user.domainName)
	if errors.Is(err, sql.ErrNoRows) {
		return t, refused
	}
	if err != nil {
		return t, fmt.Errorf("look up a token: %w", err)
	}
	t.methods = strings.Split(methods, ",")
	t.issuedAt, t.expiresAt = time.UnixMilli(issued).UTC(), time.UnixMilli(expires).UTC()
	if !t.user.isEnabled() || !s.opts.Clock().Before(t.expiresAt) {
		return t, refused
	}
	return t, nil
}

// token reads what a token stands for now. The source is where the request came from.
func (s *Service) token(ctx context.Context, source, secret string) (Token, error) {
	if s.remote != nil {
		return s.outsideToken(ctx, source, secret)
	}
	row, err := s.tokenRow(ctx, secret)
	if err != nil {
		return Token{}, err
	}
	at, err := s.resolve(ctx, s.db, row.user, Scope{ProjectID: row.project, DomainID: row.domain})
	if err == nil {
		at, err = s.within(ctx, s.db, row.application, at)
	}
	if err != nil {
		return Token{}, err
	}
	p, err := s.principal(ctx, s.db, row.user, at)
	if err != nil {
		return Token{}, err
	}
	t := Token{
		Principal: p, Methods: row.methods, DomainScoped: at.domain,
		IssuedAt: row.issuedAt, ExpiresAt: row.expiresAt,
	}
	t.Principal.Credential = ims.Credential{TokenHash: hashToken(secret), TokenExpires: row.expiresAt, Application: row.application}
	return t, nil
}

// Show tells what a token stands for to its own user, and to an admin of the project
// that it is for. For anybody else it is ErrNotFound, as an unknown token is.
func (s *Service) Show(ctx context.Context, caller ims.Principal, token string) (Token, error) {
	t, err := s.token(ctx, "", token)
	if ims.CodeOf(err) == ims.CodeToken || err == nil && !mayShow(caller, t.Principal) {
		return Token{}, fmt.Errorf("show a token: %w", ErrNotFound)
	}
	if err != nil {
		return Token{}, fmt.Errorf("show a token: %w", err)
	}
	return t, nil
}

// mayShow reports whether the caller may see and revoke the subject's token.
func mayShow(caller, subject ims.Principal) bool {
	return caller.UserID == subject.UserID ||
		caller.ProjectID != "" && caller.ProjectID == subject.ProjectID && slices.Contains(caller.Roles, ims.RoleAdmin)
}

// RevokeToken ends a token at once, the tokens that were made from it, and what was
// opened with any of them. Who may show it may revoke it; for others it is ErrNotFound.
func (s *Service) RevokeToken(ctx context.Context, caller ims.Principal, token string) error {
	t, err := s.Show(ctx, caller, token)
	if err != nil {
		return err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, t.Principal.UserID); err != nil {
			return err
		}
		return s.endTokens(ctx, tx, `hash = $1`, hashToken(token))
	})
	if err != nil {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return nil
}

// PurgeTokens deletes the tokens that have expired, some at a time.
func (s *Service) PurgeTokens(ctx context.Context) error {
	for {
		var n int64
		err := s.db.InTx(ctx, func(tx *database.Tx) error {
			res, err := tx.ExecContext(ctx, `DELETE FROM identity_tokens WHERE hash IN (SELECT hash FROM identity_tokens
				WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)`, s.opts.Clock().UnixMilli(), purgeBatch)
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		})
		if err != nil {
			return fmt.Errorf("delete expired tokens: %w", err)
		}
		if n < purgeBatch {
			return nil
		}
	}
}
