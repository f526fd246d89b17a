package clients

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	golangsdk "github.com/opentelekomcloud/gophertelekomcloud"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack"
	commontags "github.com/opentelekomcloud/gophertelekomcloud/openstack/common/tags"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/identity/v3/projects"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/identity/v3/tokens"
	glance "github.com/opentelekomcloud/gophertelekomcloud/openstack/image/v2/images"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v1/others"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v2/images"
	"github.com/opentelekomcloud/gophertelekomcloud/openstack/ims/v2/tags"

	"github.com/quickims/quickims/test/harness"
)

// gopher logs a provider client of gophertelekomcloud in.
func gopher(t *testing.T, options golangsdk.AuthOptionsProvider) *golangsdk.ProviderClient {
	t.Helper()
	client, err := openstack.AuthenticatedClient(options)
	if err != nil {
		t.Fatalf("log in: %v", err)
	}
	return client
}

func passwordOptions(s *site) golangsdk.AuthOptions {
	return golangsdk.AuthOptions{
		IdentityEndpoint: s.API + "/v3", Username: harness.User, Password: harness.Password,
		DomainID: harness.DomainID, TenantName: harness.Region, AllowReauth: true,
	}
}

func keyOptions(s *site) golangsdk.AKSKAuthOptions {
	return golangsdk.AKSKAuthOptions{IdentityEndpoint: s.API + "/v3", ProjectName: harness.Region, AccessKey: harness.AccessKey, SecretKey: harness.SecretKey}
}

func TestGopherTelekomCloud(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	keysOfDomain := keyOptions(s)
	keysOfDomain.Domain, keysOfDomain.DomainID = "default", harness.DomainID
	byID := passwordOptions(s)
	byID.TenantName, byID.DomainID, byID.DomainName, byID.TenantID = "", "", "default", harness.ProjectID
	for name, options := range map[string]golangsdk.AuthOptionsProvider{
		"password": passwordOptions(s), "password, project by id": byID,
		"access key": keyOptions(s), "access key, domain": keysOfDomain,
	} {
		t.Run(name, func(t *testing.T) { walk(t, s, gopher(t, options)) })
	}
}

// walk takes an image through its life.
func walk(t *testing.T, s *site, provider *golangsdk.ProviderClient) {
	t.Helper()
	if provider.ProjectID != harness.ProjectID {
		t.Errorf("logged in to project %q", provider.ProjectID)
	}
	v1, err := openstack.NewIMSV1(provider, golangsdk.EndpointOpts{})
	if err != nil {
		t.Fatalf("find the image service: %v", err)
	}
	v2, err := openstack.NewIMSV2(provider, golangsdk.EndpointOpts{Region: harness.Region})
	if err != nil {
		t.Fatalf("find the image service in its region: %v", err)
	}
	var made []string
	for name, request := range map[string]func() (*string, error){
		"ImportImageQuick": func() (*string, error) {
			return images.ImportImageQuick(v2, images.ImportImageQuickOpts{Name: "system", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1,
				ImageTags: []commontags.ResourceTag{{Key: "a", Value: "1"}}})
		},
		"ImportImageQuick of a data disk": func() (*string, error) {
			return images.ImportImageQuick(v2, images.ImportImageQuickOpts{Name: "data", ImageUrl: bucket + ":data.raw", MinDisk: 1, Type: "DataImage"})
		},
		"CreateImageFromOBS": func() (*string, error) {
			return images.CreateImageFromOBS(v2, images.CreateImageFromOBSOpts{Name: "common", OsVersion: debian, ImageUrl: bucket + ":system.raw", MinDisk: 1, IsQuickImport: true})
		},
	} {
		job, err := request()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var shown *others.JobResponse
		harness.Eventually(t, name+" has ended", func() bool {
			if shown, err = others.ShowJob(v1, *job); err != nil {
				t.Fatalf("ShowJob: %v", err)
			}
			return shown.Status == "SUCCESS" || shown.Status == "FAIL"
		})
		if shown.Status != "SUCCESS" || shown.Entities.ImageId == "" {
			t.Fatalf("%s: %+v", name, shown)
		}
		made = append(made, shown.Entities.ImageId)
	}
	slices.Sort(made)

	all, err := images.ListImages(v2, images.ListImagesOpts{ImageType: "private", Status: "active", EnterpriseProjectId: "all_granted_eps", SortKey: "name", SortDir: "asc"})
	if err != nil || len(all) != len(made) || all[0].Name != "common" || all[2].Name != "system" {
		t.Fatalf("ListImages: %v, %v", all, err)
	}
	system := all[2]
	if system.OsVersion != debian || system.MinDisk != 1 || system.Owner != harness.ProjectID || system.CreatedAt.IsZero() || *system.Protected {
		t.Errorf("ListImages: %+v", system)
	}
	got, err := glance.Get(v2, system.Id)
	if err != nil || got.Id != system.Id || got.Status != "active" || got.UpdatedAt.IsZero() {
		t.Errorf("Get: %+v, %v", got, err)
	}
	updated, err := images.UpdateImage(v2, system.Id, []images.UpdateImageOpts{{Op: "replace", Path: "/name", Value: "renamed"}, {Op: "replace", Path: "/min_ram", Value: 1024}})
	if err != nil || updated.Name != "renamed" || updated.MinRam != 1024 {
		t.Errorf("UpdateImage: %+v, %v", updated, err)
	}

	if err := tags.AddImageTag(v2, tags.AddImageTagOpts{ImageId: system.Id, Tag: commontags.ResourceTag{Key: "b", Value: "2"}}); err != nil {
		t.Errorf("AddImageTag: %v", err)
	}
	if err := tags.BatchAddOrDeleteTags(v2, tags.BatchAddOrDeleteTagsOpts{ImageId: system.Id, Action: "delete", Tags: []commontags.ResourceTag{{Key: "a", Value: "1"}}}); err != nil {
		t.Errorf("BatchAddOrDeleteTags: %v", err)
	}
	if list, err := tags.ListImageTags(v2, system.Id); err != nil || len(list) != 1 || list[0] != (commontags.ResourceTag{Key: "b", Value: "2"}) {
		t.Errorf("ListImageTags: %v, %v", list, err)
	}
	if list, err := tags.ListImagesTags(v2); err != nil || len(list) != 1 || list[0].Key != "b" {
		t.Errorf("ListImagesTags: %v, %v", list, err)
	}
	if err := tags.DeleteImageTag(v2, tags.DeleteImageTagOpts{ImageId: system.Id, Key: "b"}); err != nil {
		t.Errorf("DeleteImageTag: %v", err)
	}
	if quota, err := others.ShowImageQuota(v1); err != nil || len(quota) == 0 || quota[0].Type != "image" || quota[0].Used != len(made) {
		t.Errorf("ShowImageQuota: %v, %v", quota, err)
	}

	for _, id := range made {
		if err := glance.Delete(v2, glance.DeleteImageOpts{ImageId: id}); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	_, err = glance.Get(v2, system.Id)
	if _, ok := errors.AsType[golangsdk.ErrDefault404](err); !ok {
		t.Errorf("Get after the deletion: %v", err)
	}
}

func TestGopherTelekomCloudTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	provider := gopher(t, passwordOptions(s))
	identity, err := openstack.NewIdentityV3(provider, golangsdk.EndpointOpts{})
	if err != nil {
		t.Fatal(err)
	}
	token := provider.Token()
	if ok, err := tokens.Validate(identity, token); err != nil || !ok {
		t.Errorf("Validate: %v, %v", ok, err)
	}
	shown := tokens.Get(identity, token)
	if project, err := shown.ExtractProject(); err != nil || project.ID != harness.ProjectID || project.Domain.ID != harness.DomainID {
		t.Errorf("Get: project %v, %v", project, err)
	}
	if roles, err := shown.ExtractRoles(); err != nil || len(roles) != 1 || roles[0].Name != "admin" {
		t.Errorf("Get: roles %v, %v", roles, err)
	}
	if user, err := shown.ExtractUser(); err != nil || user.Name != harness.User || user.Domain.ID != harness.DomainID {
		t.Errorf("Get: user %v, %v", user, err)
	}
	pages, err := projects.List(identity, projects.ListOpts{Name: harness.Region}).AllPages()
	if err != nil {
		t.Fatalf("list projects: %v", err)
	}
	if list, err := projects.ExtractProjects(pages); err != nil || len(list) != 1 || list[0].ID != harness.ProjectID {
		t.Errorf("projects: %v, %v", list, err)
	}

	// A client that is given a token logs in with nothing else.
	byToken := gopher(t, golangsdk.AuthOptions{IdentityEndpoint: s.API + "/v3", TokenID: token, TenantID: harness.ProjectID})
	v2, err := openstack.NewIMSV2(byToken, golangsdk.EndpointOpts{Region: harness.Region})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.ListImages(v2, images.ListImagesOpts{}); err != nil {
		t.Errorf("ListImages with a token: %v", err)
	}

	// Revoked, it is refused; the client that knows the password gets another.
	if err := tokens.Revoke(identity, token).Err; err != nil {
		t.Fatalf("Revoke: %v", err)
	}
	_, err = images.ListImages(v2, images.ListImagesOpts{})
	if e, ok := errors.AsType[golangsdk.ErrDefault401](err); !ok || e.Actual != http.StatusUnauthorized {
		t.Errorf("ListImages with a revoked token: %v", err)
	}
	again, err := openstack.NewIMSV2(provider, golangsdk.EndpointOpts{Region: harness.Region})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.ListImages(again, images.ListImagesOpts{}); err != nil || provider.Token() == token {
		t.Errorf("ListImages after logging in again: %v", err)
	}

	wrong := passwordOptions(s)
	wrong.Password += "x"
	if _, err := openstack.AuthenticatedClient(wrong); err == nil {
		t.Error("logged in with a wrong password")
	}
	other := passwordOptions(s)
	other.TenantName = "nobodys"
	if _, err := openstack.AuthenticatedClient(other); err == nil {
		t.Error("logged in to an unknown project")
	}
}
