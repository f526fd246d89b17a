package providers

import (
	"encoding/json"
	"io"
	"log"
	"maps"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
	"github.com/huaweicloud/terraform-provider-huaweicloud/huaweicloud/config"
	"github.com/huaweicloud/terraform-provider-huaweicloud/huaweicloud/services/ims"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the provider tells each request
	harness.Main(m)
}

// login says who the provider is for the service.
type login struct {
	user, password, accessKey, secretKey, token, project string
}

// configured is the provider with its image resources alone, for the whole provider
// takes long to build, and with the settings that its configuration would give it.
func configured(t *testing.T, s *harness.Server, as login) provider {
	t.Helper()
	c := &config.Config{
		AccessKey: as.accessKey, SecretKey: as.secretKey, Username: as.user, Password: as.password, Token: as.token, DomainName: "default", TenantID: as.project,
		IdentityEndpoint: s.API + "/v3", Region: harness.Region, MaxRetries: 2, Cloud: "cloud.invalid",
		Endpoints: map[string]string{}, RegionProjectIDMap: map[string]string{}, RPLock: new(sync.Mutex), SecurityKeyLock: new(sync.Mutex),
	}
	for _, service := range []string{"ims", "iam", "eps"} {
		c.SetServiceEndpoint(service, s.API+"/")
	}
	if err := c.LoadAndValidate(); err != nil {
		t.Fatalf("configure the provider: %v", err)
	}
	p := &schema.Provider{
		ResourcesMap: map[string]*schema.Resource{
			"huaweicloud_images_image_copy":            ims.ResourceImsImageCopy(),
			"huaweicloud_images_image_share":           ims.ResourceImsImageShare(),
			"huaweicloud_images_image_share_accepter":  ims.ResourceImsImageShareAccepter(),
			"huaweicloud_ims_cbr_whole_image":          ims.ResourceCbrWholeImage(),
			"huaweicloud_ims_ecs_system_image":         ims.ResourceEcsSystemImage(),
			"huaweicloud_ims_ecs_whole_image":          ims.ResourceEcsWholeImage(),
			"huaweicloud_ims_evs_data_image":           ims.ResourceEvsDataImage(),
			"huaweicloud_ims_evs_system_image":         ims.ResourceEvsSystemImage(),
			"huaweicloud_ims_image_export":             ims.ResourceImageExport(),
			"huaweicloud_ims_image_metadata":           ims.ResourceImageMetadata(),
			"huaweicloud_ims_image_registration":       ims.ResourceImageRegistration(),
			"huaweicloud_ims_obs_data_image":           ims.ResourceObsDataImage(),
			"huaweicloud_ims_obs_iso_image":            ims.ResourceObsIsoImage(),
			"huaweicloud_ims_obs_system_image":         ims.ResourceObsSystemImage(),
			"huaweicloud_ims_quickimport_data_image":   ims.ResourceQuickImportDataImage(),
			"huaweicloud_ims_quickimport_system_image": ims.ResourceQuickImportSystemImage(),
			"huaweicloud_imsv21_image_export":          ims.ResourceIMSV21ImageExport(),
		},
		DataSourcesMap: map[string]*schema.Resource{
			"huaweicloud_images_image":             ims.DataSourceImagesImageV2(),
			"huaweicloud_images_images":            ims.DataSourceImagesImages(),
			"huaweicloud_ims_image_shared_members": ims.DataSourceImsImageSharedMembers(),
			"huaweicloud_ims_images_by_tags":       ims.DataSourceIMSImagesByTags(),
			"huaweicloud_ims_os_versions":          ims.DataSourceOsVersions(),
			"huaweicloud_ims_quotas":               ims.DataSourceImsQuotas(),
			"huaweicloud_ims_tags":                 ims.DataSourceTags(),
		},
	}
	p.SetMeta(c)
	return provider{schema.NewGRPCProviderServer(p), p}
}

const debian = "Debian GNU/Linux 12.0.0 64bit"

// TestHuaweicloud takes each image resource through its life: made, planned again,
// changed, imported, destroyed; and reads each data source.
func TestHuaweicloud(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		walk(t, "SQLite, AK/SK", harness.Options{}, login{accessKey: harness.AccessKey, secretKey: harness.SecretKey, project: harness.ProjectID})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		walk(t, "PostgreSQL, password", harness.Options{Database: harness.Postgres(t)}, login{user: harness.User, password: harness.Password, project: harness.ProjectID})
	})
}

func walk(t *testing.T, over string, opts harness.Options, as login) {
	lib := compat.Client{Area: "IMS", Name: "terraform-provider-huaweicloud", Version: compat.ModuleVersion(t, "github.com/huaweicloud/terraform-provider-huaweicloud")}
	s := harness.Start(t, opts)
	for _, key := range []string{"system", "data"} {
		s.PutFile(t, "providers", key+".raw", harness.Disk(1, 4))
		s.PutFile(t, "providers", key+".mf", []byte("written by another tool"))
	}
	out, err := exec.Command(harness.Binary(t), "account", "add", "--data", s.Dir, "--database", opts.Database, "--project", "other", "--user", "other", "--role", "admin").CombinedOutput()
	if err != nil {
		t.Fatalf("account add: %v %s", err, out)
	}
	variable := func(name string) string {
		m := regexp.MustCompile(name + `='(.+)'`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("account add tells no %s: %s", name, out)
		}
		return string(m[1])
	}
	var made struct {
		EnterpriseProject struct{ ID string } `json:"enterprise_project"`
	}
	if err := json.Unmarshal(s.Do(t, "POST", "/v1.0/enterprise-projects", map[string]any{"name": "web"}).Body, &made); err != nil {
		t.Fatal(err)
	}
	otherProject := variable("QUICKIMS_PROJECT_ID")

	one := configured(t, s, as)
	other := configured(t, s, login{user: "other", password: variable("QUICKIMS_PASSWORD"), project: otherProject})
	run := func(t *testing.T, k compat.Case, test func(t *testing.T)) {
		k.Over = over
		lib.Run(t, k, test)
	}

	run(t, compat.Case{Did: "login with AK/SK, password, token"}, func(t *testing.T) {
		for _, as := range []login{
			{accessKey: harness.AccessKey, secretKey: harness.SecretKey, project: harness.ProjectID},
			{user: harness.User, password: harness.Password, project: harness.ProjectID},
			{token: s.Token(t), project: harness.ProjectID},
		} {
			want(t, configured(t, s, as).found(t, "huaweicloud_ims_quotas", nil), map[string]string{"quotas.0.resources.0.type": "image"})
		}
	})
	// The provider waits ten seconds for each job, so that all walk side by side.
	life := func(kind string, config, change map[string]any, want1 map[string]string, untold ...string) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := &resource{of: one, kind: kind}
			run(t, compat.Case{Did: kind + ": create, plan"}, func(t *testing.T) {
				r.applied(t, config)
				want(t, r.state, want1)
			})
			if t.Failed() {
				return
			}
			run(t, compat.Case{Did: kind + ": update, plan"}, func(t *testing.T) {
				changed := maps.Clone(config)
				maps.Copy(changed, change)
				r.applied(t, changed)
				r.read(t)
			})
			run(t, compat.Case{Did: kind + ": import"}, func(t *testing.T) { r.imports(t, untold...) })
			run(t, compat.Case{Did: kind + ": destroy"}, func(t *testing.T) {
				removed := *r
				r.destroy(t)
				removed.gone(t)
			})
		})
	}
	tags := map[string]any{"foo": "bar", "key": "value"}
	change := map[string]any{"name": "renamed", "description": "", "enterprise_project_id": made.EnterpriseProject.ID, "tags": map[string]any{"key": "other", "key2": "value2"}}
	life("huaweicloud_ims_quickimport_system_image", map[string]any{
		"name": "system", "os_version": debian, "image_url": "providers:system.raw", "min_disk": 40, "type": "ECS", "description": "of a test", "hw_firmware_type": "bios", "enterprise_project_id": "0", "tags": tags,
	}, change, map[string]string{"status": "active", "min_disk": "40", "tags.foo": "bar", "hw_firmware_type": "bios", "__os_type": "Linux"}, "image_url", "type", "architecture", "license_type")
	life("huaweicloud_ims_quickimport_data_image", map[string]any{
		"name": "data", "image_url": "providers:data.raw", "min_disk": 100, "type": "DataImage", "os_type": "Linux", "description": "of a test", "enterprise_project_id": "0", "tags": tags,
	}, change, map[string]string{"status": "active", "min_disk": "100", "virtual_env_type": "DataImage", "tags.key": "value"}, "image_url", "type")
	life("huaweicloud_ims_obs_system_image", map[string]any{
		"name": "obs-system", "image_url": "providers:system.raw", "min_disk": 60, "os_version": debian, "os_type": "Linux", "type": "ECS", "is_quick_import": true, "max_ram": 4096, "min_ram": 2048, "description": "of a test", "tags": tags,
	}, map[string]any{"name": "renamed", "description": "", "min_ram": 1024, "max_ram": 8192, "enterprise_project_id": made.EnterpriseProject.ID, "tags": map[string]any{"key": "other"}},
		map[string]string{"status": "active", "max_ram": "4096", "min_ram": "2048"}, "image_url", "type", "is_config", "is_quick_import", "cmk_id", "architecture")
	life("huaweicloud_ims_obs_data_image", map[string]any{
		"name": "obs-data", "image_url": "providers:data.raw", "min_disk": 60, "os_type": "Linux", "description": "of a test", "tags": tags,
	}, change, map[string]string{"status": "active", "min_disk": "60", "virtual_env_type": "DataImage"}, "image_url", "cmk_id")

	t.Run("metadata and registration", func(t *testing.T) {
		t.Parallel()
		kind := "huaweicloud_ims_image_metadata"
		meta := &resource{of: one, kind: kind}
		run(t, compat.Case{Did: kind + ": create, plan, import"}, func(t *testing.T) {
			meta.applied(t, map[string]any{"name": "registered", "__os_version": debian, "min_disk": 40, "min_ram": 1024, "visibility": "private", "disk_format": "raw", "container_format": "bare", "tags": []any{"a", "b.c"}})
			want(t, meta.state, map[string]string{"status": "queued", "min_disk": "40", "tags.#": "2"})
			meta.imports(t)
		})
		if t.Failed() {
			return
		}
		kind = "huaweicloud_ims_image_registration"
		run(t, compat.Case{Did: kind + ": create, plan, import, destroy"}, func(t *testing.T) {
			r := &resource{of: one, kind: kind}
			r.applied(t, map[string]any{"image_id": meta.attribute("id"), "image_url": "providers:system.raw"})
			want(t, r.state, map[string]string{"status": "active", "name": "registered"})
			r.imports(t, "image_url")
			removed := *r
			r.destroy(t)
			removed.gone(t)
			meta.gone(t)
		})
		run(t, compat.Case{Did: "huaweicloud_ims_image_metadata: destroy"}, func(t *testing.T) {
			meta := &resource{of: one, kind: "huaweicloud_ims_image_metadata"}
			meta.applied(t, map[string]any{})
			removed := *meta
			meta.destroy(t)
			removed.gone(t)
		})
	})

	t.Run("of an image", func(t *testing.T) {
		t.Parallel()
		source := &resource{of: one, kind: "huaweicloud_ims_quickimport_system_image"}
		source.applied(t, map[string]any{"name": "source", "os_version": debian, "image_url": "providers:system.raw", "min_disk": 40, "tags": map[string]any{"only": "source"}})
		id := source.attribute("id")
		t.Run("copy", func(t *testing.T) {
			t.Parallel()
			kind := "huaweicloud_images_image_copy"
			r := &resource{of: one, kind: kind}
			config := map[string]any{"source_image_id": id, "name": "copy", "description": "of a test", "tags": tags}
			run(t, compat.Case{Did: kind + ": create, plan"}, func(t *testing.T) {
				r.applied(t, config)
				want(t, r.state, map[string]string{"status": "active", "tags.foo": "bar", "name": "copy"})
			})
			if t.Failed() {
				return
			}
			run(t, compat.Case{Did: kind + ": update, plan, destroy"}, func(t *testing.T) {
				changed := maps.Clone(config)
				maps.Copy(changed, map[string]any{"name": "renamed", "description": "", "min_ram": 1024, "max_ram": 4096, "enterprise_project_id": made.EnterpriseProject.ID, "tags": map[string]any{"key": "other"}})
				r.applied(t, changed)
				want(t, r.state, map[string]string{"name": "renamed", "min_ram": "1024", "max_ram": "4096"})
				removed := *r
				r.destroy(t)
				removed.gone(t)
			})
		})
		t.Run("export", func(t *testing.T) {
			t.Parallel()
			run(t, compat.Case{Did: "huaweicloud_ims_image_export"}, func(t *testing.T) {
				r := &resource{of: one, kind: "huaweicloud_ims_image_export"}
				r.applied(t, map[string]any{"image_id": id, "bucket_url": "providers:export.raw", "is_quick_export": true})
			})
			run(t, compat.Case{Did: "huaweicloud_imsv21_image_export"}, func(t *testing.T) {
				r := &resource{of: one, kind: "huaweicloud_imsv21_image_export"}
				r.applied(t, map[string]any{"image_id": id, "bucket_url": "providers:export.zvhd2", "is_quick_export": true})
			})
			run(t, compat.Case{Did: "huaweicloud_ims_image_export: as qcow2"}, func(t *testing.T) {
				r := &resource{of: one, kind: "huaweicloud_ims_image_export"}
				r.applied(t, map[string]any{"image_id": id, "bucket_url": "providers:export.qcow2", "file_format": "qcow2"})
			})
		})
		t.Run("share", func(t *testing.T) {
			t.Parallel()
			run(t, compat.Case{Did: "huaweicloud_images_image_share, huaweicloud_images_image_share_accepter"}, func(t *testing.T) {
				share := &resource{of: one, kind: "huaweicloud_images_image_share"}
				share.applied(t, map[string]any{"source_image_id": id, "target_project_ids": []any{otherProject}})
				accept := &resource{of: other, kind: "huaweicloud_images_image_share_accepter"}
				accept.applied(t, map[string]any{"image_id": id})
				want(t, one.found(t, "huaweicloud_ims_image_shared_members", map[string]any{"image_id": id}),
					map[string]string{"members.#": "1", "members.0.member_id": otherProject, "members.0.status": "accepted"})
				want(t, other.found(t, "huaweicloud_images_image", map[string]any{"name": "source", "visibility": "shared"}), map[string]string{"id": id, "owner": harness.ProjectID})
				accept.destroy(t)
				share.destroy(t)
				want(t, one.found(t, "huaweicloud_ims_image_shared_members", map[string]any{"image_id": id}), map[string]string{"members.#": "0"})
			})
		})
		t.Run("data", func(t *testing.T) {
			t.Parallel()
			run(t, compat.Case{Did: "huaweicloud_images_image, huaweicloud_images_images"}, func(t *testing.T) {
				for _, query := range []map[string]any{
					{"image_id": id}, {"name": "source"}, {"name_regex": "^sou"}, {"tag": "only=source"},
					{"name": "source", "most_recent": true, "visibility": "private", "image_type": "FusionCompute", "os": "Debian", "os_version": debian, "architecture": "x86", "owner": harness.ProjectID, "enterprise_project_id": "0"},
				} {
					want(t, one.found(t, "huaweicloud_images_image", query), map[string]string{"id": id, "status": "active", "os_version": debian, "min_disk_gb": "40"})
					delete(query, "most_recent")
					want(t, one.found(t, "huaweicloud_images_images", query), map[string]string{"images.#": "1", "images.0.id": id})
				}
				if _, bad := one.data(t, "huaweicloud_images_image", map[string]any{"name": "nothing"}); !strings.Contains(bad, "returned no results") {
					t.Errorf("of no image: %s", bad)
				}
			})
			run(t, compat.Case{Did: "huaweicloud_ims_images_by_tags, huaweicloud_ims_tags"}, func(t *testing.T) {
				byTag := func(query map[string]any) map[string]any {
					query["action"] = "filter"
					return query
				}
				only := []any{map[string]any{"key": "only", "values": []any{"source"}}}
				for _, query := range []map[string]any{
					{"tags": only}, {"tags_any": only}, {"matches": []any{map[string]any{"key": "resource_name", "value": "source"}}},
				} {
					want(t, one.found(t, "huaweicloud_ims_images_by_tags", byTag(query)), map[string]string{"resources.#": "1", "resources.0.resource_id": id, "resources.0.tags.only": "source"})
				}
				all := one.found(t, "huaweicloud_ims_tags", nil)
				if !strings.Contains(attribute(all, "tags"), `"only"`) {
					t.Errorf("tags: %s", attribute(all, "tags"))
				}
			})
			run(t, compat.Case{Did: "huaweicloud_ims_os_versions"}, func(t *testing.T) {
				last := 1 << 20
				for _, tag := range []any{nil, "x86", "x86,bms"} {
					all := one.found(t, "huaweicloud_ims_os_versions", map[string]any{"tag": tag})
					n := all.GetAttr("os_versions").LengthInt()
					if n == 0 || n >= last {
						t.Errorf("tag %v: %d platforms, want fewer than %d", tag, n, last)
					}
					last = n
				}
			})
		})
	})

	refused := compat.Case{Result: "refused: IMG.0105"}
	for kind, config := range map[string]map[string]any{
		"huaweicloud_ims_obs_iso_image":    {"name": "iso", "image_url": "providers:disk.iso", "min_disk": 60, "os_version": debian},
		"huaweicloud_ims_ecs_system_image": {"name": "ecs", "instance_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0c"},
		"huaweicloud_ims_ecs_whole_image":  {"name": "ecs", "instance_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0c", "vault_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0d"},
		"huaweicloud_ims_evs_data_image":   {"name": "evs", "volume_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0c"},
		"huaweicloud_ims_evs_system_image": {"name": "evs", "volume_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0c", "os_version": debian},
		"huaweicloud_ims_cbr_whole_image":  {"name": "cbr", "backup_id": "4f1e8a0c-3c0a-4f1e-8a0c-3c0a4f1e8a0c"},
	} {
		k := refused
		k.Did = kind
		run(t, k, func(t *testing.T) {
			r := &resource{of: one, kind: kind}
			if bad := r.apply(t, config); !strings.Contains(bad, "IMG.0105") {
				t.Errorf("%s: %q, want IMG.0105", kind, bad)
			}
		})
	}
}
