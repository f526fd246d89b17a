package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// stdoutPath stands for standard output.
const stdoutPath = "-"

// writeQemuConfig describes the disk at uri in a file that only its owner can read. A
// token in there is in no process list, as it would be on a command line.
func (s *session) writeQemuConfig(path, uri, name string) error {
	text, err := qemuDrive(uri, name)
	if err != nil {
		return fmt.Errorf("describe the disk for qemu: %w", err)
	}
	if path == stdoutPath {
		_, err := io.WriteString(s.Stdout, text)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = f.Chmod(0o600) // it may have been there before
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		err = cmp.Or(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, plain(err))
	}
	return nil
}

// qemuDrive is a section of qemu's -readconfig for the disk at an NBD URI. What the
// machine writes goes to a temporary file, unless the reader changes that.
func qemuDrive(uri, name string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Image %q, for qemu-system-… -readconfig FILE. It holds a secret: keep it from others.\n", name)
	if u.Scheme == "nbds" {
		fmt.Fprintf(&b, "# It needs: -object tls-creds-x509,id=tls0,endpoint=client,verify-peer=yes,dir=%s\n", caFolder)
	}
	b.WriteString("# To keep what the machine writes, put these in the place of snapshot, and backing. before driver and file.:\n" +
		"#   driver = \"qcow2\", file.driver = \"file\", file.filename = \"overlay.qcow2\"\n[drive]\n")
	set := func(key, value string) {
		if strings.ContainsAny(value, "\"\n") { // qemu has no way to write them
			err = fmt.Errorf("%s is %q, which a configuration of qemu can't hold", key, value)
		}
		fmt.Fprintf(&b, "  %s = \"%s\"\n", key, value)
	}
	set("if", "virtio")
	set("snapshot", "on")
	set("driver", "raw")
	set("file.driver", "nbd")
	if socket := u.Query().Get("socket"); socket != "" {
		set("file.server.type", "unix")
		set("file.server.path", socket)
	} else {
		set("file.server.type", "inet")
		set("file.server.host", u.Hostname())
		set("file.server.port", cmp.Or(u.Port(), "10809"))
	}
	set("file.export", strings.TrimPrefix(u.Path, "/"))
	set("file.reconnect-delay", strconv.Itoa(reconnectDelay))
	if u.Scheme == "nbds" {
		set("file.tls-creds", "tls0")
	}
	return b.String(), err
}
