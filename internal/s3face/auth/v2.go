package auth

// Signature Version 2 of AWS and the OBS signature of Huawei Cloud are one: they
// differ in the names of their headers and parameters. The SDK of OBS makes the one
// or the other, by how it addresses the bucket.

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/wire"
)

// v2Resources are the query's parameters that Signature Version 2 covers, of AWS and
// of OBS (Object Storage Service API Reference, "Authentication of signature in a
// header").
var v2Resources = []string{
	"CDNNotifyConfiguration", "acl", "append", "attname", "backtosource", "cors", "customdomain", "delete", "deletebucket", "directcoldaccess",
	"encryption", "inventory", "length", "lifecycle", "location", "logging", "metadata", "modify", "name", "notification", "object-lock",
	"obsworm", "orchestration", "partNumber", "policy", "position", "quota", "rename", "replication", "requestPayment",
	"response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language", "response-content-type", "response-expires",
	"restore", "retention", "storageClass", "storagePolicy", "storageinfo", "tagging", "torrent", "truncate", "uploadId", "uploads", "versionId",
	"versioning", "versions", "website", "x-image-process", "x-image-save-bucket", "x-image-save-object", "x-obs-security-token",
}

func readV2Header(r *Request, kind Kind, rest string) (*Signature, *wire.Error) {
	key, signature, ok := cutLast(strings.TrimSpace(rest), ":")
	if !ok || key == "" || signature == "" {
		return nil, wire.Errorf("InvalidArgument", "The Authorization header must have the form %s ACCESS-KEY:SIGNATURE.", kind.scheme())
	}
	s := &Signature{Kind: kind, AccessKey: key, signature: signature, stamp: r.Header.Get("Date")}
	when := s.stamp
	if d := r.Header.Get(kind.prefix() + "Date"); d != "" {
		s.stamp, when = "", d // the header itself is signed
	}
	var err error
	if s.date, err = parseTime(when); err != nil {
		if s.date, err = time.Parse(v4Time, when); err != nil {
			return nil, wire.Errorf("AccessDenied", "The request has no valid time: its signature needs an %sdate or Date header.", strings.ToLower(kind.prefix()))
		}
	}
	return s, nil
}

// parseTime reads a time of HTTP, or the form of e-mail's that some clients send.
func parseTime(s string) (time.Time, error) {
	t, err := http.ParseTime(s)
	if err != nil {
		t, err = time.Parse(time.RFC1123Z, s)
	}
	return t, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// obs reports whether the kind is OBS's.
func (k Kind) obs() bool { return k == OBSHeader || k == OBSQuery }

// scheme is how the Authorization header begins.
func (k Kind) scheme() string {
	if k.obs() {
		return "OBS"
	}
	return "AWS"
}

// prefix is how the names of the headers begin that are signed.
func (k Kind) prefix() string {
	if k.obs() {
		return "X-Obs-"
	}
	return "X-Amz-"
}

func readV2Query(r *Request) (*Signature, *wire.Error) {
	kind, key := V2Query, "AWSAccessKeyId"
	if r.Query.Has("AccessKeyId") {
		kind, key = OBSQuery, "AccessKeyId"
	}
	s := &Signature{Kind: kind, AccessKey: r.Query.Value(key), signature: r.Query.Value("Signature"), stamp: r.Query.Value("Expires")}
	until, err := strconv.ParseInt(s.stamp, 10, 64)
	if s.AccessKey == "" || s.signature == "" || err != nil {
		return nil, wire.Errorf("AccessDenied", "A URL with this signature needs %s, Expires (seconds since 1970) and Signature.", key)
	}
	s.date = time.Unix(until, 0)
	return s, nil
}

func (s *Signature) verifyV2(r *Request, secret string, now time.Time) *wire.Error {
	if s.Kind == OBSHeader || s.Kind == V2Header {
		if skew := now.Sub(s.date); skew > MaxSkew || skew < -MaxSkew {
			return wire.Err("RequestTimeTooSkewed").With("ServerTime", wire.Time(now))
		}
	} else {
		switch {
		case !now.Before(s.date):
			return wire.Errorf("AccessDenied", "Request has expired: the URL was valid until %s.", wire.Time(s.date)).With("ServerTime", wire.Time(now))
		case s.date.Sub(now) > MaxExpires+MaxSkew:
			return wire.Errorf("AccessDenied", "Expires is more than 7 days from now.")
		}
	}
	s.payload = unsignedPayload
	paths := []string{wire.Escape(r.Path, true), r.RawPath}
	if r.Bucket == "" && strings.LastIndexByte(r.RawPath, '/') == 0 && r.RawPath != "/" {
		paths = append(paths, r.RawPath+"/") // boto signs /BUCKET/ and sends /BUCKET, which is the same
	}
	for _, path := range paths {
		h := hmac.New(sha1.New, []byte(secret))
		h.Write([]byte(s.v2String(r, path)))
		if hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(s.signature)) {
			return nil
		}
	}
	return wire.Err("SignatureDoesNotMatch").With("AWSAccessKeyId", s.AccessKey)
}

// v2String is what the signature is computed over.
func (s *Signature) v2String(r *Request, path string) string {
	prefix := strings.ToLower(s.Kind.prefix())
	var b strings.Builder
	b.WriteString(r.Method + "\n" + r.Header.Get("Content-Md5") + "\n" + r.Header.Get("Content-Type") + "\n" + s.stamp + "\n")
	var names []string
	for name := range r.Header {
		if strings.HasPrefix(strings.ToLower(name), prefix) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	for _, name := range names {
		values := make([]string, 0, 1)
		for _, v := range r.Header[name] {
			values = append(values, strings.TrimSpace(v))
		}
		b.WriteString(strings.ToLower(name) + ":" + strings.Join(values, ",") + "\n")
	}
	if r.Bucket != "" {
		b.WriteString("/" + r.Bucket)
	}
	b.WriteString(path)
	var resources []Param
	for _, p := range r.Query {
		if slices.Contains(v2Resources, p.Name) || s.Kind.obs() && strings.HasPrefix(strings.ToLower(p.Name), prefix) {
			resources = append(resources, p)
		}
	}
	slices.SortFunc(resources, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	for i, p := range resources {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(p.Name)
		if p.Value != "" {
			b.WriteString("=" + p.Value)
		}
	}
	return b.String()
}
