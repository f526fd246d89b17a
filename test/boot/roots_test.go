//go:build amd64

package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/test/harness"
)

// stacks are systems that differ in their packages: what is purged of the one that has
// all of them.
var stacks = map[string][]string{
	"netplan":         {"ifupdown", "isc-dhcp-client", "network-manager"},
	"cloud-ifupdown":  {"netplan.io", "network-manager"},
	"cloud-nm":        {"netplan.io", "ifupdown", "isc-dhcp-client"},
	"cloud-networkd":  {"netplan.io", "network-manager", "ifupdown", "isc-dhcp-client"},
	"ifupdown":        {"cloud-init", "cloud-guest-utils", "netplan.io", "network-manager"},
	"nm":              {"cloud-init", "cloud-guest-utils", "netplan.io", "ifupdown", "isc-dhcp-client"},
	"networkd":        {"cloud-init", "cloud-guest-utils", "netplan.io", "ifupdown", "isc-dhcp-client", "network-manager"},
	"netplan-offline": {"cloud-init", "cloud-guest-utils", "ifupdown", "isc-dhcp-client", "network-manager"},
}

// outcome is what becomes of a machine.
type outcome int

const (
	notStarted  outcome = iota // no machine is started
	reachable                  // its SSH server answers
	unreachable                // it starts, and nothing answers
	stopped                    // it does not come up
)

// root is a root file system and what check must say of its disk. Findings are severity,
// check and words; there may be no other warnings and errors.
type root struct {
	name     string
	stack    string
	change   string // a script in the root's folder
	layout   string // of scripts/disk-of-root
	fstab    string // more lines
	options  string // of the kernel, besides root=; "ro" if empty
	platform string
	shrunk   bool // the root partition is made smaller than its file system
	verdict  string
	firmware string
	findings []string
	becomes  outcome
	seed     bool // the machine gets a configuration drive
}

// Pieces of scripts.
const (
	hostKeys = "ssh-keygen -q -t ed25519 -N '' -f etc/ssh/ssh_host_ed25519_key\n"
	aUser    = "echo 'ann:x:1000:1000::/home/ann:/bin/bash' >>etc/passwd; echo 'ann:$6$saltsalt$n0:19000:0:99999:7:::' >>etc/shadow\n"
	login    = hostKeys + aUser
	anyEn    = "printf 'network:\\n  version: 2\\n  ethernets:\\n    all:\\n      match: {name: \"en*\"}\\n      dhcp4: true\\n' >etc/netplan/50.yaml\n"
	seedHere = "mkdir -p var/lib/cloud/seed/nocloud; echo 'instance-id: a' >var/lib/cloud/seed/nocloud/meta-data; printf '#cloud-config\\npassword: x\\n' >var/lib/cloud/seed/nocloud/user-data\n"
	noCloud  = "echo 'datasource_list: [ NoCloud ]' >etc/cloud/cloud.cfg.d/99_sources.cfg\n"
	cloudOff = "touch etc/cloud/cloud-init.disabled\n"
	cardEth0 = "printf 'auto eth0\\niface eth0 inet dhcp\\n' >etc/network/interfaces.d/eth0\n"
	cardAny  = "printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' >etc/systemd/network/50-any.network\n"
	enable   = "mkdir -p etc/systemd/system/multi-user.target.wants; ln -s /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/\n"
)

// withoutCloud are the warnings of every system without cloud-init, on which nothing else
// is wrong.
var withoutCloud = []string{"warning cloud-init not installed", "warning grow-root nothing enlarges"}

func and(findings []string, more ...string) []string { return slices.Concat(findings, more) }

// keyed are those of one that has host keys, too.
var keyed = and(withoutCloud, "warning ssh-host-keys there are host keys")

var roots = []root{
	// With cloud-init.
	{name: "netplan", stack: "netplan", verdict: "ready", firmware: "bios", becomes: reachable, seed: true},
	{name: "cloud-ifupdown", stack: "cloud-ifupdown", verdict: "ready"},
	{name: "cloud-nm", stack: "cloud-nm", verdict: "ready"},
	{name: "cloud-networkd", stack: "cloud-networkd", verdict: "ready"},
	{name: "cloud-no-stack", stack: "cloud-networkd", change: "ln -s /dev/null etc/systemd/system/systemd-networkd.service",
		verdict: "not ready", findings: []string{"error network neither ifupdown, netplan, NetworkManager nor systemd-networkd"}},
	{name: "kvm", stack: "netplan", platform: "kvm", verdict: "ready", findings: []string{"warning cloud-init without a seed disk"}},
	{name: "nocloud-alone", stack: "netplan", change: noCloud, verdict: "not ready", becomes: unreachable,
		findings: []string{"warning cloud-init needs a seed", "error ssh-host-keys nothing on this disk makes them", "error access nobody can log in", "warning grow-root nothing enlarges"}},
	{name: "nocloud-with-seed", stack: "netplan", change: noCloud + seedHere, verdict: "ready"},
	{name: "nocloud-on-kvm", stack: "netplan", change: noCloud, platform: "kvm", verdict: "ready", findings: []string{"warning cloud-init without a seed disk"}},
	{name: "turns-itself-off", stack: "netplan", change: "echo 'datasource_list: [ NoCloud, Azure, None ]' >etc/cloud/cloud.cfg.d/99_sources.cfg", verdict: "not ready",
		findings: []string{"warning cloud-init turn itself off", "error network no network card is configured", "error ssh-host-keys nothing on this disk makes them", "error access nobody can log in", "warning grow-root nothing enlarges"}},
	{name: "masked-unit", stack: "netplan", change: "ln -s /dev/null etc/systemd/system/cloud-init.service", verdict: "not ready",
		findings: []string{"warning cloud-init cloud-init.service is masked", "error network no network card is configured", "error ssh-host-keys nothing on this disk makes them", "error access nobody can log in", "warning grow-root nothing enlarges"}},
	{name: "disabled-units", stack: "netplan", change: "rm -r etc/systemd/system/cloud-init.target.wants", verdict: "not ready",
		findings: []string{"warning cloud-init cloud-init.service is disabled", "error network no network card is configured", "error ssh-host-keys nothing on this disk makes them", "error access nobody can log in", "warning grow-root nothing enlarges"}},
	{name: "enabled-by-preset", stack: "netplan", change: "rm -r etc/systemd/system/cloud-init.target.wants; echo uninitialized >etc/machine-id", options: "rw", verdict: "ready"},
	{name: "switched-off", stack: "netplan", change: cloudOff + anyEn + login, verdict: "ready",
		findings: []string{"warning cloud-init cloud-init.disabled", "warning grow-root nothing enlarges", "warning ssh-host-keys there are host keys"}},
	{name: "switched-off-by-option", stack: "netplan", change: anyEn + hostKeys, options: "ro cloud-init=disabled", verdict: "not ready",
		findings: []string{"warning cloud-init cloud-init=disabled", "warning grow-root nothing enlarges", "warning ssh-host-keys there are host keys", "error access nobody can log in"}},
	{name: "no-growpart", stack: "netplan", change: "rm usr/bin/growpart", verdict: "ready", findings: []string{"warning grow-root growpart is not installed"}},
	{name: "behind-the-root", stack: "netplan", layout: "gpt-behind", verdict: "ready", findings: []string{"warning grow-root partition 4 lies behind it"}},

	// Without cloud-init: each network stack.
	{name: "ifupdown", stack: "ifupdown", change: cardEth0 + login, options: "ro net.ifnames=0", verdict: "ready", findings: keyed, becomes: reachable},
	{name: "ifupdown-other-name", stack: "ifupdown", change: cardEth0 + login, verdict: "not ready", becomes: unreachable,
		findings: and(keyed, "error network-names cards that the machine will not have: /etc/network/interfaces.d/eth0 (eth0)")},
	{name: "ifupdown-some-name", stack: "ifupdown", change: "printf 'allow-hotplug ens3\\niface ens3 inet dhcp\\n' >>etc/network/interfaces\n" + login, verdict: "ready",
		findings: and(keyed, "warning network-names not every machine has it")},
	{name: "ifupdown-no-client", stack: "ifupdown", change: "rm sbin/dhclient\n" + cardEth0 + login, options: "ro net.ifnames=0", verdict: "not ready",
		findings: and(keyed, "error network no client of DHCP is installed")},
	{name: "ifupdown-masked", stack: "ifupdown", change: "ln -s /dev/null etc/systemd/system/networking.service\n" + cardEth0 + login, options: "ro net.ifnames=0", verdict: "not ready",
		findings: and(keyed, "error network networking.service is masked")},
	{name: "ifupdown-fixed", stack: "ifupdown", change: "printf 'auto eth0\\niface eth0 inet static\\n  address 192.0.2.5/24\\n' >>etc/network/interfaces\n" + login, options: "ro net.ifnames=0", verdict: "not ready",
		findings: and(keyed, "error network only fixed addresses")},
	{name: "no-host-keys", stack: "ifupdown", change: cardEth0 + aUser, options: "ro net.ifnames=0", verdict: "not ready", becomes: unreachable,
		findings: and(withoutCloud, "error ssh-host-keys the SSH server will not start", "warning access at the console ann can")},
	{name: "keys-by-a-unit", stack: "ifupdown", change: cardEth0 + aUser + `
		printf '[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=ssh.service\n[Unit]\nBefore=ssh.service\n' >etc/systemd/system/host-keys.service
		mkdir -p etc/systemd/system/ssh.service.wants; ln -s ../host-keys.service etc/systemd/system/ssh.service.wants/`, options: "ro net.ifnames=0", verdict: "ready",
		findings: withoutCloud, becomes: reachable},
	{name: "nobody", stack: "ifupdown", change: cardEth0 + hostKeys, options: "ro net.ifnames=0", verdict: "not ready", findings: and(keyed, "error access nobody can log in")},
	{name: "nm", stack: "nm", change: login, verdict: "ready", findings: keyed},
	{name: "nm-disabled", stack: "nm", change: "rm etc/systemd/system/multi-user.target.wants/NetworkManager.service\n" + login, verdict: "not ready",
		findings: and(keyed, "error network no network card is configured")},
	{name: "networkd", stack: "networkd", change: cardAny + enable + login, verdict: "ready", findings: keyed, becomes: reachable},
	{name: "networkd-disabled", stack: "networkd", change: cardAny + login, verdict: "not ready", findings: and(keyed, "error network systemd-networkd is disabled"), becomes: unreachable},
	{name: "netplan-of-another-card", stack: "netplan-offline", change: strings.ReplaceAll(anyEn, `name: "en*"`, `macaddress: "00:50:56:00:00:01"`) + login, verdict: "not ready",
		findings: and(keyed, "error network-names cards that the machine will not have")},

	// What is mounted.
	{name: "missing-disk", stack: "networkd", change: cardAny + enable + login, fstab: "UUID=11111111-2222-4333-8444-555555555555 /data ext4 defaults 0 2", verdict: "not ready",
		findings: and(keyed, "error fstab /data is not on this disk"), becomes: stopped},
	{name: "missing-disk-nofail", stack: "netplan", fstab: "UUID=11111111-2222-4333-8444-555555555555 /data ext4 defaults,nofail 0 2", verdict: "ready"},
	{name: "second-disk-by-name", stack: "netplan", fstab: "/dev/vdb1 /data ext4 defaults 0 2", verdict: "not ready", findings: []string{"error fstab another disk, which is not in the image"}},
	{name: "no-root-in-fstab", stack: "netplan", change: "NO_ROOT=1", verdict: "not ready", findings: []string{"error fstab has no line for /"}},

	// Boot loaders, firmware, initramfs.
	{name: "mbr", stack: "netplan", layout: "mbr", verdict: "ready", firmware: "bios"},
	{name: "bios-alone", stack: "netplan", layout: "gpt-bios", verdict: "ready", firmware: "bios", findings: []string{"warning efi-boot-file starts with BIOS alone"}},
	{name: "uefi-alone", stack: "netplan", layout: "gpt-uefi", verdict: "ready", firmware: "uefi"},
	{name: "systemd-boot", stack: "netplan", layout: "systemd-boot", verdict: "ready", firmware: "uefi"},
	{name: "vendor-name-alone", stack: "netplan", layout: "gpt-vendor", verdict: "not ready", firmware: "uefi", findings: []string{"error efi-boot-file no boot loader under the standard name"}},
	{name: "gzip", stack: "netplan", change: "echo COMPRESS=gzip >>etc/initramfs-tools/initramfs.conf; chroot . update-initramfs -u", verdict: "ready"},
	{name: "lz4", stack: "netplan", change: "echo COMPRESS=lz4 >>etc/initramfs-tools/initramfs.conf; chroot . update-initramfs -u", verdict: "ready"},
	{name: "no-drivers", stack: "netplan", change: "echo MODULES=list >>etc/initramfs-tools/initramfs.conf; chroot . update-initramfs -u", verdict: "not ready",
		findings: []string{"error virtio-pci not in its initramfs", "error virtio-blk not in its initramfs", "warning virtio-scsi not in its initramfs"}},
	{name: "too-large", stack: "netplan", shrunk: true, verdict: "not ready",
		findings: []string{"error storage larger than its partition"}},
}

// TestRoots: check says of real systems, made of Debian's packages, what is so, and a
// machine that starts from some of them can be reached or not, as it says.
func TestRoots(t *testing.T) {
	t.Parallel()
	if os.Getenv("QUICKIMS_TEST_LONG") == "" {
		t.Skip("QUICKIMS_TEST_LONG is not set: `make test-long` runs this")
	}
	if os.Getuid() != 0 {
		t.Skip("only root can make root file systems")
	}
	for _, r := range roots {
		t.Run(r.name, func(t *testing.T) {
			disk := r.make(t)
			r.check(t, disk)
			if r.becomes != notStarted {
				t.Run("boot", func(t *testing.T) { r.boot(t, disk) })
			}
		})
	}
}

// script is the path of a script of the project.
func script(name string) string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "../../scripts", name)
}

var stackOf sync.Map // name: func() (string, error)

// folderOf makes the folder of a stack, once.
func folderOf(t *testing.T, stack string) string {
	t.Helper()
	made, _ := stackOf.LoadOrStore(stack, sync.OnceValues(func() (string, error) {
		base, err := output(exec.Command(script("debian-root")))
		if err != nil {
			return "", err
		}
		dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(base))), "debian-root-"+stack)
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
		_, err = output(exec.Command("sh", append([]string{"-ec", `
			export DEBIAN_FRONTEND=noninteractive
			rm -rf "$2.new"
			cp -a "$1" "$2.new"
			dir=$2
			shift 2
			dpkg --root="$dir.new" --force-depends --purge "$@" >"$dir.new/purge.log" 2>&1 || { cat "$dir.new/purge.log" >&2; exit 1; }
			rm "$dir.new/purge.log"
			mv "$dir.new" "$dir"`, "sh", strings.TrimSpace(string(base)), dir}, stacks[stack]...)...))
		return dir, err
	}))
	dir, err := made.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// rootSize is the size of the root file systems in MiB.
const rootSize = 900

// make makes the disk.
func (r root) make(t *testing.T) string {
	t.Helper()
	dir, id := filepath.Join(t.TempDir(), "root"), uuid.NewString()
	options := r.options
	if options == "" {
		options = "ro"
	}
	options = "root=UUID=" + id + " " + options + " console=ttyS0 no_timer_check"
	_, err := output(exec.Command("sh", "-ec", `
		cp -a "$1" "$2"
		cd "$2"
		[ "$5" = no ] || {
			printf '[Unit]\nDescription=Say that the start is over\n[Service]\nExecStart=/bin/sh -c "systemctl is-system-running --wait; echo quickims: settled >/dev/ttyS0"\n[Install]\nWantedBy=multi-user.target\n' >etc/systemd/system/settled.service
			mkdir -p etc/systemd/system/multi-user.target.wants
			ln -s ../settled.service etc/systemd/system/multi-user.target.wants/
		}
		NO_ROOT=
		`+r.change+`
		kernel=$(ls boot | sed -n 's/^vmlinuz-//p')
		mkdir -p boot/grub
		printf 'set timeout=0\nmenuentry "Debian GNU/Linux" {\n  search --no-floppy --fs-uuid --set=root %s\n  linux /boot/vmlinuz-%s %s\n  initrd /boot/initrd.img-%s\n}\n' "$3" "$kernel" "$4" "$kernel" >boot/grub/grub.cfg
		printf 'title Debian\nlinux /linux\ninitrd /initrd\noptions %s\n' "$4" >boot/loader.conf
		[ "`+r.layout+`" != systemd-boot ] || rm boot/grub/grub.cfg
		: >etc/fstab
		[ -n "$NO_ROOT" ] || echo "UUID=$3 / ext4 errors=remount-ro 0 1" >>etc/fstab
		printf '%s\n' "$6" >>etc/fstab`,
		"sh", folderOf(t, r.stack), dir, id, options, map[bool]string{true: "no", false: "yes"}[r.becomes == notStarted], r.fstab))
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	layout := r.layout
	if layout == "" {
		layout = "gpt"
	}
	run(t, script("disk-of-root"), dir, disk, id, fmt.Sprint(rootSize), layout)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if r.shrunk {
		// As somebody does who makes a partition smaller and forgets the file system.
		run(t, "sh", "-ec", fmt.Sprintf("echo ',%dM' | PATH=$PATH:/usr/sbin:/sbin sfdisk -q -N 3 %s", rootSize-64, disk))
	}
	return disk
}

// check compares what check says with what it must.
func (r root) check(t *testing.T, disk string) {
	t.Helper()
	args := []string{"check", "--json", disk}
	if r.platform != "" {
		args = append(args, "--for", r.platform)
	}
	out, err := exec.Command(harness.Binary(t), args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var doc struct {
		Verdict  string
		Firmware string `json:"hw_firmware_type"`
		Version  string `json:"os_version"`
		Findings []struct{ ID, Severity, Found string }
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	left := slices.Clone(r.findings)
	for _, f := range doc.Findings {
		i := slices.IndexFunc(left, func(want string) bool {
			severity, rest, _ := strings.Cut(want, " ")
			id, words, _ := strings.Cut(rest, " ")
			return f.Severity == severity && f.ID == id && strings.Contains(f.Found, words)
		})
		switch {
		case i >= 0:
			left = slices.Delete(left, i, i+1)
		case f.Severity == "warning" || f.Severity == "error" || f.Severity == "unknown" && !r.shrunk:
			t.Errorf("%s %s: %s", f.Severity, f.ID, f.Found)
		}
	}
	if len(left) > 0 || doc.Verdict != r.verdict || r.firmware != "" && doc.Firmware != r.firmware {
		t.Errorf("the verdict is %q, firmware %s, want %q %s; missing: %q", doc.Verdict, doc.Firmware, r.verdict, r.firmware, left)
	}
	if !r.shrunk && !strings.HasPrefix(doc.Version, "Debian GNU/Linux ") {
		t.Errorf("os_version is %q", doc.Version)
	}
}

// stops is what a machine says that does not come up.
var stops = regexp.MustCompile(`(?i)emergency mode|Cannot open access to console|Kernel panic|\(initramfs\)`)

// boot starts a machine and looks whether its SSH server answers.
func (r root) boot(t *testing.T, disk string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	args := []string{
		"-m", "768", "-smp", "2", "-snapshot", "-drive", "if=virtio,format=raw,file=" + disk, "-device", "virtio-rng-pci",
		"-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:" + port + "-:22", "-device", "virtio-net-pci,netdev=net",
	}
	if r.seed {
		drive := filepath.Join(t.TempDir(), "config.iso")
		run(t, "sh", "-ec", `mkdir -p "$1/openstack/latest"; echo '{"uuid":"83679162-1378-4288-a2d4-70e13ec132aa","hostname":"guest"}' >"$1/openstack/latest/meta_data.json"
			xorriso -as mkisofs -quiet -V config-2 -J -r -o "$2" "$1" 2>/dev/null`, "sh", filepath.Join(t.TempDir(), "config"), drive)
		args = append(args, "-drive", "if=virtio,format=raw,readonly=on,file="+drive)
	}
	g := start(t, "bios", args...)
	began, settled, hung := time.Now(), false, false
	answers := make(chan bool, 1)
	over := make(chan struct{})
	go func() { answers <- answersSSH(address, over) }()
	for !settled && !hung {
		select {
		case line, ok := <-g.lines:
			if !ok {
				t.Fatalf("the machine ended: %v", g.ctx.Err())
			}
			settled, hung = strings.Contains(line, "quickims: settled"), stops.MatchString(line)
		case yes := <-answers:
			answers <- yes
			settled = true
		}
	}
	// What is started may still open its port.
	timer := time.AfterFunc(20*time.Second, func() { close(over) })
	defer timer.Stop()
	go func() {
		for range g.lines {
		}
	}()
	got := unreachable
	switch {
	case <-answers:
		got = reachable
	case hung:
		got = stopped
	}
	t.Logf("%s after %.0f s", [...]string{"", "reachable", "not reachable", "not up"}[got], time.Since(began).Seconds())
	if got != r.becomes {
		t.Errorf("the machine is %d, want %d", got, r.becomes)
	}
}

// answersSSH reports whether an SSH server says its version before it is over.
func answersSSH(address string, over <-chan struct{}) bool {
	for {
		if conn, err := net.DialTimeout("tcp", address, 5*time.Second); err == nil {
			b := make([]byte, 4)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _ := conn.Read(b)
			conn.Close()
			if string(b[:n]) == "SSH-" {
				return true
			}
		}
		select {
		case <-over:
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}
