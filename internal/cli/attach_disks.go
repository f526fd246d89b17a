package cli

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"strings"
)

// reconnectDelay is for how many seconds a machine waits for a service that is away
// before its reads fail.
const reconnectDelay = 300

// nbdPort is the port of NBD where an URI names none.
const nbdPort = "10809"

// qemuBacking is how QEMU is told of an image as a backing file that it waits for, and the
// options that its tools and its machines need besides: for TLS it takes an object. An URI
// could say neither.
func qemuBacking(u *url.URL) (toolOption, systemOption, backing string) {
	type object = map[string]any
	server := object{"type": "inet", "host": u.Hostname(), "port": cmp.Or(u.Port(), nbdPort)}
	if socket := u.Query().Get("socket"); socket != "" {
		server = object{"type": "unix", "path": socket}
	}
	nbd := object{"driver": "nbd", "export": strings.TrimPrefix(u.Path, "/"), "server": server, "reconnect-delay": reconnectDelay}
	if strings.HasPrefix(u.Scheme, "nbds") {
		credentials := "tls-creds-x509,id=tls0,endpoint=client,verify-peer=yes,dir=" + caFolder + " "
		toolOption, systemOption, nbd["tls-creds"] = "--object "+credentials, "-object "+credentials, "tls0"
	}
	text, _ := json.Marshal(object{"driver": "raw", "file": nbd})
	return toolOption, systemOption, "json:" + string(text)
}

// libvirtDisk is the element of a machine's libvirt XML for an overlay of the image. Of the
// overlay's own backing file libvirt would read where it is, and not that it waits. How
// long a disk waits stands in a comment: the schema of libvirt 9.0 refuses it.
func libvirtDisk(u *url.URL) string {
	host := fmt.Sprintf("name='%s' port='%s'", escaped(u.Hostname()), escaped(cmp.Or(u.Port(), nbdPort)))
	if socket := u.Query().Get("socket"); socket != "" {
		host = fmt.Sprintf("transport='unix' socket='%s'", escaped(socket))
	}
	tls := ""
	if strings.HasPrefix(u.Scheme, "nbds") {
		tls = " tls='yes'"
	}
	return fmt.Sprintf(`<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/>
  <source file='/var/lib/libvirt/images/overlay.qcow2'/>
  <backingStore type='network'>
    <format type='raw'/>
    <source protocol='nbd' name='%s'%s>
      <host %s/>
      <!-- libvirt later than 9.0: <reconnect delay='%d'/> -->
    </source>
    <backingStore/>
  </backingStore>
  <target dev='vda' bus='virtio'/>
</disk>
`, escaped(strings.TrimPrefix(u.Path, "/")), tls, host, reconnectDelay)
}

// escaped is text in an attribute of XML.
func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}
