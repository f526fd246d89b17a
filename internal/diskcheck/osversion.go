package diskcheck

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/quickims/quickims/internal/ims"
)

// osRelease is what a system calls itself.
type osRelease struct {
	ID      string // lower case, as in os-release(5)
	Version string // the most exact one found
	Name    string // for people
}

// families tells by which words the names of a distribution's versions begin in
// the table of os_version, for each ID of os-release.
var families = map[string][]string{
	"debian":        {"Debian GNU/Linux "},
	"ubuntu":        {"Ubuntu "},
	"centos":        {"CentOS "},
	"rocky":         {"Rocky Linux "},
	"almalinux":     {"AlmaLinux "},
	"rhel":          {"Redhat Linux Enterprise ", "Redhat "},
	"fedora":        {"Fedora "},
	"opensuse":      {"openSUSE "},
	"opensuse-leap": {"openSUSE "},
	"sles":          {"SUSE Linux Enterprise Server "},
	"sles_sap":      {"SUSE Linux Enterprise Server "},
	"ol":            {"Oracle Linux Server release "},
	"openeuler":     {"openEuler "},
	"euleros":       {"EulerOS "},
	"coreos":        {"CoreOS "},
}

// parseOSRelease reads os-release(5): shell variables, one a line.
func parseOSRelease(text string) osRelease {
	v := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			v[key] = unquote(value)
		}
	}
	r := osRelease{ID: strings.ToLower(v["ID"]), Version: v["VERSION_ID"], Name: v["PRETTY_NAME"]}
	// VERSION says more than VERSION_ID for some: "16.04.3 LTS", "2.0 (SP9x86_64)".
	if exact := numbers.FindString(v["VERSION"]); strings.HasPrefix(exact, r.Version+".") {
		r.Version = exact
	}
	if sp := servicePack.FindStringSubmatch(v["VERSION"]); sp != nil && r.ID == "euleros" {
		r.Version = "2." + sp[1]
	}
	if r.Name == "" {
		r.Name = strings.TrimSpace(v["NAME"] + " " + v["VERSION"])
	}
	return r
}

var (
	numbers     = regexp.MustCompile(`[0-9]+(\.[0-9]+)*`)
	servicePack = regexp.MustCompile(`SP([0-9]+)`)
)

// oldRelease reads the one-line files of before os-release(5), such as "CentOS
// release 6.10 (Final)", and of SUSE, whose patch level has a line of its own.
func oldRelease(text string) osRelease {
	line, rest, _ := strings.Cut(text, "\n")
	r := osRelease{Name: strings.TrimSpace(line), Version: numbers.FindString(line)}
	for start, id := range map[string]string{
		"CentOS": "centos", "Red Hat": "rhel", "Oracle": "ol", "Fedora": "fedora", "SUSE Linux Enterprise Server": "sles", "openSUSE": "opensuse",
	} {
		if strings.HasPrefix(line, start) {
			r.ID = id
		}
	}
	for line := range strings.Lines(rest) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "PATCHLEVEL" {
			r.Version += "." + strings.TrimSpace(value)
		}
	}
	return r
}

// exactFiles say the point release where os-release gives the main one alone.
var exactFiles = map[string]string{
	"debian": "/etc/debian_version", "centos": "/etc/centos-release", "ol": "/etc/oracle-release", "rhel": "/etc/redhat-release",
}

func (c *checker) release() (osRelease, string) {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := c.text(name)
		if err != nil {
			continue
		}
		r := parseOSRelease(text)
		if file, ok := exactFiles[r.ID]; ok && !strings.Contains(r.Version, ".") {
			if text, err := c.text(file); err == nil {
				if exact := numbers.FindString(text); strings.HasPrefix(exact, r.Version+".") {
					r.Version = exact
				}
			}
		}
		return r, name
	}
	for _, name := range []string{"/etc/centos-release", "/etc/oracle-release", "/etc/redhat-release", "/etc/SuSE-release"} {
		if text, err := c.text(name); err == nil {
			return oldRelease(text), name
		}
	}
	return osRelease{}, ""
}

// osVersion finds the os_version that fits the system.
func (c *checker) osVersion() {
	if c.tree == nil {
		fix := "Name the os_version yourself."
		if c.OSType == "Windows" {
			fix = "Name the version of Windows yourself, such as Windows Server 2019 Standard 64bit."
		}
		c.add(OSVersion, Unknown, fix, "not looked at: %s", c.noRoot)
		return
	}
	r, file := c.release()
	if file == "" {
		c.OSVersion = otherLinux(c.bits)
		c.add(OSVersion, Warning, "Name the os_version yourself if you know the system.", "there is no /etc/os-release; %s fits any Linux", c.OSVersion)
		return
	}
	c.OSName = shown(cmp.Or(r.Name, strings.TrimSpace(r.ID+" "+r.Version), "the system"))
	version, how := chooseVersion(ims.DefaultOSVersions(), r, c.bits, c.Architecture)
	c.OSVersion = version
	if how > sameMajor && c.platform == KVM { // nothing there goes by it
		c.add(OSVersion, OK, "", "%s (%s) is not in the table; %q is the nearest", c.OSName, file, version)
		return
	}
	switch how {
	case exact:
		c.add(OSVersion, OK, "", "%s is %q (%s)", c.OSName, version, file)
	case sameMajor:
		c.add(OSVersion, OK, "", "%s (%s) is not in the table; %q is the nearest of its main version", c.OSName, file, version)
	case otherMajor:
		c.add(OSVersion, Warning, fmt.Sprintf("Use it, or %q, which promises nothing.", otherLinux(c.bits)),
			"%s (%s) is not in the table, nor is its main version; %q is the nearest", c.OSName, file, version)
	case noFamily:
		c.add(OSVersion, Warning, "Nothing needs to be done if the other checks are in order.",
			"%s (%s, ID=%s) is not in the table; %q fits any Linux", c.OSName, file, shown(r.ID), version)
	}
}

// match says how well an os_version fits.
type match int

const (
	exact match = iota
	sameMajor
	otherMajor
	noFamily
)

func otherLinux(bits int) string {
	if bits == 32 {
		return "Other_Linux (32_bit)"
	}
	return "Other_Linux (64_bit)"
}

// chooseVersion picks from the table: the same version; else of the same main
// version the nearest, the older of two; else of older main versions the newest;
// else the oldest. arch and bits leave out what is not for them; an unknown one
// is x86 and 64.
func chooseVersion(table *ims.OSVersions, r osRelease, bits int, arch string) (string, match) {
	if bits == 0 {
		bits = 64
	}
	if arch == "" {
		arch = ims.ArchX86
	}
	want := parts(r.Version)
	type candidate struct {
		name    string
		version []int
	}
	prefixes := families[r.ID]
	if len(prefixes) == 0 || len(want) == 0 {
		return otherLinux(bits), noFamily
	}
	var list []candidate
	known := table.With(arch)
	for _, prefix := range prefixes {
		for _, v := range known {
			rest, ok := strings.CutPrefix(v.Version, prefix)
			if ok && v.Type == "Linux" && v.Bit == bits && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
				rest, _, _ = strings.Cut(strings.ReplaceAll(rest, " SP", "."), " ")
				list = append(list, candidate{v.Version, parts(rest)})
			}
		}
	}
	if len(list) == 0 {
		return otherLinux(bits), noFamily
	}
	class := func(v []int) int {
		switch {
		case same(v, want):
			return 0
		case v[0] == want[0]:
			return 1
		case v[0] < want[0]:
			return 2
		}
		return 3
	}
	best := slices.MinFunc(list, func(a, b candidate) int {
		order := class(a.version)
		if c := cmp.Compare(order, class(b.version)); c != 0 {
			return c
		}
		switch older := slices.Compare(a.version, b.version); order {
		case 1:
			return cmp.Or(cmp.Compare(gap(a.version, want), gap(b.version, want)), older)
		case 2:
			return -older
		default:
			return older
		}
	})
	return best.name, []match{exact, sameMajor, otherMajor, otherMajor}[class(best.version)]
}

// parts gives the first three numbers of a version; none if one is absurd.
func parts(s string) []int {
	var list []int
	for field := range strings.SplitSeq(numbers.FindString(s), ".") {
		n, err := strconv.Atoi(field)
		if err != nil || n >= 1<<20 {
			return nil
		}
		list = append(list, n)
	}
	return list[:min(len(list), 3)]
}

// same compares two versions of which one may be shorter; what it lacks is zero.
func same(a, b []int) bool { return gap(a, b) == 0 }

// gap is how far two versions are apart, the first part counting most.
func gap(a, b []int) int {
	sum := 0
	for i := range 3 {
		at := func(v []int) int {
			if i < len(v) {
				return v[i]
			}
			return 0
		}
		d := at(a) - at(b)
		sum = sum<<20 + max(d, -d)
	}
	return sum
}

// text reads a configuration file of the system.
func (c *checker) text(name string) (string, error) {
	b, err := c.tree.ReadFile(name, maxConfig)
	return string(b), err
}

// files lists the files of a folder whose names end in one of the endings, as
// whole paths, at most maxFiles; none if there is no such folder.
func (c *checker) files(dir string, endings ...string) []string {
	list, err := c.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range list {
		if len(names) < maxFiles && slices.ContainsFunc(endings, func(s string) bool { return strings.HasSuffix(e.Name, s) }) {
			names = append(names, path.Join(dir, e.Name))
		}
	}
	return names
}

// unquote takes the quotes off a value of a shell-like file.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return s
}

// maxShown is how many characters of a text on the disk a finding shows.
const maxShown = 120

// shown is a text on the disk as findings show it: printable and short.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, ims.ClipTo(s, maxShown))
}
