package database_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
)

// runEmpty calls f with a database that has no tables yet, on every kind.
func runEmpty(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, "sqlite:"+t.TempDir()+"/empty.db")
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, databasetest.EmptyPostgres(t))
	})
}

// TestMigrateTwice: the second time changes nothing and loses nothing.
func TestMigrateTwice(t *testing.T) {
	t.Parallel()
	runEmpty(t, func(t *testing.T, url string) {
		db := openFor(t, url, database.Options{})
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := claim(t.Context(), db, "kept"); err != nil {
			t.Fatal(err)
		}
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := claimed(t, db); n != 1 {
			t.Errorf("%d rows after the second migration, want 1", n)
		}
	})
}

// TestMigrateTogether: several processes start on a fresh PostgreSQL at once.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	url := databasetest.EmptyPostgres(t)
	var wg sync.WaitGroup
	for range 4 {
		db := openFor(t, url, database.Options{MaxConns: 3})
		wg.Go(func() {
			if err := db.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestMigrateRefusesNewer: a database that a newer program has migrated stays as it
// is, and the error says what to do.
func TestMigrateRefusesNewer(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]string{
		"schema": "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)",
		"queue":  "INSERT INTO river_migration (line, version) VALUES ('main', 9999)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			databasetest.Run(t, func(t *testing.T, db *database.DB) {
				if _, err := db.ExecContext(t.Context(), newer); err != nil {
					t.Fatal(err)
				}
				err := db.Migrate(t.Context())
				if err == nil || !strings.Contains(err.Error(), "9999") || !strings.Contains(err.Error(), "newer quickims") {
					t.Errorf("got %v, want a refusal that names the version and says what to do", err)
				}
			})
		})
	}
}

// TestTextComparesByBytes: both databases order and tell apart text alike.
func TestTextComparesByBytes(t *testing.T) {
	t.Parallel()
	want := []string{"", " ", "Z", "a", "a b", "a-b", "aB", "ab", "e\u0301", "z", "\u00e9", "\uffee", "\U0001f600"}
	if !slices.IsSorted(want) {
		t.Fatal("the texts must be in byte order")
	}
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		for _, name := range slices.Backward(want) {
			if err := claim(t.Context(), db, name); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := db.QueryContext(t.Context(), "SELECT name FROM buckets ORDER BY name")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var got []string
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
		if err := rows.Err(); err != nil || !slices.Equal(got, want) {
			t.Errorf("ordered %q (%v), want %q", got, err, want)
		}
	})
}
