package diskcheck

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
)

// card is the configuration of a network card, or of several.
type card struct {
	file, name string
	match      string // the names it is for, patterns of path.Match with spaces between; "": any
	dhcp       bool   // of IPv4
	auto6      bool   // DHCP or autoconfiguration of IPv6
	static     bool
	mac        bool   // applies to one hardware address alone
	dead       string // why nothing makes use of it
	off        bool   // it says itself that the start leaves its cards alone
}

func (n card) label() string { return shown(n.file) + " (" + shown(n.name) + ")" }

// network checks that a card asks for its address, in any of the ways in which
// distributions configure that, and that something on the disk acts on it.
func (c *checker) network() {
	if !c.needRoot(Network) {
		return
	}
	cards := slices.Concat(c.netplan(), c.ifupdown(), c.keyfiles(), c.ifcfg(), c.networkd())
	var dhcp, auto6, static, bound []card
	for _, n := range cards {
		switch {
		case n.dhcp:
			dhcp = append(dhcp, n)
		case n.static:
			static = append(static, n)
		case n.auto6:
			auto6 = append(auto6, n)
		}
		if n.mac {
			bound = append(bound, n)
		}
	}
	// IPv6 that configures itself does not make up for a fixed address of IPv4.
	if len(dhcp) == 0 && len(static) == 0 {
		dhcp = auto6
	}
	managed, idle := c.cloud.network, ""
	if managed {
		if idle = c.noRenderer(); idle != "" {
			managed = false
		}
	}
	sure, maybe, strangers, dead := c.reach(dhcp)
	const fix = "Set it to DHCP, and take the address, the gateway and the name servers out."
	automatic := c.automatic()
	if slices.ContainsFunc(cards, func(n card) bool { return n.off && !n.mac && slices.ContainsFunc(c.cardNames(), n.covers) }) {
		automatic = "" // a card that has a setting is not one that nobody configured
	}
	switch {
	case len(static) > 0 && len(dhcp) == 0 && !managed:
		c.add(Network, Error, fix, "only fixed addresses: %s", labels(static))
	case len(static) > 0:
		c.add(Network, Warning, fix, "fixed addresses: %s", labels(static))
	case managed && len(dhcp) == 0:
		c.absent(Network, OK, "", "nothing is configured; cloud-init does it at the first start")
	case managed:
		c.add(Network, OK, "", "cloud-init configures it at the first start; DHCP: %s", labels(dhcp))
	case len(sure)+len(maybe) > 0:
		c.add(Network, OK, "", "DHCP: %s", labels(append(sure, maybe...)))
	case automatic != "":
		c.absent(Network, OK, "", "nothing is configured; "+automatic+" then uses DHCP on every card")
	case len(dead) > 0:
		c.absent(Network, Error, "Have the setting brought up at the start, install and enable what reads it, or install cloud-init with netplan or ifupdown.",
			"nothing acts on the settings: "+strings.Join(dead, "; "))
	case len(strangers) > 0:
		// said below
	case idle != "":
		c.absent(Network, Error, "Install netplan.io, ifupdown with isc-dhcp-client, or NetworkManager.", "cloud-init would configure the network, but "+idle)
	case len(cards) == 0:
		c.absent(Network, Error, "Configure DHCP for the first network card, or install cloud-init, which does.", "no network card is configured, and cloud-init does not do it")
	default:
		c.add(Network, Unknown, "", "%s: neither DHCP nor a fixed address was found", shown(cards[0].file))
	}
	const rename = "Have the setting match any card (en*, or a driver), install cloud-init, or start with net.ifnames=0 and name the card eth0."
	for _, file := range c.files("/etc/udev/rules.d", "-persistent-net.rules", "-persistent-net-generator.rules") {
		if text, err := c.text(file); err == nil && hardwareRule.MatchString(text) {
			bound = append(bound, card{file: file, name: "udev"})
		}
	}
	switch {
	case managed || len(sure) > 0 || automatic != "" || len(static) > 0 && len(dhcp) == 0:
		if len(bound) == 0 {
			c.absent(NetworkNames, OK, "", "no setting goes by a hardware address or by one machine's name of a card")
		}
	case len(maybe) > 0:
		c.add(NetworkNames, Warning, rename, "DHCP is for a name that depends on where the card is plugged in, so that not every machine has it: %s", labels(maybe))
	case len(strangers) > 0:
		c.add(NetworkNames, Error, rename, "DHCP is for cards that the machine will not have: %s", labels(strangers))
		return
	}
	if len(bound) > 0 {
		c.add(NetworkNames, Warning, "Take the hardware address out (HWADDR, mac-address, match: macaddress); remove the udev rules.", "goes by a hardware address: %s", labels(bound))
	}
}

// reach sorts settings of DHCP by whether the machine's card is among those they are
// for: surely, maybe or not; and what is wrong with those that nothing reads.
func (c *checker) reach(dhcp []card) (sure, maybe, strangers []card, dead []string) {
	names := c.cardNames()
	covered := make([]bool, len(names))
	for _, n := range dhcp {
		some := false
		for i, name := range names {
			if n.dead == "" && !n.mac && n.covers(name) {
				covered[i], some = true, true
			}
		}
		switch {
		case n.dead != "" && len(dead) < 5:
			dead = append(dead, n.label()+": "+n.dead)
		case some:
			maybe = append(maybe, n)
		case n.dead == "":
			strangers = append(strangers, n)
		}
	}
	if !slices.Contains(covered, false) {
		return maybe, nil, strangers, dead
	}
	return nil, maybe, strangers, dead
}

// covers reports whether a setting is for the card of this name.
func (n card) covers(name string) bool {
	if n.match == "" {
		return true
	}
	for pattern := range strings.FieldsSeq(n.match) {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// usualNames are what systemd names a virtio card (systemd.net-naming-scheme(7)): by
// its slot where the firmware tells one, as on QEMU's older machine "pc" and in clouds,
// else by bus and slot, as on the machine "q35". A setting for all of them is for any.
var usualNames = []string{"ens3", "ens4", "ens5", "ens6", "enp0s1", "enp0s2", "enp0s3", "enp1s0", "enp2s0", "enp6s0", "enp7s0"}

// cardNames are the names that the machine's first card may have.
func (c *checker) cardNames() []string {
	masked := func(names ...string) bool {
		for _, name := range names {
			if target, err := c.tree.Readlink(name); err == nil && target == "/dev/null" {
				return true
			}
		}
		return false
	}
	if c.option("net.ifnames=0") || masked("/etc/systemd/network/99-default.link", "/etc/udev/rules.d/80-net-setup-link.rules", "/etc/udev/rules.d/80-net-name-slot.rules") ||
		!c.tree.any("/usr/lib/systemd/network/99-default.link", "/lib/systemd/network/99-default.link", "/usr/lib/udev/rules.d/80-net-setup-link.rules", "/lib/udev/rules.d/80-net-name-slot.rules") {
		return []string{"eth0"}
	}
	for _, file := range c.files("/etc/systemd/network", ".link") {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		v := parseINI(text)
		driver := v["Match.Driver"]
		if v["Link.Name"] != "" && v["Match.MACAddress"]+v["Match.PermanentMACAddress"]+v["Match.Path"] == "" && (driver == "" || strings.Contains(driver, "virtio")) {
			return []string{v["Link.Name"]}
		}
	}
	return usualNames
}

// automatic names what uses DHCP on every card that nobody configured; "" if nothing
// does.
func (c *checker) automatic() string {
	switch {
	case c.tree.any("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager") && c.services.runs("NetworkManager.service"):
		for _, file := range append([]string{"/etc/NetworkManager/NetworkManager.conf"}, slices.Concat(c.files("/etc/NetworkManager/conf.d", ".conf"), c.files("/usr/lib/NetworkManager/conf.d", ".conf"))...) {
			if text, err := c.text(file); err == nil && parseINI(text)["main.no-auto-default"] == "*" {
				return ""
			}
		}
		return "NetworkManager"
	case c.services.systemd && c.services.runs("dhcpcd.service"):
		return "dhcpcd"
	case c.services.systemd && c.services.runs("connman.service"):
		return "ConnMan"
	case c.tree.Exists("/etc/network/cloud-ifupdown-helper") && c.noIfupdown("") == "":
		return "Debian's cloud-ifupdown-helper"
	}
	return ""
}

// Why a network stack does not act on its files; "" if it does.

func (c *checker) noNetworkd() string {
	if !c.services.systemd {
		return ""
	}
	switch state := c.services.state("systemd-networkd.service"); {
	case state == unitAbsent:
		return "systemd-networkd is not installed"
	case state == unitMasked:
		return "systemd-networkd is masked"
	}
	return ""
}

func (c *checker) noNetworkManager() string {
	switch {
	case !c.tree.any("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"):
		return "NetworkManager is not installed"
	case !c.services.runs("NetworkManager.service"):
		return "NetworkManager is " + c.services.state("NetworkManager.service").String()
	}
	return ""
}

func (c *checker) noNetplan(renderer string) string {
	switch {
	case !c.tree.any("/usr/sbin/netplan", "/usr/bin/netplan", "/sbin/netplan"):
		return "netplan is not installed"
	case renderer == "NetworkManager":
		return c.noNetworkManager()
	}
	return c.noNetworkd() // which netplan's generator enables
}

// noIfupdown is for a setting that asks for a client of DHCP, or for none.
func (c *checker) noIfupdown(method string) string {
	switch {
	case !c.tree.any("/sbin/ifup", "/usr/sbin/ifup"):
		return "ifupdown is not installed"
	case !c.services.runs("networking.service"):
		return "networking.service is " + c.services.state("networking.service").String()
	case method == "dhcp" && !c.tree.any("/sbin/dhclient", "/usr/sbin/dhclient", "/sbin/dhcpcd", "/usr/sbin/dhcpcd", "/sbin/udhcpc", "/usr/sbin/udhcpc", "/usr/bin/udhcpc", "/bin/busybox", "/usr/bin/busybox"):
		return "no client of DHCP is installed (isc-dhcp-client)"
	}
	return ""
}

// noRenderer says why cloud-init can't have a card configured: it writes for the first
// of the network stacks that it finds, in this order unless its configuration names
// another one, and that stack must be able to run.
func (c *checker) noRenderer() string {
	order := c.cloudCfg.renderers
	if len(order) == 0 {
		order = []string{"eni", "sysconfig", "netplan", "network-manager", "networkd"}
	}
	for _, name := range order {
		switch name {
		case "eni":
			if c.tree.any("/sbin/ifup", "/usr/sbin/ifup") && c.tree.Exists("/etc/network/interfaces") {
				if !c.services.can("networking.service") {
					return "it does so by ifupdown, whose networking.service is " + c.services.state("networking.service").String()
				}
				if !c.services.systemd || c.services.runs("networking.service") {
					return c.noIfupdown("dhcp")
				}
				return ""
			}
		case "sysconfig":
			if c.tree.any("/etc/sysconfig/network-scripts", "/etc/sysconfig/network", "/etc/sysconfig/network/config") {
				return ""
			}
		case "netplan":
			if c.tree.any("/usr/sbin/netplan", "/sbin/netplan") {
				if why := c.noNetworkd(); why != "" && c.noNetworkManager() != "" {
					return "it does so by netplan, and " + why
				}
				return ""
			}
		case "network-manager":
			if c.noNetworkManager() == "" {
				return ""
			}
		case "networkd":
			if why := c.noNetworkd(); why != "" || !c.services.systemd {
				continue
			}
			return ""
		}
	}
	if !c.services.systemd {
		return ""
	}
	return "there is nothing that it can do so with: neither ifupdown, netplan, NetworkManager nor systemd-networkd"
}

var hardwareRule = regexp.MustCompile(`(?m)^[^#\n]*ATTR\{address\}==`)

func labels(cards []card) string {
	var names []string
	for _, n := range cards {
		if len(names) == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, n.label())
	}
	return strings.Join(names, ", ")
}

// netplan reads /etc/netplan. YAML is read by its indentation, as netplan's files
// are written; what stands in braces is searched for the same words.
func (c *checker) netplan() (cards []card) {
	for _, file := range c.files("/etc/netplan", ".yaml") {
		if text, err := c.text(file); err == nil {
			dead := c.noNetplan(netplanRenderer.FindString(text))
			for _, n := range parseNetplan(text) {
				n.file, n.dead = file, dead
				cards = append(cards, n)
			}
		}
	}
	return cards
}

var (
	yamlKey    = regexp.MustCompile(`^( *)(?:- )?["']?([A-Za-z0-9_.*-]+)["']?:(.*)$`)
	flowDHCP   = regexp.MustCompile(`dhcp4["']?: *["']?(true|yes|on)\b`)
	flowAuto6  = regexp.MustCompile(`dhcp6["']?: *["']?(true|yes|on)\b`)
	flowMatch  = regexp.MustCompile(`\bmatch["']?: *\{`)
	flowName   = regexp.MustCompile(`\bname["']?: *["']?([^"',} ]+)`)
	flowStatic = regexp.MustCompile(`(^|[{, ])addresses["']?: *\[ *["']?[0-9a-fA-F]`)
	flowMAC    = regexp.MustCompile(`macaddress["']?: *["']?[0-9a-fA-F]`)

	netplanRenderer = regexp.MustCompile(`\bNetworkManager\b`)
)

func parseNetplan(text string) (cards []card) {
	type level struct {
		indent int
		key    string
	}
	var at []level
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\r\n "), " #")
		m := yamlKey.FindStringSubmatch(line)
		if m == nil || len(cards) == maxFiles {
			continue
		}
		indent, value := len(m[1]), strings.TrimSpace(m[3])
		for len(at) > 0 && at[len(at)-1].indent >= indent {
			at = at[:len(at)-1]
		}
		at = append(at, level{indent, m[2]})
		// network, kind of device, name, setting, …; cloud-init and people leave
		// network out at times.
		keys := at
		if len(keys) > 0 && keys[0].key == "network" {
			keys = keys[1:]
		}
		if len(keys) < 2 || !slices.Contains([]string{"ethernets", "bonds", "bridges", "vlans", "wifis"}, keys[0].key) {
			continue
		}
		if len(keys) == 2 {
			cards = append(cards, card{name: keys[1].key})
		}
		if len(cards) == 0 {
			continue
		}
		n := &cards[len(cards)-1]
		switch {
		case len(keys) == 2:
			n.dhcp, n.auto6, n.static = flowDHCP.MatchString(value), flowAuto6.MatchString(value), flowStatic.MatchString(value)
			n.mac = flowMAC.MatchString(value)
			if keys[0].key == "ethernets" {
				n.match = n.name
			}
			if flowMatch.MatchString(value) {
				n.match = flowWord(value)
			}
		case len(keys) == 3:
			switch keys[2].key {
			case "dhcp4":
				n.dhcp = isYes(value)
			case "dhcp6":
				n.auto6 = isYes(value)
			case "addresses":
				n.static = value != "[]"
			case "match": // the name is one for people
				n.match = flowWord(value)
				n.mac = n.mac || flowMAC.MatchString(value)
			}
		case len(keys) == 4 && keys[2].key == "match" && keys[3].key == "macaddress":
			n.mac = true
		case len(keys) == 4 && keys[2].key == "match" && keys[3].key == "name":
			n.match = unquote(value)
		}
	}
	return cards
}

// flowWord is the name in a match that stands in braces; "" if it goes by something
// else.
func flowWord(value string) string {
	if m := flowName.FindStringSubmatch(value); m != nil {
		return m[1]
	}
	return ""
}

func isYes(s string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(unquote(s)))
}

// ifupdown reads /etc/network/interfaces, interfaces(5), and the files that it
// includes.
func (c *checker) ifupdown() (cards []card) {
	files := []string{"/etc/network/interfaces"}
	var started []string // patterns of what is brought up at the start
	for i := 0; i < len(files) && i < maxFiles; i++ {
		text, err := c.text(files[i])
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			switch f[0] {
			case "source", "source-directory":
				if i == 0 {
					files = append(files, c.included(f[0], f[1])...)
				}
			case "auto", "allow-hotplug", "allow-auto":
				for _, name := range f[1:] {
					started = append(started, strings.TrimPrefix(name, "/"))
				}
			case "iface":
				if len(f) >= 4 && f[1] != "lo" && len(cards) < maxFiles {
					auto := f[3] == "dhcp" || f[3] == "auto"
					cards = append(cards, card{
						file: files[i], name: f[1], match: strings.TrimPrefix(f[1], "/"),
						dhcp: auto && f[2] != "inet6", auto6: auto && f[2] == "inet6", static: f[3] == "static", dead: c.noIfupdown(f[3]),
					})
				}
			case "hwaddress":
				if len(cards) > 0 {
					cards[len(cards)-1].mac = true
				}
			}
		}
	}
	for i := range cards {
		n := &cards[i]
		if n.dead == "" && !slices.ContainsFunc(started, func(pattern string) bool { ok, _ := path.Match(pattern, n.match); return ok || pattern == n.match }) {
			n.dead = "no line \"auto\" or \"allow-hotplug\" has it brought up"
		}
	}
	return cards
}

// included are the files of a line source or source-directory.
func (c *checker) included(word, what string) (files []string) {
	if !path.IsAbs(what) {
		what = path.Join("/etc/network", what)
	}
	if word == "source-directory" {
		return c.files(what, "")
	}
	for _, file := range c.files(path.Dir(what), "") {
		if ok, _ := path.Match(path.Base(what), path.Base(file)); ok {
			files = append(files, file)
		}
	}
	return files
}

// keyfiles reads NetworkManager's connections, nm-settings-keyfile(5).
func (c *checker) keyfiles() (cards []card) {
	for _, dir := range []string{"/etc/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections"} {
		for _, file := range c.files(dir, "") {
			text, err := c.text(file)
			if err != nil {
				continue
			}
			v := parseINI(text)
			if kind := v["connection.type"]; kind == "loopback" || kind == "wifi" || kind == "vpn" || kind == "wireguard" || len(v) == 0 {
				continue
			}
			dead, off := c.noNetworkManager(), v["connection.autoconnect"] != "" && !isYes(v["connection.autoconnect"])
			if off {
				dead = "autoconnect=" + v["connection.autoconnect"]
			}
			cards = append(cards, card{
				file: file, name: v["connection.id"], off: off,
				dhcp:   v["ipv4.method"] == "auto",
				auto6:  v["ipv6.method"] == "auto",
				static: v["ipv4.method"] == "manual",
				match:  v["connection.interface-name"], dead: dead,
				mac: v["ethernet.mac-address"] != "" || v["802-3-ethernet.mac-address"] != "",
			})
		}
	}
	return cards
}

// ifcfg reads the files of Red Hat's and SUSE's network scripts.
func (c *checker) ifcfg() (cards []card) {
	for _, dir := range []string{"/etc/sysconfig/network-scripts", "/etc/sysconfig/network"} {
		for _, file := range c.files(dir, "") {
			name, ok := strings.CutPrefix(path.Base(file), "ifcfg-")
			text, err := c.text(file)
			if !ok || name == "lo" || err != nil || strings.HasSuffix(name, ".bak") || strings.HasSuffix(name, "~") {
				continue
			}
			v := parseINI(text)
			proto := strings.ToLower(v[".BOOTPROTO"])
			dead := ""
			off := strings.EqualFold(v[".ONBOOT"], "no")
			if off {
				dead = "ONBOOT=no"
			}
			address := v[".IPADDR"] + v[".IPADDR0"] + v[".IPADDR_0"]
			cards = append(cards, card{
				file: file, name: name, dhcp: strings.HasPrefix(proto, "dhcp") || proto == "bootp",
				static: !strings.HasPrefix(proto, "dhcp") && address != "", mac: v[".HWADDR"] != "",
				match: cmp.Or(v[".DEVICE"], name), dead: dead, off: off,
			})
		}
	}
	return cards
}

// networkd reads systemd's *.network files, systemd.network(5). One of the same
// name in /etc stands for that in /usr/lib, whose usual ones are for containers.
func (c *checker) networkd() (cards []card) {
	dead := ""
	if !c.services.runs("systemd-networkd.service") && !c.tree.any("/usr/sbin/netplan", "/usr/bin/netplan") {
		dead = "systemd-networkd is " + c.services.state("systemd-networkd.service").String()
	}
	for _, file := range c.files("/etc/systemd/network", ".network") {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		v := parseINI(text)
		dhcp := strings.ToLower(v["Network.DHCP"])
		cards = append(cards, card{
			file: file, name: v["Match.Name"], dhcp: isYes(dhcp) || dhcp == "ipv4" || dhcp == "both", auto6: dhcp == "ipv6",
			match: v["Match.Name"], dead: dead,
			static: v["Network.Address"] != "" || v["Address.Address"] != "", mac: v["Match.MACAddress"] != "" || v["Match.PermanentMACAddress"] != "",
		})
	}
	return cards
}

// parseINI reads sections and their keys as section.key; without a section the
// section is empty. Of several values the last that is not empty counts.
func parseINI(text string) map[string]string {
	values := map[string]string{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			section = line[1 : len(line)-1]
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && unquote(value) != "" {
			values[section+"."+strings.TrimSpace(key)] = unquote(value)
		}
	}
	return values
}
