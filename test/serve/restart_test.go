package serve

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quickims/quickims/test/harness"
)

// qemuOptions opens a TCP URI in qemu, which waits for a server that is away.
func qemuOptions(t *testing.T, uri string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=%s,file.server.port=%s,file.export=%s,file.reconnect-delay=60",
		u.Hostname(), u.Port(), strings.TrimPrefix(u.Path, "/"))
}

// qemu is a qemu-io that reads on request.
type qemu struct {
	in    io.Writer
	lines chan string
}

func startQemu(t *testing.T, disk ...string) *qemu {
	t.Helper()
	cmd := exec.Command("qemu-io", append([]string{"-r"}, disk...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	q := &qemu{in, make(chan string, 100)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			q.lines <- s.Text()
		}
		close(q.lines)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
	})
	return q
}

// read asks for a MiB in which every byte is its number and one.
func (q *qemu) read(t *testing.T, n int) {
	t.Helper()
	if _, err := fmt.Fprintf(q.in, "read -P %d %dM 1M\n", n+1, n); err != nil {
		t.Fatal(err)
	}
}

// wellRead waits for a read's end.
func (q *qemu) wellRead(t *testing.T) {
	t.Helper()
	patience := time.After(2 * time.Minute)
	for {
		select {
		case line, ok := <-q.lines:
			switch {
			case !ok:
				t.Fatal("qemu-io ended")
			case strings.Contains(line, "read 1048576/1048576 bytes"):
				return
			case strings.Contains(line, "failed"):
				t.Fatalf("qemu-io: %s", line)
			}
		case <-patience:
			t.Fatal("the read does not end")
		}
	}
}

// TestRestartUnderAReader: a machine that reads stops while the service is away, killed
// or told to end, and goes on when it is back: attachments are in the database.
func TestRestartUnderAReader(t *testing.T) {
	t.Parallel()
	disk := numbered()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", disk)
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	q := startQemu(t, "--image-opts", qemuOptions(t, a.URI))
	q.read(t, 0)
	q.wellRead(t)
	n := 1
	for _, end := range []func(testing.TB){s.Kill, s.Stop} {
		end(t)
		q.read(t, n) // while nobody is there
		s.Restart(t, "")
		q.wellRead(t)
		q.read(t, n+1)
		q.wellRead(t)
		n += 2
	}
	run(t, "qemu-img", "compare", "--image-opts", qemuOptions(t, a.URI), "driver=raw,file.driver=file,file.filename="+diskFile(t, disk))
}

// numbered is a disk of 16 MiB as qemu.read expects it.
func numbered() []byte {
	disk := make([]byte, 16<<20)
	for i := range disk {
		disk[i] = byte(i>>20 + 1)
	}
	return disk
}

// TestPrintedOverlay: the overlay that attach prints the command of lives through a
// restart of the service.
func TestPrintedOverlay(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]harness.Options{"tcp": {NBD: true}, "unix": {NBDUnix: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, opts)
			put(t, s, "a.zvhd2", numbered())
			attach := exec.Command(harness.Binary(t), "attach", s.Import(t, harness.Request("a", "disks:a.zvhd2")))
			attach.Env = append(os.Environ(), "QUICKIMS_CREDENTIALS="+filepath.Join(s.Dir, "credentials.env"))
			printed, err := attach.Output()
			if err != nil {
				t.Fatal(err)
			}
			create := exec.Command("sh", "-ec", regexp.MustCompile(`(?m)^qemu-img create .*$`).FindString(string(printed)))
			create.Dir = t.TempDir()
			if out, err := create.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, out, printed)
			}
			q := startQemu(t, "-f", "qcow2", filepath.Join(create.Dir, "overlay.qcow2"))
			q.read(t, 0)
			q.wellRead(t)
			s.Kill(t)
			q.read(t, 1) // while nobody is there
			s.Restart(t, "")
			q.wellRead(t)
		})
	}
}

// TestStopDrains: a connection that nobody reads on does not keep the service, and is
// told the end in order.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(31, 4))
	a := s.Attach(t, s.Import(t, harness.Request("a", "disks:a.zvhd2")))
	r := open(t, a.URI)
	r.mustRead(t)
	s.Stop(t)
	if err := r.Read(make([]byte, 512), 0); err == nil {
		t.Error("a read after the end of the service succeeded")
	}
}
