package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/quickims/quickims"
	"github.com/quickims/quickims/internal/api"
)

func init() {
	for _, kind := range []string{"v2.0", "v2.1"} {
		openapi3filter.RegisterBodyDecoder("application/openstack-images-"+kind+"-json-patch", openapi3filter.JSONBodyDecoder)
	}
}

var openapi = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(quickims.OpenAPI)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background(), openapi3.DisableExamplesValidation())
})

// TestOpenAPIDescribesTheRoutes holds openapi.yaml equal to the route table, both ways.
func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	t.Parallel()
	doc, err := openapi()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]*openapi3.Operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+path] = op
		}
	}
	for _, r := range api.Routes() {
		name := r.Method + " " + r.Path
		op := described[name]
		if op == nil {
			t.Errorf("%s is not described", name)
			continue
		}
		delete(described, name)
		if public := op.Security != nil && len(*op.Security) == 0; public != r.Public {
			t.Errorf("%s: public is %v in the table, %v in the description", name, r.Public, public)
		}
		checkParameters(t, name, r.Path, doc.Paths.Value(r.Path), op)
		for _, status := range promised(r) {
			if op.Responses.Value(status) == nil {
				t.Errorf("%s: the answer %s is not described", name, status)
			}
		}
		if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 || doc.Tags.Get(op.Tags[0]) == nil {
			t.Errorf("%s: operationId, summary or tag is missing", name)
		}
	}
	for name := range described {
		t.Errorf("%s is described and not in the table", name)
	}
}

// promised are the statuses that a route can always give.
func promised(r api.Route) []string {
	if r.Public {
		return nil
	}
	out := []string{"401", "500", "503"}
	if len(r.Actions) > 0 {
		out = append(out, "403")
	}
	if r.Scope != api.ScopeNone {
		out = append(out, "400")
	}
	return out
}

func checkParameters(t *testing.T, name, path string, item *openapi3.PathItem, op *openapi3.Operation) {
	t.Helper()
	var want, got []string
	for s := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(s, "{") {
			want = append(want, strings.Trim(s, "{}"))
		}
	}
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		if p.Value.In == "path" {
			got = append(got, p.Value.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%s: path parameters %v are described, the path has %v", name, got, want)
	}
}

// described finds the operation of a request in the description.
func described(doc *openapi3.T, method, path string) (*routers.Route, map[string]string) {
	parts := strings.Split(path, "/")
	var best *routers.Route
	var values map[string]string
	for pattern, item := range doc.Paths.Map() {
		op := item.GetOperation(method)
		segments := strings.Split(pattern, "/")
		if op == nil || len(segments) != len(parts) {
			continue
		}
		v, ok := map[string]string{}, true
		for i, s := range segments {
			switch {
			case strings.HasPrefix(s, "{"):
				v[strings.Trim(s, "{}")] = parts[i]
			case s != parts[i]:
				ok = false
			}
		}
		if ok && (best == nil || len(v) < len(values)) {
			best = &routers.Route{Spec: doc, Path: pattern, PathItem: item, Method: method, Operation: op}
			values = v
		}
	}
	return best, values
}

// checkAgainstOpenAPI holds a real answer against its schema, and the request against
// its own where the server took it: what the server accepts must be described.
func checkAgainstOpenAPI(t testing.TB, req *http.Request, body string, a answer) {
	t.Helper()
	doc, err := openapi()
	if err != nil {
		t.Fatal(err)
	}
	route, values := described(doc, req.Method, req.URL.EscapedPath())
	if route == nil {
		return // HEAD, and what must not exist
	}
	r := req.Clone(context.Background())
	// Empty parameters and blank bodies count as absent, which no schema can say.
	query := r.URL.Query()
	for name, v := range query {
		if !slices.ContainsFunc(v, func(s string) bool { return s != "" }) && name != "nocatalog" {
			query.Del(name)
		}
	}
	r.URL.RawQuery = query.Encode()
	body = strings.TrimSpace(body)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	if body == "" {
		r.Body = http.NoBody
	} else if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json") // the server does not insist on it
	}
	options := &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
	}
	input := &openapi3filter.RequestValidationInput{Request: r, PathParams: values, Route: route, Options: options}
	if a.status < http.StatusMultipleChoices && !strings.HasPrefix(t.Name(), "TestLenient") {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			t.Errorf("%s %s was accepted and is not described: %v", req.Method, req.URL, err)
		}
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.status, Header: a.header,
		Body: io.NopCloser(bytes.NewReader(a.body)), Options: options,
	})
	if err != nil {
		t.Errorf("%s %s: the answer is not as described: %v", req.Method, req.URL, err)
	}
}
