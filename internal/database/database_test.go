package database_test

import (
	"errors"
	"testing"

	"github.com/quickims/quickims/internal/database"
	"github.com/quickims/quickims/internal/database/databasetest"
)

func TestInTx(t *testing.T) {
	t.Parallel()
	databasetest.Run(t, func(t *testing.T, db *database.DB) {
		insert := func(name string) func(*database.Tx) error {
			return func(tx *database.Tx) error {
				_, err := tx.ExecContext(t.Context(), "INSERT INTO buckets (name, project_id, claimed_at) VALUES ($1, $2, $3)", name, "p", 1)
				return err
			}
		}
		var after []string // what was called after a commit
		if err := db.InTx(t.Context(), func(tx *database.Tx) error {
			tx.AfterCommit(func() { after = append(after, "kept") })
			return insert("kept")(tx)
		}); err != nil || len(after) != 1 {
			t.Fatalf("%v, %d calls after the commit, want one", err, len(after))
		}
		planned := errors.New("planned")
		if err := db.InTx(t.Context(), func(tx *database.Tx) error {
			tx.AfterCommit(func() { after = append(after, "lost") })
			return errors.Join(insert("lost")(tx), planned)
		}); !errors.Is(err, planned) {
			t.Fatalf("got %v, want the function's own error", err)
		}
		if len(after) != 1 {
			t.Errorf("called after commits: %q, also what was rolled back", after)
		}
		var n int
		// $1 and $2 in this order and the other way round mean the same arguments.
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM buckets WHERE project_id = $2 AND name <> $1", "x", "p").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			t.Errorf("%d rows, want the one that was committed", n)
		}
		if err := db.InTx(t.Context(), insert("kept")); !database.Duplicate(err) || errors.Is(err, database.ErrUnavailable) {
			t.Errorf("a second row of the same key: %v", err)
		}
	})
}
