package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// TestSystemDiskImport sends every parameter and reads what became of it.
func TestSystemDiskImport(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	admin := c.as(t, ims.RoleAdmin, c.project)
	made := admin.expect(t, http.StatusCreated, "POST", "/v1.0/enterprise-projects", `{"name":"team-`+ims.NewJobID()+`"}`)
	eps, _ := made["enterprise_project"].(map[string]any)["id"].(string)
	job, image := c.accepted(t, systemDisk(map[string]any{
		"description": "two\nlines", "type": "BMS", "architecture": "arm", "hw_firmware_type": "uefi", "license_type": "byol",
		"enterprise_project_id": strings.ToUpper(eps), "image_tags": []map[string]string{{"key": " stage ", "value": " test "}, {"key": "empty", "value": ""}},
	}))
	v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+image, "")
	for key, want := range map[string]any{
		"name": "web server", "status": "queued", "__description": "two\nlines", "virtual_env_type": "Ironic",
		"architecture": "arm", "__support_arm": "true", "hw_firmware_type": "uefi", "license_type": "byol", "enterprise_project_id": eps,
		"min_disk": 40.0, "min_ram": 0.0, "__os_version": "Ubuntu 22.04 server 64bit", "__os_type": "Linux", "__os_bit": "64", "__platform": "Ubuntu",
		"__data_origin": "file,disks:web.zvhd2", "__isregistered": "false", "size": nil, "virtual_size": nil, "disk_format": nil, "active_at": nil,
		"owner": c.project, "visibility": "private", "protected": false, "container_format": "bare", "__image_size": "2048",
		"tags": []any{"empty", "stage=test"},
	} {
		if fmt.Sprint(v[key]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", key, v[key], want)
		}
	}
	if got := c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+job, "")["job_type"]; got != "imsImportImageJob" {
		t.Errorf("job_type %v", got)
	}
}

func TestDataDiskImport(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	job, image := c.accepted(t, dataDisk(map[string]any{"os_type": "Windows", "tags": []string{"a.1", "b-c.2_3"}}))
	v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+image, "")
	for key, want := range map[string]any{
		"virtual_env_type": "DataImage", "__os_type": "Windows", "__os_version": nil, "__platform": nil, "__os_bit": nil,
		"hw_firmware_type": "bios", "enterprise_project_id": "0", "__description": "", "min_disk": 10.0, "tags": []any{"a=1", "b-c=2_3"},
	} {
		if fmt.Sprint(v[key]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", key, v[key], want)
		}
	}
	if got := c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+job, "")["job_type"]; got != "imsImportDataImageJob" {
		t.Errorf("job_type %v", got)
	}
}

// TestCommonImport is the common call in all of its forms, with what became of each.
func TestCommonImport(t *testing.T) {
	t.Parallel()
	const action, data = "/v2/cloudimages/action", "/v1/cloudimages/dataimages/action"
	quick := map[string]any{"is_quick_import": true}
	entry := `"name":"store","image_url":"disks:store.raw","min_disk":10,"description":"d","os_type":"Windows","tags":["a.1"],"enterprise_project_id":"0"`
	plain := `{"name":"store","image_url":"disks:store.raw","min_disk":2048,"os_type":"Windows"}`
	type want struct{ job, env, os string }
	system, disk := "imsImportImageJob", "imsImportDataImageJob"
	ubuntu, unknown := "Ubuntu 22.04 server 64bit", "Other_Linux (64_bit)"
	for name, tc := range map[string]struct {
		path, body string
		want
	}{
		"system disk, quick":               {action, systemDisk(quick), want{system, "FusionCompute", ubuntu}},
		"system disk, not quick":           {action, systemDisk(map[string]any{"is_quick_import": false, "os_type": "Linux"}), want{system, "FusionCompute", ubuntu}},
		"no word of quick":                 {action, systemDisk(map[string]any{"type": "FusionCompute", "is_config": true}), want{system, "FusionCompute", ubuntu}},
		"no word of the system":            {action, systemDisk(map[string]any{"os_version": nil, "type": "Ironic"}), want{system, "Ironic", unknown}},
		"a Windows":                        {action, systemDisk(map[string]any{"os_version": "", "os_type": "Windows", "type": "BMS"}), want{system, "Ironic", "Other_Windows (64_bit)"}},
		"nobody knows which":               {action, systemDisk(map[string]any{"os_version": nil, "os_type": "Other"}), want{system, "FusionCompute", "<nil>"}},
		"version 2.1":                      {"/v2.1/cloudimages/action", systemDisk(nil), want{system, "FusionCompute", ubuntu}},
		"version 2.1, quick":               {"/v2.1/cloudimages/quickimport/action", systemDisk(map[string]any{"type": "Ironic"}), want{system, "Ironic", ubuntu}},
		"below /image":                     {"/image/v2/cloudimages/action", systemDisk(nil), want{system, "FusionCompute", ubuntu}},
		"data disk, quick":                 {action, dataDisk(quick), want{disk, "DataImage", "<nil>"}},
		"an entry that says so":            {action, `{"data_images":[{` + entry + `,"is_quick_import":true}]}`, want{disk, "DataImage", "<nil>"}},
		"an entry, the top says so":        {action, `{"is_quick_import":true,"data_images":[{` + entry + `}]}`, want{disk, "DataImage", "<nil>"}},
		"an entry, nobody says so":         {action, `{"data_images":[{` + entry + `,"volume_id":""}]}`, want{disk, "DataImage", "<nil>"}},
		"an entry with image_tags":         {action, `{"data_images":[{"name":"store","image_url":"disks:store.raw","min_disk":10,"image_tags":[{"key":"a","value":"1"}],"is_quick_import":true}]}`, want{disk, "DataImage", "<nil>"}},
		"an entry that inherits":           {action, `{"name":"store","tags":["a.1"],"enterprise_project_id":"0","data_images":[{"image_url":"disks:store.raw","min_disk":10}]}`, want{disk, "DataImage", "<nil>"}},
		"an entry has no type of its own":  {action, `{"data_images":[{` + entry + `,"is_quick_import":true,"type":"ECS"}]}`, want{disk, "DataImage", "<nil>"}},
		"system disk, data_images is null": {action, systemDisk(map[string]any{"is_quick_import": true, "data_images": nil, "instance_id": ""}), want{system, "FusionCompute", ubuntu}},
		"a data disk image":                {data, plain, want{disk, "DataImage", "<nil>"}},
		"a data disk image, version 2.1":   {"/v2.1/cloudimages/dataimages/action", plain, want{disk, "DataImage", "<nil>"}},
		"a data disk image by version 1":   {"/v1/cloudimages/action", plain, want{disk, "DataImage", "<nil>"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			id := c.expect(t, http.StatusOK, "POST", tc.path, tc.body)["job_id"].(string)
			list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")["images"].([]any)
			if len(list) != 1 {
				t.Fatalf("images %v, want one", list)
			}
			img := list[0].(map[string]any)
			job := c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+id, "")
			if got := (want{fmt.Sprint(job["job_type"]), fmt.Sprint(img["virtual_env_type"]), fmt.Sprint(img["__os_version"])}); got != tc.want {
				t.Errorf("made %+v, want %+v", got, tc.want)
			}
			if strings.Contains(tc.body, `"a.1"`) && fmt.Sprint(img["tags"]) != "[a=1]" {
				t.Errorf("tags %v", img["tags"])
			}
		})
	}
	c := shared.newProject(t)
	c.expect(t, http.StatusOK, "POST", action, systemDisk(map[string]any{"is_quick_import": true, "min_ram": 512, "max_ram": 4096, "cmk_id": ""}))
	made := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?min_ram=512", "")["images"].([]any)
	if len(made) != 1 || made[0].(map[string]any)["max_ram"] != "4096" {
		t.Errorf("images %v, want one with min_ram 512 and max_ram 4096", made)
	}
	const compute, volumes, backups = "compute service", "block storage service", "backup service"
	some := ims.NewImageID()
	for name, tc := range map[string]struct {
		path, body string
		code       ims.Code
		want       string
	}{
		"a key to encrypt with":       {action, systemDisk(map[string]any{"is_quick_import": true, "cmk_id": "0f0f"}), "IMG.0105", "cmk_id"},
		"an entry with a key":         {action, `{"data_images":[{` + entry + `,"is_quick_import":true,"cmk_id":"0f0f"}]}`, "IMG.0105", "cmk_id"},
		"a key beside an entry":       {action, `{"is_quick_import":true,"cmk_id":"0f0f","data_images":[{` + entry + `}]}`, "IMG.0001", "cmk_id stands beside"},
		"too much memory":             {action, systemDisk(map[string]any{"min_ram": 1 << 40}), "IMG.0055", "min_ram"},
		"more memory than allowed":    {action, systemDisk(map[string]any{"min_ram": 2, "max_ram": 1}), "IMG.0055", "max_ram"},
		"memory is a text":            {action, systemDisk(map[string]any{"min_ram": "512"}), "IMG.0001", "min_ram must be an integer"},
		"quick is a text":             {action, systemDisk(map[string]any{"is_quick_import": "true"}), "IMG.0001", "is_quick_import must be a boolean"},
		"config is a text":            {action, systemDisk(map[string]any{"is_config": "true"}), "IMG.0001", "is_config must be a boolean"},
		"quick, no word of a system":  {action, systemDisk(map[string]any{"is_quick_import": true, "os_version": nil}), "IMG.0056", "os_version is required"},
		"another type of system":      {action, systemDisk(map[string]any{"os_type": "Windows"}), "IMG.0122", "leave os_type out"},
		"no type of system":           {action, systemDisk(map[string]any{"os_version": nil, "os_type": "BSD"}), "IMG.0122", "os_type"},
		"no type":                     {action, systemDisk(map[string]any{"type": "VM"}), "IMG.0024", "FusionCompute"},
		"a disc":                      {action, systemDisk(map[string]any{"type": "IsoImage"}), "IMG.0105", "discs"},
		"no entry":                    {action, `{"is_quick_import":true,"data_images":[]}`, "IMG.0001", "exactly one"},
		"two entries":                 {action, `{"is_quick_import":true,"data_images":[{` + entry + `},{` + entry + `}]}`, "IMG.0001", "exactly one"},
		"a mix":                       {action, systemDisk(map[string]any{"data_images": []map[string]any{{"name": "x"}}}), "IMG.0001", "beside data_images"},
		"an entry without a name":     {action, `{"is_quick_import":true,"data_images":[{"image_url":"disks:a.raw","min_disk":1}]}`, "IMG.0013", "name"},
		"a quick entry too big":       {action, `{"is_quick_import":true,"data_images":[{"name":"x","image_url":"disks:a.raw","min_disk":1025}]}`, "IMG.0055", "min_disk"},
		"an entry too big":            {action, `{"data_images":[{"name":"x","image_url":"disks:a.raw","min_disk":2049}]}`, "IMG.0055", "min_disk"},
		"a system disk too big":       {action, systemDisk(map[string]any{"min_disk": 1025}), "IMG.0055", "min_disk"},
		"a data disk of another kind": {data, `{"name":"x","image_url":"disks:a.raw","min_disk":1,"os_type":"Other"}`, "IMG.0122", "os_type"},
		"a data disk without a file":  {data, `{"name":"x","min_disk":1}`, "IMG.0017", "image_url"},
		"a data disk too big":         {data, `{"name":"x","image_url":"disks:a.raw","min_disk":2049}`, "IMG.0055", "2048"},
		"a server's image":            {action, `{"name":"a","instance_id":"` + some + `"}`, "IMG.0105", compute},
		"a server's and a file's":     {action, systemDisk(map[string]any{"instance_id": some}), "IMG.0001", "one source"},
		"a volume's image":            {action, `{"name":"a","volume_id":"` + some + `","os_version":"x"}`, "IMG.0105", volumes},
		"volumes' images":             {action, `{"data_images":[{"name":"a","volume_id":"` + some + `"},{"name":"b","volume_id":"` + some + `"}]}`, "IMG.0105", volumes},
		"a backup's image":            {action, `{"name":"a","backup_id":"` + some + `"}`, "IMG.0105", backups},
		"a volume's data image":       {data, `{"name":"a","volume_id":"` + some + `"}`, "IMG.0105", volumes},
		"a quick server":              {quickImport, `{"name":"a","instance_id":"` + some + `"}`, "IMG.0105", compute},
		"a whole server":              {"/v1/cloudimages/wholeimages/action", `{"name":"a","instance_id":"` + some + `","vault_id":"v"}`, "IMG.0105", backups},
		"a whole machine of a backup": {"/v1/cloudimages/wholeimages/action", `{"name":"a","backup_id":"` + some + `","whole_image_type":"CBR"}`, "IMG.0105", backups},
		"a whole machine, no name":    {"/v1/cloudimages/wholeimages/action", `{"backup_id":"` + some + `"}`, "IMG.0013", "name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			if details := c.refused(t, http.StatusBadRequest, tc.code, "POST", tc.path, tc.body); !strings.Contains(details, tc.want) {
				t.Errorf("details %q, want something about %q", details, tc.want)
			}
			c.owns(t, 0)
		})
	}
}

// TestNestedJob: the client of POST /v1/cloudimages/action reads the image's id out of the
// first sub-job.
func TestNestedJob(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id := c.expect(t, http.StatusOK, "POST", "/v1/cloudimages/action", `{"name":"store","image_url":"disks:store.raw","min_disk":10}`)["job_id"].(string)
	show := func() map[string]any {
		return c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+id, "")["entities"].(map[string]any)
	}
	image := show()["image_id"].(string)
	c.publish(t, id, image, 4096)
	v := show()
	results, _ := v["sub_jobs_result"].([]any)
	if len(results) != 1 || v["image_id"] != image {
		t.Fatalf("entities %v", v)
	}
	sub := results[0].(map[string]any)
	if sub["status"] != "SUCCESS" || sub["entities"].(map[string]any)["image_id"] != image {
		t.Errorf("sub-job %v", sub)
	}
}

// TestRegister: an image without data is made, and a file becomes its data.
func TestRegister(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	made := c.expect(t, http.StatusCreated, "POST", "/v2/images", `{"name":"web","__os_version":"Ubuntu 22.04 server 64bit","disk_format":"vhd",
		"container_format":"bare","visibility":"private","protected":false,"min_disk":80,"min_ram":1024,"tags":["foo=bar","key=value"],
		"hw_firmware_type":"uefi","__description":"d","unknown":"ignored"}`)
	id, _ := made["id"].(string)
	for _, v := range []map[string]any{made, c.expect(t, 200, "GET", "/v2/cloudimages?id="+id+"&disk_format=vhd", "")["images"].([]any)[0].(map[string]any)} {
		for key, want := range map[string]any{
			"name": "web", "status": "queued", "disk_format": "vhd", "container_format": "bare", "min_disk": 80.0, "min_ram": 1024.0, "visibility": "private",
			"__os_version": "Ubuntu 22.04 server 64bit", "__os_type": "Linux", "__os_bit": "64", "__platform": "Ubuntu", "__image_size": "0", "__data_origin": "file",
			"virtual_env_type": "FusionCompute", "tags": []any{"foo=bar", "key=value"}, "hw_firmware_type": "uefi", "__description": "d", "__isregistered": "false",
		} {
			if fmt.Sprint(v[key]) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", key, v[key], want)
			}
		}
	}
	if v := c.expect(t, http.StatusCreated, "POST", "/v2/images", `{}`); v["__os_version"] != "Other Linux(64 bit)" || v["disk_format"] != "zvhd2" || v["name"] != "" {
		t.Errorf("nothing said: %v", v)
	}
	path := "/v1/cloudimages/" + id + "/upload"
	for body, code := range map[string]ims.Code{
		`{}`: "IMG.0017", `{"image_url":"x"}`: "IMG.0017", `{"image_url":":a"}`: "IMG.0068", `{"image_url":1}`: "IMG.0001", `{"image_url":"disks:a b"}`: "IMG.0175", ``: "IMG.0007",
	} {
		c.refused(t, 400, code, "PUT", path, body)
	}
	const url = `{"image_url":"disks:web.raw"}`
	shared.newProject(t).refused(t, 404, "IMG.0027", "PUT", path, url)
	c.refused(t, 404, "IMG.0027", "PUT", "/v1/cloudimages/"+ims.NewImageID()+"/upload", url)
	c.as(t, ims.RoleReader, c.project).refused(t, 403, "IMG.0026", "PUT", path, url)

	jobID := c.expect(t, 200, "PUT", path, url)["job_id"].(string)
	c.refused(t, 409, "IMG.0035", "PUT", path, url)
	if a := c.send(t, "PUT", glanceImages+"/"+id+"/file", "bytes"); a.status != 415 && a.status != 409 {
		t.Errorf("an upload beside it: %d %s", a.status, a.body)
	}
	c.refused(t, 400, "IMG.0090", "DELETE", "/v2/images/"+id, "")
	c.publish(t, jobID, id, 4096)
	job := c.expect(t, 200, "GET", "/v1/"+c.project+"/jobs/"+jobID, "")
	if job["job_type"] != "imsNativeImportImageJob" || job["status"] != "SUCCESS" || job["entities"].(map[string]any)["image_id"] != id {
		t.Errorf("job %v", job)
	}
	v := c.expect(t, 200, "GET", "/v2/images/"+id, "")
	for key, want := range map[string]any{"status": "active", "disk_format": "zvhd2", "__image_size": "2048", "__data_origin": "file,disks:web.raw", "min_disk": 80.0} {
		if v[key] != want {
			t.Errorf("%s is %v, want %v", key, v[key], want)
		}
	}
	if v := c.expect(t, 200, "GET", glanceImages+"/"+id, ""); v["disk_format"] != "raw" {
		t.Errorf("Glance: disk_format %v", v["disk_format"])
	}
	c.refused(t, 409, "IMG.0035", "PUT", path, url)

	for body, want := range map[string]struct {
		status int
		code   ims.Code
	}{
		`{"name":"a<b"}`: {400, "IMG.0003"}, `{"__os_version":"x"}`: {400, "IMG.0056"}, `{"disk_format":"x"}`: {400, "IMG.0001"},
		`{"container_format":"x"}`: {400, "IMG.0001"}, `{"min_disk":0}`: {400, "IMG.0055"}, `{"min_disk":1025}`: {400, "IMG.0055"}, `{"min_ram":-1}`: {400, "IMG.0055"},
		`{"tags":["=x"]}`: {400, "IMG.0115"}, `{"tags":["a=1","a=2"]}`: {400, "IMG.0115"}, `{"tags":[""]}`: {400, "IMG.0115"}, `{"protected":"no"}`: {400, "IMG.0001"},
		`{"visibility":"public"}`: {403, "IMG.0161"}, `{"visibility":"community"}`: {403, "IMG.0161"}, `{"visibility":"x"}`: {400, "IMG.0001"},
		`{"hw_firmware_type":"x"}`: {400, "IMG.0141"}, `{"enterprise_project_id":"` + ims.NewImageID() + `"}`: {400, "IMG.0155"},
	} {
		c.refused(t, want.status, want.code, "POST", "/v2/images", body)
	}
	team := c.as(t, ims.RoleAdmin, c.project).expect(t, http.StatusCreated, "POST", "/v1.0/enterprise-projects", `{"name":"`+c.project+`"}`)["enterprise_project"].(map[string]any)["id"]
	if v := c.expect(t, http.StatusCreated, "POST", "/v2/images", fmt.Sprintf(`{"enterprise_project_id":%q}`, team)); v["enterprise_project_id"] != team {
		t.Errorf("the image is in %v, want %v", v["enterprise_project_id"], team)
	}
	raw := c.expect(t, http.StatusCreated, "POST", "/v2/images", `{"disk_format":"raw"}`)["id"].(string)
	if a := c.send(t, "PUT", "/v2/images/"+raw+"/file", "bytes"); a.status != 204 {
		t.Errorf("upload: %d %s", a.status, a.body)
	}
	if v := c.expect(t, 200, "GET", "/v2/images/"+raw, ""); v["status"] != "active" || v["disk_format"] != "raw" || v["__data_origin"] != "file" {
		t.Errorf("uploaded: %v", v)
	}
}

// TestJob follows a job through its states.
func TestJob(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id, image := c.accepted(t, systemDisk(nil))
	show := func() map[string]any { return c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+id, "") }
	want := func(v map[string]any, fields map[string]any) {
		t.Helper()
		for key, want := range fields {
			got, there := v[key]
			if !there || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
	}
	v := show()
	want(v, map[string]any{"job_id": id, "status": "INIT", "end_time": nil, "error_code": nil, "fail_reason": nil})
	want(v["entities"].(map[string]any), map[string]any{"image_id": image, "image_name": "web server", "current_task": "accepted", "process_percent": 0})

	job := c.claim(t, id)
	job.Step, job.Percent = ims.StepInspect, 30
	if err := c.catalog.SaveStep(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	v = show()
	want(v, map[string]any{"status": "RUNNING", "end_time": nil})
	want(v["entities"].(map[string]any), map[string]any{"current_task": "inspect", "process_percent": 30})

	if err := c.catalog.Fail(t.Context(), job, ims.CodeFile, "cut off <here>"); err != nil {
		t.Fatal(err)
	}
	v = show()
	want(v, map[string]any{"status": "FAIL", "error_code": "IMG.0057", "fail_reason": "cut off <here>"})
	want(v["entities"].(map[string]any), map[string]any{"image_id": image})
	if v["end_time"] == nil {
		t.Error("no end_time")
	}

	id, image = c.accepted(t, systemDisk(nil))
	c.publish(t, id, image, 8192)
	v = show()
	want(v, map[string]any{"status": "SUCCESS", "error_code": nil, "fail_reason": nil})
	want(v["entities"].(map[string]any), map[string]any{"image_id": image, "image_name": "web server", "process_percent": 100})
}
