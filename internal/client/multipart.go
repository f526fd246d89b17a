package client

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

// Bounds of an upload in parts. S3 takes 10,000 parts of 5 MiB to 5 GiB, the last
// may be smaller ("Amazon S3 multipart upload limits").
const (
	maxParts = 10_000
	// leastPart is what a part has unless the object needs larger ones: large enough
	// that a request's own time does not count, small enough that a cut costs little.
	leastPart = 8 << 20
	// partGrain is what part sizes are multiples of.
	partGrain = 1 << 20
	// senders is how many parts are sent at once.
	senders = 4
	// listPage is how many parts or uploads one listing asks for, S3's most.
	listPage = 1000
	// maxUploads is how many unfinished uploads of one key are looked at.
	maxUploads = 10_000
	// damagedTries is how often a part is sent that the store takes for damaged.
	damagedTries = 3
	// abortTime is how long giving up an upload may take.
	abortTime = 30 * time.Second

	contentType = "application/octet-stream"
	// emptySHA256 is the SHA-256 of no bytes.
	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// settleTimes are the pauses in which a store ends its work on requests that were
// cut off.
var settleTimes = [...]time.Duration{200 * time.Millisecond, 800 * time.Millisecond}

// ErrDamaged is wrapped by the error of an upload whose bytes did not arrive as they
// were sent. Nothing of it is left.
var ErrDamaged = errors.New("what arrived is not what was sent")

// ErrNoUpload is the error of a request for an upload that the store does not know, or
// no longer knows: it was completed or aborted.
var ErrNoUpload = errors.New("the store has no such upload")

// partSize is the size of the parts of an object of size bytes, which depends on
// nothing else: a later run has the same parts.
func partSize(size int64) int64 {
	least := (size + maxParts - 1) / maxParts
	return max(leastPart, (least+partGrain-1)/partGrain*partGrain)
}

// sum is the MD5 of a part, which S3 calls its ETag. It guards against damage, not
// against malice.
type sum [md5.Size]byte

func (s sum) etag() string   { return hex.EncodeToString(s[:]) }
func (s sum) header() string { return base64.StdEncoding.EncodeToString(s[:]) }

// sumOf reads all of r.
func sumOf(r io.Reader) (sum, error) {
	h := md5.New()
	if _, err := io.CopyBuffer(h, onlyReader{r}, make([]byte, 256<<10)); err != nil {
		return sum{}, err
	}
	return sum(h.Sum(nil)), nil
}

// onlyReader hides what else a reader can do, so that a copy uses its buffer.
type onlyReader struct{ io.Reader }

// upload is an upload in parts that was begun.
type upload struct {
	s           *Store
	bucket, key string
	id          string
}

func (u *upload) String() string { return u.bucket + ":" + u.key }

// begin begins an upload in parts.
func (s *Store) begin(ctx context.Context, bucket, key string) (*upload, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent("POST "+bucket+":"+key))
	defer cancel()
	id, err := s.s3.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{ContentType: contentType})
	if err != nil {
		return nil, s.fault(ctx, "POST "+bucket+":"+key, err)
	}
	return &upload{s, bucket, key, id}, nil
}

// put sends a part and makes sure that it arrived. open begins its bytes anew.
// progress hears of every byte that is read, less those that are sent again. clean
// reports that no request was cut off, one that may still read what open gave.
func (u *upload) put(ctx context.Context, number int, open func() *io.SectionReader, want sum, progress func(int)) (clean bool, err error) {
	what := "PUT " + u.String() + " part " + strconv.Itoa(number)
	etag, clean, err := u.s.send(ctx, what, open, progress, func(b io.Reader, size int64) (string, error) {
		got, err := u.s.s3.PutObjectPart(ctx, u.bucket, u.key, u.id, number, b, size, minio.PutObjectPartOptions{Md5Base64: want.header()})
		return got.ETag, err
	})
	if err == nil {
		err = arrived(what, etag, want.etag())
	}
	return clean, err
}

// send sends a body, up to damagedTries times if the store takes it for damaged,
// which it then has thrown away.
func (s *Store) send(ctx context.Context, what string, open func() *io.SectionReader, progress func(int), request func(io.Reader, int64) (etag string, err error)) (etag string, clean bool, err error) {
	clean = true
	for try := 1; ; try++ {
		b := open()
		counted := &countedBody{body: b, progress: progress}
		etag, err = request(counted, b.Size())
		clean = clean && err == nil && !counted.rewound()
		if err == nil {
			return unquoted(etag), clean, nil
		}
		err = s.fault(ctx, what, err)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "BadDigest" {
			return "", false, err
		}
		if try == damagedTries {
			return "", false, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		counted.takeBack()
	}
}

// arrived compares the store's MD5 with ours.
func arrived(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s: %w: the store's MD5 is %q, the sender's %q", what, ErrDamaged, got, want)
	}
	return nil
}

// part is one that the store has.
type part struct {
	size int64
	etag string
}

// parts lists what the store has. The error wraps ErrNoUpload if there is no such
// upload.
func (u *upload) parts(ctx context.Context) (map[int]part, error) {
	what := "GET " + u.String() + " parts"
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, u.s.silent(what))
	defer cancel()
	there := make(map[int]part)
	for marker := 0; ; {
		page, err := u.s.s3.ListObjectParts(ctx, u.bucket, u.key, u.id, marker, listPage)
		if minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
			return nil, fmt.Errorf("%s: %w", what, ErrNoUpload)
		}
		if err != nil {
			return nil, u.s.fault(ctx, what, err)
		}
		for _, p := range page.ObjectParts {
			if p.PartNumber >= 1 && p.PartNumber <= maxParts {
				there[p.PartNumber] = part{p.Size, unquoted(p.ETag)}
			}
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return there, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// unquoted is an ETag as it is compared.
func unquoted(etag string) string {
	if n := len(etag); n >= 2 && etag[0] == '"' && etag[n-1] == '"' {
		return etag[1 : n-1]
	}
	return etag
}

// composite is the ETag that S3 gives to an object of these parts: the MD5 of their
// MD5s and their number.
func composite(sums []sum) string {
	h := md5.New()
	for _, s := range sums {
		h.Write(s[:])
	}
	return hex.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(sums))
}

// complete makes the object of the parts and checks that it is what was sent; if it
// is not, it is removed.
func (u *upload) complete(ctx context.Context, sums []sum, size int64) (Object, error) {
	what := "POST " + u.String()
	list := make([]minio.CompletePart, len(sums))
	for i, s := range sums {
		list[i] = minio.CompletePart{PartNumber: i + 1, ETag: s.etag()}
	}
	info, err := u.s.s3.CompleteMultipartUpload(ctx, u.bucket, u.key, u.id, list, minio.PutObjectOptions{})
	if err != nil {
		err = u.s.fault(ctx, what, err)
		if e, ok := errors.AsType[*Error](err); ok && e.Code == "InvalidPart" {
			return Object{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return Object{}, err
	}
	made := Object{Bucket: u.bucket, Key: u.key, Size: size, ETag: composite(sums)}
	if err := arrived(what, unquoted(info.ETag), made.ETag); err != nil {
		return Object{}, u.s.spoiled(ctx, made, err)
	}
	return made, u.s.check(ctx, made)
}

// check makes sure that an object that was made is what was sent. One that is not is
// removed.
func (s *Store) check(ctx context.Context, made Object) error {
	what := "PUT " + made.Bucket + ":" + made.Key
	there, err := s.Stat(ctx, made.Bucket, made.Key)
	switch {
	case err != nil:
		return err
	case unquoted(there.ETag) != made.ETag:
		return fmt.Errorf("%s: somebody else wrote to it at the same time: its ETag is %q, not %q", what, there.ETag, made.ETag)
	case there.Size != made.Size:
		return s.spoiled(ctx, made, fmt.Errorf("%s: %w: it has %d bytes, not %d", what, ErrDamaged, there.Size, made.Size))
	}
	return nil
}

// spoiled removes an object that is not what was sent.
func (s *Store) spoiled(ctx context.Context, made Object, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	if left := s.Remove(ctx, made.Bucket, made.Key); left != nil {
		return fmt.Errorf("%w; it can't be removed: %w", err, left)
	}
	return err
}

// abort gives the upload up, even if ctx has ended. There being none is no error.
func (u *upload) abort(ctx context.Context) error {
	what := "DELETE " + u.String()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), abortTime, u.s.silent(what))
	defer cancel()
	err := u.s.s3.AbortMultipartUpload(ctx, u.bucket, u.key, u.id)
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
		return u.s.fault(ctx, what, err)
	}
	return nil
}

// abortAfterCut is abort when requests of ours were cut off: the store may still be at
// work on a part, which then comes after the end. S3's description of the operation asks
// for it to be repeated then.
func (u *upload) abortAfterCut(ctx context.Context) error {
	for _, pause := range settleTimes {
		if err := u.abort(ctx); err != nil {
			return err
		}
		if err := sleep(context.WithoutCancel(ctx), pause); err != nil {
			return err
		}
	}
	return u.abort(ctx)
}

// Unfinished are the ids of the uploads in parts of a key that were begun and
// neither completed nor given up, the newest first.
func (s *Store) Unfinished(ctx context.Context, bucket, key string) ([]string, error) {
	what := "GET " + bucket + " uploads of " + key
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, s.silent(what))
	defer cancel()
	var found []minio.ObjectMultipartInfo
	keyMarker, idMarker := "", ""
	for {
		page, err := s.s3.ListMultipartUploads(ctx, bucket, key, keyMarker, idMarker, "", listPage)
		if err != nil {
			return nil, s.fault(ctx, what, err)
		}
		for _, u := range page.Uploads {
			if u.Key == key && len(found) < maxUploads {
				found = append(found, u)
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			break
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
	slices.SortStableFunc(found, func(a, b minio.ObjectMultipartInfo) int { return b.Initiated.Compare(a.Initiated) })
	ids := make([]string, len(found))
	for i, u := range found {
		ids[i] = u.UploadID
	}
	return ids, nil
}

// Abandon gives an unfinished upload up: its parts are removed. There being none is
// no error.
func (s *Store) Abandon(ctx context.Context, bucket, key, id string) error {
	return (&upload{s, bucket, key, id}).abort(ctx)
}

// putWhole sends an object in one request.
func (s *Store) putWhole(ctx context.Context, bucket, key string, open func() *io.SectionReader, want sum, progress func(int)) (Object, error) {
	what := "PUT " + bucket + ":" + key
	made := Object{Bucket: bucket, Key: key, Size: open().Size(), ETag: want.etag()}
	etag, _, err := s.send(ctx, what, open, progress, func(b io.Reader, size int64) (string, error) {
		opts, sha := minio.PutObjectOptions{ContentType: contentType}, ""
		if size == 0 {
			// Signed piece by piece, as larger ones are, it would be one last piece, which
			// some stores leave unread: it then spoils the next request.
			opts.DisableContentSha256, sha = true, emptySHA256
		}
		info, err := s.s3.PutObject(ctx, bucket, key, b, size, want.header(), sha, opts)
		return info.ETag, err
	})
	if err != nil {
		return Object{}, err
	}
	if err := arrived(what, etag, made.ETag); err != nil {
		return Object{}, s.spoiled(ctx, made, err)
	}
	return made, s.check(ctx, made)
}

// countedBody tells how much of a body was read. One that is begun anew takes back
// what it told. The HTTP client may still read for a request that was cut off while
// the next one begins, so it has a lock.
type countedBody struct {
	mu       sync.Mutex
	body     io.ReadSeeker
	progress func(int)
	told     int
	again    bool
}

func (c *countedBody) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.body.Read(p)
	c.told += n
	if c.progress != nil && n > 0 {
		c.progress(n)
	}
	return n, err
}

func (c *countedBody) Seek(offset int64, whence int) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, err := c.body.Seek(offset, whence)
	if err == nil && at == 0 && c.told > 0 {
		c.again = true
		c.untell()
	}
	return at, err
}

func (c *countedBody) untell() {
	if c.progress != nil {
		c.progress(-c.told)
	}
	c.told = 0
}

// takeBack takes back what was told: it will be read from another body.
func (c *countedBody) takeBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untell()
}

// rewound reports whether it was begun anew.
func (c *countedBody) rewound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.again
}
