// Package identity knows who may call: domains, projects, users, their roles, their
// passwords, tokens and access keys, and it tells from a request who sent it.
//
// What is kept how:
//
//   - A password is kept as an argon2id hash with its parameters and salt.
//   - A token is 256 random bits; its SHA-256 alone is kept.
//   - An access key's secret must be had in clear to verify an HMAC. It is kept sealed
//     (XChaCha20-Poly1305) with a key that lies in a file outside the database, so a
//     copy of the database alone gives no secret away. Whoever has both has the secrets.
//
// Rights are read when they are used: a role taken away, a user removed or a key
// deleted counts from the next request on, also for tokens issued before, and in every
// process that shares the database. What runs on, such as a download, asks Holds again
// and again; what is kept, such as an attachment, is ended by Options.End in the
// transaction that takes the right away. Both this and whatever opens an access have the
// user's row locked (see lockUser), so neither misses the other.
package identity

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// Defaults and bounds.
const (
	// DefaultTokenTTL is how long a token is good for.
	DefaultTokenTTL = 24 * time.Hour
	// MaxTokensPerUser bounds what one user can make the service keep; the oldest
	// tokens of a user are revoked beyond it.
	MaxTokensPerUser = 5000
	// DefaultHashes is how many passwords are hashed at once; each takes the memory of
	// its PasswordCost.
	DefaultHashes = 2

	maxName     = 64   // characters of a name
	maxID       = 64   // bytes of an id
	maxPassword = 1024 // bytes of a password
	minPassword = 8    // bytes of a password
)

// Faults of the management calls. errors.Is finds them.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrInvalid  = errors.New("invalid")
)

// ErrUnavailable is database.ErrUnavailable: nobody can be authenticated just now.
var ErrUnavailable = database.ErrUnavailable

// Options of a Service. The zero value is good but for SealKey.
type Options struct {
	// SealKey is SealKeySize random bytes that seal the secrets of access keys. They
	// are kept outside the database, for as long as it; processes that share a
	// database share the key.
	SealKey []byte
	// TokenTTL is how long a token is good for, DefaultTokenTTL if 0.
	TokenTTL time.Duration
	// Hashes is how many passwords are hashed at once, DefaultHashes if 0.
	Hashes int
	// PasswordCost is the cost of a new password's hash, DefaultPasswordCost if zero.
	PasswordCost PasswordCost
	// End ends what users opened elsewhere, when its grant ends: attachments. It is
	// called in the transaction that ends the grant; nil does nothing.
	End func(ctx context.Context, tx *database.Tx, e ims.Ended) error
	// Outside, if set, makes an outside Keystone the one that issues tokens; access keys stay
	// the service's own.
	Outside *Outside
	// Clock gives the time, time.Now if nil.
	Clock func() time.Time
	// Random gives randomness for ids, salts, tokens and keys, crypto/rand if nil.
	Random io.Reader
}

// Service authenticates callers and keeps who they are. It is safe for concurrent use.
type Service struct {
	db     *database.DB
	opts   Options
	seal   sealer
	hasher *hasher
	logins *limiter
	remote *remote // nil without an outside Keystone
	setup  atomic.Pointer[Setup]
}

// New makes the service over a migrated database.
func New(db *database.DB, opts Options) (*Service, error) {
	if opts.TokenTTL == 0 {
		opts.TokenTTL = DefaultTokenTTL
	}
	if opts.TokenTTL < 0 {
		return nil, fmt.Errorf("identity: a token lifetime of %v: it must be positive", opts.TokenTTL)
	}
	if opts.Hashes == 0 {
		opts.Hashes = DefaultHashes
	}
	if opts.PasswordCost == (PasswordCost{}) {
		opts.PasswordCost = DefaultPasswordCost
	}
	if opts.End == nil {
		opts.End = func(context.Context, *database.Tx, ims.Ended) error { return nil }
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Random == nil {
		opts.Random = rand.Reader
	}
	seal, err := newSealer(opts.SealKey)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	h, err := newHasher(opts.Hashes, opts.PasswordCost, opts.Random)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	service := &Service{
		db: db, opts: opts, seal: seal, hasher: h,
		logins: newLimiter(opts.Clock, loginBurst, LoginRefill),
	}
	if opts.Outside != nil {
		service.remote = newRemote(*opts.Outside, opts.Clock)
	}
	return service, nil
}

// unauthorized is the one form of a refused credential. The detail goes to the
// client: it names what is wrong and no secret.
func unauthorized(format string, args ...any) *ims.Error {
	return ims.Faultf(ims.CodeToken, format, args...).WithKind(ims.KindUnauthenticated)
}

// newID makes an id: 32 hex digits, as the cloud's own ids are.
func (s *Service) newID() (string, error) {
	b, err := s.random(16)
	return hex.EncodeToString(b), err
}

func (s *Service) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.opts.Random, b); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return b, nil
}

// checkName holds a domain's, project's or user's name to 1-64 printable characters
// without white space at its ends.
func checkName(kind, name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > maxName || !utf8.ValidString(name) ||
		strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: the %s's name must have 1 to %d printable characters, no space first or last", ErrInvalid, kind, maxName)
	}
	return nil
}

// checkID holds an id that the operator chose to letters, digits, '-' and '_'.
func checkID(kind, id string) error {
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("%w: the %s's id may hold letters, digits, '-' and '_' only", ErrInvalid, kind)
		}
	}
	if len(id) < 1 || len(id) > maxID {
		return fmt.Errorf("%w: the %s's id must have 1 to %d characters", ErrInvalid, kind, maxID)
	}
	return nil
}

// orNewID checks the id, or makes one where none is given.
func (s *Service) orNewID(kind, id string) (string, error) {
	if id == "" {
		return s.newID()
	}
	return id, checkID(kind, id)
}

// lookupText makes a stranger's text fit for a query: what no name or id can be
// becomes a text that equals none.
func lookupText(s string) string {
	if len(s) > utf8.UTFMax*maxName || !database.Storable(s) {
		return "\x01"
	}
	return s
}

// insert runs an INSERT ... ON CONFLICT DO NOTHING and gives ErrExists if it did nothing.
func insert(ctx context.Context, tx *database.Tx, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return ErrExists
	}
	return nil
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, q database.Querier, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, database.Fault(rows.Err())
}
