// Package databasetest runs one test on every kind of database.
package databasetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/quickims/quickims/internal/database"
)

// PostgresVariable names the environment variable with the URL of a throwaway
// PostgreSQL cluster in which tests may make databases; scripts/with-postgres sets it.
const PostgresVariable = "QUICKIMS_TEST_POSTGRES"

// Run calls f twice, as the parallel subtests "sqlite" and "postgres", each with a
// database of its own that is migrated, empty, and thrown away afterwards. Without a
// PostgreSQL the second is skipped.
func Run(t *testing.T, f func(t *testing.T, db *database.DB)) {
	t.Helper()
	RunURL(t, func(t *testing.T, url string) { f(t, open(t, url)) })
}

// RunURL is Run for a test that opens the database itself, such as in another process.
func RunURL(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, Postgres(t))
	})
}

func open(t *testing.T, url string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), url, database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// SQLite makes a migrated database in a file of the test's own and returns its URL.
func SQLite(t testing.TB) string {
	t.Helper()
	image, err := sqliteImage()
	if err != nil {
		t.Fatalf("make the SQLite database that tests begin with: %v", err)
	}
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// sqliteImage is a migrated, empty database as a file's content.
var sqliteImage = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "quickims-databasetest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	if err := migrated("sqlite:" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// Postgres makes a migrated database of the test's own and returns its URL. It skips
// the test when there is no PostgreSQL.
func Postgres(t testing.TB) string {
	t.Helper()
	server := Server(t)
	template, err := postgresTemplate()
	if err != nil {
		t.Fatalf("make the PostgreSQL database that tests begin with: %v", err)
	}
	return create(t, server, template)
}

// Server returns the URL of the PostgreSQL cluster or skips the test.
func Server(t testing.TB) string {
	t.Helper()
	server := os.Getenv(PostgresVariable)
	if server == "" {
		t.Skipf("no PostgreSQL: set %s to the URL of a throwaway cluster, as scripts/with-postgres does", PostgresVariable)
	}
	return server
}

// EmptyPostgres makes a database without tables and returns its URL.
func EmptyPostgres(t testing.TB) string {
	t.Helper()
	return create(t, Server(t), "template0")
}

func create(t testing.TB, server, template string) string {
	t.Helper()
	admin, err := database.Open(t.Context(), server, database.Options{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	name := newName()
	if _, err := admin.ExecContext(t.Context(), fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		admin, err := database.Open(context.Background(), server, database.Options{MaxConns: 1})
		if err != nil {
			t.Errorf("drop database %s: %v", name, err)
			return
		}
		defer admin.Close()
		if _, err := admin.ExecContext(context.Background(), fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name)); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return inServer(server, name)
}

// postgresTemplate makes the database that the others are copied from and returns its
// name. It stays until the cluster is thrown away.
var postgresTemplate = sync.OnceValues(func() (string, error) {
	server := os.Getenv(PostgresVariable)
	admin, err := database.Open(context.Background(), server, database.Options{MaxConns: 1})
	if err != nil {
		return "", err
	}
	defer admin.Close()
	name := newName()
	if _, err := admin.ExecContext(context.Background(), fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0", name)); err != nil {
		return "", err
	}
	return name, migrated(inServer(server, name))
})

func migrated(url string) error {
	ctx := context.Background()
	db, err := database.Open(ctx, url, database.Options{})
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx); err != nil {
		db.Close()
		return err
	}
	return db.Close()
}

func newName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return "quickims_test_" + hex.EncodeToString(b[:])
}

// inServer is server's URL with another database's name.
func inServer(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server // Open said so already
	}
	u.Path = "/" + name
	return u.String()
}
