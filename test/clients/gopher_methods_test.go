package clients

import (
	"slices"
	"strings"
	"testing"

	golangsdk "github.com/opentelekomcloud/gophertelekomcloud"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack"
	commontags "github.com/opentelekomcloud/gophertelekomcloud/openstack/common/tags"
	images1 "github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v1/images"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v1/members"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v1/others"
	tags1 "github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v1/tags"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v2/images"
	members2 "github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v2/members"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v2/tags"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// TestGopherTelekomCloudEveryCall makes each call of gophertelekomcloud's IMS packages: it
// works, or says in IMG.0105 what the service lacks for it.
func TestGopherTelekomCloudEveryCall(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := compat.Client{Area: "IMS", Name: "gophertelekomcloud", Version: compat.ModuleVersion(t, "github.com/opentelekomcloud/gophertelekomcloud")}
	provider := gopher(t, passwordOptions(s))
	v1, err := openstack.NewIMSV1(provider, golangsdk.EndpointOpts{})
	must(t, err)
	v2, err := openstack.NewIMSV2(provider, golangsdk.EndpointOpts{})
	must(t, err)
	env := another(t, s)
	project := env["QUICKIMS_PROJECT_ID"]
	keys := keyOptions(s)
	keys.ProjectName, keys.AccessKey, keys.SecretKey = "colleagues", env["QUICKIMS_ACCESS_KEY"], env["QUICKIMS_SECRET_KEY"]
	other, err := openstack.NewIMSV1(gopher(t, keys), golangsdk.EndpointOpts{})
	must(t, err)

	works := func(call string, run func(t *testing.T)) {
		t.Helper()
		client.Run(t, compat.Case{Did: call}, run)
	}
	ends := func(t *testing.T, c *golangsdk.ServiceClient, job *string, err error) string {
		t.Helper()
		must(t, err)
		must(t, others.WaitForJob(c, *job, 60))
		got, err := others.ShowJob(c, *job)
		must(t, err)
		return got.Entities.ImageId
	}
	refused := func(call, lacks string, run func() error) {
		t.Helper()
		client.Run(t, compat.Case{Did: call, Result: "refused: IMG.0105"}, func(t *testing.T) {
			if err := run(); err == nil || !strings.Contains(err.Error(), "IMG.0105") {
				t.Errorf("%v, want IMG.0105 for want of %s", err, lacks)
			}
		})
	}

	image := ""
	works("v2/images.ImportImageQuick, v1/others.WaitForJob, ShowJob", func(t *testing.T) {
		job, err := images.ImportImageQuick(v2, images.ImportImageQuickOpts{Name: "system", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1, Tags: []string{"env.prod"}})
		image = ends(t, v1, job, err)
	})
	works("v2/images.CreateImageFromOBS", func(t *testing.T) {
		job, err := images.CreateImageFromOBS(v2, images.CreateImageFromOBSOpts{Name: "file", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1, IsQuickImport: true})
		ends(t, v1, job, err)
	})
	works("v1/images.CreateDataImage", func(t *testing.T) {
		job, err := images1.CreateDataImage(v1, images1.CreateDataImageOpts{Name: "data", ImageUrl: bucket + ":data.raw", MinDisk: 40})
		ends(t, v1, job, err)
	})
	refused("v2/images.CreateImageFromECS", "a compute service", func() error {
		_, err := images.CreateImageFromECS(v2, images.CreateImageFromECSOpts{Name: "server", InstanceId: harness.ProjectID})
		return err
	})
	refused("v2/images.CreateImageFromDisk", "a volume service", func() error {
		_, err := images.CreateImageFromDisk(v2, images.CreateImageFromDiskOpts{Name: "volume", VolumeId: harness.ProjectID, OsVersion: debian})
		return err
	})
	refused("v1/images.CreateWholeImageFromECS", "a backup service", func() error {
		_, err := images1.CreateWholeImageFromECS(v1, images1.CreateWholeImageFromECSOpts{Name: "whole", InstanceId: harness.ProjectID, VaultId: harness.ProjectID})
		return err
	})
	refused("v1/images.CreateWholeImageFromCBRorCSBS", "a backup service", func() error {
		_, err := images1.CreateWholeImageFromCBRorCSBS(v1, images1.CreateWholeImageFromCBRorCSBSOpts{Name: "whole", BackupId: harness.ProjectID})
		return err
	})
	works("v1/others.CopyImageInRegion", func(t *testing.T) {
		job, err := others.CopyImageInRegion(v1, others.CopyImageInRegionOpts{ImageId: image, Name: "copy"})
		s.CheckBytes(t, ends(t, v1, job, err), s.disk)
	})
	// This client insists on a format, which a quick export does not take.
	client.Run(t, compat.Case{Did: "v1/images.ExportImage, quick", Result: "refused: IMG.0072"}, func(t *testing.T) {
		_, err := images1.ExportImage(v1, images1.ExportImageOpts{ImageId: image, BucketUrl: bucket + ":exported", FileFormat: "zvhd2", IsQuickExport: new(true)})
		if err == nil || !strings.Contains(err.Error(), "IMG.0072") {
			t.Errorf("%v, want IMG.0072", err)
		}
	})
	works("v1/others.ShowImageQuota", func(t *testing.T) {
		quotas, err := others.ShowImageQuota(v1)
		must(t, err)
		if len(quotas) == 0 || quotas[0].Used == 0 {
			t.Errorf("%v", quotas)
		}
	})
	works("v2/images.ListImages", func(t *testing.T) {
		list, err := images.ListImages(v2, images.ListImagesOpts{Id: image})
		must(t, err)
		if len(list) != 1 {
			t.Errorf("%v", list)
		}
	})
	works("v2/images.UpdateImage", func(t *testing.T) {
		got, err := images.UpdateImage(v2, image, []images.UpdateImageOpts{{Op: "add", Path: "/__support_largememory", Value: "true"}})
		must(t, err)
		if got.SupportLargememory != "true" {
			t.Errorf("%v", got)
		}
	})
	want := func(t *testing.T, want ...string) {
		t.Helper()
		got, err := tags1.ListTags(v1, tags1.ListTagsOpts{Id: image, Protected: new(false)})
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("the tags are %v, want %v", got, want)
		}
	}
	works("v1/tags.ListTags", func(t *testing.T) { want(t, "env=prod") })
	works("v1/tags.CreateOrUpdateTags", func(t *testing.T) {
		must(t, tags1.CreateOrUpdateTags(v1, tags1.CreateOrUpdateTagsOpts{ImageId: image, Tag: "a.1"}))
		must(t, tags1.CreateOrUpdateTags(v1, tags1.CreateOrUpdateTagsOpts{ImageId: image, ImageTag: commontags.ResourceTag{Key: "b", Value: "2"}}))
		want(t, "a=1", "b=2", "env=prod")
	})
	works("v2/tags.ListImageByTags", func(t *testing.T) {
		got, err := tags.ListImageByTags(v2, tags.ListImageByTagsOpts{Action: "filter", Tags: []commontags.ListedTag{{Key: "env", Values: []string{"prod"}}}})
		must(t, err)
		if got.TotalCount != 1 || got.Resources[0].ResourceId != image {
			t.Errorf("%v", got)
		}
	})
	batch := members.BatchMembersOpts{Images: []string{image}, Projects: []string{project}}
	works("v1/members.BatchAddMembers", func(t *testing.T) {
		job, err := members.BatchAddMembers(v1, batch)
		ends(t, v1, job, err)
	})
	works("v1/members.BatchUpdateMembers", func(t *testing.T) {
		job, err := members.BatchUpdateMembers(other, members.BatchUpdateMembersOpts{Images: []string{image}, ProjectId: project, Status: "accepted"})
		ends(t, other, job, err)
	})
	works("v2/members.GetMember, ListMembers", func(t *testing.T) {
		m, err := members2.GetMember(v2, members2.GetMemberOpts{ImageId: image, MemberId: project})
		must(t, err)
		list, err := members2.ListMembers(v2, image)
		must(t, err)
		if m.Status != "accepted" || len(list.Members) != 1 {
			t.Errorf("%v, %v", m, list)
		}
	})
	works("v1/members.BatchDeleteMembers", func(t *testing.T) {
		job, err := members.BatchDeleteMembers(v1, batch)
		ends(t, v1, job, err)
	})
}
