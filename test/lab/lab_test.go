//go:build amd64

// Package lab runs the commands of docs/kvm-lab.md in order, on a machine of its own:
// systemd and libvirt in namespaces.
package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// source is the folder of the project.
const source = "../.."

// block is a block of commands of the page.
type block struct{ heading, text string }

// blocks are those of the page, in order.
func blocks(t *testing.T) (list []block) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(source, "docs/kvm-lab.md"))
	if err != nil {
		t.Fatal(err)
	}
	heading := ""
	for _, m := range regexp.MustCompile("(?ms)^## ([^\n]+)$|^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		if m[1] != "" {
			heading = m[1]
			continue
		}
		list = append(list, block{heading, m[2]})
	}
	if len(list) < 10 {
		t.Fatalf("the page has %d blocks of commands, or they were not found", len(list))
	}
	return list
}

// machine is a systemd in namespaces.
type machine struct {
	folder string
	pid    string // of its first process
}

// cgroup makes a control group for the machine; it needs one of version 2.
func cgroup(t *testing.T) (procs string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			dir := filepath.Join(f[1], fmt.Sprintf("quickims-lab-%d", os.Getpid()))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Skipf("no control group can be made: %v", err)
			}
			t.Cleanup(func() { removeCgroup(dir) })
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	t.Skip("there is no cgroup2")
	return ""
}

// removeCgroup removes a control group and those that a systemd made in it.
func removeCgroup(dir string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	for range 100 { // what ended is counted for a moment yet
		if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// start starts the machine. Where that is not possible the test is skipped.
func start(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root")
	}
	if out, err := exec.Command("unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "true").CombinedOutput(); err != nil {
		t.Skipf("it takes namespaces: %v, %s", err, out)
	}
	m := &machine{folder: t.TempDir()}
	for _, name := range []string{"cover", "work", "state", "backups", "images"} {
		if err := os.Mkdir(filepath.Join(m.folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(m.folder), 0o755); err != nil { // libvirt's user goes through it
		t.Fatal(err)
	}
	script, err := filepath.Abs("namespace.sh")
	if err != nil {
		t.Fatal(err)
	}
	procs := cgroup(t)
	console, err := os.Create(filepath.Join(m.folder, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("sh", "-c", `echo $$ >"$0" && exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child "$@"`, procs, script, m.folder)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	harness.Eventually(t, "the machine's systemd answers", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if err != nil {
			out, _ := os.ReadFile(console.Name())
			if strings.Contains(string(out), "namespace: no cover") {
				t.Skipf("%s", out)
			}
			t.Fatalf("the machine did not start:\n%s", out)
		}
		m.pid = strings.TrimSpace(string(children))
		return m.pid != "" && m.command("systemctl", "is-active", "--quiet", "lab.target").Run() == nil
	})
	return m
}

// command is a command that runs in the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", m.pid, "-m", "-p", "-n", "-u", "-i", "-C", "-r/proc/" + m.pid + "/root", "--wd=/proc/" + m.pid + "/root/root/lab", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "USER=root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// place puts a file where the page's commands begin.
func (m *machine) place(t *testing.T, from, name string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.folder, "work", name), data, mode); err != nil {
		t.Fatal(err)
	}
}

// vmStarts finds the VM that a block starts.
var vmStarts = regexp.MustCompile(`--name (web)|virsh start (db)`)

// long tells whether this is a long run.
var long = os.Getenv("QUICKIMS_TEST_LONG") != ""

// Around the page's upgrade the test looks at what systemd knows. One that cannot start
// comes before it.
const (
	upgradeBegins = `
main() { systemctl show -P MainPID quickims; }
before=$(main)
cp /etc/quickims/quickims.yaml good.yaml
echo 'listen: nowhere' >/etc/quickims/quickims.yaml
if systemctl reload quickims; then echo "a reload with a bad configuration succeeded"; exit 1; fi
systemctl is-active quickims
[ "$(main)" = "$before" ]
cp good.yaml /etc/quickims/quickims.yaml
`
	upgradeEnded = `
[ "$(main)" != "$before" ]
systemctl is-active quickims
until ! kill -0 "$before" 2>/dev/null; do sleep 0.1; done
systemctl is-active quickims
`
)

// TestPage runs the page's commands.
func TestPage(t *testing.T) {
	t.Parallel()
	m := start(t)
	m.place(t, harness.Binary(t), "quickims", 0o755)
	m.place(t, filepath.Join(source, "deploy/quickims.service"), "quickims.service", 0o644)
	booted := m.smallDisk(t)

	script := "set -euo pipefail\nbegun=$SECONDS\n"
	for i, b := range blocks(t) {
		if strings.Contains(b.text, "ssh -i") {
			continue // the small system has none
		}
		if b.heading == "Upgrades" {
			script += upgradeBegins
		}
		script += fmt.Sprintf("echo \"== %d: %s, after $((SECONDS - begun)) s\"\n%s", i+1, b.heading, strings.ReplaceAll(b.text, "<domain type='kvm'>", "<domain type='qemu'>"))
		if vm := vmStarts.FindStringSubmatch(b.text); vm != nil {
			script += "booting=" + vm[1] + vm[2] + "\n"
		}
		if b.heading == "Upgrades" {
			script += upgradeEnded
		}
		// The upgrade comes while the first VM boots. The second boots as that one does.
		if b.heading == "Upgrades" || long && strings.Contains(b.text, "virsh start") {
			script += fmt.Sprintf("until grep -q '%s' /var/log/libvirt/qemu/${booting:-web}-console.log; do sleep 0.2; done\n", booted)
		}
	}
	cmd := m.command("bash", "-c", script)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		journal, _ := m.command("journalctl", "--no-pager", "-n", "60").CombinedOutput()
		t.Fatalf("%v\nthe journal:\n%s", err, journal)
	}
}

// smallDisk makes a small system's disk as the page's image, and returns the line that
// it prints when it has read all of its data.
func (m *machine) smallDisk(t *testing.T) (line string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	out, err := exec.Command(filepath.Join(source, "scripts/boot-disk"), raw).Output()
	if err != nil {
		t.Fatalf("scripts/boot-disk: %v", err)
	}
	var made struct {
		RootUUID string `json:"root_uuid"`
		Proof    string `json:"proof_sha256"`
	}
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(m.folder, "work", "debian-12.qcow2")).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return fmt.Sprintf("quickims: root=UUID=%s proof=%s firmware=bios", made.RootUUID, made.Proof)
}
