package api_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// mustRead are the attributes that clients read after a quick import (reference,
// section 3, last line).
var mustRead = strings.Fields(`id name status visibility owner protected min_disk min_ram disk_format container_format file self schema
	created_at updated_at tags virtual_env_type __os_version __os_type __os_bit __platform __description __imagetype __isregistered __image_source_type
	__image_size __data_origin __root_origin __lazyloading enterprise_project_id hw_firmware_type __support_kvm __sequence_num active_at`)

// TestImageAttributes holds an active image against the published table of types.
func TestImageAttributes(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(map[string]any{"tags": []string{"a.1"}}))
	v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
	for _, name := range mustRead {
		if v[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	f, err := os.Open("../ims/imageattributes.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, row := range rows[1:] {
		types[row[0]] = row[1]
	}
	for name, value := range v {
		want, published := types[name]
		if !published && name != "license_type" {
			t.Errorf("%s is no published attribute", name)
		}
		got := fmt.Sprintf("%T", value)
		ok := value == nil
		switch want {
		case "string":
			ok = ok || got == "string"
		case "integer":
			n, isNumber := value.(float64)
			ok = ok || isNumber && n == float64(int64(n))
		case "boolean":
			ok = ok || got == "bool"
		case "array of strings":
			list, isList := value.([]any)
			ok = isList && !slices.ContainsFunc(list, func(e any) bool { _, isText := e.(string); return !isText })
		}
		if published && !ok {
			t.Errorf("%s is %v (%s), its type is %s", name, value, got, want)
		}
	}
	for key, want := range map[string]any{
		"id": id, "status": "active", "size": 4096.0, "virtual_size": 4096.0, "__image_size": "2048", "disk_format": "zvhd2",
		"file": "/v2/images/" + id + "/file", "self": "/v2/images/" + id, "schema": "/v2/schemas/image", "__isregistered": "true",
		"__imagetype": "private", "__image_source_type": "uds", "__root_origin": "file", "__data_origin": "file,disks:web.zvhd2",
		"__lazyloading": "true", "__sequence_num": "0", "__support_kvm": "true", "container_format": "bare", "hw_firmware_type": "bios",
		"enterprise_project_id": "0", "__description": "", "tags": []any{"a=1"},
	} {
		if fmt.Sprint(v[key]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", key, v[key], want)
		}
	}
	for _, key := range []string{"created_at", "updated_at", "active_at"} {
		at, err := time.Parse(time.RFC3339, fmt.Sprint(v[key]))
		if err != nil || at.Location() != time.UTC || time.Since(at) > time.Hour {
			t.Errorf("%s is %v", key, v[key])
		}
	}
	if v["max_ram"] != nil {
		t.Errorf("max_ram is %v though it was never set", v["max_ram"])
	}
}

// TestBigImage: sizes beyond 32 bits are left out where clients' types don't hold them.
func TestBigImage(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	job, id := c.accepted(t, systemDisk(nil))
	c.publish(t, job, id, ims.TiB)
	v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
	if v["size"] != float64(ims.TiB) || v["virtual_size"] != nil {
		t.Errorf("size %v, virtual_size %v", v["size"], v["virtual_size"])
	}
	listed, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?id="+id, "")["images"].([]any)
	patched := c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+id, `[{"op":"replace","path":"/name","value":"n"}]`)
	for _, v := range []any{listed[0], patched} {
		if v := v.(map[string]any); v["size"] != nil || v["virtual_size"] != nil || v["__image_size"] != "2048" {
			t.Errorf("size %v, virtual_size %v, __image_size %v", v["size"], v["virtual_size"], v["__image_size"])
		}
	}
}

func TestDeleteImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	for _, request := range []string{"", "{}", `{"delete_backup":true}`, `{"delete_backup":null}`, " ", `{"force":true}`} {
		id := c.active(t, systemDisk(nil))
		if a := c.send(t, "DELETE", "/v2/images/"+id, request); a.status != http.StatusNoContent || len(a.body) != 0 {
			t.Errorf("with %q: %d %s", request, a.status, a.body)
		}
		c.refused(t, http.StatusNotFound, "IMG.0027", "GET", "/v2/images/"+id, "")
		c.refused(t, http.StatusNotFound, "IMG.0027", "DELETE", "/v2/images/"+id, "")
		if list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?id="+id, "")["images"].([]any); len(list) != 0 {
			t.Errorf("a deleted image is listed: %v", list)
		}
	}
	c.owns(t, 0)
	if w.importer.sweeps != 6 {
		t.Errorf("the clean-up was woken %d times, want 6", w.importer.sweeps)
	}
}

// TestPatch changes every patchable attribute and reads it back.
func TestPatch(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	admin := c.as(t, ims.RoleAdmin, c.project)
	made := admin.expect(t, http.StatusCreated, "POST", "/v1.0/enterprise-projects", `{"name":"patch-`+ims.NewJobID()+`"}`)
	eps, _ := made["enterprise_project"].(map[string]any)["id"].(string)
	id := c.active(t, systemDisk(nil))
	values := map[string]any{
		"name": "new name", "__description": "new text", "min_ram": 1024, "max_ram": "4096", "hw_firmware_type": "uefi", "enterprise_project_id": eps,
	}
	for _, a := range ims.Attributes {
		if _, set := values[a.Name]; a.Patchable && !set {
			values[a.Name] = "true"
		}
	}
	values["__support_xen_gpu_type"], values["__support_kvm_gpu_type"] = "M60_vGPU", "V100_vGPU"
	values["own_one"], values["__image_login_user"] = "anything, über", "root"
	values["tags"], values["visibility"], values["protected"] = []string{"a=1", "b"}, "shared", true
	delete(values, "__support_xen") // the others exclude it
	for _, path := range []string{"/v2/cloudimages/", "/v2/images/"} {
		for name, value := range values {
			patched := c.expect(t, http.StatusOK, "PATCH", path+id, jsonText([]map[string]any{{"op": "add", "path": "/" + name, "value": value}}))
			shown := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
			if fmt.Sprint(shown[name]) != fmt.Sprint(value) {
				t.Errorf("%s is %v, want %v", name, shown[name], value)
			}
			if jsonText(shown) != jsonText(patched) {
				t.Errorf("the answer to PATCH differs from the image:\n%v\n%v", patched, shown)
			}
		}
	}
	if got := c.list(t, "__support_kvm=true"); len(got) != 0 {
		t.Errorf("an image for special machines has __support_kvm: %v", got)
	}
	for _, name := range []string{"__description", "min_ram", "max_ram", "__support_fc_inject", "own_one", "__image_login_user",
		"__support_xen_hana", "__support_xen_gpu_type", "__support_kvm_gpu_type", "__support_kvm_infiniband"} {
		v := c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+id, `[{"op":"remove","path":"/`+name+`"}]`)
		if got := fmt.Sprint(v[name]); got != "" && got != "0" && got != "<nil>" {
			t.Errorf("%s is %s after it was removed", name, got)
		}
	}
	v := c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+id, `[{"op":"add","path":"/__support_xen","value":"true"}]`)
	if v["__support_xen"] != "true" || v["__support_kvm"] != "true" {
		t.Errorf("the image is %v", v)
	}
	if got := c.list(t, "__support_kvm=true"); len(got) != 1 {
		t.Errorf("__support_kvm=true lists %v", got)
	}

	// Protection holds until it is lifted, by either form of PATCH.
	c.refused(t, http.StatusBadRequest, "IMG.0028", "DELETE", "/v2/images/"+id, "")
	old := c.send(t, "PATCH", "/v2/images/"+id, `[{"replace":"/protected","value":false},{"add":"/own_two","value":"x"},{"remove":"/own_two"}]`,
		"Content-Type", "application/openstack-images-v2.0-json-patch")
	if old.status != http.StatusOK || !strings.Contains(string(old.body), `"protected":false`) {
		t.Errorf("PATCH of version 2.0: %d %s", old.status, old.body)
	}
	if a := c.send(t, "DELETE", "/v2/images/"+id, ""); a.status != http.StatusNoContent {
		t.Errorf("DELETE of an image that was protected: %d %s", a.status, a.body)
	}
}

// TestOwnAttributes are the same on both faces, as far as IMS could have set them.
func TestOwnAttributes(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+id, `[{"op":"add","path":"/role","value":"web"},{"op":"add","path":"/__hidden","value":"x"}]`)
	v := c.expect(t, http.StatusOK, "PATCH", glanceImages+"/"+id, `[{"op":"add","path":"/Owner Name","value":"Ada"},{"op":"add","path":"/architecture","value":"x86_64"},
		{"op":"add","path":"/long","value":"`+strings.Repeat("x", 300)+`"}]`)
	if v["role"] != "web" || v["Owner Name"] != "Ada" || v["__hidden"] != nil {
		t.Errorf("/image shows %v", v)
	}
	v = c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
	if v["role"] != "web" || v["Owner Name"] != "Ada" || v["__hidden"] != "x" || v["architecture"] != "x86" || v["long"] != nil {
		t.Errorf("IMS shows %v", v)
	}
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestPatchIsAtomic: one bad operation undoes those before it.
func TestPatchIsAtomic(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	before := c.send(t, "GET", "/v2/images/"+id, "").body
	good := `{"op":"replace","path":"/name","value":"new"},{"op":"add","path":"/__support_xen","value":"true"}`
	for _, tc := range []struct {
		bad  string
		code ims.Code
	}{
		{`{"op":"replace","path":"/name","value":""}`, "IMG.0013"},
		{`{"op":"replace","path":"/name","value":"a/b"}`, "IMG.0003"},
		{`{"op":"replace","path":"/__description","value":"<"}`, "IMG.0054"},
		{`{"op":"add","path":"/hw_vif_multiqueue_enabled","value":"maybe"}`, "IMG.0001"},
		{`{"op":"add","path":"/__support_fc_inject","value":"foo"}`, "IMG.0001"},
		{`{"op":"replace","path":"/min_ram","value":1.5}`, "IMG.0055"},
		{`{"op":"replace","path":"/min_ram","value":1e400}`, "IMG.0055"},
		{`{"op":"replace","path":"/min_ram","value":-1}`, "IMG.0055"},
		{`{"op":"replace","path":"/min_ram","value":[]}`, "IMG.0001"},
		{`{"op":"replace","path":"/hw_firmware_type","value":"x"}`, "IMG.0141"},
		{`{"op":"replace","path":"/enterprise_project_id","value":"` + ims.NewImageID() + `"}`, "IMG.0155"},
		{`{"op":"replace","path":"/status","value":"queued"}`, "IMG.0035"},
		{`{"op":"replace","path":"/owner","value":"me"}`, "IMG.0035"},
		{`{"op":"replace","path":"/unheard_of","value":"x"}`, "IMG.0035"},
		{`{"op":"add","path":"/__support_xen_hana","value":"true"}`, "IMG.0035"},
		{`{"op":"add","path":"/Upper","value":"x"}`, "IMG.0001"},
		{`{"op":"replace","path":"/protected","value":1}`, "IMG.0001"},
		{`{"op":"replace","path":"/tags","value":["a*=b"]}`, "IMG.0115"},
		{`{"op":"replace","path":"name","value":"x"}`, "IMG.0001"},
		{`{"op":"move","path":"/name","value":"x"}`, "IMG.0001"},
		{`{"op":"replace","path":"/name"}`, "IMG.0001"},
		{`{"op":"replace","path":"/name","value":{"a":1}}`, "IMG.0001"},
		{`{"path":"/name","value":"x"}`, "IMG.0001"},
		{`{"op":"replace","value":"x"}`, "IMG.0001"},
		{`"x"`, "IMG.0001"},
		{`null`, "IMG.0001"},
		{`{"op":"remove","path":"/name"}`, "IMG.0035"},
		{strings.Repeat(`{"op":"replace","path":"/name","value":"x"},`, 100) + `{"op":"replace","path":"/name","value":"x"}`, "IMG.0001"},
	} {
		c.refused(t, http.StatusBadRequest, tc.code, "PATCH", "/v2/cloudimages/"+id, "["+good+","+tc.bad+"]")
		if after := c.send(t, "GET", "/v2/images/"+id, "").body; string(after) != string(before) {
			t.Fatalf("after %s the image is\n%s\nit was\n%s", tc.bad, after, before)
		}
	}
	c.refused(t, http.StatusBadRequest, "IMG.0007", "PATCH", "/v2/cloudimages/"+id, `[]`)
	c.refused(t, http.StatusBadRequest, "IMG.0001", "PATCH", "/v2/cloudimages/"+id, `{"op":"replace","path":"/name","value":"x"}`)
}

// list gives the names of the images that a query finds, in order.
func (c caller) list(t testing.TB, query string) []string {
	t.Helper()
	images, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?"+query, "")["images"].([]any)
	names := []string{}
	for _, v := range images {
		names = append(names, fmt.Sprint(v.(map[string]any)["name"]))
	}
	return names
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	other := shared.newProject(t)
	other.active(t, systemDisk(map[string]any{"name": "web", "tags": []string{"env.prod"}}))
	admin := c.as(t, ims.RoleAdmin, c.project)
	made := admin.expect(t, http.StatusCreated, "POST", "/v1.0/enterprise-projects", `{"name":"list-`+ims.NewJobID()+`"}`)
	eps, _ := made["enterprise_project"].(map[string]any)["id"].(string)

	web := c.active(t, systemDisk(map[string]any{"name": "web", "tags": []string{"env.prod", "tier.1"}, "enterprise_project_id": eps}))
	c.active(t, systemDisk(map[string]any{"name": "bms", "type": "BMS", "image_tags": []map[string]string{{"key": "env", "value": "test=1"}, {"key": "bare", "value": ""}}}))
	c.accepted(t, dataDisk(map[string]any{"name": "data"}))
	job, _ := c.accepted(t, dataDisk(map[string]any{"name": "broken"}))
	if err := c.catalog.Fail(t.Context(), c.claim(t, job), ims.CodeFile, "gone"); err != nil {
		t.Fatal(err)
	}
	all := "bms data web"
	for query, want := range map[string]string{
		"": all, "unknown=1&limit=1000": all, "size_min=0&size_max=0&flavor_id=&X-Sdk-Date=20260101T000000Z": all, "__imagetype=private": all, "name=": all, "status=&tag=&marker=&limit=": all,
		"name=web": "web", "name=WEB": "", "name=w%25": "", "name=" + url.QueryEscape("x' OR 1=1"): "",
		"id=" + web: "web", "id=" + ims.NewImageID(): "", "id=nonsense": "", "id=%27": "",
		"status=active": "bms web", "status=queued": "data", "status=killed": "broken", "status=deleted": "", "status=saving": "",
		"__imagetype=gold": "", "__imagetype=shared": "", "__imagetype=market": "",
		"virtual_env_type=FusionCompute": "web", "virtual_env_type=Ironic": "bms", "virtual_env_type=DataImage": "data", "virtual_env_type=IsoImage": "",
		"enterprise_project_id=all_granted_eps": all, "enterprise_project_id=0": "bms data", "enterprise_project_id=" + eps: "web",
		"enterprise_project_id=" + strings.ToUpper(eps): "web", "enterprise_project_id=" + ims.NewImageID(): "",
		"tag=env": "bms web", "tag=env%3Dprod": "web", "tag=env=prod": "web", "tag=env=prod&tag=tier=1": "web", "tag=env=prod,tier=2": "",
		"tag=env=test=1": "bms", "tag=bare": "bms", "tag=bare=": "bms", "tag=env=": "", "tag=nothing": "",
		"tag=env&status=active&name=web&virtual_env_type=FusionCompute": "web",
	} {
		got := c.list(t, query)
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("?%s gives %v, want %s", query, got, want)
		}
	}
	for query, want := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=-1": "limit", "limit=x": "limit", "limit=1.0": "limit", "limit=99999999999999999999": "limit",
		"limit=1&limit=2": "limit occurs 2 times", "name=a&name=b": "name", "id=a&id=b": "id",
		"sort_key=colour": "created_at", "sort_key=CREATED_AT": "sort_key", "sort_dir=up": "sort_dir", "status=ready": "status",
		"protected=yes": "protected", "protected=true&protected=true": "protected", "min_disk=x": "min_disk", "min_ram=-1": "min_ram", "min_disk=4294967297": "min_disk",
		"__isregistered=yes": "__isregistered", "__whole_image=1": "__whole_image", "visibility=all": "visibility", "member_status=maybe": "member_status",
		"architecture=riscv": "architecture", "hw_firmware_type=x": "hw_firmware_type", "created_at=2018-10-28T10:00:00Z": "created_at", "updated_at=gt:now": "updated_at",
		// What can't be told from what is kept is refused, and never taken for "all".
		"size_min=x": "size_min", "size_max=-1": "size_max", "changes-since=x&size_min=x": "size_min", "max_ram=1": "max_ram", "checksum=0": "checksum", "size=1": "by size", "tags=env": "tags", "__data_origin=file": "__data_origin",
		"__unheard_of=1": "__unheard_of", "name=web&__lazyloading=true": "__lazyloading", "__imagetype=golden": "__imagetype",
		"virtual_env_type=VMware": "virtual_env_type", "marker=nonsense": "marker",
		"%zz": "query", "unknown=%zz": "query", "a;b": "query", "tag==x": "tag", "name=%00": "name", "name=%ff": "name", "name=%zz": "query", "name=a;b=c": "query",
		"tag=" + strings.Join(manyTags(11), ","): "tag",
	} {
		if details := c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", "/v2/cloudimages?"+query, ""); !strings.Contains(details, want) {
			t.Errorf("?%s: details %q, want something about %q", query, details, want)
		}
	}
	c.refused(t, http.StatusBadRequest, "IMG.0155", "GET", "/v2/cloudimages?enterprise_project_id=team", "")
}

// TestListFiltersByAttributes: each filter lets through what shows the value, and
// nothing else.
func TestListFiltersByAttributes(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	other := shared.newProject(t)
	other.active(t, systemDisk(nil))
	arm := c.active(t, systemDisk(map[string]any{"name": "arm", "architecture": "arm", "os_version": "CentOS 7.9 64bit"}))
	c.active(t, systemDisk(map[string]any{"name": "redhat", "os_version": "Redhat Linux Enterprise 8.0 64bit", "min_disk": 50}))
	c.active(t, systemDisk(map[string]any{"name": "windows", "os_version": "Windows 7 Professional 32bit", "hw_firmware_type": "uefi"}))
	c.accepted(t, dataDisk(map[string]any{"name": "data"}))
	c.expect(t, http.StatusOK, "PATCH", "/v2/cloudimages/"+arm, `[{"op":"add","path":"/__support_largememory","value":"true"},
		{"op":"add","path":"/__support_kvm_gpu_type","value":"V100_vGPU"},{"op":"add","path":"/min_ram","value":512}]`)
	const all = "arm data redhat windows"
	queries := map[string]string{
		"owner=" + c.project: all, "owner=" + other.project: "", "owner=x": "",
		"visibility=private": all, "visibility=public": "", "visibility=shared": "", "member_status=accepted": "", "member_status=pending": "",
		"__imagetype=private&visibility=private&owner=" + c.project + "&__isregistered=true&protected=false&sort_key=name&sort_dir=asc": "arm redhat windows",
		"__isregistered=true": "arm redhat windows", "__isregistered=false": "data", "__isregistered=true&status=queued": "",
		"__isregistered=false&status=queued": "data", "__isregistered=false&status=active": "", "__isregistered=true&status=active": "arm redhat windows",
		"container_format=bare": all, "container_format=ovf": "", "__whole_image=false": all, "__whole_image=true": "", "__system__cmkid=0f0f": "",
		"protected=false": all, "protected=true": "",
		"architecture=arm": "arm", "architecture=x86": "data redhat windows", "__support_arm=true": "arm", "__support_arm=false": "",
		"__support_arm=true&architecture=arm": "arm", "__support_arm=true&architecture=x86": "",
		"hw_firmware_type=uefi": "arm windows", "hw_firmware_type=bios": "data redhat",
		"__os_type=Windows": "windows", "__os_type=Linux": "arm data redhat", "__os_type=Other": "", "__os_type=linux": "",
		"__os_bit=32": "windows", "__os_bit=64": "arm redhat", "__os_bit=16": "",
		"__platform=CentOS": "arm", "__platform=Windows": "windows", "__platform=RedHat": "redhat", "__platform=Red+Hat": "redhat", "__platform=Debian": "",
		"__os_version=CentOS+7.9+64bit": "arm", "__os_version=CentOS": "",
		"disk_format=zvhd2": "arm redhat windows", "disk_format=raw": "", "disk_format=vhd": "",
		"min_disk=40": "arm windows", "min_disk=50": "redhat", "min_disk=3": "", "min_ram=512": "arm", "min_ram=0": "data redhat windows",
		"__support_kvm=true": "data redhat windows", "__support_kvm=false": "", "__support_largememory=true": "arm", "__support_largememory=false": "", "__support_largememory=tru": "",
		"__support_kvm_gpu_type=V100_vGPU": "arm", "__support_xen_gpu_type=V100_vGPU": "", "__support_largememory=true&__support_kvm_gpu_type=V100_vGPU": "arm",
		"__support_amd=true": "", "__support_agent_list=hss": "", "__support_xen=": all,
		"flavor_id=s3.large.4": "redhat windows", "flavor_id=kc1.large.4": "arm", "flavor_id=physical.o2.medium": "",
		"flavor_id=s3.large.4&architecture=arm": "", "flavor_id=s3.large.4&virtual_env_type=DataImage": "", "flavor_id=s3.large.4&__os_type=Windows": "windows",
		"size_min=1": "arm redhat windows", "size_min=4096&size_max=4096": "arm redhat windows", "size_min=4097": "", "size_max=4095": "data", "size_max=0": all,
		"created_at=gt:2030-01-01T00:00:00Z": "", "created_at=lt:2030-01-01+00:00:00": all, "updated_at=gte:2030-01-01T00:00:00Z": "",
		"created_at=gt:2020-01-01T00:00:00Z&updated_at=lte:2030-01-01T00:00:00Z&__os_bit=32": "windows",
	}
	// A time is that which the image shows, to the second.
	shown := c.expect(t, http.StatusOK, "GET", "/v2/images/"+arm, "")
	for _, name := range []string{"created_at", "updated_at"} {
		queries[fmt.Sprintf("%s=eq:%s&name=arm", name, shown[name])] = "arm"
		queries[fmt.Sprintf("%s=neq:%s&name=arm", name, shown[name])] = ""
		queries[fmt.Sprintf("%s=gt:%s&name=arm", name, shown[name])] = ""
		queries[fmt.Sprintf("%s=gte:%s&name=arm", name, shown[name])] = "arm"
	}
	for query, want := range queries {
		got := c.list(t, query)
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("?%s gives %v, want %s", query, got, want)
		}
	}
}

// TestListBehindUnknownMarker: whoever pages on from an image that is not there reads
// an empty page, which is the end.
func TestListBehindUnknownMarker(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	c.active(t, systemDisk(nil))
	if got := c.list(t, "marker="+ims.NewImageID()); len(got) != 0 {
		t.Errorf("behind an unknown marker: %v", got)
	}
}

// TestMalformedQuery: no route takes half of a query, whether it reads it or not.
func TestMalformedQuery(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.active(t, systemDisk(nil))
	for _, path := range []string{"/v2/cloudimages", "/v2/images/" + id, "/v1/cloudimages/quota", "/v1/cloudimages/os_version", "/v1.0/enterprise-projects"} {
		for _, query := range []string{"%zz", "a=%", "status=act%zz", "a=1;b=2"} {
			c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", path+"?"+query, "")
		}
	}
}

// TestListPages asks as clients do: from the last id until a page is empty.
func TestListPages(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	ids := map[string]bool{}
	for _, name := range []string{"b", "a", "c", "b", "a", "d", "b"} {
		ids[c.active(t, systemDisk(map[string]any{"name": name}))] = true
	}
	for _, sort := range []string{
		"", "sort_key=name&sort_dir=asc", "sort_key=name", "sort_key=size&sort_dir=asc", "sort_key=status", "sort_key=id&sort_dir=asc",
		"sort_key=container_format", "sort_key=disk_format&sort_dir=asc", "sort_key=created_at&sort_dir=asc", "sort_key=updated_at",
	} {
		seen := map[string]bool{}
		var names []string
		marker := ""
		for page := 0; ; page++ {
			images, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?limit=2&"+sort+"&marker="+marker, "")["images"].([]any)
			if len(images) == 0 {
				break
			}
			if page > len(ids) {
				t.Fatalf("%s: no end", sort)
			}
			for _, v := range images {
				marker = fmt.Sprint(v.(map[string]any)["id"])
				names = append(names, fmt.Sprint(v.(map[string]any)["name"]))
				if seen[marker] {
					t.Errorf("%s: image %s occurs twice", sort, marker)
				}
				seen[marker] = true
			}
		}
		if len(seen) != len(ids) {
			t.Errorf("%s: %d images on all pages, want %d", sort, len(seen), len(ids))
		}
		if sort == "sort_key=name&sort_dir=asc" && strings.Join(names, "") != "aabbbcd" {
			t.Errorf("by name: %v", names)
		}
	}
}
