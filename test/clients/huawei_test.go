package clients

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/global"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/region"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	eps "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/eps/v1"
	epsmodel "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/eps/v1/model"
	ims "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/ims/v2/model"

	"github.com/quickims/quickims/test/harness"
)

// huawei is an IMS client of huaweicloud-sdk-go-v3.
func huawei(t *testing.T, s *site, secret string) *ims.ImsClient {
	t.Helper()
	cred, err := basic.NewCredentialsBuilder().WithAk(harness.AccessKey).WithSk(secret).WithProjectId(harness.ProjectID).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := ims.ImsClientBuilder().WithCredential(cred).WithEndpoint(s.API).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return ims.NewImsClient(client)
}

// wantServiceError holds err to the service's answer with this status and code.
func wantServiceError(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*sdkerr.ServiceResponseError](err)
	if !ok || e.StatusCode != status || e.ErrorCode != code || e.ErrorMessage == "" || e.RequestId == "" {
		t.Errorf("%s: %v, want %d %s with a message and a request id", what, err, status, code)
	}
}

// quickImport imports and waits; the job must succeed.
func quickImport(t *testing.T, c *ims.ImsClient, body *model.QuickImportImageByFileRequestBody) string {
	t.Helper()
	accepted, err := c.ImportImageQuick(&model.ImportImageQuickRequest{Body: body})
	if err != nil {
		t.Fatalf("ImportImageQuick: %v", err)
	}
	if accepted.HttpStatusCode != http.StatusOK || accepted.JobId == nil || len(*accepted.JobId) != 32 {
		t.Fatalf("ImportImageQuick: %v", accepted)
	}
	var job *model.ShowJobResponse
	harness.Eventually(t, "the import has ended", func() bool {
		if job, err = c.ShowJob(&model.ShowJobRequest{JobId: *accepted.JobId}); err != nil {
			t.Fatalf("ShowJob: %v", err)
		}
		return job.Status.Value() == "SUCCESS" || job.Status.Value() == "FAIL"
	})
	if job.Status.Value() != "SUCCESS" || job.Entities == nil || job.Entities.ImageId == nil || job.EndTime == nil || *job.JobId != *accepted.JobId {
		t.Fatalf("ShowJob: %v", job)
	}
	return *job.Entities.ImageId
}

func TestHuaweiSDKQuickImport(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := huawei(t, s, harness.SecretKey)

	types := model.GetQuickImportImageByFileRequestBodyTypeEnum()
	system := quickImport(t, c, &model.QuickImportImageByFileRequestBody{
		Name: "system disk", Description: ptr("made by a test, mit Übung"), OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1,
		Type: &types.ECS, ImageTags: &[]model.ResourceTag{{Key: "role", Value: "web"}}, EnterpriseProjectId: ptr("0"),
	})
	// This client sends os_version for a data disk as well, empty.
	data := quickImport(t, c, &model.QuickImportImageByFileRequestBody{
		Name: "data-disk", ImageUrl: bucket + ":data.raw", MinDisk: 2, Type: &types.DATA_IMAGE,
		OsType: ptr(model.GetQuickImportImageByFileRequestBodyOsTypeEnum().LINUX),
	})

	image, err := c.GlanceShowImage(&model.GlanceShowImageRequest{ImageId: system})
	if err != nil {
		t.Fatalf("GlanceShowImage: %v", err)
	}
	if *image.Id != system || *image.Name != "system disk" || image.Status.Value() != "active" || *image.MinDisk != 1 || *image.Owner != harness.ProjectID ||
		image.VirtualEnvType.Value() != "FusionCompute" || *image.OsVersion != debian || image.OsType.Value() != "Linux" || image.Imagetype.Value() != "private" ||
		*image.Description != "made by a test, mit Übung" || *image.EnterpriseProjectId != "0" || image.Visibility.Value() != "private" || *image.Protected {
		t.Errorf("GlanceShowImage: %v", image)
	}
	// The list is read into other types than the single image.
	list := func(r model.ListImagesRequest) []string {
		t.Helper()
		got, err := c.ListImages(&r)
		if err != nil {
			t.Fatalf("ListImages: %v", err)
		}
		var ids []string
		for _, i := range *got.Images {
			ids = append(ids, i.Id)
		}
		slices.Sort(ids)
		return ids
	}
	both := []string{system, data}
	slices.Sort(both)
	for name, tc := range map[string]struct {
		request model.ListImagesRequest
		want    []string
	}{
		"all":          {model.ListImagesRequest{}, both},
		"private":      {model.ListImagesRequest{Imagetype: ptr(model.GetListImagesRequestImagetypeEnum().PRIVATE)}, both},
		"id":           {model.ListImagesRequest{Id: &system}, []string{system}},
		"unknown id":   {model.ListImagesRequest{Id: ptr("7a8b0c5e-0000-4000-8000-000000000000")}, nil},
		"name":         {model.ListImagesRequest{Name: ptr("system disk")}, []string{system}},
		"status":       {model.ListImagesRequest{Status: ptr(model.GetListImagesRequestStatusEnum().ACTIVE)}, both},
		"machine":      {model.ListImagesRequest{VirtualEnvType: ptr(model.GetListImagesRequestVirtualEnvTypeEnum().DATA_IMAGE)}, []string{data}},
		"tag":          {model.ListImagesRequest{Tag: ptr("role=web")}, []string{system}},
		"all projects": {model.ListImagesRequest{EnterpriseProjectId: ptr("all_granted_eps")}, both},
		"sorted": {model.ListImagesRequest{SortKey: ptr(model.GetListImagesRequestSortKeyEnum().NAME), SortDir: ptr(model.GetListImagesRequestSortDirEnum().ASC),
			Limit: ptr(int32(1))}, []string{data}},
	} {
		if got := list(tc.request); !slices.Equal(got, tc.want) {
			t.Errorf("ListImages by %s: %v, want %v", name, got, tc.want)
		}
	}
	var paged []string
	for marker := (*string)(nil); ; marker = &paged[len(paged)-1] {
		page := list(model.ListImagesRequest{Limit: ptr(int32(1)), Marker: marker})
		if len(page) == 0 {
			break
		}
		if paged = append(paged, page...); len(paged) > 2 {
			t.Fatalf("ListImages by pages: %v", paged)
		}
	}
	if slices.Sort(paged); !slices.Equal(paged, both) {
		t.Errorf("ListImages by pages: %v, want %v", paged, both)
	}

	ops := model.GetUpdateImageRequestBodyOpEnum()
	updated, err := c.UpdateImage(&model.UpdateImageRequest{ImageId: system, Body: &[]model.UpdateImageRequestBody{
		{Op: ops.REPLACE, Path: "/name", Value: "renamed"}, {Op: ops.REPLACE, Path: "/__description", Value: "other"},
	}})
	if err != nil {
		t.Fatalf("UpdateImage: %v", err)
	}
	if updated.HttpStatusCode != http.StatusOK || *updated.Id != system || *updated.Name != "renamed" || *updated.Description != "other" || *updated.MinDisk != 1 {
		t.Errorf("UpdateImage: %v", updated)
	}

	s.CheckBytes(t, system, s.disk)
	for _, id := range both {
		deleted, err := c.GlanceDeleteImage(&model.GlanceDeleteImageRequest{ImageId: id, Body: &model.GlanceDeleteImageRequestBody{}})
		if err != nil || deleted.HttpStatusCode != http.StatusNoContent {
			t.Errorf("GlanceDeleteImage: %v, %v", deleted, err)
		}
	}
	_, err = c.GlanceShowImage(&model.GlanceShowImageRequest{ImageId: system})
	wantServiceError(t, "GlanceShowImage after the deletion", err, http.StatusNotFound, "IMG.0027")
	if got := list(model.ListImagesRequest{Id: &system}); len(got) != 0 {
		t.Errorf("ListImages after the deletion: %v", got)
	}
}

func TestHuaweiSDKTags(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := huawei(t, s, harness.SecretKey)
	id := quickImport(t, c, &model.QuickImportImageByFileRequestBody{
		Name: "tagged", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1, Tags: &[]string{"a.1"},
	})
	tags := func() string {
		t.Helper()
		got, err := c.ListImageTags(&model.ListImageTagsRequest{ImageId: id})
		if err != nil {
			t.Fatalf("ListImageTags: %v", err)
		}
		var all []string
		for _, tag := range *got.Tags {
			all = append(all, tag.Key+"="+tag.Value)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	if got := tags(); got != "a=1" {
		t.Errorf("tags of the import: %s", got)
	}
	for _, value := range []string{"2", "3"} {
		added, err := c.AddImageTag(&model.AddImageTagRequest{ImageId: id, Body: &model.AddImageTagRequestBody{Tag: &model.ResourceTag{Key: "b", Value: value}}})
		if err != nil || added.HttpStatusCode != http.StatusNoContent {
			t.Fatalf("AddImageTag: %v, %v", added, err)
		}
	}
	if got := tags(); got != "a=1 b=3" {
		t.Errorf("after AddImageTag: %s", got)
	}
	actions := model.GetBatchAddOrDeleteTagsRequestBodyActionEnum()
	for _, step := range []struct {
		action model.BatchAddOrDeleteTagsRequestBodyAction
		tags   []model.ResourceTag
		want   string
	}{
		{actions.CREATE, []model.ResourceTag{{Key: "c", Value: ""}, {Key: "a", Value: "9"}}, "a=9 b=3 c="},
		{actions.CREATE, []model.ResourceTag{{Key: "c", Value: ""}, {Key: "a", Value: "9"}}, "a=9 b=3 c="},
		{actions.DELETE, []model.ResourceTag{{Key: "a", Value: "9"}, {Key: "none", Value: "x"}}, "b=3 c="},
	} {
		done, err := c.BatchAddOrDeleteTags(&model.BatchAddOrDeleteTagsRequest{ImageId: id,
			Body: &model.BatchAddOrDeleteTagsRequestBody{Action: step.action, Tags: step.tags}})
		if err != nil || done.HttpStatusCode != http.StatusNoContent {
			t.Fatalf("BatchAddOrDeleteTags: %v, %v", done, err)
		}
		if got := tags(); got != step.want {
			t.Errorf("after BatchAddOrDeleteTags: %s, want %s", got, step.want)
		}
	}
	all, err := c.ListImagesTags(&model.ListImagesTagsRequest{})
	if err != nil || len(*all.Tags) != 2 || (*all.Tags)[0].Key != "b" || !slices.Equal((*all.Tags)[0].Values, []string{"3"}) {
		t.Errorf("ListImagesTags: %v, %v", all, err)
	}
	gone, err := c.DeleteImageTag(&model.DeleteImageTagRequest{ImageId: id, Key: "b"})
	if err != nil || gone.HttpStatusCode != http.StatusNoContent {
		t.Errorf("DeleteImageTag: %v, %v", gone, err)
	}
	if _, err := c.DeleteImageTag(&model.DeleteImageTagRequest{ImageId: id, Key: "b"}); err == nil {
		t.Error("DeleteImageTag of a tag that is not there")
	}
	if got := tags(); got != "c=" {
		t.Errorf("after DeleteImageTag: %s", got)
	}
}

func TestHuaweiSDKReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := huawei(t, s, harness.SecretKey)
	quota, err := c.ShowImageQuota(&model.ShowImageQuotaRequest{})
	if err != nil || len(quota.Quotas.Resources) == 0 {
		t.Fatalf("ShowImageQuota: %v, %v", quota, err)
	}
	if q := quota.Quotas.Resources[0]; q.Type != "image" || q.Used != 0 || q.Quota < 1 || q.Max < q.Quota || q.Min < 0 {
		t.Errorf("ShowImageQuota: %v", q)
	}
	versions := func(tag *string) (platforms, all int, has bool) {
		t.Helper()
		got, err := c.ListOsVersions(&model.ListOsVersionsRequest{Tag: tag})
		if err != nil {
			t.Fatalf("ListOsVersions: %v", err)
		}
		for _, p := range *got.Body {
			platforms++
			for _, v := range p.VersionList {
				all++
				has = has || v.OsVersion == debian && v.OsBit == 64 && v.OsType == "Linux" && v.Platform == p.Platform
			}
		}
		return platforms, all, has
	}
	if platforms, all, has := versions(nil); platforms < 5 || all < 50 || !has {
		t.Errorf("ListOsVersions: %d platforms, %d versions, %s among them: %v", platforms, all, debian, has)
	}
	_, all, _ := versions(nil)
	if _, some, _ := versions(ptr("arm")); some == 0 || some >= all {
		t.Errorf("ListOsVersions for arm: %d of %d", some, all)
	}
}

func TestHuaweiSDKErrors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := huawei(t, s, harness.SecretKey)
	good := model.QuickImportImageByFileRequestBody{Name: "x", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1}
	for name, tc := range map[string]struct {
		change func(*model.QuickImportImageByFileRequestBody)
		code   string
	}{
		"no such file":   {func(b *model.QuickImportImageByFileRequestBody) { b.ImageUrl = bucket + ":none.raw" }, "IMG.0057"},
		"no such bucket": {func(b *model.QuickImportImageByFileRequestBody) { b.ImageUrl = "nobodys-bucket:system.raw" }, "IMG.0069"},
		"bad system":     {func(b *model.QuickImportImageByFileRequestBody) { b.OsVersion = "Plan 9" }, "IMG.0056"},
		"no name":        {func(b *model.QuickImportImageByFileRequestBody) { b.Name = "" }, "IMG.0013"},
		"giant disk":     {func(b *model.QuickImportImageByFileRequestBody) { b.MinDisk = 5000 }, "IMG.0055"},
	} {
		body := good
		tc.change(&body)
		_, err := c.ImportImageQuick(&model.ImportImageQuickRequest{Body: &body})
		wantServiceError(t, name, err, http.StatusBadRequest, tc.code)
	}
	_, err := huawei(t, s, harness.SecretKey+"x").ListImages(&model.ListImagesRequest{})
	wantServiceError(t, "another secret", err, http.StatusUnauthorized, "IMG.0087")
	_, err = c.GlanceDeleteImage(&model.GlanceDeleteImageRequest{ImageId: "7a8b0c5e-0000-4000-8000-000000000000"})
	wantServiceError(t, "an unknown image", err, http.StatusNotFound, "IMG.0027")
}

// TestHuaweiSDKFindsItsProject leaves the project out: the client asks the identity
// service for the project that is named after the region.
func TestHuaweiSDKFindsItsProject(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cred, err := basic.NewCredentialsBuilder().WithAk(harness.AccessKey).WithSk(harness.SecretKey).WithIamEndpointOverride(s.API).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := ims.ImsClientBuilder().WithCredential(cred).WithRegion(region.NewRegion(harness.Region, s.API)).SafeBuild()
	if err != nil {
		t.Fatalf("find the project: %v", err)
	}
	if cred.ProjectId != harness.ProjectID {
		t.Errorf("the project found is %s", cred.ProjectId)
	}
	if _, err := ims.NewImsClient(client).ListImagesTags(&model.ListImagesTagsRequest{}); err != nil {
		t.Errorf("ListImagesTags: %v", err)
	}
}

// TestHuaweiSDKEnterpriseProjects works at the level of the domain, as that service's
// client always does.
func TestHuaweiSDKEnterpriseProjects(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cred, err := global.NewCredentialsBuilder().WithAk(harness.AccessKey).WithSk(harness.SecretKey).WithIamEndpointOverride(s.API).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := eps.EpsClientBuilder().WithCredential(cred).WithRegion(region.NewRegion(harness.Region, s.API)).SafeBuild()
	if err != nil {
		t.Fatalf("find the domain: %v", err)
	}
	if cred.DomainId != harness.DomainID {
		t.Errorf("the domain found is %s", cred.DomainId)
	}
	c := eps.NewEpsClient(client)
	created, err := c.CreateEnterpriseProject(&epsmodel.CreateEnterpriseProjectRequest{Body: &epsmodel.EnterpriseProject{Name: "lab", Description: ptr("a lab")}})
	if err != nil {
		t.Fatalf("CreateEnterpriseProject: %v", err)
	}
	id := created.EnterpriseProject.Id
	listed, err := c.ListEnterpriseProject(&epsmodel.ListEnterpriseProjectRequest{Limit: ptr(int32(10)), Offset: ptr(int32(0))})
	if err != nil || *listed.TotalCount != 2 || len(*listed.EnterpriseProjects) != 2 {
		t.Errorf("ListEnterpriseProject: %v, %v", listed, err)
	}
	updated, err := c.UpdateEnterpriseProject(&epsmodel.UpdateEnterpriseProjectRequest{EnterpriseProjectId: id, Body: &epsmodel.EnterpriseProject{Name: "renamed"}})
	if err != nil || updated.HttpStatusCode != http.StatusOK {
		t.Errorf("UpdateEnterpriseProject: %v, %v", updated, err)
	}
	shown, err := c.ShowEnterpriseProject(&epsmodel.ShowEnterpriseProjectRequest{EnterpriseProjectId: id})
	if err != nil || shown.EnterpriseProject.Name != "renamed" || shown.EnterpriseProject.Status != 1 || shown.EnterpriseProject.CreatedAt == nil {
		t.Errorf("ShowEnterpriseProject: %v, %v", shown, err)
	}

	images := huawei(t, s, harness.SecretKey)
	image := quickImport(t, images, &model.QuickImportImageByFileRequestBody{Name: "moved", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1})
	moved, err := c.MigrateResource(&epsmodel.MigrateResourceRequest{EnterpriseProjectId: id, Body: &epsmodel.MigrateResource{
		ProjectId: ptr(harness.ProjectID), RegionId: ptr(harness.Region), ResourceId: image, ResourceType: "images",
	}})
	if err != nil || moved.HttpStatusCode != http.StatusNoContent {
		t.Fatalf("MigrateResource: %v, %v", moved, err)
	}
	bound, err := c.ShowResourceBindEnterpriseProject(&epsmodel.ShowResourceBindEnterpriseProjectRequest{EnterpriseProjectId: id, Body: &epsmodel.ResqEpResouce{
		Projects: &[]string{}, ResourceTypes: []string{"images"}, Limit: ptr(int32(10)), Offset: ptr(int32(0)),
	}})
	if err != nil || *bound.TotalCount != 1 || len(*bound.Resources) != 1 || (*bound.Resources)[0].ResourceId != image {
		t.Errorf("ShowResourceBindEnterpriseProject: %v, %v", bound, err)
	}
	found, err := images.ListImages(&model.ListImagesRequest{EnterpriseProjectId: &id})
	if err != nil || len(*found.Images) != 1 || (*found.Images)[0].Id != image {
		t.Errorf("ListImages by enterprise project: %v, %v", found, err)
	}
}
