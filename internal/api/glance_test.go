package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const glanceImages = "/image/v2/images"

// TestVersionDocuments: the root is Keystone's and names v3 alone, the image service has
// a list of its own, with and without a slash. No credentials are asked for.
func TestVersionDocuments(t *testing.T) {
	t.Parallel()
	nobody := caller{world: shared}
	var root struct {
		Versions struct {
			Values []struct {
				ID    string
				Links []struct{ Href string }
			}
		}
	}
	a := nobody.send(t, "GET", "/", "")
	if err := json.Unmarshal(a.body, &root); err != nil || a.status != http.StatusMultipleChoices {
		t.Fatalf("GET /: %d %s %v", a.status, a.body, err)
	}
	if v := root.Versions.Values; len(v) != 1 || !strings.HasPrefix(v[0].ID, "v3") || v[0].Links[0].Href != shared.url+"/v3/" {
		t.Errorf("GET /: %s", a.body)
	}
	for path, href := range map[string]string{
		"/image": "/image/v2/", "/image/": "/image/v2/", "/image/versions": "/image/v2/", "/image/v2": "/image/v2/", "/image/v2/": "/image/v2/",
		"/versions": "/v2/", "/v2": "/v2/", "/v2/": "/v2/",
	} {
		var list struct {
			Versions []struct {
				ID, Status string
				Links      []struct{ Href string }
			}
		}
		a := nobody.send(t, "GET", path, "")
		want := http.StatusOK
		if path == "/image" || path == "/image/" {
			want = http.StatusMultipleChoices
		}
		if err := json.Unmarshal(a.body, &list); err != nil || a.status != want {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
		if len(list.Versions) < 2 || list.Versions[0].ID != "v2.9" || list.Versions[0].Status != "CURRENT" || list.Versions[0].Links[0].Href != shared.url+href {
			t.Errorf("GET %s: %+v", path, list)
		}
		for _, v := range list.Versions {
			switch v.ID {
			case "v2.8", "v2.10", "v2.12", "v2.15", "v2.17": // clients then ask for stores, tasks, locations
				t.Errorf("GET %s promises %s", path, v.ID)
			}
		}
	}
}

// TestTwoFaces: the same image, as each face spells it; all other paths are the same with
// and without the prefix.
func TestTwoFaces(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"image_tags": []map[string]string{{"key": "a", "value": "1"}}}))
	ims := c.expect(t, 200, "GET", "/v2/images/"+id, "")
	glance := c.expect(t, 200, "GET", glanceImages+"/"+id, "")
	if ims["disk_format"] != "zvhd2" || ims["__imagetype"] != "private" {
		t.Errorf("IMS: %v", ims)
	}
	for key, want := range map[string]any{
		"disk_format": "raw", "container_format": "bare", "size": 4096.0, "virtual_size": 4096.0, "checksum": nil, "os_hash_algo": nil,
		"os_hash_value": nil, "os_hidden": false, "visibility": "private", "status": "active", "self": "/v2/images/" + id, "owner": c.project,
	} {
		if got, ok := glance[key]; !ok || got != want {
			t.Errorf("Glance: %s is %v, want %v", key, got, want)
		}
	}
	for key := range glance {
		if strings.HasPrefix(key, "__") || key == "enterprise_project_id" {
			t.Errorf("Glance: %s is the service's own key", key)
		}
	}
	for _, path := range []string{"/v2/cloudimages?id=" + id, "/v1/cloudimages/quota", "/v1/cloudimages/os_version", "/v2/" + c.project + "/images/" + id + "/tags"} {
		a, b := c.send(t, "GET", path, ""), c.send(t, "GET", "/image"+path, "")
		if a.status != 200 || b.status != 200 || string(a.body) != string(b.body) {
			t.Errorf("%s: %d %s\nbelow /image: %d %s", path, a.status, a.body, b.status, b.body)
		}
	}
}

// TestGlancePages walks through lists: every order, in pages linked by next, which has no
// prefix.
func TestGlancePages(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for i := range 7 {
		c.active(t, systemDisk(map[string]any{"name": fmt.Sprint("n", i%3), "min_disk": 40 + i}))
	}
	walk := func(query string) (names []string) {
		next := "/v2/images?" + query
		for next != "" {
			if !strings.HasPrefix(next, "/v2/images") {
				t.Fatalf("next is %s", next)
			}
			var page struct {
				Images []struct {
					ID, Name string
					MinDisk  int `json:"min_disk"`
				}
				First, Schema, Next string
			}
			decode(t, c.send(t, "GET", "/image"+next, ""), &page)
			if page.Schema != "/v2/schemas/images" || strings.Contains(page.First, "marker") {
				t.Errorf("%s: schema %q, first %q", query, page.Schema, page.First)
			}
			for _, img := range page.Images {
				names = append(names, fmt.Sprintf("%s/%d", img.Name, img.MinDisk))
			}
			next = page.Next
		}
		return names
	}
	for query, want := range map[string]string{
		"limit=2&sort=name:asc,created_at:desc":                          "n0/46 n0/43 n0/40 n1/44 n1/41 n2/45 n2/42",
		"limit=3&sort_key=name&sort_key=created_at&sort_dir=asc":         "n0/40 n0/43 n0/46 n1/41 n1/44 n2/42 n2/45",
		"limit=1&sort_key=name&sort_dir=desc&sort_key=size&sort_dir=asc": "",
		"limit=2&sort=created_at:asc":                                    "n0/40 n1/41 n2/42 n0/43 n1/44 n2/45 n0/46",
		"limit=7":                                                        "n0/46 n2/45 n1/44 n0/43 n2/42 n1/41 n0/40",
		"name=n1&sort=created_at:asc":                                    "n1/41 n1/44",
		`name=in:n1,"n2"&sort=name:asc,created_at:asc`:                   "n1/41 n1/44 n2/42 n2/45",
		"min_disk=43": "n0/43",
		"size_min=4096&size_max=4096&limit=1&sort=created_at:asc&name=n2": "n2/42 n2/45",
		"size_min=4097":           "",
		"status=in:queued,saving": "",
		"disk_format=raw&name=n2&min_disk=45&container_format=bare&protected=False&os_hidden=false": "n2/45",
		"disk_format=zvhd2":                      "",
		"os_hidden=True":                         "",
		"some_property=x":                        "",
		"visibility=public":                      "",
		"visibility=private&name=n2&min_disk=45": "n2/45",
		"created_at=lt:2020-01-01T00:00:00Z":     "",
		"owner=" + c.project + "&min_disk=40":    "n0/40",
		"owner=somebody":                         "",
		"limit=0":                                "",
	} {
		got := strings.Join(walk(encoded(query)), " ")
		if strings.Contains(query, "sort_key=size") { // all are of one size: names fall, ties by id
			if n := strings.Fields(got); len(n) != 7 || n[0][:2] != "n2" || n[6][:2] != "n0" {
				t.Errorf("%s: %s", query, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, query := range []string{
		"limit=x", "limit=-1", "marker=x", "sort=nothing", "sort=name:up", "sort_dir=up", "sort=name&sort_key=id", "sort_key=name&sort_dir=asc&sort_dir=desc",
		"visibility=some", "member_status=some", "size_min=-1", "created_at=xx:2020", "protected=perhaps", "self=x", `name=in:"a`, `name=in:"a"b`, "name=a&name=b",
	} {
		c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", glanceImages+"?"+encoded(query), "")
	}
	c.refused(t, http.StatusNotFound, "IMG.0027", "GET", glanceImages+"?marker=00000000-0000-4000-8000-000000000000", "")
}

// encoded escapes the values of a query.
func encoded(query string) string {
	var out []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		out = append(out, name+"="+url.QueryEscape(value))
	}
	return strings.Join(out, "&")
}

// TestSchemasDeclare: the schemas declare every key that is not a string, as clients
// validate images by them, and no key that an image has not.
func TestSchemasDeclare(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	for _, prefix := range []string{"", "/image"} {
		img := c.expect(t, 200, "GET", prefix+"/v2/images/"+id, "")
		schema := c.expect(t, 200, "GET", prefix+"/v2/schemas/image", "")
		properties, _ := schema["properties"].(map[string]any)
		for key, value := range img {
			p, declared := properties[key].(map[string]any)
			if _, text := value.(string); !text && !declared {
				t.Errorf("%s: %s is %v and not declared", prefix, key, value)
			}
			if kinds, ok := p["type"].([]any); value == nil && declared && (!ok || kinds[0] != "null") {
				t.Errorf("%s: %s is null, its type is %v", prefix, key, p["type"])
			}
		}
		if prefix == "/image" && len(properties) != len(img) {
			t.Errorf("%d keys are declared, an image has %d", len(properties), len(img))
		}
		for _, name := range []string{"images", "member", "members", "task", "tasks"} {
			if v := c.expect(t, 200, "GET", prefix+"/v2/schemas/"+name, ""); v["name"] != name {
				t.Errorf("schema %s: %v", name, v["name"])
			}
		}
		c.refused(t, 404, "IMG.0121", "GET", prefix+"/v2/schemas/nothing", "")
	}
	for _, name := range []string{"namespace", "namespaces", "resource_type", "resource_types", "object", "property", "tag"} {
		called := strings.Replace(name, "resource_type", "resource_type_association", 1)
		if v := c.expect(t, 200, "GET", "/image/v2/schemas/metadefs/"+name, ""); v["name"] != called || v["properties"] == nil {
			t.Errorf("schema %s: %v", name, v)
		}
	}
	c.expect(t, 200, "GET", "/image/v2/metadefs/namespaces", "")
	c.expect(t, 200, "GET", "/image/v2/metadefs/resource_types", "")
}
