// Package auth reads and proves the signatures of S3 requests: Signature
// Version 4 in the Authorization header or in the query (presigned URLs), with
// bodies that are signed whole, in chunks, with a trailer, or not at all; and
// Signature Version 2 with its twin, the OBS signature of Huawei Cloud, which the
// SDK of OBS makes. It keeps no keys: the caller looks up the
// secret between Read and Verify.
package auth

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// MaxSkew is how far a request's time may differ from ours.
const MaxSkew = 15 * time.Minute

// MaxExpires is the longest life of a presigned URL.
const MaxExpires = 7 * 24 * time.Hour

// Kind says where a signature stands and of which sort it is.
type Kind int

// The kinds.
const (
	// Anonymous: the request has no signature.
	Anonymous Kind = iota
	// V4Header is Signature Version 4 in the Authorization header.
	V4Header
	// V4Query is Signature Version 4 in the query.
	V4Query
	// OBSHeader is the OBS signature in the Authorization header.
	OBSHeader
	// OBSQuery is the OBS signature in the query.
	OBSQuery
	// V2Header is Signature Version 2 in the Authorization header.
	V2Header
	// V2Query is Signature Version 2 in the query.
	V2Query
)

// Values of x-amz-content-sha256 that are no hash.
const (
	unsignedPayload        = "UNSIGNED-PAYLOAD"
	streamingSigned        = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamingTrailer       = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// Signature is what a request says of who signed it. Nothing of it is proven
// before Verify returned nil.
type Signature struct {
	Kind      Kind
	AccessKey string

	day, region, service string
	date                 time.Time
	stamp                string // date as it was sent
	expires              time.Duration
	headers              []string // signed ones, lower case
	signature            string
	payload              string // x-amz-content-sha256
	key                  []byte // signing key, set by Verify
}

// Request is what a signature is computed over: the parts of an HTTP request
// before anything is decoded or moved.
type Request struct {
	Method string
	// RawPath is the path as it was sent, Path the decoded one.
	RawPath, Path string
	RawQuery      string
	Query         Query
	Host          string
	Header        http.Header
	// TransferEncoding is that of the body.
	TransferEncoding []string
	// Bucket is the bucket that the host names, empty for path style.
	Bucket string
}

// Param is one parameter of a query, decoded.
type Param struct {
	Name, Value string
	// Bare: there was no '=' behind the name.
	Bare bool
}

// Query is a query's parameters in the order in which they were sent.
type Query []Param

// maxParams bounds the parameters of a query.
const maxParams = 200

// ParseQuery reads a raw query. A name may occur once.
func ParseQuery(raw string) (Query, *wire.Error) {
	var q Query
	seen := map[string]bool{}
	for piece := range strings.SplitSeq(raw, "&") {
		if piece == "" {
			continue
		}
		name, value, has := strings.Cut(piece, "=")
		n, ok1 := wire.Unescape(name, true)
		v, ok2 := wire.Unescape(value, true)
		switch {
		case !ok1 || !ok2:
			return nil, wire.Errorf("InvalidURI", "The query holds a %% without two hexadecimal digits behind it: %.100q.", piece)
		case seen[strings.ToLower(n)]:
			return nil, wire.Errorf("InvalidArgument", "The query parameter %.100q occurs more than once.", n)
		case len(q) == maxParams:
			return nil, wire.Errorf("InvalidURI", "The query has more than %d parameters.", maxParams)
		}
		seen[strings.ToLower(n)] = true
		q = append(q, Param{n, v, !has})
	}
	return q, nil
}

// Get returns a parameter's value and whether it is there.
func (q Query) Get(name string) (string, bool) {
	for _, p := range q {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

// Value returns a parameter's value, "" if it is absent.
func (q Query) Value(name string) string { v, _ := q.Get(name); return v }

// Has reports whether a parameter is there.
func (q Query) Has(name string) bool { _, ok := q.Get(name); return ok }

// Read finds a request's signature. Its Kind is Anonymous if there is none.
func Read(r *Request) (*Signature, *wire.Error) {
	header := r.Header["Authorization"]
	inQuery := r.Query.Has("X-Amz-Algorithm") || r.Query.Has("X-Amz-Signature") || r.Query.Has("X-Amz-Credential")
	obsQuery := r.Query.Has("AccessKeyId") || r.Query.Has("Signature") || r.Query.Has("AWSAccessKeyId")
	switch {
	case len(header) > 1, len(header) == 1 && header[0] != "" && (inQuery || obsQuery), inQuery && obsQuery:
		return nil, wire.Errorf("InvalidArgument", "Only one signature is allowed: in the Authorization header, or in the query.")
	case inQuery:
		return readV4Query(r)
	case obsQuery:
		return readV2Query(r)
	case len(header) == 0 || header[0] == "":
		return &Signature{}, nil
	}
	scheme, rest, _ := strings.Cut(header[0], " ")
	switch scheme {
	case v4Algorithm:
		return readV4Header(r, rest)
	case "OBS":
		return readV2Header(r, OBSHeader, rest)
	case "AWS4-ECDSA-P256-SHA256":
		return nil, wire.Errorf("NotImplemented", "Signatures of algorithm AWS4-ECDSA-P256-SHA256 are not offered; use %s.", v4Algorithm)
	case "AWS":
		return readV2Header(r, V2Header, rest)
	}
	return nil, wire.Errorf("InvalidArgument", "The Authorization header begins with %.40q; it must be %s, OBS or AWS.", scheme, v4Algorithm)
}

// Verify proves the signature with the access key's secret. The request's time
// must be within MaxSkew of now, or now within a presigned URL's life.
func (s *Signature) Verify(r *Request, secret, region string, now time.Time) *wire.Error {
	switch s.Kind {
	case V4Header, V4Query:
		return s.verifyV4(r, secret, region, now)
	case OBSHeader, OBSQuery, V2Header, V2Query:
		return s.verifyV2(r, secret, now)
	}
	return wire.Errorf("AccessDenied", "The request is not signed.")
}

// OBS reports whether the request speaks OBS's dialect: headers named x-obs-.
func (s *Signature) OBS() bool { return s.Kind.obs() }

// signatureParams are the query's parameters that belong to signatures.
var signatureParams = []string{
	"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token",
	"X-Amz-Content-Sha256",
}

// IsParam reports whether a query's parameter belongs to this signature.
func (s *Signature) IsParam(name string) bool {
	switch s.Kind {
	case V4Query:
		return slices.Contains(signatureParams, name)
	case OBSQuery, V2Query:
		return name == "AccessKeyId" || name == "AWSAccessKeyId" || name == "Expires" || name == "Signature"
	}
	return false
}
