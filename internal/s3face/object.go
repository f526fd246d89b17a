package s3face

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/checksum"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// maxMetadata is S3's limit for the names and values of user metadata, in bytes.
const maxMetadata = 2 << 10

// record reads what the headers say of an object that is to be stored.
func (q *request) record() (files.Record, error) {
	var r files.Record
	h := q.r.Header
	if err := q.storeOptions(); err != nil {
		return r, err
	}
	for _, name := range files.HeaderNames {
		value := strings.Join(h.Values(name), ",")
		if name == "Content-Encoding" {
			value = withoutChunking(value)
		}
		r.Headers.Set(name, value)
	}
	size := 0
	for name, values := range h {
		lower, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-")
		if !ok {
			continue
		}
		if lower == "" {
			return r, wire.Errorf("InvalidArgument", "The header x-amz-meta- has no name behind it.")
		}
		value := strings.Join(values, ",")
		size += len(lower) + len(value)
		r.Meta = append(r.Meta, files.NewMeta(lower, value))
	}
	if size > maxMetadata {
		return r, wire.Err("MetadataTooLarge").With("Size", strconv.Itoa(size)).With("MaxSizeAllowed", strconv.Itoa(maxMetadata))
	}
	return r, nil
}

// storeOptions refuses what an upload asks for and the store does not have.
func (q *request) storeOptions() error {
	h := q.r.Header
	if class := h.Get("X-Amz-Storage-Class"); class != "" && class != "STANDARD" {
		return wire.Errorf("InvalidStorageClass", "The storage class %.40q is not offered; it must be STANDARD.", class)
	}
	switch acl := h.Get("X-Amz-Acl"); acl {
	case "", "private", "bucket-owner-full-control", "bucket-owner-read":
	default:
		return wire.Errorf("AccessControlListNotSupported", "The ACL %.40q is not offered: a bucket and its objects belong to one project.", acl)
	}
	return nil
}

// withoutChunking takes aws-chunked out of a list of encodings: it is how a body
// was sent, never what an object is.
func withoutChunking(encodings string) string {
	if !strings.Contains(strings.ToLower(encodings), "aws-chunked") {
		return encodings
	}
	var keep []string
	for e := range strings.SplitSeq(encodings, ",") {
		if e = strings.TrimSpace(e); e != "" && !strings.EqualFold(e, "aws-chunked") {
			keep = append(keep, e)
		}
	}
	return strings.Join(keep, ",")
}

func putObject(q *request) error {
	r, err := q.record()
	if err != nil {
		return err
	}
	c, err := q.content(maxObject, "")
	if err != nil {
		return err
	}
	if err := q.early(); err != nil {
		return err
	}
	o, err := q.store(c, q.key, r, q.onWrite())
	if err != nil {
		return err
	}
	q.checksumHeader(o.Checksum)
	q.w.Header().Set("ETag", wire.ETag(o.ETag))
	return q.empty(http.StatusOK)
}

// early checks, before the body is asked for, that the key can be stored and
// that the conditions hold. Both are checked again when the object is put in its
// place.
func (q *request) early() error {
	if err := q.b.CheckPlace(q.key); err != nil {
		return err
	}
	condition := q.onWrite()
	if condition == nil {
		return nil
	}
	now, err := q.b.Stat(q.key)
	if errors.Is(err, files.ErrNoObject) {
		now, err = nil, nil
	}
	if err != nil {
		return err
	}
	return condition(now)
}

// store writes a body to a file and makes that the object.
func (q *request) store(c *content, key string, r files.Record, condition files.Condition) (*files.Object, error) {
	t, err := q.b.Create()
	if err != nil {
		return nil, err
	}
	defer t.Discard()
	up, err := q.s.cfg.Allowance.Begin(q.ctx, q.project, max(0, c.size))
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { up.End(stored) }()
	c.upload = up
	if err := c.copyTo(t); err != nil {
		return nil, err
	}
	r.ETag = c.etag()
	if c.algorithm != "" {
		r.Checksum = &files.Checksum{Algorithm: c.algorithm, Type: checksum.FullObject, Value: checksum.Encode(c.sum.Sum(nil))}
	}
	o, err := t.Publish(key, &r, condition)
	stored = err == nil
	return o, err
}

// checksumHeader tells an object's checksum, if it has one.
func (q *request) checksumHeader(c *files.Checksum) {
	if c != nil {
		q.w.Header()[c.Algorithm.Header()] = []string{c.Value}
		q.w.Header()["x-amz-checksum-type"] = []string{string(c.Type)}
	}
}

// version refuses a version that is not the one that every object has.
func (q *request) version() error {
	if v, ok := q.query.Get("versionId"); ok && v != "" && v != "null" {
		return wire.Err("NoSuchVersion").With("VersionId", xmlText(v))
	}
	return nil
}

// getObject answers GetObject and HeadObject.
func getObject(q *request) error {
	if err := q.version(); err != nil {
		return err
	}
	f, o, err := q.b.Open(q.key)
	if err != nil {
		return err
	}
	defer f.Close()
	h := q.w.Header()
	h.Set("ETag", wire.ETag(o.ETag))
	h.Set("Last-Modified", o.ModTime.Format(http.TimeFormat))
	conditions := readConditions(q.r.Header, "")
	switch v, name := conditions.of(o); v {
	case failed:
		h.Del("ETag")
		h.Del("Last-Modified")
		return preconditionFailed(name)
	case notModified:
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	span, err := q.span(o)
	if err != nil {
		h.Del("ETag")
		h.Del("Last-Modified")
		return err
	}
	q.objectHeaders(o, span)
	if err := q.overrides(); err != nil {
		return err
	}
	h.Set("Content-Length", strconv.FormatInt(span.length, 10))
	if span.partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", span.start, span.start+span.length-1, o.Size))
		q.w.WriteHeader(http.StatusPartialContent)
	} else {
		q.w.WriteHeader(http.StatusOK)
	}
	if q.r.Method == http.MethodHead {
		return nil
	}
	return q.send(f, span)
}

// objectHeaders tells what is known of an object.
func (q *request) objectHeaders(o *files.Object, s span) {
	h := q.w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "binary/octet-stream")
	o.Headers.Each(func(name, value string) { h[name] = []string{value} })
	for _, m := range o.Meta {
		h["x-amz-meta-"+string(m.Name)] = []string{string(m.Value)}
	}
	if n := o.Parts.Len(); n > 0 && s.part > 0 {
		h["x-amz-mp-parts-count"] = []string{strconv.Itoa(n)}
	}
	if !strings.EqualFold(q.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") || o.Checksum == nil {
		return
	}
	switch {
	case !s.partial:
		q.checksumHeader(o.Checksum)
	case s.part > 0:
		if sum := o.Parts.Sum(s.part); sum != nil {
			h[o.Checksum.Algorithm.Header()] = []string{checksum.Encode(sum)}
			h["x-amz-checksum-type"] = []string{string(o.Checksum.Type)}
		}
	}
}

// overrides replaces response headers by what the query asks for.
func (q *request) overrides() error {
	h := q.w.Header()
	for _, p := range q.query {
		name, ok := strings.CutPrefix(p.Name, "response-")
		if !ok || p.Value == "" {
			continue
		}
		if strings.ContainsFunc(p.Value, func(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }) {
			return wire.Errorf("InvalidArgument", "The query parameter %s holds a control character.", p.Name)
		}
		h.Set(name, p.Value)
	}
	return nil
}

// span is the range of an object that a request is for.
type span struct {
	start, length int64
	partial       bool
	part          int // its number, 0 if the request names none
}

// span reads the Range header or the part's number. A Range that cannot be
// read, or names several ranges, is ignored, as RFC 9110 allows.
func (q *request) span(o *files.Object) (span, error) {
	whole := span{length: o.Size}
	header := q.r.Header.Get("Range")
	if number, ok := q.query.Get("partNumber"); ok {
		n, err := strconv.Atoi(number)
		switch {
		case header != "":
			return whole, wire.Errorf("InvalidRequest", "Cannot specify both Range header and partNumber query parameter.")
		case err != nil || n < 1 || n > wire.MaxParts:
			return whole, wire.Errorf("InvalidArgument", "partNumber is %.20q; it must be 1 to %d.", number, wire.MaxParts)
		case n > max(o.Parts.Len(), 1):
			return whole, wire.Errorf("InvalidPart", "The object has no part %d; it has %d.", n, max(o.Parts.Len(), 1))
		case o.Size == 0:
			return span{part: n}, nil
		case o.Parts.Len() == 0:
			return span{length: o.Size, part: n, partial: true}, nil
		}
		start, length := o.Parts.At(n)
		return span{start, length, true, n}, nil
	}
	if header == "" || !q.rangeApplies(o) {
		return whole, nil
	}
	start, end, ok := parseRange(header, o.Size)
	if !ok {
		return whole, nil
	}
	if start >= o.Size {
		return whole, wire.Err("InvalidRange").With("RangeRequested", xmlText(fmt.Sprintf("%.60s", header))).With("ActualObjectSize", strconv.FormatInt(o.Size, 10))
	}
	return span{start: start, length: end - start, partial: true}, nil
}

// rangeApplies evaluates If-Range.
func (q *request) rangeApplies(o *files.Object) bool {
	v := q.r.Header.Get("If-Range")
	if v == "" {
		return true
	}
	if t, err := http.ParseTime(v); err == nil {
		return t.Equal(o.ModTime.Truncate(time.Second))
	}
	return !strings.HasPrefix(v, "W/") && strings.Trim(v, `"`) == o.ETag
}

// parseRange reads a Range header of one range. The end is the first byte
// behind it. It returns false for a header that is to be ignored.
func parseRange(header string, size int64) (start, end int64, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	number := func(s string) (int64, bool) {
		if s == "" || strings.Trim(s, "0123456789") != "" {
			return 0, false
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return 1<<63 - 1, true
		}
		return n, err == nil
	}
	if first == "" {
		n, ok := number(last)
		if !ok {
			return 0, 0, false
		}
		if n == 0 {
			return size, size, true // nothing at the end: not satisfiable
		}
		return max(size-n, 0), size, true
	}
	if start, ok = number(first); !ok {
		return 0, 0, false
	}
	if last == "" {
		return start, size, true
	}
	if end, ok = number(last); !ok || end < start {
		return 0, 0, false
	}
	return start, min(end, size-1) + 1, true
}

// sendStep is how much is sent within one deadline, in bytes.
const sendStep = 4 << 20

// send sends a range of a file. When the file turns out to be shorter, the
// connection is cut: the client must not take what came for all.
func (q *request) send(f *os.File, s span) error {
	if _, err := f.Seek(s.start, io.SeekStart); err != nil {
		return err
	}
	for left := s.length; left > 0; {
		q.w.giveTime()
		n, err := io.CopyN(q.w.ResponseWriter, f, min(left, sendStep))
		if err != nil {
			if q.ctx.Err() == nil && errors.Is(err, io.EOF) {
				q.s.cfg.Logger.Error("an object became shorter while it was read", "path", shortPath(q.r), "request_id", q.id)
			}
			panic(http.ErrAbortHandler)
		}
		left -= n
	}
	return nil
}

func deleteObject(q *request) error {
	if err := q.version(); err != nil {
		return err
	}
	err := q.b.Delete(q.key, q.onDelete(readConditions(q.r.Header, ""), q.r.Header.Get("X-Amz-If-Match-Last-Modified-Time"), q.r.Header.Get("X-Amz-If-Match-Size")))
	if err != nil && !errors.Is(err, files.ErrNoObject) {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// onDelete is the condition of a deletion; nil if it has none.
func (q *request) onDelete(c conditions, modified, size string) files.Condition {
	if !c.hasMatch && modified == "" && size == "" {
		return nil
	}
	return func(now *files.Object) error {
		if now == nil {
			return nil // it is gone: that is what is wanted
		}
		if c.hasMatch && !matches(c.match, now.ETag) {
			return preconditionFailed("If-Match")
		}
		if modified != "" {
			t, err := http.ParseTime(modified)
			if err != nil {
				t, err = time.Parse(time.RFC3339, modified)
			}
			if err != nil || !t.Truncate(time.Second).Equal(now.ModTime.Truncate(time.Second)) {
				return preconditionFailed("x-amz-if-match-last-modified-time")
			}
		}
		if size != "" && size != strconv.FormatInt(now.Size, 10) {
			return preconditionFailed("x-amz-if-match-size")
		}
		return nil
	}
}

func deleteObjects(q *request) error {
	body, err := q.document()
	if err != nil {
		return err
	}
	var in wire.Delete
	if err := wire.Unmarshal(body, &in); err != nil {
		return err
	}
	if n := len(in.Objects); n == 0 || n > wire.MaxDelete {
		return wire.Errorf("MalformedXML", "The document lists %d objects; it must be 1 to %d.", n, wire.MaxDelete)
	}
	if slices.ContainsFunc(in.Objects, func(o wire.DeleteObject) bool { return o.Key == "" }) {
		return wire.Errorf("MalformedXML", "The document lists an object without a key.")
	}
	var out wire.DeleteResult
	for _, o := range in.Objects {
		err := q.deleteOne(o)
		switch {
		case err == nil && !in.Quiet:
			out.Deleted = append(out.Deleted, wire.Deleted{Key: o.Key, VersionID: o.VersionID})
		case err != nil:
			e := q.wireError(err)
			out.Error = append(out.Error, wire.DeleteError{Key: o.Key, VersionID: o.VersionID, Code: e.Code, Message: e.Message})
		}
	}
	return q.respond(out)
}

func (q *request) deleteOne(o wire.DeleteObject) error {
	if err := checkKey(o.Key); err != nil {
		return err
	}
	if o.VersionID != "" && o.VersionID != "null" {
		return wire.Err("NoSuchVersion")
	}
	size := ""
	if o.Size != nil {
		size = strconv.FormatInt(*o.Size, 10)
	}
	err := q.b.Delete(o.Key, q.onDelete(conditions{match: o.ETag, hasMatch: o.ETag != ""}, o.LastModifiedTime, size))
	if errors.Is(err, files.ErrNoObject) {
		return nil
	}
	return err
}

func objectAttributes(q *request) error {
	if err := q.version(); err != nil {
		return err
	}
	o, err := q.b.Stat(q.key)
	if err != nil {
		return err
	}
	if v, name := readConditions(q.r.Header, "").of(o); v != holds {
		return preconditionFailed(name)
	}
	var out wire.GetObjectAttributesResponse
	asked := strings.Join(q.r.Header.Values("X-Amz-Object-Attributes"), ",")
	if strings.Trim(asked, ", ") == "" {
		return wire.Errorf("InvalidRequest", "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty.")
	}
	for name := range strings.SplitSeq(asked, ",") {
		switch name = strings.TrimSpace(name); name {
		case "ETag":
			out.ETag = o.ETag
		case "ObjectSize":
			out.ObjectSize = &o.Size
		case "StorageClass":
			out.StorageClass = "STANDARD"
		case "Checksum":
			if o.Checksum != nil {
				out.Checksum = &wire.AttributesChecksum{ChecksumType: string(o.Checksum.Type)}
				// The number of parts that a composite one has behind it is told by itself.
				value, _, _ := strings.Cut(o.Checksum.Value, "-")
				*out.Checksum.Field(string(o.Checksum.Algorithm)) = value
			}
		case "ObjectParts":
			if out.ObjectParts, err = q.attributeParts(o); err != nil {
				return err
			}
		case "":
		default:
			return wire.Errorf("InvalidArgument", "Invalid attribute name specified: %.60q.", name)
		}
	}
	q.w.Header().Set("Last-Modified", o.ModTime.Format(http.TimeFormat))
	return q.respond(out)
}

// attributeParts lists an object's parts; nil if it was not uploaded in parts.
func (q *request) attributeParts(o *files.Object) (*wire.AttributesParts, error) {
	limit, err := number("x-amz-max-parts", q.r.Header.Get("X-Amz-Max-Parts"), 1000, 1000)
	if err != nil {
		return nil, err
	}
	marker, err := number("x-amz-part-number-marker", q.r.Header.Get("X-Amz-Part-Number-Marker"), 0, wire.MaxParts)
	if err != nil {
		return nil, err
	}
	n := o.Parts.Len()
	if n == 0 {
		return nil, nil
	}
	out := &wire.AttributesParts{MaxParts: limit, PartNumberMarker: marker, PartsCount: n}
	last := min(marker+limit, n)
	out.NextPartNumberMarker, out.IsTruncated = max(last, marker), last < n
	if o.Checksum == nil {
		return out, nil // S3 lists parts of objects with checksums only
	}
	for i := marker + 1; i <= last; i++ {
		_, size := o.Parts.At(i)
		p := wire.AttributesPart{PartNumber: i, Size: size}
		if sum := o.Parts.Sum(i); sum != nil {
			*p.Field(string(o.Checksum.Algorithm)) = checksum.Encode(sum)
		}
		out.Part = append(out.Part, p)
	}
	return out, nil
}

// number reads a number of a query or a header; missing stands for an absent
// one, and most is the largest that counts.
func number(name, value string, missing, most int) (int, error) {
	if value == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 0 {
		return 0, wire.Errorf("InvalidArgument", "%s is %.40q; it must be a number from 0 to %d.", name, value, most).
			With("ArgumentName", name).With("ArgumentValue", xmlText(fmt.Sprintf("%.40s", value)))
	}
	return min(int(n), most), nil
}
