package diskcheck_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/filesystem/fstest"
	"github.com/quickims/quickims/internal/fuzztest"
)

// tiny is the smallest disk that leads through every check.
func tiny(label string) *system {
	const version = "6.1"
	root := files{
		"bin/sh": elf(2, elfX64), "usr/bin/cloud-init": "", "etc/os-release": "ID=debian\nVERSION_ID=12\n",
		"etc/fstab":                  "UUID=" + rootUUID + " / ext4 defaults 0 1\n/dev/sda5 none swap sw 0 0\n",
		"boot/grub/grub.cfg":         "linux /boot/vmlinuz-" + version + " root=UUID=" + rootUUID + "\ninitrd /boot/initrd.img-" + version + "\n",
		"boot/vmlinuz-" + version:    "",
		"boot/initrd.img-" + version: string(withZstd(cpio("a/virtio_blk.ko", "a/virtio_pci.ko"))),
		"etc/netplan/a.yaml":         "network:\n  ethernets:\n    e:\n      dhcp4: true\n",
		"etc/cloud/cloud.cfg":        "datasource_list: [ OpenStack ]\n",
	}
	s := &system{label: label, code: "\xeb\x63\x90GRUB", parts: []part{
		{kind: "U", name: "esp", size: mib, fs: "vfat", uuid: espUUID, files: files{"EFI/BOOT/BOOTX64.EFI": efi(machineX64)}},
		{kind: "L", name: "root", size: mib / 2, fs: "ext4", uuid: rootUUID, files: root, args: []string{"-b", "1024", "-N", "40", "-O", "^has_journal"}},
	}}
	if label == "dos" {
		s.core = "core"
		s.parts[0].kind, s.parts[1].kind = "ef", "83"
	}
	return s
}

// TestMakeSeeds writes the seeds of FuzzCheck anew when asked to.
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("QUICKIMS_MAKE_SEEDS") == "" {
		t.Skip("QUICKIMS_MAKE_SEEDS is not set: the seeds are made when the readers change")
	}
	if err := os.MkdirAll("testdata/seeds", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"gpt", "dos"} {
		d := tiny(label).build(t)
		name := filepath.Join(t.TempDir(), "disk")
		b := make([]byte, d.size)
		if _, err := d.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/seeds/"+label, fstest.Load(t, name, 0, 0).Pack(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSeeds: the seeds lead the fuzzer through every check, in the memory of another.
func TestSeeds(t *testing.T) {
	t.Parallel()
	d := new(fstest.Disk)
	for _, name := range []string{"gpt", "dos", "gpt"} {
		b, err := os.ReadFile("testdata/seeds/" + name)
		if err != nil {
			t.Fatal(err)
		}
		d.Refill(b)
		if !bytes.Equal(d.Pack(), fstest.Unpack(b).Pack()) {
			t.Errorf("%s is another disk in the memory of the one before", name)
		}
		r, err := diskcheck.Check(t.Context(), d, d.Size, diskcheck.OTC)
		if err != nil || r.OSVersion != "Debian GNU/Linux 12.0.0 64bit" || len(find(r, diskcheck.VirtioBlk)) != 1 || find(r, diskcheck.VirtioBlk)[0].Severity != diskcheck.OK {
			t.Errorf("%s: %v, %q\n%s", name, err, r.OSVersion, show(r))
		}
	}
}

// FuzzCheck: whatever a disk holds, Check ends without an error, and says
// something of it.
func FuzzCheck(f *testing.F) {
	fstest.Seeds(f)
	d := new(fstest.Disk)
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		d.Refill(b)
		r, err := diskcheck.Check(t.Context(), d, d.Size, diskcheck.OTC)
		if err != nil {
			t.Fatalf("an error of the disk, which has none: %v", err)
		}
		if len(r.Findings) == 0 || r.Size != d.Size {
			t.Errorf("it says nothing: %+v", r)
		}
		for _, x := range r.Findings {
			if x.Found == "" || x.Why == "" || len(x.Found) > 20_000 {
				t.Errorf("%+v", x)
			}
		}
	})
}
