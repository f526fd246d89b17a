package diskcheck_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/quickims/quickims/internal/diskcheck"
)

// TestPlatforms: what a machine is given differs, and with it what cloud-init finds.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	const list = "etc/cloud/cloud.cfg.d/99.cfg"
	seed := files{"var/lib/cloud/seed/nocloud/meta-data": "instance-id: a\n", "var/lib/cloud/seed/nocloud/user-data": "#cloud-config\n"}
	for _, tt := range []struct {
		name    string
		files   files
		verdict map[diskcheck.Platform]diskcheck.Verdict
		found   map[diskcheck.Platform]string
	}{
		{"all sources", nil,
			map[diskcheck.Platform]diskcheck.Verdict{"otc": "ready", "openstack": "ready", "kvm": "ready"},
			map[diskcheck.Platform]string{"otc": "is installed", "kvm": "without a seed disk gets neither keys nor users"}},
		{"OpenStack alone", files{list: "datasource_list: [ OpenStack ]\n"},
			map[diskcheck.Platform]diskcheck.Verdict{"otc": "ready", "openstack": "ready", "kvm": "not ready"},
			map[diskcheck.Platform]string{"otc": "is installed", "kvm": "look only for OpenStack"}},
		{"NoCloud alone", files{list: "datasource_list: [ NoCloud, None ]\n"},
			map[diskcheck.Platform]diskcheck.Verdict{"otc": "not ready", "openstack": "not ready", "kvm": "ready"},
			map[diskcheck.Platform]string{"otc": "needs a seed", "kvm": "seed disk"}},
		{"NoCloud with a seed", with2(seed, files{list: "datasource_list: [ NoCloud ]\n"}),
			map[diskcheck.Platform]diskcheck.Verdict{"otc": "ready", "openstack": "ready", "kvm": "ready"},
			map[diskcheck.Platform]string{"otc": "/var/lib/cloud/seed/nocloud", "kvm": "/var/lib/cloud/seed/nocloud"}},
		{"a seed in the configuration", files{list: "datasource_list: [ NoCloud ]\ndatasource:\n  NoCloud:\n    seedfrom: http://192.0.2.1/\n"},
			map[diskcheck.Platform]diskcheck.Verdict{"otc": "ready", "kvm": "ready"},
			map[diskcheck.Platform]string{"otc": "its own configuration"}},
	} {
		s := debian()
		maps.Copy(s.root(), tt.files)
		d := s.build(t)
		for platform, want := range tt.verdict {
			r, err := diskcheck.Check(t.Context(), d, d.size, platform)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict() != want {
				t.Errorf("%s for %s is %s, want %s:\n%s", tt.name, platform, r.Verdict(), want, show(r))
			}
			if f := find(r, diskcheck.CloudInit); len(f) != 1 || !strings.Contains(f[0].Found, tt.found[platform]) {
				t.Errorf("%s for %s: %+v, want %q", tt.name, platform, f, tt.found[platform])
			}
		}
	}
}

func with2(a, b files) files {
	c := maps.Clone(a)
	maps.Copy(c, b)
	return c
}

// TestFirstStart: what a preset enables runs, if the start counts as the first and the
// kernel mounts the root file system for writing.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  func(files)
		verdict diskcheck.Verdict
	}{
		{"disabled", func(files) {}, diskcheck.NotReady},
		{"no machine-id", func(f files) { delete(f, "etc/machine-id") }, diskcheck.NotReady},
		{"no machine-id, rw", func(f files) {
			delete(f, "etc/machine-id")
			f.replace(t, "boot/grub/grub.cfg", " ro ", " rw ")
		}, diskcheck.Ready},
		{"uninitialized, rw", func(f files) {
			f["etc/machine-id"] = "uninitialized\n"
			f.replace(t, "boot/grub/grub.cfg", " ro ", " rw ")
		}, diskcheck.Ready},
		{"rw and a preset against it", func(f files) {
			delete(f, "etc/machine-id")
			f.replace(t, "boot/grub/grub.cfg", " ro ", " rw ")
			f["etc/systemd/system-preset/10.preset"] = "disable cloud-init*\n"
			f["usr/lib/systemd/system-preset/90.preset"] = "enable *\n"
		}, diskcheck.NotReady},
		{"rw and a preset in the place of another", func(f files) {
			delete(f, "etc/machine-id")
			f.replace(t, "boot/grub/grub.cfg", " ro ", " rw ")
			f["etc/systemd/system-preset/90.preset"] = "# nothing\n"
			f["usr/lib/systemd/system-preset/90.preset"] = "disable *\n"
		}, diskcheck.Ready},
	} {
		s := debian()
		s.root().drop(t, "etc/systemd/system/cloud-init.target.wants/cloud-init.service")
		tt.change(s.root())
		if r := check(t, s); r.Verdict() != tt.verdict {
			t.Errorf("%s: %s, want %s:\n%s", tt.name, r.Verdict(), tt.verdict, show(r))
		}
	}
}

// TestKeyMakers: what makes host keys besides cloud-init.
func TestKeyMakers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files files
		want  diskcheck.Severity
	}{
		"a unit of one's own": {files{
			"etc/systemd/system/keys.service":                         "[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=ssh.service\n",
			"etc/systemd/system/multi-user.target.wants/keys.service": "-> ../keys.service",
		}, diskcheck.OK},
		"a unit that is disabled": {files{"etc/systemd/system/keys.service": "[Service]\nExecStart=/usr/bin/ssh-keygen -A\n"}, diskcheck.Error},
		"a comment":               {files{"etc/systemd/system/keys.service": "# ssh-keygen -A\n", "etc/systemd/system/multi-user.target.wants/keys.service": "-> ../keys.service"}, diskcheck.Error},
		"Red Hat's template": {files{
			"usr/lib/systemd/system/ssh.service":          "[Unit]\nWants=sshd-keygen.target\n[Install]\n",
			"usr/lib/systemd/system/sshd-keygen@.service": "[Service]\nExecStart=/usr/libexec/openssh/sshd-keygen %i\n",
		}, diskcheck.OK},
		"only the drop-in of it": {files{"etc/systemd/system/sshd-keygen@.service.d/a.conf": "[Unit]\n"}, diskcheck.Error},
		"rc.local":               {files{"etc/rc.local": "#!/bin/sh\nssh-keygen -A\n"}, diskcheck.OK},
		"a key elsewhere":        {files{"etc/ssh/sshd_config.d/a.conf": "HostKey /etc/keys/a\n", "etc/keys/a": "key"}, diskcheck.Warning},
	} {
		s := debian()
		s.root()["etc/cloud/cloud-init.disabled"] = ""
		maps.Copy(s.root(), tt.files)
		r := check(t, s)
		if f := find(r, diskcheck.SSHHostKeys); len(f) != 1 || f[0].Severity != tt.want {
			t.Errorf("%s: %+v, want %s", name, f, tt.want)
		}
	}
}

// TestWhoMayLogIn: keys and passwords that are on the disk.
func TestWhoMayLogIn(t *testing.T) {
	t.Parallel()
	const passwd = "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\nsvc:x:1001:1001::/srv:/usr/sbin/nologin\n"
	for name, tt := range map[string]struct {
		files files
		want  diskcheck.Severity
		found string
	}{
		"a user's password":            {files{"etc/shadow": "root:!:1\nann:$6$x:1\n"}, diskcheck.OK, "as ann"},
		"a user's key":                 {files{"etc/shadow": "root:!:1\nann:!:1\n", "home/ann/.ssh/authorized_keys": "ssh-ed25519 A\n"}, diskcheck.OK, "as ann"},
		"an empty key file":            {files{"etc/shadow": "root:!:1\nann:!:1\n", "home/ann/.ssh/authorized_keys": ""}, diskcheck.Error, "nobody"},
		"root's key, and root may not": {files{"etc/shadow": "root:!:1\n", "root/.ssh/authorized_keys": "ssh-ed25519 A\n"}, diskcheck.Error, "nobody"},
		"root's key":                   {files{"etc/shadow": "root:!:1\n", "root/.ssh/authorized_keys": "ssh-ed25519 A\n", "etc/ssh/sshd_config": ""}, diskcheck.OK, "as root"},
		"root's password":              {files{"etc/shadow": "root:$6$x:1\n", "etc/ssh/sshd_config": ""}, diskcheck.Warning, "console root"},
		"root's password over SSH":     {files{"etc/shadow": "root:$6$x:1\n", "etc/ssh/sshd_config": "PermitRootLogin yes\n"}, diskcheck.OK, "as root"},
		"no passwords over SSH":        {files{"etc/shadow": "ann:$6$x:1\n", "etc/ssh/sshd_config.d/a.conf": "PasswordAuthentication no\n"}, diskcheck.Warning, "console ann"},
		"no password at all":           {files{"etc/shadow": "root:!:1\nann::1\n"}, diskcheck.Warning, "console ann"},
		"none, and that is enough":     {files{"etc/shadow": "root:!:1\nann::1\n", "etc/ssh/sshd_config": "PermitEmptyPasswords yes\n"}, diskcheck.OK, "as ann"},
		"keys are not asked for":       {files{"etc/shadow": "root:!:1\nann:!:1\n", "home/ann/.ssh/authorized_keys": "ssh-ed25519 A\n", "etc/ssh/sshd_config": "PubkeyAuthentication no\n"}, diskcheck.Error, "nobody"},
		"a service's password":         {files{"etc/shadow": "svc:$6$x:1\n"}, diskcheck.Error, "nobody"},
	} {
		s := debian()
		maps.Copy(s.root(), files{"etc/cloud/cloud-init.disabled": "", "etc/ssh/ssh_host_rsa_key": "k", "etc/passwd": passwd})
		maps.Copy(s.root(), tt.files)
		r := check(t, s)
		if f := find(r, diskcheck.Access); len(f) != 1 || f[0].Severity != tt.want || !strings.Contains(f[0].Found, tt.found) {
			t.Errorf("%s: %+v, want %s", name, f, tt.want)
		}
	}
}
