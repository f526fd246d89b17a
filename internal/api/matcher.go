package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// matcher finds the route of a request. Unlike http.ServeMux it never redirects,
// takes an encoded slash for part of its segment, and settles patterns that overlap
// (/v2/{project_id}/images/… and /v2/images/{image_id}/…) segment by segment: text
// before parameter, among those that know the method.
type matcher struct{ paths []pathRoutes }

// pathRoutes are the routes of one pattern.
type pathRoutes struct {
	pattern  string
	segments []segment
	methods  map[string]*Route
}

// segment is a piece of a pattern between slashes: a text or a parameter's name.
type segment struct{ text, parameter string }

func newMatcher(routes []Route) *matcher {
	m := &matcher{}
	for i := range routes {
		m.add(&routes[i])
	}
	slices.SortStableFunc(m.paths, func(a, b pathRoutes) int { return compareSegments(a.segments, b.segments) })
	return m
}

func (m *matcher) add(r *Route) {
	i := slices.IndexFunc(m.paths, func(p pathRoutes) bool { return p.pattern == r.Path })
	if i < 0 {
		i = len(m.paths)
		m.paths = append(m.paths, pathRoutes{pattern: r.Path, segments: splitPattern(r.Path), methods: map[string]*Route{}})
	}
	m.paths[i].methods[r.Method] = r
}

func splitPattern(pattern string) []segment {
	var out []segment
	for text := range strings.SplitSeq(strings.TrimPrefix(pattern, "/"), "/") {
		s := segment{text: text}
		if name, ok := strings.CutPrefix(text, "{"); ok {
			s = segment{parameter: strings.TrimSuffix(name, "}")}
		}
		out = append(out, s)
	}
	return out
}

// compareSegments orders the more specific pattern first.
func compareSegments(a, b []segment) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i].parameter == "" && b[i].parameter != "":
			return -1
		case a[i].parameter != "" && b[i].parameter == "":
			return 1
		}
	}
	return len(a) - len(b)
}

// match is what the table has for a request.
type match struct {
	route   *Route // nil: no route
	pattern string // of the route, or the most specific of those that match the path
	values  []string
	allow   []string // the methods of the path, sorted; none: there is no such path
}

// find gives the route of a method and a path. A path below /image that the table does
// not list is the one without that prefix; see prefixed.
func (m *matcher) find(method string, u *url.URL) match {
	rest, rooted := strings.CutPrefix(u.EscapedPath(), "/")
	if !rooted {
		return match{}
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		var err error
		if parts[i], err = url.PathUnescape(part); err != nil {
			return match{}
		}
	}
	found := m.lookUp(method, parts)
	if found.pattern == "" && prefixed(parts) {
		return m.lookUp(method, parts[1:])
	}
	return found
}

func (m *matcher) lookUp(method string, parts []string) match {
	var found match
	for i := range m.paths {
		p := &m.paths[i]
		values, ok := matchSegments(p.segments, parts)
		if !ok {
			continue
		}
		if r := p.route(method); r != nil {
			return match{route: r, pattern: p.pattern, values: values}
		}
		if found.pattern == "" {
			found.pattern = p.pattern
		}
		found.allow = append(found.allow, p.allow()...)
	}
	slices.Sort(found.allow)
	found.allow = slices.Compact(found.allow)
	return found
}

// route is the route of a method. A GET answers HEAD as well.
func (p *pathRoutes) route(method string) *Route {
	r := p.methods[method]
	if r == nil && method == http.MethodHead {
		r = p.methods[http.MethodGet]
	}
	return r
}

func (p *pathRoutes) allow() []string {
	var out []string
	for method := range p.methods {
		out = append(out, method)
		if method == http.MethodGet {
			out = append(out, http.MethodHead)
		}
	}
	return out
}

func matchSegments(pattern []segment, parts []string) (values []string, ok bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	for i, s := range pattern {
		switch {
		case s.parameter == "":
			if s.text != parts[i] {
				return nil, false
			}
		case parts[i] == "":
			return nil, false
		default:
			values = append(values, parts[i])
		}
	}
	return values, true
}

// setPathValues hands the parameters to the handler.
func (m match) setPathValues(r *http.Request) {
	n := 0
	for _, s := range splitPattern(m.pattern) {
		if s.parameter != "" && n < len(m.values) {
			r.SetPathValue(s.parameter, m.values[n])
			n++
		}
	}
}
