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

// TestCommonImport is the common call in the forms that mean a quick import.
func TestCommonImport(t *testing.T) {
	t.Parallel()
	const path = "/v2/cloudimages/action"
	quick := map[string]any{"is_quick_import": true}
	entry := `"name":"store","image_url":"disks:store.raw","min_disk":10,"description":"d","os_type":"Windows","tags":["a.1"],"enterprise_project_id":"0"`
	for name, tc := range map[string]struct{ body, env string }{
		"system disk":                      {systemDisk(quick), "FusionCompute"},
		"data disk":                        {dataDisk(quick), "DataImage"},
		"an entry that says so":            {`{"data_images":[{` + entry + `,"is_quick_import":true}]}`, "DataImage"},
		"an entry, the top says so":        {`{"is_quick_import":true,"data_images":[{` + entry + `}]}`, "DataImage"},
		"an entry with image_tags":         {`{"data_images":[{"name":"store","image_url":"disks:store.raw","min_disk":10,"image_tags":[{"key":"a","value":"1"}],"is_quick_import":true}]}`, "DataImage"},
		"an entry has no type of its own":  {`{"data_images":[{` + entry + `,"is_quick_import":true,"type":"ECS"}]}`, "DataImage"},
		"system disk, data_images is null": {systemDisk(map[string]any{"is_quick_import": true, "data_images": nil}), "FusionCompute"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			c.expect(t, http.StatusOK, "POST", path, tc.body)
			list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")["images"].([]any)
			if len(list) != 1 || list[0].(map[string]any)["virtual_env_type"] != tc.env {
				t.Errorf("images %v, want one for %s", list, tc.env)
			}
		})
	}
	c := shared.newProject(t)
	c.expect(t, http.StatusOK, "POST", path, systemDisk(map[string]any{"is_quick_import": true, "min_ram": 512, "max_ram": 4096, "cmk_id": ""}))
	made := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?min_ram=512", "")["images"].([]any)
	if len(made) != 1 || made[0].(map[string]any)["max_ram"] != "4096" {
		t.Errorf("images %v, want one with min_ram 512 and max_ram 4096", made)
	}
	for name, tc := range map[string]struct {
		body string
		code ims.Code
		want string
	}{
		"a key to encrypt with":      {systemDisk(map[string]any{"is_quick_import": true, "cmk_id": "0f0f"}), "IMG.0105", "cmk_id"},
		"an entry with a key":        {`{"data_images":[{` + entry + `,"is_quick_import":true,"cmk_id":"0f0f"}]}`, "IMG.0105", "cmk_id"},
		"a key beside an entry":      {`{"is_quick_import":true,"cmk_id":"0f0f","data_images":[{` + entry + `}]}`, "IMG.0001", "cmk_id stands beside"},
		"too much memory":            {systemDisk(map[string]any{"is_quick_import": true, "min_ram": 1 << 40}), "IMG.0055", "min_ram"},
		"more memory than allowed":   {systemDisk(map[string]any{"is_quick_import": true, "min_ram": 2, "max_ram": 1}), "IMG.0055", "max_ram"},
		"memory is a text":           {systemDisk(map[string]any{"is_quick_import": true, "min_ram": "512"}), "IMG.0001", "min_ram must be an integer"},
		"not quick":                  {systemDisk(nil), "IMG.0105", "is_quick_import"},
		"quick is false":             {systemDisk(map[string]any{"is_quick_import": false}), "IMG.0105", "is_quick_import"},
		"quick is null":              {`{"is_quick_import":null,"name":"a"}`, "IMG.0105", "is_quick_import"},
		"quick is a text":            {systemDisk(map[string]any{"is_quick_import": "true"}), "IMG.0001", "is_quick_import must be a boolean"},
		"an entry that is not quick": {`{"data_images":[{` + entry + `}]}`, "IMG.0105", "data_images[0].is_quick_import"},
		"an entry that says no":      {`{"is_quick_import":true,"data_images":[{` + entry + `,"is_quick_import":false}]}`, "IMG.0105", "data_images[0].is_quick_import"},
		"no entry":                   {`{"is_quick_import":true,"data_images":[]}`, "IMG.0001", "exactly one"},
		"two entries":                {`{"is_quick_import":true,"data_images":[{` + entry + `},{` + entry + `}]}`, "IMG.0001", "exactly one"},
		"a mix":                      {systemDisk(map[string]any{"is_quick_import": true, "data_images": []map[string]any{{"name": "x"}}}), "IMG.0001", "beside data_images"},
		"an entry without a name":    {`{"is_quick_import":true,"data_images":[{"image_url":"disks:a.raw","min_disk":1}]}`, "IMG.0013", "name"},
		"an entry too big":           {`{"is_quick_import":true,"data_images":[{"name":"x","image_url":"disks:a.raw","min_disk":1025}]}`, "IMG.0055", "min_disk"},
		"a server's image":           {`{"name":"a","instance_id":"` + ims.NewImageID() + `"}`, "IMG.0105", "is_quick_import"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			if details := c.refused(t, http.StatusBadRequest, tc.code, "POST", path, tc.body); !strings.Contains(details, tc.want) {
				t.Errorf("details %q, want something about %q", details, tc.want)
			}
			c.owns(t, 0)
		})
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
