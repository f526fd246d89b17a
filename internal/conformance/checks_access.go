package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/client"
)

// Where promises are written.
const (
	refIMS      = "IMS API reference, release 20251110: "
	refGlance   = "OpenStack Image API v2: "
	refKeystone = "OpenStack Identity API v3: "
	refHTTP     = "RFC 9110: "
)

var discoveryChecks = []Check{
	{
		Name: "discovery/identity", Promise: "GET / lists v3 of the identity API, so that OpenStack's clients find where to log in",
		Reference: refKeystone + "list versions", run: identityVersions,
	},
	{
		Name: "discovery/image", Promise: "GET /image lists the versions of the Image API, one of them CURRENT",
		Reference: refGlance + "API versions", run: imageVersions,
	},
}

func identityVersions(ctx context.Context, r *run) error {
	a, err := r.Identity.Call(ctx, client.Call{Method: http.MethodGet, Path: "/", Anonymous: true})
	if err != nil {
		return err
	}
	if err := notOffered(a); err != nil {
		return err
	}
	var doc struct {
		Versions struct {
			Values []struct{ ID, Status string }
		}
	}
	if a.Status != http.StatusMultipleChoices && a.Status != http.StatusOK || json.Unmarshal(a.Body, &doc) != nil {
		return fmt.Errorf("GET / answers %s; it must be 300 with a list of versions", brief(a))
	}
	for _, v := range doc.Versions.Values {
		if strings.HasPrefix(v.ID, "v3") {
			return nil
		}
	}
	return fmt.Errorf("GET / lists no v3: %s", brief(a))
}

func imageVersions(ctx context.Context, r *run) error {
	a, err := r.API.Call(ctx, client.Call{Method: http.MethodGet, Path: "/image", Anonymous: true})
	if err != nil {
		return err
	}
	if err := notOffered(a); err != nil {
		return err
	}
	var doc struct {
		Versions []struct{ ID, Status string }
	}
	if json.Unmarshal(a.Body, &doc) != nil || a.Status >= 400 {
		return fmt.Errorf("GET /image answers %s; it must list the versions", brief(a))
	}
	for _, v := range doc.Versions {
		if v.Status == "CURRENT" && strings.HasPrefix(v.ID, "v2.") {
			return nil
		}
	}
	return fmt.Errorf("GET /image lists no current v2: %s", brief(a))
}

var tokenChecks = []Check{
	{
		Name: "token/issue", Promise: "a password gets a token with its project, roles, end and a catalogue that names an image service",
		Reference: refKeystone + "password authentication with scoped authorization", needs: needLogin, run: issueToken,
	},
	{
		Name: "token/show", Promise: "a token shows what it stands for, by GET and by HEAD", Reference: refKeystone + "validate and show information for token",
		needs: needLogin, run: showToken,
	},
	{
		Name: "token/revoke", Promise: "a revoked token is refused with 401 at once", Reference: refKeystone + "revoke token", needs: needLogin, Writes: true, run: revokeToken,
	},
	{
		Name: "token/unknown-user", Promise: "a login of a user that does not exist is refused with 401, as a wrong password is",
		Reference: refKeystone + "password authentication", needs: needLogin, run: unknownUser,
	},
	{
		Name: "access/no-token", Promise: "a request without credentials is refused with 401", Reference: refIMS + "status codes",
		run: func(ctx context.Context, r *run) error { return r.unauthorized(ctx, client.Call{Anonymous: true}) },
	},
	{
		Name: "access/forged-token", Promise: "a token that was never issued is refused with 401", Reference: refIMS + "status codes",
		run: func(ctx context.Context, r *run) error {
			return r.unauthorized(ctx, client.Call{Token: client.Secret(strings.Repeat("A", 43))})
		},
	},
}

// unauthorized sends a list request that must answer 401.
func (r *run) unauthorized(ctx context.Context, c client.Call) error {
	c.Method, c.Path = http.MethodGet, "/v2/cloudimages?limit=1"
	a, err := r.API.Call(ctx, c)
	if err == nil && a.Status != http.StatusUnauthorized {
		err = fmt.Errorf("GET %s answers %s; it must be 401", c.Path, brief(a))
	}
	return err
}

// tokenDoc is what is read of a token's document.
type tokenDoc struct {
	Token struct {
		Project struct{ ID string }
		User    struct{ Name string }
		Roles   []struct{ Name string }
		Expires string `json:"expires_at"`
		Catalog []struct{ Type string }
	}
}

// login gets a token, for the project, with its document.
func (r *run) login(ctx context.Context) (client.Secret, tokenDoc, error) {
	const path = "/v3/auth/tokens"
	var doc tokenDoc
	body, err := r.Login.Body(r.ProjectID)
	if err != nil {
		return "", doc, err
	}
	a, err := r.Identity.Call(ctx, client.Call{Method: http.MethodPost, Path: path, Body: body, Anonymous: true})
	if err != nil {
		return "", doc, err
	}
	if err := readAs(a, http.StatusCreated, http.MethodPost, path, &doc); err != nil {
		return "", doc, err
	}
	token := a.Header.Get("X-Subject-Token")
	if token == "" {
		return "", doc, errors.New("POST /v3/auth/tokens: the answer has no X-Subject-Token")
	}
	return client.Secret(token), doc, nil
}

func issueToken(ctx context.Context, r *run) error {
	_, doc, err := r.login(ctx)
	if err != nil {
		return err
	}
	t := doc.Token
	switch ends, err := time.Parse(time.RFC3339, t.Expires); {
	case err != nil || !ends.After(time.Now()):
		return fmt.Errorf("expires_at is %q; it must be a time to come", t.Expires)
	case r.ProjectID != "" && t.Project.ID != r.ProjectID:
		return fmt.Errorf("the token is for project %q; it was asked for %q", t.Project.ID, r.ProjectID)
	case len(t.Roles) == 0:
		return errors.New("the token has no roles")
	}
	for _, s := range t.Catalog {
		if s.Type == "image" || s.Type == "ims" {
			return nil
		}
	}
	return errors.New("the catalogue names no image service")
}

func showToken(ctx context.Context, r *run) error {
	token, _, err := r.login(ctx)
	if err != nil {
		return err
	}
	subject := http.Header{"X-Subject-Token": {string(token)}}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a, err := r.Identity.Call(ctx, client.Call{Method: method, Path: "/v3/auth/tokens", Token: token, Header: subject})
		if err != nil {
			return err
		}
		if a.Status != http.StatusOK {
			return fmt.Errorf("%s /v3/auth/tokens answers %s; it must be 200", method, brief(a))
		}
		var doc tokenDoc
		if method == http.MethodGet && (json.Unmarshal(a.Body, &doc) != nil || doc.Token.User.Name != r.Login.User) {
			return fmt.Errorf("GET /v3/auth/tokens shows another user: %s", brief(a))
		}
	}
	return nil
}

func revokeToken(ctx context.Context, r *run) error {
	token, _, err := r.login(ctx)
	if err != nil {
		return err
	}
	a, err := r.Identity.Call(ctx, client.Call{Method: http.MethodDelete, Path: "/v3/auth/tokens", Token: token, Header: http.Header{"X-Subject-Token": {string(token)}}})
	if err != nil {
		return err
	}
	if err := notOffered(a); err != nil {
		return err
	}
	if a.Status != http.StatusNoContent {
		return fmt.Errorf("DELETE /v3/auth/tokens answers %s; it must be 204", brief(a))
	}
	return r.unauthorized(ctx, client.Call{Token: token})
}

func unknownUser(ctx context.Context, r *run) error {
	l := r.Login
	l.User, l.Password = r.name, "no such user"
	body, err := l.Body(r.ProjectID)
	if err != nil {
		return err
	}
	a, err := r.Identity.Call(ctx, client.Call{Method: http.MethodPost, Path: "/v3/auth/tokens", Body: body, Anonymous: true})
	if err == nil && a.Status != http.StatusUnauthorized {
		err = fmt.Errorf("POST /v3/auth/tokens answers %s; it must be 401", brief(a))
	}
	return err
}

var errorChecks = []Check{
	{
		Name: "error/unknown-image", Promise: "an image that does not exist is 404 with IMG.0027 in the form of an error", Reference: refIMS + "error codes",
		run: func(ctx context.Context, r *run) error {
			path := "/v2/images/" + unknownID()
			a, err := r.call(ctx, http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			if a.Status != http.StatusNotFound {
				return fmt.Errorf("GET %s answers %s; it must be 404", path, brief(a))
			}
			return isRefusal(a, http.MethodGet, path, "IMG.0027")
		},
	},
	{
		Name: "error/form", Promise: "errors are JSON, and say so in Content-Type", Reference: refIMS + "returned values",
		run: func(ctx context.Context, r *run) error {
			a, err := r.call(ctx, http.MethodGet, "/v2/images/"+unknownID(), nil)
			if err != nil {
				return err
			}
			if ct := a.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
				return fmt.Errorf("the Content-Type of an error is %q; it must be application/json", ct)
			}
			return isRefusal(a, http.MethodGet, "/v2/images/ID")
		},
	},
	{
		Name: "error/other-project", Promise: "a path with another project's id is refused, with IMG.0030", Reference: refIMS + "error codes",
		run: func(ctx context.Context, r *run) error {
			other := strings.ReplaceAll(unknownID(), "-", "")
			return r.refused(ctx, http.MethodGet, "/v1/"+other+"/jobs/"+other, nil, "IMG.0030")
		},
	},
}

var listChecks = []Check{
	{
		Name: "list/images", Promise: "a list is {\"images\":[...]}, and each image has the keys that clients read, of their types",
		Reference: refIMS + "query images", run: listImages,
	},
	{
		Name: "list/limit", Promise: "limit bounds a page, and marker goes on behind an image without repeating one", Reference: refIMS + "query images", run: listPages,
	},
	{
		Name: "list/order", Promise: "sort_key and sort_dir order the list; the newest come first by default", Reference: refIMS + "query images", run: listOrder,
	},
	{
		Name: "list/no-match", Promise: "a filter that nothing matches gives an empty list, not null and no error", Reference: refIMS + "query images",
		run: func(ctx context.Context, r *run) error {
			for _, query := range []string{"name=" + r.name + "-nothing", "id=" + unknownID()} {
				images, err := r.list(ctx, query)
				if err != nil {
					return err
				}
				if len(images) > 0 {
					return fmt.Errorf("the filter %s finds %d images; it must find none", query, len(images))
				}
			}
			return nil
		},
	},
	{
		Name: "list/wrong-limit", Promise: "a limit that is no number is refused", Reference: refIMS + "query images",
		run: func(ctx context.Context, r *run) error {
			return r.refused(ctx, http.MethodGet, "/v2/cloudimages?limit=many", nil)
		},
	},
	{
		Name: "list/openstack", Promise: "GET /v2/images lists with schema and first, and a full page names the next", Reference: refGlance + "list images", run: openStackList,
	},
}

// imageKeys are the keys of an image that clients read, with their types.
var imageKeys = map[string]string{
	"id": "string", "name": "string", "status": "string", "visibility": "string", "owner": "string", "protected": "boolean",
	"min_disk": "number", "min_ram": "number", "tags": "array", "created_at": "string", "updated_at": "string",
	"self": "string", "file": "string", "schema": "string", "virtual_env_type": "string", "__imagetype": "string", "__isregistered": "string",
}

// list gives the images of a list with a query, "" for none.
func (r *run) list(ctx context.Context, query string) ([]map[string]any, error) {
	path := "/v2/cloudimages"
	if query != "" {
		path += "?" + query
	}
	var doc struct {
		Images *[]map[string]any `json:"images"`
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, path, nil, &doc); err != nil {
		return nil, err
	}
	if doc.Images == nil {
		return nil, fmt.Errorf("GET %s answers without an array of images", path)
	}
	return *doc.Images, nil
}

func listImages(ctx context.Context, r *run) error {
	images, err := r.list(ctx, "limit=50")
	if err != nil {
		return err
	}
	for _, img := range images {
		if err := mustHave(img, fmt.Sprintf("image %v", img["id"]), imageKeys); err != nil {
			return err
		}
	}
	return nil
}

// pagesLooked bounds how far lists are followed: a public cloud has hundreds of images.
const pagesLooked = 3

func listPages(ctx context.Context, r *run) error {
	seen := map[any]bool{}
	query := "limit=2"
	for range pagesLooked {
		page, err := r.list(ctx, query)
		if err != nil {
			return err
		}
		if len(page) > 2 {
			return fmt.Errorf("a list with %s has %d images", query, len(page))
		}
		for _, img := range page {
			if seen[img["id"]] {
				return fmt.Errorf("image %v is on two pages", img["id"])
			}
			seen[img["id"]] = true
		}
		if len(page) < 2 {
			return nil
		}
		query = fmt.Sprintf("limit=2&marker=%v", page[1]["id"])
	}
	return nil
}

func listOrder(ctx context.Context, r *run) error {
	for query, key := range map[string]string{"": "created_at", "sort_key=created_at&sort_dir=asc": "created_at", "sort_key=name&sort_dir=asc": "name", "sort_key=name&sort_dir=desc": "name"} {
		images, err := r.list(ctx, "limit=50&"+query)
		if err != nil {
			return err
		}
		var values []string
		for _, img := range images {
			text, _ := img[key].(string)
			values = append(values, text)
		}
		if !strings.HasSuffix(query, "asc") {
			slices.Reverse(values)
		}
		// The order of names depends on the service's alphabet.
		if key == "created_at" && !slices.IsSorted(values) {
			return fmt.Errorf("a list with %q is not in order: %v", query, values)
		}
	}
	return nil
}

func openStackList(ctx context.Context, r *run) error {
	var doc struct {
		Images *[]map[string]any
		Schema string
		First  string
		Next   string
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v2/images?limit=1", nil, &doc); err != nil {
		return err
	}
	if doc.Images == nil || doc.Schema == "" || doc.First == "" {
		return errors.New("GET /v2/images answers without images, schema or first")
	}
	if len(*doc.Images) == 1 && doc.Next == "" {
		return errors.New("a full page names no next one")
	}
	if doc.Next == "" {
		return nil
	}
	return r.expect(ctx, http.StatusOK, http.MethodGet, doc.Next, nil, &doc)
}

var quotaChecks = []Check{
	{
		Name: "quota/images", Promise: "the quota has a resource image, of which no more is used than there is", Reference: refIMS + "query quota", run: quota,
	},
	{
		Name: "quota/os-versions", Promise: "the operating systems are listed by platform, each with the name that an import takes", Reference: refIMS + "query operating systems",
		run: osVersions,
	},
}
