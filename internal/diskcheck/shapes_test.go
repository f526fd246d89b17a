package diskcheck_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/filesystem/fstest"
)

const elKernel = "5.14.0-427.13.1.el9_4.x86_64"

// rocky is a disk shaped like Rocky Linux's: MBR, a separate /boot, XFS, dracut,
// entries of the Boot Loader Specification, a keyfile of NetworkManager.
func rocky() *system {
	modules := cpio("usr/lib/modules/"+elKernel+"/kernel/drivers/block/virtio_blk.ko.xz", "usr/lib/modules/"+elKernel+"/kernel/drivers/scsi/virtio_scsi.ko.xz")
	return &system{
		label: "dos", code: "\xeb\x63\x90 boot.img of GRUB", core: "core.img of GRUB",
		parts: []part{
			{kind: "83", name: "boot", active: true, size: 24 * mib, fs: "xfs", uuid: bootUUID, files: files{
				"vmlinuz-" + elKernel:                       "kernel",
				"initramfs-" + elKernel + ".img":            string(append(microcode(), withGzip(modules)...)),
				"vmlinuz-0-rescue-0123456789abcdef":         "kernel",
				"initramfs-0-rescue-0123456789abcdef.img":   "rescue",
				"config-" + elKernel:                        "CONFIG_A=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=m\n",
				"grub2/grub.cfg":                            "set default_kernelopts=\"root=UUID=" + rootUUID + " ro \"\ninsmod blscfg\nblscfg\n",
				"grub2/grubenv":                             "# GRUB Environment Block\nsaved_entry=0\nkernelopts=root=UUID=" + rootUUID + " ro\n###\n",
				"loader/entries/0123-0-rescue.conf":         "title Rocky Linux (0-rescue)\nlinux /vmlinuz-0-rescue-0123456789abcdef\ninitrd /initramfs-0-rescue-0123456789abcdef.img\noptions $kernelopts\n",
				"loader/entries/0123-" + elKernel + ".conf": "title Rocky Linux (" + elKernel + ") 9.4 (Blue Onyx)\nversion " + elKernel + "\nlinux /vmlinuz-" + elKernel + "\ninitrd /initramfs-" + elKernel + ".img $tuned_initrd\noptions $kernelopts $tuned_params\n",
			}},
			{kind: "82", name: "swap", size: mib, raw: swap("0a1b2c3d-0000-4000-8000-000000000003")},
			{kind: "83", name: "root", size: 32 * mib, fs: "xfs", uuid: rootUUID, files: files{
				"bin": "-> usr/bin", "lib": "-> usr/lib", "boot/": "",
				"usr/bin/bash": elf(2, elfX64), "usr/bin/sh": "-> bash", "usr/bin/cloud-init": "x",
				"usr/bin/growpart": "", "usr/sbin/sshd": "", "usr/sbin/NetworkManager": "", "usr/sbin/xfs_growfs": "", "sbin": "-> usr/sbin",
				"etc/os-release":     "-> ../usr/lib/os-release",
				"usr/lib/os-release": "NAME=\"Rocky Linux\"\nVERSION=\"9.4 (Blue Onyx)\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky Linux 9.4 (Blue Onyx)\"\n",
				"etc/fstab":          "UUID=" + rootUUID + " / xfs defaults 0 0\nUUID=" + bootUUID + " /boot xfs defaults 0 0\nUUID=0a1b2c3d-0000-4000-8000-000000000003 none swap defaults 0 0\n",
				"usr/lib/modules/" + elKernel + "/modules.dep":            "kernel/drivers/block/virtio_blk.ko.xz:\nkernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz\nkernel/drivers/scsi/virtio_scsi.ko.xz:\n",
				"usr/lib/modules/" + elKernel + "/modules.builtin":        "kernel/drivers/virtio/virtio_pci.ko\n",
				"etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\ntype=ethernet\n\n[ipv4]\nmethod=auto\n",
				"etc/machine-id": "uninitialized\n",
			}},
		},
	}
}

// unhex is a UUID as it lies on disk.
func unhex(uuid string) []byte {
	raw, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil {
		panic(err)
	}
	return raw
}

// swap is the head of swap space.
func swap(uuid string) []byte {
	b := make([]byte, 4096)
	copy(b[1036:], unhex(uuid))
	copy(b[4086:], "SWAPSPACE2")
	return b
}

func TestRocky(t *testing.T) {
	t.Parallel()
	r := check(t, rocky())
	if worst(r) != diskcheck.OK {
		t.Errorf("it is not ready:\n%s", show(r))
	}
	if r.OSVersion != "Rocky Linux 9.4 64bit" || r.Firmware != "bios" || r.Architecture != "x86" || r.Table != "mbr" {
		t.Errorf("the request would be %q %q %q on %s", r.OSVersion, r.Architecture, r.Firmware, r.Table)
	}
	if r.Partitions[0].Mount != "/boot" || r.Partitions[0].UUID != "0badcafe-01" || !r.Partitions[0].Active || r.Partitions[2].Mount != "/" {
		t.Errorf("the partitions are %+v", r.Partitions)
	}
	if f := find(r, diskcheck.VirtioPCI); len(f) != 1 || !strings.Contains(f[0].Found, "has it built in") {
		t.Errorf("virtio_pci: %+v", f)
	}
	if f := find(r, diskcheck.VirtioNet); len(f) != 1 || !strings.Contains(f[0].Found, "has it as a module") {
		t.Errorf("virtio_net: %+v", f)
	}
}

// TestCardsThatStayOff: NetworkManager sets no card up that has a setting which says not to.
func TestCardsThatStayOff(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]files{
		"keyfile": {"etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\ntype=ethernet\nautoconnect=false\n\n[ipv4]\nmethod=auto\n"},
		"ifcfg":   {"etc/sysconfig/network-scripts/ifcfg-eth0": "TYPE=Ethernet\nBOOTPROTO=dhcp\nDEVICE=eth0\nONBOOT=no\n"},
	} {
		s := rocky()
		root := s.part("root").files
		delete(root, "etc/NetworkManager/system-connections/eth0.nmconnection")
		root["etc/cloud/cloud-init.disabled"] = ""
		if f := find(check(t, s), diskcheck.Network); len(f) != 1 || f[0].Severity != diskcheck.OK {
			t.Errorf("without a setting: %+v", f)
		}
		maps.Copy(root, off)
		if f := find(check(t, s), diskcheck.Network); len(f) != 1 || f[0].Severity != diskcheck.Error || !strings.Contains(f[0].Found, "eth0") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// hidden are systems whose root can't be read: the layer is named, what can be
// read is checked, and nothing is guessed.
func TestHiddenRoot(t *testing.T) {
	t.Parallel()
	btrfs := make([]byte, 70<<10)
	copy(btrfs[0x10020:], unhex(rootUUID))
	copy(btrfs[0x10040:], "_BHRfS_M")
	lvm := make([]byte, 4096)
	copy(lvm[512:], "LABELONE")
	copy(lvm[536:], "LVM2 001")
	raid := make([]byte, 8192)
	copy(raid[4096:], "\xfc\x4e\x2b\xa9\x01\x00\x00\x00")
	for _, tt := range []struct {
		name  string
		raw   []byte
		found string
	}{
		{"LVM", lvm, "a physical volume of LVM"}, {"LUKS", []byte("LUKS\xba\xbe\x00\x02"), "LUKS"}, {"btrfs", btrfs, "btrfs"}, {"RAID", raid, "software RAID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := rocky()
			p := s.part("root")
			p.fs, p.raw = "", tt.raw
			r := check(t, s)
			if f := find(r, diskcheck.RootFilesystem); len(f) != 1 || f[0].Severity != diskcheck.Unknown || !strings.Contains(f[0].Found, tt.found) {
				t.Errorf("the root: %+v", f)
			}
			if f := find(r, diskcheck.Storage); len(f) != 1 || f[0].Severity != diskcheck.Unknown || !strings.Contains(f[0].Found, tt.found) {
				t.Errorf("the storage: %+v", f)
			}
			// /boot is read all the same.
			for id, want := range map[diskcheck.ID]diskcheck.Severity{
				diskcheck.BootMode: diskcheck.OK, diskcheck.Kernel: diskcheck.OK, diskcheck.Initramfs: diskcheck.OK, diskcheck.VirtioPCI: diskcheck.OK,
				diskcheck.VirtioBlk: diskcheck.OK, diskcheck.VirtioNet: diskcheck.Unknown, diskcheck.Fstab: diskcheck.Unknown,
				diskcheck.CloudInit: diskcheck.Unknown, diskcheck.Network: diskcheck.Unknown, diskcheck.OSVersion: diskcheck.Unknown,
			} {
				if f := find(r, id); len(f) != 1 || f[0].Severity != want {
					t.Errorf("%s: %+v, want %s", id, f, want)
				}
			}
			if r.Firmware != "bios" || r.Architecture != "x86" || r.OSVersion != "" || r.Verdict() != diskcheck.Undecided {
				t.Errorf("the request would be %q %q %q, %s\n%s", r.OSVersion, r.Architecture, r.Firmware, r.Verdict(), show(r))
			}
		})
	}
}

// TestWindows: NTFS is not read, and nothing is said of Linux's matters.
func TestWindows(t *testing.T) {
	t.Parallel()
	ntfs := make([]byte, 512)
	copy(ntfs, "\xeb\x52\x90NTFS    ")
	ntfs[100], ntfs[510], ntfs[511] = 1, 0x55, 0xaa
	uefi := &system{label: "gpt", parts: []part{
		{kind: "U", name: "esp", size: 4 * mib, fs: "vfat", uuid: espUUID, files: files{
			"EFI/Microsoft/Boot/bootmgfw.efi": efi(machineX64), "EFI/Boot/bootx64.efi": efi(machineX64),
		}},
		{kind: "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", name: "reserved", size: mib, raw: []byte{0}},
		{kind: "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", name: "windows", size: 4 * mib, raw: ntfs},
	}}
	bios := &system{label: "dos", code: "\x33\xc0 Microsoft's boot code", parts: []part{{kind: "7", name: "windows", active: true, size: 4 * mib, raw: ntfs}}}
	for want, s := range map[string]*system{"uefi": uefi, "bios": bios} {
		r := check(t, s)
		if r.OSType != "Windows" || r.Firmware != want || r.Architecture != "x86" || r.OSVersion != "" || r.Verdict() != diskcheck.Undecided {
			t.Errorf("%s: %q %q %q %q\n%s", want, r.OSType, r.Architecture, r.Firmware, r.OSVersion, show(r))
		}
		for _, f := range r.Findings {
			if f.ID == diskcheck.Fstab || f.ID == diskcheck.Network || f.ID == diskcheck.SSHHostKeys || f.ID == diskcheck.BootConfig || f.ID == diskcheck.CloudInit {
				t.Errorf("%s says of a Windows disk: %s", f.ID, f.Found)
			}
		}
		if f := find(r, diskcheck.RootFilesystem); len(f) != 1 || f[0].Severity != diskcheck.Unknown || !strings.Contains(f[0].Found, "NTFS is not read") {
			t.Errorf("the root: %+v", f)
		}
	}
}

// TestARM: arm64 with UEFI alone, the kernel and its entry in the EFI system
// partition, drivers built in, networkd.
func TestARM(t *testing.T) {
	t.Parallel()
	s := &system{label: "gpt", parts: []part{
		{kind: "U", name: "esp", size: 8 * mib, fs: "vfat", uuid: espUUID, files: files{
			"EFI/BOOT/BOOTAA64.EFI": efi(machineAA64), "EFI/systemd/systemd-bootaa64.efi": efi(machineAA64),
			"loader/entries/a.conf":     "title openEuler\nlinux /0123/5.10.0/linux\ninitrd /0123/5.10.0/initrd\noptions root=LABEL=oe-root quiet\n",
			"0123/5.10.0/linux":         "kernel",
			"0123/5.10.0/initrd":        string(withZstd(cpio("init"))),
			"EFI/Linux/not-a-kernel.md": "",
		}},
		{kind: "L", name: "root", size: 16 * mib, fs: "ext4", uuid: rootUUID, args: []string{"-L", "oe-root"}, files: files{
			"usr/bin/sh": elf(2, elfAA64), "bin": "-> usr/bin", "lib": "-> usr/lib", "efi/": "", "usr/bin/cloud-init": "x",
			"usr/bin/growpart": "", "usr/sbin/sshd": "", "sbin": "-> usr/sbin", "usr/sbin/resize2fs": "", "usr/lib/systemd/network/99-default.link": "",
			"etc/os-release":                         "NAME=\"openEuler\"\nVERSION=\"22.03 (LTS-SP3)\"\nID=\"openEuler\"\nVERSION_ID=\"22.03\"\nPRETTY_NAME=\"openEuler 22.03 (LTS-SP3)\"\n",
			"etc/fstab":                              "LABEL=oe-root / ext4 defaults 0 1\nPARTLABEL=esp /efi vfat umask=0077 0 2\n",
			"etc/systemd/network/20-dhcp.network":    "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
			"usr/lib/modules/5.10.0/modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\nkernel/drivers/net/virtio_net.ko\nkernel/drivers/scsi/virtio_scsi.ko\n",
			"usr/lib/modules/5.10.0/modules.dep":     "",
		}},
	}}
	r := check(t, s)
	if worst(r) != diskcheck.OK || r.OSVersion != "openEuler 22.03 64bit" || r.Firmware != "uefi" || r.Architecture != "arm" {
		t.Errorf("%q %q %q:\n%s", r.OSVersion, r.Architecture, r.Firmware, show(r))
	}
	if p := r.Partitions[0]; p.Mount != "/efi" {
		t.Errorf("the ESP is mounted at %q", p.Mount)
	}
	// The same without a boot loader for UEFI can't start anywhere.
	s.esp().drop(t, "EFI/")
	if f := find(check(t, s), diskcheck.BootMode); len(f) != 1 || f[0].Severity != diskcheck.Error {
		t.Errorf("without a boot loader: %+v", f)
	}
}

// TestOldCentOS: before os-release, GRUB 2 and dracut's names; a logical
// partition, a swap by label, device names in menu.lst.
func TestOldCentOS(t *testing.T) {
	t.Parallel()
	const version = "2.6.32-754.el6.i686"
	s := &system{label: "dos", code: "\xeb\x48\x90 GRUB", core: "stage1_5", parts: []part{
		{kind: "83", name: "root", size: 16 * mib, fs: "ext3", uuid: rootUUID, files: files{
			"bin/bash": elf(1, 3), "bin/sh": "-> bash", "etc/redhat-release": "CentOS release 6.10 (Final)\n", "etc/centos-release": "CentOS release 6.10 (Final)\n",
			"etc/fstab":               "LABEL=/ / ext3 defaults 1 1\n/dev/sda5 /var ext3 defaults 1 2\nLABEL=SWAP-sda2 swap swap defaults 0 0\n",
			"boot/grub/menu.lst":      "default=0\n#title old\ntitle CentOS (" + version + ")\n\troot (hd0,0)\n\tkernel /boot/vmlinuz-" + version + " ro root=LABEL=/\n\tinitrd /boot/initramfs-" + version + ".img\n",
			"boot/vmlinuz-" + version: "k", "boot/initramfs-" + version + ".img": string(withGzip(cpio("lib/modules/x/kernel/virtio_blk.ko", "virtio_pci.ko"))),
			"lib/modules/" + version + "/kernel/drivers/net/virtio_net.ko": "x", "lib/modules/" + version + "/kernel/drivers/block/virtio_blk.ko": "x", "var/": "",
			"etc/sysconfig/network-scripts/ifcfg-lo":   "DEVICE=lo\nIPADDR=127.0.0.1\n",
			"etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\nBOOTPROTO=static\nHWADDR=00:50:56:00:00:01\nIPADDR=192.0.2.7\nONBOOT=yes\n",
			"etc/ssh/ssh_host_rsa_key":                 "k", "usr/sbin/sshd": "",
		}, args: []string{"-L", "/"}},
		{kind: "5", name: "extended", size: 12 * mib},
	}}
	d := s.build(t)
	// A logical partition in the extended one: its link in the chain, and what
	// lies in it.
	ext := d.size - mib - 12*mib
	link := make([]byte, 512)
	link[446+4], link[446+9], link[446+13], link[510], link[511] = 0x83, 0x08, 0x40, 0x55, 0xaa // 2048 sectors in, 16384 long
	d.add(ext, link)
	p := part{fs: "ext3", size: 8 * mib, uuid: bootUUID, files: files{"log/x": "y"}}
	d.pieces = append(d.pieces, p.content(t, ext+mib))
	r, err := diskcheck.Check(t.Context(), d, d.size, diskcheck.OTC)
	if err != nil {
		t.Fatal(err)
	}
	if r.OSVersion != "CentOS 6.10 32bit" || r.Firmware != "bios" || r.Architecture != "x86" {
		t.Errorf("%q %q %q\n%s", r.OSVersion, r.Architecture, r.Firmware, show(r))
	}
	if len(r.Partitions) != 3 || r.Partitions[2].Number != 5 || r.Partitions[2].Mount != "/var" || r.Partitions[2].Start != ext+mib {
		t.Errorf("the partitions are %+v", r.Partitions)
	}
	for id, found := range map[diskcheck.ID]string{
		diskcheck.Fstab: "/dev/sda5 for /var goes by device name", diskcheck.Swap: "LABEL=SWAP-sda2 for swap is not on this disk",
		diskcheck.Network: "ifcfg-eth0 (eth0)", diskcheck.NetworkNames: "ifcfg-eth0", diskcheck.CloudInit: "not installed", diskcheck.SSHHostKeys: "ssh_host_rsa_key",
		diskcheck.VirtioSCSI: "does not have it", diskcheck.VirtioBlk: "in its initramfs", diskcheck.BootConfig: "by UUID or label",
	} {
		if f := find(r, id); len(f) != 1 || !strings.Contains(f[0].Found, found) {
			t.Errorf("%s: %+v, want %q", id, f, found)
		}
	}
}

// TestNotADisk: what people hand in by mistake.
func TestNotADisk(t *testing.T) {
	t.Parallel()
	s := debian()
	s.label, s.parts = "", []part{*s.part("root")}
	r := check(t, s)
	if f := find(r, diskcheck.PartitionTable); len(f) != 1 || f[0].Severity != diskcheck.Warning || !strings.Contains(f[0].Fix, "/dev/vda1") {
		t.Errorf("an image of a partition: %+v", f)
	}
	if f := find(r, diskcheck.BootMode); len(f) != 1 || f[0].Severity != diskcheck.Error {
		t.Errorf("an image of a partition: %+v", f)
	}
	if r.OSVersion == "" {
		t.Error("the system in a disk without partitions is not seen")
	}
	for _, size := range []int64{0, 1, 511, 512, 4096, mib} {
		r, err := diskcheck.Check(t.Context(), &layered{size: size}, size, diskcheck.OTC)
		if err != nil || r.Verdict() != diskcheck.NotReady || r.Table != "none" {
			t.Errorf("%d zeros: %v, %+v", size, err, r)
		}
	}
}

// TestDamagedTable: the partition table is cut off, its backup too, or damaged.
func TestDamagedTable(t *testing.T) {
	t.Parallel()
	d := debian().build(t)
	short := &layered{size: d.size - 3*mib, pieces: d.pieces[:len(d.pieces)-1]}
	for _, tt := range []struct {
		name  string
		disk  *layered
		want  diskcheck.Severity
		found string
	}{
		{"cut off", short, diskcheck.Error, "partition 3 ends at byte"},
		{"backup is gone", with(d, d.size-512, make([]byte, 512)), diskcheck.Warning, "its backup at sector"},
		{"damaged, with backup", with(d, 512+16, []byte{1, 2, 3, 4}), diskcheck.Error, "its backup at the end of the disk is sound"},
		{"damaged, without backup", with(with(d, 512+16, []byte{1, 2, 3, 4}), d.size-512, make([]byte, 512)), diskcheck.Error, "there is no backup"},
	} {
		r, err := diskcheck.Check(t.Context(), tt.disk, tt.disk.size, diskcheck.OTC)
		if err != nil {
			t.Fatal(err)
		}
		ok := false
		for _, f := range find(r, diskcheck.PartitionTable) {
			ok = ok || f.Severity == tt.want && strings.Contains(f.Found, tt.found)
		}
		if !ok {
			t.Errorf("%s: there is no finding %s with %q:\n%s", tt.name, tt.want, tt.found, show(r))
		}
	}
}

func TestPartitionsAreCounted(t *testing.T) {
	t.Parallel()
	entry := []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0} // 1 MiB at 1 MiB
	second := bytes.Clone(entry)
	second[0], second[9] = 0, 16
	one := with(with(&layered{size: 4 * mib}, 446, entry), 510, []byte{0x55, 0xaa})
	for want, disk := range map[string]*layered{"MBR with 1 partition": one, "MBR with 2 partitions": with(one, 446+16, second)} {
		r, err := diskcheck.Check(t.Context(), disk, disk.size, diskcheck.OTC)
		if f := find(r, diskcheck.PartitionTable); err != nil || len(f) != 1 || f[0].Found != want {
			t.Errorf("%+v, %v; right is %q", f, err, want)
		}
	}
}

// cut fails every read of a part of the disk.
type cut struct {
	*layered
	from, to int64
}

var errSector = errors.New("bad sector")

func (c *cut) ReadAt(p []byte, off int64) (int, error) {
	if off < c.to && off+int64(len(p)) > c.from {
		return 0, errSector
	}
	return c.layered.ReadAt(p, off)
}

// TestDiskErrors: what the disk or the context says comes through, with what was
// found before; it is never taken for a property of the system.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	d := debian().build(t)
	r, err := diskcheck.Check(t.Context(), &cut{d, 6*mib + 100<<10, d.size}, d.size, diskcheck.OTC)
	if !errors.Is(err, errSector) {
		t.Errorf("a bad sector in the root file system gives %v", err)
	}
	if r.Table != "gpt" || len(r.Partitions) != 3 {
		t.Errorf("what was found before is %+v", r)
	}
	if _, err := diskcheck.Check(t.Context(), &cut{d, 0, 512}, d.size, diskcheck.OTC); !errors.Is(err, errSector) {
		t.Errorf("a bad first sector gives %v", err)
	}
	if _, err := diskcheck.Check(t.Context(), &layered{size: 7 * mib, pieces: d.pieces}, d.size, diskcheck.OTC); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that ends before its size gives %v", err)
	}
	if _, err := diskcheck.Check(t.Context(), d, -1, diskcheck.OTC); err == nil {
		t.Error("a negative size is accepted")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("mine")
	cancel(mine)
	if _, err := diskcheck.Check(ctx, d, d.size, diskcheck.OTC); !errors.Is(err, mine) {
		t.Errorf("a cancelled context gives %v", err)
	}
}

// TestManyPartitions: a table with more partitions than are looked into, all of
// them the same file system.
func TestManyPartitions(t *testing.T) {
	t.Parallel()
	s := &system{label: "gpt", parts: []part{{kind: "L", name: "root", size: 16 * mib, fs: "ext4", uuid: rootUUID, files: debianFiles()}}}
	d := s.build(t)
	var script strings.Builder
	script.WriteString("label: gpt\n")
	for range 100 {
		script.WriteString("size=2048, type=L\n")
	}
	table := fstest.Blank(t, 128*mib)
	fstest.Run(t, script.String(), "sfdisk", "-q", table)
	b, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	many := &layered{size: 128 * mib, pieces: []piece{{0, 128 * mib, bytes.NewReader(b)}}}
	for i := range int64(100) {
		many.pieces = append(many.pieces, piece{(1 + i) * mib, mib, io.NewSectionReader(d, mib, mib)})
	}
	r, err := diskcheck.Check(t.Context(), many, many.size, diskcheck.OTC)
	if err != nil || len(r.Partitions) != 100 {
		t.Fatalf("%d partitions (%v)", len(r.Partitions), err)
	}
	if n := len(find(r, diskcheck.Storage)); n == 0 || n > 70 {
		t.Errorf("there are %d findings on storage", n)
	}
}

func with(d *layered, at int64, b []byte) *layered {
	c := &layered{size: d.size, pieces: d.pieces[:len(d.pieces):len(d.pieces)]}
	c.add(at, b)
	return c
}
