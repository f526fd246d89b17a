package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// search sends a search by tags and gives the names that it finds, in order, and the
// number of all.
func (c caller) search(t testing.TB, request string) (names string, total int) {
	t.Helper()
	v := c.expect(t, http.StatusOK, "POST", "/v2/"+c.project+"/images/resource_instances/action", request)
	var found []string
	list, _ := v["resources"].([]any)
	for _, r := range list {
		found = append(found, r.(map[string]any)["resource_name"].(string))
	}
	slices.Sort(found)
	return strings.Join(found, " "), int(v["total_count"].(float64))
}

func TestSearchByTags(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for name, tags := range map[string][]string{"web-1": {"env.prod", "tier.web"}, "web-2": {"env.test", "tier.web"}, "store": {"env.prod"}, "bare": {}} {
		c.active(t, systemDisk(map[string]any{"name": name, "tags": tags}))
	}
	others := shared.newProject(t)
	others.active(t, systemDisk(map[string]any{"name": "web-other", "tags": []string{"env.prod"}}))

	for request, want := range map[string]string{
		``:               "bare store web-1 web-2",
		`"matches":null`: "bare store web-1 web-2",
		`"tags":[]`:      "bare store web-1 web-2",
		`"tags":[{"key":"env","values":["prod"]}]`:                                                          "store web-1",
		`"tags":[{"key":"env","values":["prod","test"]},{"key":"tier","values":[]}]`:                        "web-1 web-2",
		`"tags":[{"key":"env"}]`:                                                                            "store web-1 web-2",
		`"tags":[{"key":"ENV"}]`:                                                                            "",
		`"tags_any":[{"key":"env","values":["test"]},{"key":"tier","values":["web"]}]`:                      "web-1 web-2",
		`"not_tags":[{"key":"env","values":["prod"]},{"key":"tier","values":["web"]}]`:                      "bare store web-2",
		`"not_tags_any":[{"key":"env","values":["test"]},{"key":"tier"}]`:                                   "bare store",
		`"tags":[{"key":"env"}],"not_tags_any":[{"key":"env","values":["test"]}]`:                           "store web-1",
		`"without_any_tag":true`:                                                                            "bare",
		`"without_any_tag":true,"tags":[{"key":"env"}],"not_tags_any":[{"key":"x"}]`:                        "bare",
		`"without_any_tag":false,"tags":[{"key":"tier"}]`:                                                   "web-1 web-2",
		`"matches":[{"key":"resource_name","value":"web"}]`:                                                 "web-1 web-2",
		`"matches":[{"key":"resource_name","value":"WEB"}]`:                                                 "",
		`"matches":[{"key":"resource_name","value":""}]`:                                                    "",
		`"matches":[{"key":"resource_id","value":"none"}]`:                                                  "",
		`"matches":[{"key":"resource_name","value":"1"}],"tags":[{"key":"env","values":["prod","\u0000"]}]`: "web-1",
	} {
		if request != "" {
			request = "," + request
		}
		found, total := c.search(t, `{"action":"filter","limit":"1000"`+request+`}`)
		if n := len(strings.Fields(want)); found != want || total != n {
			t.Errorf("%s: found %q and %d, want %q", request, found, total, want)
		}
		v := c.expect(t, http.StatusOK, "POST", "/v2/"+c.project+"/images/resource_instances/action", `{"action":"count","limit":"1"`+request+`}`)
		if len(v) != 1 || int(v["total_count"].(float64)) != total {
			t.Errorf("%s: counted %v, want %d", request, v, total)
		}
	}

	// By pages, of the size that is the default too, and past the end.
	var all []string
	for offset := 0; ; offset += 3 {
		found, total := c.search(t, fmt.Sprintf(`{"action":"filter","limit":"3","offset":"%d"}`, offset))
		if total != 4 {
			t.Errorf("from %d: %d in all", offset, total)
		}
		if found == "" {
			break
		}
		all = append(all, strings.Fields(found)...)
	}
	if slices.Sort(all); strings.Join(all, " ") != "bare store web-1 web-2" {
		t.Errorf("by pages: %v", all)
	}
	for range 8 {
		c.active(t, systemDisk(map[string]any{"tags": []string{"many.1"}}))
	}
	if found, total := c.search(t, `{"action":"filter","limit":"","offset":0}`); len(strings.Fields(found)) < 10 || total != 12 {
		t.Errorf("without a limit: %q of %d", found, total)
	}

	v := c.expect(t, http.StatusOK, "POST", "/v2/"+c.project+"/images/resource_instances/action",
		`{"action":"filter","matches":[{"key":"resource_name","value":"store"}]}`)
	want := `"resource_detail":{"status":"active"}`
	if text := jsonText(v); !strings.Contains(text, want) || !strings.Contains(text, `"tags":[{"key":"env","value":"prod"}]`) {
		t.Errorf("got %s", text)
	}
}

func TestSearchByTagsRefuses(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	path := "/v2/" + c.project + "/images/resource_instances/action"
	list := func(n int, of string) string { return "[" + strings.TrimSuffix(strings.Repeat(of+",", n), ",") + "]" }
	var eleven []string
	for i := range 11 {
		eleven = append(eleven, fmt.Sprintf(`{"key":"k%d"}`, i))
	}
	for request, code := range map[string]ims.Code{
		``:                                   "IMG.0007",
		`{}`:                                 "IMG.0001",
		`{"action":"Filter"}`:                "IMG.0001",
		`{"action":"filter","limit":"0"}`:    "IMG.0001",
		`{"action":"filter","limit":"1001"}`: "IMG.0001",
		`{"action":"filter","limit":true}`:   "IMG.0001",
		`{"action":"filter","offset":"-1"}`:  "IMG.0001",
		`{"action":"filter","offset":"x"}`:   "IMG.0001",
		`{"action":"filter","matches":[]}`:   "IMG.0001",
		`{"action":"filter","matches":[{"key":"name","value":"x"}]}`:                                          "IMG.0001",
		`{"action":"filter","matches":[{"key":"resource_id","value":"x"},{"key":"resource_id","value":"y"}]}`: "IMG.0001",
		`{"action":"filter","matches":[{"key":"resource_id"}]}`:                                               "IMG.0001",
		`{"action":"filter","matches":` + list(5000, `{"key":"resource_id","value":"x"}`) + `}`:               "IMG.0001",
		`{"action":"filter","without_any_tag":"true"}`:                                                        "IMG.0001",
		`{"action":"filter","tags":{"key":"k"}}`:                                                              "IMG.0001",
		`{"action":"filter","tags":[{"values":["v"]}]}`:                                                       "IMG.0115",
		`{"action":"filter","tags":[{"key":""}]}`:                                                             "IMG.0115",
		`{"action":"filter","tags":[{"key":"` + strings.Repeat("k", 129) + `"}]}`:                             "IMG.0115",
		`{"action":"filter","tags_any":[{"key":"k"},{"key":"k"}]}`:                                            "IMG.0115",
		`{"action":"filter","not_tags":[{"key":"k","values":["v","v"]}]}`:                                     "IMG.0115",
		`{"action":"filter","not_tags_any":[{"key":"k","values":["` + strings.Repeat("v", 256) + `"]}]}`:      "IMG.0115",
		`{"action":"filter","tags":[` + strings.Join(eleven, ",") + `]}`:                                      "IMG.0115",
		`{"action":"count","tags":[{"key":"k","values":["0","1","2","3","4","5","6","7","8","9","10"]}]}`:     "IMG.0115",
		`{"action":"count","tags":[{"key":"k","values":` + list(15_000, `"v"`) + `}]}`:                        "IMG.0115",
	} {
		c.refused(t, http.StatusBadRequest, code, "POST", path, request)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0030", "POST", "/v2/"+shared.newProject(t).project+"/images/resource_instances/action", `{"action":"count"}`)
}

func TestListTags(t *testing.T) {
	t.Parallel()
	c, owner := shared.newProject(t), shared.newProject(t)
	c.active(t, systemDisk(map[string]any{"name": "one", "tags": []string{"env.prod", "tier.1"}}))
	c.active(t, dataDisk(map[string]any{"name": "two", "image_tags": []map[string]string{{"key": "env", "value": "prod"}, {"key": "bare", "value": ""}}}))
	theirs := owner.active(t, systemDisk(map[string]any{"tags": []string{"theirs.1"}}))
	owner.expect(t, http.StatusOK, "POST", "/v2/images/"+theirs+"/members", `{"member":"`+c.project+`"}`)
	c.expect(t, http.StatusOK, "PUT", "/v2/images/"+theirs+"/members/"+c.project, `{"status":"accepted"}`)
	for query, want := range map[string]string{
		"":                            "bare env=prod tier=1",
		"?limit=2":                    "bare env=prod",
		"?limit=2&page=2":             "tier=1",
		"?limit=2&page=3":             "",
		"?page=2":                     "",
		"?name=one":                   "env=prod tier=1",
		"?virtual_env_type=DataImage": "bare env=prod",
		"?status=queued":              "",
		"?tag=tier=1":                 "env=prod tier=1",
		"?protected=true":             "",
		"?__protected=false":          "bare env=prod tier=1",
		"?__imagetype=shared":         "theirs=1",
		"?__imagetype=private":        "bare env=prod tier=1",
		"?owner=" + owner.project:     "theirs=1",
		"?id=" + theirs:               "theirs=1",
		"?sort_key=name&sort_dir=asc": "bare env=prod tier=1",
		"?marker=" + ims.NewImageID(): "",
	} {
		v := c.expect(t, http.StatusOK, "GET", "/v1/cloudimages/tags"+query, "")
		var got []string
		for _, text := range v["tags"].([]any) {
			got = append(got, text.(string))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %q", query, got, want)
		}
	}
	for _, query := range []string{"?limit=0", "?page=0", "?page=x", "?sort_key=colour", "?protected=true&__protected=true"} {
		c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", "/v1/cloudimages/tags"+query, "")
	}
}

func TestSetTag(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	const path = "/v1/cloudimages/tags"
	for _, step := range [][2]string{
		{`"tag":"env.test"`, "env=test"},
		{`"tag":"env.prod","image_tag":{"key":"","value":""}`, "env=prod"}, // as gophertelekomcloud sends it
		{`"tag":"","image_tag":{"key":" a ","value":" b c "}`, "a=b c env=prod"},
		{`"tag":null,"image_tag":{"key":"a","value":""}`, "a= env=prod"},
	} {
		c.expect(t, http.StatusNoContent, "PUT", path, `{"image_id":"`+id+`",`+step[0]+`}`)
		if got := c.tags(t, id); got != step[1] {
			t.Errorf("after %s: %q, want %q", step[0], got, step[1])
		}
	}
	for request, code := range map[string]ims.Code{
		`{"image_id":"` + id + `"}`: "IMG.0115",
		`{"image_id":"` + id + `","tag":"a.b","image_tag":{"key":"a","value":"b"}}`: "IMG.0115",
		`{"image_id":"` + id + `","tag":"a"}`:                                       "IMG.0115",
		`{"image_id":"` + id + `","tag":"a.b.c"}`:                                   "IMG.0115",
		`{"image_id":"` + id + `","image_tag":{"key":"a"}}`:                         "IMG.0115",
		`{"image_id":"` + id + `","image_tag":{"value":"a"}}`:                       "IMG.0115",
		`{"image_id":"` + id + `","image_tag":{"key":"a*","value":""}}`:             "IMG.0115",
		`{"image_id":"` + id + `","image_tag":"a"}`:                                 "IMG.0001",
		`{"image_id":7,"tag":"a.b"}`:                                                "IMG.0001",
		`{"tag":"a.b"}`:                                                             "IMG.0001",
	} {
		c.refused(t, http.StatusBadRequest, code, "PUT", path, request)
	}
	for i := range 8 {
		c.expect(t, http.StatusNoContent, "PUT", path, fmt.Sprintf(`{"image_id":"%s","tag":"k%d.v"}`, id, i))
	}
	c.refused(t, http.StatusBadRequest, "IMG.0116", "PUT", path, `{"image_id":"`+id+`","tag":"eleventh.v"}`)
	c.expect(t, http.StatusNoContent, "PUT", path, `{"image_id":"`+id+`","tag":"k0.w"}`)
	for _, unknown := range []string{"none", ims.NewImageID(), shared.newProject(t).active(t, systemDisk(nil))} {
		c.refused(t, http.StatusNotFound, "IMG.0027", "PUT", path, `{"image_id":"`+unknown+`","tag":"a.b"}`)
	}
}

// TestNativeTags are those of a path: keys without a value.
func TestNativeTags(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"tags": []string{"env.prod"}}))
	path := "/v2/images/" + id + "/tags/"
	long := strings.Repeat("k", 255)
	for range 2 { // repeating it changes nothing
		c.expect(t, http.StatusNoContent, "PUT", path+"A_b-9", "")
		c.expect(t, http.StatusNoContent, "PUT", path+long, "")
	}
	if got := c.tags(t, id); got != "A_b-9= env=prod "+long+"=" {
		t.Errorf("tags %q", got)
	}
	for _, tag := range []string{"a.b", "a=b", "%20", "%C3%BC", "%2F", long + "k"} {
		c.refused(t, http.StatusBadRequest, "IMG.0115", "PUT", path+tag, "")
	}
	c.refused(t, http.StatusConflict, "IMG.0035", "PUT", path+"env", "") // it has a value
	c.expect(t, http.StatusNoContent, "DELETE", path+"env=prod", "")
	c.expect(t, http.StatusNoContent, "DELETE", path+long, "")
	c.refused(t, http.StatusNotFound, "IMG.0115", "DELETE", path+long, "")
	for i := range 9 {
		c.expect(t, http.StatusNoContent, "PUT", fmt.Sprint(path, i), "")
	}
	c.refused(t, http.StatusBadRequest, "IMG.0116", "PUT", path+"eleventh", "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "PUT", "/v2/images/"+ims.NewImageID()+"/tags/a", "")

	// What several are removed with.
	remove := "/v1/" + c.project + "/cloudimages/" + id + "/tags/delete"
	c.expect(t, http.StatusNoContent, "DELETE", remove, `{"tags":[{"key":"0"},{"key":"1","value":""},{"key":"2","value":"x"},{"key":"none"}]}`)
	if got := c.tags(t, id); got != "2= 3= 4= 5= 6= 7= 8= A_b-9=" {
		t.Errorf("tags %q", got)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0115", "DELETE", remove, `{"tags":[]}`)
	c.refused(t, http.StatusBadRequest, "IMG.0007", "DELETE", remove, "")
}
