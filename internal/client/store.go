package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Store is the object store beside the service, spoken to over S3.
type Store struct {
	s3       *minio.Core
	endpoint string
	region   string
}

const (
	// storeRetries is how often a request is sent before its fault counts; the pauses
	// between grow to a second.
	storeRetries = 5
	// joinTime is how long the store may take to answer: at the end of an upload it
	// may have to copy its parts into one, at worst a terabyte at 150 MB/s.
	joinTime = 2 * time.Hour
	// lookTime is how long a look at a bucket or an object may take.
	lookTime = time.Minute
	// DefaultRegion is where buckets are made when the configuration names no region.
	DefaultRegion = "us-east-1"
)

// NewStore makes a client of the object store. The error wraps ErrNotConfigured and
// says what to set.
func NewStore(config Config) (*Store, error) {
	if config.S3Endpoint == "" {
		return nil, &configError{"no object store is named: start the server with --s3-listen and set " + EnvS3Endpoint +
			" to the address that it prints as s3 (its credentials.env has it too), or copy the file into the bucket's folder on the server and import bucket:key"}
	}
	u, err := parseEndpoint(EnvS3Endpoint, config.S3Endpoint)
	if err != nil {
		return nil, &configError{err.Error()}
	}
	if config.AccessKey == "" || config.SecretKey == "" {
		return nil, &configError{"no keys for the object store: set " + EnvAccessKey + " and " + EnvSecretKey}
	}
	region := config.Region
	if region == "" {
		region = DefaultRegion
	}
	transport, err := minio.DefaultTransport(u.Scheme == "https")
	if err != nil {
		return nil, fmt.Errorf("set up the object store's client: %w", err)
	}
	transport.ResponseHeaderTimeout = joinTime
	if config.Authorities != nil && transport.TLSClientConfig != nil {
		transport.TLSClientConfig.RootCAs = config.Authorities
	}
	s3, err := minio.NewCore(u.Host, &minio.Options{
		Transport:    transport,
		Creds:        credentials.NewStaticV4(config.AccessKey, string(config.SecretKey), ""),
		Secure:       u.Scheme == "https",
		Region:       region,
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   storeRetries,
	})
	if err != nil {
		return nil, &configError{fmt.Sprintf("%s %q: %v", EnvS3Endpoint, config.S3Endpoint, err)}
	}
	return &Store{s3: s3, endpoint: u.String(), region: region}, nil
}

// Endpoint is the store's address, as scheme and host.
func (s *Store) Endpoint() string { return s.endpoint }

// EnsureBucket makes the bucket unless the caller can see it already.
func (s *Store) EnsureBucket(ctx context.Context, bucket string) (made bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("make sure of bucket "+bucket))
	defer cancel()
	there, err := s.s3.BucketExists(ctx, bucket)
	if err != nil {
		return false, s.fault(ctx, "HEAD "+bucket, err)
	}
	if there {
		return false, nil
	}
	err = s.s3.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: s.region})
	if minio.ToErrorResponse(err).Code == "BucketAlreadyOwnedByYou" {
		return false, nil // somebody of ours was quicker
	}
	if err != nil {
		return false, s.fault(ctx, "PUT "+bucket, err)
	}
	return true, nil
}

// Object is what is known of an object.
type Object struct {
	Bucket, Key string
	Size        int64 // bytes
	ETag        string
}

// Remove deletes an object. There being none is no error.
func (s *Store) Remove(ctx context.Context, bucket, key string) error {
	if err := s.s3.Client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return s.fault(ctx, "DELETE "+bucket+":"+key, err)
	}
	return nil
}

// Stat asks what an object is. That there is none, or not even its bucket, is an
// *Error with the code NoSuchKey or NoSuchBucket.
func (s *Store) Stat(ctx context.Context, bucket, key string) (Object, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("HEAD "+bucket+":"+key))
	defer cancel()
	info, err := s.s3.Client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return Object{}, s.missing(ctx, bucket, key, s.fault(ctx, "HEAD "+bucket+":"+key, err))
	}
	return Object{Bucket: bucket, Key: key, Size: info.Size, ETag: unquoted(info.ETag)}, nil
}

// missing says in place of err what it is that is not there, if that is what err means.
// An answer to HEAD has no body that could tell an object from a bucket.
func (s *Store) missing(ctx context.Context, bucket, key string, err error) error {
	answer, ok := errors.AsType[*Error](err)
	if !ok || answer.Status != http.StatusNotFound {
		return err
	}
	there, err := s.s3.BucketExists(ctx, bucket)
	switch {
	case err != nil:
		return s.fault(ctx, "HEAD "+bucket, err)
	case there:
		answer.Code, answer.Message = minio.NoSuchKey, fmt.Sprintf("there is no object %q in the bucket %s", key, bucket)
	default:
		answer.Code, answer.Message = minio.NoSuchBucket, fmt.Sprintf("there is no bucket %s", bucket)
	}
	return answer
}

// ReaderAt reads the object in ranges, one request each, and fails once it is no
// longer the same generation.
func (s *Store) ReaderAt(ctx context.Context, o Object) io.ReaderAt {
	return &objectReader{ctx: ctx, s: s, o: o}
}

type objectReader struct {
	ctx context.Context
	s   *Store
	o   Object
}

func (r *objectReader) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off < 0 || off >= r.o.Size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), r.o.Size-off)]
	var opts minio.GetObjectOptions
	if err := errors.Join(opts.SetRange(off, off+int64(len(want))-1), opts.SetMatchETag(r.o.ETag)); err != nil {
		return 0, err
	}
	what := "GET " + r.o.Bucket + ":" + r.o.Key
	ctx, cancel := context.WithTimeoutCause(r.ctx, lookTime, r.s.silent(what))
	defer cancel()
	body, _, _, err := r.s.s3.GetObject(ctx, r.o.Bucket, r.o.Key, opts)
	if err != nil {
		return 0, r.s.fault(ctx, what, err)
	}
	defer body.Close()
	n, err := io.ReadFull(body, want)
	if err != nil {
		return n, r.s.fault(ctx, what, err)
	}
	if len(want) < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// silent is the error for a look that has taken too long.
func (s *Store) silent(what string) error {
	return &unreachableError{what: what, endpoint: s.endpoint, err: fmt.Errorf("no answer in %v", lookTime)}
}

// fault says in our terms what S3 answered, or that it did not.
func (s *Store) fault(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if answer, ok := errors.AsType[minio.ErrorResponse](err); ok {
		e := &Error{Request: what, Status: answer.StatusCode, Code: answer.Code, Message: answer.Message, RequestID: answer.RequestID}
		if e.Message == "" {
			e.Message = fmt.Sprintf("the object store answered %d %s", e.Status, http.StatusText(e.Status))
		}
		return e
	}
	if inner, ok := errors.AsType[*url.Error](err); ok {
		return &unreachableError{what: what, endpoint: s.endpoint, err: inner.Err}
	}
	return fmt.Errorf("%s: %w", what, err)
}
