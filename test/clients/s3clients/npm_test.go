package s3clients

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// npmPackage is the package whose version the page shows for the JavaScript client.
const npmPackage = "@aws-sdk/client-s3"

var jsOnce sync.Once

// jsDir is where the packages were installed, once for the test process; TestMain
// removes it.
var jsDir string

// installedJS installs exactly what package-lock.json names, without running scripts of
// packages, and returns the client's script beside it and the version of npmPackage.
func installedJS(t *testing.T, source string) (script, version string) {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	must(t, err)
	var packages struct {
		Packages map[string]struct{ Version string }
	}
	must(t, json.Unmarshal(lock, &packages))
	jsOnce.Do(func() {
		dir, err := os.MkdirTemp("", "quickims-test-js-")
		must(t, err)
		must(t, os.CopyFS(dir, os.DirFS(source)))
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("npm ci: %v\n%s", err, out)
			return
		}
		jsDir = dir
	})
	if jsDir == "" {
		t.Fatal("the npm packages are not installed")
	}
	return filepath.Join(jsDir, "client.mjs"), packages.Packages["node_modules/"+npmPackage].Version
}
