package diskcheck

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// card is the configuration of a network card, or of several.
type card struct {
	file, name string
	dhcp       bool // of IPv4
	auto6      bool // DHCP or autoconfiguration of IPv6
	static     bool
	mac        bool // applies to one hardware address alone
	named      bool // applies to one predictable name alone
}

// network checks that a card asks for its address, in any of the ways in which
// distributions configure that.
func (c *checker) network() {
	if !c.needRoot(Network) {
		return
	}
	cards := slices.Concat(c.netplan(), c.ifupdown(), c.keyfiles(), c.ifcfg(), c.networkd())
	var dhcp, auto6, static, bound, named []string
	for _, n := range cards {
		label := shown(n.file) + " (" + shown(n.name) + ")"
		switch {
		case n.dhcp:
			dhcp = append(dhcp, label)
		case n.static:
			static = append(static, label)
		case n.auto6:
			auto6 = append(auto6, label)
		}
		if n.mac {
			bound = append(bound, label)
		}
		if n.named && (n.dhcp || n.auto6) {
			named = append(named, label)
		}
	}
	// IPv6 that configures itself does not make up for a fixed address of IPv4.
	if len(dhcp) == 0 && len(static) == 0 {
		dhcp = auto6
	}
	const fix = "Set it to DHCP, and take the address, the gateway and the name servers out."
	manages := c.cloud && !c.noNetwork
	switch {
	case len(static) > 0 && len(dhcp) == 0 && !manages:
		c.add(Network, Error, fix, "only fixed addresses: %s", list(static))
	case len(static) > 0:
		c.add(Network, Warning, fix, "fixed addresses: %s", list(static))
	case len(dhcp) > 0:
		c.add(Network, OK, "", "DHCP: %s", list(dhcp))
	case manages:
		c.absent(Network, OK, "", "nothing is configured; cloud-init does it at the first start")
	case c.tree.Exists("/usr/sbin/NetworkManager"):
		c.absent(Network, OK, "", "nothing is configured; NetworkManager then uses DHCP on every card")
	case len(cards) == 0:
		c.absent(Network, Error, "Configure DHCP for the first network card, or install cloud-init, which does.", "no network card is configured, and cloud-init does not do it")
	default:
		c.add(Network, Unknown, "", "%s: neither DHCP nor a fixed address was found", shown(cards[0].file))
	}
	for _, file := range c.files("/etc/udev/rules.d", "-persistent-net.rules", "-persistent-net-generator.rules") {
		if text, err := c.text(file); err == nil && hardwareRule.MatchString(text) {
			bound = append(bound, file)
		}
	}
	if len(dhcp) > 0 && len(named) == len(dhcp) && !manages {
		c.add(NetworkNames, Warning, "Have the setting match any card (en*, or a driver), install cloud-init, or start with net.ifnames=0 and name the card eth0.",
			"DHCP is for the names of cards that this machine has and another may not: %s", list(named))
	} else if len(bound) == 0 {
		c.absent(NetworkNames, OK, "", "no setting goes by a hardware address or by one machine's name of a card")
	}
	if len(bound) > 0 {
		c.add(NetworkNames, Warning, "Take the hardware address out (HWADDR, mac-address, match: macaddress); remove the udev rules.", "goes by a hardware address: %s", list(bound))
	}
}

// predictable are names of cards that go by their place in the machine, or by their
// address, without wildcards (systemd.net-naming-scheme(7)).
var predictable = regexp.MustCompile(`^en[bcopsvx][0-9a-zA-Z]+$`)

var hardwareRule = regexp.MustCompile(`(?m)^[^#\n]*ATTR\{address\}==`)

func list(names []string) string {
	if len(names) > 5 {
		names = append(names[:5:5], "…")
	}
	return strings.Join(names, ", ")
}

// netplan reads /etc/netplan. YAML is read by its indentation, as netplan's files
// are written; what stands in braces is searched for the same words.
func (c *checker) netplan() (cards []card) {
	for _, file := range c.files("/etc/netplan", ".yaml") {
		if text, err := c.text(file); err == nil {
			for _, n := range parseNetplan(text) {
				n.file = file
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
	flowStatic = regexp.MustCompile(`(^|[{, ])addresses["']?: *\[ *["']?[0-9a-fA-F]`)
	flowMAC    = regexp.MustCompile(`macaddress["']?: *["']?[0-9a-fA-F]`)
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
			n.mac, n.named = flowMAC.MatchString(value), predictable.MatchString(n.name) && !flowMatch.MatchString(value)
		case len(keys) == 3:
			switch keys[2].key {
			case "dhcp4":
				n.dhcp = isYes(value)
			case "dhcp6":
				n.auto6 = isYes(value)
			case "addresses":
				n.static = value != "[]"
			case "match": // the name is one for people
				n.named = false
				n.mac = n.mac || flowMAC.MatchString(value)
			}
		case len(keys) == 4 && keys[2].key == "match" && keys[3].key == "macaddress":
			n.mac = true
		}
	}
	return cards
}

func isYes(s string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(unquote(s)))
}

// ifupdown reads /etc/network/interfaces, interfaces(5).
func (c *checker) ifupdown() (cards []card) {
	for _, file := range append([]string{"/etc/network/interfaces"}, c.files("/etc/network/interfaces.d", "")...) {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			switch f := strings.Fields(line); {
			case len(f) >= 4 && f[0] == "iface" && f[1] != "lo" && len(cards) < maxFiles:
				auto := f[3] == "dhcp" || f[3] == "auto"
				cards = append(cards, card{
					file: file, name: f[1], dhcp: auto && f[2] != "inet6", auto6: auto && f[2] == "inet6",
					static: f[3] == "static", named: predictable.MatchString(f[1]),
				})
			case len(f) == 2 && f[0] == "hwaddress" && len(cards) > 0:
				cards[len(cards)-1].mac = true
			}
		}
	}
	return cards
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
			cards = append(cards, card{
				file: file, name: v["connection.id"],
				dhcp:   v["ipv4.method"] == "auto",
				auto6:  v["ipv6.method"] == "auto",
				static: v["ipv4.method"] == "manual",
				named:  predictable.MatchString(v["connection.interface-name"]),
				mac:    v["ethernet.mac-address"] != "" || v["802-3-ethernet.mac-address"] != "",
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
			address := v[".IPADDR"] + v[".IPADDR0"] + v[".IPADDR_0"]
			cards = append(cards, card{
				file: file, name: name, dhcp: strings.HasPrefix(proto, "dhcp") || proto == "bootp",
				static: !strings.HasPrefix(proto, "dhcp") && address != "", mac: v[".HWADDR"] != "",
				named: predictable.MatchString(name) || predictable.MatchString(v[".DEVICE"]),
			})
		}
	}
	return cards
}

// networkd reads systemd's *.network files, systemd.network(5). One of the same
// name in /etc stands for that in /usr/lib, whose usual ones are for containers.
func (c *checker) networkd() (cards []card) {
	for _, file := range c.files("/etc/systemd/network", ".network") {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		v := parseINI(text)
		dhcp := strings.ToLower(v["Network.DHCP"])
		cards = append(cards, card{
			file: file, name: v["Match.Name"], dhcp: isYes(dhcp) || dhcp == "ipv4" || dhcp == "both", auto6: dhcp == "ipv6",
			named:  predictable.MatchString(v["Match.Name"]),
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
