package auth

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

// obsResources are the query's parameters that the OBS signature covers
// (Object Storage Service API Reference, "Authentication of signature in a header").
var obsResources = []string{
	"CDNNotifyConfiguration", "acl", "append", "attname", "backtosource", "cors", "customdomain", "delete", "deletebucket", "directcoldaccess",
	"encryption", "inventory", "length", "lifecycle", "location", "logging", "metadata", "modify", "name", "notification", "object-lock",
	"obsworm", "orchestration", "partNumber", "policy", "position", "quota", "rename", "replication", "requestPayment",
	"response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language", "response-content-type", "response-expires",
	"restore", "retention", "storageClass", "storagePolicy", "storageinfo", "tagging", "torrent", "truncate", "uploadId", "uploads", "versionId",
	"versioning", "versions", "website", "x-image-process", "x-image-save-bucket", "x-image-save-object", "x-obs-security-token",
}

func readOBSHeader(r *Request, rest string) (*Signature, *wire.Error) {
	key, signature, ok := strings.Cut(strings.TrimSpace(rest), ":")
	if !ok || key == "" || signature == "" {
		return nil, wire.Errorf("InvalidArgument", "The Authorization header must have the form OBS ACCESS-KEY:SIGNATURE.")
	}
	s := &Signature{Kind: OBSHeader, AccessKey: key, signature: signature, stamp: r.Header.Get("Date")}
	when := s.stamp
	if d := r.Header.Get("X-Obs-Date"); d != "" {
		s.stamp, when = "", d // the header itself is signed
	}
	var err error
	if s.date, err = http.ParseTime(when); err != nil {
		if s.date, err = time.Parse(v4Time, when); err != nil {
			return nil, wire.Errorf("AccessDenied", "The request has no valid time: the OBS signature needs an x-obs-date or Date header.")
		}
	}
	return s, nil
}

func readOBSQuery(r *Request) (*Signature, *wire.Error) {
	if r.Query.Has("AWSAccessKeyId") {
		return nil, wire.Errorf("InvalidRequest", "Signature Version 2 is not offered; use %s.", v4Algorithm)
	}
	s := &Signature{Kind: OBSQuery, AccessKey: r.Query.Value("AccessKeyId"), signature: r.Query.Value("Signature"), stamp: r.Query.Value("Expires")}
	until, err := strconv.ParseInt(s.stamp, 10, 64)
	if s.AccessKey == "" || s.signature == "" || err != nil {
		return nil, wire.Errorf("AccessDenied", "A URL with an OBS signature needs AccessKeyId, Expires (seconds since 1970) and Signature.")
	}
	s.date = time.Unix(until, 0)
	return s, nil
}

func (s *Signature) verifyOBS(r *Request, secret string, now time.Time) *wire.Error {
	if s.Kind == OBSHeader {
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
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(s.obsString(r)))
	if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(s.signature)) {
		return wire.Err("SignatureDoesNotMatch").With("AWSAccessKeyId", s.AccessKey)
	}
	s.payload = unsignedPayload
	return nil
}

// obsString is what the OBS signature is computed over.
func (s *Signature) obsString(r *Request) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + r.Header.Get("Content-Md5") + "\n" + r.Header.Get("Content-Type") + "\n" + s.stamp + "\n")
	var names []string
	for name := range r.Header {
		if strings.HasPrefix(strings.ToLower(name), "x-obs-") {
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
	b.WriteString(wire.Escape(r.Path, true))
	var resources []Param
	for _, p := range r.Query {
		if slices.Contains(obsResources, p.Name) || strings.HasPrefix(strings.ToLower(p.Name), "x-obs-") {
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
