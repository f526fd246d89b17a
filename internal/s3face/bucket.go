package s3face

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// maxBuckets is the most buckets that one listing returns.
const maxBuckets = 10000

// listBuckets lists the caller's buckets, each of which has a directory.
func listBuckets(q *request) error {
	limit, err := number("max-buckets", q.query.Value("max-buckets"), maxBuckets, maxBuckets)
	if err != nil {
		return err
	}
	if limit == 0 {
		return wire.Errorf("InvalidArgument", "max-buckets is 0; it must be 1 to %d.", maxBuckets)
	}
	names, err := q.s.store.Buckets()
	if err != nil {
		return err
	}
	prefix, after := q.query.Value("prefix"), ""
	if token := q.query.Value("continuation-token"); token != "" {
		var ok bool
		if after, ok = decodeToken(token); !ok {
			return wire.Errorf("InvalidArgument", "The continuation token provided is incorrect.").With("ArgumentName", "continuation-token")
		}
	}
	out := wire.ListAllMyBucketsResult{Owner: q.owner()}
	if q.query.Has("prefix") {
		out.Prefix = &prefix
	}
	if region := q.query.Value("bucket-region"); region != "" && region != q.s.cfg.Region {
		return q.respond(out)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || name <= after {
			continue
		}
		owner, err := q.ownerOf(name)
		if err != nil {
			return err
		}
		if owner != q.project {
			continue
		}
		if len(out.Buckets) == limit {
			out.ContinuationToken = encodeToken(out.Buckets[limit-1].Name)
			break
		}
		b, err := q.s.store.Bucket(name)
		if errors.Is(err, files.ErrNoBucket) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		out.Buckets = append(out.Buckets, wire.Bucket{Name: name, CreationDate: wire.Time(b.Created()), BucketRegion: q.s.cfg.Region})
		b.Close()
	}
	return q.respond(out)
}

// createBucket makes a bucket of the caller's project. A directory that is there
// already and belongs to nobody is the operator's, and nobody's to claim over S3.
func createBucket(q *request) error {
	if err := q.storeOptions(); err != nil {
		return err
	}
	h := q.r.Header
	if v := h.Get("X-Amz-Bucket-Object-Lock-Enabled"); v != "" && !strings.EqualFold(v, "false") {
		return wire.Errorf("NotImplemented", "Object lock is not offered.")
	}
	if v := h.Get("X-Amz-Object-Ownership"); v != "" && v != "BucketOwnerEnforced" {
		return wire.Errorf("NotImplemented", "The object ownership %.40q is not offered: it is BucketOwnerEnforced always.", v)
	}
	body, err := q.document()
	if err != nil {
		return err
	}
	if err := q.checkConfiguration(body); err != nil {
		return err
	}
	if _, ip := netip.ParseAddr(q.bucket); ip == nil || strings.Contains(q.bucket, ".-") || strings.Contains(q.bucket, "-.") {
		return wire.Errorf("InvalidBucketName", "A bucket's name must be no IP address and have no hyphen beside a dot: it can be part of a host name.").With("BucketName", q.bucket)
	}
	ctx, cancel := context.WithTimeout(q.ctx, ownerTimeout)
	defer cancel()
	err = q.s.cfg.Buckets.Make(ctx, q.bucket, q.project)
	switch {
	case errors.Is(err, buckets.ErrBadName):
		return wire.Err("InvalidBucketName").With("BucketName", xmlText(q.bucket))
	case errors.Is(err, buckets.ErrExists):
		return wire.Err("BucketAlreadyOwnedByYou").With("BucketName", q.bucket)
	case errors.Is(err, buckets.ErrTaken):
		return wire.Err("BucketAlreadyExists").With("BucketName", q.bucket)
	case err != nil:
		return err
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	return q.empty(http.StatusOK)
}

// checkConfiguration refuses what a new bucket is to have and cannot.
func (q *request) checkConfiguration(body []byte) error {
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil
	}
	var in wire.CreateBucketConfiguration
	if err := wire.Unmarshal(body, &in); err != nil {
		return err
	}
	if in.Location != "" {
		if !q.sig.OBS() || in.LocationConstraint != "" {
			return wire.Errorf("MalformedXML", "A bucket's configuration names its region as LocationConstraint.")
		}
		in.LocationConstraint = in.Location
	}
	if len(in.Other) > 0 {
		return wire.Errorf("NotImplemented", "Of a bucket's configuration only LocationConstraint is offered.")
	}
	if l := in.LocationConstraint; l != "" && l != q.s.cfg.Region {
		return wire.Errorf("IllegalLocationConstraintException", "The location constraint is %.60q; this service's region is %q.", l, q.s.cfg.Region)
	}
	return nil
}

func headBucket(q *request) error {
	q.w.Header()["x-amz-bucket-region"] = []string{q.s.cfg.Region}
	q.w.Header()["x-amz-access-point-alias"] = []string{"false"}
	return q.empty(http.StatusOK)
}

func bucketLocation(q *request) error {
	region := q.s.cfg.Region
	if q.sig.OBS() {
		return q.respond(wire.Location{Region: region})
	}
	if region == "us-east-1" {
		region = "" // so S3 spells it
	}
	return q.respond(wire.LocationConstraint{Region: region})
}

// deleteBucket removes an empty bucket, with its unfinished uploads. The bucket of
// which only the name is left, because its directory is gone, is removed too.
func deleteBucket(q *request) error {
	ctx, cancel := context.WithTimeout(q.ctx, ownerTimeout)
	defer cancel()
	err := q.s.cfg.Buckets.Remove(ctx, q.bucket, q.project)
	switch {
	case errors.Is(err, buckets.ErrNotFound), errors.Is(err, buckets.ErrBadName):
		return wire.Err("NoSuchBucket").With("BucketName", xmlText(q.bucket))
	case errors.Is(err, buckets.ErrNotEmpty):
		return wire.Err("BucketNotEmpty").With("BucketName", q.bucket)
	case err != nil:
		return err
	}
	if err := q.s.store.ForgetBucket(q.bucket); err != nil {
		q.s.cfg.Logger.Warn("metadata of a removed bucket cannot be removed", "bucket", q.bucket, "error", err)
	}
	return q.empty(http.StatusNoContent)
}
