package s3face

import (
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/allowance"
	"github.com/quickims/quickims/internal/s3face/auth"
	"github.com/quickims/quickims/internal/s3face/checksum"
	"github.com/quickims/quickims/internal/s3face/wire"
)

const (
	// maxObject is S3's limit for an object, or a part of one, in one request.
	maxObject = 5 << 30
	// copyBuffer is how much of a body is read at a time.
	copyBuffer = 256 << 10
)

// content is a request's body as an object, a part or a document: without its
// framing, and with the checksums that the client sent of it.
type content struct {
	body *auth.Body
	// size is the number of bytes that was announced, -1 if none was.
	size int64
	md5  hash.Hash

	wantMD5   []byte
	algorithm checksum.Algorithm // "" if the client names none
	sum       hash.Hash          // of algorithm
	wantSum   string             // "" if it comes in a trailer, or not at all
	trailing  bool
	read      int64
	least     int64             // fewer bytes are refused
	limit     int64             // and so are more
	upload    *allowance.Upload // nil: the bytes are not stored
}

// content reads what the headers say of the body. more is an algorithm whose
// checksum is wanted though the client may send none, "" for none.
func (q *request) content(limit int64, more checksum.Algorithm) (*content, error) {
	h := q.r.Header
	c := &content{size: q.r.ContentLength, md5: md5.New(), limit: limit}
	decoded := h.Get("X-Amz-Decoded-Content-Length")
	stores := q.op.name == "PutObject" || q.op.name == "UploadPart"
	switch {
	case q.sig.Framed() && decoded != "":
		n, err := strconv.ParseInt(decoded, 10, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || n < 0 || strings.HasPrefix(decoded, "+") {
			return nil, wire.Errorf("InvalidArgument", "x-amz-decoded-content-length is %.40q; it must be a number of bytes.", decoded)
		}
		c.size = n
	case q.sig.Framed():
		return nil, wire.Errorf("MissingContentLength", "A body in chunks of S3 needs the header x-amz-decoded-content-length.")
	case len(h["Content-Length"]) == 0 && len(q.r.TransferEncoding) == 0 && stores:
		return nil, wire.Err("MissingContentLength")
	case q.r.ContentLength < 0 && stores && !q.emptyBody():
		return nil, wire.Errorf("MissingContentLength", "An object in chunks of HTTP needs the header x-amz-decoded-content-length, and chunks of S3 within.")
	case q.r.ContentLength < 0:
		c.size = -1
	}
	if c.size > limit {
		return nil, wire.Err("EntityTooLarge").With("ProposedSize", strconv.FormatInt(c.size, 10)).With("MaxSizeAllowed", strconv.FormatInt(limit, 10))
	}
	if v, ok := h["Content-Md5"]; ok {
		sum, err := base64.StdEncoding.DecodeString(v[0])
		if err != nil || len(sum) != md5.Size || len(v) > 1 {
			return nil, wire.Err("InvalidDigest")
		}
		c.wantMD5 = sum
	}
	trailer := h.Get("X-Amz-Trailer")
	if err := c.checksums(h, trailer, more, q.op.name == "CompleteMultipartUpload", stores); err != nil {
		return nil, err
	}
	c.body = q.sig.Body(q.r.Body, trailer)
	return c, nil
}

// emptyBody reports whether a body of unknown length has none: some clients send
// empty files in chunks. Of any other, it takes the first byte.
func (q *request) emptyBody() bool {
	n, err := io.ReadFull(q.r.Body, make([]byte, 1))
	return n == 0 && err == io.EOF
}

// checksums reads which checksum is sent, and where. ofObject says that the
// headers tell the checksum of an object and not of this body, stores that the
// body is one.
func (c *content) checksums(h http.Header, trailer string, more checksum.Algorithm, ofObject, stores bool) error {
	for name := range h {
		lower := strings.ToLower(name)
		suffix, ok := strings.CutPrefix(lower, "x-amz-checksum-")
		if !ok || ofObject || suffix == "algorithm" || suffix == "type" || suffix == "mode" {
			continue
		}
		a, known := checksum.Parse(suffix)
		if !known {
			return wire.Errorf("InvalidRequest", "The checksum algorithm of %.60s is not offered; it must be one of %v.", lower, checksum.All)
		}
		if c.algorithm != "" {
			return wire.Errorf("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.")
		}
		value := h.Get(name)
		if _, ok := a.Decode(value); !ok {
			return wire.Errorf("InvalidRequest", "Value for %s header is invalid.", lower)
		}
		c.algorithm, c.wantSum = a, value
	}
	for name := range strings.SplitSeq(trailer, ",") {
		suffix, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(name)), "x-amz-checksum-")
		if !ok {
			if strings.TrimSpace(name) != "" {
				return wire.Errorf("InvalidRequest", "The value specified in the x-amz-trailer header is not supported: %.60q.", name)
			}
			continue
		}
		a, known := checksum.Parse(suffix)
		switch {
		case !known:
			return wire.Errorf("InvalidRequest", "The value specified in the x-amz-trailer header is not supported: %.60q.", name)
		case c.algorithm != "":
			return wire.Errorf("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed.")
		}
		c.algorithm, c.trailing = a, true
	}
	for _, header := range []string{"X-Amz-Sdk-Checksum-Algorithm", "X-Amz-Checksum-Algorithm"} {
		named := h.Get(header)
		if named == "" || ofObject || header == "X-Amz-Checksum-Algorithm" && !stores {
			continue
		}
		a, known := checksum.Parse(named)
		switch {
		case !known:
			return wire.Errorf("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: %v.", checksum.All)
		case c.algorithm == "":
			c.algorithm = a // it is computed and kept, though nothing is sent to compare
		case c.algorithm != a:
			return wire.Errorf("InvalidRequest", "Value for %s header is invalid: the checksum sent is %s.", strings.ToLower(header), c.algorithm)
		}
	}
	if c.algorithm == "" {
		c.algorithm = more
	}
	if c.algorithm != "" {
		c.sum = c.algorithm.New()
	}
	return nil
}

// copyTo writes the content to w and checks all that the client said of it.
// Nothing of what was written is to be used when it returns an error.
func (c *content) copyTo(w io.Writer) error {
	buf := make([]byte, copyBuffer)
	for {
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var m int
			m, err = c.body.Read(buf[n:])
			n += m
		}
		if n > 0 {
			if c.read += int64(n); c.read > c.limit || c.size >= 0 && c.read > c.size {
				if c.size >= 0 && c.size <= c.limit {
					return wire.Errorf("InvalidRequest", "The body has more than the %d bytes that were announced.", c.size)
				}
				return wire.Err("EntityTooLarge").With("MaxSizeAllowed", strconv.FormatInt(c.limit, 10))
			}
			c.md5.Write(buf[:n])
			if c.sum != nil {
				c.sum.Write(buf[:n])
			}
			if c.upload != nil {
				if err := c.upload.Grow(int64(n)); err != nil {
					return err
				}
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return c.check()
		}
		if err != nil {
			return bodyError(err)
		}
	}
}

func bodyError(err error) error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return wire.Err("RequestTimeout")
	}
	return wire.Err("IncompleteBody")
}

func (c *content) check() error {
	if c.read < c.least {
		return wire.Errorf("EntityTooSmall", "The body has %d bytes; it must have at least %d.", c.read, c.least)
	}
	if c.size >= 0 && c.read != c.size {
		return wire.Errorf("IncompleteBody", "The body has %d bytes; %d were announced.", c.read, c.size)
	}
	if sum := c.md5.Sum(nil); c.wantMD5 != nil && string(sum) != string(c.wantMD5) {
		return wire.Errorf("BadDigest", "The Content-MD5 you specified did not match what we received.").
			With("ExpectedDigest", base64.StdEncoding.EncodeToString(c.wantMD5)).With("CalculatedDigest", base64.StdEncoding.EncodeToString(sum))
	}
	if c.trailing {
		value, _ := c.body.Trailer(c.algorithm.Header())
		if _, ok := c.algorithm.Decode(value); !ok {
			return wire.Errorf("InvalidRequest", "Value for %s trailing header is invalid.", c.algorithm.Header())
		}
		c.wantSum = value
	}
	if c.wantSum != "" && checksum.Encode(c.sum.Sum(nil)) != c.wantSum {
		return wire.Errorf("BadDigest", "The %s you specified did not match the calculated checksum.", c.algorithm)
	}
	return nil
}

// etag is the content's ETag without quotes, after it was read.
func (c *content) etag() string { return fmt.Sprintf("%x", c.md5.Sum(nil)) }

// document reads a body that is an XML document, into memory.
func (q *request) document() ([]byte, error) {
	c, err := q.content(wire.MaxDocument, "")
	if err != nil {
		var e *wire.Error
		if errors.As(err, &e) && e.Code == "EntityTooLarge" {
			return nil, wire.Err("MaxMessageLengthExceeded")
		}
		return nil, err
	}
	var b limitedBuffer
	if err := c.copyTo(&b); err != nil {
		return nil, err
	}
	return b.b, nil
}

type limitedBuffer struct{ b []byte }

// Write implements io.Writer.
func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > wire.MaxDocument {
		return 0, wire.Err("MaxMessageLengthExceeded")
	}
	l.b = append(l.b, p...)
	return len(p), nil
}
