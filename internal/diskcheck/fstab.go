package diskcheck

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxMounts is how many volumes of the disk are put together.
const maxMounts = 16

// mountLine is a line of fstab(5).
type mountLine struct {
	device
	dir      string
	kind     string
	optional bool // the start does not wait for it: noauto, nofail, or at its first use
}

func parseFstab(text string) []mountLine {
	var list []mountLine
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || len(list) == 1000 {
			continue
		}
		m := mountLine{device: parseDevice(unescapeFstab(f[0])), dir: path.Clean(unescapeFstab(f[1])), kind: f[2]}
		if len(f) > 3 {
			for o := range strings.SplitSeq(f[3], ",") {
				m.optional = m.optional || o == "noauto" || o == "nofail" || o == "x-systemd.automount"
				if o == "bind" || o == "rbind" {
					m.naming = notADevice
				}
			}
		}
		switch m.kind {
		case "nfs", "nfs4", "cifs", "9p", "virtiofs", "tmpfs", "proc", "sysfs", "devpts", "overlay":
			m.naming = notADevice
		}
		list = append(list, m)
	}
	return list
}

// unescapeFstab undoes \040 and its like, three octal digits.
func unescapeFstab(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAll lays the volumes of the disk over the root as fstab says. What can't
// be read leaves its folder as it is.
func (c *checker) mountAll() {
	text, err := c.text("/etc/fstab")
	if err != nil {
		return
	}
	lines := parseFstab(text)
	slices.SortStableFunc(lines, func(a, b mountLine) int { return cmp.Compare(len(a.dir), len(b.dir)) })
	mounted := 0
	for _, m := range lines {
		i := c.find(m.device)
		if i < 0 || !strings.HasPrefix(m.dir, "/") || c.Partitions[c.vols[i].part].Mount != "" {
			continue
		}
		v := c.vols[i]
		if m.dir == "/" || v.Volume == nil || mounted == maxMounts || c.tree.Mount(m.dir, v.Volume) != nil {
			continue
		}
		c.Partitions[v.part].Mount = shown(m.dir)
		mounted++
	}
}

const (
	byUUIDFix = "Write UUID=… there; blkid prints them."
	noSuchFix = "Remove the line, add nofail to its options, or correct it; blkid prints what is there."

	staysReadOnly = "and the kernel mounts the root file system for reading alone (ro): nothing can be written to it"
	staysFix      = "Write a line for /, with the root file system by UUID."
)

// fstab checks how the system names what it mounts.
func (c *checker) fstab() {
	if !c.needRoot(Fstab) {
		return
	}
	text, err := c.text("/etc/fstab")
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.readOnlyRoot():
		c.add(Fstab, Error, staysFix, "there is no /etc/fstab, "+staysReadOnly)
		return
	case errors.Is(err, fs.ErrNotExist):
		c.add(Fstab, Warning, "Write one, with the root file system by UUID, unless the system mounts by other means.", "there is no /etc/fstab")
		return
	case err != nil:
		c.add(Fstab, Unknown, "", "%v", err)
		return
	}
	good, swaps, bad := 0, 0, len(c.Findings)
	lines := parseFstab(text)
	if c.readOnlyRoot() && !slices.ContainsFunc(lines, func(m mountLine) bool { return m.dir == "/" }) {
		c.add(Fstab, Error, staysFix, "/etc/fstab has no line for /, "+staysReadOnly)
	}
	for _, m := range lines {
		swap := m.kind == "swap" || m.dir == "none" && m.kind != "ignore"
		if swap && m.naming != notADevice {
			swaps++
		}
		id, severity := Fstab, Error
		if swap {
			id, severity = Swap, Warning
		}
		problem, weak := c.judge(m.device)
		fix := byUUIDFix
		if m.naming == byContent || m.naming == byMapper || m.other {
			fix = noSuchFix
		}
		switch {
		case m.naming == notADevice || m.optional || isRemovable(m):
		case problem == "":
			if !swap {
				good++
			}
		case weak:
			c.add(id, Warning, fix, "/etc/fstab: %s", c.mountText(m, problem))
		default:
			c.add(id, severity, fix, "/etc/fstab: %s", c.mountText(m, problem))
		}
	}
	failed := func(id ID) bool {
		return slices.ContainsFunc(c.Findings[bad:], func(f Finding) bool { return f.ID == id })
	}
	fstabFailed, swapFailed := failed(Fstab), failed(Swap)
	if !fstabFailed {
		if good == 0 {
			c.add(Fstab, OK, "", "/etc/fstab names no disk that must be there")
		} else {
			c.add(Fstab, OK, "", "/etc/fstab names what it mounts (%d) by UUID or label", good)
		}
	}
	if swaps > 0 && !swapFailed {
		c.add(Swap, OK, "", "/etc/fstab names swap by UUID or label")
	}
}

func (c *checker) mountText(m mountLine, problem string) string {
	return fmt.Sprintf("%s for %s %s", shown(m.spec), shown(m.dir), problem)
}

func isRemovable(m mountLine) bool {
	return strings.HasPrefix(m.spec, "/dev/sr") || strings.HasPrefix(m.spec, "/dev/fd") || strings.HasPrefix(m.spec, "/dev/cdrom") ||
		m.kind == "iso9660" || strings.HasPrefix(m.kind, "udf")
}

// judge says what is wrong with how a device is named; weak is
// for what goes wrong only on some machines. No problem is "".
func (c *checker) judge(d device) (problem string, weak bool) {
	switch d.naming {
	case byName:
		switch {
		case d.other:
			return "is on another disk, which is not in the image", false
		case d.virtio:
			return "goes by device name; it is the right one only while the disk is the first on virtio-blk", true
		}
		return "goes by device name, which the machine does not give it", false
	case byHardware:
		return "goes by the hardware of the machine it was made on", false
	case byContent:
		if c.find(d) < 0 && c.sees(d) {
			return "is not on this disk", false
		}
	case byMapper:
		if !c.mayMap() {
			return "is not on this disk, which holds neither LVM nor anything else of that kind", false
		}
	}
	return "", false
}
