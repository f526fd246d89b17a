package catalog

import (
	"context"
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
