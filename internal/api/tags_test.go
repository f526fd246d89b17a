package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// tags gives an image's tags as "key=value …".
func (c caller) tags(t testing.TB, image string) string {
	t.Helper()
	list, _ := c.expect(t, http.StatusOK, "GET", "/v2/"+c.project+"/images/"+image+"/tags", "")["tags"].([]any)
	var out []string
	for _, v := range list {
		tag := v.(map[string]any)
		out = append(out, fmt.Sprintf("%v=%v", tag["key"], tag["value"]))
	}
	return strings.Join(out, " ")
}

func TestImageTags(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	path := "/v2/" + c.project + "/images/" + id + "/tags"
	want := func(want string) {
		t.Helper()
		if got := c.tags(t, id); got != want {
			t.Errorf("the tags are %q, want %q", got, want)
		}
	}
	done := func(method, path, body string) {
		t.Helper()
		if a := c.send(t, method, path, body); a.status != http.StatusNoContent || len(a.body) != 0 {
			t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.body)
		}
	}
	want("")
	done("POST", path, `{"tag":{"key":"env","value":"test"}}`)
	done("POST", path, `{"tag":{"key":" env ","value":" prod "}}`)
	done("POST", path, `{"tag":{"key":"bare","value":""}}`)
	want("bare= env=prod")
	for range 2 { // repeating it changes nothing
		done("POST", path+"/action", `{"action":"create","tags":[{"key":"a","value":"1"},{"key":"env","value":"x"}]}`)
		want("a=1 bare= env=x")
	}
	for range 2 {
		done("POST", path+"/action", `{"action":"delete","tags":[{"key":"a"},{"key":"env","value":"x"},{"key":"nothing"}]}`)
		want("bare=")
	}
	// A deletion checks lengths alone.
	done("POST", path+"/action", `{"action":"delete","tags":[{"key":"`+strings.Repeat("*", 127)+`","value":"`+strings.Repeat("*", 255)+`"},{"key":"\u0000"}]}`)
	done("POST", path+"/action", `{"action":"delete","tags":[{"key":"bare","value":null}]}`)
	want("")

	done("POST", path, `{"tag":{"key":"a.b: c@+","value":"x/y=z"}}`)
	if v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, ""); fmt.Sprint(v["tags"]) != "[a.b: c@+=x/y=z]" {
		t.Errorf("the image's tags are %v", v["tags"])
	}
	done("DELETE", path+"/"+url.PathEscape("a.b: c@+"), "")
	want("")
	a := c.send(t, "DELETE", path+"/gone", "")
	a.refused(t, http.StatusNotFound, "IMG.0115")
	c.refused(t, http.StatusNotFound, "IMG.0115", "DELETE", path+"/a%2Fb", "")
	c.refused(t, http.StatusNotFound, "IMG.0115", "DELETE", path+"/%00", "")
	c.refused(t, http.StatusNotFound, "IMG.0115", "DELETE", path+"/%ff", "")
	c.refused(t, http.StatusBadRequest, "IMG.0115", "DELETE", path+"/"+strings.Repeat("k", 128), "")
}

func TestTagFaults(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"tags": manyTags(9)}))
	before := c.tags(t, id)
	path := "/v2/" + c.project + "/images/" + id + "/tags"
	for _, tc := range []struct {
		path, body string
		code       ims.Code
	}{
		{path, `{}`, "IMG.0115"},
		{path, `{"tag":{}}`, "IMG.0115"},
		{path, `{"tag":{"key":"a"}}`, "IMG.0115"},
		{path, `{"tag":{"value":"a"}}`, "IMG.0115"},
		{path, `{"tag":{"key":"","value":"a"}}`, "IMG.0115"},
		{path, `{"tag":{"key":"` + strings.Repeat("k", 37) + `","value":"a"}}`, "IMG.0115"},
		{path, `{"tag":{"key":"a","value":"` + strings.Repeat("v", 44) + `"}}`, "IMG.0115"},
		{path, `{"tag":{"key":"a<","value":"a"}}`, "IMG.0115"},
		{path + "/action", `{"tags":[{"key":"a","value":"1"}]}`, "IMG.0001"},
		{path + "/action", `{"action":"update","tags":[{"key":"a","value":"1"}]}`, "IMG.0001"},
		{path + "/action", `{"action":"create"}`, "IMG.0115"},
		{path + "/action", `{"action":"create","tags":[]}`, "IMG.0115"},
		{path + "/action", `{"action":"create","tags":[{"key":"a"}]}`, "IMG.0115"},
		{path + "/action", `{"action":"create","tags":[{"key":"a","value":"1"},{"key":"b*","value":"1"}]}`, "IMG.0115"},
		{path + "/action", `{"action":"create","tags":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}`, "IMG.0115"},
		{path + "/action", `{"action":"create","tags":[{"key":"a","value":"1"},{"key":"b","value":"1"}]}`, "IMG.0116"}, // 11 with those there
		{path + "/action", `{"action":"delete","tags":[{"key":""}]}`, "IMG.0115"},
		{path + "/action", `{"action":"delete","tags":[{"key":"` + strings.Repeat("k", 128) + `"}]}`, "IMG.0115"},
		{path + "/action", `{"action":"delete","tags":[{"key":"k0"},{"key":"k1","value":"` + strings.Repeat("v", 256) + `"}]}`, "IMG.0115"},
		{path + "/action", `{"action":"delete","tags":[` + strings.Repeat(`{"key":"k0"},`, 100) + `{"key":"k0"}]}`, "IMG.0116"},
	} {
		c.refused(t, http.StatusBadRequest, tc.code, "POST", tc.path, tc.body)
		if after := c.tags(t, id); after != before {
			t.Fatalf("after %s the tags are %q, they were %q", tc.body, after, before)
		}
	}
}

func TestProjectTags(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	c.expect(t, http.StatusOK, "GET", "/v2/"+c.project+"/images/tags", "")
	c.active(t, systemDisk(map[string]any{"tags": []string{"env.prod", "tier.1"}}))
	c.active(t, systemDisk(map[string]any{"tags": []string{"env.test"}}))
	gone := c.active(t, systemDisk(map[string]any{"tags": []string{"gone.1"}}))
	c.send(t, "DELETE", "/v2/images/"+gone, "")
	v := c.expect(t, http.StatusOK, "GET", "/v2/"+c.project+"/images/tags", "")
	want := `{"tags":[{"key":"env","values":["prod","test"]},{"key":"tier","values":["1"]}]}`
	if got := jsonText(v); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
