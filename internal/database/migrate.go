package database

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrateLock is the key of the advisory lock that a process holds while it migrates
// PostgreSQL; any number that nothing else in the database uses.
const migrateLock = 0x71756963_6b696d73 // "quickims"

// Migrate brings the tables to what this program expects: ours and the queue's. It may
// be called at every start, by several processes at once on PostgreSQL. A database
// that a newer program has migrated is refused and left as it is.
func (db *DB) Migrate(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("migrate the database %s: %w", db.where, Fault(err))
		}
	}()
	if db.dialect == Postgres {
		unlock, err := db.lockMigration(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	tables, err := db.tables()
	if err != nil {
		return err
	}
	queue, err := db.queueTables()
	if err != nil {
		return err
	}
	newest := int64(0)
	for _, s := range tables.ListSources() {
		newest = max(newest, s.Version)
	}
	if err := db.refuseNewer(ctx, "schema", "SELECT MAX(version_id) FROM "+goose.DefaultTablename, newest); err != nil {
		return err
	}
	newest = 0
	for _, v := range queue.AllVersions() {
		newest = max(newest, int64(v.Version))
	}
	if err := db.refuseNewer(ctx, "queue", "SELECT MAX(version) FROM river_migration", newest); err != nil {
		return err
	}
	if _, err := tables.Up(ctx); err != nil {
		return err
	}
	if _, err := queue.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("the queue: %w", err)
	}
	return nil
}

// refuseNewer reads which version the database has and fails if it is above newest.
func (db *DB) refuseNewer(ctx context.Context, what, query string, newest int64) error {
	var found sql.NullInt64
	err := db.writer.QueryRowContext(ctx, query).Scan(&found)
	if err != nil && !missingTable(err) {
		return fmt.Errorf("read the version of its %s: %w", what, err)
	}
	if found.Int64 > newest {
		return fmt.Errorf("its %s has version %d, this program knows versions up to %d: a newer quickims has used it, run that one or restore a backup", what, found.Int64, newest)
	}
	return nil
}

// lockMigration waits until no other process migrates. The lock belongs to a
// connection of its own, so that it ends with the process.
func (db *DB) lockMigration(ctx context.Context) (unlock func(), err error) {
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// The other one may take longer than a lock may usually be waited for.
	if _, err = conn.ExecContext(ctx, "SET lock_timeout = '5min'"); err == nil {
		_, err = conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrateLock))
	}
	drop := func() {
		// The connection is closed rather than returned: that gives the lock back.
		conn.Raw(func(any) error { return driver.ErrBadConn })
		conn.Close()
	}
	if err != nil {
		drop()
		return nil, fmt.Errorf("wait for another process that migrates: %w", err)
	}
	return drop, nil
}

// tables are our own migrations.
func (db *DB) tables() (*goose.Provider, error) {
	dialect, source := goose.DialectSQLite3, fs.FS(migrations)
	if db.dialect == Postgres {
		dialect, source = goose.DialectPostgres, bytewise{migrations}
	}
	source, err := fs.Sub(source, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db.writer, source, goose.WithDisableGlobalRegistry(true))
}

// queueTables are River's migrations.
func (db *DB) queueTables() (*rivermigrate.Migrator[*sql.Tx], error) {
	config := &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)}
	if db.dialect == SQLite {
		return rivermigrate.New(riversqlite.New(db.writer), config)
	}
	return rivermigrate.New(riverdatabasesql.New(db.writer), config)
}

// bytewise gives every column of type TEXT the collation "C", by which PostgreSQL
// compares bytes, as SQLite does without being told.
type bytewise struct{ fs.FS }

var textColumn = regexp.MustCompile(`\bTEXT\b`)

func (b bytewise) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	defer f.Close()
	data, err := fs.ReadFile(b.FS, name)
	if err != nil {
		return nil, err
	}
	return &memFile{Reader: bytes.NewReader(textColumn.ReplaceAll(data, []byte(`TEXT COLLATE "C"`))), name: name}, nil
}

// memFile is a read-only file in memory.
type memFile struct {
	*bytes.Reader
	name string
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *memFile) Close() error               { return nil }
func (f *memFile) Name() string               { return f.name }
func (f *memFile) Mode() fs.FileMode          { return 0o444 }
func (f *memFile) ModTime() time.Time         { return time.Time{} }
func (f *memFile) IsDir() bool                { return false }
func (f *memFile) Sys() any                   { return nil }
