package openstack

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

// tempestModules are what of tempest is run: all of the Image API, and of the Identity API
// what concerns tokens, the catalogue, projects and application credentials.
var tempestModules = []string{
	"api.image.v2.test_images", "api.image.v2.test_images_member", "api.image.v2.test_images_member_negative",
	"api.image.v2.test_images_metadefs_schema", "api.image.v2.test_images_negative", "api.image.v2.test_images_tags",
	"api.image.v2.test_images_tags_negative", "api.image.v2.test_versions",
	"api.image.v2.admin.test_images", "api.image.v2.admin.test_image_caching",
	"api.image.v2.admin.test_images_metadefs_namespace_objects", "api.image.v2.admin.test_images_metadefs_namespace_properties",
	"api.image.v2.admin.test_images_metadefs_namespace_tags", "api.image.v2.admin.test_images_metadefs_namespaces",
	"api.image.v2.admin.test_images_metadefs_resource_types",
	"api.identity.v3.test_access_rules", "api.identity.v3.test_api_discovery", "api.identity.v3.test_application_credentials",
	"api.identity.v3.test_catalog", "api.identity.v3.test_domains", "api.identity.v3.test_projects", "api.identity.v3.test_tokens",
	"api.identity.admin.v3.test_tokens", "api.identity.admin.v3.test_list_projects", "api.identity.admin.v3.test_application_credentials",
}

// tempestFails has the tests that do not pass, each with its reason.
//
//go:embed tempest.txt
var tempestFails string

// tempestLine is a line of Python's unittest about a test, or about the preparation of a class.
var tempestLine = regexp.MustCompile(`(?m)^(?:setUpClass \()?tempest\.([\w.]+)(?:\[[^]]*\]|\))? \.\.\. (ok|FAIL|ERROR|skipped .*)$`)

// TestTempest runs tempest's tests with accounts that were made before. Each passes or
// stands in tempest.txt; one that stands there must not pass. Over SQLite and PostgreSQL.
func TestTempest(t *testing.T) {
	if os.Getenv("QUICKIMS_TEST_CLIENTS") == "" {
		t.Skip("QUICKIMS_TEST_CLIENTS is not set; make test-clients sets it")
	}
	t.Parallel()
	reasons := map[string]string{}
	reason := ""
	for line := range strings.Lines(tempestFails) {
		switch line = strings.TrimSpace(line); {
		case line == "":
		case strings.HasPrefix(line, "#"):
			reason = strings.TrimSpace(line[1:])
		case reason == "" || reasons[line] != "":
			t.Fatalf("tempest.txt: %q has no reason above it, or is there twice", line)
		default:
			reasons[line] = reason
		}
	}
	onBoth(t, func(t *testing.T, opts harness.Options) { tempest(t, opts, maps.Clone(reasons)) })
}

// tempest runs the tests against a server. Reasons has why some do not pass.
func tempest(t *testing.T, opts harness.Options, reasons map[string]string) {
	s := harness.Start(t, opts)
	dir := t.TempDir()
	accounts := fmt.Sprintf("- {username: %s, project_name: %s, password: %q, domain_name: default, types: [admin], roles: [admin]}\n", harness.User, harness.Region, harness.Password)
	for _, name := range []string{"one", "two"} {
		out, err := exec.Command(harness.Binary(t), "account", "add", "--data", s.Dir, "--database", opts.Database, "--project", name, "--user", name, "--role", "member").Output()
		_, rest, found := strings.Cut(string(out), "QUICKIMS_PASSWORD='")
		if err != nil || !found {
			t.Fatalf("account add: %v, %s", err, out)
		}
		password, _, _ := strings.Cut(rest, "'")
		accounts += fmt.Sprintf("- {username: %s, project_name: %s, password: %q, domain_name: default, roles: [member]}\n", name, name, password)
	}
	config := fmt.Sprintf(`[DEFAULT]
log_file = %[1]s/tempest.log
[oslo_concurrency]
lock_path = %[1]s
[auth]
use_dynamic_credentials = false
test_accounts_file = %[1]s/accounts.yaml
create_isolated_networks = false
[identity]
auth_version = v3
uri_v3 = %[2]s/v3
region = %[3]s
v3_endpoint_type = public
[identity-feature-enabled]
api_v2 = false
application_credentials = true
[image]
region = %[3]s
disk_formats = raw
container_formats = bare
[image-feature-enabled]
import_image = true
os_glance_reserved = true
[service_available]
glance = true
cinder = false
neutron = false
nova = false
swift = false
horizon = false
`, dir, s.API, harness.Region)
	for name, content := range map[string]string{"accounts.yaml": accounts, "tempest.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	words := []string{"-W", "ignore", "-m", "unittest", "-v"}
	for _, m := range tempestModules {
		words = append(words, "tempest."+m)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", words...)
	cmd.Env = append(os.Environ(), "TEMPEST_CONFIG_DIR="+dir, "TEMPEST_CONFIG=tempest.conf", "HOME="+dir)
	cmd.Dir = dir
	printed, _ := cmd.CombinedOutput() // that some fail is known; which ones, is asked below
	client := compat.Client{Area: "OpenStack", Name: "python3-tempest", Version: compat.DebianVersion(t, "python3-tempest")}
	passed := 0
	for _, m := range tempestLine.FindAllStringSubmatch(string(printed), -1) {
		name, outcome := m[1], m[2]
		reason, listed := reasons[name]
		delete(reasons, name)
		switch ok := outcome == "ok"; {
		case ok && listed:
			t.Errorf("%s passes: remove it from tempest.txt", name)
		case ok:
			passed++
			client.Record(t, compat.Case{Did: name}, true)
		case listed:
			client.Record(t, compat.Case{Did: name, Result: "does not apply: " + reason}, true)
		default:
			t.Errorf("%s: %s", name, outcome)
			client.Record(t, compat.Case{Did: name}, false)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		t.Errorf("%s stands in tempest.txt and was not run", name)
	}
	if passed < 50 {
		t.Errorf("%d tests passed: tempest did not run as it should", passed)
	}
	if t.Failed() {
		t.Logf("tempest prints\n%s", printed)
	}
}
