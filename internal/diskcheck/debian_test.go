package diskcheck_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskcheck"
)

const debianKernel = "6.1.0-18-cloud-amd64"

// debian is a disk shaped like Debian's cloud images: GPT, both boot modes, one
// ext4, everything in order.
func debian() *system {
	return &system{
		label: "gpt", code: "\xeb\x63\x90 boot.img of GRUB",
		parts: []part{
			{kind: "21686148-6449-6E6F-744E-656564454649", name: "bios", size: mib, raw: []byte("core.img of GRUB")},
			{kind: "U", name: "esp", size: 4 * mib, fs: "vfat", uuid: espUUID, files: files{
				"EFI/BOOT/BOOTX64.EFI": efi(machineX64), "EFI/BOOT/fbx64.efi": efi(machineX64),
				"EFI/debian/shimx64.efi": efi(machineX64), "EFI/debian/grubx64.efi": efi(machineX64),
				"EFI/debian/grub.cfg": "search.fs_uuid " + rootUUID + " root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n",
			}},
			{kind: "L", name: "root", size: 16 * mib, fs: "ext4", uuid: rootUUID, files: debianFiles()},
		},
	}
}

func debianFiles() files {
	return files{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "lib": "-> usr/lib", "boot/efi/": "", "proc/": "", "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin no\n",
		"usr/sbin/sshd": "", "usr/sbin/netplan": "", "usr/bin/growpart": "", "usr/sbin/resize2fs": "", "usr/lib/systemd/network/99-default.link": "",
		"usr/lib/systemd/systemd-networkd": "", "usr/lib/systemd/system/systemd-networkd.service": "[Install]\n", "usr/lib/systemd/system/ssh.service": "[Install]\n",
		"usr/lib/systemd/system/cloud-init.target": "[Unit]\n", "usr/lib/systemd/system/cloud-init-local.service": "[Install]\n", "usr/lib/systemd/system/cloud-init.service": "[Install]\n",
		"etc/systemd/system/multi-user.target.wants/ssh.service":              "-> /lib/systemd/system/ssh.service",
		"etc/systemd/system/cloud-init.target.wants/cloud-init-local.service": "-> /lib/systemd/system/cloud-init-local.service",
		"etc/systemd/system/cloud-init.target.wants/cloud-init.service":       "-> /lib/systemd/system/cloud-init.service",
		"etc/shadow":                     "root:*:19000:0:99999:7:::\n",
		"usr/lib/cloud-init/ds-identify": "",
		"usr/bin/dash":                   elf(2, elfX64), "usr/bin/sh": "-> dash", "usr/bin/cloud-init": "#!/usr/bin/python3\n", "usr/sbin/init": "-> ../lib/systemd/systemd",
		"etc/os-release":     "-> ../usr/lib/os-release",
		"usr/lib/os-release": "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nID=debian\n",
		"etc/debian_version": "12.5\n",
		"etc/fstab":          "# /etc/fstab\nUUID=" + rootUUID + " / ext4 rw,discard,errors=remount-ro 0 1\nUUID=" + espUUID + " /boot/efi vfat defaults 0 0\ntmpfs /tmp tmpfs defaults 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n",
		"etc/default/grub":   "GRUB_DEFAULT=0\n#GRUB_DISABLE_LINUX_UUID=true\nGRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
		"boot/grub/grub.cfg": "set default=\"0\"\nmenuentry 'Debian GNU/Linux' --class debian {\n\tsearch --no-floppy --fs-uuid --set=root " + rootUUID +
			"\n\tlinux\t/boot/vmlinuz-" + debianKernel + " root=UUID=" + rootUUID + " ro console=ttyS0\n\tinitrd\t/boot/initrd.img-" + debianKernel + "\n}\n",
		"boot/vmlinuz-" + debianKernel:                         "kernel",
		"boot/config-" + debianKernel:                          "# Linux\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_PCI=m\nCONFIG_SCSI_VIRTIO=m\n",
		"boot/initrd.img-" + debianKernel:                      string(append(microcode(), withZstd(initrd(debianKernel, ""))...)),
		"usr/lib/modules/" + debianKernel + "/modules.dep":     modulesDep(""),
		"usr/lib/modules/" + debianKernel + "/modules.order":   "",
		"usr/lib/modules/" + debianKernel + "/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
		"etc/cloud/cloud.cfg":                                  "disable_root: true\nssh_deletekeys: true\n",
		"etc/cloud/cloud.cfg.d/90_dpkg.cfg":                    "# to update this file, run dpkg-reconfigure cloud-init\ndatasource_list: [ NoCloud, ConfigDrive, OpenStack, DataSourceEc2, None ]\n",
		"etc/netplan/90-default.yaml":                          "network:\n    version: 2\n    ethernets:\n        all-en:\n            match:\n                name: en*\n            dhcp4: true\n            dhcp6: true\n        all-eth:\n            match:\n                name: eth*\n            dhcp4: true\n",
		"etc/machine-id":                                       "",
		"etc/passwd":                                           "root:x:0:0::/root:/bin/bash\n",
		"etc/udev/rules.d/75-cloud-ifupdown.rules":             "SUBSYSTEM==\"net\", ACTION==\"add\"\n",
	}
}

// TestDebian: a disk that is ready has nothing but good findings, and says what to
// write into the request.
func TestDebian(t *testing.T) {
	t.Parallel()
	r := check(t, debian())
	if worst(r) != diskcheck.OK || r.Verdict() != diskcheck.Ready {
		t.Errorf("it is not ready:\n%s", show(r))
	}
	if r.OSType != "Linux" || r.OSVersion != "Debian GNU/Linux 12.0.0 64bit" || r.Architecture != "x86" || r.Firmware != "bios" || r.Table != "gpt" || r.OSName != "Debian GNU/Linux 12 (bookworm)" {
		t.Errorf("the request would be %q %q %q %q on %s, for %q", r.OSType, r.OSVersion, r.Architecture, r.Firmware, r.Table, r.OSName)
	}
	for _, id := range diskcheck.IDs() {
		if n := len(find(r, id)); n == 0 && id != diskcheck.Swap || n > 1 {
			t.Errorf("%s has %d findings", id, n)
		}
	}
	for _, f := range r.Findings {
		if f.Found == "" || f.Why == "" || (f.Fix != "") != (f.Severity != diskcheck.OK) {
			t.Errorf("the finding says too little or too much: %+v", f)
		}
	}
	want := []diskcheck.Partition{
		{Number: 1, Start: mib, Size: mib, Type: "21686148-6449-6e6f-744e-656564454649", Name: "bios", UUID: "00000000-0000-4000-8000-000000000001"},
		{Number: 2, Start: 2 * mib, Size: 4 * mib, Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", Name: "esp", UUID: "00000000-0000-4000-8000-000000000002", Content: "vfat", FSUUID: espUUID, Mount: "/boot/efi"},
		{Number: 3, Start: 6 * mib, Size: 16 * mib, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", Name: "root", UUID: "00000000-0000-4000-8000-000000000003", Content: "ext4", FSUUID: rootUUID, Mount: "/"},
	}
	if len(r.Partitions) != len(want) {
		t.Fatalf("the partitions are %+v", r.Partitions)
	}
	for i, p := range want {
		if r.Partitions[i] != p {
			t.Errorf("partition %d is %+v,\nwant %+v", i+1, r.Partitions[i], p)
		}
	}
}

func find(r diskcheck.Report, id diskcheck.ID) (list []diskcheck.Finding) {
	for _, f := range r.Findings {
		if f.ID == id {
			list = append(list, f)
		}
	}
	return list
}

// defects are what can be wrong with Debian's disk, one at a time, and the
// finding that must come of it. All other findings must stay good, but for those
// in also.
var defects = []struct {
	name   string
	change func(t *testing.T, s *system)
	id     diskcheck.ID
	want   diskcheck.Severity
	found  string // words of the finding
	also   []diskcheck.ID
}{
	{"no boot loader at all", func(t *testing.T, s *system) {
		s.code = ""
		s.esp().drop(t, "EFI/")
		s.esp()["empty"] = ""
	}, diskcheck.BootMode, diskcheck.Error, "no boot loader", []diskcheck.ID{diskcheck.EFIBootFile}},
	{"an ESP without the standard name, UEFI alone", func(t *testing.T, s *system) {
		s.code = ""
		s.esp().drop(t, "EFI/BOOT")
	}, diskcheck.EFIBootFile, diskcheck.Error, "EFI/debian/grubx64.efi", nil},
	{"an ESP without the standard name, BIOS too", func(t *testing.T, s *system) { s.esp().drop(t, "EFI/BOOT") },
		diskcheck.EFIBootFile, diskcheck.Warning, "EFI/debian/shimx64.efi", nil},
	{"an ESP without a boot loader, BIOS too", func(t *testing.T, s *system) {
		s.esp().drop(t, "EFI/")
		s.esp()["empty"] = ""
	}, diskcheck.EFIBootFile, diskcheck.Warning, "BIOS alone", nil},
	{"the boot loader of another processor", func(_ *testing.T, s *system) {
		s.esp()["EFI/BOOT/BOOTX64.EFI"] = efi(machineAA64)
		s.esp()["EFI/debian/shimx64.efi"], s.esp()["EFI/debian/grubx64.efi"] = efi(machineAA64), efi(machineAA64)
	}, diskcheck.Architecture, diskcheck.Error, "boot loader is for arm", nil},
	{"a processor that no machine has", func(_ *testing.T, s *system) { s.root()["usr/bin/dash"] = elf(2, 243) },
		diskcheck.Architecture, diskcheck.Error, "/bin/sh is for RISC-V", nil},
	{"no system", func(_ *testing.T, s *system) { s.part("root").files = files{"data/file": "x"} },
		diskcheck.RootFilesystem, diskcheck.Error, "no file system of the disk holds a system", []diskcheck.ID{
			diskcheck.OSVersion, diskcheck.Fstab, diskcheck.BootConfig, diskcheck.Kernel, diskcheck.CloudInit, diskcheck.Network, diskcheck.SSHServer, diskcheck.Access, diskcheck.MachineID,
		}},
	{"not unmounted", func(_ *testing.T, s *system) { s.part("root").poke = func(b []byte) { b[1024+0x60] |= 4 } },
		diskcheck.Clean, diskcheck.Warning, "was not unmounted", nil},
	{"an unknown distribution", func(_ *testing.T, s *system) {
		s.root()["usr/lib/os-release"] = "ID=slackware\nVERSION_ID=15.0\nPRETTY_NAME=\"Slackware 15.0\"\n"
	},
		diskcheck.OSVersion, diskcheck.Warning, "\"Other_Linux (64_bit)\"", nil},
	{"no os-release", func(t *testing.T, s *system) { s.root().drop(t, "usr/lib/os-release") },
		diskcheck.OSVersion, diskcheck.Warning, "Other_Linux", nil},
	{"root by device name", func(t *testing.T, s *system) { s.root().replace(t, "etc/fstab", "UUID="+rootUUID, "/dev/sda3") },
		diskcheck.Fstab, diskcheck.Error, "/dev/sda3 for / goes by device name", nil},
	{"root by a name of virtio", func(t *testing.T, s *system) { s.root().replace(t, "etc/fstab", "UUID="+rootUUID, "/dev/vda3") },
		diskcheck.Fstab, diskcheck.Warning, "/dev/vda3 for / goes by device name", nil},
	{"root by hardware", func(t *testing.T, s *system) {
		s.root().replace(t, "etc/fstab", "UUID="+rootUUID, "/dev/disk/by-id/scsi-36000c29-part3")
	},
		diskcheck.Fstab, diskcheck.Error, "goes by the hardware", nil},
	{"another disk's UUID", func(_ *testing.T, s *system) {
		s.root()["etc/fstab"] += "UUID=99999999-0000-4000-8000-000000000009 /data ext4 defaults 0 2\n"
	},
		diskcheck.Fstab, diskcheck.Error, "/data is not on this disk", nil},
	{"another disk by name", func(_ *testing.T, s *system) {
		s.root()["etc/fstab"] += "/dev/nvme1n1p1 /srv/my\\040data xfs defaults 0 2\n"
	},
		diskcheck.Fstab, diskcheck.Error, "/dev/nvme1n1p1 for /srv/my data is on another disk, which is not in the image", nil},
	{"a logical volume of another disk", func(_ *testing.T, s *system) {
		s.root()["etc/fstab"] += "/dev/mapper/data-srv /srv ext4 defaults 0 2\n"
	},
		diskcheck.Fstab, diskcheck.Error, "/dev/mapper/data-srv for /srv is not on this disk", nil},
	{"no fstab", func(t *testing.T, s *system) { s.root().drop(t, "etc/fstab") }, diskcheck.Fstab, diskcheck.Error, "no /etc/fstab, and the kernel mounts the root file system for reading alone", nil},
	{"swap by device name", func(_ *testing.T, s *system) { s.root()["etc/fstab"] += "/dev/sda5 none swap sw 0 0\n" },
		diskcheck.Swap, diskcheck.Warning, "/dev/sda5 for none goes by device name", nil},
	{"swap that is not there", func(_ *testing.T, s *system) {
		s.root()["etc/fstab"] += "UUID=99999999-0000-4000-8000-000000000009 swap swap sw 0 0\n"
	},
		diskcheck.Swap, diskcheck.Warning, "is not on this disk", nil},
	{"kernel told a device name", func(t *testing.T, s *system) {
		s.root().replace(t, "boot/grub/grub.cfg", "root=UUID="+rootUUID, "root=/dev/sda3")
	},
		diskcheck.BootConfig, diskcheck.Error, "root=/dev/sda3 goes by device name", nil},
	{"kernel told another UUID", func(t *testing.T, s *system) {
		s.root().replace(t, "boot/grub/grub.cfg", "root=UUID="+rootUUID, "root=UUID="+bootUUID)
	},
		diskcheck.BootConfig, diskcheck.Error, "is not on this disk", nil},
	{"resume by device name", func(t *testing.T, s *system) {
		s.root().replace(t, "boot/grub/grub.cfg", " ro console", " ro resume=/dev/sda5 console")
	},
		diskcheck.BootConfig, diskcheck.Warning, "resume=/dev/sda5", nil},
	{"GRUB will use device names", func(t *testing.T, s *system) {
		s.root().replace(t, "etc/default/grub", "#GRUB_DISABLE", "GRUB_DISABLE")
	},
		diskcheck.BootConfig, diskcheck.Warning, "GRUB_DISABLE_LINUX_UUID", nil},
	{"no boot configuration", func(t *testing.T, s *system) { s.root().drop(t, "boot/grub/") },
		diskcheck.BootConfig, diskcheck.Warning, "no configuration of GRUB", nil},
	{"a root that no one can know", func(t *testing.T, s *system) {
		s.root().replace(t, "boot/grub/grub.cfg", "UUID="+rootUUID+" ro", "${mine} ro")
	},
		diskcheck.BootConfig, diskcheck.Unknown, "${mine}", nil},
	{"no kernel", func(t *testing.T, s *system) { s.root().drop(t, "boot/vmlinuz") },
		diskcheck.Kernel, diskcheck.Error, "which is not there", []diskcheck.ID{diskcheck.Initramfs, diskcheck.VirtioBlk, diskcheck.VirtioPCI, diskcheck.VirtioSCSI, diskcheck.VirtioNet}},
	{"no initramfs", func(t *testing.T, s *system) { s.root().drop(t, "boot/initrd.img") },
		diskcheck.Initramfs, diskcheck.Error, "no initramfs beside it", []diskcheck.ID{diskcheck.VirtioBlk, diskcheck.VirtioPCI, diskcheck.VirtioSCSI}},
	{"no virtio_blk in the initramfs", withoutDriver("virtio_blk"), diskcheck.VirtioBlk, diskcheck.Error, "as a module, but not in its initramfs", nil},
	{"no virtio_pci in the initramfs", withoutDriver("virtio_pci"), diskcheck.VirtioPCI, diskcheck.Error, "not in its initramfs", nil},
	{"no virtio_scsi in the initramfs", withoutDriver("virtio_scsi"), diskcheck.VirtioSCSI, diskcheck.Warning, "not in its initramfs", nil},
	{"no virtio_blk anywhere", func(t *testing.T, s *system) {
		withoutDriver("virtio_blk")(t, s)
		s.root()["usr/lib/modules/"+debianKernel+"/modules.dep"] = modulesDep("virtio_blk")
	}, diskcheck.VirtioBlk, diskcheck.Error, "does not have it", nil},
	{"no virtio_net anywhere", func(t *testing.T, s *system) {
		withoutDriver("virtio_net")(t, s)
		s.root()["usr/lib/modules/"+debianKernel+"/modules.dep"] = modulesDep("virtio_net")
	}, diskcheck.VirtioNet, diskcheck.Error, "does not have it", nil},
	{"an initramfs in xz", func(_ *testing.T, s *system) {
		s.root()["boot/initrd.img-"+debianKernel] = string(microcode()) + "\xfd7zXZ\x00rest"
	},
		diskcheck.Initramfs, diskcheck.Unknown, "xz, which is not read here", []diskcheck.ID{diskcheck.VirtioBlk, diskcheck.VirtioPCI, diskcheck.VirtioSCSI}},
	{"an initramfs that is cut off", func(_ *testing.T, s *system) {
		all := s.root()["boot/initrd.img-"+debianKernel]
		s.root()["boot/initrd.img-"+debianKernel] = all[:len(all)-40]
	}, diskcheck.Initramfs, diskcheck.Error, "is damaged", []diskcheck.ID{diskcheck.VirtioBlk, diskcheck.VirtioPCI, diskcheck.VirtioSCSI}},
	{"no cloud-init", func(t *testing.T, s *system) { s.root().drop(t, "usr/bin/cloud-init") },
		diskcheck.CloudInit, diskcheck.Warning, "not installed", noCloud},
	{"cloud-init is off", func(_ *testing.T, s *system) { s.root()["etc/cloud/cloud-init.disabled"] = "" },
		diskcheck.CloudInit, diskcheck.Warning, "cloud-init.disabled", noCloud},
	{"cloud-init is off by an option", func(t *testing.T, s *system) {
		s.root().replace(t, "boot/grub/grub.cfg", " ro console", " ro cloud-init=disabled console")
	},
		diskcheck.CloudInit, diskcheck.Warning, "cloud-init=disabled", noCloud},
	{"a masked unit of cloud-init", func(_ *testing.T, s *system) { s.root()["etc/systemd/system/cloud-init.service"] = "-> /dev/null" },
		diskcheck.CloudInit, diskcheck.Warning, "cloud-init.service is masked", noCloud},
	{"a unit of cloud-init that is disabled", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/systemd/system/cloud-init.target.wants/cloud-init.service")
	},
		diskcheck.CloudInit, diskcheck.Warning, "cloud-init.service is disabled", noCloud},
	{"cloud-init looks elsewhere", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud.cfg.d/99_azure.cfg"] = "datasource_list:\n  - Azure\n  - None\n"
	},
		diskcheck.CloudInit, diskcheck.Warning, "99_azure.cfg lets it look only for Azure, None", []diskcheck.ID{diskcheck.Access}},
	{"cloud-init turns itself off", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud.cfg.d/99.cfg"] = "datasource_list: [ NoCloud, Azure, None ]\n"
	},
		diskcheck.CloudInit, diskcheck.Warning, "turn itself off: /etc/cloud/cloud.cfg.d/99.cfg lets it look only for NoCloud, Azure, None, which needs a seed", noCloud},
	{"NoCloud alone, and no seed", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud.cfg.d/99.cfg"] = "datasource_list: [ NoCloud ]\n"
	},
		diskcheck.SSHHostKeys, diskcheck.Error, "nothing on this disk makes them", append(noCloud, diskcheck.CloudInit)},
	{"nobody can log in", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud-init.disabled"] = ""
		s.root()["etc/ssh/ssh_host_rsa_key"] = "key"
	},
		diskcheck.Access, diskcheck.Error, "nobody can log in", append(noCloud, diskcheck.CloudInit)},
	{"only the console lets in", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud-init.disabled"] = ""
		s.root()["etc/ssh/ssh_host_rsa_key"] = "key"
		s.root()["etc/shadow"] = "root:$y$j9T$a$b:19000:0:99999:7:::\n"
	},
		diskcheck.Access, diskcheck.Warning, "at the console root can", append(noCloud, diskcheck.CloudInit)},
	{"no growpart", func(t *testing.T, s *system) { s.root().drop(t, "usr/bin/growpart") },
		diskcheck.GrowRoot, diskcheck.Warning, "growpart is not installed", nil},
	{"growpart is off", func(_ *testing.T, s *system) {
		s.root()["etc/cloud/cloud.cfg.d/99.cfg"] = "#x\ngrowpart:\n  devices: [/]\n  mode: 'off'\n"
	},
		diskcheck.GrowRoot, diskcheck.Warning, "nothing enlarges", nil},
	{"no SSH server", func(t *testing.T, s *system) { s.root().drop(t, "usr/sbin/sshd") },
		diskcheck.SSHServer, diskcheck.Warning, "no SSH server", []diskcheck.ID{diskcheck.Access}},
	{"a masked SSH server", func(_ *testing.T, s *system) { s.root()["etc/systemd/system/ssh.service"] = "-> /dev/null" },
		diskcheck.SSHServer, diskcheck.Warning, "its unit is masked", []diskcheck.ID{diskcheck.Access}},
	{"a masked SSH server, and keys from cloud-init alone", func(_ *testing.T, s *system) { s.root()["etc/systemd/system/ssh.service"] = "-> /dev/null" },
		diskcheck.Access, diskcheck.Error, "no SSH server runs", []diskcheck.ID{diskcheck.SSHServer}},
	{"fstab without a root", func(t *testing.T, s *system) { s.root()["etc/fstab"] = "# UNCONFIGURED FSTAB\n" },
		diskcheck.Fstab, diskcheck.Error, "has no line for /", nil},
	{"a fixed address", func(t *testing.T, s *system) {
		s.root()["etc/netplan/90-default.yaml"] = "network:\n  version: 2\n  ethernets:\n    ens3:\n      addresses: [192.0.2.5/24]\n      nameservers:\n        addresses: [192.0.2.1]\n"
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
	}, diskcheck.Network, diskcheck.Error, "only fixed addresses: /etc/netplan/90-default.yaml (ens3)", nil},
	{"a fixed address beside DHCP", func(_ *testing.T, s *system) {
		s.root()["etc/network/interfaces"] = "auto lo\niface lo inet loopback\niface eth1 inet static\n  address 192.0.2.5\n"
	},
		diskcheck.Network, diskcheck.Warning, "/etc/network/interfaces (eth1)", nil},
	{"a fixed address of IPv4, IPv6 by itself", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		s.root()["etc/network/interfaces"] = "iface ens3 inet static\n  address 192.0.2.5/24\niface ens3 inet6 auto\n"
	}, diskcheck.Network, diskcheck.Error, "only fixed addresses: /etc/network/interfaces (ens3)", nil},
	{"DHCP for the name of another machine's card", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "auto ens192\niface ens192 inet dhcp\n")
	}, diskcheck.NetworkNames, diskcheck.Error, "the machine will not have: /etc/network/interfaces (ens192)", nil},
	{"DHCP for a name that some machines have", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "allow-hotplug ens3\niface ens3 inet dhcp\n")
	}, diskcheck.NetworkNames, diskcheck.Warning, "not every machine has it: /etc/network/interfaces (ens3)", nil},
	{"the kernel's name where systemd names cards", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "auto eth0\niface eth0 inet dhcp\n")
	}, diskcheck.NetworkNames, diskcheck.Error, "(eth0)", nil},
	{"a card that nothing brings up", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "iface ens3 inet dhcp\n")
	}, diskcheck.Network, diskcheck.Error, "no line \"auto\" or \"allow-hotplug\"", nil},
	{"ifupdown without a client of DHCP", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "auto ens3\niface ens3 inet dhcp\n")
		s.root().drop(t, "usr/sbin/dhclient")
	}, diskcheck.Network, diskcheck.Error, "no client of DHCP is installed", nil},
	{"files that ifupdown does not include", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
		ifupdown(s, "auto lo\n")
		s.root()["etc/network/interfaces.d/eth"] = "auto ens3\niface ens3 inet dhcp\n"
	}, diskcheck.Network, diskcheck.Error, "no network card is configured", nil},
	{"netplan's files without netplan", func(t *testing.T, s *system) {
		s.root().drop(t, "usr/sbin/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
	}, diskcheck.Network, diskcheck.Error, "netplan is not installed", nil},
	{"a masked networkd", func(_ *testing.T, s *system) {
		s.root()["etc/systemd/system/systemd-networkd.service"] = "-> /dev/null"
	}, diskcheck.Network, diskcheck.Error, "systemd-networkd is masked", nil},
	{"no network", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/netplan")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network:\n  config: disabled\n"
	}, diskcheck.Network, diskcheck.Error, "no network card is configured", nil},
	{"a name by hardware address", func(_ *testing.T, s *system) {
		s.root()["etc/udev/rules.d/70-persistent-net.rules"] = "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"00:50:56:00:00:01\", NAME=\"eth0\"\n"
	}, diskcheck.NetworkNames, diskcheck.Warning, "70-persistent-net.rules", nil},
	{"netplan by hardware address", func(t *testing.T, s *system) {
		s.root().replace(t, "etc/netplan/90-default.yaml", "name: en*", "macaddress: \"00:50:56:00:00:01\"")
	}, diskcheck.NetworkNames, diskcheck.Warning, "(all-en)", nil},
	{"netplan by another machine's hardware address alone", func(t *testing.T, s *system) {
		s.root().replace(t, "etc/netplan/90-default.yaml", "name: en*", "macaddress: \"00:50:56:00:00:01\"")
		s.root()["etc/cloud/cloud.cfg.d/99-net.cfg"] = "network: {config: disabled}\n"
	}, diskcheck.NetworkNames, diskcheck.Error, "the machine will not have: /etc/netplan/90-default.yaml (all-en)", nil},
	{"host keys without cloud-init", func(t *testing.T, s *system) {
		s.root()["etc/ssh/ssh_host_ed25519_key"] = "key"
		s.root().drop(t, "usr/bin/cloud-init")
	}, diskcheck.SSHHostKeys, diskcheck.Warning, "ssh_host_ed25519_key", append(noCloud, diskcheck.CloudInit)},
	{"host keys that cloud-init shall keep", func(t *testing.T, s *system) {
		s.root()["etc/ssh/ssh_host_ed25519_key"] = "key"
		s.root()["etc/cloud/cloud.cfg.d/99.cfg"] = "ssh_deletekeys: false\n"
	}, diskcheck.SSHHostKeys, diskcheck.Warning, "has cloud-init keep them", nil},
	{"a folder that can't be read", func(t *testing.T, s *system) {
		s.root().drop(t, "etc/ssh/")
		s.root()["etc/ssh"] = "-> ssh"
		s.root()["etc/cloud/cloud-init.disabled"] = ""
	}, diskcheck.SSHHostKeys, diskcheck.Unknown, "as far as could be read", append(noCloud, diskcheck.Storage, diskcheck.CloudInit)},
	{"programs that can't be read", func(t *testing.T, s *system) {
		s.root().drop(t, "usr/bin/cloud-init")
		s.root()["usr/bin/cloud-init"] = "-> cloud-init"
	}, diskcheck.CloudInit, diskcheck.Unknown, "as far as could be read", append(noCloud, diskcheck.Storage)},
	{"an absurd fstab", func(_ *testing.T, s *system) { s.root()["etc/fstab"] += strings.Repeat("# padding\n", 30_000) },
		diskcheck.Fstab, diskcheck.Unknown, "limit exceeded", []diskcheck.ID{diskcheck.Storage}},
	{"a file system that is larger than its partition", func(_ *testing.T, s *system) { s.part("root").poke = func(b []byte) { b[1024+6] = 0xff } },
		diskcheck.Storage, diskcheck.Error, "larger than its partition", []diskcheck.ID{
			diskcheck.RootFilesystem, diskcheck.OSVersion, diskcheck.Fstab, diskcheck.BootConfig, diskcheck.Kernel, diskcheck.CloudInit, diskcheck.Network, diskcheck.SSHServer, diskcheck.Access, diskcheck.MachineID,
		}},
	{"a machine's id", func(_ *testing.T, s *system) { s.root()["etc/machine-id"] = "0123456789abcdef0123456789abcdef\n" },
		diskcheck.MachineID, diskcheck.Warning, "0123456789abcdef", nil},
}

// noCloud are the findings that follow where cloud-init does nothing: Debian's disk has
// neither keys of its own nor users.
var noCloud = []diskcheck.ID{diskcheck.GrowRoot, diskcheck.SSHHostKeys, diskcheck.Access}

// ifupdown installs it beside what is there.
func ifupdown(s *system, interfaces string) {
	maps.Copy(s.root(), files{
		"usr/sbin/ifup": "", "usr/sbin/dhclient": "", "usr/lib/systemd/system/networking.service": "[Install]\n",
		"etc/systemd/system/multi-user.target.wants/networking.service": "-> /lib/systemd/system/networking.service", "etc/network/interfaces": interfaces,
	})
}

func withoutDriver(name string) func(*testing.T, *system) {
	return func(_ *testing.T, s *system) {
		s.root()["boot/initrd.img-"+debianKernel] = string(append(microcode(), withZstd(initrd(debianKernel, name))...))
	}
}

func TestDefects(t *testing.T) {
	t.Parallel()
	for _, tt := range defects {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := debian()
			tt.change(t, s)
			r := check(t, s)
			ok := false
			for _, f := range find(r, tt.id) {
				ok = ok || f.Severity == tt.want && strings.Contains(f.Found, tt.found)
			}
			if !ok {
				t.Errorf("there is no finding %s %s with %q:\n%s", tt.want, tt.id, tt.found, show(r))
			}
			for _, f := range r.Findings {
				expected := f.ID == tt.id
				for _, id := range tt.also {
					expected = expected || f.ID == id
				}
				if f.Severity != diskcheck.OK && !expected {
					t.Errorf("another finding: %s %s: %s", f.Severity, f.ID, f.Found)
				}
				if f.Severity == diskcheck.Error && f.Fix == "" {
					t.Errorf("%s says nothing of what to do: %s", f.ID, f.Found)
				}
			}
			verdict := map[diskcheck.Severity]diskcheck.Verdict{diskcheck.Error: diskcheck.NotReady, diskcheck.Unknown: diskcheck.Undecided, diskcheck.Warning: diskcheck.Ready}
			if worst := worst(r); r.Verdict() != verdict[worst] && (worst != diskcheck.Warning || r.Count(diskcheck.Unknown) == 0) {
				t.Errorf("%s, worst: %s", r.Verdict(), worst)
			}
		})
	}
}

// worst is the most severe that was found: Error, Warning, Unknown, OK.
func worst(r diskcheck.Report) diskcheck.Severity {
	for _, s := range []diskcheck.Severity{diskcheck.Error, diskcheck.Warning, diskcheck.Unknown} {
		if r.Count(s) > 0 {
			return s
		}
	}
	return diskcheck.OK
}
