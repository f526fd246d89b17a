package diskcheck

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// cloudState is what cloud-init will do at the first start.
type cloudState struct {
	network bool // configures a network card, if the system has something to do it with
	keys    bool // makes the SSH server's host keys anew, or the first time
	login   bool // lets the owner in, by a key or a password
	grows   bool // makes the root partition as large as the disk
}

// cloudConfig is what /etc/cloud says. Of several files the last counts, for each
// setting by itself.
type cloudConfig struct {
	sources     []string // datasource_list; nil if it is not set
	sourcesFile string
	noNetwork   bool     // network: {config: disabled}
	modules     []string // of the stage init; nil if that is not set
	keepKeys    bool     // ssh_deletekeys: false
	growOff     bool     // growpart: {mode: off}
	renderers   []string // system_info: network: renderers
	seeded      bool     // NoCloud's data stands in the configuration
}

var (
	noNetwork  = regexp.MustCompile(`^network:\s*\{\s*config:\s*["']?disabled`)
	keepKeys   = regexp.MustCompile(`(?mi)^ssh_deletekeys:\s*["']?(false|no|off|0)\b`)
	deleteKeys = regexp.MustCompile(`(?mi)^ssh_deletekeys:\s*["']?(true|yes|on|1)\b`)
	growOff    = regexp.MustCompile(`(?mi)^growpart:(?:\s*\{\s*|\s*\n(?:\s+.*\n)*?\s+)mode:\s*["']?(false|off)\b`)
	seedConfig = regexp.MustCompile(`(?m)^\s+NoCloud:(?:.*\n)(?:\s+.*\n)*?\s+(?:seedfrom|user-data|meta-data):`)
)

// cloudFiles reads cloud-init's configuration.
func (c *checker) cloudFiles() (cfg cloudConfig) {
	for _, file := range append([]string{"/etc/cloud/cloud.cfg"}, c.files("/etc/cloud/cloud.cfg.d", ".cfg")...) {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		if list, ok := yamlList(text, "datasource_list"); ok {
			cfg.sources, cfg.sourcesFile = list, file
		}
		if list, ok := yamlList(text, "cloud_init_modules"); ok {
			cfg.modules = list
		}
		if list, ok := yamlList(text, "renderers"); ok {
			cfg.renderers = list
		}
		cfg.noNetwork = cfg.noNetwork || networkDisabled(text)
		cfg.keepKeys = keepKeys.MatchString(text) || cfg.keepKeys && !deleteKeys.MatchString(text)
		cfg.growOff = cfg.growOff || growOff.MatchString(text)
		cfg.seeded = cfg.seeded || seedConfig.MatchString(text)
	}
	cfg.noNetwork = cfg.noNetwork || c.option("network-config=disabled")
	return cfg
}

// has reports whether a module of the stage init runs; by default all do.
func (cfg cloudConfig) has(module string) bool {
	return cfg.modules == nil || slices.Contains(cfg.modules, module) || slices.Contains(cfg.modules, strings.ReplaceAll(module, "-", "_"))
}

const installCloudInit = "Install cloud-init and cloud-guest-utils (cloud-utils-growpart), with the data sources OpenStack and ConfigDrive."

// cloudInit settles whether cloud-init is there, will run, and finds its data.
func (c *checker) cloudInit() {
	if !c.needRoot(CloudInit) {
		return
	}
	if !c.tree.any("/usr/bin/cloud-init", "/usr/local/bin/cloud-init", "/usr/libexec/cloud-init") {
		c.absent(CloudInit, Warning, installCloudInit, "cloud-init is not installed")
		return
	}
	policy, source := c.identifyConfig()
	switch {
	case c.tree.Exists("/etc/cloud/cloud-init.disabled"):
		c.add(CloudInit, Warning, "Remove that file.", "cloud-init is installed, but /etc/cloud/cloud-init.disabled keeps it from running")
		return
	case c.option("cloud-init=disabled"):
		c.add(CloudInit, Warning, "Take that option away (/etc/default/grub, then update-grub).", "cloud-init is installed, but the kernel's option cloud-init=disabled keeps it from running")
		return
	case policy == "disabled":
		c.add(CloudInit, Warning, "Take that line out.", "cloud-init is installed, but policy: disabled in /etc/cloud/ds-identify.cfg keeps it from running")
		return
	}
	init, local := c.cloudUnits()
	if !init {
		return
	}
	cfg := c.cloudFiles()
	if source != "" {
		cfg.sources, cfg.sourcesFile = []string{source}, "/etc/cloud/ds-identify.cfg"
	}
	c.cloudCfg = cfg
	c.cloud = c.cloudData(cfg, policy == "enabled")
	c.cloud.network = c.cloud.network && local && !cfg.noNetwork
	c.cloud.keys = c.cloud.keys && cfg.has("ssh")
	c.cloud.grows = c.cloud.grows && cfg.has("growpart") && !cfg.growOff
}

// identifyConfig reads what tells ds-identify, the part of cloud-init that decides
// whether the rest of it runs: the mode of its policy, and a data source.
func (c *checker) identifyConfig() (policy, source string) {
	text, _ := c.text("/etc/cloud/ds-identify.cfg")
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value, _, _ = strings.Cut(value, "#")
		switch key {
		case "policy":
			policy, _, _ = strings.Cut(unquote(value), ",")
		case "datasource":
			source = unquote(value)
		}
	}
	options, _ := c.kernelOptions()
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "ci.ds", "ci.datasource":
			source = value
		case "ci.di.policy":
			policy, _, _ = strings.Cut(value, ",")
		}
	}
	return policy, source
}

// cloudUnits reports whether the stage init runs, which makes keys and users, and the
// one before it, which configures the network.
func (c *checker) cloudUnits() (init, local bool) {
	s := c.services
	if !s.systemd {
		return true, true
	}
	stage := []string{"cloud-init.service", "cloud-init-network.service"}
	if s.state("cloud-init-local.service") == unitAbsent && s.state(stage...) == unitAbsent {
		c.add(CloudInit, Warning, "Install cloud-init from the distribution's package, which brings its units.", "cloud-init is installed, but none of its systemd units are there: nothing starts it")
		return false, false
	}
	var off []string
	if s.state("cloud-init.target") == unitMasked {
		off = append(off, "cloud-init.target is masked")
	} else {
		init = s.state(stage...) == unitEnabled
	}
	// The stage init asks for the one before it, whether that is enabled or not.
	local = init && s.can("cloud-init-local.service")
	for _, names := range [][]string{{"cloud-init-main.service"}, {"cloud-init-local.service"}, stage, {"cloud-config.service"}, {"cloud-final.service"}} {
		switch state := s.state(names...); {
		case state == unitAbsent || state == unitEnabled:
		case state == unitDisabled && local && names[0] == "cloud-init-local.service":
		default:
			name := names[0]
			if s.one(name) == unitAbsent {
				name = names[1]
			}
			off = append(off, name+" is "+state.String())
			if name == "cloud-init-main.service" && state == unitMasked {
				init, local = false, false
			}
		}
	}
	if len(off) > 0 {
		c.add(CloudInit, Warning, "Run systemctl unmask, then systemctl enable, for each of them on the machine that the disk is of.",
			"cloud-init is installed, but not all of it runs: %s", strings.Join(off, ", "))
	}
	return init, local
}

// cloudData judges where cloud-init looks for its data.
func (c *checker) cloudData(cfg cloudConfig, always bool) cloudState {
	all := cloudState{true, true, true, true}
	names := slices.DeleteFunc(slices.Clone(cfg.sources), func(s string) bool { return s == "None" })
	usual := len(cfg.sources) == 0 // then it looks everywhere
	looks := func(list []string) bool {
		return usual && len(list) > 0 || slices.ContainsFunc(names, func(s string) bool { return slices.Contains(list, s) })
	}
	seed := c.seed(cfg)
	switch {
	case looks([]string{"NoCloud"}) && seed != "":
		c.cloudOK("cloud-init takes its data from %s", seed)
		return all
	case looks(c.platform.given()):
		c.cloudOK("cloud-init is installed")
		return all
	case looks(c.platform.seeds()):
		c.add(CloudInit, Warning, "Attach a seed disk to each machine: a small ISO 9660 or FAT volume labelled CIDATA with user-data and meta-data.",
			"cloud-init is installed, and there is no metadata service: a machine without a seed disk gets neither keys nor users")
		return all
	}
	fix := "Write datasource_list: [ OpenStack, ConfigDrive, None ] there."
	what := fmt.Sprintf("%s lets it look only for %s", cfg.sourcesFile, shown(strings.Join(cfg.sources, ", ")))
	switch {
	case slices.Contains(names, "NoCloud"):
		fix = "Write datasource_list: [ OpenStack, ConfigDrive, NoCloud, None ] there, or put a seed into the image (/var/lib/cloud/seed/nocloud)."
		what += ", which needs a seed, and the disk has none"
	case c.platform == KVM:
		fix = "Write datasource_list: [ NoCloud, ConfigDrive, None ] there, and attach a seed disk to each machine."
	}
	// ds-identify turns all of cloud-init off if it finds none of several sources. A
	// single one is taken without a look.
	if len(names) > 1 && !always && c.tree.any("/usr/lib/cloud-init/ds-identify", "/usr/libexec/cloud-init/ds-identify") {
		c.add(CloudInit, Warning, fix, "cloud-init is installed, but it will find no data and turn itself off: %s", what)
		return cloudState{}
	}
	fallback := slices.Contains(cfg.sources, "None")
	c.add(CloudInit, Warning, fix, "cloud-init is installed, but it will find no data, and let nobody in: %s", what)
	return cloudState{network: true, keys: fallback, grows: fallback}
}

// cloudOK says what is in order, unless something was not.
func (c *checker) cloudOK(text string, args ...any) {
	if !c.has(CloudInit) {
		c.add(CloudInit, OK, "", text, args...)
	}
}

// seed says where in the image NoCloud's data lies; "" if there is none.
func (c *checker) seed(cfg cloudConfig) string {
	for _, dir := range []string{"/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/nocloud-net"} {
		if c.tree.Exists(path.Join(dir, "meta-data")) && c.tree.Exists(path.Join(dir, "user-data")) {
			return dir
		}
	}
	for _, v := range c.vols {
		if strings.EqualFold(v.Label, "cidata") {
			return c.describe(v) + " (" + v.Label + ")"
		}
	}
	if cfg.seeded {
		return "its own configuration"
	}
	return ""
}

// yamlList reads a list of words, on one line or one item a line. Of an item that is
// a list itself, the first word counts.
func yamlList(text, key string) (list []string, found bool) {
	open := false
	add := func(item string) {
		item, _, _ = strings.Cut(strings.TrimLeft(strings.TrimSpace(item), "["), ",")
		if item = unquote(strings.TrimRight(item, " ]")); item != "" && len(list) < 1000 {
			list = append(list, item)
		}
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\r\n "), " #")
		trimmed := strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(trimmed, key+":")
		if rest = strings.TrimSpace(rest); ok {
			found, list = true, nil
			if open = rest == ""; strings.HasPrefix(rest, "[") {
				inside, _, _ := strings.Cut(rest[1:], "]")
				for s := range strings.SplitSeq(inside, ",") {
					add(s)
				}
			}
			continue
		}
		item, ok := strings.CutPrefix(trimmed, "- ")
		if open && ok {
			add(item)
		} else if trimmed != "" && trimmed[0] != '#' {
			open = false
		}
	}
	return list, found
}

// networkDisabled: cloud-init is told to leave the network as it is.
func networkDisabled(text string) bool {
	key := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n ")
		if noNetwork.MatchString(line) || key == "network:" && strings.HasPrefix(strings.TrimSpace(line), "config: disabled") {
			return true
		}
		if line != "" && line[0] != ' ' && line[0] != '#' {
			key = line
		}
	}
	return false
}

// growRoot checks that the root partition becomes as large as the machine's disk.
func (c *checker) growRoot() {
	i := slices.IndexFunc(c.Partitions, func(p Partition) bool { return p.Mount == "/" })
	if c.tree == nil || i < 0 || c.Partitions[i].Number == 0 {
		return
	}
	root := c.Partitions[i]
	var behind []string
	for _, p := range c.Partitions {
		if p.Start > root.Start {
			behind = append(behind, fmt.Sprintf("partition %d", p.Number))
		}
	}
	growpart := c.tree.any("/usr/bin/growpart", "/usr/local/bin/growpart", "/usr/sbin/growpart")
	resize := map[string]string{"xfs": "xfs_growfs"}[root.Content]
	if strings.HasPrefix(root.Content, "ext") {
		resize = "resize2fs"
	}
	switch {
	case len(behind) > 0:
		c.add(GrowRoot, Warning, "Make the root partition the last one of the disk.", "%s cannot grow: %s lies behind it", c.describe(volume{part: i}), strings.Join(behind, ", "))
	case c.tree.any("/usr/share/initramfs-tools/scripts/local-bottom/growroot", "/usr/lib/dracut/modules.d/50growroot"), len(c.files("/etc/repart.d", ".conf"))+len(c.files("/usr/lib/repart.d", ".conf")) > 0:
		c.add(GrowRoot, OK, "", "the initramfs or systemd-repart enlarges the root partition")
	case c.cloud.grows && !growpart:
		c.absent(GrowRoot, Warning, "Install cloud-guest-utils (Debian, Ubuntu) or cloud-utils-growpart (Red Hat, SUSE).", "cloud-init cannot enlarge the root partition: growpart is not installed")
	case c.cloud.grows && resize != "" && !c.tree.any("/sbin/"+resize, "/usr/sbin/"+resize):
		c.absent(GrowRoot, Warning, "Install "+map[string]string{"resize2fs": "e2fsprogs", "xfs_growfs": "xfsprogs"}[resize]+".", "cloud-init enlarges the root partition, but not its file system: "+resize+" is not installed")
	case c.cloud.grows:
		c.add(GrowRoot, OK, "", "cloud-init enlarges the root partition with growpart")
	default:
		c.absent(GrowRoot, Warning, "Let cloud-init run, with growpart, or enlarge the partition in each machine by hand.", "nothing enlarges the root partition: the machine uses as much of its disk as the image has")
	}
}
