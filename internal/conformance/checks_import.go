package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/api/wire"
	"github.com/quickims/quickims/internal/ims"
)

const quickImport = "/v2/cloudimages/quickimport/action"

// refusal is a fault of a quick import and the codes that may answer it.
type refusal struct {
	name, fault string
	change      map[string]any // nil takes a field out
	codes       []string
}

// refusals are faults of one field each. The bucket is nobody's: a service that overlooks
// the fault can still make nothing.
var refusals = []refusal{
	{"name-missing", "without a name", map[string]any{"name": nil}, []string{"IMG.0013"}},
	{"name-long", "with a name of 129 characters", map[string]any{"name": strings.Repeat("n", ims.MaxName+1)}, []string{"IMG.0002"}},
	{"name-characters", "with a name of forbidden characters", map[string]any{"name": "a/b<c>"}, []string{"IMG.0003"}},
	{"description-long", "with a description of 1025 characters", map[string]any{"description": strings.Repeat("d", ims.MaxDescription+1)}, []string{"IMG.0004"}},
	{"description-characters", "with < in its description", map[string]any{"description": "a < b"}, []string{"IMG.0054"}},
	{"min-disk-missing", "without min_disk", map[string]any{"min_disk": nil}, []string{"IMG.0055"}},
	{"min-disk-zero", "with min_disk 0", map[string]any{"min_disk": 0}, []string{"IMG.0055"}},
	{"min-disk-large", "with min_disk 1025", map[string]any{"min_disk": 1025}, []string{"IMG.0055"}},
	{"os-version", "with an operating system that is not in the table", map[string]any{"os_version": "Plan 9 from Bell Labs"}, []string{"IMG.0056"}},
	{"image-url", "with an image_url that is not bucket:object", map[string]any{"image_url": "no-colon"}, []string{"IMG.0017"}},
	{"image-url-spaces", "with spaces in image_url", map[string]any{"image_url": "bucket: object"}, []string{"IMG.0175"}},
	{"type", "of an unknown type", map[string]any{"type": "Toaster"}, []string{"IMG.0024"}},
	{"both-tags", "with tags and image_tags", map[string]any{"tags": []string{"a.b"}, "image_tags": []wire.Tag{{Key: "c", Value: "d"}}}, []string{"IMG.0115"}},
	{"many-tags", "with 11 tags", map[string]any{"tags": elevenTags()}, []string{"IMG.0116"}},
	{"architecture", "of an unknown architecture", map[string]any{"architecture": "vax"}, []string{"IMG.0212"}},
	{"firmware", "with bios on arm", map[string]any{"architecture": "arm", "hw_firmware_type": "bios"}, []string{"IMG.0141"}},
	{"bucket", "from a bucket that does not exist", nil, []string{"IMG.0069"}},
}

func elevenTags() (out []string) {
	for i := range 11 {
		out = append(out, fmt.Sprintf("k%d.v", i))
	}
	return out
}

// importCheck is the name of the check that makes the image.
const importCheck = "import/quick"

func importChecks() []Check {
	list := []Check{
		{Name: "import/body-empty", Promise: "an import without a body is refused with IMG.0007", Reference: refIMS + "error codes", Writes: true, run: func(ctx context.Context, r *run) error {
			return r.refused(ctx, http.MethodPost, quickImport, "", "IMG.0007", "IMG.0001")
		}},
		{Name: "import/body-broken", Promise: "an import whose body is no JSON is refused with IMG.0001", Reference: refIMS + "error codes", Writes: true, run: func(ctx context.Context, r *run) error {
			return r.refused(ctx, http.MethodPost, quickImport, "{", "IMG.0001")
		}},
	}
	for _, f := range refusals {
		list = append(list, Check{
			Name: "import/refuses-" + f.name, Promise: "a quick import " + f.fault + " is refused with " + strings.Join(f.codes, " or "),
			Reference: refIMS + "quick import, error codes", Writes: true, run: func(ctx context.Context, r *run) error { return r.refuseImport(ctx, f.change, f.codes) },
		})
	}
	return append(list,
		Check{Name: importCheck, Promise: "a quick import is accepted with a job_id of 32 hexadecimal digits, and its job ends with an image", Reference: refIMS + "quick import",
			needs: needSource, Writes: true, run: importImage},
		Check{Name: "import/refuses-object", Promise: "a quick import of an object that does not exist is refused with IMG.0057", Reference: refIMS + "quick import, error codes",
			needs: needImage, Writes: true, run: func(ctx context.Context, r *run) error {
				bucket, _, _ := strings.Cut(r.source.URL, ":")
				return r.refuseImport(ctx, map[string]any{"image_url": bucket + ":" + r.name + "-nothing.zvhd2"}, []string{"IMG.0057"})
			}},
	)
}

// importBody is an import of nothing that exists, with fields changed.
func (r *run) importBody(change map[string]any) map[string]any {
	body := map[string]any{"name": r.name, "os_version": "Ubuntu 22.04 server 64bit", "image_url": r.name + ":nothing.zvhd2", "min_disk": 40}
	maps.Copy(body, change)
	maps.DeleteFunc(body, func(_ string, v any) bool { return v == nil })
	return body
}

func (r *run) refuseImport(ctx context.Context, change map[string]any, codes []string) error {
	a, err := r.call(ctx, http.MethodPost, quickImport, r.importBody(change))
	if err != nil {
		return err
	}
	var doc struct {
		JobID string `json:"job_id"`
	}
	if a.Status == http.StatusOK && readAs(a, http.StatusOK, http.MethodPost, quickImport, &doc) == nil && doc.JobID != "" {
		r.rememberJob(doc.JobID)
	}
	return isRefusal(a, http.MethodPost, quickImport, codes...)
}

// rememberJob notes that the image of a job is to be removed, once the job has ended.
func (r *run) rememberJob(id string) {
	r.remember("the image of job "+id, func(ctx context.Context) error {
		job, err := r.API.Wait(ctx, id, nil, nil)
		if err != nil || job.ImageID == "" {
			return err
		}
		return r.removeImage(ctx, job.ImageID)
	})
}

// removeImage deletes an image that may be gone.
func (r *run) removeImage(ctx context.Context, id string) error {
	a, err := r.call(ctx, http.MethodDelete, "/v2/images/"+id, nil)
	if err == nil && a.Status != http.StatusNoContent && a.Status != http.StatusNotFound {
		err = fmt.Errorf("DELETE /v2/images/%s answers %s", id, brief(a))
	}
	return err
}

var jobID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func importImage(ctx context.Context, r *run) error {
	source, remove, err := r.Prepare(ctx, r.name)
	if remove != nil {
		r.remember("the object to import", remove)
	}
	if err != nil {
		return fmt.Errorf("make the object to import: %w", err)
	}
	r.source = source
	body := r.importBody(map[string]any{
		"os_version": source.OSVersion, "image_url": source.URL, "min_disk": source.MinDisk, "description": "made by quickims conformance",
		"image_tags": []wire.Tag{{Key: "conformance", Value: "yes"}},
	})
	var doc struct {
		JobID string `json:"job_id"`
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodPost, quickImport, body, &doc); err != nil {
		return err
	}
	r.rememberJob(doc.JobID)
	if !jobID.MatchString(doc.JobID) {
		return fmt.Errorf("job_id is %q; it must be 32 hexadecimal digits", doc.JobID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("the job has not ended after %s", r.Timeout))
	defer cancel()
	job, err := r.API.Wait(ctx, doc.JobID, nil, nil)
	if err != nil {
		return err
	}
	r.job = doc.JobID
	if err := job.Err(); err != nil {
		return err
	}
	if !ims.ValidUUID(job.ImageID) {
		return fmt.Errorf("the job's image_id is %q; it must be a UUID", job.ImageID)
	}
	r.image = job.ImageID
	return nil
}

var jobChecks = []Check{
	{
		Name: "job/ended", Promise: "a job that succeeded has its times in UTC with milliseconds, no error, and its image's id and name", Reference: refIMS + "query a job",
		needs: needImage, run: endedJob,
	},
	{
		Name: "job/unknown", Promise: "a job that does not exist is refused", Reference: refIMS + "query a job",
		run: func(ctx context.Context, r *run) error {
			return r.refused(ctx, http.MethodGet, "/v1/"+r.ProjectID+"/jobs/"+strings.ReplaceAll(unknownID(), "-", ""), nil)
		},
	},
}

func endedJob(ctx context.Context, r *run) error {
	var job wire.Job
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v1/"+r.ProjectID+"/jobs/"+r.job, nil, &job); err != nil {
		return err
	}
	for name, text := range map[string]*string{"begin_time": job.BeginTime, "end_time": job.EndTime} {
		if text == nil {
			return fmt.Errorf("%s is null", name)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", *text); err != nil {
			return fmt.Errorf("%s is %q; it must be of the form 2024-11-06T06:27:03.742Z", name, *text)
		}
	}
	switch {
	case job.ID != r.job || job.Status != "SUCCESS" || job.Type != "imsImportImageJob":
		return fmt.Errorf("the job is %s %s %s", job.ID, job.Status, job.Type)
	case job.ErrorCode != nil && *job.ErrorCode != "" || job.FailReason != nil && *job.FailReason != "":
		return errors.New("a job that succeeded has an error_code or fail_reason")
	case job.Entities.ImageID != r.image || job.Entities.ImageName != "" && job.Entities.ImageName != r.name:
		return fmt.Errorf("the job names image %q %q", job.Entities.ImageID, job.Entities.ImageName)
	}
	return nil
}

var imageChecks = []Check{
	{
		Name: "image/attributes", Promise: "the image has what the import said, and the attributes that clients read, of their types", Reference: refIMS + "query image details",
		needs: needImage, run: imageAttributes,
	},
	{
		Name: "image/listed", Promise: "the image is found by id, name, status, tag, system and type, and not by other values", Reference: refIMS + "query images",
		needs: needImage, run: imageListed,
	},
}

func imageAttributes(ctx context.Context, r *run) error {
	var doc map[string]any
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v2/images/"+r.image, nil, &doc); err != nil {
		return err
	}
	types := maps.Clone(imageKeys)
	maps.Copy(types, map[string]string{
		"__os_version": "string", "__os_type": "string", "__os_bit": "string", "__platform": "string", "__image_size": "string",
		"__data_origin": "string", "__image_source_type": "string", "size": "number", "disk_format": "string", "container_format": "string",
	})
	if err := mustHave(doc, "image "+r.image, types); err != nil {
		return err
	}
	var wrong []string
	for key, want := range map[string]any{
		"id": r.image, "name": r.name, "status": "active", "visibility": "private", "__imagetype": "private", "protected": false,
		"min_disk": float64(r.source.MinDisk), "__os_version": r.source.OSVersion, "virtual_env_type": "FusionCompute", "__isregistered": "true",
		"__description": "made by quickims conformance",
	} {
		if doc[key] != want {
			wrong = append(wrong, fmt.Sprintf("%s is %v, it must be %v", key, doc[key], want))
		}
	}
	for _, key := range []string{"created_at", "updated_at"} {
		if _, err := time.Parse(time.RFC3339, doc[key].(string)); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s is %v, it must be a time", key, doc[key]))
		}
	}
	if !slices.Contains(doc["tags"].([]any), any("conformance=yes")) {
		wrong = append(wrong, fmt.Sprintf("tags are %v, they must have conformance=yes", doc["tags"]))
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

func imageListed(ctx context.Context, r *run) error {
	for query, want := range map[string]bool{
		"id=" + r.image: true, "name=" + r.name: true, "name=" + r.name + "&status=active": true, "name=" + r.name + "&tag=conformance=yes": true,
		"name=" + r.name + "&virtual_env_type=FusionCompute": true, "name=" + r.name + "&__imagetype=private": true, "name=" + r.name + "&visibility=private": true,
		"name=" + r.name + "&protected=false": true, "name=" + r.name + "&__isregistered=true": true,
		"name=" + r.name + "&status=queued": false, "name=" + r.name + "&tag=conformance=no": false, "name=" + r.name + "&virtual_env_type=DataImage": false,
		"name=" + r.name + "&protected=true": false, "name=" + r.name + "&visibility=shared": false,
	} {
		images, err := r.list(ctx, query)
		if err != nil {
			return err
		}
		found := slices.ContainsFunc(images, func(img map[string]any) bool { return img["id"] == r.image })
		if found != want || len(images) > 1 {
			return fmt.Errorf("a list with %s has %d images, the new one among them: %v; it must be: %v", query, len(images), found, want)
		}
	}
	return nil
}

var deletionChecks = []Check{
	{
		Name: "delete/image", Promise: "a deletion answers 204, and the image is 404 and in no list afterwards", Reference: refIMS + "delete an image",
		needs: needImage, Writes: true, run: deleteImage,
	},
}

func deleteImage(ctx context.Context, r *run) error {
	path := "/v2/images/" + r.image
	if err := r.expect(ctx, http.StatusNoContent, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	r.forget("the image of job " + r.job)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		a, err := r.call(ctx, method, path, nil)
		if err != nil {
			return err
		}
		if a.Status != http.StatusNotFound {
			return fmt.Errorf("%s of a deleted image answers %s; it must be 404", method, brief(a))
		}
	}
	images, err := r.list(ctx, "name="+r.name)
	if err == nil && len(images) > 0 {
		err = errors.New("the deleted image is listed")
	}
	return err
}

func quota(ctx context.Context, r *run) error {
	var doc wire.Quotas
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v1/cloudimages/quota", nil, &doc); err != nil {
		return err
	}
	for _, q := range doc.Quotas.Resources {
		if q.Type != "image" {
			continue
		}
		if q.Used < 0 || q.Quota > 0 && q.Used > q.Quota || r.image != "" && q.Used == 0 {
			return fmt.Errorf("the quota says that %d of %d images are used", q.Used, q.Quota)
		}
		return nil
	}
	return errors.New("the quota has no resource of type image")
}

func osVersions(ctx context.Context, r *run) error {
	var doc []struct {
		Platform string
		Versions []struct {
			Platform string
			Version  string `json:"os_version"`
			Bit      int    `json:"os_bit"`
			Type     string `json:"os_type"`
		} `json:"version_list"`
	}
	if err := r.expect(ctx, http.StatusOK, http.MethodGet, "/v1/cloudimages/os_version", nil, &doc); err != nil {
		return err
	}
	n := 0
	for _, p := range doc {
		for _, v := range p.Versions {
			if p.Platform == "" || v.Version == "" || v.Type != "Linux" && v.Type != "Windows" && v.Type != "Other" {
				return fmt.Errorf("the table has %+v", v)
			}
			n++
		}
	}
	if n == 0 {
		return errors.New("the table is empty")
	}
	return nil
}
