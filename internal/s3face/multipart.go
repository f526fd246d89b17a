package s3face

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/checksum"
	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// minPart is the size in bytes that every part but the last must have.
const minPart = 5 << 20

func createUpload(q *request) error {
	r, err := q.record()
	if err != nil {
		return err
	}
	info := files.UploadInfo{Key: q.key, Created: time.Now().UTC().Truncate(time.Millisecond), Record: r, Project: q.project}
	if info.Algorithm, info.Type, err = q.uploadChecksum(); err != nil {
		return err
	}
	if err := q.noBody(); err != nil {
		return err
	}
	if err := q.b.CheckPlace(q.key); err != nil {
		return err
	}
	id, err := q.b.BeginUpload(info)
	if err != nil {
		return err
	}
	if info.Algorithm != "" {
		q.w.Header()["x-amz-checksum-algorithm"] = []string{string(info.Algorithm)}
		q.w.Header()["x-amz-checksum-type"] = []string{string(info.Type)}
	}
	return q.respond(wire.InitiateMultipartUploadResult{Bucket: q.bucket, Key: q.key, UploadID: id})
}

// uploadChecksum reads which checksum an upload is to have.
func (q *request) uploadChecksum() (checksum.Algorithm, checksum.Type, error) {
	name, kind := q.r.Header.Get("X-Amz-Checksum-Algorithm"), checksum.Type(q.r.Header.Get("X-Amz-Checksum-Type"))
	if name == "" {
		if kind != "" {
			return "", "", wire.Errorf("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return "", "", nil
	}
	a, ok := checksum.Parse(name)
	if !ok {
		return "", "", wire.Errorf("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: %v.", checksum.All)
	}
	if kind == "" {
		kind = a.DefaultType()
	}
	if kind != checksum.FullObject && kind != checksum.Composite {
		return "", "", wire.Errorf("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
	}
	if !a.Allows(kind) {
		return "", "", wire.Errorf("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(string(a)))
	}
	return a, kind, nil
}

// upload opens the upload that the request names. The caller closes it.
func (q *request) upload() (*files.Upload, error) {
	return q.b.Upload(q.key, q.query.Value("uploadId"))
}

func (q *request) partNumber() (int, error) {
	value := q.query.Value("partNumber")
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > wire.MaxParts || value[0] == '+' {
		return 0, wire.Errorf("InvalidArgument", "Part number must be an integer between 1 and %d, inclusive.", wire.MaxParts).
			With("ArgumentName", "partNumber").With("ArgumentValue", xmlText(fmt.Sprintf("%.40s", value)))
	}
	return n, nil
}

func uploadPart(q *request) error {
	u, err := q.upload()
	if err != nil {
		return err
	}
	defer u.Close()
	number, err := q.partNumber()
	if err != nil {
		return err
	}
	c, err := q.content(maxObject, u.Info.Algorithm)
	if err != nil {
		return err
	}
	if u.Info.Algorithm != "" && c.algorithm != u.Info.Algorithm {
		return wire.Errorf("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s",
			strings.ToLower(string(u.Info.Algorithm)), strings.ToLower(string(c.algorithm)))
	}
	w, err := u.WritePart(number, c.size)
	if err != nil {
		return err
	}
	defer w.Discard()
	up, err := q.s.cfg.Allowance.Begin(q.ctx, q.project, max(0, c.size))
	if err != nil {
		return err
	}
	stored := false
	defer func() { up.End(stored) }()
	c.upload = up
	if err := c.copyTo(w); err != nil {
		return err
	}
	p := files.Part{MD5: c.md5.Sum(nil)}
	if c.algorithm != "" {
		p.Algorithm, p.Sum = c.algorithm, c.sum.Sum(nil)
		q.w.Header()[c.algorithm.Header()] = []string{checksum.Encode(p.Sum)}
	}
	if err := w.Commit(p); err != nil {
		return err
	}
	stored = true
	q.w.Header().Set("ETag", wire.ETag(c.etag()))
	return q.empty(http.StatusOK)
}

func uploadPartCopy(q *request) error {
	u, err := q.upload()
	if err != nil {
		return err
	}
	fail := func(err error) error { u.Close(); return err }
	number, err := q.partNumber()
	if err != nil {
		return fail(err)
	}
	if err := q.noBody(); err != nil {
		return fail(err)
	}
	src, err := q.openSource()
	if err != nil {
		return fail(err)
	}
	start, length, err := copyRange(q.r.Header.Get("X-Amz-Copy-Source-Range"), src.object.Size)
	if err == nil && length > maxObject {
		err = wire.Err("EntityTooLarge").With("MaxSizeAllowed", strconv.Itoa(maxObject))
	}
	if err != nil {
		src.file.Close()
		return fail(err)
	}
	return q.patiently(func(ctx context.Context) (any, error) {
		defer u.Close()
		defer src.file.Close()
		w, err := u.WritePart(number, length)
		if err != nil {
			return nil, err
		}
		defer w.Discard()
		up, err := q.s.cfg.Allowance.BeginCopy(ctx, q.project, length)
		if err != nil {
			return nil, err
		}
		stored := false
		defer func() { up.End(stored) }()
		// The part needs an MD5, and perhaps a checksum: its bytes are read anyway.
		whole := md5.New()
		sums := []io.Writer{whole}
		out, p := wire.CopyPartResult{LastModified: wire.Time(time.Now())}, files.Part{Algorithm: u.Info.Algorithm}
		var sum hash.Hash
		if p.Algorithm != "" {
			sum = p.Algorithm.New()
			sums = append(sums, sum)
		}
		if err := readAll(ctx, src, start, length, sums...); err != nil {
			return nil, err
		}
		if sum != nil {
			p.Sum = sum.Sum(nil)
			*out.Field(string(p.Algorithm)) = checksum.Encode(p.Sum)
		}
		if err := w.CopyRange(ctx, src.file, start, length); err != nil {
			return nil, err
		}
		p.MD5 = whole.Sum(nil)
		if err := w.Commit(p); err != nil {
			return nil, err
		}
		stored = true
		out.ETag = wire.ETag(p.ETag())
		return out, nil
	})
}

// readAll reads a range of a source into hashes.
func readAll(ctx context.Context, src *source, start, length int64, to ...io.Writer) error {
	n, err := io.CopyBuffer(io.MultiWriter(to...), whileReader{ctx, io.NewSectionReader(src.file, start, length)}, make([]byte, copyBuffer))
	if err == nil && n < length {
		err = files.ErrShort
	}
	return err
}

// completed finds the object that an upload became, if it did: a completion that
// is sent again, because the first answer got lost, succeeds again.
func (q *request) completed(id string) *files.Object {
	o, err := q.b.Stat(q.key)
	if err != nil || o.Upload == "" || o.Upload != id {
		return nil
	}
	return o
}

func completeUpload(q *request) error {
	body, err := q.document()
	if err != nil {
		return err
	}
	var in wire.CompleteMultipartUpload
	if err := wire.Unmarshal(body, &in); err != nil {
		return err
	}
	if n := len(in.Parts); n == 0 || n > wire.MaxParts {
		return wire.Errorf("MalformedXML", "The document lists %d parts; it must be 1 to %d.", n, wire.MaxParts)
	}
	id := q.query.Value("uploadId")
	u, err := q.upload()
	if errors.Is(err, files.ErrNoUpload) {
		if o := q.completed(id); o != nil {
			return q.respond(q.completion(o))
		}
	}
	if err != nil {
		return err
	}
	condition := q.onWrite()
	if err := q.early(); err != nil {
		u.Close()
		return err
	}
	return q.patiently(func(ctx context.Context) (any, error) {
		defer u.Close()
		err := u.Freeze()
		if errors.Is(err, files.ErrNoUpload) {
			if o := q.completed(id); o != nil { // another request did it while this one waited
				return q.completion(o), nil
			}
		}
		if err != nil {
			return nil, err
		}
		parts, r, err := q.assembly(u, in.Parts)
		if err != nil {
			return nil, err
		}
		o, err := u.Complete(ctx, parts, r, condition)
		if err != nil {
			return nil, err
		}
		return q.completion(o), nil
	})
}

func (q *request) completion(o *files.Object) wire.CompleteMultipartUploadResult {
	out := wire.CompleteMultipartUploadResult{Location: q.location(), Bucket: q.bucket, Key: q.key, ETag: wire.ETag(o.ETag)}
	if c := o.Checksum; c != nil {
		*out.Field(string(c.Algorithm)), out.ChecksumType = c.Value, string(c.Type)
	}
	return out
}

// assembly checks the list of parts that an upload is to be completed with
// against those that it has, and returns them with the record of the object.
func (q *request) assembly(u *files.Upload, list []wire.CompletePart) ([]files.Part, *files.Record, error) {
	have, err := u.Parts()
	if err != nil {
		return nil, nil, err
	}
	byNumber := make(map[int]files.Part, len(have))
	for _, p := range have {
		byNumber[p.Number] = p
	}
	r := u.Info.Record
	parts := make([]files.Part, 0, len(list))
	sums := make([]checksum.Part, 0, len(list))
	etags := md5.New()
	var total int64
	for i, want := range list {
		if i > 0 && want.PartNumber <= list[i-1].PartNumber {
			return nil, nil, wire.Err("InvalidPartOrder").With("UploadId", u.ID)
		}
		p, ok := byNumber[want.PartNumber]
		etag := strings.Trim(strings.TrimSpace(want.ETag), `"`)
		if !ok || !strings.EqualFold(etag, p.ETag()) {
			return nil, nil, wire.Errorf("InvalidPart", "Part %d was not uploaded, or its ETag is not %.80q.", want.PartNumber, etag).
				With("UploadId", u.ID).With("PartNumber", strconv.Itoa(want.PartNumber)).With("ETag", xmlText(etag))
		}
		if i < len(list)-1 && p.Size < minPart {
			return nil, nil, wire.Errorf("EntityTooSmall", "Part %d has %d bytes; every part but the last must have at least %d.", p.Number, p.Size, minPart).
				With("ProposedSize", strconv.FormatInt(p.Size, 10)).With("MinSizeAllowed", strconv.Itoa(minPart)).With("PartNumber", strconv.Itoa(p.Number))
		}
		for _, a := range checksum.All {
			given := *want.Field(string(a))
			switch {
			case given == "":
			case a != p.Algorithm || given != checksum.Encode(p.Sum):
				return nil, nil, wire.Errorf("InvalidPart", "The %s of part %d is not the one of the part that was uploaded.", a, p.Number).
					With("UploadId", u.ID).With("PartNumber", strconv.Itoa(p.Number))
			}
		}
		etags.Write(p.MD5)
		total += p.Size
		parts = append(parts, p)
		sums = append(sums, checksum.Part{Sum: p.Sum, Length: p.Size})
		r.Parts.Add(p.Size)
	}
	r.ETag = fmt.Sprintf("%s-%d", hex.EncodeToString(etags.Sum(nil)), len(parts))
	if v := q.r.Header.Get("X-Amz-Mp-Object-Size"); v != "" && v != strconv.FormatInt(total, 10) {
		return nil, nil, wire.Errorf("InvalidRequest", "The provided 'x-amz-mp-object-size' header value %.30s does not match what was computed: %d.", v, total)
	}
	return parts, &r, q.wholeChecksum(u, &r, sums)
}

// wholeChecksum computes the checksum of the object to be and compares it with
// the one that the client sent, if it did.
func (q *request) wholeChecksum(u *files.Upload, r *files.Record, sums []checksum.Part) error {
	h := q.r.Header
	if kind := h.Get("X-Amz-Checksum-Type"); kind != "" && checksum.Type(kind) != u.Info.Type {
		return wire.Errorf("InvalidRequest", "The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", u.Info.Type)
	}
	a := u.Info.Algorithm
	if a != "" {
		value, err := a.OfParts(u.Info.Type, sums)
		if err != nil {
			return err
		}
		r.Checksum = &files.Checksum{Algorithm: a, Type: u.Info.Type, Value: value}
		for _, s := range sums {
			r.Parts.Sums = append(r.Parts.Sums, s.Sum...)
		}
	}
	for _, other := range checksum.All {
		given := h.Get(other.Header())
		if given == "" || a == "" {
			continue
		}
		want := r.Checksum.Value
		if u.Info.Type == checksum.Composite {
			want, _, _ = strings.Cut(want, "-")
			given, _, _ = strings.Cut(given, "-")
		}
		if other != a || given != want {
			return wire.Errorf("BadDigest", "The %s you specified did not match the calculated checksum.", strings.ToLower(string(other)))
		}
	}
	return nil
}

func abortUpload(q *request) error {
	u, err := q.upload()
	if err != nil {
		return err
	}
	defer u.Close()
	if err := u.Abort(); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func listParts(q *request) error {
	u, err := q.upload()
	if err != nil {
		return err
	}
	defer u.Close()
	limit, err := number("max-parts", q.query.Value("max-parts"), 1000, 1000)
	if err != nil {
		return err
	}
	marker, err := number("part-number-marker", q.query.Value("part-number-marker"), 0, wire.MaxParts)
	if err != nil {
		return err
	}
	parts, err := u.Parts()
	if err != nil {
		return err
	}
	out := wire.ListPartsResult{
		Bucket: q.bucket, Key: q.key, UploadID: u.ID, Initiator: q.owner(), Owner: q.owner(), StorageClass: "STANDARD",
		PartNumberMarker: marker, MaxParts: limit, ChecksumAlgorithm: string(u.Info.Algorithm), ChecksumType: string(u.Info.Type),
	}
	if v := q.query.Value("encoding-type"); v == "url" {
		out.EncodingType, out.Key = v, wire.Escape(q.key, true)
	} else if v != "" {
		return wire.Errorf("InvalidArgument", "encoding-type is %.40q; it must be url.", v)
	}
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(out.Part) == limit {
			out.IsTruncated = limit > 0
			break
		}
		w := wire.Part{PartNumber: p.Number, LastModified: wire.Time(p.Modified), ETag: wire.ETag(p.ETag()), Size: p.Size}
		if p.Algorithm != "" {
			*w.Field(string(p.Algorithm)) = checksum.Encode(p.Sum)
		}
		out.Part = append(out.Part, w)
		out.NextPartNumberMarker = p.Number
	}
	return q.respond(out)
}
