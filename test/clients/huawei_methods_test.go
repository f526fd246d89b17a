package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	ims "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2/model"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// another makes an admin of another project, and gives its credentials.
func another(t *testing.T, s *site) map[string]string {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), "account", "add", "--json", "--data", s.Dir, "--domain", harness.DomainID, "--project", "colleagues", "--user", "ada", "--role", "admin")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("account add: %v: %s", err, stderr.String())
	}
	env := map[string]string{}
	must(t, json.Unmarshal(out, &env))
	return env
}

// colleague is a client of another project, and the project.
func colleague(t *testing.T, s *site) (*ims.ImsClient, string) {
	t.Helper()
	env := another(t, s)
	cred, err := basic.NewCredentialsBuilder().WithAk(env["QUICKIMS_ACCESS_KEY"]).WithSk(env["QUICKIMS_SECRET_KEY"]).WithProjectId(env["QUICKIMS_PROJECT_ID"]).SafeBuild()
	must(t, err)
	client, err := ims.ImsClientBuilder().WithCredential(cred).WithEndpoint(s.API).SafeBuild()
	must(t, err)
	return ims.NewImsClient(client), env["QUICKIMS_PROJECT_ID"]
}

// jobOf waits for a job to succeed and gives its image.
func jobOf(t *testing.T, c *ims.ImsClient, id *string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var job *model.ShowJobResponse
	harness.Eventually(t, "the job has ended", func() bool {
		if job, err = c.ShowJob(&model.ShowJobRequest{JobId: *id}); err != nil {
			t.Fatalf("ShowJob: %v", err)
		}
		return job.Status.Value() == "SUCCESS" || job.Status.Value() == "FAIL"
	})
	if job.Status.Value() != "SUCCESS" || job.Entities == nil {
		t.Fatalf("ShowJob: %v", job)
	}
	if job.Entities.ImageId == nil {
		return ""
	}
	return *job.Entities.ImageId
}

// TestHuaweiSDKEveryMethod calls each of the 51 methods of the IMS client: it works, or
// says in IMG.0105 what the service lacks for it.
func TestHuaweiSDKEveryMethod(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := huawei(t, s, harness.SecretKey)
	other, project := colleague(t, s)
	image := quickImport(t, c, &model.QuickImportImageByFileRequestBody{Name: "all methods", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1, Tags: &[]string{"env.prod"}})
	queued := ""

	client := compat.Client{Area: "IMS", Name: "huaweicloud-sdk-go-v3", Version: compat.ModuleVersion(t, "github.com/huaweicloud/huaweicloud-sdk-go-v3")}
	called := map[string]bool{}
	works := func(method string, call func(t *testing.T)) {
		t.Helper()
		called[method] = true
		client.Run(t, compat.Case{Did: method}, call)
	}
	// refused is a call that needs a service that is not here.
	refused := func(method, lacks string, call func() error) {
		t.Helper()
		called[method] = true
		client.Run(t, compat.Case{Did: method, Result: "refused: IMG.0105"}, func(t *testing.T) {
			e, ok := errors.AsType[*sdkerr.ServiceResponseError](call())
			if !ok || e.StatusCode != http.StatusBadRequest || e.ErrorCode != "IMG.0105" {
				t.Errorf("%v, want IMG.0105 for want of %s", e, lacks)
			}
		})
	}

	// The root is Keystone's, for OpenStack's clients; the versions of the Image API are at
	// /v2, and at the catalogue's address.
	called["ListVersions"] = true
	client.Run(t, compat.Case{Did: "ListVersions", Result: "refused: the root lists the versions of Keystone"}, func(t *testing.T) {
		if got, err := c.ListVersions(&model.ListVersionsRequest{}); err == nil {
			t.Errorf("%v", got)
		}
	})
	works("ShowVersion", func(t *testing.T) {
		got, err := c.ShowVersion(&model.ShowVersionRequest{Version: "v2"})
		must(t, err)
		if got.Versions == nil || len(*got.Versions) == 0 {
			t.Errorf("%v", got)
		}
	})
	works("ImportImageQuick", func(t *testing.T) {
		quickImport(t, c, &model.QuickImportImageByFileRequestBody{Name: "quick", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1})
	})
	works("ImportImageQuickInSafeMode", func(t *testing.T) {
		got, err := c.ImportImageQuickInSafeMode(&model.ImportImageQuickInSafeModeRequest{Body: &model.QuickImportImageByFileRequestBody{
			Name: "safe", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1}})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	file := model.CreateImageRequestBody{Name: ptr("from a file"), OsVersion: ptr(debian), ImageUrl: ptr(bucket + ":system.raw"), MinDisk: ptr(int32(1)), IsQuickImport: ptr(true)}
	works("CreateImage", func(t *testing.T) {
		got, err := c.CreateImage(&model.CreateImageRequest{Body: &file})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
		_, err = c.CreateImage(&model.CreateImageRequest{Body: &model.CreateImageRequestBody{Name: ptr("of a server"), InstanceId: ptr(harness.ProjectID)}})
		wantServiceError(t, "of a server", err, http.StatusBadRequest, "IMG.0105")
	})
	works("CreateImageInSafeMode", func(t *testing.T) {
		got, err := c.CreateImageInSafeMode(&model.CreateImageInSafeModeRequest{Body: &file})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	data := model.CreateDataImageRequestBody{Name: "data", ImageUrl: bucket + ":data.raw", MinDisk: 40}
	works("CreateDataImage", func(t *testing.T) {
		got, err := c.CreateDataImage(&model.CreateDataImageRequest{Body: &data})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	works("CreateDataImageInSafeMode", func(t *testing.T) {
		got, err := c.CreateDataImageInSafeMode(&model.CreateDataImageInSafeModeRequest{Body: &data})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	refused("CreateWholeImage", "a backup service", func() error {
		_, err := c.CreateWholeImage(&model.CreateWholeImageRequest{Body: &model.CreateWholeImageRequestBody{Name: "whole", InstanceId: harness.ProjectID}})
		return err
	})
	refused("CopyImageCrossRegion", "a second region", func() error {
		_, err := c.CopyImageCrossRegion(&model.CopyImageCrossRegionRequest{ImageId: image, Body: &model.CopyImageCrossRegionRequestBody{
			Name: "far", AgencyName: "agency", ProjectName: "p", Region: "r"}})
		return err
	})
	works("GlanceCreateImageMetadata", func(t *testing.T) {
		got, err := c.GlanceCreateImageMetadata(&model.GlanceCreateImageMetadataRequest{Body: &model.GlanceCreateImageMetadataRequestBody{
			Name: ptr("registered"), OsVersion: ptr(debian), MinDisk: ptr(int32(1)), Tags: &[]string{"a=b"}}})
		must(t, err)
		if queued = *got.Id; got.Status.Value() != "queued" || got.HttpStatusCode != http.StatusCreated {
			t.Errorf("%v", got)
		}
	})
	works("RegisterImage", func(t *testing.T) {
		got, err := c.RegisterImage(&model.RegisterImageRequest{ImageId: queued, Body: &model.RegisterImageRequestBody{ImageUrl: bucket + ":system.raw"}})
		must(t, err)
		if jobOf(t, c, got.JobId, nil) != queued {
			t.Errorf("another image was registered")
		}
	})
	works("ShowJob", func(t *testing.T) { // which quickImport holds to what it must say
		quickImport(t, c, &model.QuickImportImageByFileRequestBody{Name: "job", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1})
	})
	works("ShowJobProgress", func(t *testing.T) {
		got, err := c.ImportImageQuick(&model.ImportImageQuickRequest{Body: &model.QuickImportImageByFileRequestBody{Name: "progress", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1}})
		must(t, err)
		id := jobOf(t, c, got.JobId, nil)
		job, err := c.ShowJobProgress(&model.ShowJobProgressRequest{JobId: *got.JobId})
		must(t, err)
		if *job.Entities.ImageId != id || *job.Entities.ProcessPercent != 100 {
			t.Errorf("%v", job)
		}
	})
	everyCopyAndExport(t, s, c, image, works)
	everyRead(t, c, image, works)
	everyTag(t, c, image, works)
	everyMember(t, c, other, image, project, works)
	works("UpdateImage", func(t *testing.T) {
		got, err := c.UpdateImage(&model.UpdateImageRequest{ImageId: image, Body: &[]model.UpdateImageRequestBody{
			{Op: model.GetUpdateImageRequestBodyOpEnum().ADD, Path: "/__support_kvm_gpu_type", Value: "V100_vGPU"}}})
		must(t, err)
		if *got.SupportKvmGpuType != "V100_vGPU" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceUpdateImage", func(t *testing.T) {
		got, err := c.GlanceUpdateImage(&model.GlanceUpdateImageRequest{ImageId: image, Body: &[]model.GlanceUpdateImageRequestBody{
			{Op: model.GetGlanceUpdateImageRequestBodyOpEnum().REPLACE, Path: "/name", Value: ptr("renamed")}}})
		must(t, err)
		if *got.Name != "renamed" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceDeleteImage", func(t *testing.T) {
		got, err := c.GlanceDeleteImage(&model.GlanceDeleteImageRequest{ImageId: queued, Body: &model.GlanceDeleteImageRequestBody{}})
		must(t, err)
		if got.HttpStatusCode != http.StatusNoContent {
			t.Errorf("%v", got)
		}
	})

	var all []string
	for m := range reflect.TypeFor[*ims.ImsClient]().Methods() {
		if !strings.HasSuffix(m.Name, "Invoker") {
			all = append(all, m.Name)
		}
	}
	for _, name := range all {
		if !called[name] {
			t.Errorf("the method %s was not called", name)
		}
	}
	if len(all) != 51 || len(called) != len(all) {
		t.Errorf("the client has %d methods, %d were called", len(all), len(called))
	}
}

// caseOf runs a method that works.
type caseOf = func(method string, call func(t *testing.T))

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func everyCopyAndExport(t *testing.T, s *site, c *ims.ImsClient, image string, works caseOf) {
	t.Helper()
	body := &model.CopyImageInRegionRequestBody{Name: "copy"}
	works("CopyImageInRegion", func(t *testing.T) {
		got, err := c.CopyImageInRegion(&model.CopyImageInRegionRequest{ImageId: image, Body: body})
		must(t, err)
		s.CheckBytes(t, jobOf(t, c, got.JobId, nil), s.disk)
	})
	works("CopyImageInRegionInSafeMode", func(t *testing.T) {
		got, err := c.CopyImageInRegionInSafeMode(&model.CopyImageInRegionInSafeModeRequest{ImageId: image, Body: body})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	works("ExportImage", func(t *testing.T) {
		got, err := c.ExportImage(&model.ExportImageRequest{ImageId: image, Body: &model.ExportImageRequestBody{
			BucketUrl: bucket + ":exported", IsQuickExport: ptr(true)}})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	works("ExportImageInSafeMode", func(t *testing.T) {
		got, err := c.ExportImageInSafeMode(&model.ExportImageInSafeModeRequest{ImageId: image, Body: &model.ExportImageRequestBody{
			BucketUrl: bucket + ":exported-safe", IsQuickExport: ptr(true)}})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
}

func everyRead(t *testing.T, c *ims.ImsClient, image string, works caseOf) {
	t.Helper()
	works("ListImages", func(t *testing.T) {
		got, err := c.ListImages(&model.ListImagesRequest{FlavorId: ptr("s3.large.4"), Id: &image})
		must(t, err)
		if len(*got.Images) != 1 {
			t.Errorf("%v", got)
		}
	})
	works("GlanceListImages", func(t *testing.T) {
		got, err := c.GlanceListImages(&model.GlanceListImagesRequest{Id: &image, SupportKvm: ptr("true"), Limit: ptr(int32(5))})
		must(t, err)
		if len(*got.Images) != 1 || *got.First == "" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceShowImage", func(t *testing.T) {
		got, err := c.GlanceShowImage(&model.GlanceShowImageRequest{ImageId: image})
		must(t, err)
		if *got.Id != image {
			t.Errorf("%v", got)
		}
	})
	works("ShowImageQuota", func(t *testing.T) {
		got, err := c.ShowImageQuota(&model.ShowImageQuotaRequest{})
		must(t, err)
		if got.Quotas.Resources[0].Used == 0 {
			t.Errorf("%v", got)
		}
	})
	works("ListOsVersions", func(t *testing.T) {
		got, err := c.ListOsVersions(&model.ListOsVersionsRequest{Tag: ptr("x86")})
		must(t, err)
		if len(*got.Body) == 0 {
			t.Errorf("%v", got)
		}
	})
	works("GlanceShowImageSchemas", func(t *testing.T) {
		got, err := c.GlanceShowImageSchemas(&model.GlanceShowImageSchemasRequest{})
		must(t, err)
		if got.Name == nil || *got.Name != "image" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceListImageSchemas", func(t *testing.T) {
		_, err := c.GlanceListImageSchemas(&model.GlanceListImageSchemasRequest{})
		must(t, err)
	})
	works("GlanceShowImageMemberSchemas", func(t *testing.T) {
		_, err := c.GlanceShowImageMemberSchemas(&model.GlanceShowImageMemberSchemasRequest{})
		must(t, err)
	})
	works("GlanceListImageMemberSchemas", func(t *testing.T) {
		_, err := c.GlanceListImageMemberSchemas(&model.GlanceListImageMemberSchemasRequest{})
		must(t, err)
	})
}

func everyTag(t *testing.T, c *ims.ImsClient, image string, works caseOf) {
	t.Helper()
	want := func(t *testing.T, want ...string) {
		t.Helper()
		got, err := c.ListTags(&model.ListTagsRequest{Id: &image})
		must(t, err)
		if !slices.Equal(*got.Tags, want) {
			t.Errorf("the tags are %v, want %v", *got.Tags, want)
		}
	}
	works("ListTags", func(t *testing.T) { want(t, "env=prod") })
	works("CreateOrUpdateTags", func(t *testing.T) {
		_, err := c.CreateOrUpdateTags(&model.CreateOrUpdateTagsRequest{Body: &model.AddOrUpdateTagsRequestBody{ImageId: image, Tag: ptr("a.1")}})
		must(t, err)
		want(t, "a=1", "env=prod")
	})
	works("AddImageTag", func(t *testing.T) {
		_, err := c.AddImageTag(&model.AddImageTagRequest{ImageId: image, Body: &model.AddImageTagRequestBody{Tag: &model.ResourceTag{Key: "b", Value: "2"}}})
		must(t, err)
	})
	works("BatchAddOrDeleteTags", func(t *testing.T) {
		_, err := c.BatchAddOrDeleteTags(&model.BatchAddOrDeleteTagsRequest{ImageId: image, Body: &model.BatchAddOrDeleteTagsRequestBody{
			Action: model.GetBatchAddOrDeleteTagsRequestBodyActionEnum().CREATE, Tags: []model.ResourceTag{{Key: "c", Value: "3"}}}})
		must(t, err)
		want(t, "a=1", "b=2", "c=3", "env=prod")
	})
	works("GlanceCreateTag", func(t *testing.T) {
		_, err := c.GlanceCreateTag(&model.GlanceCreateTagRequest{ImageId: image, Tag: "bare"})
		must(t, err)
	})
	works("ListImageTags", func(t *testing.T) {
		got, err := c.ListImageTags(&model.ListImageTagsRequest{ImageId: image})
		must(t, err)
		if len(*got.Tags) != 5 {
			t.Errorf("%v", got)
		}
	})
	works("ListImagesTags", func(t *testing.T) {
		got, err := c.ListImagesTags(&model.ListImagesTagsRequest{})
		must(t, err)
		if len(*got.Tags) < 5 {
			t.Errorf("%v", got)
		}
	})
	works("ListImageByTags", func(t *testing.T) {
		got, err := c.ListImageByTags(&model.ListImageByTagsRequest{Body: &model.ListImageByTagsRequestBody{
			Action: model.GetListImageByTagsRequestBodyActionEnum().FILTER, Tags: &[]model.Tags{{Key: "env", Values: []string{"prod"}}},
			NotTagsAny: &[]model.Tags{{Key: "none", Values: []string{}}}, Limit: ptr("1000"), Offset: ptr("0")}})
		must(t, err)
		if *got.TotalCount != 1 || (*got.Resources)[0].ResourceId != image || (*got.Resources)[0].ResourceName != "all methods" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceDeleteTag", func(t *testing.T) {
		_, err := c.GlanceDeleteTag(&model.GlanceDeleteTagRequest{ImageId: image, Tag: "bare"})
		must(t, err)
	})
	works("DeleteImageTag", func(t *testing.T) {
		_, err := c.DeleteImageTag(&model.DeleteImageTagRequest{ImageId: image, Key: "a"})
		must(t, err)
	})
	works("BatchDeleteTags", func(t *testing.T) {
		_, err := c.BatchDeleteTags(&model.BatchDeleteTagsRequest{ImageId: image, Body: &model.BatchDeleteTagsRequestBody{Tags: []model.ResourceTag{{Key: "b", Value: "2"}, {Key: "c"}}}})
		must(t, err)
		want(t, "env=prod")
	})
}

func everyMember(t *testing.T, c, other *ims.ImsClient, image, project string, works caseOf) {
	t.Helper()
	status := func(t *testing.T, want string) {
		t.Helper()
		got, err := c.ShowImageMember(&model.ShowImageMemberRequest{ImageId: image, MemberId: project})
		must(t, err)
		if *got.Status != want || *got.MemberId != project || *got.MemberType == "" {
			t.Errorf("the member is %v, want %s", got, want)
		}
	}
	add := &model.BatchAddMembersRequestBody{Images: []string{image}, Projects: []string{project}}
	works("BatchAddMembers", func(t *testing.T) {
		got, err := c.BatchAddMembers(&model.BatchAddMembersRequest{Body: add})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	works("ShowImageMember", func(t *testing.T) { status(t, "pending") })
	works("BatchUpdateMembers", func(t *testing.T) {
		got, err := other.BatchUpdateMembers(&model.BatchUpdateMembersRequest{Body: &model.BatchUpdateMembersRequestBody{
			Images: []string{image}, ProjectId: project, Status: model.GetBatchUpdateMembersRequestBodyStatusEnum().ACCEPTED}})
		must(t, err)
		jobOf(t, other, got.JobId, nil)
		status(t, "accepted")
	})
	works("ListImageMembers", func(t *testing.T) {
		got, err := c.ListImageMembers(&model.ListImageMembersRequest{ImageId: image})
		must(t, err)
		if len(*got.Members) != 1 {
			t.Errorf("%v", got)
		}
	})
	works("BatchDeleteMembers", func(t *testing.T) {
		got, err := c.BatchDeleteMembers(&model.BatchDeleteMembersRequest{Body: add})
		must(t, err)
		jobOf(t, c, got.JobId, nil)
	})
	works("GlanceAddImageMember", func(t *testing.T) {
		_, err := c.GlanceAddImageMember(&model.GlanceAddImageMemberRequest{ImageId: image, Body: &model.GlanceAddImageMemberRequestBody{Member: project}})
		must(t, err)
	})
	works("GlanceUpdateImageMember", func(t *testing.T) {
		got, err := other.GlanceUpdateImageMember(&model.GlanceUpdateImageMemberRequest{ImageId: image, MemberId: project, Body: &model.GlanceUpdateImageMemberRequestBody{
			Status: model.GetGlanceUpdateImageMemberRequestBodyStatusEnum().REJECTED}})
		must(t, err)
		if *got.Status != "rejected" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceShowImageMember", func(t *testing.T) {
		got, err := c.GlanceShowImageMember(&model.GlanceShowImageMemberRequest{ImageId: image, MemberId: project})
		must(t, err)
		if *got.Status != "rejected" {
			t.Errorf("%v", got)
		}
	})
	works("GlanceListImageMembers", func(t *testing.T) {
		got, err := c.GlanceListImageMembers(&model.GlanceListImageMembersRequest{ImageId: image})
		must(t, err)
		if len(*got.Members) != 1 {
			t.Errorf("%v", got)
		}
	})
	works("GlanceDeleteImageMember", func(t *testing.T) {
		_, err := c.GlanceDeleteImageMember(&model.GlanceDeleteImageMemberRequest{ImageId: image, MemberId: project})
		must(t, err)
	})
}
