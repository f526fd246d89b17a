package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// TestCopyImage: who reads an image copies it; the copy is the project's own.
func TestCopyImage(t *testing.T) {
	t.Parallel()
	owner, other := shared.newProject(t), shared.newProject(t)
	id := owner.active(t, systemDisk(map[string]any{"description": "d", "tags": []string{"a.1"}, "architecture": "arm", "min_ram": 512}))
	path := "/v1/cloudimages/" + id + "/copy"
	for _, path := range []string{path, "/v2.1/cloudimages/" + id + "/copy"} {
		job := owner.expect(t, 200, "POST", path, `{"name":"copy","description":"other"}`)["job_id"].(string)
		v := owner.expect(t, 200, "GET", "/v1/"+owner.project+"/jobs/"+job, "")
		made, _ := v["entities"].(map[string]any)["image_id"].(string)
		if v["job_type"] != "imsCopyImageInRegionJob" || made == id {
			t.Errorf("job %v", v)
		}
		img := owner.expect(t, 200, "GET", "/v2/images/"+made, "")
		for key, want := range map[string]any{
			"name": "copy", "__description": "other", "tags": []any{}, "__os_version": "Ubuntu 22.04 server 64bit", "min_disk": 40.0, "min_ram": 512.0, "architecture": "arm",
			"hw_firmware_type": "uefi", "__data_origin": "file,disks:web.zvhd2", "status": "queued", "visibility": "private", "protected": false, "owner": owner.project,
		} {
			if fmt.Sprint(img[key]) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", key, img[key], want)
			}
		}
	}
	other.refused(t, 404, "IMG.0027", "POST", path, `{"name":"copy"}`)
	owner.expect(t, 200, "POST", "/v2/images/"+id+"/members", `{"member":"`+other.project+`"}`)
	other.expect(t, 200, "PUT", "/v2/images/"+id+"/members/"+other.project, `{"status":"accepted"}`)
	job := other.expect(t, 200, "POST", path, `{"name":"copy"}`)["job_id"].(string)
	made := other.expect(t, 200, "GET", "/v1/"+other.project+"/jobs/"+job, "")["entities"].(map[string]any)["image_id"].(string)
	if img := other.expect(t, 200, "GET", "/v2/images/"+made, ""); img["owner"] != other.project || img["__data_origin"] != "file" {
		t.Errorf("the member's copy: %v", img)
	}
	owner.refused(t, 404, "IMG.0027", "GET", "/v2/images/"+made, "")
	for body, code := range map[string]ims.Code{
		`{}`: "IMG.0013", `{"name":""}`: "IMG.0013", `{"name":"a<"}`: "IMG.0003", `{"name":"a","description":"<"}`: "IMG.0054", `{"name":"a","cmk_id":"k"}`: "IMG.0105",
		`{"name":"a","enterprise_project_id":"x"}`: "IMG.0155", `{"name":1}`: "IMG.0001",
	} {
		owner.refused(t, 400, code, "POST", path, body)
	}
	owner.as(t, ims.RoleReader, owner.project).refused(t, 403, "IMG.0026", "POST", path, `{"name":"copy"}`)

	region := "/v1/cloudimages/" + id + "/cross_region_copy"
	if d := owner.refused(t, 400, "IMG.0105", "POST", region, `{"name":"copy","region":"r2","project_name":"r2","agency_name":"a"}`); !strings.Contains(d, "agency") {
		t.Errorf("details %q", d)
	}
	owner.refused(t, 400, "IMG.0104", "POST", region, `{"name":"copy","region":"r2","agency_name":"a"}`)
	owner.refused(t, 400, "IMG.0013", "POST", region, `{"region":"r2","agency_name":"a"}`)
}

// TestExportImage: the request's faults, and whose image it is.
func TestExportImage(t *testing.T) {
	t.Parallel()
	owner, other := shared.newProject(t), shared.newProject(t)
	id := owner.active(t, systemDisk(nil))
	path := "/v1/cloudimages/" + id + "/file"
	for body, want := range map[string]struct {
		code ims.Code
		text string
	}{
		`{}`: {"IMG.0017", "bucket_url"}, `{"bucket_url":"x","is_quick_export":true}`: {"IMG.0017", "colon"}, `{"bucket_url":":x"}`: {"IMG.0068", "bucket"},
		`{"bucket_url":"disks:a b","is_quick_export":true}`: {"IMG.0175", "space"}, `{"bucket_url":"DISKS:a","is_quick_export":true}`: {"IMG.0109", "bucket"},
		`{"bucket_url":"disks:","is_quick_export":true}`: {"IMG.0073", "no object"}, `{"bucket_url":"disks:` + strings.Repeat("a", 129) + `","is_quick_export":true}`: {"IMG.0074", "129"},
		`{"bucket_url":"disks:a:b","is_quick_export":true}`: {"IMG.0075", "letters"}, `{"bucket_url":"disks:../a","is_quick_export":true}`: {"IMG.0075", ".."},
		`{"bucket_url":"disks:a"}`: {"IMG.0072", "required"}, `{"bucket_url":"disks:a","file_format":"vdi"}`: {"IMG.0072", "vdi"},
		`{"bucket_url":"disks:a","file_format":"qcow2","is_quick_export":true}`: {"IMG.0072", "leave file_format out"},
		`{"bucket_url":1}`: {"IMG.0001", "bucket_url"}, `{"bucket_url":"disks:a","is_quick_export":"yes"}`: {"IMG.0001", "boolean"},
	} {
		if d := owner.refused(t, 400, want.code, "POST", path, body); !strings.Contains(d, want.text) {
			t.Errorf("%s: details %q, want something about %q", body, d, want.text)
		}
	}
	const good = `{"bucket_url":"disks:out/web.zvhd2","is_quick_export":true,"file_format":""}`
	other.refused(t, 404, "IMG.0027", "POST", path, good)
	owner.expect(t, 200, "POST", "/v2/images/"+id+"/members", `{"member":"`+other.project+`"}`)
	other.refused(t, http.StatusForbidden, "IMG.0047", "POST", path, good)
	owner.as(t, ims.RoleReader, owner.project).refused(t, 403, "IMG.0026", "POST", path, good)

	job := owner.expect(t, 200, "POST", path, good)["job_id"].(string)
	v := owner.expect(t, 200, "GET", "/v1/"+owner.project+"/jobs/"+job, "")
	if v["job_type"] != "imsNativeExportImageJob" || v["entities"].(map[string]any)["image_id"] != id || v["status"] != "INIT" {
		t.Errorf("job %v", v)
	}
	owner.refused(t, 400, "IMG.0148", "POST", "/v2.1/cloudimages/"+id+"/file", good)
	owner.refused(t, 400, "IMG.0090", "DELETE", "/v2/images/"+id, "")
	if err := owner.catalog.Fail(t.Context(), owner.claim(t, job), ims.CodeFileExists, "it is there"); err != nil {
		t.Fatal(err)
	}
	if v := owner.expect(t, 200, "GET", "/v2/images/"+id, ""); v["status"] != "active" {
		t.Errorf("the export failed, and the image is %v", v["status"])
	}
	_, queued := owner.accepted(t, systemDisk(nil))
	owner.refused(t, 400, "IMG.0046", "POST", "/v1/cloudimages/"+queued+"/file", good)
}
