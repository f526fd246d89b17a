package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

const cloudMembers = "/v1/cloudimages/members"

// job sends a request about members and gives its job.
func (c caller) memberJob(t testing.TB, method, request string) map[string]any {
	t.Helper()
	id := c.expect(t, http.StatusOK, method, cloudMembers, request)["job_id"].(string)
	v := c.expect(t, http.StatusOK, "GET", "/v1/"+c.project+"/jobs/"+id, "")
	if v["status"] != "SUCCESS" || v["job_id"] != id || v["begin_time"] == nil || v["end_time"] == nil || v["error_code"] != nil || v["fail_reason"] != nil {
		t.Errorf("the job is %v", v)
	}
	if same := c.expect(t, http.StatusOK, "GET", "/v1/cloudimages/job/"+id, ""); jsonText(same) != jsonText(v) {
		t.Errorf("without the project the job is %v", same)
	}
	return v
}

// TestManyMembers shares several images with several projects, as the cloud's own clients do.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	owner, one, two := shared.newProject(t), shared.newProject(t), shared.newProject(t)
	first, second := owner.active(t, systemDisk(map[string]any{"name": "first"})), owner.active(t, systemDisk(map[string]any{"name": "second"}))
	both := fmt.Sprintf(`{"images":["%s","%s"],"projects":["%s","%s"]}`, first, second, one.project, two.project)
	isShared := func(c caller, image string) bool {
		t.Helper()
		list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?id="+image+"&__imagetype=shared", "")["images"].([]any)
		return len(list) == 1
	}

	if isShared(owner, first) {
		t.Error("an image without members is listed as shared")
	}
	v := owner.memberJob(t, "POST", both)
	entities := v["entities"].(map[string]any)
	want := fmt.Sprintf(`{"image_id":"%s","project_id":"%s","status":"success"}`, second, one.project)
	results, parts, ids := jsonText(entities["results"]), entities["sub_jobs_result"].([]any), entities["sub_jobs_list"].([]any)
	if v["job_type"] != "imsAddImageMembersJob" || strings.Count(results, "image_id") != 4 || !strings.Contains(results, want) || len(parts) != 4 || len(ids) != 4 {
		t.Errorf("the job is %s", jsonText(v))
	}
	part := owner.expect(t, http.StatusOK, "GET", "/v1/"+owner.project+"/jobs/"+ids[2].(string), "")
	if jsonText(part) != jsonText(parts[2]) || part["entities"].(map[string]any)["image_id"] != second || !strings.Contains(jsonText(part), want) {
		t.Errorf("a part is %s, in the whole %s", jsonText(part), jsonText(parts[2]))
	}
	if !isShared(owner, first) || isShared(one, first) {
		t.Error("an offered image is shared for its owner, and not yet for the member")
	}

	// The members answer.
	v = one.memberJob(t, "PUT", fmt.Sprintf(`{"images":["%s","%s"],"project_id":"%s","status":"accepted"}`, first, second, one.project))
	if v["job_type"] != "imsUpdateImageMembersJob" || strings.Count(jsonText(v["entities"].(map[string]any)["results"]), `"success"`) != 2 {
		t.Errorf("the job is %s", jsonText(v))
	}
	if !isShared(one, first) {
		t.Error("an accepted image is not listed")
	}
	one.memberJob(t, "PUT", fmt.Sprintf(`{"images":["%s"],"project_id":"%s","status":"rejected"}`, first, one.project))
	if isShared(one, first) || !isShared(one, second) {
		t.Error("a rejected image is listed, or the other one is not")
	}

	// By project, with pages.
	path := "/v1/" + owner.project + "/cloudimages/" + first + "/members"
	page := owner.expect(t, http.StatusOK, "GET", path+"?limit=1", "")
	members := page["members"].([]any)
	m := members[0].(map[string]any)
	info := page["page_info"].(map[string]any)
	if len(members) != 1 || m["member_type"] != "project" || m["image_id"] != first || page["schema"] != "/v2/schemas/members" || info["next_marker"] != m["member_id"] || info["current_count"] != 1.0 {
		t.Errorf("the first page is %s", jsonText(page))
	}
	page = owner.expect(t, http.StatusOK, "GET", path+"?limit=1&marker="+m["member_id"].(string), "")
	if info = page["page_info"].(map[string]any); len(page["members"].([]any)) != 1 || info["next_marker"] != nil {
		t.Errorf("the second page is %s", jsonText(page))
	}
	for id, status := range map[string]string{one.project: "rejected", two.project: "pending"} {
		if m := owner.expect(t, http.StatusOK, "GET", path+"/"+id, ""); m["status"] != status || m["member_id"] != id || m["schema"] != "/v2/schemas/member" {
			t.Errorf("a member is %v", m)
		}
	}
	if page := two.expect(t, http.StatusOK, "GET", "/v1/"+two.project+"/cloudimages/"+first+"/members", ""); len(page["members"].([]any)) != 1 {
		t.Errorf("a member is shown %s", jsonText(page))
	}
	owner.refused(t, http.StatusNotFound, "IMG.0121", "GET", path+"/nobody", "")
	for _, query := range []string{"?limit=0", "?limit=x", "?marker=nobody"} {
		owner.refused(t, http.StatusBadRequest, "IMG.0001", "GET", path+query, "")
	}

	// The end of it. A removal tells of no pairs.
	v = owner.memberJob(t, "DELETE", both)
	if v["job_type"] != "imsDelImageMembersJob" || jsonText(v["entities"].(map[string]any)["results"]) != "[]" {
		t.Errorf("the job is %s", jsonText(v))
	}
	owner.memberJob(t, "DELETE", both) // there is nothing left to do
	if isShared(owner, first) || isShared(one, second) {
		t.Error("shared after the last member is gone")
	}
}

func TestManyMembersRefused(t *testing.T) {
	t.Parallel()
	owner, member := shared.newProject(t), shared.newProject(t)
	image := offered(t, owner, member)
	queued := queuedImage(t, owner)
	var crowd []string
	for i := range 1001 {
		crowd = append(crowd, fmt.Sprintf(`"p%d"`, i))
	}
	add := func(images, projects string) string {
		return `{"images":[` + images + `],"projects":[` + projects + `]}`
	}
	quoted := `"` + image + `"`
	for request, code := range map[string]ims.Code{
		`{}`:                                   "IMG.0001",
		`{"images":[` + quoted + `]}`:          "IMG.0001",
		`{"projects":["p"]}`:                   "IMG.0001",
		add(``, `"p"`):                         "IMG.0001",
		add(quoted, ``):                        "IMG.0001",
		add(quoted, strings.Join(crowd, ",")):  "IMG.0001",
		add(quoted, `"a project"`):             "IMG.0067",
		add(quoted, `"p","`+owner.project+`"`): "IMG.0076",
		add(`"`+queued+`"`, `"p"`):             "IMG.0046",
		`{"images":[` + quoted + `],"projects":[],"domains":["d"]}`:            "IMG.0105",
		`{"images":[` + quoted + `],"projects":["p"],"organizations":["urn"]}`: "IMG.0105",
	} {
		owner.refused(t, http.StatusBadRequest, code, "POST", cloudMembers, request)
	}
	for _, unknown := range []string{"none", ims.NewImageID(), shared.newProject(t).active(t, systemDisk(nil))} {
		for _, method := range []string{"POST", "DELETE"} {
			details := owner.refused(t, http.StatusNotFound, "IMG.0027", method, cloudMembers, add(quoted+`,"`+unknown+`"`, `"p"`))
			if !strings.Contains(details, unknown) {
				t.Errorf("details %q do not name the image", details)
			}
		}
	}
	member.refused(t, http.StatusForbidden, "IMG.0047", "POST", cloudMembers, add(quoted, `"p"`))
	member.refused(t, http.StatusForbidden, "IMG.0047", "DELETE", cloudMembers, add(quoted, `"`+member.project+`"`))

	answer := func(images, project, status string) string {
		return `{"images":[` + images + `],"project_id":"` + project + `","status":"` + status + `"}`
	}
	for request, code := range map[string]ims.Code{
		answer(quoted, member.project, "pending"):         "IMG.0001",
		answer(quoted, member.project, "Accepted"):        "IMG.0001",
		answer(``, member.project, "accepted"):            "IMG.0001",
		answer(quoted, owner.project, "accepted"):         "IMG.0067",
		answer(quoted, "", "accepted"):                    "IMG.0067",
		`{"images":[` + quoted + `],"status":"accepted"}`: "IMG.0001",
	} {
		member.refused(t, http.StatusBadRequest, code, "PUT", cloudMembers, request)
	}
	owner.refused(t, http.StatusForbidden, "IMG.0161", "PUT", cloudMembers, answer(quoted, owner.project, "accepted"))
	member.refused(t, http.StatusNotFound, "IMG.0027", "PUT", cloudMembers, answer(`"`+ims.NewImageID()+`"`, member.project, "accepted"))

	v := owner.expect(t, http.StatusOK, "GET", "/v2/images/"+image+"/members", "")
	if list := v["members"].([]any); len(list) != 1 || list[0].(map[string]any)["status"] != "pending" {
		t.Errorf("the members are %s", jsonText(v))
	}
	job := owner.expect(t, http.StatusOK, "POST", cloudMembers, add(quoted, `"p"`))["job_id"].(string)
	member.refused(t, http.StatusNotFound, "IMG.0023", "GET", "/v1/"+member.project+"/jobs/"+job, "")
	member.refused(t, http.StatusNotFound, "IMG.0023", "GET", "/v1/cloudimages/job/"+job, "")
}

// queuedImage is an image without data.
func queuedImage(t testing.TB, c caller) string {
	t.Helper()
	_, image := c.accepted(t, systemDisk(nil))
	return image
}
