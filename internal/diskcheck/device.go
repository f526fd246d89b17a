package diskcheck

import (
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

// naming is how a configuration names a device.
type naming int

const (
	notADevice   naming = iota // tmpfs, nfs, a file
	byContent                  // UUID, label: of the file system or the partition
	byName                     // /dev/sda1: in the order of discovery
	byHardware                 // /dev/disk/by-path, by-id: how and which hardware
	byMapper                   // /dev/mapper, LVM: by a name that lies in the volume
	byExpression               // holds a variable
)

// device is a device as a configuration names it.
type device struct {
	naming
	spec       string // as it stands there
	tag, value string // of byContent: UUID, LABEL, PARTUUID or PARTLABEL
	number     int    // of byName: the partition on the first disk; 0: another disk, or whole
	virtio     bool   // of byName: a disk on virtio-blk
	other      bool   // of byName: not the first disk
}

var (
	// sda1, hdb, vda2, xvda1; mmcblk0p1, nvme0n1p2: drivers' names for disks, in
	// the order in which they were found.
	diskName  = regexp.MustCompile(`^/dev/(sd|hd|vd|xvd)([a-z]+)([0-9]*)$`)
	cardName  = regexp.MustCompile(`^/dev/(mmcblk[0-9]+|nvme[0-9]+n[0-9]+)(?:p([0-9]+))?$`)
	mapperDev = regexp.MustCompile(`^/dev/(mapper/.+|[A-Za-z][A-Za-z0-9+_.-]*/[^/]+)$`)
)

// parseDevice understands fstab(5)'s first field and the kernel's root=.
func parseDevice(spec string) device {
	d := device{spec: spec}
	if strings.Contains(spec, "$") {
		d.naming = byExpression
		return d
	}
	if tag, value, ok := strings.Cut(spec, "="); ok {
		switch tag = strings.ToUpper(tag); tag {
		case "UUID", "LABEL", "PARTUUID", "PARTLABEL":
			d.naming, d.tag, d.value = byContent, tag, unquote(value)
		case "ID":
			d.naming = byHardware
		}
		return d
	}
	if rest, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok {
		kind, value, _ := strings.Cut(rest, "/")
		switch kind {
		case "uuid", "label", "partuuid", "partlabel":
			d.naming, d.tag, d.value = byContent, strings.ToUpper(kind), unescapeUdev(value)
		default:
			d.naming = byHardware
		}
		return d
	}
	if m := diskName.FindStringSubmatch(spec); m != nil {
		d.naming, d.virtio, d.other = byName, m[1] == "vd", m[2] != "a"
		if !d.other {
			d.number, _ = strconv.Atoi(m[3])
		}
		return d
	}
	if m := cardName.FindStringSubmatch(spec); m != nil {
		d.naming, d.other = byName, m[1] != "mmcblk0" && m[1] != "nvme0n1"
		d.number, _ = strconv.Atoi(m[2])
		return d
	}
	if mapperDev.MatchString(spec) {
		d.naming = byMapper
	}
	return d
}

// unescapeUdev undoes \x20 and its like, which udev puts for what can't stand in
// a file name.
func unescapeUdev(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// find gives the volume that a device means, -1 if it is none of this disk.
func (c *checker) find(d device) int {
	for i, v := range c.vols {
		p := c.Partitions[v.part]
		var value string
		switch d.tag {
		case "UUID":
			value = v.UUID
		case "LABEL":
			value = v.Label
		case "PARTUUID":
			value = p.UUID
		case "PARTLABEL":
			value = p.Name
		}
		switch {
		case d.naming == byName && !d.other && d.number != 0 && d.number == p.Number:
			return i
		case d.naming != byContent || value == "":
		case d.value == value, strings.HasSuffix(d.tag, "UUID") && strings.EqualFold(d.value, value):
			return i
		}
	}
	return -1
}

// mayMap tells whether something on the disk, or something that the system makes of it at
// the start (crypttab(5)), may have a name of the device mapper.
func (c *checker) mayMap() bool {
	if len(c.containers) > 0 || len(c.vols) < len(c.Partitions) || c.tree == nil {
		return true
	}
	text, err := c.text("/etc/crypttab")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

// sees tells whether a device that is not found is surely not there: nothing on
// the disk could hide it, and what lies in each partition is known.
func (c *checker) sees(d device) bool {
	switch d.tag {
	case "PARTUUID", "PARTLABEL":
		return len(c.vols) == len(c.Partitions)
	}
	for _, v := range c.vols {
		if v.Container || v.Type == "" && v.Err != nil || v.Type != "" && v.UUID == "" {
			return false
		}
	}
	return true
}
