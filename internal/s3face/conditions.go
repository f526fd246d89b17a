package s3face

import (
	"net/http"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/s3face/files"
	"github.com/quickims/quickims/internal/s3face/wire"
)

// conditions are the headers that make a request conditional (RFC 9110 section
// 13), or, with a prefix, those on the source of a copy.
type conditions struct {
	match, noneMatch       string
	hasMatch, hasNoneMatch bool
	modified, unmodified   time.Time // zero if absent or not a time
}

func readConditions(h http.Header, prefix string) conditions {
	var c conditions
	get := func(name string) (string, bool) {
		v, ok := h[http.CanonicalHeaderKey(prefix+name)]
		return strings.Join(v, ","), ok
	}
	c.match, c.hasMatch = get("If-Match")
	c.noneMatch, c.hasNoneMatch = get("If-None-Match")
	if v, ok := get("If-Modified-Since"); ok {
		c.modified, _ = http.ParseTime(v)
	}
	if v, ok := get("If-Unmodified-Since"); ok {
		c.unmodified, _ = http.ParseTime(v)
	}
	return c
}

// verdict is what conditions say of an object.
type verdict int

const (
	holds verdict = iota
	notModified
	failed
)

// of evaluates the conditions in the order of RFC 9110 section 13.2.2. name is
// the header that does not hold.
func (c conditions) of(o *files.Object) (v verdict, name string) {
	modTime := o.ModTime.Truncate(time.Second)
	if c.hasMatch {
		if !matches(c.match, o.ETag) {
			return failed, "If-Match"
		}
	} else if !c.unmodified.IsZero() && modTime.After(c.unmodified) {
		return failed, "If-Unmodified-Since"
	}
	if c.hasNoneMatch {
		if matches(c.noneMatch, o.ETag) {
			return notModified, "If-None-Match"
		}
	} else if !c.modified.IsZero() && !modTime.After(c.modified) {
		return notModified, "If-Modified-Since"
	}
	return holds, ""
}

// matches reports whether a list of entity tags, with or without quotes, holds
// an ETag, or is a star.
func matches(list, etag string) bool {
	for tag := range strings.SplitSeq(list, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.Trim(strings.TrimPrefix(tag, "W/"), `"`) == etag {
			return true
		}
	}
	return false
}

func preconditionFailed(header string) error {
	return wire.Errorf("PreconditionFailed", "At least one of the pre-conditions you specified did not hold: %s.", header).With("Condition", header)
}

// onWrite is the condition that a request makes on the object that it replaces
// or deletes; nil if it makes none.
func (q *request) onWrite() files.Condition {
	c := readConditions(q.r.Header, "")
	if !c.hasMatch && !c.hasNoneMatch {
		return nil
	}
	return func(now *files.Object) error {
		switch {
		case c.hasMatch && now == nil:
			return wire.Err("NoSuchKey").With("Key", xmlText(q.key))
		case c.hasMatch && !matches(c.match, now.ETag):
			return preconditionFailed("If-Match")
		case c.hasNoneMatch && now != nil && matches(c.noneMatch, now.ETag):
			return preconditionFailed("If-None-Match")
		}
		return nil
	}
}
