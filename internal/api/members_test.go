package api_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// offered shares an image of one project with another, which has not answered.
func offered(t testing.TB, owner, member caller) (image string) {
	t.Helper()
	image = owner.active(t, systemDisk(map[string]any{"name": "offer"}))
	owner.disks.put(image, bytes.Repeat([]byte{7}, 4096), -1, nil)
	owner.expect(t, http.StatusOK, "POST", "/v2/images/"+image+"/members", `{"member":"`+member.project+`"}`)
	return image
}

func TestSharing(t *testing.T) {
	t.Parallel()
	owner, member, stranger := shared.newProject(t), shared.newProject(t), shared.newProject(t)
	image := offered(t, owner, member)
	path, file := "/v2/images/"+image, "/v2/images/"+image+"/file"
	members, self := path+"/members", path+"/members/"+member.project

	// Offered: it can be looked at, not read.
	if v := owner.expect(t, http.StatusOK, "GET", path, ""); v["visibility"] != "shared" || v["__imagetype"] != "private" {
		t.Errorf("the owner is shown %v", v)
	}
	v := member.expect(t, http.StatusOK, "GET", path, "")
	if v["visibility"] != "shared" || v["__imagetype"] != "shared" || v["owner"] != owner.project || v["__data_origin"] != "file" || v["enterprise_project_id"] != "0" {
		t.Errorf("the member is shown %v", v)
	}
	if strings.Contains(jsonText(v), "disk.raw") {
		t.Errorf("the member is shown the owner's source: %v", v)
	}
	details := member.refused(t, http.StatusForbidden, "IMG.0161", "GET", file, "")
	if !strings.Contains(details, "pending") {
		t.Errorf("details %q", details)
	}
	member.refused(t, http.StatusForbidden, "IMG.0161", "POST", member.attachments(), `{"image_id":"`+image+`"}`)
	if got := member.list(t, ""); len(got) != 0 {
		t.Errorf("listed before it is accepted: %v", got)
	}
	if got := member.list(t, "member_status=pending"); len(got) != 1 {
		t.Errorf("offers: %v", got)
	}
	owner.refused(t, http.StatusForbidden, "IMG.0161", "PUT", self, `{"status":"accepted"}`)

	// Accepted: it is read and attached.
	accepted := member.expect(t, http.StatusOK, "PUT", self, `{"status":"accepted","vault_id":null}`)
	if accepted["status"] != "accepted" || accepted["member_id"] != member.project || accepted["image_id"] != image || accepted["schema"] != "/v2/schemas/member" {
		t.Errorf("accepted %v", accepted)
	}
	if a := member.send(t, "GET", file, ""); a.status != http.StatusOK || len(a.body) != 4096 {
		t.Errorf("read: %d, %d bytes", a.status, len(a.body))
	}
	if got := member.list(t, "visibility=shared&__imagetype=shared&owner="+owner.project); len(got) != 1 || got[0] != "offer" {
		t.Errorf("listed %v", got)
	}
	member.attach(t, image)
	owner.refused(t, http.StatusConflict, "IMG.0035", "DELETE", path, "")

	// Nothing else.
	for _, try := range [][3]string{
		{"DELETE", path, `{"force":true}`}, {"PATCH", "/v2/cloudimages/" + image, `[{"op":"replace","path":"/name","value":"x"}]`},
		{"GET", "/v2/" + member.project + "/images/" + image + "/tags", ""},
		{"POST", "/v2/" + member.project + "/images/" + image + "/tags", `{"tag":{"key":"a","value":"b"}}`},
		{"DELETE", "/v2/" + member.project + "/images/" + image + "/tags/a", ""},
	} {
		member.refused(t, http.StatusNotFound, "IMG.0027", try[0], try[1], try[2])
	}
	member.refused(t, http.StatusForbidden, "IMG.0047", "POST", members, `{"member":"`+stranger.project+`"}`)
	member.refused(t, http.StatusForbidden, "IMG.0047", "DELETE", self, "")

	// A member does not see the others, nor anybody who is none the image.
	owner.expect(t, http.StatusOK, "POST", members, `{"member":"third"}`)
	for who, want := range map[*caller]int{&owner: 2, &member: 1} {
		if list, _ := who.expect(t, http.StatusOK, "GET", members, "")["members"].([]any); len(list) != want {
			t.Errorf("%d members are shown, want %d", len(list), want)
		}
	}
	other := member.refused(t, http.StatusNotFound, "IMG.0121", "GET", members+"/third", "")
	if none := member.refused(t, http.StatusNotFound, "IMG.0121", "GET", members+"/fourth", ""); none != other {
		t.Errorf("another member answers %q, none %q", other, none)
	}
	member.refused(t, http.StatusNotFound, "IMG.0121", "PUT", members+"/third", `{"status":"accepted"}`)
	stranger.refused(t, http.StatusNotFound, "IMG.0027", "PUT", members+"/"+stranger.project, `{"status":"accepted"}`)

	// Taken back.
	if a := owner.send(t, "DELETE", self, ""); a.status != http.StatusNoContent {
		t.Errorf("removed: %d %s", a.status, a.body)
	}
	owner.refused(t, http.StatusNotFound, "IMG.0121", "DELETE", self, "")
	member.refused(t, http.StatusNotFound, "IMG.0027", "GET", path, "")
	member.refused(t, http.StatusNotFound, "IMG.0027", "GET", file, "")
	if list, _ := member.expect(t, http.StatusOK, "GET", member.attachments(), "")["attachments"].([]any); len(list) != 0 {
		t.Errorf("attachments outlive the sharing: %v", list)
	}
	if a := owner.send(t, "DELETE", path, ""); a.status != http.StatusNoContent {
		t.Errorf("deletion: %d %s", a.status, a.body)
	}
}

func TestSharingRefusals(t *testing.T) {
	t.Parallel()
	owner, member := shared.newProject(t), shared.newProject(t)
	image := offered(t, owner, member)
	members := "/v2/images/" + image + "/members"
	_, queued := owner.accepted(t, systemDisk(nil))
	owner.refused(t, http.StatusConflict, "IMG.0035", "POST", members, `{"member":"`+member.project+`"}`)
	owner.refused(t, http.StatusBadRequest, "IMG.0076", "POST", members, `{"member":"`+owner.project+`"}`)
	owner.refused(t, http.StatusBadRequest, "IMG.0046", "POST", "/v2/images/"+queued+"/members", `{"member":"`+member.project+`"}`)
	for body, want := range map[string]string{
		`{}`: "member is required", `{"member":1}`: "member must be a string", `{"member":""}`: "member is", `{"member":"a b"}`: "id of a project",
		`{"member":"` + strings.Repeat("a", 65) + `"}`: "id of a project",
	} {
		if details := owner.refused(t, http.StatusBadRequest, "IMG.0001", "POST", members, body); !strings.Contains(details, want) {
			t.Errorf("%s: details %q", body, details)
		}
	}
	for body, want := range map[string]string{`{}`: "status is required", `{"status":"maybe"}`: "accepted, rejected or pending", `{"status":true}`: "status must be"} {
		if details := member.refused(t, http.StatusBadRequest, "IMG.0001", "PUT", members+"/"+member.project, body); !strings.Contains(details, want) {
			t.Errorf("%s: details %q", body, details)
		}
	}
	owner.refused(t, http.StatusNotFound, "IMG.0121", "GET", members+"/a%20b", "")

	// A reader looks and does not answer.
	reader := member.as(t, ims.RoleReader, member.project)
	reader.expect(t, http.StatusOK, "GET", members, "")
	reader.refused(t, http.StatusForbidden, "IMG.0026", "PUT", members+"/"+member.project, `{"status":"accepted"}`)
}
