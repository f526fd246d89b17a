package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/quickims/quickims/internal/admit"
	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/identity/outside"
	"github.com/quickims/quickims/internal/ims"
)

const (
	// TokenCache is how long, at most, what an outside Keystone said of a token counts
	// without asking again.
	TokenCache = time.Minute
	// WatchEvery is how often Watch wants to be called.
	WatchEvery = 5 * time.Second

	// eventOverlap is how far back revocation events are asked for again: Keystone's clock
	// is another one.
	eventOverlap = 5 * time.Minute
	// eventAgain is how long an event is applied again each time it is read: a token may be
	// kept, after a question that takes maxQuestion, while its revocation is being read.
	eventAgain = 2 * maxQuestion
	// forbiddenPause is how long something is not asked again that the service's user may
	// not ask.
	forbiddenPause = 10 * time.Minute

	// maxQuestions is how many questions about tokens Keystone gets at once,
	// maxWaitingQuestions how many of one address wait for their turn.
	maxQuestions, maxWaitingQuestions = 8, 64
	// Made-up tokens of one address: a burst, then one more each strangerRefill.
	strangerBurst, strangerRefill = 100, 100 * time.Millisecond
	// maxRefused is how many tokens are remembered that Keystone refused, and refusedFor
	// how long: not long, since one of several Keystones may get to know a key later.
	maxRefused, refusedFor = 8192, 30 * time.Second
	// maxSecrets is how many tokens are kept in memory to ask about them again while what
	// was begun with them runs on.
	maxSecrets = 8192
	// maxQuestion is how long one question may take, with the wait for its turn.
	maxQuestion = 30 * time.Second
	// awayFor is how long nobody asks after Keystone did not answer.
	awayFor = time.Second
)

// Keystone is an outside Keystone: see outside.Client.
type Keystone interface {
	URL() string
	Token(ctx context.Context, secret string) (outside.Token, error)
	Revoked(ctx context.Context, since time.Time) ([]outside.Event, error)
	Roles(ctx context.Context, userID, projectID string) ([]string, error)
}

// Outside makes an outside Keystone the one that issues tokens and says who callers are.
type Outside struct {
	Keystone Keystone
	// Roles gives, for the name of a role of Keystone's in lower case, the role here.
	Roles map[string]ims.Role
	// Cache is how long what Keystone said of a token counts, and how often it is asked
	// whether users still have roles in the projects in which something of theirs is open;
	// TokenCache if it is 0 or longer.
	Cache time.Duration
	// Opened lists for whom something is open that lasts longer than a request.
	Opened func(ctx context.Context, q database.Querier) ([]ims.Ended, error)
}

// remote is what is known of the outside Keystone in this process.
type remote struct {
	Outside
	clock     func() time.Time
	flight    singleflight.Group // by the token's hash
	slots     *admit.Shares      // of addresses
	strangers *limiter           // tokens that are none, by address

	mu      sync.Mutex
	refused map[string]time.Time // until when, by the token's hash
	secrets map[string]string    // tokens by their hash
	away    time.Time            // until when nobody asks
	// Of Watch alone:
	since, grantsAt             time.Time
	eventsPause, forbiddenUntil time.Time
	seen                        map[outside.Event]time.Time // when an event was read first
}

func newRemote(o Outside, clock func() time.Time) *remote {
	if o.Cache <= 0 || o.Cache > TokenCache {
		o.Cache = TokenCache
	}
	return &remote{
		Outside: o, clock: clock, slots: admit.NewShares(maxQuestions, maxWaitingQuestions),
		strangers: newLimiter(clock, strangerBurst, strangerRefill),
		refused:   make(map[string]time.Time), secrets: make(map[string]string),
	}
}

// mapped are the roles here of Keystone's roles, each once.
func (r *remote) mapped(names []string) []ims.Role {
	var roles []ims.Role
	for _, name := range names {
		if role, ok := r.Roles[strings.ToLower(name)]; ok && !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// outsideRow is a token of the outside Keystone as it is kept.
type outsideRow struct {
	Token
	enabled   bool
	checkedAt time.Time
}

// outsideRow looks a token of the outside Keystone up. ErrNotFound: it was not seen yet, or
// it has ended.
func (s *Service) outsideRow(ctx context.Context, q database.Querier, hash string) (outsideRow, error) {
	var t outsideRow
	var user userRow
	var at scopeRow
	var domainScope, methods, roles string
	var projectName, domainID, domainName sql.NullString
	var issued, expires, checked int64
	err := q.QueryRowContext(ctx, `SELECT t.project_id, t.domain_id, t.methods, t.roles, t.issued_at, t.expires_at, t.checked_at,
			u.id, u.name, u.enabled, ud.id, ud.name, p.name, d.id, d.name
		FROM identity_tokens t
		JOIN identity_users u ON u.id = t.user_id
		JOIN identity_domains ud ON ud.id = u.domain_id
		LEFT JOIN identity_projects p ON p.id = t.project_id
		LEFT JOIN identity_domains d ON d.id = COALESCE(p.domain_id, t.domain_id)
		WHERE t.hash = $1 AND t.checked_at IS NOT NULL`, hash).
		Scan(&at.projectID, &domainScope, &methods, &roles, &issued, &expires, &checked,
			&user.id, &user.name, &user.enabled, &user.domainID, &user.domainName, &projectName, &domainID, &domainName)
	if errors.Is(err, sql.ErrNoRows) {
		return t, ErrNotFound
	}
	if err != nil {
		return t, fmt.Errorf("look up a token: %w", err)
	}
	at.projectName, at.domain, at.roles = projectName.String, domainScope != "", splitRoles(roles)
	if domainID.Valid { // a user may have roles in projects of other domains: the tenant is the project's
		user.domainID, user.domainName = domainID.String, domainName.String
	}
	p, err := s.principal(ctx, q, user, at)
	if err != nil {
		return t, err
	}
	t.enabled, t.checkedAt = user.isEnabled(), time.UnixMilli(checked)
	t.Token = Token{Principal: p, Methods: strings.Split(methods, ","), DomainScoped: at.domain,
		IssuedAt: time.UnixMilli(issued).UTC(), ExpiresAt: time.UnixMilli(expires).UTC()}
	t.Principal.Credential = ims.Credential{TokenHash: hash, TokenExpires: t.ExpiresAt, Outside: true}
	return t, nil
}

func splitRoles(text string) (roles []ims.Role) {
	for r := range strings.SplitSeq(text, ",") {
		if r != "" {
			roles = append(roles, ims.Role(r))
		}
	}
	return roles
}

func joinRoles(roles []ims.Role) string {
	text := make([]string, len(roles))
	for i, r := range roles {
		text[i] = string(r)
	}
	return strings.Join(text, ",")
}

// noTokenLetter reports whether a letter is in no token of a Keystone's: they are base64 in
// either alphabet, three such texts between dots, or hexadecimal digits.
func noTokenLetter(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_=.", r))
}

// outsideToken tells what a token of the outside Keystone stands for. Keystone is asked
// if that was not done lately.
func (s *Service) outsideToken(ctx context.Context, source, secret string) (Token, error) {
	if secret == "" || len(secret) > maxTokenLength || strings.ContainsFunc(secret, noTokenLetter) {
		return Token{}, noToken()
	}
	hash := hashToken(secret)
	t, err := s.outsideRow(ctx, s.db, hash)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Token{}, err
	}
	now := s.opts.Clock()
	if known && !now.Before(t.ExpiresAt) {
		return Token{}, noToken()
	}
	if !known || now.Sub(t.checkedAt) >= s.remote.Cache {
		if err := s.askOutside(ctx, source, hash, secret, known); err != nil {
			return Token{}, err
		}
		if t, err = s.outsideRow(ctx, s.db, hash); errors.Is(err, ErrNotFound) {
			return Token{}, noToken() // revoked in the meantime
		} else if err != nil {
			return Token{}, err
		}
	}
	if !t.enabled || !now.Before(t.ExpiresAt) {
		return Token{}, noToken()
	}
	return t.Token, nil
}

// askOutside asks Keystone about a token, once for all who want to know, and keeps what it
// says. A token that was not seen before takes a try from its address until it proves good.
func (s *Service) askOutside(ctx context.Context, source, hash, secret string, known bool) error {
	r := s.remote
	if err := r.known(hash); err != nil {
		return err
	}
	if !known {
		if wait := r.strangers.take(source); wait > 0 {
			return ims.Faultf(ims.CodeToken, "too many unknown tokens from this address, try again in %d s", int(wait.Seconds())+1).WithKind(ims.KindThrottled)
		}
	}
	answers := r.flight.DoChan(hash, func() (any, error) {
		// Who waits for the answer may go while others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxQuestion)
		defer cancel()
		if err := r.slots.Take(ctx, source, 1); err != nil {
			return nil, outsideAway("too many tokens of this address wait to be checked; try again")
		}
		defer r.slots.Give(source, 1)
		if err := r.known(hash); err != nil {
			return nil, err
		}
		asked := s.opts.Clock()
		t, err := r.Keystone.Token(ctx, secret)
		switch {
		case errors.Is(err, outside.ErrUnknown):
			r.refuse(hash)
			return nil, errors.Join(noToken(), s.endOutside(ctx, hash))
		case err != nil:
			r.noAnswer()
			return nil, outsideAway("the Keystone at %s, which knows who callers are, does not answer; try again", r.Keystone.URL()).Cause(err)
		}
		if err := s.keepOutside(ctx, hash, t, asked); err != nil {
			return nil, fmt.Errorf("keep what Keystone says of a token: %w", err)
		}
		r.remember(hash, secret)
		return nil, nil
	})
	select {
	case a := <-answers:
		if !known && ims.CodeOf(a.Err) != ims.CodeToken { // it is no stranger's, or nobody knows
			r.strangers.give(source)
		}
		return a.Err
	case <-ctx.Done(): // the try stays taken: whoever hangs up has asked all the same
		return context.Cause(ctx)
	}
}

func outsideAway(format string, args ...any) *ims.Error {
	return ims.Faultf(ims.CodeInternal, format, args...).WithKind(ims.KindUnavailable)
}

// known is the answer about a token without asking, nil if there is none.
func (r *remote) known(hash string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if now.Before(r.refused[hash]) {
		return noToken()
	}
	if now.Before(r.away) {
		return outsideAway("the Keystone at %s, which knows who callers are, does not answer; try again", r.Keystone.URL())
	}
	return nil
}

func (r *remote) noAnswer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = r.clock().Add(awayFor)
}

func (r *remote) refuse(hash string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.secrets, hash)
	bounded(r.refused, maxRefused, hash, r.clock().Add(refusedFor))
}

func (r *remote) remember(hash, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bounded(r.secrets, maxSecrets, hash, secret)
}

// bounded sets an entry and drops another one, whichever, if there are too many.
func bounded[V any](m map[string]V, limit int, key string, v V) {
	if _, there := m[key]; !there && len(m) >= limit {
		for other := range m {
			delete(m, other)
			break
		}
	}
	m[key] = v
}

// endOutside ends a token that Keystone refused, if it was good before and has not simply
// expired: it ends what was opened with it.
func (s *Service) endOutside(ctx context.Context, hash string) error {
	t, err := s.outsideRow(ctx, s.db, hash)
	if errors.Is(err, ErrNotFound) || err == nil && !s.opts.Clock().Before(t.ExpiresAt) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, t.Principal.UserID); err != nil {
			return err
		}
		return s.endTokens(ctx, tx, `hash = $1`, hash)
	})
}

// keepOutside keeps what Keystone said of a token when it was asked. A role that became
// weaker ends what was opened with the token.
func (s *Service) keepOutside(ctx context.Context, hash string, t outside.Token, asked time.Time) error {
	roles := s.remote.mapped(t.Roles)
	var audit, chain string
	if n := len(t.AuditIDs); n > 0 {
		audit, chain = t.AuditIDs[0], t.AuditIDs[n-1]
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		for _, d := range []outside.Named{t.UserDomain, t.ProjectDomain, t.Domain} {
			if err := s.keepRow(ctx, tx, "identity_domains", "", d, asked); err != nil {
				return err
			}
		}
		if err := s.keepRow(ctx, tx, "identity_projects", t.ProjectDomain.ID, t.Project, asked); err != nil {
			return err
		}
		if err := s.keepRow(ctx, tx, "identity_users", t.UserDomain.ID, t.User, asked); err != nil {
			return err
		}
		if _, err := lockUser(ctx, tx, t.User.ID); err != nil {
			return err
		}
		if _, err := deleteTokens(ctx, tx, oldestTokens, t.User.ID, purgeBatch, MaxTokensPerUser-1, hash); err != nil {
			return err
		}
		before, err := s.outsideRow(ctx, tx, hash)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO identity_tokens (hash, user_id, project_id, domain_id, methods, issued_at, expires_at, checked_at, roles, audit_id, audit_chain_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
			ON CONFLICT (hash) DO UPDATE SET checked_at = excluded.checked_at, roles = excluded.roles, expires_at = excluded.expires_at`,
			hash, t.User.ID, t.Project.ID, t.Domain.ID, strings.Join(t.Methods, ","), t.IssuedAt.UnixMilli(), t.ExpiresAt.UnixMilli(),
			asked.UnixMilli(), joinRoles(roles), audit, chain)
		if err == nil && strongest(roles).Weaker(strongest(before.Principal.Roles)) {
			err = s.opts.End(ctx, tx, ims.Ended{TokenHashes: []string{hash}})
		}
		return err
	})
}

// keepRow makes or renames the row of a domain, project or user of the outside Keystone. A
// row of the service's own with the same id stays as it is. Names are unique here: where
// another row has the name, that of Keystone's gets its id as its name until it is seen
// again, and beside one of the service's own it is called by its id.
func (s *Service) keepRow(ctx context.Context, tx *database.Tx, table, domainID string, n outside.Named, now time.Time) error {
	if n.ID == "" {
		return nil
	}
	where, args := "", []any{n.Name, n.ID}
	if domainID != "" {
		where, args = " AND domain_id = $3", append(args, domainID)
	}
	var has string
	var ours bool
	err := tx.QueryRowContext(ctx, `SELECT name, NOT outside FROM `+table+` WHERE id = $1`, n.ID).Scan(&has, &ours)
	if err != nil && !errors.Is(err, sql.ErrNoRows) || err == nil && (ours || has == n.Name) {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE `+table+` SET name = id WHERE name = $1 AND id <> $2 AND outside`+where, args...); err != nil {
		return err
	}
	switch err := exists(ctx, tx, "name", `SELECT 1 FROM `+table+` WHERE name = $1 AND id <> $2`+where, args...); {
	case err == nil:
		n.Name = n.ID
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if has != "" {
		_, err := tx.ExecContext(ctx, `UPDATE `+table+` SET name = $1 WHERE id = $2`, n.Name, n.ID)
		return err
	}
	columns, values, row := "id, name, created_at, outside", "$1, $2, $3, TRUE", []any{n.ID, n.Name, now.UnixMilli()}
	if domainID != "" {
		columns, values, row = columns+", domain_id", values+", $4", append(row, domainID)
	}
	if table == "identity_users" {
		columns, values = columns+", password_hash, enabled", values+", '', 1"
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO `+table+` (`+columns+`) VALUES (`+values+`) ON CONFLICT DO NOTHING`, row...)
	return err
}

// renewed asks Keystone again about the token of what runs on, if it was not asked lately
// and the token is still in memory. Nobody is refused because Keystone does not answer.
func (s *Service) renewed(ctx context.Context, c ims.Credential) error {
	now := s.opts.Clock()
	if s.remote == nil || !c.Outside || !now.Before(c.TokenExpires) {
		return nil
	}
	t, err := s.outsideRow(ctx, s.db, c.TokenHash)
	if err != nil || now.Sub(t.checkedAt) < s.remote.Cache {
		return nil // holds finds that the row is gone, or that the database does not answer
	}
	s.remote.mu.Lock()
	secret := s.remote.secrets[c.TokenHash]
	s.remote.mu.Unlock()
	if secret == "" {
		return nil
	}
	err = s.askOutside(ctx, "", c.TokenHash, secret, true)
	if ims.CodeOf(err) == ims.CodeToken {
		return err
	}
	return nil
}

// Watch ends what the outside Keystone has ended: tokens that it revoked, with what was
// opened with them, and all that a user has open in a project in which it has no role any
// more. Call it every WatchEvery, from one goroutine. Without an outside Keystone it does
// nothing.
func (s *Service) Watch(ctx context.Context) error {
	if s.remote == nil {
		return nil
	}
	now := s.opts.Clock()
	suspects, err := s.watchEvents(ctx, now)
	if r := s.remote; suspects || !now.Before(r.grantsAt) {
		r.grantsAt = now.Add(r.Cache)
		err = errors.Join(err, s.watchGrants(ctx, now))
	}
	return err
}

// watchEvents ends the tokens that Keystone revoked. It reports whether some user or
// project may have lost roles.
func (s *Service) watchEvents(ctx context.Context, now time.Time) (suspects bool, err error) {
	r := s.remote
	if now.Before(r.eventsPause) {
		return false, nil
	}
	events, err := r.Keystone.Revoked(ctx, r.since)
	if errors.Is(err, outside.ErrForbidden) {
		r.eventsPause = now.Add(forbiddenPause)
		return false, fmt.Errorf("read what Keystone revoked, so it is noticed within %s alone; give the service's user the role service or admin: %w", r.Cache, err)
	}
	if err != nil {
		return false, err
	}
	first := r.since.IsZero()
	before := r.seen
	r.seen = make(map[outside.Event]time.Time, len(events))
	for _, e := range events {
		at, known := before[e]
		if !known {
			at = now
		}
		r.seen[e] = at
		if now.Sub(at) > eventAgain {
			continue
		}
		found, err := s.apply(ctx, e)
		if err != nil {
			return suspects, fmt.Errorf("end what Keystone revoked: %w", err)
		}
		suspects = suspects || found || first
	}
	r.since = now.Add(-eventOverlap)
	return suspects, nil
}

// apply ends the tokens that an event names, and reports whether there were any. Of an
// event that says more than is understood here, the tokens are asked about again.
func (s *Service) apply(ctx context.Context, e outside.Event) (bool, error) {
	condition, args := "checked_at IS NOT NULL", []any{}
	and := func(form, value string) {
		if value != "" {
			args = append(args, value)
			condition += " AND " + strings.ReplaceAll(form, "?", fmt.Sprintf("$%d", len(args)))
		}
	}
	and("user_id = ?", e.UserID)
	and("project_id = ?", e.ProjectID)
	and("audit_id = ?", e.AuditID)
	and("audit_chain_id = ?", e.AuditChainID)
	and(`(domain_id = ? OR project_id IN (SELECT id FROM identity_projects WHERE domain_id = ?)
		OR user_id IN (SELECT id FROM identity_users WHERE domain_id = ?))`, e.DomainID)
	if len(args) == 0 {
		e.Partial = true
	}
	if !e.IssuedBefore.IsZero() {
		args = append(args, e.IssuedBefore.UnixMilli())
		condition += fmt.Sprintf(" AND issued_at <= $%d", len(args))
	}
	if e.Partial {
		_, err := s.db.ExecContext(ctx, `UPDATE identity_tokens SET checked_at = 0 WHERE `+condition, args...)
		return false, err
	}
	users, err := collect(ctx, s.db, func(rows *sql.Rows) (id string, err error) { return id, rows.Scan(&id) },
		`SELECT DISTINCT user_id FROM identity_tokens WHERE `+condition+` ORDER BY user_id`, args...)
	if err != nil || len(users) == 0 {
		return false, err
	}
	return true, s.db.InTx(ctx, func(tx *database.Tx) error {
		for _, id := range users {
			if _, err := lockUser(ctx, tx, id); err != nil {
				return err
			}
		}
		return s.endTokens(ctx, tx, condition, args...)
	})
}

// watchGrants asks, for each user of Keystone's that has something open in a project or an
// access key for it, whether it has a role there, and ends all that if not.
func (s *Service) watchGrants(ctx context.Context, now time.Time) error {
	r := s.remote
	if now.Before(r.forbiddenUntil) {
		return nil
	}
	pairs, err := collect(ctx, s.db, func(rows *sql.Rows) (e ims.Ended, err error) { return e, rows.Scan(&e.UserID, &e.ProjectID) },
		`SELECT DISTINCT user_id, project_id FROM identity_access_keys`)
	if err != nil {
		return err
	}
	opened, err := r.Opened(ctx, s.db)
	if err != nil {
		return err
	}
	theirs, err := collect(ctx, s.db, func(rows *sql.Rows) (id string, err error) { return id, rows.Scan(&id) },
		`SELECT id FROM identity_users WHERE outside`)
	if err != nil {
		return err
	}
	isTheirs := make(map[string]bool, len(theirs))
	for _, id := range theirs {
		isTheirs[id] = true
	}
	asked := make(map[[2]string]bool)
	for _, pair := range slices.Concat(pairs, opened) {
		key := [2]string{pair.UserID, pair.ProjectID}
		if asked[key] || !isTheirs[pair.UserID] {
			continue
		}
		asked[key] = true
		roles, err := r.Keystone.Roles(ctx, pair.UserID, pair.ProjectID)
		switch {
		case errors.Is(err, outside.ErrForbidden):
			r.forbiddenUntil = now.Add(forbiddenPause)
			return fmt.Errorf("ask Keystone for users' roles, so what was opened with a token outlasts the role after the token has expired; give the service's user the role admin: %w", err)
		case err != nil && !errors.Is(err, outside.ErrUnknown):
			return err
		case len(r.mapped(roles)) > 0:
			continue
		}
		if err := s.RemoveMembership(ctx, pair.UserID, pair.ProjectID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		err = s.db.InTx(ctx, func(tx *database.Tx) error {
			if _, err := lockUser(ctx, tx, pair.UserID); err != nil {
				return err
			}
			return s.endWeaker(ctx, tx, pair.UserID, pair.ProjectID, []ims.Role{ims.RoleReader}, nil)
		})
		if err != nil {
			return fmt.Errorf("end the access of user %s in project %s: %w", pair.UserID, pair.ProjectID, err)
		}
	}
	return nil
}
