package diskcheck

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// bootEntry is what a boot loader would start.
type bootEntry struct {
	file    string // the configuration it stands in
	title   string
	kernel  string // as paths in the boot loader's eyes; "" if not given
	initrd  []string
	options string
}

// maxEntries bounds the entries of all configurations together.
const maxEntries = 200

// grubConfigs and others lie in the folder of the kernels or in the system's;
// the first that has entries counts, since that is how boot loaders are found.
var (
	grubConfigs = []string{"grub2/grub.cfg", "grub/grub.cfg", "grub/menu.lst", "grub/grub.conf"}
	otherLists  = []string{"extlinux/extlinux.conf", "syslinux/syslinux.cfg", "extlinux.conf"}
)

// bootEntries gathers what the boot loaders would start. UKI are named by their
// file alone.
func (c *checker) bootEntries() (list []bootEntry, unified []string) {
	if c.boot.tree != nil {
		for _, name := range slices.Concat(grubConfigs, otherLists) {
			at := path.Join(c.boot.dir, name)
			if b, err := c.boot.tree.ReadFile(at, maxList); err == nil {
				list = append(list, parseBootConfig(at, string(b))...)
			}
		}
		list = append(list, loaderEntries(c.boot)...)
		unified = append(unified, unifiedKernels(c.boot)...)
	}
	for _, p := range c.espFolders() {
		list = append(list, loaderEntries(p)...)
		unified = append(unified, unifiedKernels(p)...)
		vendors, _ := p.tree.ReadDir(path.Join(p.dir, "EFI"))
		for _, v := range vendors[:min(len(vendors), maxFiles)] {
			at := path.Join(p.dir, "EFI", v.Name, "grub.cfg")
			if b, err := p.tree.ReadFile(at, maxList); err == nil {
				list = append(list, parseBootConfig(at, string(b))...)
			}
		}
	}
	if env, ok := c.grubEnvironment(); ok {
		for i := range list {
			list[i].options = strings.ReplaceAll(list[i].options, "$kernelopts", env)
		}
	}
	return list[:min(len(list), maxEntries)], unified
}

// grubEnvironment reads kernelopts from GRUB's environment block.
func (c *checker) grubEnvironment() (string, bool) {
	if c.boot.tree == nil {
		return "", false
	}
	for _, name := range []string{"grub2/grubenv", "grub/grubenv"} {
		b, err := c.boot.tree.ReadFile(path.Join(c.boot.dir, name), maxConfig)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "kernelopts="); ok {
				return value, true
			}
		}
	}
	return "", false
}

var menuTitle = regexp.MustCompile(`^menuentry\s+(?:'([^']*)'|"([^"]*)")`)

// parseBootConfig reads the entries of a grub.cfg, of GRUB's first version, or of
// the syslinux family. Scripts are not run: what variables would hold is looked
// for only where distributions put the kernel's options.
func parseBootConfig(file, text string) []bootEntry {
	var list []bootEntry
	var title, defaults string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		rest = strings.TrimSpace(rest)
		if len(list) == maxEntries {
			break
		}
		switch strings.ToLower(word) {
		case "menuentry":
			if m := menuTitle.FindStringSubmatch(line); m != nil {
				title = m[1] + m[2]
			}
		case "title", "label":
			title = rest
		case "linux", "linux16", "linuxefi", "kernel":
			kernel, options, _ := strings.Cut(rest, " ")
			list = append(list, bootEntry{file: file, title: title, kernel: kernel, options: options})
		case "append":
			if len(list) > 0 {
				list[len(list)-1].options += " " + rest
				if initrd := optionValues(rest, "initrd"); len(initrd) > 0 {
					list[len(list)-1].initrd = strings.Split(initrd[0], ",")
				}
			}
		case "initrd", "initrd16", "initrdefi":
			if len(list) > 0 {
				list[len(list)-1].initrd = strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ',' })
			}
		case "set":
			if key, value, _ := strings.Cut(rest, "="); key == "kernelopts" || key == "default_kernelopts" {
				defaults = unquote(value)
			}
		}
	}
	for i := range list {
		if defaults != "" {
			list[i].options = strings.NewReplacer("${kernelopts}", defaults, "$kernelopts", defaults).Replace(list[i].options)
		}
	}
	return list
}

// loaderEntries reads the Boot Loader Specification's files, newest name first.
func loaderEntries(p place) []bootEntry {
	dir := path.Join(p.dir, "loader/entries")
	files, err := p.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []bootEntry
	for _, f := range slices.Backward(files[:min(len(files), maxFiles)]) {
		at := path.Join(dir, f.Name)
		b, err := p.tree.ReadFile(at, maxConfig)
		if err != nil || !strings.HasSuffix(f.Name, ".conf") {
			continue
		}
		e := bootEntry{file: at}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "\t", " "), " ")
			value = strings.TrimSpace(value)
			switch key {
			case "title":
				e.title = value
			case "linux":
				e.kernel = value
			case "initrd":
				e.initrd = append(e.initrd, strings.Fields(value)...)
			case "options":
				e.options += " " + value
			}
		}
		if e.kernel != "" {
			list = append(list, e)
		}
	}
	return list
}

func unifiedKernels(p place) []string {
	dir := path.Join(p.dir, "EFI/Linux")
	files, err := p.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, f := range files[:min(len(files), maxFiles)] {
		if strings.HasSuffix(strings.ToLower(f.Name), ".efi") {
			list = append(list, path.Join(dir, f.Name))
		}
	}
	return list
}

// rescue tells an entry that is not meant to be started usually.
func (e bootEntry) rescue() bool {
	return isRescue(e.kernel) || strings.Contains(strings.ToLower(e.title), "rescue") || strings.Contains(e.title, "recovery")
}

var noQuotes = strings.NewReplacer(`"`, "", `'`, "")

// optionValues gives the values of an option of a kernel's command line.
func optionValues(options, key string) []string {
	var list []string
	for _, f := range strings.Fields(noQuotes.Replace(options)) {
		if value, ok := strings.CutPrefix(f, key+"="); ok {
			list = append(list, value)
		}
	}
	return list
}

// bootConfig checks how the boot loader names the root file system.
func (c *checker) bootConfig() {
	entries, unified := c.bootEntries()
	c.entries = entries
	before, named := len(c.Findings), 0
	said := map[string]bool{}
	unclear := ""
	for _, e := range entries {
		for _, key := range []string{"root", "resume"} {
			for _, spec := range optionValues(e.options, key) {
				d := parseDevice(spec)
				if d.naming == byContent || d.naming == byMapper {
					named++
				}
				if d.naming == byExpression || d.naming == notADevice {
					unclear = shown(e.file) + ": " + key + "=" + shown(spec)
				}
				problem, weak := c.judge(d)
				if text := shown(e.file) + ": " + key + "=" + shown(spec) + " " + problem; problem != "" && !said[text] && len(said) < maxFiles {
					said[text] = true
					severity := Error
					if weak || key == "resume" || e.rescue() {
						severity = Warning
					}
					fix := "Name it by UUID (for GRUB: no GRUB_DISABLE_LINUX_UUID in /etc/default/grub), then write the configuration anew (update-grub, grub2-mkconfig)."
					if d.naming == byContent {
						fix = "Correct it, and write the configuration anew (update-grub, grub2-mkconfig)."
					}
					c.add(BootConfig, severity, fix, "%s", text)
				}
			}
		}
	}
	c.grubDefaults()
	if len(c.Findings) > before || c.OSType == "Windows" {
		return
	}
	switch {
	case c.boot.tree == nil && len(entries)+len(unified) == 0:
		c.add(BootConfig, Unknown, "", "not looked at: %s", c.noRoot)
	case len(entries)+len(unified) == 0:
		c.absent(BootConfig, Warning, "Write it (update-grub, grub2-mkconfig), unless the boot loader needs none.", "no configuration of GRUB, systemd-boot or syslinux was found")
	case named > 0:
		c.add(BootConfig, OK, "", "the boot loader names the root file system by UUID or label (%s)", shown(entries[0].file))
	case len(entries) == 0:
		c.add(BootConfig, Unknown, "", "the system starts from a unified kernel image (%s), whose command line is not read here", shown(unified[0]))
	case unclear != "":
		c.add(BootConfig, Unknown, "", "%s can't be judged without running the boot loader", unclear)
	default:
		c.add(BootConfig, Unknown, "", "the boot configuration (%s) names no root file system", shown(entries[0].file))
	}
}

// grubDefaults looks at what the next run of update-grub would bring.
func (c *checker) grubDefaults() {
	if c.tree == nil {
		return
	}
	text, err := c.text("/etc/default/grub")
	if err != nil {
		return
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "GRUB_DISABLE_LINUX_UUID" && unquote(value) == "true" {
			c.add(BootConfig, Warning, "Take that line out of /etc/default/grub and run update-grub.",
				"/etc/default/grub: GRUB_DISABLE_LINUX_UUID=true makes GRUB name disks by device name")
		}
	}
}

// espFolders are the places where an EFI system partition is seen: where it is
// mounted, or by itself.
func (c *checker) espFolders() []place {
	var list []place
	for _, v := range c.vols {
		if t := c.alone(v); t != nil && v.Type == "vfat" {
			list = append(list, place{t, "/"})
		}
	}
	return list
}
