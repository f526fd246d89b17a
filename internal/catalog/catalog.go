// Package catalog keeps what the service knows: images with their tags, jobs,
// enterprise projects and the owners of buckets, in the SQL database.
//
// Every query of something that a project owns names the project first, so that
// another project's id is exactly as unknown as one that never was.
//
// A job is held by a lease and guarded by a fence. ClaimJob raises the job's attempt
// number; from then on what an older attempt wants to write finds no row and is told
// ErrFenced. The lease says when a holder counts as lost, the fence makes it harmless
// that it may not know.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/ims"
)

var (
	// ErrNotFound says that the project has no such thing: it is unknown, deleted, or
	// another project's.
	ErrNotFound = errors.New("not found")
	// ErrNoMember says that the image is not shared with that project.
	ErrNoMember = errors.New("not a member")
	// ErrFenced says that the job is no longer this attempt's: a newer one has it, it
	// was given back, or it has ended. Nothing was written.
	ErrFenced = errors.New("the attempt no longer holds the job")
	// ErrTaken says that another project owns the bucket.
	ErrTaken = errors.New("the bucket belongs to another project")
)

// Options are a Catalog's settings. Zero values mean the defaults.
type Options struct {
	// Clock tells the time; default time.Now. Where several processes share a
	// database their clocks must agree to well within a lease.
	Clock func() time.Time
	// Holds refuses a caller whose access has ended, and returns it with the roles that
	// it has; until the transaction ends neither changes. Default: nobody's ends.
	Holds func(ctx context.Context, tx *database.Tx, p ims.Principal) (ims.Principal, error)
}

// Catalog reads and writes the database. It may be used by many goroutines at once.
// Every method can fail with database.ErrUnavailable.
type Catalog struct {
	db    *database.DB
	clock func() time.Time
	holds func(ctx context.Context, tx *database.Tx, p ims.Principal) (ims.Principal, error)
}

// New makes a Catalog over a migrated database.
func New(db *database.DB, opts Options) *Catalog {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Holds == nil {
		opts.Holds = func(_ context.Context, _ *database.Tx, p ims.Principal) (ims.Principal, error) { return p, nil }
	}
	return &Catalog{db: db, clock: opts.Clock, holds: opts.Holds}
}

// now is the time as the database keeps it.
func (c *Catalog) now() time.Time { return c.clock().UTC().Truncate(time.Millisecond) }

func fromMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// fromNull is the zero time for NULL.
func fromNull(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return fromMilli(ms.Int64)
}

// orNotFound turns "no row" into ErrNotFound.
func orNotFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// affected reports how many rows a statement changed.
func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// takeTurn makes the transaction wait until no other one counts what the project has.
// The turn ends with the transaction.
func takeTurn(ctx context.Context, tx *database.Tx, projectID string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO project_turns (project_id, turn) VALUES ($1, 1)
		ON CONFLICT (project_id) DO UPDATE SET turn = project_turns.turn + 1`, projectID)
	if err != nil {
		return fmt.Errorf("wait for the project's turn: %w", err)
	}
	return nil
}

// count gives the one number that a query asks for.
func count(ctx context.Context, q database.Querier, query string, args ...any) (int, error) {
	var n int
	err := q.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// each calls scan for every row of a query and closes it.
func each(ctx context.Context, q database.Querier, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return database.Fault(rows.Err())
}

// texts gives the one text column that a query asks for.
func texts(ctx context.Context, q database.Querier, query string, args ...any) ([]string, error) {
	var out []string
	err := each(ctx, q, query, args, func(rows *sql.Rows) error {
		var s string
		err := rows.Scan(&s)
		out = append(out, s)
		return err
	})
	return out, err
}
