package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/api"
	"github.com/quickims/quickims/internal/catalog"
	"github.com/quickims/quickims/internal/ims"
)

var tokenForm = regexp.MustCompile(`^[a-z2-7]{32}$`)

func (c caller) attachments() string { return "/v1/" + c.project + "/attachments" }

// attach attaches an image and gives the attachment's id and its token.
func (c caller) attach(t testing.TB, image string) (id, token string) {
	t.Helper()
	v := c.expect(t, http.StatusOK, "POST", c.attachments(), `{"image_id":"`+image+`"}`)
	uri, _ := v["uri"].(string)
	token, ok := strings.CutPrefix(uri, "nbd://127.0.0.1:10809/")
	if !ok || !tokenForm.MatchString(token) {
		t.Fatalf("attached %v", v)
	}
	id, _ = v["attachment_id"].(string)
	return id, token
}

func TestAttachment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	image := c.active(t, systemDisk(nil))
	before := time.Now()
	made := c.expect(t, http.StatusOK, "POST", c.attachments(), `{"image_id":"`+image+`","ttl_seconds":3600,"more":1}`)
	id, _ := made["attachment_id"].(string)
	uri, _ := made["uri"].(string)
	token := strings.TrimPrefix(uri, "nbd://127.0.0.1:10809/")
	expires, err := time.Parse(time.RFC3339, fmt.Sprint(made["expires_at"]))
	if err != nil || expires.Before(before.Add(time.Hour-2*time.Second)) || expires.After(time.Now().Add(time.Hour)) {
		t.Errorf("expires_at %v, an hour was asked for", made["expires_at"])
	}
	if !ims.ValidUUID(id) || made["image_id"] != image || !tokenForm.MatchString(token) {
		t.Errorf("attached %v", made)
	}
	if a, img, err := w.catalog.AttachmentByToken(t.Context(), ims.HashAttachToken(token)); err != nil || a.ID != id || img.ID != image {
		t.Errorf("the token leads to %v of image %v (%v)", a.ID, img.ID, err)
	}

	// The token is in no other answer, nor in log, metrics or database.
	delete(made, "uri")
	shown := c.expect(t, http.StatusOK, "GET", c.attachments()+"/"+id, "")
	if jsonText(shown) != jsonText(made) {
		t.Errorf("shown %v, want %v", shown, made)
	}
	list, _ := c.expect(t, http.StatusOK, "GET", c.attachments(), "")["attachments"].([]any)
	if len(list) != 1 || jsonText(list[0]) != jsonText(made) {
		t.Errorf("listed %v, want %v", list, made)
	}
	metrics := w.metrics()
	waitForLog(t, w, c.send(t, "GET", c.attachments(), "").header.Get("X-Request-Id"))
	for where, text := range map[string]string{"the list": jsonText(list), "the log": w.logs.text(), "the metrics": metrics} {
		if strings.Contains(text, token) {
			t.Errorf("%s holds the token", where)
		}
	}

	if a := c.send(t, "DELETE", c.attachments()+"/"+id, ""); a.status != http.StatusNoContent || len(a.body) != 0 {
		t.Errorf("detached: %d %s", a.status, a.body)
	}
	c.refused(t, http.StatusNotFound, "IMG.0121", "DELETE", c.attachments()+"/"+id, "")
	c.refused(t, http.StatusNotFound, "IMG.0121", "GET", c.attachments()+"/"+id, "")
	c.refused(t, http.StatusNotFound, "IMG.0121", "GET", c.attachments()+"/x", "")
	if _, _, err := w.catalog.AttachmentByToken(t.Context(), ims.HashAttachToken(token)); err == nil {
		t.Error("a token is good after its attachment was ended")
	}
}

func TestAttachRefusals(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	other := shared.newProject(t)
	image := c.active(t, systemDisk(nil))
	theirs := other.active(t, systemDisk(nil))
	_, queued := c.accepted(t, systemDisk(nil))
	for body, want := range map[string]string{
		`{}`: "image_id is required", `{"image_id":null}`: "image_id is required", `{"image_id":7}`: "image_id must be a string",
		`{"image_id":"` + image + `","ttl_seconds":"60"}`:                 "ttl_seconds must be an integer",
		`{"image_id":"` + image + `","ttl_seconds":1.5}`:                  "ttl_seconds must be an integer",
		`{"image_id":"` + image + `","ttl_seconds":59}`:                   "60 to 2592000",
		`{"image_id":"` + image + `","ttl_seconds":2592001}`:              "60 to 2592000",
		`{"image_id":"` + image + `","ttl_seconds":99999999999999999999}`: "60 to 2592000",
	} {
		if details := c.refused(t, http.StatusBadRequest, "IMG.0001", "POST", c.attachments(), body); !strings.Contains(details, want) {
			t.Errorf("%s: details %q, want %q in them", body, details, want)
		}
	}
	unknown := c.refused(t, http.StatusNotFound, "IMG.0027", "POST", c.attachments(), `{"image_id":"`+ims.NewImageID()+`"}`)
	for _, id := range []string{theirs, "x", ""} {
		if details := c.refused(t, http.StatusNotFound, "IMG.0027", "POST", c.attachments(), `{"image_id":"`+id+`"}`); details != unknown {
			t.Errorf("image %q: %q, an unknown one: %q", id, details, unknown)
		}
	}
	c.refused(t, http.StatusBadRequest, "IMG.0046", "POST", c.attachments(), `{"image_id":"`+queued+`"}`)
	c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", c.attachments()+"?marker=x", "")
	c.refused(t, http.StatusBadRequest, "IMG.0001", "GET", c.attachments()+"?limit=0", "")

	// Another project's attachment is as unknown as one that never was.
	id, _ := other.attach(t, theirs)
	c.refused(t, http.StatusNotFound, "IMG.0121", "PATCH", c.attachments()+"/"+id, `{}`)
	for _, method := range []string{"GET", "DELETE"} {
		c.refused(t, http.StatusNotFound, "IMG.0121", method, c.attachments()+"/"+id, "")
	}
	other.expect(t, http.StatusOK, "GET", other.attachments()+"/"+id, "")
}

// TestAttachWithoutListener says what to do about it.
func TestAttachWithoutListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.NBDURI = nil })
	c := w.newProject(t)
	image := c.active(t, systemDisk(nil))
	details := c.refused(t, http.StatusBadRequest, "IMG.0105", "POST", c.attachments(), `{"image_id":"`+image+`"}`)
	if !strings.Contains(details, "--nbd-listen") {
		t.Errorf("details %q", details)
	}
	if list, _ := c.expect(t, http.StatusOK, "GET", c.attachments(), "")["attachments"].([]any); len(list) != 0 {
		t.Errorf("listed %v", list)
	}
}

// TestAttachLimit: a project's attachments are counted.
func TestAttachLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *api.Config) { c.Limits.Attachments = 2 })
	c := w.newProject(t)
	image := c.active(t, systemDisk(nil))
	first, _ := c.attach(t, image)
	c.attach(t, image)
	if details := c.refused(t, http.StatusBadRequest, "IMG.0060", "POST", c.attachments(), `{"image_id":"`+image+`"}`); !strings.Contains(details, "the limit is 2") {
		t.Errorf("details %q", details)
	}
	c.send(t, "DELETE", c.attachments()+"/"+first, "")
	c.attach(t, image)
}

func TestAttachmentPages(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	images := []string{c.active(t, systemDisk(nil)), c.active(t, systemDisk(nil))}
	for i := range 5 {
		c.attach(t, images[i%2])
	}
	seen := map[string]bool{}
	for query := "?limit=2"; ; {
		list, _ := c.expect(t, http.StatusOK, "GET", c.attachments()+query, "")["attachments"].([]any)
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			id := fmt.Sprint(a.(map[string]any)["attachment_id"])
			if seen[id] {
				t.Fatalf("%s is on two pages", id)
			}
			seen[id] = true
			query = "?limit=2&marker=" + id
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d are listed, want 5", len(seen))
	}
	if list, _ := c.expect(t, http.StatusOK, "GET", c.attachments()+"?image_id="+images[1], "")["attachments"].([]any); len(list) != 2 {
		t.Errorf("of the second image %d are listed, want 2", len(list))
	}
}

// TestAttachedImage refuses to go, says why and what to do, and goes by force.
func TestAttachedImage(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	image := c.active(t, systemDisk(nil))
	id, token := c.attach(t, image)
	for _, body := range []string{"", `{"force":false}`, `{"force":null}`} {
		if details := c.refused(t, http.StatusConflict, "IMG.0035", "DELETE", "/v2/images/"+image, body); !strings.Contains(details, "attachments: 1,") || !strings.Contains(details, "force") {
			t.Errorf("details %q", details)
		}
	}
	c.refused(t, http.StatusBadRequest, "IMG.0001", "DELETE", "/v2/images/"+image, `{"force":"true"}`)
	c.expect(t, http.StatusOK, "GET", c.attachments()+"/"+id, "")
	if a := c.send(t, "DELETE", "/v2/images/"+image, `{"force":true}`); a.status != http.StatusNoContent {
		t.Fatalf("by force: %d %s", a.status, a.body)
	}
	c.refused(t, http.StatusNotFound, "IMG.0121", "GET", c.attachments()+"/"+id, "")
	if _, _, err := c.catalog.AttachmentByToken(t.Context(), ims.HashAttachToken(token)); err == nil {
		t.Error("a token is good after its image was deleted")
	}
}

// TestRenewAttachment: by whoever may end it, with what the body says.
func TestRenewAttachment(t *testing.T) {
	t.Parallel()
	member := shared.newProject(t)
	reader := member.as(t, ims.RoleReader, member.project)
	image := member.active(t, systemDisk(nil))
	v := member.expect(t, http.StatusOK, "POST", member.attachments(), `{"image_id":"`+image+`","ttl_seconds":0,"max_age_seconds":3600}`)
	if v["ttl_seconds"] != 0.0 || v["max_age_seconds"] != 3600.0 || v["expires_at"] == nil || v["connections"] != 0.0 || v["last_read_at"] != nil {
		t.Errorf("made %v", v)
	}
	members := member.attachments() + "/" + fmt.Sprint(v["attachment_id"])
	if v := member.expect(t, http.StatusOK, "PATCH", members, `{"max_age_seconds":0}`); v["expires_at"] != nil || v["max_age_seconds"] != 0.0 {
		t.Errorf("for ever: %v", v)
	}
	if v := member.expect(t, http.StatusOK, "PATCH", members, `{"ttl_seconds":60,"max_age_seconds":null}`); v["expires_at"] == nil || v["ttl_seconds"] != 60.0 {
		t.Errorf("for a minute: %v", v)
	}
	member.expect(t, http.StatusOK, "PATCH", members, `{}`)
	for _, body := range []string{"[]", `{"ttl_seconds":59}`, `{"ttl_seconds":"60"}`, `{"max_age_seconds":1}`, `{"max_age_seconds":315360001}`} {
		member.refused(t, http.StatusBadRequest, "IMG.0001", "PATCH", members, body)
	}
	member.refused(t, http.StatusBadRequest, "IMG.0007", "PATCH", members, "")
	reader.refused(t, http.StatusForbidden, "IMG.0026", "PATCH", members, `{}`)
	id, _ := reader.attach(t, image)
	reader.expect(t, http.StatusOK, "PATCH", reader.attachments()+"/"+id, `{"ttl_seconds":0}`)
	member.refused(t, http.StatusNotFound, "IMG.0121", "PATCH", member.attachments()+"/"+ims.NewAttachmentID(), `{}`)
}

// TestDetachInUse says who is connected, and goes by force.
func TestDetachInUse(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	id, _ := c.attach(t, c.active(t, systemDisk(nil)))
	if err := c.catalog.Beat(t.Context(), "one", []catalog.Use{{AttachmentID: id, Connections: 2, Addresses: []string{"192.0.2.1:7", "192.0.2.2:8"}, Read: 9, At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	path := c.attachments() + "/" + id
	if v := c.expect(t, http.StatusOK, "GET", path, ""); v["connections"] != 2.0 || jsonText(v["addresses"]) != `["192.0.2.1:7","192.0.2.2:8"]` || v["bytes_read"] != 9.0 || v["last_read_at"] == nil {
		t.Errorf("shown %v", v)
	}
	for _, body := range []string{"", `{"force":false}`, `{"force":null}`} {
		if details := c.refused(t, http.StatusConflict, "IMG.0035", "DELETE", path, body); !strings.Contains(details, "2 connections from 192.0.2.1:7, 192.0.2.2:8:") || !strings.Contains(details, "force") {
			t.Errorf("details %q", details)
		}
	}
	c.refused(t, http.StatusBadRequest, "IMG.0001", "DELETE", path, `{"force":1}`)
	if a := c.send(t, "DELETE", path, `{"force":true}`); a.status != http.StatusNoContent {
		t.Errorf("by force: %d %s", a.status, a.body)
	}
}

// TestDetachRights: a reader attaches and ends what is its own, not what is others'.
func TestDetachRights(t *testing.T) {
	t.Parallel()
	member := shared.newProject(t)
	reader := member.as(t, ims.RoleReader, member.project)
	image := member.active(t, systemDisk(nil))
	members, _ := member.attach(t, image)
	readers, _ := reader.attach(t, image)
	reader.expect(t, http.StatusOK, "GET", reader.attachments()+"/"+members, "")
	reader.refused(t, http.StatusForbidden, "IMG.0026", "DELETE", reader.attachments()+"/"+members, "")
	for who, id := range map[*caller]string{&reader: readers, &member: members} {
		if a := who.send(t, "DELETE", who.attachments()+"/"+id, ""); a.status != http.StatusNoContent {
			t.Errorf("one's own: %d %s", a.status, a.body)
		}
	}
	readers, _ = reader.attach(t, image)
	if a := member.send(t, "DELETE", member.attachments()+"/"+readers, ""); a.status != http.StatusNoContent {
		t.Errorf("a member ends a reader's: %d %s", a.status, a.body)
	}
}

// TestSavingImage can be attached; the wire tells no more of it than before.
func TestSavingImage(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	_, queued := c.accepted(t, systemDisk(nil))
	job, image := c.saving(t, systemDisk(nil))
	strip := func(id string) string {
		v := c.expect(t, http.StatusOK, "GET", "/v2/images/"+id, "")
		for _, name := range []string{"created_at", "updated_at", "status"} {
			delete(v, name)
		}
		return strings.ReplaceAll(jsonText(v), id, "ID")
	}
	if got, want := strip(image), strip(queued); got != want {
		t.Errorf("a saving image shows\n%s\na queued one\n%s", got, want)
	}
	if list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?disk_format=zvhd2", "")["images"].([]any); len(list) != 0 {
		t.Errorf("the format of a saving image can be asked for: %v", list)
	}
	_, token := c.attach(t, image)
	if err := c.catalog.Publish(t.Context(), job, ims.Data{Key: image + "/1/disk", ETag: "e", Format: "zvhd2", Size: 2048, VirtualSize: 4096}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.catalog.AttachmentByToken(t.Context(), ims.HashAttachToken(token)); err != nil {
		t.Errorf("the publication ended an attachment: %v", err)
	}
	if list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages?disk_format=zvhd2&sort_key=disk_format", "")["images"].([]any); len(list) != 1 {
		t.Errorf("the format of an active image finds %d", len(list))
	}
}
