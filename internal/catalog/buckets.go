package catalog

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/quickims/quickims/internal/database"
)

// ClaimBucket makes a project the owner of a bucket. Repeating it changes nothing;
// ErrTaken when another project owns it.
func (c *Catalog) ClaimBucket(ctx context.Context, bucket, projectID string) error {
	return wrap(c.db.InTx(ctx, func(tx *database.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO buckets (name, project_id, claimed_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
			bucket, projectID, c.now().UnixMilli())
		if err != nil {
			return err
		}
		owner, err := bucketOwner(ctx, tx, bucket)
		if err == nil && owner != projectID {
			err = ErrTaken
		}
		return err
	}), "claim bucket "+bucket)
}

// BucketOwner gives the project that owns a bucket; ErrNotFound when nobody does.
func (c *Catalog) BucketOwner(ctx context.Context, bucket string) (projectID string, err error) {
	owner, err := bucketOwner(ctx, c.db, bucket)
	return owner, wrap(err, fmt.Sprintf("look up the owner of bucket %q", bucket))
}

func bucketOwner(ctx context.Context, q database.Querier, bucket string) (string, error) {
	if !database.Storable(bucket) {
		return "", ErrNotFound
	}
	var owner string
	err := q.QueryRowContext(ctx, "SELECT project_id FROM buckets WHERE name = $1", bucket).Scan(&owner)
	return owner, orNotFound(err)
}

// ReleaseBucket makes a bucket nobody's. It does nothing when the project does not own it.
func (c *Catalog) ReleaseBucket(ctx context.Context, bucket, projectID string) error {
	if !database.Storable(bucket) {
		return nil
	}
	_, err := c.db.ExecContext(ctx, "DELETE FROM buckets WHERE project_id = $1 AND name = $2", projectID, bucket)
	return wrap(err, "release bucket "+bucket)
}

// BucketsOf lists the buckets that a project owns, by name.
func (c *Catalog) BucketsOf(ctx context.Context, projectID string) ([]string, error) {
	list, err := texts(ctx, c.db, "SELECT name FROM buckets WHERE project_id = $1 ORDER BY name", projectID)
	return list, wrap(err, "list the buckets of project "+projectID)
}

// BucketOwners gives the owner of every bucket that has one.
func (c *Catalog) BucketOwners(ctx context.Context) (map[string]string, error) {
	owners := map[string]string{}
	err := each(ctx, c.db, "SELECT name, project_id FROM buckets", nil, func(rows *sql.Rows) error {
		var name, owner string
		err := rows.Scan(&name, &owner)
		owners[name] = owner
		return err
	})
	return owners, wrap(err, "list the owners of the buckets")
}

// AdoptBuckets makes the project the owner of those of the buckets that have none, in
// an installation that was made when a bucket without an owner was the first
// project's. It does so once: it gives how many there were, and 0 ever after, as in an
// installation that was made later.
func (c *Catalog) AdoptBuckets(ctx context.Context, buckets []string, projectID string) (int, error) {
	// Most starts have nothing to do, and need no transaction to know it.
	waiting, err := count(ctx, c.db, "SELECT COUNT(*) FROM unowned_buckets")
	if err != nil || waiting == 0 {
		return 0, wrap(err, "ask whether buckets without an owner are the first project's")
	}
	adopted := 0
	err = c.db.InTx(ctx, func(tx *database.Tx) error {
		adopted = 0
		// Of several processes one deletes the row, the others find none.
		if n, err := affected(tx.ExecContext(ctx, "DELETE FROM unowned_buckets WHERE id = 1")); err != nil || n == 0 {
			return err
		}
		for _, name := range buckets {
			n, err := affected(tx.ExecContext(ctx, "INSERT INTO buckets (name, project_id, claimed_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
				name, projectID, c.now().UnixMilli()))
			if err != nil {
				return err
			}
			adopted += int(n)
		}
		return nil
	})
	return adopted, wrap(err, "give the buckets without an owner to the first project")
}
