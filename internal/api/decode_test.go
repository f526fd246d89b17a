package api_test

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/ims"
)

// TestBodiesThatAreNoBodies sends what strict decoding refuses to every route that
// takes a body.
func TestBodiesThatAreNoBodies(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	admin := c.as(t, ims.RoleAdmin, c.project)
	image := c.active(t, systemDisk(nil))
	padded := `{"x":"` + strings.Repeat("a", api.MaxBody) + `"}`
	for _, route := range bodyRoutes(c.project, image) {
		t.Run(route.method+" "+route.path, func(t *testing.T) {
			t.Parallel()
			for name, tc := range map[string]struct{ body, want string }{
				"longer than 1 MiB": {padded, "1048576 bytes"},
				"deep":              {strings.Repeat(`[`, 40) + strings.Repeat(`]`, 40), "32 levels"},
				"duplicate key":     {`{"a":1,"a":1}`, "twice"},
				"duplicate inside":  {`[{"op":"add","op":"add"}]`, "twice"},
				"trailing bytes":    {`{}[]`, "not JSON"},
				"invalid UTF-8":     {"{\"name\":\"\xff\"}", "UTF-8"},
				"many values":       {"[" + strings.Repeat("1,", 30_000) + "1]", "20000 values"},
				"a number":          {`1`, "must be an"},
			} {
				details := admin.refused(t, http.StatusBadRequest, "IMG.0001", route.method, route.path, tc.body)
				if !strings.Contains(details, tc.want) {
					t.Errorf("%s: details %q, want something about %q", name, details, tc.want)
				}
			}
			if !route.optional {
				admin.refused(t, http.StatusBadRequest, "IMG.0007", route.method, route.path, "")
				admin.refused(t, http.StatusBadRequest, "IMG.0007", route.method, route.path, "  \r\n ")
			}
			a := admin.send(t, route.method, route.path, "\x1f\x8b\x08", "Content-Encoding", "gzip")
			if details := a.refused(t, http.StatusBadRequest, "IMG.0001"); !strings.Contains(details, "Content-Encoding") {
				t.Errorf("compressed: details %q", details)
			}
		})
	}
}

type bodyRoute struct {
	method, path string
	optional     bool
}

func bodyRoutes(project, image string) []bodyRoute {
	eps := "/v1.0/enterprise-projects"
	return []bodyRoute{
		{"POST", quickImport, false},
		{"POST", "/v2.1/cloudimages/quickimport/action", false},
		{"POST", "/v2/cloudimages/action", false},
		{"POST", "/v2.1/cloudimages/action", false},
		{"POST", "/v1/cloudimages/action", false},
		{"POST", "/v1/cloudimages/dataimages/action", false},
		{"POST", "/v2.1/cloudimages/dataimages/action", false},
		{"POST", "/v1/cloudimages/wholeimages/action", false},
		{"POST", "/v2/images", false},
		{"PUT", "/v1/cloudimages/" + image + "/upload", false},
		{"POST", "/v1/cloudimages/" + image + "/copy", false},
		{"POST", "/v2.1/cloudimages/" + image + "/copy", false},
		{"POST", "/v1/cloudimages/" + image + "/cross_region_copy", false},
		{"POST", "/v1/cloudimages/" + image + "/file", false},
		{"POST", "/v2.1/cloudimages/" + image + "/file", false},
		{"PATCH", "/v2/cloudimages/" + image, false},
		{"PATCH", "/v2/images/" + image, false},
		{"DELETE", "/v2/images/" + image, true},
		{"DELETE", "/v1.1/images/" + image, true},
		{"POST", "/v1/" + project + "/attachments", false},
		{"PATCH", "/v1/" + project + "/attachments/" + image, false},
		{"DELETE", "/v1/" + project + "/attachments/" + image, true},
		{"POST", "/v2/images/" + image + "/members", false},
		{"PUT", "/v2/images/" + image + "/members/" + project, false},
		{"DELETE", "/image/v2/images/" + image, true},
		{"POST", "/image/v2/images", false},
		{"PATCH", "/image/v2/images/" + image, false},
		{"POST", "/image/v2/images/" + image + "/import", false},
		{"POST", "/image/v2/images/" + image + "/members", false},
		{"PUT", "/image/v2/images/" + image + "/members/" + project, false},
		{"POST", "/v2/" + project + "/images/" + image + "/tags", false},
		{"POST", "/v2/" + project + "/images/" + image + "/tags/action", false},
		{"POST", "/v2/" + project + "/images/resource_instances/action", false},
		{"PUT", "/v1/cloudimages/tags", false},
		{"POST", "/v1/cloudimages/members", false},
		{"PUT", "/v1/cloudimages/members", false},
		{"DELETE", "/v1/cloudimages/members", false},
		{"DELETE", "/v1/" + project + "/cloudimages/" + image + "/tags/delete", false},
		{"POST", eps, false},
		{"PUT", eps + "/" + ims.NewImageID(), false},
		{"POST", eps + "/0/resources-migrate", false},
		{"POST", eps + "/0/resources/filter", false},
	}
}

// TestBodyRoutesAreAll: a route that takes a body and is not tested would be missed.
func TestBodyRoutesAreAll(t *testing.T) {
	t.Parallel()
	n := 0
	for _, r := range api.Routes() {
		if r.Method != "GET" && !strings.HasPrefix(r.Path, "/v3") {
			n++
		}
	}
	const withoutBody = 13 // a HEAD; tags in the path and the deletion of a member on both faces; uploads on both; of the Image API actions
	if n != len(bodyRoutes("", ""))+withoutBody {
		t.Errorf("%d routes change something, %d are tested", n, len(bodyRoutes("", ""))+withoutBody)
	}
}

// TestWrongTypes puts every wrong JSON type into every field of every body.
func TestWrongTypes(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	admin := c.as(t, ims.RoleAdmin, c.project)
	image := c.active(t, systemDisk(nil))
	tags := "/v2/" + c.project + "/images/" + image + "/tags"
	entry := func(field string) string { return `{"is_quick_import":true,"data_images":[{` + field + `}]}` }
	object := func(field string) string { return "{" + field + "}" }
	for _, tc := range []struct {
		method, path string
		wrap         func(field string) string
		prefix       string
		fields       string // name:type
	}{
		{"POST", quickImport, object, "", importFields},
		{"POST", quickImport, func(f string) string { return `{"image_tags":[{"key":"a","value":"b"},{` + f + `}]}` }, "image_tags[1].", "key:string"},
		{"POST", quickImport, func(f string) string { return `{"image_tags":[{"key":"a",` + f + `}]}` }, "image_tags[0].", "value:string"},
		{"POST", "/v2/cloudimages/action", func(f string) string { return `{"is_quick_import":true,` + f + `}` }, "", importFields},
		{"POST", "/v2/cloudimages/action", object, "", "is_quick_import:boolean data_images:objects"},
		{"POST", "/v2/cloudimages/action", entry, "data_images[0].",
			"name:string image_url:string min_disk:integer description:string tags:strings image_tags:objects os_type:string enterprise_project_id:string is_quick_import:boolean"},
		{"PATCH", "/v2/cloudimages/" + image, func(f string) string { return `[{"op":"remove","path":"/min_ram"},{` + f + `}]` }, "operation 2: ", "op:string"},
		{"PATCH", "/v2/cloudimages/" + image, func(f string) string { return `[{"op":"add",` + f + `}]` }, "operation 1: ", "path:string"},
		{"DELETE", "/v2/images/" + image, object, "", "delete_backup:boolean"},
		{"POST", tags, object, "", "tag:object"},
		{"POST", tags, func(f string) string { return `{"tag":{` + f + `}}` }, "tag.", "key:string"},
		{"POST", tags, func(f string) string { return `{"tag":{"key":"a",` + f + `}}` }, "tag.", "value:string"},
		{"POST", tags + "/action", object, "", "action:string"},
		{"POST", tags + "/action", func(f string) string { return `{"action":"create",` + f + `}` }, "", "tags:objects"},
		{"POST", tags + "/action", func(f string) string { return `{"action":"delete","tags":[{"key":"a",` + f + `}]}` }, "tags[0].", "value:string"},
		{"POST", "/v1/cloudimages/members", object, "", "images:strings projects:strings domains:strings organizations:strings"},
		{"DELETE", "/v1/cloudimages/members", object, "", "images:strings projects:strings"},
		{"PUT", "/v1/cloudimages/members", object, "", "images:strings project_id:string"},
		{"PUT", "/v1/cloudimages/members", func(f string) string { return `{"project_id":"p",` + f + `}` }, "", "status:string"},
		{"PUT", "/v1/cloudimages/tags", object, "", "image_id:string"},
		{"PUT", "/v1/cloudimages/tags", func(f string) string { return `{"image_id":"i",` + f + `}` }, "", "tag:string image_tag:object"},
		{"POST", "/v2/" + c.project + "/images/resource_instances/action", object, "", "action:string"},
		{"POST", "/v2/" + c.project + "/images/resource_instances/action", func(f string) string { return `{"action":"count",` + f + `}` }, "",
			"tags:objects tags_any:objects not_tags:objects not_tags_any:objects matches:objects without_any_tag:boolean"},
		{"POST", "/v1.0/enterprise-projects", object, "", "name:string"},
		{"POST", "/v1.0/enterprise-projects", func(f string) string { return `{"name":"n",` + f + `}` }, "", "description:string"},
		{"PUT", "/v1.0/enterprise-projects/" + ims.NewImageID(), object, "", "name:string description:string"},
		{"POST", "/v1.0/enterprise-projects/0/resources-migrate", object, "", "project_id:string region_id:string resource_type:string resource_id:string"},
		{"POST", "/v1.0/enterprise-projects/0/resources/filter", object, "", "limit:integer offset:integer projects:strings resource_types:strings"},
	} {
		for field := range strings.FieldsSeq(tc.fields) {
			name, kind, _ := strings.Cut(field, ":")
			for value, is := range map[string]string{
				`"text"`: "string", `40`: "integer", `1.5`: "fraction", `true`: "boolean", `{"a":1}`: "object", `["a"]`: "strings", `[{}]`: "objects", `[[]]`: "nested",
			} {
				if is == kind || kind == "boolean" && is == "boolean" {
					continue
				}
				details := admin.refused(t, http.StatusBadRequest, "IMG.0001", tc.method, tc.path, tc.wrap(fmt.Sprintf("%q:%s", name, value)))
				if !strings.HasPrefix(details, tc.prefix+name) || !strings.Contains(details, "must be") {
					t.Errorf("%s %s with %s: %s: details %q", tc.method, tc.path, name, value, details)
				}
			}
		}
	}
	c.owns(t, 1)
}

const importFields = "name:string description:string os_version:string os_type:string image_url:string min_disk:integer tags:strings " +
	"image_tags:objects type:string enterprise_project_id:string architecture:string hw_firmware_type:string license_type:string"

// TestNumberAsText: what looks like a number is none when it is quoted.
func TestNumberAsText(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	details := c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", quickImport, systemDisk(map[string]any{"min_disk": "40"}))
	if details != "min_disk must be an integer, it is a string" {
		t.Errorf("details %q", details)
	}
}

// TestLenient is what must be taken.
func TestLenient(t *testing.T) {
	t.Parallel()
	base := strings.TrimSuffix(systemDisk(nil), "}")
	for name, request := range map[string]string{
		"unknown keys":             base + `,"cmk_id":null,"future":{"deep":[1,{"a":"b"}]},"is_config":true}`,
		"keys of other letters":    base + `,"NAME":1,"Min_Disk":"x"}`,
		"null is absent":           base + `,"description":null,"tags":null,"image_tags":null,"type":null,"os_type":null,"enterprise_project_id":null,"architecture":null,"hw_firmware_type":null,"license_type":null}`,
		"empty arrays":             base + `,"tags":[],"image_tags":[]}`,
		"empty texts":              base + `,"type":"","enterprise_project_id":"","architecture":"","hw_firmware_type":"","description":""}`,
		"a whole number, 40.0":     strings.Replace(systemDisk(nil), "40", "40.0", 1),
		"a whole number, 4e1":      strings.Replace(systemDisk(nil), "40", "4e1", 1),
		"min_disk 1024":            strings.Replace(systemDisk(nil), "40", "1024", 1),
		"white space around":       "\r\n\t " + systemDisk(nil) + " \n",
		"escapes":                  strings.Replace(systemDisk(nil), `"name"`, `"n\u0061me"`, 1),
		"letters of any alphabet":  systemDisk(map[string]any{"name": "образ-像_1.2 ß"}),
		"a long name":              systemDisk(map[string]any{"name": strings.Repeat("é", 128), "description": strings.Repeat("é", 1024)}),
		"os_type on a system disk": base + `,"os_type":"Windows"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			c.accepted(t, request)
			c.owns(t, 1)
		})
	}
	t.Run("any Content-Type", func(t *testing.T) {
		t.Parallel()
		c := shared.newProject(t)
		for _, kind := range []string{"", "text/plain", "application/json; charset=utf-8", "application/openstack-images-v2.1-json-patch"} {
			if a := c.send(t, "POST", quickImport, systemDisk(nil), "Content-Type", kind, "Content-Encoding", "identity"); a.status != http.StatusOK {
				t.Errorf("Content-Type %q: %d %s", kind, a.status, a.body)
			}
		}
	})
}

// TestLenientBodyOfExactlyTheLimit: it is taken whole.
func TestLenientBodyOfExactlyTheLimit(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	request := systemDisk(nil)
	request += strings.Repeat(" ", api.MaxBody-len(request))
	c.accepted(t, request)
	c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", quickImport, request+" ")
}

// TestCompressedBody: a small body that would grow is not looked into.
func TestCompressedBody(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	var b strings.Builder
	z := gzip.NewWriter(&b)
	z.Write([]byte(systemDisk(nil)))
	z.Close()
	c.send(t, "POST", quickImport, b.String(), "Content-Encoding", "gzip").refused(t, http.StatusBadRequest, "IMG.0001")
	c.owns(t, 0)
}
