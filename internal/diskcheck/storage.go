package diskcheck

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/filesystem"
	"github.com/quickims/quickims/internal/filesystem/probe"
	"github.com/quickims/quickims/internal/ims"
)

// volume is what lies in Partitions[part].
type volume struct {
	probe.Content
	part int
}

// describe names a volume for people.
func (c *checker) describe(v volume) string {
	p := c.Partitions[v.part]
	if p.Number == 0 {
		return "the disk"
	}
	return fmt.Sprintf("partition %d", p.Number)
}

// volumes looks into each partition.
func (c *checker) volumes() {
	var broken int
	for i := range c.Partitions {
		p := &c.Partitions[i]
		if i == maxVolumes {
			c.add(Storage, Unknown, "", "only the first %d of %d partitions were looked into", maxVolumes, len(c.Partitions))
			break
		}
		if p.Type == "0x05" || p.Type == "0x0f" || p.Type == "0x85" || p.Type == typeMicrosoft {
			continue // hold no file system of their own
		}
		src, err := c.src.Section(p.Start, min(p.Size, max(0, c.Size-p.Start)))
		if err != nil {
			continue // beyond the end, which was said
		}
		v := volume{Content: probe.Probe(src), part: i}
		p.Content, p.FSUUID, p.FSLabel = v.Type, v.UUID, v.Label
		c.vols = append(c.vols, v)
		if v.Container {
			c.containers = append(c.containers, v.Name)
		}
		switch {
		case v.Err != nil && v.Type != "":
			broken++
			fix := "Check the file system on the machine it came from (fsck, xfs_repair), then make the image again."
			if errors.Is(v.Err, filesystem.ErrTooLarge) {
				fix = "Make the partition as large as the file system again"
				if strings.HasPrefix(v.Type, "ext") {
					fix += "; if it shall be smaller, shrink the file system first (resize2fs), then the partition"
				}
				fix += ". A check of the file system does not mend this."
			}
			c.add(Storage, Error, fix, "%s holds %s that can't be opened: %v", c.describe(v), v.Name, v.Err)
		case v.Volume == nil && v.Type != "" && v.Type != "swap":
			c.add(Storage, Unknown, "", "%s holds %s, which is not read here", c.describe(v), v.Name)
		}
	}
	if c.Table == diskformat.NoTable {
		c.bareDisk()
	}
	if broken == 0 && !c.has(Storage) && len(c.vols) > 0 {
		var kinds []string
		for _, v := range c.vols {
			if v.Type != "" {
				kinds = append(kinds, v.Type)
			}
		}
		if len(kinds) > 0 {
			c.add(Storage, OK, "", "all volumes can be read: %s", strings.Join(kinds, ", "))
		}
	}
}

// bareDisk: there is no partition table.
func (c *checker) bareDisk() {
	const fix = "Make the image from the whole disk (/dev/vda), not from a partition (/dev/vda1)."
	if v := c.vols[0]; v.Type != "" {
		c.add(PartitionTable, Warning, fix, "no partition table: the disk holds %s from its first byte on, as the image of one partition does", v.Name)
		return
	}
	c.add(PartitionTable, Error, fix, "no partition table, and no file system that is known")
}

// findRoot looks for the volume with the system, and mounts what its fstab says.
func (c *checker) findRoot() {
	var roots []volume
	for _, v := range c.vols {
		if t := c.alone(v); t != nil && v.Type != "vfat" && isRoot(t) {
			roots = append(roots, v)
		}
	}
	if len(roots) == 0 {
		c.missingRoot()
		return
	}
	// Of several, the one that mounts others; a rescue system has no fstab.
	i := max(0, slices.IndexFunc(roots, func(v volume) bool {
		return c.alone(v).Exists("/etc/fstab")
	}))
	root := roots[i]
	c.tree = c.alone(root)
	c.Partitions[root.part].Mount = "/"
	if len(roots) > 1 {
		var where []string
		for _, v := range roots {
			where = append(where, c.describe(v))
		}
		c.add(RootFilesystem, Warning, "Remove the system that is not wanted, or look whether the boot loader starts the right one.",
			"%s each hold a system; the one in %s is checked", strings.Join(where, " and "), c.describe(root))
	} else {
		c.add(RootFilesystem, OK, "", "%s in %s", root.Type, c.describe(root))
	}
	c.OSType = "Linux"
	c.mountAll()
	c.findBoot()
	c.clean()
}

// isRoot: the names that a root has, also when the files lie on another volume.
func isRoot(t *tree) bool {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release", "/etc/fstab", "/etc/passwd", "/etc/redhat-release"} {
		if _, err := t.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

// missingRoot says why there may be no root, and looks for a separate /boot.
func (c *checker) missingRoot() {
	var hidden []string
	for _, v := range c.vols {
		if v.Volume == nil && v.Type != "" && v.Type != "swap" {
			hidden = append(hidden, fmt.Sprintf("%s (%s)", v.Name, c.describe(v)))
		}
	}
	switch {
	case c.windows || slices.ContainsFunc(c.vols, func(v volume) bool { return v.Type == "ntfs" }):
		c.OSType = "Windows"
		c.noRoot = "NTFS is not read"
		c.add(RootFilesystem, Unknown, "Install the virtio drivers and cloudbase-init before the image is made, and run sysprep.",
			"this is a disk of Windows; NTFS is not read here, so only the partition table and the boot mode were checked")
	case len(hidden) > 0:
		c.noRoot = "the root file system can't be read"
		fix := "Check the points below yourself, or install the system without that layer: a cloud makes disks safe and encrypts them below the machine."
		if !slices.ContainsFunc(c.vols, func(v volume) bool { return v.Volume == nil && isLayer(v.Type) }) {
			fix = "Repair the file system (fsck) on the machine that the disk is of, or make the image again from the whole disk."
		}
		c.add(RootFilesystem, Unknown, fix, "no file system that can be read holds a system; it may lie in %s", strings.Join(hidden, ", "))
	default:
		c.noRoot = "there is no root file system"
		c.absent(RootFilesystem, Error, "If this is a data disk, import it as a data disk image (type DataImage).", "no file system of the disk holds a system")
	}
	c.findBoot()
}

// isLayer tells whether a type is one of what lies below file systems, or of a file
// system that is never read here; not one that is read as a rule.
func isLayer(kind string) bool {
	return kind != "" && kind != "swap" && !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "vfat", "fat"}, kind)
}

// clean looks at the journals of what is mounted.
func (c *checker) clean() {
	dirty := false
	for _, v := range c.vols {
		if v.Volume != nil && v.Volume.Info().Dirty {
			dirty = true
			c.add(Clean, Warning, "Shut the machine down before its disk is copied, or freeze its file systems (fsfreeze) while it is.",
				"%s in %s was not unmounted; its journal is not empty", v.Type, c.describe(v))
		}
	}
	if !dirty && slices.ContainsFunc(c.vols, func(v volume) bool { return v.Type == "ext3" || v.Type == "ext4" }) {
		c.add(Clean, OK, "", "the journals of ext4 are empty")
	}
}

// findBoot settles where kernels and boot configuration lie: in /boot of the
// system, or in a volume that looks like a separate /boot.
func (c *checker) findBoot() {
	if c.tree != nil && bootFolder(c.tree, "/boot") {
		c.boot = place{c.tree, "/boot"}
		return
	}
	for _, v := range c.vols {
		// systemd-boot keeps kernels in the EFI system partition.
		if t := c.alone(v); t != nil && (v.Type != "vfat" && bootFolder(t, "/") || v.Type == "vfat" && t.Exists("/loader/entries")) {
			c.boot = place{t, "/"}
			return
		}
	}
	if c.tree != nil {
		c.boot = place{c.tree, "/boot"}
	}
}

func bootFolder(t *tree, dir string) bool {
	list, err := t.ReadDir(dir)
	return err == nil && slices.ContainsFunc(list, func(e filesystem.Entry) bool {
		return e.Name == "grub2" || e.Name == "loader" || e.Name == "extlinux" || e.Name == "grub" || kernelVersion(e.Name) != ""
	})
}

// firmware settles the hw_firmware_type from the boot loaders and the processor.
func (c *checker) firmware() {
	switch {
	case c.Architecture == ims.ArchARM || c.uefi && !c.bios:
		c.Firmware = ims.FirmwareUEFI
	case c.bios:
		c.Firmware = ims.FirmwareBIOS
	}
	switch {
	case c.Architecture == ims.ArchARM && !c.uefi:
		c.add(BootMode, Error, "Install a boot loader for UEFI.", "an arm system without a boot loader for UEFI, which is the only firmware of such machines")
	case c.uefi && c.bios && c.Firmware == ims.FirmwareBIOS:
		c.add(BootMode, OK, "", "boot loaders for both BIOS and UEFI: hw_firmware_type may be bios, the usual one, or uefi")
	case c.uefi:
		c.add(BootMode, OK, "", "a boot loader for UEFI: hw_firmware_type is uefi")
	case c.bios:
		c.add(BootMode, OK, "", "a boot loader for BIOS: hw_firmware_type is bios")
	default:
		c.add(BootMode, Error, "Install a boot loader, such as GRUB with grub-install.", "no boot loader: no boot code for BIOS, no EFI system partition with one for UEFI")
	}
}
