package diskcheck

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/quickims/quickims/internal/fuzztest"
	"github.com/quickims/quickims/internal/ims"
)

// FuzzText: no configuration file can do more than be read wrongly.
func FuzzText(f *testing.F) {
	for _, s := range []string{
		"UUID=1 / ext4 defaults 0 1\n/dev/sda1 /a\\040b xfs noauto\n",
		"menuentry 'x' {\n linux /vmlinuz root=UUID=1\n initrd /initrd\n}\nset kernelopts=\"a\"\nappend initrd=a,b\n",
		"ID=sles\nVERSION_ID=\"15.5\"\nVERSION=\"15-SP5\"\n", "SUSE Linux Enterprise Server 11\nPATCHLEVEL = 3\n",
		"network:\n  ethernets:\n    e0:\n      dhcp4: yes\n      match: {macaddress: aa}\n    - e1: {addresses: [1]}\n",
		"[connection]\ntype=ethernet\n[ipv4]\nmethod=auto\n", "datasource_list:\n - A\nnetwork: {config: disabled}\n",
	} {
		f.Add(s)
	}
	table := ims.DefaultOSVersions()
	fuzztest.Fuzz(f, func(t *testing.T, s string) {
		for _, m := range parseFstab(s) {
			if m.dir == "" {
				t.Errorf("%+v", m)
			}
		}
		for _, e := range parseBootConfig("f", s) {
			optionValues(e.options, "root")
			e.rescue()
		}
		for _, r := range []osRelease{parseOSRelease(s), oldRelease(s)} {
			if v, _ := chooseVersion(table, r, 0, ""); v == "" {
				t.Errorf("%+v has no os_version", r)
			}
		}
		if n := len(parseNetplan(s)); n > maxFiles {
			t.Errorf("%d cards", n)
		}
		parseINI(s)
		yamlList(s, "datasource_list")
		networkDisabled(s)
		parseDevice(s)
		unescapeUdev(s)
		kernelVersion(s)
		moduleName(s)
		compareVersions(s, "1.2-a"+s)
		if len([]rune(shown(s))) > 121 {
			t.Error("shown does not clip")
		}
	})
}

// FuzzInitramfs: whatever an initramfs holds, reading it ends within the budget.
func FuzzInitramfs(f *testing.F) {
	one := cpioOf("a/virtio_blk.ko")
	for _, b := range [][]byte{
		one, append(bytes.Clone(one), one...), append(append(bytes.Clone(one), 0, 0, 0, 0), "\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00abc"...),
		[]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00"), []byte("\x02\x21\x4c\x18\x05\x00\x00\x00\x40abcd"), []byte("BZh1\x31\x41\x59\x26\x53\x59"),
	} {
		f.Add(b)
	}
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		in, err := readInitramfs(t, b, 16<<20)
		if err == nil && !in.whole {
			t.Error("nothing was read, and nothing said")
		}
	})
}

// FuzzLZ4: a block never unpacks to more than there is room for.
func FuzzLZ4(f *testing.F) {
	f.Add([]byte("\x02\x21\x4c\x18\x05\x00\x00\x00\x40abcd"))
	f.Add([]byte("\x02\x21\x4c\x18\x09\x00\x00\x00\x1fa\x01\x00\xff\x05\x10bc"))
	fuzztest.Fuzz(f, func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return // enough for several blocks
		}
		_, _ = io.Copy(io.Discard, newLZ4(bufio.NewReader(bytes.NewReader(b))))
		out := make([]byte, 100)
		if n, ok := unpackLZ4(out, b); ok && n > len(out) {
			t.Errorf("%d bytes in %d", n, len(out))
		}
	})
}
