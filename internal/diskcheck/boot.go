package diskcheck

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
)

// efiNames are the processors in the names of EFI boot loaders, UEFI
// specification 2.10 section 3.5.1.1, with what the cloud calls them.
var efiNames = []struct{ suffix, arch string }{
	{"x64.efi", ims.ArchX86}, {"aa64.efi", ims.ArchARM}, {"ia32.efi", ""}, {"riscv64.efi", ""}, {"loongarch64.efi", ""},
}

// bootMode looks for the boot loaders of both kinds of firmware.
func (c *checker) bootMode() {
	c.bios = c.biosLoader()
	var standard, others []string
	system := false
	for _, v := range c.vols {
		p := c.Partitions[v.part]
		system = system || p.Type == typeEFISystem || p.Type == mbrEFISystem
		if v.Type != "vfat" || v.Volume == nil {
			continue
		}
		s, o := c.efiLoaders(v)
		standard, others = append(standard, s...), append(others, o...)
	}
	c.uefi = len(standard)+len(others) > 0
	const fix = "Copy the boot loader to that name, or let the system do it: grub-install --removable, or bootctl install."
	severity := Error // a machine with UEFI is all that this disk is good for
	if c.bios {
		severity = Warning
	}
	switch {
	case len(standard) > 0:
		c.add(EFIBootFile, OK, "", "%s", strings.Join(standard, ", "))
	case len(others) > 0:
		c.add(EFIBootFile, severity, fix, "the EFI system partition has %s, but no boot loader under the standard name in EFI/BOOT", strings.Join(others, ", "))
	case system && !c.bios:
		c.absent(EFIBootFile, Error, fix, "there is an EFI system partition, but no boot loader was found in it")
	case system:
		c.absent(EFIBootFile, Warning, fix, "there is an EFI system partition, but no boot loader was found in it; the disk starts with BIOS alone")
	}
}

// efiLoaders lists the boot loaders of a volume, those under the standard name
// and others.
func (c *checker) efiLoaders(v volume) (standard, others []string) {
	t := c.alone(v)
	if t == nil {
		return nil, nil
	}
	vendors, err := t.ReadDir("/EFI")
	if err != nil {
		return nil, nil
	}
	for _, vendor := range vendors[:min(len(vendors), maxFiles)] {
		files, err := t.ReadDir("/EFI/" + vendor.Name)
		if err != nil {
			continue
		}
		if strings.EqualFold(vendor.Name, "Microsoft") && t.Exists("/EFI/Microsoft/Boot/bootmgfw.efi") {
			c.windows = true
			others = append(others, "EFI/Microsoft/Boot/bootmgfw.efi")
			c.efiArch = peArch(t, "/EFI/Microsoft/Boot/bootmgfw.efi", c.efiArch)
		}
		for _, f := range files[:min(len(files), maxFiles)] {
			lower := strings.ToLower(f.Name)
			name := path.Join("EFI", vendor.Name, f.Name)
			if !strings.HasSuffix(lower, ".efi") {
				continue
			}
			switch i := slices.IndexFunc(efiNames, func(n struct{ suffix, arch string }) bool { return lower == "boot"+n.suffix }); {
			case strings.EqualFold(vendor.Name, "BOOT") && i >= 0:
				standard = append(standard, name)
				c.efiArch = peArch(t, "/"+name, efiNames[i].arch)
			case strings.EqualFold(vendor.Name, "BOOT"):
				// fbx64.efi, mmx64.efi: helpers of shim
			case strings.HasPrefix(lower, "grub") || strings.HasPrefix(lower, "shim") || strings.HasPrefix(lower, "systemd-boot") || strings.EqualFold(vendor.Name, "Linux"):
				others = append(others, name)
				if c.efiArch == "" {
					c.efiArch = peArch(t, "/"+name, "")
				}
			}
		}
	}
	return standard, others
}

// peArch reads the processor from the head of an EFI program, COFF's Machine
// field; unread is the answer when that can't be.
func peArch(t *tree, name, unread string) string {
	f, err := t.Open(name)
	if err != nil {
		return unread
	}
	b := make([]byte, min(f.Size(), 4096))
	if n, _ := f.ReadAt(b, 0); n < 64 || n < len(b) || string(b[:2]) != "MZ" {
		return unread
	}
	at := le.Uint32(b[0x3c:])
	if uint64(at)+6 > uint64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" {
		return unread
	}
	switch le.Uint16(b[at+4:]) {
	case 0x8664:
		return ims.ArchX86
	case 0xaa64:
		return ims.ArchARM
	}
	return ""
}

// biosLoader tells whether BIOS firmware would find boot code: it runs the code
// in the first sector, which knows where to go on.
func (c *checker) biosLoader() bool {
	front := c.sector(0)
	if front == nil || front[510] != 0x55 || front[511] != 0xaa || isZero(front[:440]) {
		return false
	}
	if c.Table == diskformat.NoTable {
		// The boot sector of a file system, which most carry only to say that the
		// disk can't be started.
		return bytes.Contains(front[:440], []byte("GRUB"))
	}
	if bytes.Contains(front[:440], []byte("GRUB")) {
		if c.Table == diskformat.MBR {
			return !isZero(c.sector(diskformat.SectorSize)) // where its core lies, before the first partition
		}
		return slices.ContainsFunc(c.Partitions, func(p Partition) bool {
			return p.Type == typeBIOSBoot && !isZero(c.sector(p.Start))
		})
	}
	// Any other code starts the boot sector of the active partition.
	return slices.ContainsFunc(c.Partitions, func(p Partition) bool {
		b := c.sector(p.Start)
		return p.Active && b != nil && b[510] == 0x55 && b[511] == 0xaa && !isZero(b[:440])
	})
}

// sector reads one sector, nil if it can't.
func (c *checker) sector(at int64) []byte {
	b := make([]byte, diskformat.SectorSize)
	if c.src.ReadFull(b, at) != nil {
		return nil
	}
	return b
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
