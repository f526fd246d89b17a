package objectstore

import (
	"context"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"
)

// A read of an image is many GETs of one object. What of a request has to be signed
// ("Signature Version 4": host, path, query, and x-amz- headers) is the same in all of
// them; range and condition need not be. So one signature serves for a while: to sign
// and to build each request anew takes a fifth of the time of a small read.

const (
	// signatureAge is how long a signature is used. Stores take one that is up to 15
	// minutes old, which clocks that differ must share.
	signatureAge = time.Minute
	// maxSignatures is how many are kept.
	maxSignatures = 1024
	// maxErrorBody is how much of an error's body is read, in bytes.
	maxErrorBody = 64 << 10
	// noPayload is the SHA-256 of nothing, which a GET has as its payload: a bucket's
	// policy may refuse requests that leave theirs unsigned.
	noPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// s3Object names what is read: one version of an object, or the newest.
type s3Object struct{ bucket, key, version string }

// signature is a GET of an object without a range, signed.
type signature struct {
	url    *url.URL
	header http.Header
	signed time.Time // by the wall clock, which is what the store compares
	until  time.Time
}

// fresh tells whether the signature may still be used: the time that has passed does not
// tell that the clock was set meanwhile, or that the machine slept.
func (g signature) fresh(now time.Time) bool {
	age := now.Round(0).Sub(g.signed)
	return now.Before(g.until) && age >= 0 && age < signatureAge
}

// signatures may be used by many goroutines at once.
type signatures struct {
	mu    sync.Mutex
	known map[s3Object]signature
}

func (s *signatures) get(o s3Object) (signature, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.known[o]
	return g, ok && g.fresh(time.Now())
}

func (s *signatures) put(o s3Object, g signature) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxSignatures {
		s.known = map[s3Object]signature{}
	}
	s.known[o] = g
}

// signature returns the signed GET of an object.
func (s *S3) signature(ctx context.Context, o s3Object) (signature, error) {
	if g, ok := s.signatures.get(o); ok {
		return g, nil
	}
	query := url.Values{}
	if o.version != "" {
		query.Set("versionId", o.version)
	}
	// Only the URL of it is used: the library knows where the bucket's name goes.
	u, err := s.client.Presign(ctx, http.MethodGet, o.bucket, o.key, signatureAge, query)
	if err != nil {
		return signature{}, err
	}
	u.RawQuery = query.Encode()
	req := http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"X-Amz-Content-Sha256": {noPayload}}}
	now := time.Now()
	g := signature{url: u, signed: now.Round(0), until: now.Add(signatureAge)}
	g.header = signer.SignV4(req, s.cfg.AccessKey, s.cfg.SecretKey, "", s.cfg.Region).Header
	s.signatures.put(o, g)
	return g, nil
}

// get asks for an object, with the headers of a range and of a condition. The answer
// has a body with bytes of the object.
func (s *S3) get(ctx context.Context, o s3Object, header http.Header) (*http.Response, error) {
	g, err := s.signature(ctx, o)
	if err != nil {
		return nil, err
	}
	maps.Copy(header, g.header)
	req := &http.Request{Method: http.MethodGet, URL: g.url, Host: g.url.Host, Header: header, ProtoMajor: 1, ProtoMinor: 1}
	// The transport itself: no redirect is followed, as a signature is for one host.
	resp, err := s.transport.RoundTrip(req.WithContext(ctx))
	if err != nil { // as http.Client says it: what fails on the way
		return nil, &url.Error{Op: "Get", URL: g.url.String(), Err: err}
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	defer resp.Body.Close()
	// What ends a body that does not go on.
	stall := time.AfterFunc(s.stall, func() { resp.Body.Close() })
	defer stall.Stop()
	said := minio.ErrorResponse{}
	body := io.LimitReader(resp.Body, maxErrorBody)
	_ = xml.NewDecoder(body).Decode(&said) // not all errors are XML; the status tells then
	_, _ = io.Copy(io.Discard, body)       // to its end, so that the connection can be used again
	said.StatusCode = resp.StatusCode
	if said.Code == "" {
		said.Code = strings.TrimSpace(resp.Status)
	}
	return nil, said
}
