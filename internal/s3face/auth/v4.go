package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/wire"
)

const (
	v4Algorithm = "AWS4-HMAC-SHA256"
	v4Time      = "20060102T150405Z"
	v4Day       = "20060102"
	v4End       = "aws4_request"
)

// maxSignedHeaders bounds the list of signed headers.
const maxSignedHeaders = 100

// readV4Header reads "Credential=…, SignedHeaders=…, Signature=…".
func readV4Header(r *Request, fields string) (*Signature, *wire.Error) {
	malformed := func(format string, args ...any) (*Signature, *wire.Error) {
		return nil, wire.Errorf("AuthorizationHeaderMalformed", "The authorization header is malformed; "+format, args...)
	}
	s := &Signature{Kind: V4Header}
	var credential, headers string
	for field := range strings.SplitSeq(fields, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		to := map[string]*string{"Credential": &credential, "SignedHeaders": &headers, "Signature": &s.signature}[name]
		if !ok || to == nil || *to != "" {
			return malformed("it has a field %.40q.", name)
		}
		*to = value
	}
	if err := s.credential(credential); err != "" {
		return malformed("%s", err)
	}
	if err := s.signedHeaders(headers); err != "" {
		return malformed("%s", err)
	}
	if s.signature == "" {
		return malformed("it has no Signature.")
	}
	stamp := r.Header.Get("X-Amz-Date")
	var err error
	switch {
	case stamp != "":
		s.date, err = time.Parse(v4Time, stamp)
		if err != nil { // some clients send HTTP's form here
			s.date, err = parseTime(stamp)
		}
	case r.Header.Get("Date") != "":
		s.date, err = parseTime(r.Header.Get("Date"))
	default:
		return nil, wire.Errorf("AccessDenied", "The request has no time: Signature Version 4 needs an X-Amz-Date or Date header.")
	}
	if err != nil {
		return nil, wire.Errorf("AccessDenied", "The request's time cannot be read: X-Amz-Date must have the form %s.", v4Time)
	}
	s.stamp = s.date.UTC().Format(v4Time)
	s.payload = r.Header.Get("X-Amz-Content-Sha256")
	if s.payload == "" {
		return nil, wire.Errorf("InvalidRequest", "The header x-amz-content-sha256 is missing.")
	}
	return s, nil
}

// readV4Query reads a presigned URL's parameters.
func readV4Query(r *Request) (*Signature, *wire.Error) {
	malformed := func(format string, args ...any) (*Signature, *wire.Error) {
		return nil, wire.Errorf("AuthorizationQueryParametersError", format, args...)
	}
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if r.Query.Value(name) == "" {
			return malformed("The query parameter %s is missing.", name)
		}
	}
	if a := r.Query.Value("X-Amz-Algorithm"); a != v4Algorithm {
		return malformed("X-Amz-Algorithm is %.40q; it must be %s.", a, v4Algorithm)
	}
	s := &Signature{Kind: V4Query, signature: r.Query.Value("X-Amz-Signature"), stamp: r.Query.Value("X-Amz-Date"), payload: unsignedPayload}
	if err := s.credential(r.Query.Value("X-Amz-Credential")); err != "" {
		return malformed("Error parsing the X-Amz-Credential parameter; %s", err)
	}
	if err := s.signedHeaders(r.Query.Value("X-Amz-SignedHeaders")); err != "" {
		return malformed("Error parsing the X-Amz-SignedHeaders parameter; %s", err)
	}
	var err error
	if s.date, err = time.Parse(v4Time, s.stamp); err != nil {
		return malformed("X-Amz-Date is %.40q; it must have the form %s.", s.stamp, v4Time)
	}
	seconds, err := strconv.ParseInt(r.Query.Value("X-Amz-Expires"), 10, 64)
	switch {
	case err != nil:
		return malformed("X-Amz-Expires is %.40q; it must be a number of seconds.", r.Query.Value("X-Amz-Expires"))
	case seconds < 1 || seconds > int64(MaxExpires/time.Second):
		return nil, wire.Errorf("AccessDenied", "X-Amz-Expires is %d; it must be 1 to %d seconds (7 days).", seconds, int64(MaxExpires/time.Second))
	}
	s.expires = time.Duration(seconds) * time.Second
	for _, given := range []string{r.Header.Get("X-Amz-Content-Sha256"), r.Query.Value("X-Amz-Content-Sha256")} {
		if given != "" {
			s.payload = given
		}
	}
	return s, nil
}

// credential reads KEY/DAY/REGION/s3/aws4_request. A key may hold slashes.
func (s *Signature) credential(value string) (bad string) {
	parts := strings.Split(value, "/")
	n := len(parts) - 4
	if n < 1 || parts[n+3] != v4End {
		return "the Credential is mal-formed; it must be ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request."
	}
	s.AccessKey, s.day, s.region, s.service = strings.Join(parts[:n], "/"), parts[n], parts[n+1], parts[n+2]
	if _, err := time.Parse(v4Day, s.day); err != nil {
		return "the Credential's date must have the form YYYYMMDD."
	}
	if s.service != "s3" && s.service != "obs" {
		return "the Credential's service must be s3."
	}
	if s.AccessKey == "" || s.region == "" {
		return "the Credential names no access key or no region."
	}
	return ""
}

func (s *Signature) signedHeaders(value string) (bad string) {
	if value == "" {
		return "there are no SignedHeaders."
	}
	s.headers = strings.Split(strings.ToLower(value), ";")
	if len(s.headers) > maxSignedHeaders {
		return "there are too many SignedHeaders."
	}
	if !slices.Contains(s.headers, "host") {
		return "the host header must be signed."
	}
	return ""
}

func (s *Signature) verifyV4(r *Request, secret, region string, now time.Time) *wire.Error {
	if s.day != s.date.UTC().Format(v4Day) {
		return wire.Errorf("SignatureDoesNotMatch", "The Credential's date %s is not the day of the request's time %s.", s.day, s.stamp)
	}
	if s.Kind == V4Header {
		if skew := now.Sub(s.date); skew > MaxSkew || skew < -MaxSkew {
			return wire.Err("RequestTimeTooSkewed").With("RequestTime", s.stamp).With("ServerTime", wire.Time(now))
		}
	} else {
		switch {
		case s.date.Sub(now) > MaxSkew:
			return wire.Errorf("AccessDenied", "The presigned URL is not valid yet: its X-Amz-Date is %s.", s.stamp).With("ServerTime", wire.Time(now))
		case !now.Before(s.date.Add(s.expires)):
			return wire.Errorf("AccessDenied", "Request has expired: the presigned URL was valid until %s.", wire.Time(s.date.Add(s.expires))).With("ServerTime", wire.Time(now))
		}
	}
	if !s.payloadValid() {
		return wire.Errorf("InvalidArgument", "x-amz-content-sha256 is %.80q; it must be UNSIGNED-PAYLOAD, %s, %s, %s or 64 hexadecimal digits.",
			s.payload, streamingTrailer, streamingSigned, streamingSignedTrailer)
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") && !slices.Contains(s.headers, lower) &&
			!(s.Kind == V4Query && (lower == "x-amz-content-sha256" || lower == "x-amz-user-agent")) {
			return wire.Errorf("AccessDenied", "There were headers present in the request which were not signed: %.100s.", lower).With("HeadersNotSigned", lower)
		}
	}
	key := signingKey(secret, s.day, s.region, s.service)
	// A client signs its path and its query as S3 encodes them. Some sign them as
	// they send them.
	for _, target := range []string{
		wire.Escape(r.Path, true) + "\n" + s.canonicalQuery(r.Query),
		r.RawPath + "\n" + s.canonicalQuery(r.Query),
		r.RawPath + "\n" + s.rawQuery(r.RawQuery),
	} {
		sum := sha256.Sum256([]byte(s.canonicalRequest(r, target)))
		toSign := v4Algorithm + "\n" + s.stamp + "\n" + s.scope() + "\n" + hex.EncodeToString(sum[:])
		if hmac.Equal([]byte(hex.EncodeToString(hmacSHA256(key, toSign))), []byte(s.signature)) {
			if s.region != region && s.region != defaultRegion {
				return wire.Errorf("AuthorizationHeaderMalformed", "The authorization header is malformed; the region '%.40s' is wrong; expecting '%s'", s.region, region).With("Region", region)
			}
			s.key = key
			return nil
		}
	}
	return wire.Err("SignatureDoesNotMatch").With("AWSAccessKeyId", s.AccessKey)
}

// defaultRegion is what clients sign for that were told no region. It is taken
// beside our own.
const defaultRegion = "us-east-1"

func (s *Signature) scope() string {
	return s.day + "/" + s.region + "/" + s.service + "/" + v4End
}

func (s *Signature) canonicalQuery(q Query) string {
	pairs := make([]string, 0, len(q))
	for _, p := range q {
		if s.Kind == V4Query && p.Name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, wire.Escape(p.Name, false)+"="+wire.Escape(p.Value, false))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// rawQuery is the query as it was sent, sorted.
func (s *Signature) rawQuery(raw string) string {
	var pairs []string
	for piece := range strings.SplitSeq(raw, "&") {
		if piece == "" || s.Kind == V4Query && strings.HasPrefix(piece, "X-Amz-Signature=") {
			continue
		}
		if !strings.Contains(piece, "=") {
			piece += "="
		}
		pairs = append(pairs, piece)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// canonicalRequest is what is signed. target is the path and the query.
func (s *Signature) canonicalRequest(r *Request, target string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + target + "\n")
	for _, name := range s.headers {
		b.WriteString(name + ":")
		switch name {
		case "host":
			b.WriteString(r.Host)
		case "transfer-encoding": // net/http takes it out of the headers
			b.WriteString(strings.Join(r.TransferEncoding, ","))
		default:
			for i, v := range r.Header[http.CanonicalHeaderKey(name)] {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(oneSpace(v))
			}
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n" + strings.Join(s.headers, ";") + "\n" + s.payload)
	return b.String()
}

// oneSpace trims a header's value and makes one space of several.
func oneSpace(v string) string {
	v = strings.Trim(v, " \t")
	for strings.Contains(v, "  ") {
		v = strings.ReplaceAll(v, "  ", " ")
	}
	return v
}

func signingKey(secret, day, region, service string) []byte {
	key := hmacSHA256([]byte("AWS4"+secret), day)
	for _, part := range []string{region, service, v4End} {
		key = hmacSHA256(key, part)
	}
	return key
}

func hmacSHA256(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

func (s *Signature) payloadValid() bool {
	switch s.payload {
	case unsignedPayload, streamingSigned, streamingSignedTrailer, streamingTrailer:
		return true
	}
	_, err := hex.DecodeString(s.payload)
	return err == nil && len(s.payload) == 2*sha256.Size
}
