package diskcheck

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// sshServers are the units of OpenSSH's and Dropbear's servers, as distributions name
// them.
var sshServers = []string{"ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "dropbear.service"}

// sshServer checks that an SSH server runs, with keys, and settles c.ssh.
func (c *checker) sshServer() {
	if !c.needRoot(SSHServer) {
		return
	}
	openssh := c.tree.any("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/lib/ssh/sshd")
	const fix = "Enable it: systemctl unmask ssh, then systemctl enable ssh (on Red Hat and SUSE sshd)."
	switch {
	case !openssh && !c.tree.any("/usr/sbin/dropbear", "/usr/bin/dropbear"):
		c.absent(SSHServer, Warning, "Install openssh-server, unless the machine shall be reached by other means.", "no SSH server is installed")
		return
	case !c.services.runs(sshServers...):
		c.add(SSHServer, Warning, fix, "an SSH server is installed, but it will not run: its unit is %s", c.services.state(sshServers...))
		return
	case c.tree.Exists("/etc/ssh/sshd_not_to_be_run"):
		c.add(SSHServer, Warning, "Remove that file.", "an SSH server is installed, but /etc/ssh/sshd_not_to_be_run keeps it from running")
		return
	}
	c.ssh = true
	c.add(SSHServer, OK, "", "an SSH server is installed and will run")
	if openssh {
		c.sshd = c.sshdConfig()
		c.hostKeys()
	}
}

// sshdConfig reads sshd_config(5): of several lines for one setting the first counts,
// but for HostKey; what follows Match is for some alone.
func (c *checker) sshdConfig() map[string][]string {
	settings := map[string][]string{}
	var read func(file string, depth int)
	read = func(file string, depth int) {
		text, err := c.text(file)
		if err != nil || depth > 3 {
			return
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(strings.Replace(line, "=", " ", 1))
			if len(f) < 2 || f[0][0] == '#' {
				continue
			}
			switch key := strings.ToLower(f[0]); key {
			case "match":
				return
			case "include":
				for _, pattern := range f[1:] {
					if !path.IsAbs(pattern) {
						pattern = path.Join("/etc/ssh", pattern)
					}
					for _, name := range c.files(path.Dir(pattern), "") {
						if ok, _ := path.Match(path.Base(pattern), path.Base(name)); ok {
							read(name, depth+1)
						}
					}
				}
			default:
				if len(settings[key]) < maxFiles {
					settings[key] = append(settings[key], unquote(f[1]))
				}
			}
		}
	}
	read("/etc/ssh/sshd_config", 0)
	return settings
}

// sshSetting is a setting of sshd, in lower case.
func (c *checker) sshSetting(key, usual string) string {
	if list := c.sshd[key]; len(list) > 0 {
		return strings.ToLower(list[0])
	}
	return usual
}

// keyMaker is a command that makes host keys.
var keyMaker = regexp.MustCompile(`(?m)^\s*[^#\s].*(ssh-keygen\s+(-\S+\s+)*-A\b|sshd-keygen|ssh-keygen\s.*-f\s*\S*ssh_host_|sshd-gen-keys|dpkg-reconfigure\s+(-\S+\s+\S*\s*)*openssh-server)`)

// makesKeys names a unit or script, besides cloud-init, that makes host keys before the
// server starts; "" if there is none.
func (c *checker) makesKeys() string {
	server := ""
	for _, name := range sshServers {
		server += c.services.text(name)
	}
	if keyMaker.MatchString(server) {
		return "the SSH server's unit"
	}
	seen := map[string]bool{}
	for _, dir := range unitFolders {
		for _, file := range c.files(dir, ".service") {
			name := path.Base(file)
			if seen[name] || !strings.Contains(name, "ssh") && !strings.Contains(name, "key") && dir != unitFolders[0] {
				continue
			}
			seen[name] = true
			text := c.services.text(name)
			if !keyMaker.MatchString(text) || strings.Contains(text, "ConditionFirstBoot=yes") && c.hasMachineID() {
				continue
			}
			template, _, isTemplate := strings.Cut(name, "@")
			if c.services.one(name) == unitEnabled || c.services.one(name) != unitMasked && (strings.Contains(server, name) || isTemplate && strings.Contains(server, template)) {
				return name
			}
		}
	}
	for _, script := range []string{"/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/sshd", "/etc/rc.d/init.d/sshd"} {
		if text, err := c.text(script); err == nil && (keyMaker.MatchString(text) || strings.Contains(text, "ssh-keygen")) {
			return script
		}
	}
	return ""
}

// hasMachineID: the machine's id is in the image, so that no start is the first.
func (c *checker) hasMachineID() bool {
	text, err := c.text("/etc/machine-id")
	return err == nil && strings.TrimSpace(text) != "uninitialized"
}

// hostKeys looks for keys that all machines of the image would share, and for what
// makes them where there are none: sshd does not start without.
func (c *checker) hostKeys() {
	var keys []string
	if named := c.sshd["hostkey"]; len(named) > 0 {
		for _, file := range named {
			if c.tree.Exists(file) {
				keys = append(keys, file)
			}
		}
	} else {
		list, _ := c.tree.ReadDir("/etc/ssh")
		for _, e := range list {
			if ok, _ := path.Match("ssh_host_*_key", e.Name); ok {
				keys = append(keys, e.Name)
			}
		}
	}
	names := shown(strings.Join(keys, ", "))
	switch maker := c.makesKeys(); {
	case len(keys) == 0 && c.cloud.keys:
		c.absent(SSHHostKeys, OK, "", "there are no host keys; cloud-init makes them at the first start")
	case len(keys) == 0 && maker != "":
		c.absent(SSHHostKeys, OK, "", "there are no host keys; "+shown(maker)+" makes them at the first start")
	case len(keys) == 0:
		c.ssh = false
		c.absent(SSHHostKeys, Error, "Have them made: let cloud-init run, or enable a unit that runs ssh-keygen -A before the SSH server.",
			"there are no host keys, and nothing on this disk makes them: the SSH server will not start")
	case c.cloud.keys && !c.cloudCfg.keepKeys:
		c.add(SSHHostKeys, OK, "", "there are host keys (%s); cloud-init makes new ones at the first start", names)
	case c.cloud.keys:
		c.add(SSHHostKeys, Warning, "Remove the keys, or take ssh_deletekeys: false out.", "there are host keys (%s), and ssh_deletekeys: false has cloud-init keep them", names)
	default:
		c.add(SSHHostKeys, Warning, "Remove /etc/ssh/ssh_host_*, and see to it that new ones are made at the next start (ssh-keygen -A).", "there are host keys: %s", names)
	}
}

// directories are services that know users whom the disk does not.
var directories = []string{"sssd.service", "winbind.service", "nslcd.service", "ignition-fetch.service", "google-guest-agent.service", "waagent.service", "walinuxagent.service"}

// access checks that somebody can log in: over SSH, or else at the console.
func (c *checker) access() {
	if !c.needRoot(Access) {
		return
	}
	if c.cloud.login && c.ssh {
		c.add(Access, OK, "", "cloud-init brings the owner's key or password")
		return
	}
	for _, name := range directories {
		if c.services.systemd && c.services.state(name) == unitEnabled {
			c.add(Access, OK, "", "users come from %s", name)
			return
		}
	}
	if !c.tree.Exists("/etc/shadow") {
		c.absent(Access, Unknown, "", "there is no /etc/shadow to tell who may log in")
		return
	}
	var overSSH, console []string
	for _, u := range c.users() {
		if u.password {
			console = append(console, u.name)
		}
		root := c.sshSetting("permitrootlogin", "prohibit-password")
		if u.key && c.sshSetting("pubkeyauthentication", "yes") != "no" && (u.name != "root" || root != "no") ||
			u.password && (!u.empty || c.sshSetting("permitemptypasswords", "no") == "yes") &&
				c.sshSetting("passwordauthentication", "yes") != "no" && (u.name != "root" || root == "yes") {
			overSSH = append(overSSH, u.name)
		}
	}
	const fix = "Let cloud-init run, which brings the owner's key, or set a password or an authorised key for a user."
	switch {
	case c.ssh && len(overSSH) > 0:
		c.add(Access, OK, "", "over SSH as %s", shown(strings.Join(overSSH, ", ")))
	case len(console) > 0:
		c.add(Access, Warning, fix, "over the network nobody can log in, at the console %s can", shown(strings.Join(console, ", ")))
	case c.cloud.login:
		c.absent(Access, Error, "Let an SSH server run, or set a password for the console.",
			"nobody can log in: cloud-init brings the owner's key, but no SSH server runs, and no account has a password for the console")
	default:
		c.absent(Access, Error, fix, "nobody can log in: no account has a password or, over SSH, an authorised key, and cloud-init brings none")
	}
}

// user is one who may have a way in.
type user struct {
	name          string
	password, key bool
	empty         bool // the password is none: sshd refuses it unless it is told otherwise
}

// users are those of /etc/passwd with a shell.
func (c *checker) users() (list []user) {
	shadow, _ := c.text("/etc/shadow")
	passwords, empty := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(shadow) {
		// crypt(5): a hash begins with $ or, of DES, is 13 letters long; none at all
		// lets everybody in; anything else, such as ! or *, nobody.
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) > 1 && (f[1] == "" || strings.HasPrefix(f[1], "$") || len(f[1]) == 13 && !strings.ContainsAny(f[1], "!*")) {
			passwords[f[0]], empty[f[0]] = true, f[1] == ""
		}
	}
	text, _ := c.text("/etc/passwd")
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 || len(list) == maxFiles || slices.Contains([]string{"nologin", "false", "sync", "shutdown", "halt"}, path.Base(f[6])) {
			continue
		}
		u := user{name: f[0], password: passwords[f[0]], empty: empty[f[0]]}
		for _, name := range []string{".ssh/authorized_keys", ".ssh/authorized_keys2"} {
			if n, err := c.tree.Stat(path.Join("/", f[5], name)); err == nil && n.Size > 0 {
				u.key = true
			}
		}
		if u.password || u.key {
			list = append(list, u)
		}
	}
	return list
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
