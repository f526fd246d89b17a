package database

import "context"

// MigrateTo brings an empty database's own tables to a version.
func (db *DB) MigrateTo(ctx context.Context, version int64) error {
	tables, err := db.tables()
	if err != nil {
		return err
	}
	_, err = tables.UpTo(ctx, version)
	return err
}
