package diskcheck

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/ims"
)

// osReleases are the files of real distributions, cut down to what counts, and
// what must come of them.
var osReleases = []struct {
	text, exact string // os-release, and the file that says the point release
	arch        string
	want        string
	how         match
}{
	{"ID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"", "12.5", "", "Debian GNU/Linux 12.0.0 64bit", sameMajor},
	{"ID=debian\nVERSION_ID=\"12\"", "12.0", "", "Debian GNU/Linux 12.0.0 64bit", exact},
	{"ID=debian\nVERSION_ID=\"11\"", "11.7", "arm", "Debian GNU/Linux 11.1.0 64bit", sameMajor},
	{"ID=debian\nVERSION_ID=\"11\"", "", "", "Debian GNU/Linux 11.0.0 64bit", exact},
	{"ID=debian\nVERSION_ID=\"13\"", "13.1", "", "Debian GNU/Linux 12.0.0 64bit", otherMajor},
	{"ID=debian", "trixie/sid", "", "Other_Linux (64_bit)", noFamily},
	{"ID=debian\nVERSION_ID=\"8\"", "8.9", "", "Debian GNU/Linux 8.8.0 64bit", sameMajor},
	{"ID=ubuntu\nVERSION_ID=\"22.04\"\nVERSION=\"22.04.4 LTS (Jammy Jellyfish)\"", "", "", "Ubuntu 22.04 server 64bit", sameMajor},
	{"ID=ubuntu\nVERSION_ID=\"24.04\"\nVERSION=\"24.04 LTS (Noble Numbat)\"", "", "arm", "Ubuntu 24.04 server 64bit", exact},
	{"ID=ubuntu\nVERSION_ID=\"16.04\"\nVERSION=\"16.04.3 LTS (Xenial Xerus)\"", "", "", "Ubuntu 16.04.3 Server 64bit", exact},
	{"ID=ubuntu\nVERSION_ID=\"23.10\"", "", "", "Ubuntu 22.04 server 64bit", otherMajor},
	{"ID=ubuntu\nVERSION_ID=\"25.04\"", "", "", "Ubuntu 24.04 server 64bit", otherMajor},
	{"ID=ubuntu\nVERSION_ID=\"12.04\"", "", "", "Ubuntu 14.04 server 64bit", otherMajor},
	{"ID=\"centos\"\nVERSION_ID=\"7\"\nVERSION=\"7 (Core)\"", "7.9.2009", "", "CentOS 7.9 64bit", sameMajor},
	{"ID=\"centos\"\nVERSION_ID=\"7\"", "7.3.1611", "arm", "CentOS 7.4 64bit", sameMajor},
	{"ID=\"centos\"\nVERSION_ID=\"8\"", "8.5.2111", "", "CentOS 8.2 64bit", sameMajor},
	{"ID=\"centos\"\nVERSION_ID=\"9\"\nNAME=\"CentOS Stream\"", "9", "", "CentOS 8.2 64bit", otherMajor},
	{"ID=\"rocky\"\nVERSION_ID=\"9.4\"", "", "", "Rocky Linux 9.4 64bit", exact},
	{"ID=\"rocky\"\nVERSION_ID=\"9.6\"", "", "arm", "Rocky Linux 9.5 64bit", sameMajor},
	{"ID=\"rocky\"\nVERSION_ID=\"10.0\"", "", "", "Rocky Linux 9.5 64bit", otherMajor},
	{"ID=\"almalinux\"\nVERSION_ID=\"8.10\"", "", "", "AlmaLinux 8.9 64bit", sameMajor},
	{"ID=\"almalinux\"\nVERSION_ID=\"9.3\"", "", "", "AlmaLinux 9.3 64bit", exact},
	{"ID=\"rhel\"\nVERSION_ID=\"7.6\"", "", "", "Redhat 7.6 64bit", exact},
	{"ID=\"rhel\"\nVERSION_ID=\"7.9\"", "", "", "Redhat 7.6 64bit", sameMajor},
	{"ID=\"rhel\"\nVERSION_ID=\"8.0\"", "", "", "Redhat Linux Enterprise 8.0 64bit", exact},
	{"ID=\"rhel\"\nVERSION_ID=\"9.4\"", "", "", "Redhat Linux Enterprise 8.0 64bit", otherMajor},
	{"ID=fedora\nVERSION_ID=29", "", "arm", "Fedora 29 64bit", exact},
	{"ID=fedora\nVERSION_ID=41", "", "", "Fedora 30 64bit", otherMajor},
	{"ID=\"opensuse-leap\"\nVERSION_ID=\"15.1\"", "", "", "openSUSE 15.1 64bit", exact},
	{"ID=\"opensuse-leap\"\nVERSION_ID=\"15.6\"", "", "", "openSUSE 15.1 64bit", sameMajor},
	{"ID=opensuse\nVERSION_ID=\"42.3\"", "", "", "openSUSE 42.3 64bit", exact},
	{"ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\nVERSION_ID=\"20240501\"", "", "", "Other_Linux (64_bit)", noFamily},
	{"ID=\"sles\"\nVERSION_ID=\"15.5\"\nVERSION=\"15-SP5\"", "", "", "SUSE Linux Enterprise Server 15 SP5 64bit", exact},
	{"ID=\"sles\"\nVERSION_ID=\"15\"", "", "", "SUSE Linux Enterprise Server 15 64bit", exact},
	{"ID=\"sles\"\nVERSION_ID=\"15.7\"", "", "", "SUSE Linux Enterprise Server 15 SP6 64bit", sameMajor},
	{"ID=\"sles_sap\"\nVERSION_ID=\"12.5\"", "", "", "SUSE Linux Enterprise Server 12 SP5 64bit", exact},
	{"ID=\"ol\"\nVERSION_ID=\"8.9\"", "", "", "Oracle Linux Server release 8.9 64bit", exact},
	{"ID=\"ol\"\nVERSION_ID=\"9.5\"", "", "", "Oracle Linux Server release 9.4 64bit", sameMajor},
	{"ID=\"openEuler\"\nVERSION_ID=\"22.03\"\nVERSION=\"22.03 (LTS-SP3)\"", "", "", "openEuler 22.03 64bit", exact},
	{"ID=\"openEuler\"\nVERSION_ID=\"23.09\"", "", "", "openEuler 22.03 64bit", otherMajor},
	{"ID=\"euleros\"\nVERSION_ID=\"2.0\"\nVERSION=\"2.0 (SP9x86_64)\"", "", "", "EulerOS 2.9 64bit", exact},
	{"ID=arch", "", "", "Other_Linux (64_bit)", noFamily},
	{"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"21.3\"", "", "", "Other_Linux (64_bit)", noFamily},
	{"ID=amzn\nVERSION_ID=\"2023\"", "", "", "Other_Linux (64_bit)", noFamily},
	{"", "", "", "Other_Linux (64_bit)", noFamily},
	{"ID=ubuntu\nVERSION_ID=\"99999999999999999999.04\"", "", "", "Other_Linux (64_bit)", noFamily},
}

func TestOSVersions(t *testing.T) {
	t.Parallel()
	table := ims.DefaultOSVersions()
	for _, tt := range osReleases {
		r := parseOSRelease(tt.text)
		if v := numbers.FindString(tt.exact); strings.HasPrefix(v, r.Version+".") {
			r.Version = v
		}
		got, how := chooseVersion(table, r, 0, tt.arch)
		if got != tt.want || how != tt.how {
			t.Errorf("%q with %q on %q is %q (%d), want %q (%d)", tt.text, tt.exact, tt.arch, got, how, tt.want, tt.how)
		}
		if _, ok := table.Lookup(got); !ok {
			t.Errorf("%q is none of the table's", got)
		}
	}
	for text, want := range map[string]string{
		"CentOS release 6.10 (Final)\n":                                          "CentOS 6.10 32bit",
		"Red Hat Enterprise Linux Server release 6.6 (Santiago)\n":               "Redhat Linux Enterprise 6.6 32bit",
		"SUSE Linux Enterprise Server 11 (i586)\nVERSION = 11\nPATCHLEVEL = 3\n": "SUSE Linux Enterprise Server 11 SP3 32bit",
		"Mandriva Linux release 2010.1 (Official) for i586\n":                    "Other_Linux (32_bit)",
	} {
		if got, _ := chooseVersion(table, oldRelease(text), 32, "x86"); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	// Every family has rows in the table, so that a slip in a name shows.
	for id := range families {
		if got, how := chooseVersion(table, osRelease{ID: id, Version: "1"}, 64, "x86"); how == noFamily {
			t.Errorf("%s has no rows in the table (%s)", id, got)
		}
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]device{
		"UUID=ab-cd":                     {naming: byContent, tag: "UUID", value: "ab-cd"},
		`LABEL="my root"`:                {naming: byContent, tag: "LABEL", value: "my root"},
		"partuuid=1-2":                   {naming: byContent, tag: "PARTUUID", value: "1-2"},
		"/dev/disk/by-label/my\\x20root": {naming: byContent, tag: "LABEL", value: "my root"},
		"/dev/disk/by-partlabel/x\\xzz":  {naming: byContent, tag: "PARTLABEL", value: "x\\xzz"},
		"/dev/disk/by-path/pci-0":        {naming: byHardware},
		"ID=scsi-1":                      {naming: byHardware},
		"/dev/sda3":                      {naming: byName, number: 3},
		"/dev/sda":                       {naming: byName},
		"/dev/sdb1":                      {naming: byName, other: true},
		"/dev/nvme1n1p2":                 {naming: byName, number: 2, other: true},
		"/dev/vda1":                      {naming: byName, number: 1, virtio: true},
		"/dev/xvda12":                    {naming: byName, number: 12},
		"/dev/nvme0n1p2":                 {naming: byName, number: 2},
		"/dev/mmcblk0":                   {naming: byName},
		"/dev/mapper/vg-root":            {naming: byMapper},
		"/dev/rhel/root":                 {naming: byMapper},
		"$root":                          {naming: byExpression},
		"UUID=${x}":                      {naming: byExpression},
		"tmpfs":                          {},
		"/swapfile":                      {},
		"host:/export":                   {},
		"":                               {},
	} {
		want.spec = spec
		if got := parseDevice(spec); got != want {
			t.Errorf("%q is %+v, want %+v", spec, got, want)
		}
	}
}

func TestFstab(t *testing.T) {
	t.Parallel()
	got := parseFstab("# comment\n\nUUID=1\t/\text4\trw 0 1\n/dev/sda2 /a\\040b xfs noauto,ro\nshort line\n/x /y none rbind 0 0\nh:/e /n nfs defaults\n UUID=2 none swap sw,nofail 0 0\r\n/dev/sdc1 /bad\\09 ext4\nUUID=3 /c ext4 rw,x-systemd.automount\n")
	var text []string
	for _, m := range got {
		text = append(text, fmt.Sprintf("%d %s %s %s %v", m.naming, m.spec, m.dir, m.kind, m.optional))
	}
	want := []string{
		"1 UUID=1 / ext4 false", "2 /dev/sda2 /a b xfs true", "0 /x /y none false", "0 h:/e /n nfs false", "1 UUID=2 none swap true", `2 /dev/sdc1 /bad\09 ext4 false`, "1 UUID=3 /c ext4 true",
	}
	if !slices.Equal(text, want) {
		t.Errorf("it is\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(want, "\n"))
	}
}

func TestNetplan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want []card
	}{
		{"network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true # yes\n", []card{{name: "eth0", match: "eth0", dhcp: true}}},
		{"network:\n  ethernets:\n    \"ens3\":\n      dhcp4: \"yes\"\n      match: {macaddress: '00:11:22:33:44:55'}\n", []card{{name: "ens3", dhcp: true, mac: true}}},
		{"network:\n  ethernets:\n    ens3:\n      dhcp4: false\n      addresses:\n        - 192.0.2.1/24\n      nameservers:\n        addresses: [192.0.2.9]\n", []card{{name: "ens3", match: "ens3", static: true}}},
		{"network:\n  ethernets:\n    ens3:\n      dhcp4: no\n      addresses: []\n", []card{{name: "ens3", match: "ens3"}}},
		{"network: {ethernets: {eth0: {dhcp4: true}}}\n", nil},
		{"network:\n  ethernets:\n    eth0: {dhcp4: true}\n    eth1: {addresses: [192.0.2.1/24]}\n", []card{{name: "eth0", match: "eth0", dhcp: true}, {name: "eth1", match: "eth1", static: true}}},
		{"network:\n  bonds:\n    bond0:\n      interfaces: [a, b]\n      dhcp4: on\n  renderer: networkd\n", []card{{name: "bond0", dhcp: true}}},
		{"ethernets:\n  eth0:\n    dhcp6: true\n", []card{{name: "eth0", match: "eth0", auto6: true}}},
		{"network:\n  ethernets:\n    ens192:\n      dhcp4: false\n      dhcp6: true\n      addresses: [10.0.0.5/24]\n", []card{{name: "ens192", auto6: true, static: true, match: "ens192"}}},
		{"network:\n  ethernets:\n    ens192: {dhcp6: true}\n    eno1: {match: {driver: virtio_net}, dhcp4: true}\n", []card{{name: "ens192", auto6: true, match: "ens192"}, {name: "eno1", dhcp: true}}},
		{"network:\n  ethernets:\n    all-en:\n      match:\n        name: en*\n      dhcp4: true\n    b: {match: {name: 'eth*'}, dhcp4: true}\n", []card{{name: "all-en", match: "en*", dhcp: true}, {name: "b", match: "eth*", dhcp: true}}},
		{"      dhcp4: true\n", nil},
	} {
		if got := parseNetplan(tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%q is %+v, want %+v", tt.text, got, tt.want)
		}
	}
}

func TestBootEntries(t *testing.T) {
	t.Parallel()
	const grub = "set kernelopts=\"root=UUID=1 ro\"\nmenuentry 'A title' --class x {\n\tlinux\t/vmlinuz-1 $kernelopts quiet\n\tinitrd /ucode.img /initrd-1\n}\nmenuentry \"Other\" {\n  linuxefi ($root)/vmlinuz-2 root=/dev/sda1\n}\nset root='hd0,msdos1'\n"
	got := parseBootConfig("f", grub)
	want := []bootEntry{
		{"f", "A title", "/vmlinuz-1", []string{"/ucode.img", "/initrd-1"}, "root=UUID=1 ro quiet"},
		{"f", "Other", "($root)/vmlinuz-2", nil, "root=/dev/sda1"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("GRUB: %+v, want %+v", got, want)
	}
	got = parseBootConfig("f", "DEFAULT linux\nLABEL linux\n  KERNEL /boot/vmlinuz\n  APPEND initrd=/boot/initrd.img root=LABEL=r\n")
	if len(got) != 1 || got[0].kernel != "/boot/vmlinuz" || fmt.Sprint(got[0].initrd) != "[/boot/initrd.img]" || fmt.Sprint(optionValues(got[0].options, "root")) != "[LABEL=r]" {
		t.Errorf("extlinux: %+v", got)
	}
	if len(parseBootConfig("f", strings.Repeat("linux /k root=/dev/sda1\n", 10_000))) > maxEntries {
		t.Error("the number of entries is not bounded")
	}
}

func TestKernelVersions(t *testing.T) {
	t.Parallel()
	list := []string{"6.1.0-9-amd64", "5.10.0-28", "6.1.0-18-amd64", "6.10.1", "6.1.0-18-amd64-dbg", "6.1.0-018-amd65", "linux"}
	slices.SortFunc(list, compareVersions)
	want := []string{"5.10.0-28", "6.1.0-9-amd64", "6.1.0-18-amd64", "6.1.0-18-amd64-dbg", "6.1.0-018-amd65", "6.10.1", "linux"}
	if !slices.Equal(list, want) {
		t.Errorf("the order is %q, want %q", list, want)
	}
	for name, want := range map[string]string{
		"vmlinuz-6.1": "6.1", "vmlinux-6.4.0-default": "6.4.0-default", "Image-5": "5", "vmlinuz": "", "vmlinuz-0-rescue-1": "", "initrd.img-6.1": "", "vmlinuz-6.1.old": "",
		".vmlinuz-6.1.hmac": "",
	} {
		if got := kernelVersion(name); got != want {
			t.Errorf("%s is of version %q, want %q", name, got, want)
		}
	}
	for file, want := range map[string]string{
		"kernel/drivers/block/virtio_blk.ko": "virtio_blk", "a/virtio-net.ko.zst": "virtio_net", "virtio_pci.ko.xz": "virtio_pci", "virtio_pci_modern_dev.ko": "",
		"virtio_blk.conf": "", "virtio_blk": "", "": "",
	} {
		if got := moduleName(file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
}

// cpioOf makes an archive of one file.
func cpioOf(name string) []byte {
	var b bytes.Buffer
	for _, n := range []string{name, "TRAILER!!!"} {
		fmt.Fprintf(&b, "070701%088x%08x%08x", 0, len(n)+1, 0)
		b.WriteString(n + strings.Repeat("\x00", 1+(4-(110+len(n)+1)%4)%4))
	}
	return b.Bytes()
}

func readInitramfs(t testing.TB, b []byte, budget int64) (*initramfs, error) {
	in := &initramfs{modules: map[string]bool{}, builtin: map[string]bool{}, src: filesystem.NewSource(t.Context(), bytes.NewReader(nil), 0, budget)}
	return in, in.read(bytes.NewReader(b))
}

func TestInitramfs(t *testing.T) {
	t.Parallel()
	one := cpioOf("x")
	for _, tt := range []struct {
		name string
		data string
		want error
	}{
		{"one archive", string(one), nil},
		{"zeros around", "\x00\x00\x00\x00" + string(one) + strings.Repeat("\x00", 500) + string(one) + "\x00", nil},
		{"something behind", string(one) + "#initrd by someone", nil},
		{"an image inside", string(cpioOf("squashfs-root.img")), filesystem.ErrUnsupported},
		{"nothing", "", errAny},
		{"zeros", strings.Repeat("\x00", 1000), errAny},
		{"xz behind microcode", string(one) + "\xfd7zXZ\x00", filesystem.ErrUnsupported},
		{"lzma", "\x5d\x00\x00\x80\x00", filesystem.ErrUnsupported},
		{"a text", "hello", filesystem.ErrUnsupported},
		{"cut off", string(one[:150]), io.ErrUnexpectedEOF},
		{"no numbers", "070701" + strings.Repeat("z", 200), filesystem.ErrCorrupt},
		{"a name of 4 GiB", "070701" + strings.Repeat("0", 88) + "ffffffff" + strings.Repeat("0", 100), filesystem.ErrCorrupt},
		{"a name of no bytes", "070701" + strings.Repeat("0", 200), filesystem.ErrCorrupt},
		{"a file of 4 GiB", "070701" + strings.Repeat("0", 48) + "ffffffff" + strings.Repeat("0", 32) + "00000002" + strings.Repeat("0", 8) + "a\x00", errAny},
		{"gzip of nothing", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00", errAny},
		{"zstd of nothing", "\x28\xb5\x2f\xfd\x00\x00", errAny},
		{"bzip2 of nothing", "BZh9", errAny},
	} {
		_, err := readInitramfs(t, []byte(tt.data), 1<<20)
		if tt.want == nil && err != nil || tt.want == errAny && err == nil || tt.want != nil && tt.want != errAny && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

var errAny = errors.New("any error")

// TestBombs: a few bytes that unpack to many end with the budget.
func TestBombs(t *testing.T) {
	t.Parallel()
	zeros := append(cpioOf("x"), make([]byte, 16<<20)...)
	for _, tool := range []string{"gzip", "zstd", "bzip2", "lz4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("%s is not installed, its bomb is not tried", tool)
			continue
		}
		args := []string{"-c"}
		if tool == "lz4" {
			args = []string{"-l", "-c"}
		}
		cmd := exec.Command(tool, args...)
		cmd.Stdin = bytes.NewReader(zeros)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readInitramfs(t, packed, 64<<20); err != nil {
			t.Errorf("%s: with a large budget: %v", tool, err)
		}
		bomb := append([]byte("070701"+strings.Repeat("0", 48)+"00fffff0"+strings.Repeat("0", 32)+"00000002"+strings.Repeat("0", 8)+"a\x00"), make([]byte, 16<<20)...)
		cmd = exec.Command(tool, args...)
		cmd.Stdin = bytes.NewReader(bomb)
		if packed, err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
		if _, err := readInitramfs(t, packed, 2<<20); !errors.Is(err, filesystem.ErrLimit) {
			t.Errorf("%s: %d bytes that unpack to 16 MiB: %v", tool, len(packed), err)
		}
	}
}

// TestLZ4 unpacks what the lz4 tool (1.9.4, -l -9) made, and pokes at it.
func TestLZ4(t *testing.T) {
	t.Parallel()
	packed, err := base64.StdEncoding.DecodeString("AiFMGCYAAAD/BmEgbGluZSB0aGF0IHJlcGVhdHMsIBUAFR8KPgD/m1BlYXRzCg==")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("a line that repeats, a line that repeats, a line that repeats\n", 8)
	got, err := io.ReadAll(newLZ4(bufio.NewReader(bytes.NewReader(packed))))
	if err != nil || string(got) != want {
		t.Errorf("it unpacks to %q (%v)", got, err)
	}
	for n := range packed {
		for _, bit := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(packed)
			bad[n] ^= bit
			if got, _ := io.ReadAll(newLZ4(bufio.NewReader(bytes.NewReader(bad)))); len(got) > lz4Block {
				t.Errorf("with byte %d changed it unpacks to %d bytes", n, len(got))
			}
		}
	}
	// Long runs: of literals and of matches, with lengths of several bytes.
	block := append([]byte{0xff, 0xff, 5}, bytes.Repeat([]byte("0123456789"), 28)[:15+255+5]...)
	block = append(block, 2, 0, 0xff, 0xff, 7) // two bytes back, 15+255+255+7+4 long
	block = append(block, 0x10, 'Z')
	out := make([]byte, 4096)
	n, ok := unpackLZ4(out, block)
	lit := string(bytes.Repeat([]byte("0123456789"), 28)[:275])
	if full := lit + strings.Repeat(lit[273:], 1000)[:15+255+255+7+4] + "Z"; !ok || string(out[:n]) != full {
		t.Errorf("%v: %d bytes, want %d: …%q", ok, n, len(full), out[max(0, n-20):n])
	}
}

// What a block says of its length takes no memory before its bytes are there. Not
// parallel: it measures.
func TestLZ4TakesMemoryForWhatIsThere(t *testing.T) {
	fstest.Cheap(t, func() {
		for range 16 {
			got, err := io.ReadAll(newLZ4(bufio.NewReader(strings.NewReader("\x02\x21\x4c\x18\x00\x00\x80\x00\x40abcd"))))
			if len(got) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
}
