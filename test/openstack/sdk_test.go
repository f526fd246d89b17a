package openstack

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/compat"
	"github.com/quickims/quickims/test/harness"
)

//go:embed sdk.py
var sdkScript string

// TestSDK has openstacksdk's image proxy call what it has, and asserts what each method
// returns: sdk.py has the calls. Over SQLite and PostgreSQL.
func TestSDK(t *testing.T) {
	if os.Getenv("QUICKIMS_TEST_CLIENTS") == "" {
		t.Skip("QUICKIMS_TEST_CLIENTS is not set; make test-clients sets it")
	}
	t.Parallel()
	client := compat.Client{Area: "OpenStack", Name: "python3-openstacksdk", Version: compat.DebianVersion(t, "python3-openstacksdk")}
	refusals := map[string]string{"stores": "refused: 404", "import_image with web-download": "refused"}
	onBoth(t, func(t *testing.T, opts harness.Options) {
		s := harness.Start(t, opts)
		out, err := exec.Command(harness.Binary(t), "account", "add", "--data", s.Dir, "--database", opts.Database, "--project", "other", "--user", "other", "--role", "admin").Output()
		if err != nil {
			t.Fatalf("account add: %v %s", err, out)
		}
		variable := func(name string) string {
			_, rest, _ := strings.Cut(string(out), name+"='")
			value, _, _ := strings.Cut(rest, "'")
			return value
		}
		cloud := func(name, user, password, project string) string {
			return fmt.Sprintf("  %s:\n    region_name: %s\n    identity_api_version: 3\n    auth: {auth_url: %s, username: %s, password: %q, user_domain_name: Default, project_id: %s}\n",
				name, harness.Region, s.API, user, password, project)
		}
		clouds := writeFile(t, "clouds.yaml", []byte("clouds:\n"+cloud("owner", harness.User, harness.Password, harness.ProjectID)+
			cloud("member", "other", variable("QUICKIMS_PASSWORD"), variable("QUICKIMS_PROJECT_ID"))))
		disk := writeFile(t, "disk.raw", harness.Disk(3, 1))
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "-c", sdkScript, disk, filepath.Join(t.TempDir(), "out.raw"))
		var stderr bytes.Buffer
		cmd.Env, cmd.Stderr = append(os.Environ(), "OS_CLIENT_CONFIG_FILE="+clouds, "HOME="+t.TempDir()), &stderr
		printed, err := cmd.Output()
		if err != nil {
			t.Fatalf("openstacksdk: %v\n%s", err, stderr.Bytes())
		}
		steps := 0
		for line := range bytes.Lines(printed) {
			var step struct{ Did, Wrong string }
			if err := json.Unmarshal(line, &step); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			steps++
			if step.Wrong != "" {
				t.Errorf("%s: %s", step.Did, step.Wrong)
			}
			client.Record(t, compat.Case{Did: step.Did, Result: refusals[step.Did]}, step.Wrong == "")
		}
		if steps < 25 {
			t.Errorf("%d steps were run", steps)
		}
	})
}
