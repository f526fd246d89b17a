//go:build amd64

package boot

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a machine may take from its start to its end. An emulated one
// takes ten seconds on an idle processor, a whole Debian with cloud-init a minute and
// more; a busy one may need much longer.
const patience = 15 * time.Minute

// firmware of Debian's package ovmf; "" is qemu's own BIOS.
var firmware = map[string]string{"bios": "", "uefi": "/usr/share/ovmf/OVMF.fd"}

// guest is a running machine.
type guest struct {
	cmd   *exec.Cmd
	ctx   context.Context
	keys  io.Writer   // what is typed at its serial console
	lines chan string // what it says there; closed when the machine has ended
	ended chan error

	mu   sync.Mutex
	said bytes.Buffer // all of it, and what qemu itself says
}

// start starts a machine with the disk that the arguments of qemu name.
func start(t *testing.T, firmwareName string, args ...string) *guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	all := []string{
		"-accel", "tcg", "-machine", "q35", "-m", "256", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "stdio",
	}
	if file := firmware[firmwareName]; file != "" {
		all = append(all, "-bios", file)
	}
	g := &guest{ctx: ctx, lines: make(chan string), ended: make(chan error, 1)}
	g.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", append(all, args...)...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	g.cmd.Stderr = g
	keys, err := g.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.keys = keys
	console, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range g.lines { // until the machine is gone
		}
		if t.Failed() {
			t.Logf("the machine's serial console:\n%s", g.console())
		}
	})
	go func() {
		scan := bufio.NewScanner(io.TeeReader(console, g))
		for scan.Scan() {
			g.lines <- strings.TrimRight(scan.Text(), "\r")
		}
		g.ended <- g.cmd.Wait()
		close(g.lines)
	}()
	return g
}

// Write keeps what the machine says for the log of a failed test.
func (g *guest) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.said.Write(p)
}

func (g *guest) console() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.said.String()
}

// expect waits for the guest's own next line, which must be this one. A machine that
// ends or takes too long fails the test.
func (g *guest) expect(t *testing.T, line string) {
	t.Helper()
	for said := range g.lines {
		if _, own, ok := strings.Cut(said, "quickims: "); ok {
			if want := strings.TrimPrefix(line, "quickims: "); own != want {
				t.Fatalf("the guest says %q, want %q", own, want)
			}
			return
		}
	}
	t.Fatalf("the machine ended (%v, %v) and did not say %q", g.ctx.Err(), <-g.ended, line)
}

// off waits until the machine has turned itself off.
func (g *guest) off(t *testing.T) {
	t.Helper()
	for range g.lines {
	}
	if err := <-g.ended; err != nil {
		t.Fatalf("the machine did not turn itself off: %v, %v", err, g.ctx.Err())
	}
}
