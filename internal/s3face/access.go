package s3face

import (
	"context"
	"errors"
	"time"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/objectstore"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// ownerTimeout bounds a question to the buckets' keeper.
const ownerTimeout = 10 * time.Second

// authorize checks that the caller may use the operation on the bucket, and
// opens the bucket.
func (q *request) authorize() error {
	if q.op.level != onService {
		// A name that no bucket can have, another project's bucket and nobody's
		// are answered like one that does not exist.
		if q.op.name != "CreateBucket" && q.op.name != "DeleteBucket" {
			b, err := q.openBucket(q.bucket)
			if err != nil {
				return err
			}
			q.b = b
		}
		if q.op.level == onObject {
			if err := checkKey(q.key); err != nil {
				return err
			}
		}
	}
	if q.op.writes && q.readOnly {
		return wire.Errorf("AccessDenied", "The access key may only read: its user has the role reader.")
	}
	if want := q.r.Header.Get("X-Amz-Expected-Bucket-Owner"); want != "" && want != q.project {
		return wire.Errorf("AccessDenied", "The bucket's owner is not the one in x-amz-expected-bucket-owner.")
	}
	return nil
}

// openBucket opens a bucket of the caller's project. The caller closes it.
func (q *request) openBucket(name string) (*files.Bucket, error) {
	none := func() error { return wire.Err("NoSuchBucket").With("BucketName", xmlText(name)) }
	if objectstore.CheckBucket(name) != nil {
		return nil, none()
	}
	owner, err := q.ownerOf(name)
	if err != nil {
		return nil, err
	}
	if owner == "" || owner != q.project {
		return nil, none()
	}
	b, err := q.s.store.Bucket(name)
	if errors.Is(err, files.ErrNoBucket) {
		return nil, none()
	}
	return b, err
}

// ownerOf returns the project that a bucket belongs to, "" if none.
func (q *request) ownerOf(bucket string) (string, error) {
	ctx, cancel := context.WithTimeout(q.ctx, ownerTimeout)
	defer cancel()
	owner, err := q.s.cfg.Buckets.Owner(ctx, bucket)
	if errors.Is(err, buckets.ErrNotFound) {
		return "", nil
	}
	return owner, err
}

// hold keeps the caller's bucket from being removed or given away until release
// is called. Whatever puts something into a bucket holds it.
func (q *request) hold() (release func(), err error) {
	ctx, cancel := context.WithTimeout(q.ctx, ownerTimeout)
	defer cancel()
	release, err = q.s.cfg.Buckets.Hold(ctx, q.bucket, q.project)
	if errors.Is(err, buckets.ErrNotFound) {
		err = files.ErrNoBucket
	}
	return release, err
}

// accessEvery is how often it is asked whether the access key of a request in progress
// still gives access.
const accessEvery = time.Second

// watchAccess cuts the request off when its access key no longer gives the access that
// the request needs: the key was revoked, its user removed, or its role became one that
// may only read. A database that does not answer cuts nothing off. It ends with stop.
func (q *request) watchAccess() (stop func()) {
	before := q.ctx
	ctx, cancel := context.WithCancel(before)
	q.ctx = ctx
	writes, key, project := q.op.writes, q.sig.AccessKey, q.project
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(accessEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, now, readOnly, err := q.s.lookUp(key)
			if gone := (*wire.Error)(nil); errors.As(err, &gone) || err == nil && (now != project || writes && readOnly) {
				q.w.body.cut()
				q.w.cut()
				cancel()
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
		q.ctx = before
	}
}
