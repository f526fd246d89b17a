package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

// lockedUser is a user whose row the transaction has locked.
type lockedUser struct {
	enabled      bool
	passwordHash string
}

// lockUser locks a user's row until the transaction ends. Every transaction that opens an
// access for a user, or ends one, does so first. ErrNotFound: no such user.
func lockUser(ctx context.Context, tx *database.Tx, userID string) (lockedUser, error) {
	var enabled int
	var u lockedUser
	err := tx.QueryRowContext(ctx, `SELECT enabled, password_hash FROM identity_users WHERE id = $1`+tx.ForUpdate(), userID).
		Scan(&enabled, &u.passwordHash)
	if errors.Is(err, sql.ErrNoRows) {
		return u, fmt.Errorf("user %w", ErrNotFound)
	}
	u.enabled = enabled == 1
	return u, err
}

// Holds says whether what a caller authenticated with still gives access, and returns the
// caller with the roles that it has now. A token, access key, user or last role in the
// project that has ended since is refused as Authenticate would; other errors mean that
// nobody can tell just now. A token that has expired since is no reason: what was begun
// with it may go on.
func (s *Service) Holds(ctx context.Context, p ims.Principal) (ims.Principal, error) {
	err := s.renewed(ctx, p.Credential)
	if err == nil {
		p, err = s.holds(ctx, s.db, p)
	}
	if err != nil {
		err = fmt.Errorf("ask whether access lasts: %w", err)
	}
	return p, err
}

// HoldsUntil is Holds within a transaction, until whose end no grant of the caller ends.
func (s *Service) HoldsUntil(ctx context.Context, tx *database.Tx, p ims.Principal) (ims.Principal, error) {
	if _, err := lockUser(ctx, tx, p.UserID); err != nil && !errors.Is(err, ErrNotFound) {
		return p, fmt.Errorf("ask whether access lasts: %w", err)
	}
	p, err := s.holds(ctx, tx, p)
	if err != nil {
		err = fmt.Errorf("ask whether access lasts: %w", err)
	}
	return p, err
}

func (s *Service) holds(ctx context.Context, q database.Querier, p ims.Principal) (ims.Principal, error) {
	ask := func(query string, args ...any) error {
		err := exists(ctx, q, "grant", query, args...)
		if errors.Is(err, ErrNotFound) {
			return unauthorized("access was taken away: the user, the token, the access key or the role in the project has ended")
		}
		return err
	}
	if err := ask(`SELECT 1 FROM identity_users WHERE id = $1 AND enabled = 1`, p.UserID); err != nil {
		return p, err
	}
	if c := p.Credential; c.TokenHash != "" && s.opts.Clock().Before(c.TokenExpires) {
		if err := ask(`SELECT 1 FROM identity_tokens WHERE hash = $1`, c.TokenHash); err != nil {
			return p, err
		}
	}
	if c := p.Credential; c.AccessKey != "" {
		if err := ask(`SELECT 1 FROM identity_access_keys WHERE access_key = $1`, c.AccessKey); err != nil {
			return p, err
		}
	}
	if p.ProjectID == "" {
		return p, nil
	}
	if p.Credential.Outside { // the token has its roles; those of one that has expired stay
		t, err := s.outsideRow(ctx, q, p.Credential.TokenHash)
		if errors.Is(err, ErrNotFound) {
			return p, nil
		}
		if err == nil {
			p.Roles = t.Principal.Roles
		}
		return p, err
	}
	at, err := s.projectScope(ctx, q, p.UserID, p.ProjectID)
	if err == nil {
		at, err = s.within(ctx, q, p.Credential.Application, at)
	}
	p.Roles = at.roles
	return p, err
}

// endTokens deletes the tokens of a condition and all that were made from them, and ends
// what was opened with any of them.
func (s *Service) endTokens(ctx context.Context, tx *database.Tx, condition string, args ...any) error {
	hashes, err := deleteTokens(ctx, tx, condition, args...)
	if err != nil || len(hashes) == 0 {
		return err
	}
	return s.opts.End(ctx, tx, ims.Ended{TokenHashes: hashes})
}

// deleteTokens deletes the tokens of a condition and all that were made from them, and
// returns their hashes. Their users are locked.
func deleteTokens(ctx context.Context, tx *database.Tx, condition string, args ...any) ([]string, error) {
	hashes, err := collect(ctx, tx, func(rows *sql.Rows) (string, error) {
		var hash string
		return hash, rows.Scan(&hash)
	}, `WITH RECURSIVE chain(hash) AS (
			SELECT hash FROM identity_tokens WHERE `+condition+`
			UNION SELECT t.hash FROM identity_tokens t JOIN chain ON t.parent = chain.hash)
		SELECT hash FROM chain`, args...)
	if err != nil {
		return nil, err
	}
	for rest := hashes; len(rest) > 0; {
		part := rest[:min(len(rest), purgeBatch)]
		rest = rest[len(part):]
		marks := make([]string, len(part))
		list := make([]any, len(part))
		for i, hash := range part {
			marks[i], list[i] = fmt.Sprintf("$%d", i+1), hash
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM identity_tokens WHERE hash IN (`+strings.Join(marks, ", ")+`)`, list...); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// SetPassword replaces a user's password, or takes it away if it is empty. The user's
// tokens end, with what was opened with them. ErrNotFound: no such user.
func (s *Service) SetPassword(ctx context.Context, userID, password string) error {
	hash, err := s.hashPassword(ctx, password)
	if err == nil {
		err = s.db.InTx(ctx, func(tx *database.Tx) error {
			if _, err := lockUser(ctx, tx, userID); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE identity_users SET password_hash = $1 WHERE id = $2`, hash, userID); err != nil {
				return err
			}
			return s.endTokens(ctx, tx, `user_id = $1`, userID)
		})
	}
	if err != nil {
		return fmt.Errorf("set the password of user %s: %w", userID, err)
	}
	return nil
}

// RemoveUser takes everything from a user: its password, tokens, access keys and roles,
// and ends all that it opened. Its name and id stay taken; ReadmitUser lets it in again.
// ErrNotFound: no such user.
func (s *Service) RemoveUser(ctx context.Context, userID string) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		if _, err := lockUser(ctx, tx, userID); err != nil {
			return err
		}
		for _, query := range []string{
			`UPDATE identity_users SET enabled = 0, password_hash = '' WHERE id = $1`,
			`DELETE FROM identity_tokens WHERE user_id = $1`,
			`DELETE FROM identity_access_keys WHERE user_id = $1`,
			`DELETE FROM identity_application_credentials WHERE user_id = $1`,
			`DELETE FROM identity_grants WHERE user_id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, query, userID); err != nil {
				return err
			}
		}
		return s.opts.End(ctx, tx, ims.Ended{UserID: userID})
	})
	if err != nil {
		return fmt.Errorf("remove user %s: %w", userID, err)
	}
	return nil
}

// ReadmitUser lets a user who was removed in again, with a new password and nothing else.
// ErrNotFound: no such user, or it was not removed.
func (s *Service) ReadmitUser(ctx context.Context, userID, password string) error {
	hash, err := s.hashPassword(ctx, password)
	if err == nil {
		err = s.db.InTx(ctx, func(tx *database.Tx) error {
			n, err := changed(tx.ExecContext(ctx, `UPDATE identity_users SET enabled = 1, password_hash = $1 WHERE id = $2 AND enabled = 0`, hash, userID))
			if err == nil && n == 0 {
				err = fmt.Errorf("removed user %w", ErrNotFound)
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("let user %s in again: %w", userID, err)
	}
	return nil
}

// SetRole makes a role the only one that a user has in a project of its own domain. If it
// is weaker than what the user had, what the user opened in the project ends; the user
// may open it again if the role suffices. ErrNotFound: no such user or project, or they
// are of two domains.
func (s *Service) SetRole(ctx context.Context, g Grant) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := checkGrant(ctx, tx, g); err != nil {
			return err
		}
		had, err := lockRoles(ctx, tx, g.UserID, g.ProjectID)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM identity_grants WHERE user_id = $1 AND project_id = $2`, g.UserID, g.ProjectID); err != nil {
			return err
		}
		if err := insertGrant(ctx, tx, g); err != nil {
			return err
		}
		return s.endWeaker(ctx, tx, g.UserID, g.ProjectID, had, []ims.Role{g.Role})
	})
	if err != nil {
		return fmt.Errorf("set role %s in project %s for user %s: %w", g.Role, g.ProjectID, g.UserID, err)
	}
	return nil
}

// Revoke takes a role away. Taking away what was not given is no error. With a user's
// last role in a project go its access keys and tokens for the project, and what it
// opened there.
func (s *Service) Revoke(ctx context.Context, g Grant) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		had, err := lockRoles(ctx, tx, g.UserID, g.ProjectID)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM identity_grants WHERE user_id = $1 AND project_id = $2 AND role = $3`,
			g.UserID, g.ProjectID, string(g.Role)); err != nil {
			return err
		}
		var has []ims.Role
		for _, role := range had {
			if role != g.Role {
				has = append(has, role)
			}
		}
		return s.endWeaker(ctx, tx, g.UserID, g.ProjectID, had, has)
	})
	if err != nil {
		return fmt.Errorf("take role %s in project %s from user %s: %w", g.Role, g.ProjectID, g.UserID, err)
	}
	return nil
}

// RemoveMembership takes all roles in a project from a user, as Revoke does.
// ErrNotFound: the user has none.
func (s *Service) RemoveMembership(ctx context.Context, userID, projectID string) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		had, err := lockRoles(ctx, tx, userID, projectID)
		if err == nil && len(had) == 0 {
			err = fmt.Errorf("role in the project %w", ErrNotFound)
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM identity_grants WHERE user_id = $1 AND project_id = $2`, userID, projectID); err != nil {
			return err
		}
		return s.endWeaker(ctx, tx, userID, projectID, had, nil)
	})
	if err != nil {
		return fmt.Errorf("remove user %s from project %s: %w", userID, projectID, err)
	}
	return nil
}

// RemoveProject takes a project from everybody: all roles in it, the access keys and
// tokens for it, and ends what was opened in it. What the project owns stays with it; a
// new grant opens the project again. ErrNotFound: no such project.
func (s *Service) RemoveProject(ctx context.Context, projectID string) error {
	err := s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := exists(ctx, tx, "project", `SELECT 1 FROM identity_projects WHERE id = $1`+tx.ForUpdate(), projectID); err != nil {
			return err
		}
		users, err := collect(ctx, tx, func(rows *sql.Rows) (string, error) {
			var id string
			return id, rows.Scan(&id)
		}, `SELECT user_id FROM identity_grants WHERE project_id = $1
			UNION SELECT user_id FROM identity_access_keys WHERE project_id = $1
			UNION SELECT user_id FROM identity_tokens WHERE project_id = $1 ORDER BY user_id`, projectID)
		if err != nil {
			return err
		}
		for _, id := range users {
			if _, err := lockUser(ctx, tx, id); err != nil {
				return err
			}
		}
		for _, query := range []string{
			`DELETE FROM identity_access_keys WHERE project_id = $1`,
			`DELETE FROM identity_application_credentials WHERE project_id = $1`,
			`DELETE FROM identity_grants WHERE project_id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, query, projectID); err != nil {
				return err
			}
		}
		if err := s.endTokens(ctx, tx, `project_id = $1`, projectID); err != nil {
			return err
		}
		return s.opts.End(ctx, tx, ims.Ended{ProjectID: projectID})
	})
	if err != nil {
		return fmt.Errorf("remove project %s: %w", projectID, err)
	}
	return nil
}

// lockRoles locks a user and gives the roles that it has in a project.
func lockRoles(ctx context.Context, tx *database.Tx, userID, projectID string) ([]ims.Role, error) {
	if _, err := lockUser(ctx, tx, userID); err != nil {
		return nil, err
	}
	return collect(ctx, tx, func(rows *sql.Rows) (ims.Role, error) {
		var role ims.Role
		return role, rows.Scan(&role)
	}, `SELECT role FROM identity_grants WHERE user_id = $1 AND project_id = $2 ORDER BY role`, userID, projectID)
}

// endWeaker ends what a user opened in a project if the roles that it has there now are
// weaker than those that it had.
func (s *Service) endWeaker(ctx context.Context, tx *database.Tx, userID, projectID string, had, has []ims.Role) error {
	if !strongest(has).Weaker(strongest(had)) {
		return nil
	}
	if len(has) == 0 {
		for _, table := range []string{"identity_access_keys", "identity_application_credentials"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE user_id = $1 AND project_id = $2`, userID, projectID); err != nil {
				return err
			}
		}
		if err := s.endTokens(ctx, tx, `user_id = $1 AND project_id = $2`, userID, projectID); err != nil {
			return err
		}
	}
	return s.opts.End(ctx, tx, ims.Ended{UserID: userID, ProjectID: projectID})
}

// strongest is the strongest of some roles, "" of none.
func strongest(roles []ims.Role) ims.Role {
	var best ims.Role
	for _, role := range roles {
		if best.Weaker(role) {
			best = role
		}
	}
	return best
}

// changed is how many rows a statement changed.
func changed(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
