package s3face

import (
	"net/http"
	"strings"
)

// Huawei Cloud's Object Storage Service speaks S3 with headers named x-obs-
// where the request has its own signature. Such a request's headers are renamed
// before it is routed, and those of its response when they are sent.

const (
	obsPrefix = "X-Obs-"
	amzPrefix = "X-Amz-"
)

// fromOBS renames the headers of a request whose signature was proven.
func (q *request) fromOBS() {
	h := make(http.Header, len(q.r.Header))
	for name, values := range q.r.Header {
		if rest, ok := strings.CutPrefix(name, obsPrefix); ok {
			name = amzPrefix + rest
		} else if strings.HasPrefix(name, amzPrefix) {
			continue // not covered by this signature
		}
		h[name] = values
	}
	q.r.Header = h
	q.w.obs = true
}

// toOBS renames the headers of a response.
func toOBS(h http.Header) {
	for name, values := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			delete(h, name)
			h["x-obs-"+strings.TrimPrefix(lower, "x-amz-")] = values
		}
	}
}
