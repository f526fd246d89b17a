package database_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
)

func openFor(t *testing.T, url string, opts database.Options) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// claim writes one row.
func claim(ctx context.Context, q database.Querier, bucket string) error {
	_, err := q.ExecContext(ctx, "INSERT INTO buckets (name, project_id, claimed_at) VALUES ($1, $2, $3)", bucket, "p", 1)
	return err
}

func claimed(t *testing.T, db *database.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM buckets").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLocked: somebody else holds the lock beyond the timeout. Writing fails as
// unavailable and goes well once the lock is free.
func TestLocked(t *testing.T) {
	t.Parallel()
	databasetest.RunURL(t, func(t *testing.T, url string) {
		other := openFor(t, url, database.Options{})
		db := openFor(t, url, database.Options{LockTimeout: 20 * time.Millisecond})
		err := other.InTx(t.Context(), func(tx *database.Tx) error {
			if err := claim(t.Context(), tx, "theirs"); err != nil {
				return err
			}
			if tx.Dialect() == database.Postgres {
				if _, err := tx.ExecContext(t.Context(), "LOCK TABLE buckets IN EXCLUSIVE MODE"); err != nil {
					return err
				}
			}
			for range 2 {
				err := db.InTx(t.Context(), func(tx *database.Tx) error { return claim(t.Context(), tx, "ours") })
				if !errors.Is(err, database.ErrUnavailable) {
					t.Errorf("in a transaction: %v, want ErrUnavailable", err)
				}
			}
			if err := claim(t.Context(), db, "ours"); !errors.Is(err, database.ErrUnavailable) {
				t.Errorf("without a transaction: %v, want ErrUnavailable", err)
			}
			if err := db.PingContext(t.Context()); tx.Dialect() == database.SQLite && !errors.Is(err, database.ErrUnavailable) {
				t.Errorf("ping: %v, want ErrUnavailable", err)
			}
			if n := claimed(t, db); n != 0 {
				t.Errorf("reading beside the lock found %d rows, want none", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := claim(t.Context(), db, "ours"); err != nil {
			t.Errorf("after the lock: %v", err)
		}
		if err := db.PingContext(t.Context()); err != nil {
			t.Errorf("ping: %v", err)
		}
	})
}

// TestWritersWait: many writers at once, none finds the database locked.
func TestWritersWait(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO project_turns (project_id, turn) VALUES ('p', 0)"); err != nil {
			t.Fatal(err)
		}
		const writers, rounds = 16, 5
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range rounds {
					err := db.InTx(t.Context(), func(tx *database.Tx) error {
						var turn int
						if err := tx.QueryRowContext(t.Context(), "SELECT turn FROM project_turns WHERE project_id = 'p'"+tx.ForUpdate()).Scan(&turn); err != nil {
							return err
						}
						_, err := tx.ExecContext(t.Context(), "UPDATE project_turns SET turn = $1 WHERE project_id = 'p'", turn+1)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		var turn int
		if err := db.QueryRowContext(t.Context(), "SELECT turn FROM project_turns").Scan(&turn); err != nil {
			t.Fatal(err)
		}
		if turn != writers*rounds {
			t.Errorf("counted to %d, want %d: an update was lost", turn, writers*rounds)
		}
	})
}

// TestDeadlockIsRepeated: two transactions that wait for each other both end well.
func TestDeadlockIsRepeated(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		for _, name := range []string{"a", "b"} {
			if err := claim(t.Context(), db, name); err != nil {
				t.Fatal(err)
			}
		}
		take := func(tx *database.Tx, name string) error {
			_, err := tx.ExecContext(t.Context(), "UPDATE buckets SET claimed_at = claimed_at + 1 WHERE name = $1", name)
			return err
		}
		var meet, wg sync.WaitGroup
		meet.Add(2)
		for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
			wg.Go(func() {
				first := true
				err := db.InTx(t.Context(), func(tx *database.Tx) error {
					if err := take(tx, order[0]); err != nil {
						return err
					}
					// On PostgreSQL both hold their first row before either asks for its
					// second. SQLite lets only one of them in.
					if first && tx.Dialect() == database.Postgres {
						meet.Done()
						meet.Wait()
					}
					first = false
					return take(tx, order[1])
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var sum int
		if err := db.QueryRowContext(t.Context(), "SELECT SUM(claimed_at) FROM buckets").Scan(&sum); err != nil {
			t.Fatal(err)
		}
		if sum != 6 {
			t.Errorf("the rows add up to %d, want 6: each transaction takes both once", sum)
		}
	})
}

// TestDiskFull: a full disk is ErrUnavailable, nothing half-made stays, and work goes
// on once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db := openFor(t, databasetest.SQLite(t), database.Options{})
		var pages int
		if err := db.Writer().QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
			t.Fatal(err)
		}
		limit := func(n int) {
			if _, err := db.Writer().ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
				t.Fatal(err)
			}
		}
		limit(pages + 1)
		fill := func(tx *database.Tx) error {
			for i := range 64 {
				if err := claim(t.Context(), tx, strings.Repeat("x", 1000)+string(rune('A'+i))); err != nil {
					return err
				}
			}
			return nil
		}
		if err := db.InTx(t.Context(), fill); !errors.Is(err, database.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if n := claimed(t, db); n != 0 {
			t.Errorf("%d rows stayed of a transaction that failed", n)
		}
		limit(1 << 20)
		if err := db.InTx(t.Context(), fill); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db := openFor(t, databasetest.Postgres(t), database.Options{})
		// The server's own error, raised where a full disk would raise it.
		for _, statement := range []string{
			"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$",
			"CREATE TRIGGER full_disk AFTER INSERT ON buckets FOR EACH ROW EXECUTE FUNCTION full_disk()",
		} {
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		if err := claim(t.Context(), db, "b"); !errors.Is(err, database.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if n := claimed(t, db); n != 0 {
			t.Errorf("%d rows stayed of a statement that failed", n)
		}
	})
}

// TestGone: the connection breaks, the database goes away.
func TestGone(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		url := databasetest.SQLite(t)
		db := openFor(t, url, database.Options{})
		path := strings.TrimPrefix(url, "sqlite:")
		if err := claim(t.Context(), db, "before"); err != nil {
			t.Fatal(err)
		}
		// Away and another file in its place, as a restored backup would be.
		if err := os.Rename(path, path+".moved"); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			err := claim(t.Context(), db, "after"+string(rune('0'+i)))
			if err != nil && !errors.Is(err, database.ErrUnavailable) {
				t.Errorf("writing to a file that was moved away: %v", err)
			}
		}
		if _, err := database.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "missing", "x.db"), database.Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a folder that is not there: %v", err)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := databasetest.Postgres(t)
		db := openFor(t, url, database.Options{})
		other := openFor(t, url, database.Options{})
		err := db.InTx(t.Context(), func(tx *database.Tx) error {
			if err := claim(t.Context(), tx, "lost"); err != nil {
				return err
			}
			var pid int
			if err := tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				return err
			}
			if _, err := other.ExecContext(t.Context(), "SELECT pg_terminate_backend($1, 5000)", pid); err != nil {
				return err
			}
			return claim(t.Context(), tx, "lost too")
		})
		if !errors.Is(err, database.ErrUnavailable) {
			t.Fatalf("a connection that was cut: %v, want ErrUnavailable", err)
		}
		if err := claim(t.Context(), db, "next"); err != nil {
			t.Errorf("the next connection: %v", err)
		}
		if n := claimed(t, db); n != 1 {
			t.Errorf("%d rows, want the one that was committed", n)
		}
		if _, err := database.Open(t.Context(), "postgres:///x?host=/nowhere&user=u&password=hush", database.Options{}); !errors.Is(err, database.ErrUnavailable) || strings.Contains(err.Error(), "hush") {
			t.Errorf("a server that is not there: %v, want ErrUnavailable without the password", err)
		}
	})
}

// TestCallersOwnEnd: a context that ended is not the database's trouble.
func TestCallersOwnEnd(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := db.InTx(ctx, func(tx *database.Tx) error { return claim(ctx, tx, "b") })
		if !errors.Is(err, context.Canceled) || errors.Is(err, database.ErrUnavailable) {
			t.Errorf("got %v, want context.Canceled alone", err)
		}
	})
}

// TestReadersCannotWrite: a write that went past InTx and ExecContext would make
// others find the database locked.
func TestReadersCannotWrite(t *testing.T) {
	t.Parallel()
	db := openFor(t, databasetest.SQLite(t), database.Options{})
	err := db.QueryRowContext(t.Context(), "INSERT INTO buckets (name, project_id, claimed_at) VALUES ('b', 'p', 1) RETURNING 1").Scan(new(int))
	if err == nil || errors.Is(err, sql.ErrNoRows) || errors.Is(err, database.ErrUnavailable) {
		t.Errorf("got %v, want a refusal that shows the mistake", err)
	}
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "odd name?#%41.db")
	db := openFor(t, "sqlite:"+path, database.Options{})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-wal"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", filepath.Base(p), info.Mode())
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := db.Writer().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "mysql://x", "sqlite:relative.db", "postgres://u:hush@[broken"} {
		db, err := database.Open(t.Context(), url, database.Options{})
		if err == nil {
			db.Close()
			t.Errorf("%q was opened", url)
		} else if strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: the error tells the password: %v", url, err)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"as it is", 100, "as it is"},
		{"a\x00b\xffc", 100, "a\uFFFDb\uFFFDc"},
		{"äöü", 3, "ä"},
		{"abc", 0, ""},
	} {
		if got := database.Clean(tt.in, tt.limit); got != tt.want || !database.Storable(got) {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

// TestRefused: the server takes no connections to the database for a while. Whatever its
// reason, that is unavailable, and goes well afterwards.
func TestRefused(t *testing.T) {
	t.Parallel()
	databasetest.RunURL(t, func(t *testing.T, url string) {
		db := openFor(t, url, database.Options{})
		if db.Dialect() != database.Postgres {
			return // a file refuses nobody
		}
		admin, err := sql.Open("pgx", os.Getenv("QUICKIMS_TEST_POSTGRES"))
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		var name string
		if err := db.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
		accept := func(whether string) {
			t.Helper()
			if _, err := admin.ExecContext(context.Background(), "ALTER DATABASE "+name+" WITH ALLOW_CONNECTIONS "+whether); err != nil {
				t.Fatal(err)
			}
		}
		accept("false")
		if _, err := admin.ExecContext(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name); err != nil {
			t.Fatal(err)
		}
		for range 5 { // the first may find a connection that was cut
			if err := claim(t.Context(), db, "ours"); !errors.Is(err, database.ErrUnavailable) {
				t.Errorf("%v, want ErrUnavailable", err)
			}
		}
		accept("true")
		if err := claim(t.Context(), db, "ours"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
