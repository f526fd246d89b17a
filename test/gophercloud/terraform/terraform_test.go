// Package terraform runs the image resources of terraform-provider-openstack by their own
// functions: each is planned, applied, read and planned again, as Terraform does.
package terraform

import (
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/go-cty/cty"
	"github.com/hashicorp/terraform-plugin-sdk/v2/diag"
	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
	sdkterraform "github.com/hashicorp/terraform-plugin-sdk/v2/terraform"
	"github.com/terraform-provider-openstack/terraform-provider-openstack/v3/openstack"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the provider tells each step
	harness.Main(m)
}

// project is a provider that is configured for one.
type project struct {
	*schema.Provider
	id string
}

func configured(t *testing.T, s *harness.Server, user, password, id string) project {
	t.Helper()
	p := openstack.Provider()
	settings := map[string]any{
		"auth_url": s.API + "/v3", "user_name": user, "password": password, "user_domain_name": "Default", "tenant_id": id, "region": harness.Region,
	}
	config := sdkterraform.NewResourceConfigRaw(settings)
	config.CtyValue = written(p.Schema, settings)
	fail(t, p.Configure(t.Context(), config))
	return project{p, id}
}

// written is a configuration as Terraform hands it over: the provider asks which of the
// settings were written down.
func written(of map[string]*schema.Schema, config map[string]any) cty.Value {
	out := map[string]cty.Value{}
	for name, kind := range schema.InternalMap(of).CoreConfigSchema().ImpliedType().AttributeTypes() {
		switch v := config[name].(type) {
		case string:
			out[name] = cty.StringVal(v)
		case int:
			out[name] = cty.NumberIntVal(int64(v))
		case bool:
			out[name] = cty.BoolVal(v)
		case []any:
			var all []cty.Value
			for _, one := range v {
				all = append(all, cty.StringVal(one.(string)))
			}
			out[name] = cty.SetVal(all)
		case map[string]any:
			all := map[string]cty.Value{}
			for key, one := range v {
				all[key] = cty.StringVal(one.(string))
			}
			out[name] = cty.MapVal(all)
		default:
			out[name] = cty.NullVal(kind)
		}
	}
	return cty.ObjectVal(out)
}

func fail(t *testing.T, d diag.Diagnostics) {
	t.Helper()
	for _, one := range d {
		if one.Severity == diag.Error {
			t.Fatalf("%s: %s", one.Summary, one.Detail)
		}
	}
}

// resource is one that Terraform keeps the state of.
type resource struct {
	of    project
	kind  string
	state *sdkterraform.InstanceState
}

// apply plans and applies, reads what became of it, and wants nothing to be left to do.
func (r *resource) apply(t *testing.T, config map[string]any) {
	t.Helper()
	what, raw := r.of.ResourcesMap[r.kind], sdkterraform.NewResourceConfigRaw(config)
	diff, err := what.Diff(t.Context(), r.state, raw, r.of.Meta())
	if err != nil {
		t.Fatal(err)
	}
	if diff.RequiresNew() && r.state != nil {
		t.Fatalf("%s would be made anew: %v", r.kind, diff)
	}
	diff.RawConfig = written(what.Schema, config)
	state, d := what.Apply(t.Context(), r.state, diff, r.of.Meta())
	fail(t, d)
	if state, d = what.RefreshWithoutUpgrade(t.Context(), state, r.of.Meta()); state == nil {
		t.Fatalf("%s is not there after it was applied: %v", r.kind, d)
	}
	r.state = state
	if diff, err = what.Diff(t.Context(), state, raw, r.of.Meta()); err != nil || diff != nil && !diff.Empty() {
		t.Errorf("%s: a second plan has %v (%v)", r.kind, diff, err)
	}
}

func (r *resource) destroy(t *testing.T) {
	t.Helper()
	what := r.of.ResourcesMap[r.kind]
	_, d := what.Apply(t.Context(), r.state, &sdkterraform.InstanceDiff{Destroy: true}, r.of.Meta())
	fail(t, d)
	if state, _ := what.RefreshWithoutUpgrade(t.Context(), r.state, r.of.Meta()); state != nil && state.ID != "" {
		t.Errorf("%s is there after it was destroyed: %v", r.kind, state)
	}
}

// want compares attributes of the state.
func want(t *testing.T, state *sdkterraform.InstanceState, attributes map[string]string) {
	t.Helper()
	for key, value := range attributes {
		if got := state.Attributes[key]; got != value {
			t.Errorf("%s is %q, want %q", key, got, value)
		}
	}
}

// data reads a data source.
func (p project) data(t *testing.T, kind string, config map[string]any) (*sdkterraform.InstanceState, diag.Diagnostics) {
	t.Helper()
	what := p.DataSourcesMap[kind]
	diff, err := what.Diff(t.Context(), nil, sdkterraform.NewResourceConfigRaw(config), p.Meta())
	if err != nil {
		t.Fatal(err)
	}
	return what.ReadDataApply(t.Context(), diff, p.Meta())
}

// TestTerraform: the image of a file is made, changed, published, found by another
// project, shared, and destroyed.
func TestTerraform(t *testing.T) {
	t.Parallel()
	lib := compat.Client{Area: "OpenStack", Name: "terraform-provider-openstack", Version: compat.ModuleVersion(t, "github.com/terraform-provider-openstack/terraform-provider-openstack/v3")}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		walk(t, lib, "SQLite", harness.Options{})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		walk(t, lib, "PostgreSQL", harness.Options{Database: harness.Postgres(t)})
	})
}

func walk(t *testing.T, lib compat.Client, over string, opts harness.Options) {
	s := harness.Start(t, opts)
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
	service := configured(t, s, harness.User, harness.Password, harness.ProjectID)
	other := configured(t, s, "other", variable("QUICKIMS_PASSWORD"), variable("QUICKIMS_PROJECT_ID"))
	run := func(did string, test func(t *testing.T)) { lib.Run(t, compat.Case{Did: did, Over: over}, test) }

	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, harness.Disk(5, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{
		"name": "web", "local_file_path": file, "container_format": "bare", "disk_format": "raw", "min_disk_gb": 1, "min_ram_mb": 64,
		"tags": []any{"a", "b"}, "properties": map[string]any{"hw_disk_bus": "virtio"}, "visibility": "private",
	}
	image := &resource{of: service, kind: "openstack_images_image_v2"}
	run("openstack_images_image_v2: create", func(t *testing.T) {
		image.apply(t, config)
		want(t, image.state, map[string]string{"status": "active", "size_bytes": "4194304", "name": "web", "visibility": "private", "properties.hw_disk_bus": "virtio", "tags.#": "2"})
	})
	if image.state == nil {
		t.Fatal("no image was made")
	}
	run("openstack_images_image_v2: update", func(t *testing.T) {
		changed := maps.Clone(config)
		changed["name"], changed["tags"], changed["protected"], changed["min_ram_mb"] = "renamed", []any{"c"}, true, 128
		changed["properties"] = map[string]any{"hw_disk_bus": "scsi", "hw_vif_model": "virtio"}
		image.apply(t, changed)
		want(t, image.state, map[string]string{"name": "renamed", "protected": "true", "min_ram_mb": "128", "properties.hw_disk_bus": "scsi", "properties.hw_vif_model": "virtio", "tags.#": "1"})
		config["name"], config["min_ram_mb"] = "renamed", 128
		image.apply(t, config)
		if _, there := image.state.Attributes["properties.hw_vif_model"]; there {
			t.Error("the property stays")
		}
	})
	query := map[string]any{"name_regex": "^ren", "visibility": "public", "most_recent": true}
	run("openstack_images_image_v2, openstack_images_image_ids_v2: data of a public image", func(t *testing.T) {
		if _, d := other.data(t, "openstack_images_image_v2", query); !d.HasError() || !strings.Contains(d[0].Summary, "no results") {
			t.Errorf("before it is published: %v", d)
		}
		config["visibility"] = "public"
		image.apply(t, config)
		for _, p := range []project{service, other} {
			state, d := p.data(t, "openstack_images_image_v2", query)
			fail(t, d)
			want(t, state, map[string]string{"id": image.state.ID, "visibility": "public", "owner": service.id, "size_bytes": "4194304"})
			ids, d := p.data(t, "openstack_images_image_ids_v2", map[string]any{"visibility": "public", "sort": "name:asc"})
			fail(t, d)
			want(t, ids, map[string]string{"ids.#": "1", "ids.0": image.state.ID})
		}
		config["visibility"] = "shared"
		image.apply(t, config)
	})
	run("openstack_images_image_access_v2, openstack_images_image_access_accept_v2", func(t *testing.T) {
		access := &resource{of: service, kind: "openstack_images_image_access_v2"}
		access.apply(t, map[string]any{"image_id": image.state.ID, "member_id": other.id})
		want(t, access.state, map[string]string{"status": "pending"})
		accept := &resource{of: other, kind: "openstack_images_image_access_accept_v2"}
		accept.apply(t, map[string]any{"image_id": image.state.ID, "member_id": other.id, "status": "accepted"})
		want(t, accept.state, map[string]string{"status": "accepted"})
		state, d := other.data(t, "openstack_images_image_v2", map[string]any{"name": "renamed", "visibility": "shared", "member_status": "accepted"})
		fail(t, d)
		want(t, state, map[string]string{"id": image.state.ID})
		accept.apply(t, map[string]any{"image_id": image.state.ID, "member_id": other.id, "status": "rejected"})
		access.destroy(t)
	})
	run("openstack_images_image_v2: destroy", func(t *testing.T) { image.destroy(t) })
}
