package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quickims/quickims/internal/ims"
)

// query reads the parameters of a URL. An empty parameter counts as absent; one
// that may occur once must not occur twice; ones nobody asks for are ignored.
type query struct {
	values url.Values
	fault  error
}

func readQuery(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &query{fault: ims.Faultf(ims.CodeBadFormat, "the query is not well-formed")}
	}
	return &query{values: values}
}

func (q *query) refuse(format string, args ...any) {
	if q.fault == nil {
		q.fault = ims.Faultf(ims.CodeBadFormat, format, args...)
	}
}

// all reads a parameter that may be repeated, and whose values may be joined by
// commas.
func (q *query) all(name string) []string {
	var out []string
	for _, v := range q.values[name] {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if !plainText(part) {
				q.refuse("%s holds characters that are not text", name)
				return nil
			}
			out = append(out, part)
		}
	}
	return out
}

// one reads a parameter that may occur once.
func (q *query) one(name string) string {
	switch v := q.values[name]; {
	case len(v) == 0:
		return ""
	case len(v) > 1:
		q.refuse("%s occurs %d times in the query, it may occur once", name, len(v))
		return ""
	case !plainText(v[0]):
		q.refuse("%s holds characters that are not text", name)
		return ""
	default:
		return v[0]
	}
}

// choice reads a parameter that has one of some values.
func (q *query) choice(name string, of ...string) string {
	v := q.one(name)
	for _, c := range of {
		if v == c {
			return v
		}
	}
	if v != "" {
		q.refuse("%s is %q, it must be one of %s", name, clip(v), strings.Join(of, ", "))
	}
	return ""
}

// number reads a whole number of a range; absent is its default.
func (q *query) number(name string, absent, least, most int) int {
	v := q.one(name)
	if v == "" {
		return absent
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		q.refuse("%s is %q, it must be a number from %d to %d", name, clip(v), least, most)
		return absent
	}
	return n
}

// plainText reports whether s is text that a database takes: UTF-8 without control
// characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
