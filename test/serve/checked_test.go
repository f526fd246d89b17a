package serve

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestImportChecksTheSystem: import names the system that the disk holds, and warns of
// what the machine would stumble over, for a local file, for an object, and in the job
// that others made.
func TestImportChecksTheSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shell(t, dir, `
		truncate -s 8M disk.raw
		printf 'label: gpt\nstart=2048, size=12288, type=linux\n' | sfdisk -q disk.raw
		mkdir -p root/etc root/usr/lib root/bin
		printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n' >root/usr/lib/os-release
		ln -s ../usr/lib/os-release root/etc/os-release
		printf 'LABEL=r / ext4 defaults 0 1\n/dev/sdb1 /data ext4 defaults 0 2\n' >root/etc/fstab
		mke2fs -q -F -t ext4 -L r -E offset=1048576 -d root disk.raw 6M 2>&1 | grep -v '^$' || true
		qemu-img convert -O qcow2 disk.raw disk.qcow2`)
	s := harness.Start(t, harness.Options{S3: true})
	command := func(args ...string) (out []byte, stderr string, err error) {
		cmd := exec.Command(harness.Binary(t), args...)
		cmd.Env = append(os.Environ(), "QUICKIMS_CREDENTIALS="+filepath.Join(s.Dir, "credentials.env"))
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err = cmd.Output()
		return out, errs.String(), err
	}
	type doc struct {
		ImageID  string `json:"image_id"`
		JobID    string `json:"job_id"`
		Source   string
		Warnings []struct{ ID, Text string }
	}
	has := func(d doc, id, text string) bool {
		for _, w := range d.Warnings {
			if w.ID == id {
				return strings.Contains(w.Text, text)
			}
		}
		return false
	}
	imported := func(args ...string) (d doc) {
		t.Helper()
		out, stderr, err := command(append([]string{"import", "--json"}, args...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if err := json.Unmarshal(out, &d); err != nil {
			t.Fatal(err)
		}
		var images struct {
			Images []struct {
				OSVersion string `json:"__os_version"`
			}
		}
		if s.Get(t, "/v2/cloudimages?id="+d.ImageID, &images); len(images.Images) != 1 || images.Images[0].OSVersion != "Debian GNU/Linux 12.0.0 64bit" {
			t.Errorf("%v: the image is %+v", args, images)
		}
		return d
	}
	local := imported(filepath.Join(dir, "disk.qcow2"), "--name", "local")
	if !has(local, "fstab", "/dev/sdb1 for /data is on another disk, which is not in the image") || !has(local, "cloud-init", "not installed") || !has(local, "boot-mode", "no boot loader") {
		t.Errorf("a local file: %+v", local)
	}
	object := imported(local.Source, "--name", "object")
	if !has(object, "fstab", "nofail") {
		t.Errorf("an object: %+v", object)
	}
	var job struct {
		Entities struct {
			Warnings []struct{ ID, Text string }
		}
	}
	s.Get(t, "/v1/"+harness.ProjectID+"/jobs/"+object.JobID, &job)
	if !has(doc{Warnings: job.Entities.Warnings}, "fstab", "/dev/sdb1") {
		t.Errorf("the job's entities: %+v", job)
	}
	// What is no system tells none.
	if err := os.WriteFile(filepath.Join(dir, "noise.raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := command("import", filepath.Join(dir, "noise.raw"), "--name", "noise"); err == nil || !strings.Contains(stderr, "--os-version is required") {
		t.Errorf("%v: %s", err, stderr)
	}
	// A data disk is not asked for a system.
	if d, stderr, err := command("import", "--json", filepath.Join(dir, "disk.raw"), "--name", "data", "--type", "DataImage"); err != nil || strings.Contains(string(d)+stderr, "sdb1") {
		t.Errorf("%v: %s %s", err, d, stderr)
	}
}

// shell runs a script in a folder.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
