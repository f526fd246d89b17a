package identity

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity/signature"
	"github.com/quickims/quickims/internal/ims"
)

// Lengths of what the service makes up, as the cloud's own keys have them, and the
// bounds of a secret that the operator brings.
const (
	madeAccessKey = 20
	madeSecretKey = 40
	minSecretKey  = 8
	maxSecretKey  = 128
)

// accessKeyAlphabet has 32 letters and digits, so that a byte picks one evenly.
const accessKeyAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// secretForTimeout bounds SecretFor, which has no context of its own.
const secretForTimeout = 5 * time.Second

// AccessKey signs requests in a user's name.
type AccessKey struct {
	AccessKey string
	UserID    string
	// ProjectID is the project of a request that names none.
	ProjectID string
	// SecretKey is filled in by CreateAccessKey alone. It prints masked.
	SecretKey Secret
	CreatedAt time.Time
}

// Secret is a text that prints masked.
type Secret string

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString masks the secret for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue masks the secret in logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// CreateAccessKey makes an access key for a user with a role in the project. Empty
// AccessKey and SecretKey are made up; the answer holds both. ErrNotFound: the user
// has no role in the project; ErrExists: the access key is taken.
func (s *Service) CreateAccessKey(ctx context.Context, k AccessKey) (AccessKey, error) {
	fail := func(err error) (AccessKey, error) {
		return AccessKey{}, fmt.Errorf("make an access key for user %s in project %s: %w", k.UserID, k.ProjectID, err)
	}
	var err error
	if k.AccessKey == "" {
		if k.AccessKey, err = s.makeUp(madeAccessKey); err != nil {
			return fail(err)
		}
	}
	if k.SecretKey == "" {
		secret, err := s.makeSecret()
		if err != nil {
			return fail(err)
		}
		k.SecretKey = Secret(secret)
	}
	k.CreatedAt = s.opts.Clock()
	sealed, err := s.sealAccessKey(k)
	if err != nil {
		return fail(err)
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if u, err := lockUser(ctx, tx, k.UserID); err != nil {
			return err
		} else if !u.enabled {
			return fmt.Errorf("user who was not removed %w", ErrNotFound)
		}
		if err := exists(ctx, tx, "user with a role in the project",
			`SELECT 1 FROM identity_grants WHERE user_id = $1 AND project_id = $2 LIMIT 1`, k.UserID, k.ProjectID); err != nil {
			return err
		}
		return insertAccessKey(ctx, tx, k, sealed)
	})
	if err != nil {
		return fail(err)
	}
	return k, nil
}

// sealAccessKey checks both halves and seals the secret.
func (s *Service) sealAccessKey(k AccessKey) (string, error) {
	if !signature.ValidAccessKey(k.AccessKey) {
		return "", fmt.Errorf("%w: the access key must be 1 to 128 letters, digits, '-', '_' or '.'", ErrInvalid)
	}
	if len(k.SecretKey) < minSecretKey || len(k.SecretKey) > maxSecretKey {
		return "", fmt.Errorf("%w: the secret key must have %d to %d bytes", ErrInvalid, minSecretKey, maxSecretKey)
	}
	for i := range len(k.SecretKey) {
		if c := k.SecretKey[i]; c <= ' ' || c > '~' {
			return "", fmt.Errorf("%w: the secret key must be printable ASCII without spaces", ErrInvalid)
		}
	}
	return s.seal.seal(s.opts.Random, k.AccessKey, string(k.SecretKey))
}

func insertAccessKey(ctx context.Context, tx *database.Tx, k AccessKey, sealed string) error {
	return insert(ctx, tx, `INSERT INTO identity_access_keys (access_key, user_id, project_id, secret_sealed, created_at)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, k.AccessKey, k.UserID, k.ProjectID, sealed, k.CreatedAt.UnixMilli())
}

// makeUp gives n random letters and digits that are not mistaken for each other.
func (s *Service) makeUp(n int) (string, error) {
	b, err := s.random(n)
	for i := range b {
		b[i] = accessKeyAlphabet[b[i]%byte(len(accessKeyAlphabet))]
	}
	return string(b), err
}

// makeSecret gives a secret of 40 characters, 240 random bits.
func (s *Service) makeSecret() (string, error) {
	b, err := s.random(madeSecretKey / 4 * 3)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// DeleteAccessKey deletes an access key and ends what was opened with it. ErrNotFound:
// there is none.
func (s *Service) DeleteAccessKey(ctx context.Context, accessKey string) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		var userID string
		err := tx.QueryRowContext(ctx, `SELECT user_id FROM identity_access_keys WHERE access_key = $1`, accessKey).Scan(&userID)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if _, err := lockUser(ctx, tx, userID); err != nil {
			return err
		}
		if n, err := changed(tx.ExecContext(ctx, `DELETE FROM identity_access_keys WHERE access_key = $1`, accessKey)); err != nil {
			return err
		} else if n == 0 { // somebody else was quicker
			return ErrNotFound
		}
		return s.opts.End(ctx, tx, ims.Ended{AccessKey: accessKey})
	})
	if err != nil {
		return fmt.Errorf("delete access key %s: %w", accessKey, err)
	}
	return nil
}

// DeleteAllAccessKeys deletes every user's access keys, ends what was opened with them, and
// returns how many there were.
func (s *Service) DeleteAllAccessKeys(ctx context.Context) (int, error) {
	var keys []string
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		text := func(rows *sql.Rows) (text string, err error) { return text, rows.Scan(&text) }
		users, err := collect(ctx, tx, text, `SELECT DISTINCT user_id FROM identity_access_keys ORDER BY user_id`)
		if err != nil {
			return err
		}
		for _, id := range users {
			if _, err := lockUser(ctx, tx, id); err != nil {
				return err
			}
		}
		if keys, err = collect(ctx, tx, text, `DELETE FROM identity_access_keys RETURNING access_key`); err != nil {
			return err
		}
		for _, key := range keys {
			if err := s.opts.End(ctx, tx, ims.Ended{AccessKey: key}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("delete all access keys: %w", err)
	}
	return len(keys), nil
}

// AccessKeys lists a user's access keys without their secrets, oldest first.
func (s *Service) AccessKeys(ctx context.Context, userID string) ([]AccessKey, error) {
	all, err := collect(ctx, s.db, func(rows *sql.Rows) (AccessKey, error) {
		var k AccessKey
		var at int64
		err := rows.Scan(&k.AccessKey, &k.UserID, &k.ProjectID, &at)
		k.CreatedAt = time.UnixMilli(at).UTC()
		return k, err
	}, `SELECT access_key, user_id, project_id, created_at FROM identity_access_keys
		WHERE user_id = $1 ORDER BY created_at, access_key`, userID)
	if err != nil {
		return nil, fmt.Errorf("list the access keys of user %s: %w", userID, err)
	}
	return all, nil
}

// storedKey is an access key and whose it is.
type storedKey struct {
	sealed  string
	project string // the project of a request that names none
	user    userRow
}

// accessKey looks an access key up. ErrNotFound: there is none.
func (s *Service) accessKey(ctx context.Context, accessKey string) (storedKey, error) {
	var k storedKey
	err := s.db.QueryRowContext(ctx, `SELECT k.secret_sealed, k.project_id, u.id, u.name, u.enabled, d.id, d.name
		FROM identity_access_keys k
		JOIN identity_users u ON u.id = k.user_id
		JOIN identity_domains d ON d.id = u.domain_id
		WHERE k.access_key = $1`, accessKey).
		Scan(&k.sealed, &k.project, &k.user.id, &k.user.name, &k.user.enabled, &k.user.domainID, &k.user.domainName)
	if errors.Is(err, sql.ErrNoRows) {
		return k, ErrNotFound
	}
	return k, err
}

// SecretFor gives an access key's secret, its project, and whether its user may only
// read there, for a face that verifies another protocol's signatures. ErrNotFound:
// there is no such key, its user is disabled or has no role in the project any more.
func (s *Service) SecretFor(accessKey string) (secret, projectID string, readOnly bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), secretForTimeout)
	defer cancel()
	fail := func(err error) (string, string, bool, error) {
		return "", "", false, fmt.Errorf("look up access key: %w", err)
	}
	if !signature.ValidAccessKey(accessKey) {
		return fail(ErrNotFound)
	}
	k, err := s.accessKey(ctx, accessKey)
	if err != nil {
		return fail(err)
	}
	if !k.user.isEnabled() {
		return fail(ErrNotFound)
	}
	scope, err := s.projectScope(ctx, s.db, k.user.id, k.project)
	if ims.CodeOf(err) == ims.CodeToken { // no role there any more
		return fail(ErrNotFound)
	}
	if err != nil {
		return fail(err)
	}
	if secret, err = s.seal.open(accessKey, k.sealed); err != nil {
		return fail(err)
	}
	readOnly = !ims.Principal{Roles: scope.roles}.May(ims.ActionImagesUpdate)
	return secret, k.project, readOnly, nil
}
