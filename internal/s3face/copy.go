package s3face

import (
	"context"
	"crypto/md5"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/s3face/checksum"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// maxCopySource is the size of the largest source of a copy in bytes: the
// largest disk file, twice. S3's own limit, 5 GiB, is for stores that must copy.
const maxCopySource = 2 << 40

// source is the open source of a copy.
type source struct {
	bucket, key string
	file        *os.File
	object      *files.Object
}

// openSource opens what x-amz-copy-source names: BUCKET/KEY, encoded as in a
// URL, with or without a slash before and a version behind. It may lie in any
// bucket of the caller's project.
func (q *request) openSource() (*source, error) {
	value := q.r.Header.Get("X-Amz-Copy-Source")
	path, query, hasQuery := strings.Cut(value, "?")
	name, ok := wire.Unescape(path, true)
	if !ok {
		return nil, wire.Errorf("InvalidArgument", "x-amz-copy-source is not well encoded: it must be BUCKET/KEY, encoded as in a URL.")
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if bucket == "" || key == "" {
		return nil, wire.Errorf("InvalidArgument", "x-amz-copy-source must be BUCKET/KEY, encoded as in a URL.").With("ArgumentName", "x-amz-copy-source")
	}
	if hasQuery && query != "versionId=null" && query != "versionId=" {
		return nil, wire.Err("NoSuchVersion")
	}
	b, err := q.openBucket(bucket)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if want := q.r.Header.Get("X-Amz-Source-Expected-Bucket-Owner"); want != "" && want != q.project {
		return nil, wire.Errorf("AccessDenied", "The source bucket's owner is not the one in x-amz-source-expected-bucket-owner.")
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	f, o, err := b.Open(key)
	if errors.Is(err, files.ErrNoObject) {
		return nil, wire.Err("NoSuchKey").With("Key", xmlText(key))
	}
	if err != nil {
		return nil, err
	}
	if v, name := readConditions(q.r.Header, "X-Amz-Copy-Source-").of(o); v != holds {
		f.Close()
		return nil, preconditionFailed("x-amz-copy-source-" + strings.ToLower(name))
	}
	if o.Size > maxCopySource {
		f.Close()
		return nil, wire.Errorf("EntityTooLarge", "The source has %d bytes; at most %d can be copied.", o.Size, int64(maxCopySource))
	}
	return &source{bucket, key, f, o}, nil
}

func copyObject(q *request) error {
	r, err := q.record()
	if err != nil {
		return err
	}
	replace := false
	switch v := q.r.Header.Get("X-Amz-Metadata-Directive"); v {
	case "", "COPY":
	case "REPLACE":
		replace = true
	default:
		return wire.Errorf("InvalidArgument", "x-amz-metadata-directive is %.20q; it must be COPY or REPLACE.", v)
	}
	switch v := q.r.Header.Get("X-Amz-Tagging-Directive"); v {
	case "", "COPY":
	default:
		return wire.Errorf("NotImplemented", "x-amz-tagging-directive %.20q is not offered: objects have no tags.", v)
	}
	var algorithm checksum.Algorithm
	if v := q.r.Header.Get("X-Amz-Checksum-Algorithm"); v != "" {
		var ok bool
		if algorithm, ok = checksum.Parse(v); !ok {
			return wire.Errorf("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: %v.", checksum.All)
		}
	}
	if err := q.noBody(); err != nil {
		return err
	}
	src, err := q.openSource()
	if err != nil {
		return err
	}
	if src.bucket == q.bucket && src.key == q.key && !replace && algorithm == "" {
		src.file.Close()
		return wire.Errorf("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, "+
			"storage class, website redirect location or encryption attributes.")
	}
	if !replace {
		r.Headers, r.Meta = src.object.Headers, src.object.Meta
	}
	condition := q.onWrite()
	return q.patiently(func(ctx context.Context) (any, error) {
		defer src.file.Close()
		o, err := q.copyTo(ctx, src, r, algorithm, condition)
		if err != nil {
			return nil, err
		}
		out := wire.CopyObjectResult{LastModified: wire.Time(o.ModTime), ETag: wire.ETag(o.ETag)}
		if c := o.Checksum; c != nil {
			*out.Field(string(c.Algorithm)), out.ChecksumType = c.Value, string(c.Type)
		}
		return out, nil
	})
}

// copyTo copies a source to the request's key. The copy has the source's ETag,
// if an upload left one, and its checksum, unless another one is wanted.
func (q *request) copyTo(ctx context.Context, src *source, r files.Record, algorithm checksum.Algorithm, condition files.Condition) (*files.Object, error) {
	t, err := q.b.Create()
	if err != nil {
		return nil, err
	}
	defer t.Discard()
	up, err := q.s.cfg.Allowance.BeginCopy(ctx, q.project, src.object.Size)
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { up.End(stored) }()
	if err := t.CopyRange(ctx, src.file, 0, src.object.Size); err != nil {
		return nil, err
	}
	if len(src.object.ETag) == 2*md5.Size || strings.Contains(src.object.ETag, "-") && src.object.Upload != "" {
		r.ETag = src.object.ETag
	}
	r.Checksum = src.object.Checksum
	if algorithm != "" && (r.Checksum == nil || r.Checksum.Algorithm != algorithm || r.Checksum.Type != checksum.FullObject) {
		sum := algorithm.New()
		if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, whileReader{ctx, io.NewSectionReader(src.file, 0, src.object.Size)}, make([]byte, copyBuffer)); err != nil {
			return nil, err
		}
		r.Checksum = &files.Checksum{Algorithm: algorithm, Type: checksum.FullObject, Value: checksum.Encode(sum.Sum(nil))}
	}
	if r.Checksum != nil && r.Checksum.Type == checksum.Composite {
		r.Checksum = nil // it is of parts that the copy does not have
	}
	o, err := t.Publish(q.key, &r, condition)
	stored = err == nil
	return o, err
}

// whileReader reads until a context ends.
type whileReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (w whileReader) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// noBody refuses a body where there should be none.
func (q *request) noBody() error {
	c, err := q.content(wire.MaxDocument, "")
	if err != nil {
		return err
	}
	if err := c.copyTo(io.Discard); err != nil {
		return err
	}
	if c.read > 0 {
		return wire.Errorf("InvalidRequest", "The request takes no body.")
	}
	return nil
}

// copyRange reads x-amz-copy-source-range: the bytes of the source that become
// a part.
func copyRange(header string, size int64) (start, length int64, err error) {
	if header == "" {
		return 0, size, nil
	}
	bad := wire.Errorf("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy.").
		With("ArgumentName", "x-amz-copy-source-range").With("ArgumentValue", xmlText(header))
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || !dash || err1 != nil || err2 != nil || from < 0 || to < from || first[0] == '+' || last[0] == '+' {
		return 0, 0, bad
	}
	if to >= size {
		return 0, 0, wire.Errorf("InvalidRange", "Range specified is not valid for source object of size: %d.", size)
	}
	return from, to - from + 1, nil
}
