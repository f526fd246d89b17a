package harness

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

var databases atomic.Int64

// Postgres makes a fresh database in the cluster at QUICKIMS_TEST_POSTGRES and
// returns its URL. Without that cluster the test is skipped.
func Postgres(t *testing.T) string {
	t.Helper()
	return createPostgres(t, "")
}

// CopyPostgres makes a copy of a database that nobody uses now, as a restored dump is,
// and returns its URL.
func CopyPostgres(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return createPostgres(t, " TEMPLATE "+strings.TrimPrefix(u.Path, "/"))
}

func createPostgres(t *testing.T, how string) string {
	t.Helper()
	cluster := os.Getenv("QUICKIMS_TEST_POSTGRES")
	if cluster == "" {
		t.Skip("QUICKIMS_TEST_POSTGRES is not set; scripts/with-postgres sets it")
	}
	db, err := sql.Open("pgx", cluster)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := fmt.Sprintf("server_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := db.ExecContext(ctx, "CREATE DATABASE "+name+how); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db, err := sql.Open("pgx", cluster)
		if err != nil {
			return
		}
		defer db.Close()
		db.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
	})
	u, err := url.Parse(cluster)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}
