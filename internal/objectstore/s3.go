package objectstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config says how to reach an S3-compatible store and where in it the image
// area is.
type S3Config struct {
	// Endpoint is the store's root URL, https://host[:port] or http://….
	Endpoint string
	// Region is what requests are signed for; default us-east-1.
	Region string
	// AccessKey and SecretKey are the service's own.
	AccessKey, SecretKey string
	// ImageBucket holds the image area, below ImagePrefix (empty, or ending in
	// a slash). It exists already and no caller can name it as a source.
	ImageBucket, ImagePrefix string
	// PathStyle puts the bucket's name into the path, where the store does not
	// serve it as a host name. Off, the client does what suits the endpoint.
	PathStyle bool
	// CAFile holds the PEM certificates that vouch for the endpoint, instead
	// of the system's; empty means the system's.
	CAFile string

	// SingleCopyLimit is the largest object, in bytes, that is copied in one
	// request; default and at most 5 GiB, S3's limit for CopyObject.
	SingleCopyLimit int64
	// CopyPartSize is the least size, in bytes, of a part that is copied in one
	// request of a larger object's; default 512 MiB, 5 MiB to 5 GiB as S3 has
	// it. Parts grow when there would be more than S3's 10,000 of them.
	CopyPartSize int64
	// CopyParallel is how many parts of one object are copied at a time;
	// default 8.
	CopyParallel int
}

// Limits of the S3 protocol ("Amazon S3 multipart upload limits").
const (
	s3MaxPart   = 5 << 30
	s3MinPart   = 5 << 20
	s3MaxParts  = 10000
	s3MaxObject = 5 << 40
)

// LogValue prints the configuration without its secret.
func (c S3Config) LogValue() slog.Value {
	return slog.GroupValue(slog.String("endpoint", c.Endpoint), slog.String("region", c.Region),
		slog.String("access_key", c.AccessKey), slog.String("image_bucket", c.ImageBucket), slog.String("image_prefix", c.ImagePrefix))
}

// String prints the configuration without its secret.
func (c S3Config) String() string {
	return fmt.Sprintf("%s as %s, images in %s/%s", c.Endpoint, c.AccessKey, c.ImageBucket, c.ImagePrefix)
}

// GoString keeps the secret out of %#v.
func (c S3Config) GoString() string { return c.String() }

func (c *S3Config) validate() (*url.URL, error) {
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https", u.User != nil, strings.Trim(u.Path, "/") != "", u.RawQuery != "":
		return nil, fmt.Errorf("endpoint %q: want https://host[:port]", c.Endpoint)
	case c.AccessKey == "" || c.SecretKey == "":
		return nil, errors.New("access key and secret key are needed")
	case c.ImagePrefix != "" && (!strings.HasSuffix(c.ImagePrefix, "/") || CheckKey(strings.TrimSuffix(c.ImagePrefix, "/")) != nil):
		return nil, fmt.Errorf("image prefix %q: want nothing or path/", c.ImagePrefix)
	}
	if err := CheckBucket(c.ImageBucket); err != nil {
		return nil, fmt.Errorf("image bucket: %w", err)
	}
	orDefault := func(v *int64, def, least, most int64, name string) error {
		if *v == 0 {
			*v = def
		}
		if *v < least || *v > most {
			return fmt.Errorf("%s %d: want %d to %d", name, *v, least, most)
		}
		return nil
	}
	parallel := int64(c.CopyParallel)
	err = errors.Join(
		orDefault(&c.SingleCopyLimit, s3MaxPart, 1, s3MaxPart, "single copy limit"),
		orDefault(&c.CopyPartSize, 512<<20, s3MinPart, s3MaxPart, "copy part size"),
		orDefault(&parallel, 8, 1, 64, "parallel copies"))
	c.CopyParallel = int(parallel)
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	return u, err
}

// S3 is the store behind an S3 endpoint. Reads are conditional by If-Match,
// adoption is a server-side copy conditional on the source's ETag. It does not
// retry: it says what is transient (ErrUnavailable), and Retry does.
type S3 struct {
	cfg        S3Config
	client     minio.Core
	transport  *http.Transport
	signatures signatures
	stall      time.Duration // see s3Stall
}

// OpenS3 makes the store ready. It does not speak to the endpoint;
// StatBucket(ctx, ImageArea) does.
func OpenS3(cfg S3Config) (*S3, error) {
	u, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("open the S3 store: %w", err)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("open the S3 store: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("open the S3 store: %s holds no PEM certificate", cfg.CAFile)
		}
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 10 * time.Second,
		// A server-side copy answers when it is done: of 5 GiB within minutes.
		ResponseHeaderTimeout: 10 * time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   32,
		DisableCompression:    true, // sizes and ranges are of the bytes as stored
	}
	lookup := minio.BucketLookupAuto
	if cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""),
		Secure:       u.Scheme == "https",
		Region:       cfg.Region,
		BucketLookup: lookup,
		Transport:    headerKeeper{transport},
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("open the S3 store: %w", err)
	}
	return &S3{cfg: cfg, client: *core, transport: transport, stall: s3Stall}, nil
}

// Close lets go of idle connections.
func (s *S3) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// headerKeeper leaves a response's header where keepHeader asked for it, and sends the
// condition of withMatch: the client library drops headers that it does not know, and
// deletes without a condition.
type headerKeeper struct{ http.RoundTripper }

type (
	headerKey struct{}
	matchKey  struct{}
)

// withMatch makes requests conditional on an ETag. The header is not signed, which S3
// asks of its own headers alone.
func withMatch(ctx context.Context, etag string) context.Context {
	return context.WithValue(ctx, matchKey{}, `"`+etag+`"`)
}

func keepHeader(ctx context.Context) (context.Context, *http.Header) {
	h := new(http.Header)
	return context.WithValue(ctx, headerKey{}, h), h
}

func (k headerKeeper) RoundTrip(req *http.Request) (*http.Response, error) {
	if etag, ok := req.Context().Value(matchKey{}).(string); ok {
		req = req.Clone(req.Context()) // it is the caller's
		req.Header.Set("If-Match", etag)
	}
	resp, err := k.RoundTripper.RoundTrip(req)
	if keep, ok := req.Context().Value(headerKey{}).(*http.Header); ok && err == nil {
		*keep = resp.Header.Clone()
	}
	return resp, err
}

// firstOf returns the value of the first header that is there.
func firstOf(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func classOr(class string) string {
	if class == "" {
		return ClassStandard
	}
	return class
}

// place returns the bucket and key that a location has in the store.
func (s *S3) place(loc Location) (bucket, key string, err error) {
	if loc.Bucket == s.cfg.ImageBucket {
		return "", "", ErrNoBucket
	}
	if err := checkSource(loc); err != nil {
		return "", "", err
	}
	if loc.Bucket == ImageArea {
		return s.cfg.ImageBucket, s.cfg.ImagePrefix + loc.Key, nil
	}
	return loc.Bucket, loc.Key, nil
}

// bucket returns the name that a bucket has in the store.
func (s *S3) bucket(name string) (string, error) {
	if name == ImageArea {
		return s.cfg.ImageBucket, nil
	}
	if name == s.cfg.ImageBucket {
		return "", ErrNoBucket
	}
	return name, CheckBucket(name)
}

// StatBucket implements Store.
func (s *S3) StatBucket(ctx context.Context, bucket string) (BucketInfo, error) {
	name, err := s.bucket(bucket)
	if err != nil {
		return BucketInfo{}, fail("stat bucket", Location{Bucket: bucket}, err)
	}
	hctx, h := keepHeader(ctx)
	there, err := s.client.BucketExists(hctx, name)
	if err == nil && !there {
		err = ErrNoBucket
	}
	if err != nil {
		return BucketInfo{}, fail("stat bucket", Location{Bucket: bucket}, classifyS3(ctx, err))
	}
	return BucketInfo{
		Name:   bucket,
		Class:  classOr(firstOf(*h, "X-Default-Storage-Class", "X-Obs-Storage-Class", "X-Amz-Storage-Class")),
		Region: firstOf(*h, "X-Amz-Bucket-Region", "X-Obs-Bucket-Location"),
	}, nil
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, loc Location) (ObjectInfo, error) {
	info, err := s.stat(ctx, loc, Condition{})
	return info, fail("stat", loc, err)
}

func (s *S3) stat(ctx context.Context, loc Location, cond Condition) (ObjectInfo, error) {
	bucket, key, err := s.place(loc)
	if err != nil {
		return ObjectInfo{}, err
	}
	opts, err := s3Condition(cond)
	if err != nil {
		return ObjectInfo{}, err
	}
	hctx, h := keepHeader(ctx)
	got, err := s.client.StatObject(hctx, bucket, key, opts)
	if err != nil {
		err = classifyS3(ctx, err)
		if errors.Is(err, ErrNotFound) { // the answer to HEAD has no body that tells what is missing
			if there, berr := s.client.BucketExists(ctx, bucket); berr == nil && !there {
				err = ErrNoBucket
			}
		}
		return ObjectInfo{}, err
	}
	info := ObjectInfo{
		Size: got.Size, ETag: got.ETag, Version: got.VersionID, ModTime: got.LastModified,
		Class: classOr(firstOf(*h, "X-Obs-Storage-Class", "X-Amz-Storage-Class")),
	}
	switch {
	case info.Size < 0:
		return info, errors.New("the store does not tell the object's size")
	case info.ETag == "":
		return info, errors.New("the store gives the object no ETag, so that no read of it can be conditional")
	}
	return info, checkGeneration(cond, info.ETag)
}

// checkGeneration finds a store that ignores conditions.
func checkGeneration(cond Condition, etag string) error {
	if cond.ETag != "" && cond.ETag != etag {
		return fmt.Errorf("%w: its ETag is %.80s, not %.80s", ErrChanged, etag, cond.ETag)
	}
	return nil
}

func s3Condition(cond Condition) (minio.GetObjectOptions, error) {
	opts := minio.GetObjectOptions{VersionID: cond.Version}
	if cond.ETag == "" {
		return opts, nil
	}
	return opts, opts.SetMatchETag(cond.ETag)
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error) {
	body, err := s.open(ctx, loc, cond, off, n)
	if err != nil {
		return nil, fail("open", loc, err)
	}
	return body, nil
}

func (s *S3) open(ctx context.Context, loc Location, cond Condition, off, n int64) (io.ReadCloser, error) {
	if err := checkRange(off, n); err != nil {
		return nil, err
	}
	bucket, key, err := s.place(loc)
	if err != nil {
		return nil, err
	}
	if n == 0 { // no HTTP range is empty
		if _, err := s.stat(ctx, loc, cond); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	opts, err := s3Condition(cond)
	if err == nil {
		err = opts.SetRange(off, off+n-1)
	}
	if err != nil {
		return nil, err
	}
	rctx, cancel := context.WithCancelCause(ctx)
	resp, err := s.get(rctx, s3Object{bucket, key, cond.Version}, opts.Header())
	if err != nil {
		cancel(nil)
		return nil, classifyS3(ctx, err)
	}
	promised, err := rangeGiven(resp.Header, off, n)
	if err == nil {
		err = checkGeneration(cond, strings.Trim(resp.Header.Get("ETag"), `"`))
	}
	if err != nil {
		cancel(nil)
		resp.Body.Close()
		return nil, err
	}
	return &s3Body{ctx: rctx, outer: ctx, cancel: cancel, loc: loc, body: resp.Body, stall: s.stall, left: n, promised: promised}, nil
}

// rangeGiven returns how many bytes a response to a ranged GET holds, and an
// error unless they are the beginning of the range asked for.
func rangeGiven(h http.Header, off, n int64) (int64, error) {
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || length < 0 || length > n {
		return 0, fmt.Errorf("the store answers a read of %d bytes with Content-Length %.40q", n, h.Get("Content-Length"))
	}
	given := h.Get("Content-Range")
	if given == "" && off == 0 {
		return length, nil // the whole object, in a store that makes nothing of a range that covers it
	}
	first, _, ok := strings.Cut(strings.TrimPrefix(given, "bytes "), "-")
	if start, err := strconv.ParseInt(first, 10, 64); !ok || err != nil || start != off {
		return 0, fmt.Errorf("the store answers a read from %d with Content-Range %.80q", off, given)
	}
	return length, nil
}

// s3Stall is how long a response may bring nothing before its connection
// counts as dead.
const s3Stall = time.Minute

var errStalled = fmt.Errorf("%w: the response stalled", ErrUnavailable)

// s3Body reads a response and holds it to its promise.
type s3Body struct {
	ctx, outer     context.Context
	cancel         context.CancelCauseFunc
	loc            Location
	body           io.ReadCloser
	stall          time.Duration
	left, promised int64 // bytes to come: asked for, and announced by the response
	err            error
}

func (b *s3Body) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.left == 0:
		return 0, io.EOF
	case b.promised == 0:
		b.err = fail("read", b.loc, io.ErrUnexpectedEOF)
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	stall := time.AfterFunc(b.stall, func() { b.cancel(errStalled) })
	n, err := b.body.Read(p[:min(int64(len(p)), b.promised)])
	stall.Stop()
	b.left -= int64(n)
	b.promised -= int64(n)
	switch {
	case err == nil, b.promised == 0:
		return n, nil
	case errors.Is(context.Cause(b.ctx), errStalled):
		err = errStalled
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: the connection was cut: %w", ErrUnavailable, io.ErrUnexpectedEOF)
	default:
		err = classifyS3(b.outer, err)
	}
	b.err = fail("read", b.loc, err)
	return n, b.err
}

func (b *s3Body) Close() error {
	b.cancel(nil) // first: closing would read on to keep the connection
	return b.body.Close()
}

// List implements Store.
func (s *S3) List(ctx context.Context, bucket, prefix, after string, limit int) ([]ListedObject, error) {
	found, err := s.list(ctx, bucket, prefix, after, limit)
	return found, fail("list", Location{Bucket: bucket, Key: prefix}, err)
}

func (s *S3) list(ctx context.Context, bucket, prefix, after string, limit int) ([]ListedObject, error) {
	if limit < 1 || limit > MaxList {
		return nil, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, limit, MaxList)
	}
	name, err := s.bucket(bucket)
	if err != nil {
		return nil, err
	}
	root := ""
	if bucket == ImageArea {
		root = s.cfg.ImagePrefix
	}
	opts := minio.ListObjectsOptions{Prefix: root + prefix, Recursive: true, MaxKeys: limit}
	if after != "" {
		opts.StartAfter = root + after
	}
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found []ListedObject
	for o := range s.client.ListObjectsIter(lctx, name, opts) {
		if o.Err != nil {
			return nil, classifyS3(ctx, o.Err)
		}
		key := strings.TrimPrefix(o.Key, root)
		if key <= after || CheckKey(key) != nil || reservedKey(Location{bucket, key}) {
			continue // what cannot be named is not listed
		}
		found = append(found, ListedObject{Key: key, ObjectInfo: ObjectInfo{
			Size: o.Size, ETag: o.ETag, Version: o.VersionID, Class: classOr(o.StorageClass), ModTime: o.LastModified,
		}})
		if len(found) == limit {
			break
		}
	}
	return found, ctx.Err()
}
