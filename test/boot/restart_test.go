//go:build amd64

package boot

import (
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// TestServerKilledWhileBooting: the server is killed while a machine runs from one of
// its images and is started again. The machine waits and goes on.
func TestServerKilledWhileBooting(t *testing.T) {
	t.Parallel()
	d := theDisk(t)
	s := harness.Start(t, harness.Options{S3: true, NBDUnix: true})
	uri := s.Attach(t, d.importDisk(t, s, "zvhd2")).URI
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	socket, name := u.Query().Get("socket"), strings.TrimPrefix(u.Path, "/")
	g := start(t, "bios", "-smbios", "type=1,serial=wait",
		"-blockdev", "driver=nbd,node-name=image,read-only=on,reconnect-delay=300,server.type=unix,server.path="+socket+",export="+name,
		"-blockdev", "driver=qcow2,node-name=disk,backing=image,file.driver=file,file.filename="+overlay(t, uri),
		"-device", "virtio-blk-pci,drive=disk")
	g.expect(t, "quickims: waiting")
	s.Kill(t)

	// The guest now reads what it has not read before. That qemu asks for a new
	// connection shows that it came that far.
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := g.keys.Write([]byte("go on\n")); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		asked <- err
	}()
	select {
	case err := <-asked:
		if err != nil {
			t.Fatal(err)
		}
	case <-g.ctx.Done():
		t.Fatal("qemu did not ask for a new connection")
	}
	l.Close()

	s.Restart(t, "")
	g.expect(t, d.line("bios"))
	g.off(t)
	if fetched(t, s) == 0 {
		t.Error("the guest read nothing of the server that was started again")
	}
}
