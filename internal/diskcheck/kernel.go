package diskcheck

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

// maxKernels is how many kernels are looked into: the one that is started and,
// if that is another, the newest.
const maxKernels = 2

// driver is a driver that a machine of the cloud needs.
type driver struct {
	id      ID
	module  string // with _ for -
	option  string // in the kernel's configuration
	boot    bool   // needed before the root file system is there
	missing Severity
}

var drivers = []driver{
	{VirtioPCI, "virtio_pci", "CONFIG_VIRTIO_PCI", true, Error},
	{VirtioBlk, "virtio_blk", "CONFIG_VIRTIO_BLK", true, Error},
	{VirtioSCSI, "virtio_scsi", "CONFIG_SCSI_VIRTIO", true, Warning},
	{VirtioNet, "virtio_net", "CONFIG_VIRTIO_NET", false, Error},
}

// kernel is a kernel in the boot folder and what was found out about it.
type kernel struct {
	file, version string
	initrd        string // "" if none was found
	initrdErr     error  // why it could not be read
	builtin       map[string]bool
	modules       map[string]bool // nil: the list could not be read
	inInitramfs   map[string]bool
}

// kernelNames are how distributions name kernels: the part behind is the version.
var kernelNames = regexp.MustCompile(`^(?:vmlinuz|vmlinux|Image|bzImage|kernel)-(.+)$`)

func kernelVersion(name string) string {
	m := kernelNames.FindStringSubmatch(name)
	if m == nil || isRescue(name) || strings.HasSuffix(name, ".old") || strings.HasSuffix(name, ".hmac") {
		return ""
	}
	return m[1]
}

func isRescue(name string) bool {
	return strings.Contains(name, "rescue") || strings.Contains(name, "kdump") || strings.Contains(name, "fallback")
}

// kernels checks the drivers of the kernels that would be started.
func (c *checker) kernels() {
	missing := c.missingFiles()
	list := c.findKernels()
	if len(list) == 0 && missing {
		return
	}
	if len(list) == 0 {
		c.noKernel()
		return
	}
	var names []string
	for i := range list {
		c.inspect(&list[i])
		names = append(names, shown(list[i].file))
	}
	if !c.has(Kernel) {
		c.add(Kernel, OK, "", "%s", strings.Join(names, ", "))
	}
	for _, k := range list {
		switch {
		case k.initrd == "" && c.needsInitramfs(k):
			c.add(Initramfs, Error, "Make it: update-initramfs -c -k all, or dracut --regenerate-all.", "%s has no initramfs beside it", shown(k.file))
		case k.initrd == "":
			c.add(Initramfs, OK, "", "%s has no initramfs and the drivers in itself", shown(k.file))
		case errors.Is(k.initrdErr, io.ErrUnexpectedEOF):
			c.add(Initramfs, Error, "Make it anew: update-initramfs -u -k all, or dracut -f --regenerate-all.", "%s is damaged: %v", shown(k.initrd), k.initrdErr)
		case k.initrdErr != nil:
			c.add(Initramfs, Unknown, "", "%s could not be read: %v", shown(k.initrd), k.initrdErr)
		default:
			c.add(Initramfs, OK, "", "%s was read", shown(k.initrd))
		}
	}
	for _, d := range drivers {
		c.driver(d, list)
	}
}

func (c *checker) needsInitramfs(k kernel) bool {
	return !k.builtin["virtio_blk"] || !k.builtin["virtio_pci"]
}

func (c *checker) noKernel() {
	switch {
	case c.OSType == "Windows":
		c.add(VirtioBlk, Unknown, "Install the virtio drivers (virtio-win), so that they are there at the first start.", "not looked at: %s", c.noRoot)
	case c.boot.tree == nil:
		c.add(Kernel, Unknown, "", "not looked at: %s", c.noRoot)
	default:
		c.add(Kernel, Unknown, "Look whether the kernel has virtio_pci, virtio_blk and virtio_net.", "no kernel was found in %s, nor where the boot configuration points", c.boot.dir)
	}
}

// missingFiles tells of files that the first entry of the boot configuration names
// and that are in no volume, where all could be read.
func (c *checker) missingFiles() bool {
	i := slices.IndexFunc(c.entries, func(e bootEntry) bool { return e.kernel != "" && !e.rescue() })
	if i < 0 || c.boot.tree == nil || slices.ContainsFunc(c.vols, func(v volume) bool { return v.Volume == nil && v.Type != "" && v.Type != "swap" }) {
		return false
	}
	const fix = "Install the kernel again, or make the boot configuration anew (update-grub, grub2-mkconfig), on the machine that the disk is of."
	found := false
	for n, name := range append([]string{c.entries[i].kernel}, c.entries[i].initrd...) {
		before := c.trouble
		if name == "" || strings.Contains(name, "$") || c.bootFile(name) != "" || c.onESP(name) || c.trouble > before {
			continue
		}
		id := Kernel
		if n > 0 {
			id = Initramfs
		}
		found = true
		c.add(id, Error, fix, "the boot configuration names %s, which is not there", shown(name))
	}
	return found
}

// onESP reports whether a file lies in an EFI system partition, where systemd-boot has
// its kernels, whatever else /boot of the system holds.
func (c *checker) onESP(name string) bool {
	return slices.ContainsFunc(c.espFolders(), func(p place) bool { return p.tree.Exists(path.Join("/", name)) })
}

// findKernels chooses the kernels to look into: the one of the first entry of the
// boot configuration, and the newest.
func (c *checker) findKernels() []kernel {
	if c.boot.tree == nil {
		return nil
	}
	var found []kernel
	list, err := c.boot.tree.ReadDir(c.boot.dir)
	if err != nil {
		return nil
	}
	for _, e := range list {
		if version := kernelVersion(e.Name); version != "" {
			found = append(found, kernel{file: path.Join(c.boot.dir, e.Name), version: version})
		}
	}
	slices.SortStableFunc(found, func(a, b kernel) int { return compareVersions(b.version, a.version) })
	if i := slices.IndexFunc(c.entries, func(e bootEntry) bool { return e.kernel != "" && !e.rescue() }); i >= 0 {
		first := c.bootFile(c.entries[i].kernel)
		if j := slices.IndexFunc(found, func(k kernel) bool { return k.file == first }); j >= 0 {
			found = slices.Delete(found, j, j+1)
		}
		if version := versionOf(first); version != "" {
			found = slices.Insert(found, 0, kernel{file: first, version: version})
		}
	}
	return found[:min(len(found), maxKernels)]
}

// versionOf is the version in the name of a kernel's file, or of its folder, as
// the Boot Loader Specification has it.
func versionOf(file string) string {
	if path.Base(file) == "linux" {
		return path.Base(path.Dir(file))
	}
	return kernelVersion(path.Base(file))
}

// bootFile finds a file that the boot configuration names: in its volume, which
// may be the root or a separate /boot; "" if it is in neither.
func (c *checker) bootFile(name string) string {
	name = name[strings.IndexByte(name, ')')+1:] // (hd0,gpt2)/vmlinuz
	for _, at := range []string{path.Join(c.boot.dir, name), path.Join("/", name), path.Join(c.boot.dir, path.Base(name))} {
		if _, err := c.boot.tree.Lstat(at); err == nil {
			return at
		}
	}
	return ""
}

// inspect finds out which of the drivers a kernel has, and where.
func (c *checker) inspect(k *kernel) {
	k.builtin = map[string]bool{}
	if b, err := c.boot.tree.ReadFile(path.Join(c.boot.dir, "config-"+k.version), maxList); err == nil {
		for _, d := range drivers {
			if strings.Contains(string(b), "\n"+d.option+"=y\n") {
				k.builtin[d.module] = true
			}
		}
	}
	if c.tree != nil {
		dir := path.Join("/lib/modules", k.version)
		if b, err := c.tree.ReadFile(path.Join(dir, "modules.builtin"), maxList); err == nil {
			listed(string(b), k.builtin)
		}
		before := c.trouble
		if k.modules = c.moduleFiles(dir); c.trouble > before {
			k.modules = nil
		}
	}
	before := c.trouble
	if k.initrd = c.findInitramfs(*k); k.initrd == "" {
		if c.trouble > before {
			k.initrd, k.initrdErr = "the initramfs of "+k.file, errors.New("it was not found, as far as could be read")
		}
		return
	}
	f, err := c.boot.tree.Open(k.initrd)
	if err != nil {
		k.initrdErr = err
		return
	}
	in := &initramfs{modules: map[string]bool{}, builtin: k.builtin, src: c.src}
	k.initrdErr = in.read(f.Reader())
	k.inInitramfs = in.modules
}

// listed marks those of the drivers that a list of module files, such as
// modules.builtin or modules.dep, begins a line with.
func listed(text string, mark map[string]bool) {
	for line := range strings.Lines(text) {
		file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if m := moduleName(file); m != "" {
			mark[m] = true
		}
	}
}

// moduleName is the name of the driver that a file holds, if it is one of those
// that are looked for.
func moduleName(file string) string {
	base := file[strings.LastIndexByte(file, '/')+1:]
	for _, ending := range []string{".xz", ".zst", ".gz"} {
		base = strings.TrimSuffix(base, ending)
	}
	name, ok := strings.CutSuffix(base, ".ko")
	name = strings.ReplaceAll(name, "-", "_")
	if !ok || !slices.ContainsFunc(drivers, func(d driver) bool { return d.module == name }) {
		return ""
	}
	return name
}

// moduleFiles finds a kernel's modules by its list of them, or by looking where
// Linux keeps them.
func (c *checker) moduleFiles(dir string) map[string]bool {
	found := map[string]bool{}
	b, err := c.tree.ReadFile(path.Join(dir, "modules.dep"), maxList)
	if err == nil {
		listed(string(b), found)
		return found
	}
	if !c.tree.Exists(dir) {
		return nil
	}
	for _, sub := range []string{"virtio", "block", "scsi", "net"} {
		list, err := c.tree.ReadDir(path.Join(dir, "kernel/drivers", sub))
		if err != nil {
			continue
		}
		for _, e := range list {
			if m := moduleName(e.Name); m != "" {
				found[m] = true
			}
		}
	}
	return found
}

// findInitramfs finds the initramfs of a kernel: the one that the boot
// configuration names with it, or the one beside it.
func (c *checker) findInitramfs(k kernel) string {
	for _, e := range c.entries {
		if e.rescue() || path.Base(e.kernel) != path.Base(k.file) || c.bootFile(e.kernel) != k.file {
			continue
		}
		for _, i := range slices.Backward(e.initrd) { // the last; microcode comes before
			if at := c.bootFile(i); at != "" && !strings.HasPrefix(i, "$") {
				return at
			}
		}
	}
	// Debian, Red Hat, SUSE; Arch and Alpine, whose kernels have no number.
	v := k.version
	names := []string{"initrd.img-" + v, "initramfs-" + v + ".img", "initrd-" + v, "initrd-" + v + ".img", "initramfs-" + v, "initramfs.img-" + v}
	for _, name := range names {
		at := path.Join(path.Dir(k.file), name)
		if n, err := c.boot.tree.Stat(at); err == nil && n.Kind == filesystem.Regular {
			return at
		}
	}
	return ""
}

// driver judges one driver in all kernels.
func (c *checker) driver(d driver, list []kernel) {
	const (
		rebuild = "Add it to the initramfs: for initramfs-tools a line in /etc/initramfs-tools/modules and update-initramfs -u -k all; for dracut add_drivers+=\" %[1]s \" in /etc/dracut.conf.d and dracut -f --regenerate-all."
		install = "Install a kernel that has %[1]s, such as the distribution's usual one."
	)
	worst, fix := OK, ""
	var found []string
	note := func(s Severity, f, text string, k kernel) {
		order := []Severity{OK, Unknown, Warning, Error}
		if slices.Index(order, s) > slices.Index(order, worst) {
			worst, fix = s, f
		}
		found = append(found, shown(k.version)+" "+text)
	}
	for _, k := range list {
		rebuild, install := fmt.Sprintf(rebuild, d.module), fmt.Sprintf(install, d.module)
		unread := k.initrd != "" && k.initrdErr != nil
		switch {
		case k.builtin[d.module]:
			note(OK, "", "has it built in", k)
		case k.inInitramfs[d.module]:
			note(OK, "", "has it in its initramfs", k)
		case k.modules[d.module] && !d.boot:
			note(OK, "", "has it as a module", k)
		case k.modules[d.module] && unread:
			note(Unknown, rebuild, "has it as a module; its initramfs could not be read", k)
		case k.modules[d.module]:
			note(d.missing, rebuild, "has it as a module, but not in its initramfs", k)
		case k.modules == nil && (unread || !d.boot):
			note(Unknown, "", "could not be looked into: its modules can't be read", k)
		case k.modules == nil:
			note(d.missing, rebuild, "does not have it in its initramfs", k)
		default:
			note(d.missing, install, "does not have it", k)
		}
	}
	c.add(d.id, worst, fix, "%s: %s", d.module, strings.Join(found, "; "))
}

// compareVersions orders kernel versions: runs of digits by their value.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, y := leading(a), leading(b)
		a, b = a[len(x):], b[len(y):]
		isNumber := x[0] >= '0' && x[0] <= '9' && y[0] >= '0' && y[0] <= '9'
		if isNumber {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return cmp.Compare(len(x), len(y))
			}
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a), len(b))
}

// leading is the run of digits, or of others, that s begins with.
func leading(s string) string {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	i := 1
	for i < len(s) && digit(s[i]) == digit(s[0]) {
		i++
	}
	return s[:i]
}
