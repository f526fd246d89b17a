package conformance

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/client"
)

var downloadChecks = []Check{
	{
		Name: "download/whole", Promise: "GET /file delivers the disk's bytes, as many as HEAD said", Reference: refGlance + "download binary image data",
		needs: needDisk, run: downloadWhole,
	},
	{
		Name: "download/range", Promise: "a range is answered with 206, Content-Range and its bytes, also one from the end", Reference: refHTTP + "range requests",
		needs: needDisk, run: downloadRange,
	},
	{
		Name: "download/range-behind", Promise: "a range behind the end is 416 and says how long the disk is", Reference: refHTTP + "416 range not satisfiable",
		needs: needDisk, run: downloadBehind,
	},
}

func (r *run) file(ctx context.Context, method string, header ...string) (client.Answer, error) {
	a, err := r.call(ctx, method, "/v2/images/"+r.image+"/file", nil, header...)
	if err != nil {
		return a, err
	}
	return a, notOffered(a)
}

func downloadWhole(ctx context.Context, r *run) error {
	head, err := r.file(ctx, http.MethodHead)
	if err != nil {
		return err
	}
	if n := head.Header.Get("Content-Length"); head.Status != http.StatusOK || n != strconv.Itoa(len(r.source.Disk)) {
		return fmt.Errorf("HEAD answers %d with Content-Length %s; the disk has %d bytes", head.Status, n, len(r.source.Disk))
	}
	a, err := r.file(ctx, http.MethodGet)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK || !bytes.Equal(a.Body, r.source.Disk) {
		return fmt.Errorf("GET answers %d with %d bytes, which are not those that were imported", a.Status, len(a.Body))
	}
	return nil
}

func downloadRange(ctx context.Context, r *run) error {
	disk := r.source.Disk
	n := len(disk)
	for spec, want := range map[string][2]int{"bytes=0-511": {0, 512}, "bytes=1000-2999": {1000, 3000}, "bytes=-100": {n - 100, n}, fmt.Sprintf("bytes=%d-", n-10): {n - 10, n}} {
		a, err := r.file(ctx, http.MethodGet, "Range", spec)
		if err != nil {
			return err
		}
		if a.Status != http.StatusPartialContent || !bytes.Equal(a.Body, disk[want[0]:want[1]]) {
			return fmt.Errorf("%s is answered with %d and %d bytes; it must be 206 and the bytes %d to %d", spec, a.Status, len(a.Body), want[0], want[1]-1)
		}
		if got, want := a.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, n); got != want {
			return fmt.Errorf("%s: Content-Range is %q; it must be %q", spec, got, want)
		}
	}
	return nil
}

func downloadBehind(ctx context.Context, r *run) error {
	a, err := r.file(ctx, http.MethodGet, "Range", fmt.Sprintf("bytes=%d-", len(r.source.Disk)+1))
	if err != nil {
		return err
	}
	if got, want := a.Header.Get("Content-Range"), fmt.Sprintf("bytes */%d", len(r.source.Disk)); a.Status != http.StatusRequestedRangeNotSatisfiable || got != want {
		return fmt.Errorf("answered with %d, Content-Range %q; it must be 416, %q", a.Status, got, want)
	}
	return nil
}

var patchChecks = []Check{
	{
		Name: "patch/rename", Promise: "a PATCH of the name answers the image as it is then", Reference: refIMS + "update image information", needs: needImage, Writes: true, run: patchRename,
	},
	{
		Name: "patch/whole", Promise: "a PATCH of which one operation is refused changes nothing", Reference: refIMS + "update image information", needs: needImage, Writes: true, run: patchWhole,
	},
	{
		Name: "patch/attribute", Promise: "an optional attribute is added, shown, and removed again", Reference: refIMS + "update image information, image attributes",
		needs: needImage, Writes: true, run: patchAttribute,
	},
}

type op struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch changes the image and reads it from the answer.
func (r *run) patch(ctx context.Context, ops ...op) (map[string]any, error) {
	var doc map[string]any
	err := r.expect(ctx, http.StatusOK, http.MethodPatch, "/v2/cloudimages/"+r.image, ops, &doc)
	return doc, err
}

func (r *run) show(ctx context.Context) (map[string]any, error) {
	var doc map[string]any
	err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v2/images/"+r.image, nil, &doc)
	return doc, err
}

func patchRename(ctx context.Context, r *run) error {
	for _, name := range []string{r.name + "-renamed", r.name} {
		doc, err := r.patch(ctx, op{"replace", "/name", name})
		if err != nil {
			return err
		}
		if doc["id"] != r.image || doc["name"] != name {
			return fmt.Errorf("PATCH to %s answers with image %v, name %v", name, doc["id"], doc["name"])
		}
	}
	return nil
}

func patchWhole(ctx context.Context, r *run) error {
	ops := []op{{"replace", "/name", r.name + "-half"}, {"replace", "/status", "killed"}}
	if err := r.refused(ctx, http.MethodPatch, "/v2/cloudimages/"+r.image, ops); err != nil {
		return err
	}
	doc, err := r.show(ctx)
	if err == nil && (doc["name"] != r.name || doc["status"] != "active") {
		err = fmt.Errorf("after a refused PATCH the image is %v, %v", doc["name"], doc["status"])
	}
	return err
}

func patchAttribute(ctx context.Context, r *run) error {
	const key = "hw_vif_multiqueue_enabled"
	if _, err := r.patch(ctx, op{"add", "/" + key, "true"}); err != nil {
		return err
	}
	doc, err := r.show(ctx)
	if err != nil {
		return err
	}
	if doc[key] != "true" {
		return fmt.Errorf("%s is %v after it was set to true", key, doc[key])
	}
	if doc, err = r.patch(ctx, op{"remove", "/" + key, nil}); err != nil {
		return err
	}
	if _, there := doc[key]; there {
		return fmt.Errorf("%s is %v after it was removed", key, doc[key])
	}
	return nil
}

var tagChecks = []Check{
	{
		Name: "tag/add", Promise: "a tag is added, overwritten by one of the same key, and listed", Reference: refIMS + "add a tag to an image", needs: needImage, Writes: true, run: tagAdd,
	},
	{
		Name: "tag/batch", Promise: "tags are added and deleted together, and doing so twice is the same", Reference: refIMS + "add or delete image tags in batches",
		needs: needImage, Writes: true, run: tagBatch,
	},
	{
		Name: "tag/delete", Promise: "a tag is deleted once: a second time is 404", Reference: refIMS + "delete an image tag", needs: needImage, Writes: true, run: tagDelete,
	},
	{
		Name: "tag/project", Promise: "the project's tags have the image's, with their values", Reference: refIMS + "query tags of all images", needs: needImage, run: tagProject,
	},
}

func (r *run) tagsPath() string { return "/v2/" + r.ProjectID + "/images/" + r.image + "/tags" }

// tags are the image's, by key.
func (r *run) tags(ctx context.Context) (map[string]string, error) {
	var doc wire.Tags
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, r.tagsPath(), nil, &doc); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, t := range doc.Tags {
		out[t.Key] = t.Value
	}
	return out, nil
}

func tagAdd(ctx context.Context, r *run) error {
	for _, value := range []string{"first", "second"} {
		if err := r.expect(ctx, http.StatusNoContent, http.MethodPost, r.tagsPath(), map[string]any{"tag": wire.Tag{Key: "added", Value: value}}, nil); err != nil {
			return err
		}
		tags, err := r.tags(ctx)
		if err != nil {
			return err
		}
		if tags["added"] != value || tags["conformance"] != "yes" {
			return fmt.Errorf("the tags are %v after added=%s", tags, value)
		}
	}
	return nil
}

func tagBatch(ctx context.Context, r *run) error {
	list := []wire.Tag{{Key: "b1", Value: "x"}, {Key: "b2", Value: "y"}}
	for _, action := range []string{"create", "create", "delete", "delete"} {
		if err := r.expect(ctx, http.StatusNoContent, http.MethodPost, r.tagsPath()+"/action", map[string]any{"action": action, "tags": list}, nil); err != nil {
			return err
		}
		tags, err := r.tags(ctx)
		if err != nil {
			return err
		}
		if there := tags["b1"] == "x" && tags["b2"] == "y"; there != (action == "create") || tags["conformance"] != "yes" {
			return fmt.Errorf("the tags are %v after %s of b1 and b2", tags, action)
		}
	}
	return nil
}

func tagDelete(ctx context.Context, r *run) error {
	if err := r.expect(ctx, http.StatusNoContent, http.MethodPost, r.tagsPath(), map[string]any{"tag": wire.Tag{Key: "once", Value: "v"}}, nil); err != nil {
		return err
	}
	if err := r.expect(ctx, http.StatusNoContent, http.MethodDelete, r.tagsPath()+"/once", nil, nil); err != nil {
		return err
	}
	return r.expect(ctx, http.StatusNotFound, http.MethodDelete, r.tagsPath()+"/once", nil, nil)
}

func tagProject(ctx context.Context, r *run) error {
	var doc wire.ProjectTags
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v2/"+r.ProjectID+"/images/tags", nil, &doc); err != nil {
		return err
	}
	for _, t := range doc.Tags {
		if t.Key == "conformance" && slices.Contains(t.Values, "yes") {
			return nil
		}
	}
	return fmt.Errorf("the project's tags lack conformance=yes: %v", doc.Tags)
}

var memberChecks = []Check{
	{
		Name: "member/share", Promise: "a project that the image is shared with is pending, shown and listed; a second time is refused", Reference: refGlance + "create image member",
		needs: needMember, Writes: true, run: memberShare,
	},
	{
		Name: "member/answer", Promise: "the owner cannot accept in the member's place", Reference: refGlance + "update image member", needs: needMember, Writes: true, run: memberAnswer,
	},
	{
		Name: "member/self", Promise: "an image cannot be shared with its own project", Reference: refIMS + "error codes, IMG.0076", needs: needImage, Writes: true,
		run: func(ctx context.Context, r *run) error {
			return r.refused(ctx, http.MethodPost, "/v2/images/"+r.image+"/members", map[string]string{"member": r.ProjectID})
		},
	},
	{
		Name: "member/remove", Promise: "a member is removed once: afterwards it is 404 and in no list", Reference: refGlance + "delete image member", needs: needMember, Writes: true, run: memberRemove,
	},
}

func (r *run) members(ctx context.Context) ([]wire.Member, error) {
	var doc struct{ Members []wire.Member }
	err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v2/images/"+r.image+"/members", nil, &doc)
	return doc.Members, err
}

func memberShare(ctx context.Context, r *run) error {
	path := "/v2/images/" + r.image + "/members"
	var m wire.Member
	if err := r.expect(ctx, http.StatusOK, http.MethodPost, path, map[string]string{"member": r.Member}, &m); err != nil {
		return err
	}
	if m.ImageID != r.image || m.MemberID != r.Member || m.Status != "pending" {
		return fmt.Errorf("the member is %+v", m)
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, path+"/"+r.Member, nil, &m); err != nil {
		return err
	}
	list, err := r.members(ctx)
	if err != nil {
		return err
	}
	if len(list) != 1 || list[0].MemberID != r.Member {
		return fmt.Errorf("the members are %+v", list)
	}
	return r.refused(ctx, http.MethodPost, path, map[string]string{"member": r.Member})
}

func memberAnswer(ctx context.Context, r *run) error {
	if err := r.refused(ctx, http.MethodPut, "/v2/images/"+r.image+"/members/"+r.Member, map[string]string{"status": "accepted"}); err != nil {
		return err
	}
	list, err := r.members(ctx)
	if err == nil && (len(list) != 1 || list[0].Status != "pending") {
		err = fmt.Errorf("the members are %+v", list)
	}
	return err
}

func memberRemove(ctx context.Context, r *run) error {
	path := "/v2/images/" + r.image + "/members/" + r.Member
	if err := r.expect(ctx, http.StatusNoContent, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	if err := r.expect(ctx, http.StatusNotFound, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	list, err := r.members(ctx)
	if err == nil && len(list) != 0 {
		err = fmt.Errorf("the members are %+v", list)
	}
	return err
}

const faceImages = "/image/v2/images"

// uploadCheck is the name of the check that uploads an image.
const uploadCheck = "openstack/upload"

var faceChecks = []Check{
	{
		Name: "openstack/show", Promise: "/image shows the imported image as the Image API does, without keys of IMS", Reference: refGlance + "show image", needs: needImage, run: faceShow,
	},
	{
		Name: "openstack/schema", Promise: "the schema of an image declares the attributes that clients read", Reference: refGlance + "show image schema", run: faceSchema,
	},
	{
		Name: uploadCheck, Promise: "an image is created queued, takes its bytes, becomes active, and has their MD5", Reference: refGlance + "create image, upload binary image data",
		Writes: true, run: faceUpload,
	},
	{
		Name: "openstack/download", Promise: "what was uploaded comes back byte for byte", Reference: refGlance + "download binary image data", needs: needUpload, run: faceDownload,
	},
	{
		Name: "openstack/change", Promise: "PATCH sets a property, PUT and DELETE a tag", Reference: refGlance + "update image, image tags", needs: needUpload, Writes: true, run: faceChange,
	},
	{
		Name: "openstack/errors", Promise: "errors below /image have a message that clients print", Reference: refGlance + "error responses", run: faceErrors,
	},
	{
		Name: "openstack/delete", Promise: "a deleted image is 404", Reference: refGlance + "delete image", needs: needUpload, Writes: true, run: faceDelete,
	},
}

// faceOffered asks whether there is anything below /image.
func (r *run) faceOffered(ctx context.Context) error {
	a, err := r.call(ctx, http.MethodGet, faceImages+"?limit=1", nil)
	if err != nil {
		return err
	}
	return notOffered(a)
}

func faceShow(ctx context.Context, r *run) error {
	if err := r.faceOffered(ctx); err != nil {
		return err
	}
	var doc map[string]any
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, faceImages+"/"+r.image, nil, &doc); err != nil {
		return err
	}
	if err := mustHave(doc, "image "+r.image, map[string]string{
		"id": "string", "name": "string", "status": "string", "visibility": "string", "protected": "boolean", "owner": "string", "size": "number",
		"disk_format": "string", "container_format": "string", "min_disk": "number", "min_ram": "number", "tags": "array", "self": "string", "file": "string", "schema": "string",
	}); err != nil {
		return err
	}
	for key := range doc {
		if strings.HasPrefix(key, "__") {
			return fmt.Errorf("it has %s, which OpenStack's tools would plan to remove", key)
		}
	}
	return nil
}

func faceSchema(ctx context.Context, r *run) error {
	if err := r.faceOffered(ctx); err != nil {
		return err
	}
	var doc struct {
		Name       string
		Properties map[string]any
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/image/v2/schemas/image", nil, &doc); err != nil {
		return err
	}
	for _, key := range []string{"id", "name", "status", "size", "checksum", "disk_format", "container_format", "visibility", "tags"} {
		if doc.Properties[key] == nil {
			return fmt.Errorf("the schema does not declare %s", key)
		}
	}
	return nil
}

// uploaded are the bytes of the uploaded image: of no format that has a name, and no whole
// number of sectors.
func (r *run) uploaded() []byte {
	data := make([]byte, 4096, 8192) // a front that says nothing
	for sum := sha256.Sum256([]byte(r.name)); len(data) < 8000; sum = sha256.Sum256(sum[:]) {
		data = append(data, sum[:]...)
	}
	return data[:7777]
}

func faceUpload(ctx context.Context, r *run) error {
	if err := r.faceOffered(ctx); err != nil {
		return err
	}
	var doc struct {
		ID, Status string
		Checksum   *string
		Size       *int64
	}
	body := map[string]any{"name": r.name + "-upload", "disk_format": "raw", "container_format": "bare", "visibility": "private"}
	if err := r.expect(ctx, http.StatusCreated, http.MethodPost, faceImages, body, &doc); err != nil {
		return err
	}
	path := faceImages + "/" + doc.ID
	r.remember("image "+doc.ID, func(ctx context.Context) error { return r.removeImage(ctx, doc.ID) })
	if doc.Status != "queued" || doc.Size != nil {
		return fmt.Errorf("a new image is %s and has a size: %v", doc.Status, doc.Size != nil)
	}
	data := r.uploaded()
	if err := r.expect(ctx, http.StatusNoContent, http.MethodPut, path+"/file", data, nil, "Content-Type", "application/octet-stream"); err != nil {
		return err
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, path, nil, &doc); err != nil {
		return err
	}
	sum := md5.Sum(data)
	if doc.Status != "active" || doc.Size == nil || *doc.Size != int64(len(data)) || doc.Checksum == nil || *doc.Checksum != hex.EncodeToString(sum[:]) {
		return errors.New("after the upload the image is not active with the size and the MD5 of what was sent")
	}
	r.upload = doc.ID
	return nil
}

func faceDownload(ctx context.Context, r *run) error {
	a, err := r.call(ctx, http.MethodGet, faceImages+"/"+r.upload+"/file", nil)
	if err == nil && (a.Status != http.StatusOK || !bytes.Equal(a.Body, r.uploaded())) {
		err = fmt.Errorf("GET answers %d with %d bytes, which are not those that were sent", a.Status, len(a.Body))
	}
	return err
}

func faceChange(ctx context.Context, r *run) error {
	path := faceImages + "/" + r.upload
	var doc map[string]any
	ops := []op{{"add", "/colour", "blue"}, {"replace", "/min_ram", 64}}
	if err := r.expect(ctx, http.StatusOK, http.MethodPatch, path, ops, &doc, "Content-Type", "application/openstack-images-v2.1-json-patch"); err != nil {
		return err
	}
	if doc["colour"] != "blue" || doc["min_ram"] != 64.0 {
		return fmt.Errorf("after the PATCH colour is %v and min_ram %v", doc["colour"], doc["min_ram"])
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		if err := r.expect(ctx, http.StatusNoContent, method, path+"/tags/blue", nil, nil); err != nil {
			return err
		}
		if err := r.expect(ctx, http.StatusOK, http.MethodGet, path, nil, &doc); err != nil {
			return err
		}
		tags, _ := doc["tags"].([]any)
		if there := slices.Contains(tags, any("blue")); there != (method == http.MethodPut) {
			return fmt.Errorf("after %s of the tag blue the tags are %v", method, tags)
		}
	}
	return nil
}

func faceErrors(ctx context.Context, r *run) error {
	if err := r.faceOffered(ctx); err != nil {
		return err
	}
	path := faceImages + "/" + unknownID()
	a, err := r.call(ctx, http.MethodGet, path, nil)
	if err == nil && (a.Status != http.StatusNotFound || len(a.Body) == 0) {
		err = fmt.Errorf("GET %s answers %s; it must be 404 with a message", path, brief(a))
	}
	return err
}

func faceDelete(ctx context.Context, r *run) error {
	path := faceImages + "/" + r.upload
	if err := r.expect(ctx, http.StatusNoContent, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	r.forget("image " + r.upload)
	return r.expect(ctx, http.StatusNotFound, http.MethodGet, path, nil, nil)
}
