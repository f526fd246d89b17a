package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// created makes an image without data and gives its id.
func (c caller) created(t testing.TB, request string) string {
	t.Helper()
	id, _ := c.expect(t, http.StatusCreated, "POST", glanceImages, request)["id"].(string)
	return id
}

// TestGlanceCreate: defaults, every key, and what is refused with which status.
func TestGlanceCreate(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	a := c.send(t, "POST", glanceImages, `{}`)
	id := strings.TrimPrefix(a.header.Get("Location"), "/v2/images/")
	if a.status != http.StatusCreated || !ims.ValidUUID(id) || a.header.Get("OpenStack-image-import-methods") != "glance-direct" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	got := c.expect(t, 200, "GET", glanceImages+"/"+id, "")
	for key, want := range map[string]any{
		"name": nil, "status": "queued", "visibility": "shared", "disk_format": nil, "container_format": nil, "size": nil, "min_disk": 0.0,
		"min_ram": 0.0, "protected": false, "os_hidden": false, "owner": c.project, "checksum": nil,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	const chosen = "11111111-2222-4333-8444-555555555555"
	all := `{"id":"` + chosen + `","name":"n","owner":"` + c.project + `","visibility":"private","disk_format":"qcow2","container_format":"bare",
		"min_disk":2,"min_ram":3,"protected":true,"os_hidden":true,"tags":["b","a","a"],"hw_disk_bus":"scsi","a.b":"","owner_specified.openstack.md5":""}`
	got = c.expect(t, http.StatusCreated, "POST", glanceImages, all)
	if got["id"] != chosen || got["hw_disk_bus"] != "scsi" || got["a.b"] != "" || jsonText(got["tags"]) != `["a","b"]` || got["os_hidden"] != true {
		t.Errorf("%v", got)
	}
	if shown := c.expect(t, 200, "GET", glanceImages+"/"+chosen, ""); jsonText(shown) != jsonText(got) {
		t.Errorf("shown as\n%v, created as\n%v", shown, got)
	}
	shared.newProject(t).refused(t, http.StatusConflict, "IMG.0035", "POST", glanceImages, `{"id":"`+chosen+`"}`)
	for body, want := range map[string]struct {
		status int
		code   ims.Code
	}{
		`{"id":"X"}`: {400, "IMG.0001"}, `{"name":1}`: {400, "IMG.0001"}, `{"name":"` + strings.Repeat("n", 256) + `"}`: {400, "IMG.0001"},
		`{"disk_format":"zvhd2"}`: {400, "IMG.0001"}, `{"container_format":1}`: {400, "IMG.0001"}, `{"min_disk":"2"}`: {400, "IMG.0001"},
		`{"min_disk":1.5}`: {400, "IMG.0001"}, `{"min_ram":-1}`: {400, "IMG.0001"}, `{"min_ram":1e300}`: {400, "IMG.0001"}, `{"protected":"yes"}`: {400, "IMG.0001"},
		`{"tags":"a"}`: {400, "IMG.0001"}, `{"tags":[""]}`: {400, "IMG.0001"}, `{"p":null}`: {400, "IMG.0001"}, `{"p":{"a":"b"}}`: {400, "IMG.0001"}, `{"":"p"}`: {400, "IMG.0001"},
		`{"visibility":"some"}`: {400, "IMG.0001"}, `{"visibility":"public"}`: {403, "IMG.0161"}, `{"visibility":"community"}`: {403, "IMG.0161"},
		`{"owner":"other"}`: {403, "IMG.0161"}, `{"status":"active"}`: {403, "IMG.0035"}, `{"size":1}`: {403, "IMG.0035"}, `{"locations":[]}`: {403, "IMG.0035"},
		`{"os_glance_x":"y"}`: {403, "IMG.0035"}, `{"__os_version":"y"}`: {403, "IMG.0035"}, `{"deleted":"y"}`: {403, "IMG.0035"},
		`{"tags":[` + numbered(ims.MaxOpenStackTags+1) + `]}`: {413, "IMG.0116"},
	} {
		c.refused(t, want.status, want.code, "POST", glanceImages, body)
	}
	c.owns(t, 2)
}

// numbered is a list of n different texts of JSON.
func numbered(n int) string {
	var out []string
	for i := range n {
		out = append(out, `"`+strings.Repeat("t", i+1)+`"`)
	}
	return strings.Join(out, ",")
}

// TestGlancePatch: both media types, all operations or none.
func TestGlancePatch(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.created(t, `{"name":"a","p":"1","tags":["x"],"disk_format":"raw"}`)
	path := glanceImages + "/" + id
	const v20 = "application/openstack-images-v2.0-json-patch"
	same := func(ops string, want map[string]any) {
		t.Helper()
		got := c.expect(t, 200, "PATCH", path, ops)
		if shown := c.expect(t, 200, "GET", path, ""); jsonText(shown) != jsonText(got) {
			t.Errorf("%s: shown as\n%v, answered\n%v", ops, shown, got)
		}
		for key, v := range want {
			if jsonText(got[key]) != jsonText(v) {
				t.Errorf("%s: %s is %v, want %v", ops, key, got[key], v)
			}
		}
	}
	same(`[]`, map[string]any{"name": "a"})
	same(`[{"op":"add","path":"/name","value":"b"},{"op":"replace","path":"/p","value":"2"},{"op":"add","path":"/q~1r~0s","value":""}]`,
		map[string]any{"name": "b", "p": "2", "q/r~s": ""})
	same(`[{"op":"add","path":"/p","value":"3"},{"op":"remove","path":"/q~1r~0s"}]`, map[string]any{"p": "3", "q/r~s": nil})
	same(`[{"op":"replace","path":"/tags","value":["y","x","y"]},{"op":"replace","path":"/min_disk","value":3},{"op":"replace","path":"/min_ram","value":4}]`,
		map[string]any{"tags": []string{"x", "y"}, "min_disk": 3, "min_ram": 4})
	same(`[{"op":"replace","path":"/protected","value":true},{"op":"add","path":"/os_hidden","value":true},{"op":"add","path":"/owner","value":"`+c.project+`"}]`,
		map[string]any{"protected": true, "os_hidden": true})
	same(`[{"op":"replace","path":"/visibility","value":"private"},{"op":"replace","path":"/disk_format","value":"qcow2"}]`,
		map[string]any{"visibility": "private", "disk_format": "qcow2"})
	if a := c.send(t, "PATCH", path, `[{"replace":"/name","value":"c"},{"add":"/new","value":"1"},{"remove":"/p"}]`, "Content-Type", v20); a.status != 200 {
		t.Errorf("v2.0: %d %s", a.status, a.body)
	}
	c.send(t, "PATCH", path, `[{"add":"/new","value":"2"}]`, "Content-Type", v20).refused(t, 409, "IMG.0035")
	before := c.send(t, "GET", path, "").body
	for _, kind := range []string{"application/json", "", "application/json-patch+json", "nonsense"} {
		a := c.send(t, "PATCH", path, `[]`, "Content-Type", kind)
		a.refused(t, http.StatusUnsupportedMediaType, "IMG.0105")
		if !strings.Contains(a.header.Get("Accept-Patch"), "v2.1-json-patch") {
			t.Errorf("%q: Accept-Patch %q", kind, a.header.Get("Accept-Patch"))
		}
	}
	for op, status := range map[string]int{
		`{"op":"test","path":"/name","value":"c"}`: 400, `{"op":"move","path":"/name","from":"/p"}`: 400, `{"op":"add","path":"name","value":"c"}`: 400,
		`{"op":"add","path":"/tags/0","value":"c"}`: 400, `{"op":"add","path":"/a~2","value":"c"}`: 400, `{"op":"add","path":"/a~","value":"c"}`: 400, `{"op":"add","path":"/x"}`: 400,
		`{"op":"add","path":"/min_disk","value":"1"}`: 400, `{"op":"add","path":"/p","value":1}`: 400, `{}`: 400,
		`{"op":"remove","path":"/nothing"}`: 409, `{"op":"replace","path":"/nothing","value":"x"}`: 409,
		`{"op":"remove","path":"/name"}`: 403, `{"op":"replace","path":"/id","value":"x"}`: 403, `{"op":"replace","path":"/status","value":"active"}`: 403,
		`{"op":"add","path":"/locations/-","value":{}}`: 403, `{"op":"replace","path":"/owner","value":"x"}`: 403, `{"op":"add","path":"/visibility","value":"public"}`: 403,
	} {
		a := c.send(t, "PATCH", path, `[{"op":"add","path":"/name","value":"lost"},`+op+`]`)
		if a.status != status {
			t.Errorf("%s: %d %s, want %d", op, a.status, a.body, status)
		}
	}
	if after := c.send(t, "GET", path, "").body; string(after) != string(before) {
		t.Errorf("a refused change left a trace:\n%s\n%s", before, after)
	}
	c.refused(t, http.StatusForbidden, "IMG.0028", "DELETE", path, "")
	active := c.active(t, systemDisk(nil))
	c.refused(t, http.StatusForbidden, "IMG.0035", "PATCH", glanceImages+"/"+active, `[{"op":"replace","path":"/disk_format","value":"qcow2"}]`)
	c.expect(t, 200, "PATCH", glanceImages+"/"+active, `[{"op":"replace","path":"/disk_format","value":"raw"},{"op":"replace","path":"/name","value":"r"}]`)
}

// TestGlanceTags: single tags, and tags of both faces side by side.
func TestGlanceTags(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"image_tags": []map[string]string{{"key": "a", "value": "1"}}}))
	path := glanceImages + "/" + id
	tags := func() string { return jsonText(c.expect(t, 200, "GET", path, "")["tags"]) }
	for _, tag := range []string{"x", "x", "b=2", "b=3", "%C3%A4%2Fb"} {
		c.expect(t, http.StatusNoContent, "PUT", path+"/tags/"+tag, "")
	}
	if got := tags(); got != `["a=1","b=2","b=3","x","ä/b"]` {
		t.Errorf("tags %s", got)
	}
	c.expect(t, http.StatusNoContent, "DELETE", path+"/tags/b=2", "")
	c.refused(t, http.StatusNotFound, "IMG.0115", "DELETE", path+"/tags/b=2", "")
	c.refused(t, http.StatusConflict, "IMG.0035", "PUT", path+"/tags/a", "") // IMS has the key
	c.refused(t, http.StatusBadRequest, "IMG.0115", "PUT", path+"/tags/"+strings.Repeat("t", 256), "")
	c.expect(t, http.StatusNoContent, "DELETE", path+"/tags/%C3%A4%2Fb", "")
	if got := tags(); got != `["a=1","b=3","x"]` {
		t.Errorf("tags %s", got)
	}
	if v := c.expect(t, 200, "GET", "/v2/"+c.project+"/images/"+id+"/tags", ""); jsonText(v["tags"]) != `[{"key":"a","value":"1"},{"key":"b=3","value":""},{"key":"x","value":""}]` {
		t.Errorf("IMS shows %v", v)
	}
	if v := c.expect(t, 200, "GET", glanceImages+"?tag=x&tag=a%3D1", ""); len(v["images"].([]any)) != 1 {
		t.Errorf("by two tags: %v", v)
	}
	if v := c.expect(t, 200, "GET", glanceImages+"?tag=x&tag=y", ""); len(v["images"].([]any)) != 0 {
		t.Errorf("by a tag that is not there: %v", v)
	}
}

// TestDeactivation: a deactivated image is read and attached by admins of its project
// alone; what others had opened ends.
func TestDeactivation(t *testing.T) {
	t.Parallel()
	owner, other := shared.newProject(t), shared.newProject(t)
	admin := owner.as(t, ims.RoleAdmin, owner.project)
	stranger := other.as(t, ims.RoleAdmin, other.project)
	job, id := owner.accepted(t, systemDisk(nil))
	owner.publish(t, job, id, 4096)
	path := glanceImages + "/" + id
	shared.disks.put(id, make([]byte, 4096), -1, nil)
	owner.expect(t, 200, "POST", path+"/members", `{"member":"`+other.project+`"}`)
	other.expect(t, 200, "PUT", path+"/members/"+other.project, `{"status":"accepted"}`)
	attach := func(c caller) answer {
		return c.send(t, "POST", "/v1/"+c.project+"/attachments", `{"image_id":"`+id+`"}`)
	}
	if a := attach(other); a.status != 200 {
		t.Fatalf("attach: %d %s", a.status, a.body)
	}
	owner.refused(t, http.StatusForbidden, "IMG.0026", "POST", path+"/actions/deactivate", "")
	stranger.refused(t, http.StatusForbidden, "IMG.0047", "POST", path+"/actions/deactivate", "")
	for range 2 { // it may already be so
		admin.expect(t, http.StatusNoContent, "POST", path+"/actions/deactivate", "")
	}
	if v := owner.expect(t, 200, "GET", path, ""); v["status"] != "deactivated" || v["size"] != 4096.0 {
		t.Errorf("%v", v)
	}
	if v := other.expect(t, 200, "GET", "/v1/"+other.project+"/attachments", ""); len(v["attachments"].([]any)) != 0 {
		t.Errorf("attachments stay: %v", v)
	}
	for _, c := range []caller{owner, other, stranger} {
		c.refused(t, http.StatusForbidden, "IMG.0161", "GET", path+"/file", "")
		if a := attach(c); a.status == 200 {
			t.Errorf("attached: %s", a.body)
		}
	}
	if a := admin.send(t, "GET", path+"/file", ""); a.status != 200 || len(a.body) != 4096 {
		t.Errorf("an admin reads: %d, %d bytes", a.status, len(a.body))
	}
	if a := attach(admin); a.status != 200 {
		t.Errorf("an admin attaches: %d %s", a.status, a.body)
	}
	for query, want := range map[string]int{"status=active": 0, "status=deactivated": 1, "": 1} {
		if v := owner.expect(t, 200, "GET", glanceImages+"?"+query, ""); len(v["images"].([]any)) != want {
			t.Errorf("?%s: %v", query, v)
		}
	}
	admin.expect(t, http.StatusNoContent, "POST", path+"/actions/reactivate", "")
	admin.expect(t, http.StatusNoContent, "POST", path+"/actions/reactivate", "")
	if a := other.send(t, "GET", path+"/file", ""); a.status != 200 {
		t.Errorf("reactivated: %d", a.status)
	}
	queued := owner.created(t, `{}`)
	admin.refused(t, http.StatusForbidden, "IMG.0046", "POST", glanceImages+"/"+queued+"/actions/deactivate", "")
}

// TestPrivateEndsSharing: an image that is made private has no members any more, and
// what they had opened ends.
func TestPrivateEndsSharing(t *testing.T) {
	t.Parallel()
	owner, other := shared.newProject(t), shared.newProject(t)
	id := owner.active(t, systemDisk(nil))
	path := glanceImages + "/" + id
	owner.expect(t, 200, "POST", path+"/members", `{"member":"`+other.project+`"}`)
	other.expect(t, 200, "PUT", path+"/members/"+other.project, `{"status":"accepted","member":"ignored"}`)
	if a := other.send(t, "POST", "/v1/"+other.project+"/attachments", `{"image_id":"`+id+`"}`); a.status != 200 {
		t.Fatalf("attach: %d %s", a.status, a.body)
	}
	other.refused(t, http.StatusForbidden, "IMG.0047", "PATCH", path, `[{"op":"replace","path":"/name","value":"x"}]`)
	if v := owner.expect(t, 200, "GET", path, ""); v["visibility"] != "shared" {
		t.Errorf("visibility %v", v["visibility"])
	}
	owner.expect(t, 200, "PATCH", path, `[{"op":"replace","path":"/visibility","value":"private"}]`)
	other.refused(t, http.StatusNotFound, "IMG.0027", "GET", path, "")
	if v := other.expect(t, 200, "GET", "/v1/"+other.project+"/attachments", ""); len(v["attachments"].([]any)) != 0 {
		t.Errorf("attachments stay: %v", v)
	}
	if v := owner.expect(t, 200, "GET", path+"/members", ""); len(v["members"].([]any)) != 0 {
		t.Errorf("members stay: %v", v)
	}
	if v := owner.expect(t, 200, "GET", path, ""); v["visibility"] != "private" {
		t.Errorf("visibility %v", v["visibility"])
	}
	// An image that is to be uploaded can be shared before.
	queued := owner.created(t, `{"disk_format":"raw"}`)
	owner.expect(t, 200, "POST", glanceImages+"/"+queued+"/members", `{"member":"`+other.project+`"}`)
	owner.refused(t, http.StatusForbidden, "IMG.0076", "POST", glanceImages+"/"+queued+"/members", `{"member":"`+owner.project+`"}`)
	var statuses []string
	for _, m := range owner.expect(t, 200, "GET", glanceImages+"/"+queued+"/members", "")["members"].([]any) {
		statuses = append(statuses, m.(map[string]any)["status"].(string))
	}
	if !slices.Equal(statuses, []string{"pending"}) {
		t.Errorf("members %v", statuses)
	}
}
