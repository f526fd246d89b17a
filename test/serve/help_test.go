// Package serve tests images as block devices from end to end: the real binary, and the
// NBD clients that people use.
package serve

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// quickims runs a command line of ours that must succeed.
func quickims(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(harness.Binary(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("quickims %q: %v\n%s", args, err, out)
	}
}

// run runs a tool and gives what it printed; it must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// fails runs a tool that must fail, and gives what it said.
func fails(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if _, ok := err.(*exec.ExitError); !ok {
		t.Fatalf("%s %q: %v, it should fail\n%s", name, args, err, out)
	}
	return string(out)
}

// diskFile writes a disk to a RAW file of the test's own.
func diskFile(t *testing.T, disk []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// put places a disk in a bucket under a key: RAW with its bitmap, or ZVHD2.
func put(t *testing.T, s *harness.Server, key string, disk []byte) {
	t.Helper()
	raw := diskFile(t, disk)
	made := raw
	if strings.HasSuffix(key, ".zvhd2") {
		made = raw + ".zvhd2"
		quickims(t, "convert", "--quiet", raw, made)
	} else {
		quickims(t, "mf", "--quiet", raw)
		mf, err := os.ReadFile(strings.TrimSuffix(raw, ".raw") + ".mf")
		if err != nil {
			t.Fatal(err)
		}
		s.PutFile(t, "disks", strings.TrimSuffix(key, ".raw")+".mf", mf)
	}
	data, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	s.PutFile(t, "disks", key, data)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
