package ownership

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestLostSealKey: whoever lost seal.key, or has another one, gets in again: access keys
// end, passwords and images stay. A good seal.key is never replaced.
func TestLostSealKey(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, path string){
		"lost":      func(t *testing.T, path string) {},
		"truncated": func(t *testing.T, path string) { writeFile(t, path, []byte("short")) },
		"another":   func(t *testing.T, path string) { writeFile(t, path, bytes.Repeat([]byte{7}, 32)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, harness.Options{})
			disk := harness.Disk(7, 3)
			s.PutFile(t, "disks", "disk.raw", disk)
			s.PutFile(t, "disks", "disk.mf", []byte("of another tool"))
			image := s.Import(t, harness.Request("kept", "disks:disk.raw"))
			path := filepath.Join(s.Dir, "seal.key")
			reseal := func(status int, want string, args ...string) {
				t.Helper()
				out, stderr, got := harness.Command(t, append([]string{"account", "reseal", "--data", s.Dir}, args...)...)
				if got != status || !strings.Contains(out+stderr, want) {
					t.Errorf("reseal %q: status %d, want %d and %q: %s%s", args, got, status, want, out, stderr)
				}
			}
			reseal(1, "another quickims", "--yes")
			s.Stop(t)
			good := contents(t, s.Dir)["seal.key"]
			reseal(1, "nothing was changed", "--yes")
			if contents(t, s.Dir)["seal.key"] != good {
				t.Error("a good seal.key was replaced")
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			spoil(t, path)
			if log := harness.Refused(t, harness.Options{Dir: s.Dir}); !strings.Contains(log, "account reseal") {
				t.Errorf("the refusal does not name the command: %s", log)
			}
			reseal(1, "not confirmed")
			reseal(0, "1 access keys were deleted", "--yes")
			s.Restart(t, "")
			s.CheckBytes(t, image, disk) // with the password
			out, stderr, status := harness.Command(t, "account", "add", "--data", s.Dir, "--project", harness.ProjectID, "--user", "another", "--role", "admin")
			if status != 0 || !strings.Contains(out, "QUICKIMS_SECRET_KEY") {
				t.Errorf("a new access key: %d: %s%s", status, out, stderr)
			}
			if kept, err := filepath.Glob(path + ".replaced-*"); err != nil || (len(kept) == 1) != (name != "lost") {
				t.Errorf("kept of what was replaced: %q (%v)", kept, err)
			}
		})
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
