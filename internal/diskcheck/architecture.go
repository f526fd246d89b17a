package diskcheck

import (
	"github.com/quickims/quickims/internal/ims"
)

// programs are files that every Linux system has one of.
var programs = []string{"/bin/sh", "/usr/bin/env", "/sbin/init", "/usr/bin/bash", "/usr/lib/systemd/systemd"}

// architecture goes by the system's programs, or else by the boot loader.
func (c *checker) architecture() {
	machine, where := "", ""
	if c.tree != nil {
		for _, name := range programs {
			f, err := c.tree.Open(name)
			if err != nil {
				continue
			}
			b := make([]byte, min(f.Size(), 20))
			if _, err := f.ReadAt(b, 0); err == nil && len(b) == 20 && string(b[:4]) == "\x7fELF" {
				machine, where = c.elf(b), name
				break
			}
		}
	}
	switch {
	case c.Architecture != "":
		c.add(Architecture, OK, "", "%s is %s: architecture is %s", where, machine, c.Architecture)
		if c.efiArch != "" && c.efiArch != c.Architecture {
			c.add(Architecture, Error, "Install the boot loader for the processor of the system.", "the EFI boot loader is for %s", c.efiArch)
		}
	case machine != "":
		c.add(Architecture, Error, "There is no machine for it; build the system for x86-64 or arm64.", "%s is for %s", where, machine)
	case c.efiArch != "":
		c.Architecture = c.efiArch
		c.add(Architecture, OK, "", "the EFI boot loader is for %s: architecture is %s", c.efiArch, c.efiArch)
	case c.bios:
		c.Architecture = ims.ArchX86
		c.add(Architecture, OK, "", "only x86 has BIOS: architecture is x86")
	default:
		c.add(Architecture, Unknown, "", "neither a program of the system nor an EFI boot loader could be read")
	}
}

// elf reads e_ident and e_machine (ELF-64 Object File Format; the numbers are
// those of the generic ABI's registry), sets what they mean, and names them.
func (c *checker) elf(b []byte) string {
	if b[5] != 1 { // EI_DATA: little-endian
		return "a big-endian processor"
	}
	switch le.Uint16(b[18:]) {
	case 62:
		c.Architecture, c.bits = ims.ArchX86, 64
		return "x86-64"
	case 3:
		c.Architecture, c.bits = ims.ArchX86, 32
		return "32-bit x86"
	case 183:
		c.Architecture, c.bits = ims.ArchARM, 64
		return "arm64"
	case 40:
		return "32-bit arm"
	case 243:
		return "RISC-V"
	case 258:
		return "LoongArch"
	case 21:
		return "POWER"
	}
	return "an unknown processor"
}
