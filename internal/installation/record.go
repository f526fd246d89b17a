package installation

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/database"
)

// keptMarks is how many of its newest marks a database remembers. An older one of its
// own can lie in the area only if so many later ones were begun and none was written.
const keptMarks = 10000

// Identity is what a database says of its installation.
type Identity struct {
	ID string
	// Generation is that of the newest mark that was begun, 0 before the first.
	Generation int64
}

// Ensure gives a migrated database its id if it has none, and returns it. Processes that
// call it at once get the same one.
func Ensure(ctx context.Context, db *database.DB) (Identity, error) {
	_, err := db.ExecContext(ctx, "INSERT INTO installation (singleton, id, generation, made_at) VALUES (1, $1, 0, $2) ON CONFLICT (singleton) DO NOTHING",
		uuid.NewString(), time.Now().UnixMilli())
	if err != nil {
		return Identity{}, fmt.Errorf("give the database an installation id: %w", err)
	}
	return Read(ctx, db)
}

// Read returns the database's identity. A database that has none is an error.
func Read(ctx context.Context, db database.Querier) (Identity, error) {
	var id Identity
	err := db.QueryRowContext(ctx, "SELECT id, generation FROM installation WHERE singleton = 1").Scan(&id.ID, &id.Generation)
	if err != nil {
		return id, fmt.Errorf("read the installation id: %w", err)
	}
	return id, nil
}

// begin notes a mark that is about to be written: the one after the newest of this
// database, or after at least if that is greater.
func begin(ctx context.Context, db *database.DB, least int64) (Mark, error) {
	m := Mark{Nonce: rand.Text(), Note: markNote}
	err := db.InTx(ctx, func(tx *database.Tx) error {
		now := time.Now()
		m.WrittenAt = now.UTC().Truncate(time.Second)
		err := tx.QueryRowContext(ctx, `UPDATE installation SET generation = CASE WHEN generation < $1 THEN $1 ELSE generation END + 1
			WHERE singleton = 1 RETURNING id, generation`, least).Scan(&m.Installation, &m.Generation)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO installation_marks (generation, nonce, made_at) VALUES ($1, $2, $3)", m.Generation, m.Nonce, now.UnixMilli()); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM installation_marks WHERE generation <= $1", m.Generation-keptMarks)
		return err
	})
	if err != nil {
		return Mark{}, fmt.Errorf("begin a new owner mark: %w", err)
	}
	return m, nil
}

// knows reports whether a mark of this installation is one of this very database.
func knows(ctx context.Context, db *database.DB, m Mark, now Identity) (bool, error) {
	if m.Generation > now.Generation {
		return false, nil
	}
	if m.Generation <= now.Generation-keptMarks {
		return true, nil // too old to be told apart
	}
	var nonce string
	err := db.QueryRowContext(ctx, "SELECT nonce FROM installation_marks WHERE generation = $1", m.Generation).Scan(&nonce)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return nonce == m.Nonce, err
}
