package diskcheck

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/filesystem"
)

// unitState is what systemd does with a unit at the start.
type unitState int

const (
	unitAbsent   unitState = iota // there is no such unit
	unitMasked                    // it can't be started
	unitDisabled                  // nothing asks for it
	unitEnabled
)

func (s unitState) String() string {
	return [...]string{"not there", "masked", "disabled", "enabled"}[s]
}

// unitFolders are where systemd looks for units, the most important first
// (systemd.unit(5)); /run is made anew at each start.
var unitFolders = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// services is what is known of the system's services. The zero value is a system
// without systemd, whose services are taken to run when they are installed.
type services struct {
	c       *checker
	systemd bool
	wanted  map[string]bool // by a target that a usual start reaches
	presets []preset        // nil unless the first start applies them
}

// preset is a line of systemd.preset(5).
type preset struct {
	pattern string
	enable  bool
}

// readServices finds out what systemd would start.
func (c *checker) readServices() {
	if c.tree == nil || !c.tree.any("/usr/lib/systemd/system", "/lib/systemd/system") {
		return
	}
	s := services{c: c, systemd: true, wanted: map[string]bool{}}
	for _, dir := range unitFolders {
		list, _ := c.tree.ReadDir(dir)
		for _, e := range list {
			target, ok := strings.CutSuffix(e.Name, ".wants")
			if !ok {
				target, ok = strings.CutSuffix(e.Name, ".requires")
			}
			if !ok || strings.HasPrefix(target, "rescue") || strings.HasPrefix(target, "emergency") {
				continue
			}
			units, _ := c.tree.ReadDir(path.Join(dir, e.Name))
			for _, u := range units {
				s.wanted[u.Name] = true
			}
		}
	}
	// Scripts of System V's init become services, unless a unit has their name.
	for _, dir := range []string{"/etc/rc2.d", "/etc/rc3.d"} {
		list, _ := c.tree.ReadDir(dir)
		for _, e := range list {
			if len(e.Name) > 3 && e.Name[0] == 'S' {
				s.wanted[e.Name[3:]+".sysv"] = true
			}
		}
	}
	if c.firstStart() {
		s.presets = c.readPresets()
	}
	c.services = s
}

// firstStart: the next start counts as the system's first, at which systemd enables
// what its presets name. It can write that only if the kernel mounts the root file
// system for writing (machine-id(5), systemd.preset(5)).
func (c *checker) firstStart() bool {
	text, err := c.text("/etc/machine-id")
	if err == nil && strings.TrimSpace(text) != "uninitialized" || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return !c.readOnlyRoot()
}

// readOnlyRoot: the kernel mounts the root file system for reading alone, as it does
// unless it is told rw. Which option comes last counts. Without a boot configuration
// that is not known, and false.
func (c *checker) readOnlyRoot() bool {
	options, known := c.kernelOptions()
	readOnly := known
	for _, option := range options {
		if option == "ro" || option == "rw" {
			readOnly = option == "ro"
		}
	}
	return readOnly
}

// kernelOptions are those of the kernel that is started; not known where there is no
// boot configuration that can be read.
func (c *checker) kernelOptions() (options []string, known bool) {
	i := slices.IndexFunc(c.entries, func(e bootEntry) bool { return !e.rescue() })
	if i < 0 {
		return nil, false
	}
	return strings.Fields(noQuotes.Replace(c.entries[i].options)), true
}

// option reports whether the kernel gets an option, such as net.ifnames=0.
func (c *checker) option(want string) bool {
	options, _ := c.kernelOptions()
	return slices.Contains(options, want)
}

// readPresets reads the rules in the order in which they count: by the name of the
// file, one in /etc in the place of one in /usr.
func (c *checker) readPresets() []preset {
	files := map[string]string{}
	for _, dir := range []string{"/lib/systemd/system-preset", "/usr/lib/systemd/system-preset", "/etc/systemd/system-preset"} {
		for _, file := range c.files(dir, ".preset") {
			files[path.Base(file)] = file
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	list := []preset{}
	for _, name := range names {
		text, err := c.text(files[name])
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) >= 2 && (f[0] == "enable" || f[0] == "disable") && len(list) < 1000 {
				list = append(list, preset{f[1], f[0] == "enable"})
			}
		}
	}
	return list
}

// state is that of the first of several names of a unit that is installed.
func (s services) state(names ...string) unitState {
	found := unitAbsent
	for _, name := range names {
		if state := s.one(name); found == unitAbsent || state == unitEnabled {
			found = state
		}
	}
	return found
}

func (s services) one(name string) unitState {
	installed := false
	for _, dir := range unitFolders {
		at := path.Join(dir, name)
		n, err := s.c.tree.Lstat(at)
		if err != nil {
			continue
		}
		if n.Kind == filesystem.Symlink {
			if target, err := s.c.tree.Readlink(at); err == nil && target == "/dev/null" {
				return unitMasked
			}
		} else if n.Kind == filesystem.Regular && n.Size == 0 {
			return unitMasked
		}
		installed = true
		break
	}
	switch {
	case !installed && s.wanted[strings.TrimSuffix(name, ".service")+".sysv"]:
		return unitEnabled
	case !installed:
		return unitAbsent
	case s.wanted[name] || s.preset(name):
		return unitEnabled
	}
	return unitDisabled
}

// preset reports whether the first start enables a unit. What no rule names is
// enabled, if it can be.
func (s services) preset(name string) bool {
	if s.presets == nil || !strings.Contains(s.text(name), "[Install]") {
		return false
	}
	for _, p := range s.presets {
		if ok, _ := path.Match(p.pattern, name); ok {
			return p.enable
		}
	}
	return true
}

// text is a unit's file; "" if it can't be read.
func (s services) text(name string) string {
	for _, dir := range unitFolders {
		if b, err := s.c.tree.ReadFile(path.Join(dir, name), maxConfig); err == nil {
			return string(b)
		}
	}
	return ""
}

// runs reports whether a service is started. Without systemd that is taken for
// granted.
func (s services) runs(names ...string) bool {
	return !s.systemd || s.state(names...) == unitEnabled
}

// can reports whether a service can be started by another one that wants it.
func (s services) can(names ...string) bool {
	return !s.systemd || s.state(names...) >= unitDisabled
}
