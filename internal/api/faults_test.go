package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/ims"
)

// TestFaultsOfAQuickImport is the table "which code for which fault" of the reference
// (section 7), as far as the edge decides it. What the bucket and the file decide is
// tested where the importer is.
func TestFaultsOfAQuickImport(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	with := func(key string, v any) m { return m{key: v} }
	for _, tc := range []struct {
		name string
		body string
		code ims.Code
		want string // in the details
	}{
		{"body is no JSON", `name=web`, "IMG.0001", "not JSON"},
		{"body is an array", `[]`, "IMG.0001", "must be an object"},
		{"body is a string", `"web"`, "IMG.0001", "must be an object"},
		{"body is null", `null`, "IMG.0001", "must be an object"},
		{"body empty", ``, "IMG.0007", ""},
		{"body white space", " \n\t", "IMG.0007", ""},

		{"name missing", systemDisk(with("name", nil)), "IMG.0013", "name"},
		{"name empty", systemDisk(with("name", "")), "IMG.0013", "name"},
		{"name null", strings.Replace(systemDisk(with("name", "X")), `"X"`, "null", 1), "IMG.0013", "name"},
		{"name too long", systemDisk(with("name", strings.Repeat("a", 129))), "IMG.0002", "129"},
		{"name too long, in characters", systemDisk(with("name", strings.Repeat("é", 129))), "IMG.0002", "129"},
		{"name bad characters", systemDisk(with("name", "a/b")), "IMG.0003", "name"},
		{"name leading space", systemDisk(with("name", " a")), "IMG.0003", "space"},
		{"name trailing space", systemDisk(with("name", "a ")), "IMG.0003", "space"},
		{"name with a new line", systemDisk(with("name", "a\nb")), "IMG.0003", "name"},

		{"description too long", systemDisk(with("description", strings.Repeat("é", 1025))), "IMG.0004", "1025"},
		{"description with <", systemDisk(with("description", "a<b")), "IMG.0054", "description"},
		{"description with >", systemDisk(with("description", "a>b")), "IMG.0054", "description"},
		{"description with CR", systemDisk(with("description", "a\rb")), "IMG.0054", "description"},
		{"description with a bell", systemDisk(with("description", "a\ab")), "IMG.0054", "description"},
		{"description with NUL", systemDisk(with("description", "a\x00b")), "IMG.0054", "description"},

		{"min_disk missing", systemDisk(with("min_disk", nil)), "IMG.0055", "min_disk"},
		{"min_disk 0", systemDisk(with("min_disk", 0)), "IMG.0055", "1 to 1024"},
		{"min_disk negative", systemDisk(with("min_disk", -40)), "IMG.0055", "1 to 1024"},
		{"min_disk 1025", systemDisk(with("min_disk", 1025)), "IMG.0055", "1 to 1024"},
		{"min_disk beyond int64", strings.Replace(systemDisk(nil), "40", "99999999999999999999", 1), "IMG.0055", "1 to 1024"},
		{"min_disk beyond float64", strings.Replace(systemDisk(nil), "40", "1e400", 1), "IMG.0055", "1 to 1024"},
		{"min_disk wraps to 40 in 32 bits", strings.Replace(systemDisk(nil), "40", "4294967336", 1), "IMG.0055", "1 to 1024"},
		{"min_disk of a data disk", dataDisk(with("min_disk", 1025)), "IMG.0055", "1 to 1024"},
		{"min_disk a fraction", strings.Replace(systemDisk(nil), "40", "40.5", 1), "IMG.0001", "min_disk must be an integer"},

		{"os_version missing", systemDisk(with("os_version", nil)), "IMG.0056", "os_version"},
		{"os_version unknown", systemDisk(with("os_version", "Plan 9 64bit")), "IMG.0056", "Plan 9 64bit"},
		{"os_version in other letters", systemDisk(with("os_version", "ubuntu 22.04 server 64bit")), "IMG.0056", "os_version"},
		{"os_type unknown", dataDisk(with("os_type", "BSD")), "IMG.0122", "os_type"},

		{"image_url missing", systemDisk(with("image_url", nil)), "IMG.0017", "bucket:object"},
		{"image_url empty", systemDisk(with("image_url", "")), "IMG.0017", "bucket:object"},
		{"image_url without a colon", systemDisk(with("image_url", "disks/web.raw")), "IMG.0017", "bucket:object"},
		{"image_url without an object", systemDisk(with("image_url", "disks:")), "IMG.0017", "object"},
		{"image_url climbs", systemDisk(with("image_url", "disks:../../etc/passwd")), "IMG.0017", "segment"},
		{"image_url a folder", systemDisk(with("image_url", "disks:a/")), "IMG.0017", "segment"},
		{"image_url object too long", systemDisk(with("image_url", "disks:"+strings.Repeat("a", 1025))), "IMG.0017", "1024"},
		{"bucket empty", systemDisk(with("image_url", ":web.raw")), "IMG.0068", "bucket"},
		{"bucket bad name", systemDisk(with("image_url", "Disks:web.raw")), "IMG.0109", "Disks"},
		{"bucket climbs", systemDisk(with("image_url", "..:web.raw")), "IMG.0109", "bucket"},
		{"bucket too short", systemDisk(with("image_url", "ab:web.raw")), "IMG.0109", "ab"},
		{"image_url a web address", systemDisk(with("image_url", "http://169.254.169.254/web.raw")), "IMG.0017", ""},
		{"space in the object", systemDisk(with("image_url", "disks:my web.raw")), "IMG.0175", "space"},
		{"space in the bucket", systemDisk(with("image_url", "my disks:web.raw")), "IMG.0175", "space"},

		{"type unknown", systemDisk(with("type", "IsoImage")), "IMG.0024", "DataImage"},
		{"type in other letters", systemDisk(with("type", "ecs")), "IMG.0024", "ecs"},

		{"tag without a dot", systemDisk(with("tags", []string{"env"})), "IMG.0115", "key.value"},
		{"tag with two dots", systemDisk(with("tags", []string{"env.a.b"})), "IMG.0115", "env.a.b"},
		{"tag with a space", systemDisk(with("tags", []string{"env.a b"})), "IMG.0115", "env.a b"},
		{"tag key too long", systemDisk(with("tags", []string{strings.Repeat("k", 37) + ".v"})), "IMG.0115", "37"},
		{"tag value too long", systemDisk(with("tags", []string{"k." + strings.Repeat("v", 44)})), "IMG.0115", "44"},
		{"tag keys twice", systemDisk(with("tags", []string{"a.1", "a.2"})), "IMG.0115", "twice"},
		{"image_tags keys twice once trimmed", systemDisk(with("image_tags", []m{{"key": "a", "value": "1"}, {"key": " a ", "value": "2"}})), "IMG.0115", "twice"},
		{"image_tags without a key", systemDisk(with("image_tags", []m{{"value": "1"}})), "IMG.0115", "image_tags[0].key is required"},
		{"image_tags without a value", systemDisk(with("image_tags", []m{{"key": "a", "value": "1"}, {"key": "b"}})), "IMG.0115", "image_tags[1].value is required"},
		{"image_tags bad characters", systemDisk(with("image_tags", []m{{"key": "a*", "value": "1"}})), "IMG.0115", "key"},
		{"both tag forms", systemDisk(m{"tags": []string{"a.1"}, "image_tags": []m{{"key": "b", "value": "1"}}}), "IMG.0115", "exclude"},
		{"eleven tags", systemDisk(with("tags", manyTags(11))), "IMG.0116", "11"},

		{"hw_firmware_type unknown", systemDisk(with("hw_firmware_type", "coreboot")), "IMG.0141", "coreboot"},
		{"bios with arm", systemDisk(m{"hw_firmware_type": "bios", "architecture": "arm"}), "IMG.0141", "arm"},
		{"architecture unknown", systemDisk(with("architecture", "riscv")), "IMG.0212", "riscv"},

		{"enterprise project of a wrong form", systemDisk(with("enterprise_project_id", "all_granted_eps")), "IMG.0155", "UUID"},
		{"enterprise project unknown", systemDisk(with("enterprise_project_id", ims.NewImageID())), "IMG.0155", "enterprise"},
		{"a key to encrypt with", systemDisk(with("cmk_id", "0f0f")), "IMG.0105", "cmk_id"},
		{"license_type too long", systemDisk(with("license_type", strings.Repeat("x", 65))), "IMG.0001", "license_type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := shared.newProject(t)
			status := http.StatusBadRequest
			if details := c.refused(t, status, tc.code, "POST", quickImport, tc.body); !strings.Contains(details, tc.want) {
				t.Errorf("details %q, want something about %q", details, tc.want)
			}
			if fmt.Sprint(status) != published(t)[tc.code].status {
				t.Errorf("%s is published with status %s", tc.code, published(t)[tc.code].status)
			}
			c.owns(t, 0)
		})
	}
}

func manyTags(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("k%d.v", i))
	}
	return out
}

// owns checks how many images the project has, killed ones left out.
func (c caller) owns(t testing.TB, want int) {
	t.Helper()
	list, _ := c.expect(t, http.StatusOK, "GET", "/v2/cloudimages", "")["images"].([]any)
	if len(list) != want {
		t.Errorf("the project has %d images, want %d", len(list), want)
	}
}

// TestFaultsOfTheImporter: what the importer says of a source is what the client reads.
func TestFaultsOfTheImporter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c := w.newProject(t)
	for _, code := range []ims.Code{"IMG.0069", "IMG.0057", "IMG.0059", "IMG.0058"} {
		w.importer.fault = ims.Faultf(code, "about the source").Cause(fmt.Errorf("a secret"))
		if details := c.refused(t, http.StatusBadRequest, code, "POST", quickImport, systemDisk(nil)); details != "about the source" {
			t.Errorf("details %q", details)
		}
	}
	w.importer.fault = fmt.Errorf("a fault with a /secret/path")
	if details := c.refused(t, http.StatusInternalServerError, "IMG.0061", "POST", quickImport, systemDisk(nil)); details != "" {
		t.Errorf("a fault that nobody classified has details: %q", details)
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	for range c.limits.Imports {
		c.accepted(t, systemDisk(nil))
	}
	c.refused(t, http.StatusBadRequest, "IMG.0060", "POST", quickImport, systemDisk(nil))

	c = shared.newProject(t)
	for range c.limits.Images {
		c.active(t, systemDisk(nil))
	}
	c.refused(t, http.StatusBadRequest, "IMG.0015", "POST", quickImport, systemDisk(nil))
	v := c.expect(t, http.StatusOK, "GET", "/v1/cloudimages/quota", "")
	rows, _ := v["quotas"].(map[string]any)["resources"].([]any)
	want := map[string]any{"type": "image", "used": 20.0, "quota": 20.0, "min": 0.0, "max": 20.0}
	if len(rows) != 3 || fmt.Sprint(rows[0]) != fmt.Sprint(want) {
		t.Errorf("quota %v, want %v first", rows, want)
	}
}

// TestFaultsOfLaterCalls is the last rows of the table.
func TestFaultsOfLaterCalls(t *testing.T) {
	t.Parallel()
	c := shared.newProject(t)
	rename := `[{"op":"replace","path":"/name","value":"new"}]`
	unknown := ims.NewImageID()

	c.refused(t, http.StatusNotFound, "IMG.0027", "GET", "/v2/images/"+unknown, "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "DELETE", "/v2/images/"+unknown, "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "PATCH", "/v2/cloudimages/"+unknown, rename)
	c.refused(t, http.StatusNotFound, "IMG.0027", "GET", "/v2/images/"+unknown+"/file", "")
	c.refused(t, http.StatusNotFound, "IMG.0027", "GET", "/v2/images/no-uuid", "")
	c.refused(t, http.StatusNotFound, "IMG.0023", "GET", "/v1/"+c.project+"/jobs/"+ims.NewJobID(), "")
	c.refused(t, http.StatusNotFound, "IMG.0023", "GET", "/v1/"+c.project+"/jobs/1", "")

	job, queued := c.accepted(t, systemDisk(nil))
	c.refused(t, http.StatusBadRequest, "IMG.0046", "PATCH", "/v2/cloudimages/"+queued, rename)
	c.refused(t, http.StatusBadRequest, "IMG.0090", "DELETE", "/v2/images/"+queued, "")
	c.refused(t, http.StatusBadRequest, "IMG.0046", "GET", "/v2/images/"+queued+"/file", "")
	if err := c.catalog.Fail(t.Context(), c.claim(t, job), ims.CodeFile, "gone"); err != nil {
		t.Fatal(err)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0046", "PATCH", "/v2/cloudimages/"+queued, rename)

	protected := c.active(t, systemDisk(nil))
	_, err := c.catalog.UpdateImage(t.Context(), c.domain, c.project, protected, func(img *ims.Image) error {
		img.Protected = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.refused(t, http.StatusBadRequest, "IMG.0028", "DELETE", "/v2/images/"+protected, "")
	c.expect(t, http.StatusOK, "GET", "/v2/images/"+protected, "")

	c.refused(t, http.StatusBadRequest, "IMG.0030", "GET", "/v1/"+ims.NewJobID()+"/jobs/"+job, "")
	reader := c.as(t, ims.RoleReader, c.project)
	reader.refused(t, http.StatusForbidden, "IMG.0026", "POST", quickImport, systemDisk(nil))
	nobody := caller{world: c.world}
	a := nobody.send(t, "GET", "/v2/cloudimages", "")
	a.refused(t, http.StatusUnauthorized, "IMG.0087")
	if a.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
}
