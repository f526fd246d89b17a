package api

import (
	"math"
	"net/http"
	"net/url"
	"slices"
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
	asked  map[string]bool // names that were asked for
	fault  error
}

func readQuery(r *http.Request) *query {
	values, err := parseQuery(r)
	return &query{values: values, asked: map[string]bool{}, fault: err}
}

// parseQuery reads a query of which every byte must be well-formed.
func parseQuery(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, ims.Faultf(ims.CodeBadFormat, "the query is not well-formed: a %% needs two hexadecimal digits, a semicolon must be escaped")
	}
	return values, nil
}

// rest are the names that nobody has asked for and that have a value, sorted.
func (q *query) rest() []string {
	var out []string
	for name, v := range q.values {
		if !q.asked[name] && slices.ContainsFunc(v, func(s string) bool { return s != "" }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (q *query) refuse(format string, args ...any) {
	if q.fault == nil {
		q.fault = ims.Faultf(ims.CodeBadFormat, format, args...)
	}
}

// all reads a parameter that may be repeated, and whose values may be joined by
// commas.
func (q *query) all(name string) []string {
	q.asked[name] = true
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
	q.asked[name] = true
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
		q.refuse("%s is %q, it must be one of %s", name, ims.Clip(v), strings.Join(of, ", "))
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
		q.refuse("%s is %q, it must be a number from %d to %d", name, ims.Clip(v), least, most)
		return absent
	}
	return n
}

// boolean reads true or false; nil when it is absent.
func (q *query) boolean(name string) *bool {
	v := q.choice(name, "true", "false")
	if v == "" {
		return nil
	}
	return new(v == "true")
}

// whole reads a number that a column of 32 bits can hold; nil when it is absent.
func (q *query) whole(name string) *int {
	n := q.number(name, -1, 0, math.MaxInt32)
	if n < 0 {
		return nil
	}
	return &n
}

// plainText reports whether s is text that a database takes: UTF-8 without control
// characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
