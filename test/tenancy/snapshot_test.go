package tenancy

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/database"
)

// changesByItself reports whether the service writes a column while nobody calls.
func changesByItself(table, column string) bool {
	switch {
	case strings.HasPrefix(table, "river_"): // the queue's leader and its clean-up
		return true
	case table == "jobs" && column == "lease_until", table == "jobs" && column == "free_since": // who works on a job says so again and again
		return true
	case strings.HasPrefix(table, "installation"): // the database shows now and then that it owns the image area
		return true
	case table == "attempts": // the clean-up looks at what ended
		return true
	case table == "attachment_uses": // who reads
		return true
	}
	return false
}

// watcher compares the database before and after calls.
type watcher struct {
	conn    *sql.Conn
	dialect database.Dialect
	query   string // a row a table: its name and all its rows
	mark    string // unchanged: nobody wrote
	last    map[string]string
}

func newWatcher(t *testing.T, w *world) *watcher {
	t.Helper()
	conn, err := w.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	v := &watcher{conn: conn, dialect: w.db.Dialect()}
	tables := w.tables(t.Context(), t)
	var parts []string
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		row := "quote(" + strings.Join(tables[table], ") || ',' || quote(") + ")"
		all := "group_concat(" + row + ", char(10) ORDER BY " + row + ")"
		if v.dialect == database.Postgres {
			row = "ROW(" + strings.Join(tables[table], ", ") + ")::text"
			all = "string_agg(" + row + ", chr(10) ORDER BY " + row + ")"
		}
		parts = append(parts, "SELECT '"+table+"', COALESCE("+all+", '') FROM "+table)
	}
	v.query = strings.Join(parts, " UNION ALL ")
	v.look(t)
	return v
}

// look reads all rows, unless nobody wrote since the last look.
func (v *watcher) look(t *testing.T) map[string]string {
	t.Helper()
	query := "PRAGMA data_version"
	if v.dialect == database.Postgres {
		query = "SELECT pg_current_wal_insert_lsn()::text"
	}
	var mark string
	if err := v.conn.QueryRowContext(t.Context(), query).Scan(&mark); err != nil {
		t.Fatal(err)
	}
	if mark == v.mark {
		return v.last
	}
	v.mark = mark
	v.last = v.read(t.Context(), t)
	return v.last
}

func (v *watcher) read(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	rows, err := v.conn.QueryContext(ctx, v.query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var table, text string
		if err := rows.Scan(&table, &text); err != nil {
			t.Fatal(err)
		}
		out[table] = text
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// changed tells what changed since the last look, "" for nothing.
func (v *watcher) changed(t *testing.T) string {
	t.Helper()
	before := v.last
	return difference(before, v.look(t))
}

// difference is the rows that are in one of the two alone.
func difference(before, after map[string]string) string {
	var out []string
	for table, text := range after {
		if text == before[table] {
			continue
		}
		was, is := strings.Split(before[table], "\n"), strings.Split(text, "\n")
		for _, row := range was {
			if !slices.Contains(is, row) {
				out = append(out, "- "+table+": "+row)
			}
		}
		for _, row := range is {
			if !slices.Contains(was, row) {
				out = append(out, "+ "+table+": "+row)
			}
		}
	}
	return strings.Join(out, "\n")
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
