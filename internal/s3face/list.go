package s3face

import (
	"encoding/base64"
	"strings"

	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// maxKeys is the most keys and prefixes that one listing returns.
const maxKeys = 1000

// listing is what a listing of a bucket asks for and what it found.
type listing struct {
	prefix, delimiter, after string
	limit                    int
	encode                   bool // encoding-type=url

	objects   []*files.Object
	prefixes  []string
	truncated bool
	last      string // the last key or prefix found
}

// listing reads the parameters that all listings have.
func (q *request) listing(limitName string) (*listing, error) {
	l := &listing{prefix: q.query.Value("prefix"), delimiter: q.query.Value("delimiter")}
	var err error
	if l.limit, err = number(limitName, q.query.Value(limitName), maxKeys, maxKeys); err != nil {
		return nil, err
	}
	switch v := q.query.Value("encoding-type"); v {
	case "":
	case "url":
		l.encode = true
	default:
		return nil, wire.Errorf("InvalidArgument", "encoding-type is %.40q; it must be url.", v).With("ArgumentName", "encoding-type")
	}
	for _, name := range []string{"prefix", "delimiter", "marker", "start-after", "key-marker"} {
		if v := q.query.Value(name); strings.IndexByte(v, 0) >= 0 || !l.encode && !wire.XMLSafe(v) && !sendable(v) {
			return nil, wire.Errorf("InvalidArgument", "%s holds bytes that are no UTF-8; no key does.", name).With("ArgumentName", name)
		}
	}
	return l, nil
}

// sendable reports whether a response can echo s in some way.
func sendable(s string) bool { return strings.ToValidUTF8(s, "") == s }

// run looks for the keys. It holds at most a page of them.
func (l *listing) run(q *request) error {
	if l.limit == 0 {
		return nil
	}
	return q.b.Walk(q.ctx, l.prefix, l.after, func(key string, stat func() (*files.Object, error)) (string, bool, error) {
		if l.delimiter != "" {
			if i := strings.Index(key[len(l.prefix):], l.delimiter); i >= 0 {
				common := key[:len(l.prefix)+i+len(l.delimiter)]
				if strings.HasPrefix(l.after, common) {
					return common, true, nil // the page before has it
				}
				if l.full() {
					return "", false, nil
				}
				l.prefixes = append(l.prefixes, common)
				l.last = common
				return common, true, nil
			}
		}
		o, err := stat()
		if err != nil || o == nil {
			return "", true, err
		}
		if l.full() {
			return "", false, nil
		}
		l.objects = append(l.objects, o)
		l.last = key
		return "", true, nil
	})
}

// full notes that there is more when the page is full.
func (l *listing) full() bool {
	l.truncated = len(l.objects)+len(l.prefixes) == l.limit
	return l.truncated
}

// text is a key or a prefix as the document is to hold it.
func (l *listing) text(s string) string {
	if l.encode {
		return wire.Escape(s, true)
	}
	return s
}

func (l *listing) encoding() string {
	if l.encode {
		return "url"
	}
	return ""
}

func (l *listing) contents(owner *wire.Owner) []wire.Object {
	out := make([]wire.Object, 0, len(l.objects))
	for _, o := range l.objects {
		w := wire.Object{
			Key: l.text(o.Key), LastModified: wire.Time(o.ModTime), ETag: wire.ETag(o.ETag), Size: o.Size, StorageClass: "STANDARD", Owner: owner,
		}
		if o.Checksum != nil {
			w.ChecksumAlgorithm, w.ChecksumType = string(o.Checksum.Algorithm), string(o.Checksum.Type)
		}
		out = append(out, w)
	}
	return out
}

func (l *listing) commonPrefixes() []wire.CommonPrefix {
	out := make([]wire.CommonPrefix, 0, len(l.prefixes))
	for _, p := range l.prefixes {
		out = append(out, wire.CommonPrefix{Prefix: l.text(p)})
	}
	return out
}

func listObjects(q *request) error {
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	l.after = q.query.Value("marker")
	if err := l.run(q); err != nil {
		return err
	}
	owner, marker := q.owner(), l.text(l.after)
	out := wire.ListBucketResult{
		Name: q.bucket, Prefix: l.text(l.prefix), Marker: &marker, MaxKeys: l.limit, Delimiter: l.text(l.delimiter),
		IsTruncated: l.truncated, EncodingType: l.encoding(), Contents: l.contents(&owner), CommonPrefixes: l.commonPrefixes(),
	}
	if l.truncated && l.delimiter != "" {
		out.NextMarker = l.text(l.last)
	}
	return q.respond(out)
}

func listObjectsV2(q *request) error {
	if v := q.query.Value("list-type"); v != "2" {
		return wire.Errorf("InvalidArgument", "list-type is %.20q; it must be 2.", v).With("ArgumentName", "list-type")
	}
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	out := wire.ListBucketResult{Name: q.bucket, Prefix: l.text(l.prefix), MaxKeys: l.limit, Delimiter: l.text(l.delimiter), EncodingType: l.encoding()}
	if start, ok := q.query.Get("start-after"); ok {
		text := l.text(start)
		l.after, out.StartAfter = start, &text
	}
	if token, ok := q.query.Get("continuation-token"); ok {
		out.ContinuationToken = &token
		if token != "" {
			if l.after, ok = decodeToken(token); !ok {
				return wire.Errorf("InvalidArgument", "The continuation token provided is incorrect.").With("ArgumentName", "continuation-token")
			}
		}
	}
	var owner *wire.Owner
	switch v := q.query.Value("fetch-owner"); v {
	case "", "false":
	case "true":
		o := q.owner()
		owner = &o
	default:
		return wire.Errorf("InvalidArgument", "fetch-owner is %.20q; it must be true or false.", v).With("ArgumentName", "fetch-owner")
	}
	if err := l.run(q); err != nil {
		return err
	}
	count := len(l.objects) + len(l.prefixes)
	out.KeyCount, out.IsTruncated, out.Contents, out.CommonPrefixes = &count, l.truncated, l.contents(owner), l.commonPrefixes()
	if l.truncated {
		out.NextContinuationToken = encodeToken(l.last)
	}
	return q.respond(out)
}

// listVersions lists a bucket without versions: each object is its only one.
// Tools empty buckets with it.
func listVersions(q *request) error {
	l, err := q.listing("max-keys")
	if err != nil {
		return err
	}
	l.after = q.query.Value("key-marker")
	if err := l.run(q); err != nil {
		return err
	}
	out := wire.ListVersionsResult{
		Name: q.bucket, Prefix: l.text(l.prefix), KeyMarker: l.text(l.after), VersionIDMarker: q.query.Value("version-id-marker"),
		MaxKeys: l.limit, Delimiter: l.text(l.delimiter), IsTruncated: l.truncated, EncodingType: l.encoding(), CommonPrefixes: l.commonPrefixes(),
	}
	for _, o := range l.objects {
		out.Version = append(out.Version, wire.ObjectVersion{
			Key: l.text(o.Key), VersionID: "null", IsLatest: true, LastModified: wire.Time(o.ModTime), ETag: wire.ETag(o.ETag),
			Size: o.Size, StorageClass: "STANDARD", Owner: q.owner(),
		})
	}
	if l.truncated {
		out.NextKeyMarker, out.NextVersionIDMarker = l.text(l.last), "null"
	}
	return q.respond(out)
}

// A continuation token is the last key or prefix of the page, made opaque.

func encodeToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte("1" + last)) }

func decodeToken(token string) (string, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) == 0 || raw[0] != '1' {
		return "", false
	}
	return string(raw[1:]), true
}
