// Package database opens the one SQL database that images, jobs, users and the queue
// live in, SQLite or PostgreSQL, and hides what differs between the two.
//
// Queries are written once, with $1, $2, … as placeholders, in the SQL that both
// understand. Conventions of every table:
//
//   - a time is a BIGINT, milliseconds since 1970 in UTC; NULL where there is none;
//   - text is TEXT and compares byte by byte on both (Migrate adds COLLATE "C" on
//     PostgreSQL); it holds valid UTF-8 without NUL, see Storable;
//   - JSON is TEXT that only Go reads;
//   - a read that a write in the same transaction depends on ends in Tx.ForUpdate.
//
// What writes goes through InTx or ExecContext. On SQLite those share one connection,
// so that writers wait for each other in order instead of finding the database
// locked; reads run beside them on connections that can't write.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"
)

// Dialect is the kind of the database.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota + 1
	Postgres
)

// String is the dialect's name.
func (d Dialect) String() string {
	if d == SQLite {
		return "sqlite"
	}
	return "postgres"
}

// Options are the settings of Open. Zero values mean the defaults.
type Options struct {
	// LockTimeout is how long a write waits for a lock that somebody else holds, and for
	// a connection, before it fails with ErrUnavailable; default 10 s.
	LockTimeout time.Duration
	// MaxConns bounds the connections to PostgreSQL, and the readers of SQLite;
	// default 16.
	MaxConns int
}

// DB is an open database. It may be used by many goroutines at once.
//
// The embedded pool is for reading: QueryContext and QueryRowContext. On SQLite its
// connections refuse to write, INSERT … RETURNING included.
type DB struct {
	*sql.DB
	writer  *sql.DB // SQLite: the one connection that writes; PostgreSQL: the same pool
	dialect Dialect
	where   string        // for error texts, without secrets
	wait    time.Duration // for a connection to write on
}

// Tx is a transaction. Its methods must be used inside InTx, by one goroutine.
type Tx struct {
	*sql.Tx
	dialect Dialect
	after   []func()
}

// AfterCommit has fn called when the transaction is known to be committed, and not
// otherwise: not after a rollback, nor when the commit's answer was lost. fn must return
// soon and not use the database.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// Querier reads and writes, in a transaction or without one.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *Row
}

// Row is the result of QueryRowContext.
type Row struct{ row *sql.Row }

// Scan copies the row's columns; sql.ErrNoRows when there is no row.
func (r *Row) Scan(dest ...any) error { return Fault(r.row.Scan(dest...)) }

// Open opens the database at url: "sqlite:" and an absolute path, the file is made
// when it is missing; or a postgres:// URL. It asks the database for an answer, so
// that a wrong address shows at once, but changes nothing in it: call Migrate.
// Error texts never hold the URL's password.
func Open(ctx context.Context, url string, opts Options) (*DB, error) {
	if opts.LockTimeout == 0 {
		opts.LockTimeout = 10 * time.Second
	}
	if opts.MaxConns == 0 {
		opts.MaxConns = 16
	}
	var db *DB
	var err error
	switch {
	case strings.HasPrefix(url, "sqlite:"):
		db, err = openSQLite(strings.TrimPrefix(url, "sqlite:"), opts)
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		db, err = openPostgres(url, opts)
	default:
		return nil, errors.New("open the database: the URL must begin with sqlite: or postgres://")
	}
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.wait = opts.LockTimeout
	for _, pool := range []*sql.DB{db.writer, db.DB} {
		if err := pool.PingContext(ctx); err != nil {
			db.Close()
			return nil, fmt.Errorf("open the database %s: %w", db.where, Fault(err))
		}
	}
	return db, nil
}

// Close closes all connections, after the statements that run have ended.
func (db *DB) Close() error {
	if db.writer == db.DB {
		return db.DB.Close()
	}
	// The writer last: closing the last connection folds SQLite's log into its file.
	return errors.Join(db.DB.Close(), db.writer.Close())
}

// Dialect says which kind of database it is.
func (db *DB) Dialect() Dialect { return db.dialect }

// Dialect says which kind of database it is.
func (tx *Tx) Dialect() Dialect { return tx.dialect }

// Writer is the pool whose connections may write, for a library that manages its own
// statements. On SQLite it is one connection: who holds it must not ask for another.
func (db *DB) Writer() *sql.DB { return db.writer }

// ForUpdate ends a SELECT whose rows must not change until the transaction ends. On
// SQLite a transaction of InTx is alone anyway, so the text is empty.
func (tx *Tx) ForUpdate() string {
	if tx.dialect == Postgres {
		return " FOR UPDATE"
	}
	return ""
}

// connect gets a connection that may write, when it is free.
func (db *DB) connect(ctx context.Context) (*sql.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, db.wait)
	defer cancel()
	conn, err := db.writer.Conn(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: no connection was free within %v", ErrUnavailable, db.wait)
	}
	return conn, err
}

// PingContext asks whether the database answers and takes writes.
func (db *DB) PingContext(ctx context.Context) error {
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM project_turns WHERE project_id = ''").Scan(new(int)); err != nil {
		return err
	}
	return db.InTx(ctx, func(*Tx) error { return nil }) // asks SQLite for its lock, changes nothing
}

// ExecContext runs one statement that writes.
func (db *DB) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	conn, err := db.connect(ctx)
	if err != nil {
		return nil, Fault(err)
	}
	defer conn.Close()
	res, err := conn.ExecContext(ctx, query, args...)
	return res, Fault(err)
}

// QueryContext runs a query. Pass what Rows.Err gives through Fault.
func (db *DB) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := db.DB.QueryContext(ctx, query, args...)
	return rows, Fault(err)
}

// QueryRowContext runs a query of at most one row.
func (db *DB) QueryRowContext(ctx context.Context, query string, args ...any) *Row {
	return &Row{db.DB.QueryRowContext(ctx, query, args...)}
}

// QueryRowContext runs a query of at most one row.
func (tx *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *Row {
	return &Row{tx.Tx.QueryRowContext(ctx, query, args...)}
}

const (
	txAttempts = 8
	txPause    = 10 * time.Millisecond // before the second attempt, doubled after each
)

// InTx runs fn in a transaction and commits it when fn returns nil, else rolls it
// back and returns fn's error. PostgreSQL's isolation is READ COMMITTED.
//
// fn may be called again when the database gave the transaction up in favour of
// another, so it must start afresh each time and touch nothing outside that it can't
// repeat. It must use tx alone: a write through db inside fn waits for itself on SQLite,
// until Options.LockTimeout. When the connection breaks during the commit the error is ErrUnavailable
// and nobody knows whether it took place.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	pause := txPause
	for attempt := 1; ; attempt++ {
		err := db.once(ctx, fn)
		if err == nil || attempt == txAttempts || !givenUp(err) {
			return Fault(err)
		}
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
		pause *= 2
	}
}

func (db *DB) once(ctx context.Context, fn func(tx *Tx) error) error {
	conn, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer raw.Rollback() // of no effect after Commit; ends the transaction on a panic too
	tx := &Tx{Tx: raw, dialect: db.dialect}
	if err := fn(tx); err != nil {
		return err
	}
	if err := raw.Commit(); err != nil {
		return err
	}
	for _, f := range tx.after {
		f()
	}
	return nil
}

// Storable reports whether both databases can hold and compare s as TEXT: valid
// UTF-8 without NUL. Text from outside that is not storable equals nothing stored.
func Storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Clean makes s storable and at most limit bytes long, by replacing what is not
// storable and cutting at a character.
func Clean(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
