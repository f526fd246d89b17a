package diskcheck

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// dataSources are those of cloud-init's that read what this cloud offers, the
// metadata service and the configuration drive of OpenStack. An empty list, or
// none, lets cloud-init look for itself.
var dataSources = []string{"OpenStack", "ConfigDrive", "Ec2"}

var (
	sourceList = regexp.MustCompile(`^datasource_list:\s*\[([^\]]*)\]`)
	noNetwork  = regexp.MustCompile(`^network:\s*\{\s*config:\s*["']?disabled`)
)

// cloudInit checks that cloud-init is there, will run, and looks at this cloud.
func (c *checker) cloudInit() {
	if !c.needRoot(CloudInit) {
		return
	}
	const fix = "Install cloud-init, with the data sources OpenStack and ConfigDrive."
	if !c.tree.Exists("/usr/bin/cloud-init") && !c.tree.Exists("/usr/local/bin/cloud-init") && !c.tree.Exists("/usr/libexec/cloud-init") {
		c.absent(CloudInit, Warning, fix, "cloud-init is not installed")
		return
	}
	if c.tree.Exists("/etc/cloud/cloud-init.disabled") {
		c.add(CloudInit, Warning, "Remove that file.", "cloud-init is installed, but /etc/cloud/cloud-init.disabled keeps it from running")
		return
	}
	c.cloud = true
	var sources []string
	from := ""
	for _, file := range append([]string{"/etc/cloud/cloud.cfg"}, c.files("/etc/cloud/cloud.cfg.d", ".cfg")...) {
		text, err := c.text(file)
		if err != nil {
			continue
		}
		if list, ok := dataSourceList(text); ok {
			sources, from = list, file
		}
		c.noNetwork = c.noNetwork || networkDisabled(text)
	}
	if from == "" || len(sources) == 0 || slices.ContainsFunc(sources, func(s string) bool { return slices.Contains(dataSources, s) }) {
		c.add(CloudInit, OK, "", "cloud-init is installed")
		return
	}
	c.add(CloudInit, Warning, "Write datasource_list: [ OpenStack, ConfigDrive, None ] there.",
		"cloud-init is installed, but %s lets it look only for %s", from, shown(strings.Join(sources, ", ")))
}

// dataSourceList reads datasource_list, on one line or one item a line.
func dataSourceList(text string) (list []string, found bool) {
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n ")
		if m := sourceList.FindStringSubmatch(line); m != nil {
			found, list = true, nil
			for s := range strings.SplitSeq(m[1], ",") {
				if s = unquote(s); s != "" {
					list = append(list, s)
				}
			}
			continue
		}
		if line == "datasource_list:" {
			found, open, list = true, true, nil
			continue
		}
		item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if open = open && ok; open {
			list = append(list, unquote(item))
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

// hostKeys looks for keys that all machines of the image would share.
func (c *checker) hostKeys() {
	if !c.needRoot(SSHHostKeys) {
		return
	}
	list, _ := c.tree.ReadDir("/etc/ssh")
	var keys []string
	for _, e := range list {
		if ok, _ := path.Match("ssh_host_*_key", e.Name); ok {
			keys = append(keys, e.Name)
		}
	}
	switch {
	case len(keys) == 0:
		c.absent(SSHHostKeys, OK, "", "/etc/ssh has no host keys")
	case c.cloud:
		c.add(SSHHostKeys, OK, "", "/etc/ssh has host keys (%s); cloud-init makes new ones at the first start", shown(strings.Join(keys, ", ")))
	default:
		c.add(SSHHostKeys, Warning, "Remove /etc/ssh/ssh_host_*, and see to it that new ones are made at the next start (ssh-keygen -A).",
			"/etc/ssh has host keys: %s", shown(strings.Join(keys, ", ")))
	}
}

// machineID looks for an id that all machines of the image would share,
// machine-id(5).
func (c *checker) machineID() {
	if !c.needRoot(MachineID) {
		return
	}
	text, _ := c.text("/etc/machine-id")
	switch text = strings.TrimSpace(text); {
	case text == "" || text == "uninitialized":
		c.absent(MachineID, OK, "", "/etc/machine-id is empty or not there; a new one is made at the first start")
	default:
		c.add(MachineID, Warning, "Empty the file: truncate -s 0 /etc/machine-id.", "/etc/machine-id holds %s", shown(text))
	}
}
