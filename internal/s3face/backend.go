package s3face

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/buckets"
	"github.com/quickims/quickims/internal/objectstore"
)

// gated is the back end that versitygw sees: the operations that the S3 face
// offers, each behind the question who owns the bucket. What is not written
// here is answered "not implemented": versioning, locks, policies, tags of
// objects and the rest.
//
// Tags, retention and the like are left out for a reason of their own: they
// would change the inode of an object, which may be an image's too by now (see
// objectstore.Dir), and its readers would take that for a stranger's hand.
type gated struct {
	backend.BackendUnsupported
	files  *posix.Posix
	root   string // absolute
	keeper *buckets.Keeper
	meta   metadata
}

var _ backend.Backend = (*gated)(nil)

// ownerTimeout bounds what is asked of the buckets' keeper. The request's own context is not
// used: the HTTP library gives it to another request afterwards. So it does with
// the memory of a request's strings, which is why whatever goes to the keeper or
// Accounts, who may keep it, is cloned.
const ownerTimeout = 10 * time.Second

func ownerContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), ownerTimeout)
}

type access bool

const (
	toRead  access = false
	toWrite access = true
)

var (
	errDenied  = s3err.GetAPIError(s3err.ErrAccessDenied)
	errNoKey   = s3err.GetAPIError(s3err.ErrNoSuchKey)
	errNotHere = s3err.GetAPIError(s3err.ErrNotImplemented)
)

func noBucket(name string) error { return s3err.GetBucketErr(s3err.ErrNoSuchBucket, name) }

// caller returns the project that a request was signed for.
func caller(ctx context.Context) (auth.Account, error) {
	account, ok := ctx.Value("account").(auth.Account) // set by versitygw
	if !ok || account.Access == "" {
		return account, errDenied
	}
	return account, nil
}

// ownerOf returns the project that a bucket belongs to, "" if none.
func (b *gated) ownerOf(bucket string) (string, error) {
	ctx, cancel := ownerContext()
	defer cancel()
	owner, err := b.keeper.Owner(ctx, strings.Clone(bucket))
	if errors.Is(err, buckets.ErrNotFound) {
		return "", nil
	}
	return owner, err
}

// allow returns nil when the caller may use the bucket. Another's bucket, and
// nobody's, is answered like one that does not exist.
func (b *gated) allow(ctx context.Context, bucket *string, to access) error {
	account, err := caller(ctx)
	if err != nil {
		return err
	}
	if bucket == nil || objectstore.CheckBucket(*bucket) != nil {
		return noBucket("")
	}
	owner, err := b.ownerOf(*bucket)
	if err != nil {
		return err
	}
	if owner == "" || owner != account.Access {
		return noBucket(*bucket)
	}
	if to == toWrite && account.Role != roleWriter {
		return errDenied
	}
	fi, err := os.Lstat(filepath.Join(b.root, *bucket))
	if err != nil || !fi.IsDir() {
		return noBucket(*bucket)
	}
	return nil
}

// allowKey is allow for an object. A key whose path in the folder is not the
// key itself is refused, and so is one whose path meets a symbolic link or ends
// at something that is neither file nor folder. Whoever can put a link into a
// bucket's folder at the right moment can get around this; S3 clients cannot.
func (b *gated) allowKey(ctx context.Context, bucket, key *string, to access) error {
	if err := b.allow(ctx, bucket, to); err != nil {
		return err
	}
	if key == nil {
		return errNoKey
	}
	name := strings.TrimSuffix(*key, "/") // S3 clients make folders so
	if objectstore.CheckKey(name) != nil || objectstore.ReservedKey(name) {
		return s3err.GetAPIError(s3err.ErrBadRequest)
	}
	path := filepath.Join(b.root, *bucket)
	parts := strings.Split(name, "/")
	for i, part := range parts {
		path = filepath.Join(path, part)
		fi, err := os.Lstat(path)
		if err != nil {
			return nil // absent: as the back end finds
		}
		last := i == len(parts)-1 && name == *key // of a folder, nothing is
		if !fi.IsDir() && !(last && fi.Mode().IsRegular()) && !(last && to == toWrite) {
			if fi.Mode().IsRegular() { // a file where a folder is wanted: the back end says it well
				return nil
			}
			return errNoKey
		}
	}
	return nil
}

// hidden reports whether a prefix leads to where there are no objects: out of
// the bucket, through a symbolic link, or to uploads under way. The back end
// starts at the folder that a prefix names, and follows links there.
func (b *gated) hidden(bucket string, prefix *string) bool {
	if prefix == nil {
		return false
	}
	i := strings.LastIndexByte(*prefix, '/')
	if i < 0 {
		return false
	}
	folder := (*prefix)[:i]
	if objectstore.CheckKey(folder) != nil || objectstore.ReservedKey(folder) {
		return true
	}
	path := filepath.Join(b.root, bucket)
	for part := range strings.SplitSeq(folder, "/") {
		path = filepath.Join(path, part)
		fi, err := os.Lstat(path)
		if err != nil {
			return false // absent: so the back end finds
		}
		if !fi.IsDir() {
			return true
		}
	}
	return false
}

// String implements backend.Backend.
func (b *gated) String() string { return "directory store" }

// NormalizeObjectKey implements backend.Backend.
func (b *gated) NormalizeObjectKey(bucket, object string) string {
	return b.files.NormalizeObjectKey(bucket, object)
}

// ListBuckets returns the caller's buckets, each of which has a folder.
func (b *gated) ListBuckets(ctx context.Context, in s3response.ListBucketsInput) (s3response.ListAllMyBucketsResult, error) {
	account, err := caller(ctx)
	if err != nil {
		return s3response.ListAllMyBucketsResult{}, err
	}
	out := s3response.ListAllMyBucketsResult{Owner: s3response.CanonicalUser{ID: account.Access}, Prefix: in.Prefix}
	entries, err := os.ReadDir(b.root) // sorted
	if err != nil {
		return out, err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || objectstore.CheckBucket(name) != nil || !strings.HasPrefix(name, in.Prefix) || name <= in.ContinuationToken {
			continue
		}
		owner, err := b.ownerOf(name)
		if err != nil {
			return out, err
		}
		if owner != account.Access {
			continue
		}
		if n := len(out.Buckets.Bucket); n > 0 && n == int(in.MaxBuckets) {
			out.ContinuationToken = out.Buckets.Bucket[n-1].Name
			break
		}
		fi, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		out.Buckets.Bucket = append(out.Buckets.Bucket, s3response.ListAllMyBucketsEntry{Name: name, CreationDate: fi.ModTime()})
	}
	return out, nil
}

// HeadBucket implements backend.Backend.
func (b *gated) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	if err := b.allow(ctx, in.Bucket, toRead); err != nil {
		return nil, err
	}
	return &s3.HeadBucketOutput{}, nil
}

// GetBucketAcl answers what versitygw asks before nearly every operation: who
// owns the bucket. Nothing is stored; the keeper knows.
func (b *gated) GetBucketAcl(ctx context.Context, in *s3.GetBucketAclInput) ([]byte, error) {
	if err := b.allow(ctx, in.Bucket, toRead); err != nil {
		return nil, err
	}
	account, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(auth.ACL{Owner: account.Access, Grantees: []auth.Grantee{
		{Permission: auth.PermissionFullControl, Access: account.Access, Type: types.TypeCanonicalUser},
	}})
}

// CreateBucket claims a name for the caller's project and makes its folder. A
// folder that is there already and belongs to nobody is the operator's, and
// nobody's to claim over S3.
func (b *gated) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, _ []byte) error {
	account, err := caller(ctx)
	if err != nil {
		return err
	}
	bucket := strings.Clone(*in.Bucket)
	switch {
	case account.Role != roleWriter:
		return errDenied
	case objectstore.CheckBucket(bucket) != nil:
		return s3err.GetBucketErr(s3err.ErrInvalidBucketName, bucket)
	case in.ObjectLockEnabledForBucket != nil && *in.ObjectLockEnabledForBucket,
		in.CreateBucketConfiguration != nil && len(in.CreateBucketConfiguration.Tags) > 0:
		return errNotHere
	}
	octx, cancel := ownerContext()
	defer cancel()
	err = b.keeper.Make(octx, bucket, account.Access)
	switch {
	case errors.Is(err, buckets.ErrExists):
		return s3err.GetBucketErr(s3err.ErrBucketAlreadyOwnedByYou, bucket)
	case errors.Is(err, buckets.ErrTaken):
		return s3err.GetBucketErr(s3err.ErrBucketAlreadyExists, bucket)
	}
	return fullDisk(err)
}

func fullDisk(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return s3err.GetAPIError(s3err.ErrNoSpaceLeftOnDevice)
	}
	return err
}

// DeleteBucket removes an empty bucket, with its unfinished uploads.
func (b *gated) DeleteBucket(ctx context.Context, bucket string) error {
	account, err := caller(ctx)
	if err != nil {
		return err
	}
	// Not allow: a bucket whose folder is gone has a name to give back.
	owner, err := b.ownerOf(bucket)
	switch {
	case err != nil:
		return err
	case owner != account.Access:
		return noBucket(bucket)
	case account.Role != roleWriter:
		return errDenied
	}
	octx, cancel := ownerContext()
	defer cancel()
	bucket = strings.Clone(bucket)
	err = b.keeper.Remove(octx, bucket, account.Access)
	switch {
	case errors.Is(err, buckets.ErrNotFound):
		return noBucket(bucket)
	case errors.Is(err, buckets.ErrNotEmpty):
		return s3err.GetBucketErr(s3err.ErrBucketNotEmpty, bucket)
	case errors.Is(err, buckets.ErrBusy):
		return s3err.GetAPIError(s3err.ErrSlowDown)
	}
	return err
}

// What a bucket never has. versitygw asks for the first three on its own
// account, before it knows the caller.

// GetBucketPolicy implements backend.Backend.
func (b *gated) GetBucketPolicy(_ context.Context, bucket string) ([]byte, error) {
	return nil, s3err.GetBucketErr(s3err.ErrNoSuchBucketPolicy, bucket)
}

// GetBucketCors implements backend.Backend.
func (b *gated) GetBucketCors(_ context.Context, bucket string) ([]byte, error) {
	return nil, s3err.GetBucketErr(s3err.ErrNoSuchCORSConfiguration, bucket)
}

// GetObjectLockConfiguration implements backend.Backend.
func (b *gated) GetObjectLockConfiguration(_ context.Context, bucket string) ([]byte, error) {
	return nil, s3err.GetAPIError(s3err.ErrObjectLockConfigurationNotFound)
}

// GetBucketVersioning implements backend.Backend.
func (b *gated) GetBucketVersioning(ctx context.Context, bucket string) (s3response.GetBucketVersioningOutput, error) {
	return s3response.GetBucketVersioningOutput{}, b.allow(ctx, &bucket, toRead)
}

// GetBucketTagging implements backend.Backend.
func (b *gated) GetBucketTagging(ctx context.Context, bucket string) (map[string]string, error) {
	if err := b.allow(ctx, &bucket, toRead); err != nil {
		return nil, err
	}
	return nil, s3err.GetBucketErr(s3err.ErrBucketTaggingNotFound, bucket)
}

// GetBucketOwnershipControls implements backend.Backend: there are no ACLs.
func (b *gated) GetBucketOwnershipControls(ctx context.Context, bucket string) (types.ObjectOwnership, error) {
	return types.ObjectOwnershipBucketOwnerEnforced, b.allow(ctx, &bucket, toRead)
}
