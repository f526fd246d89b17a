package serve

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quickims/quickims/test/harness"
)

// attachExec is quickims attach IMAGE --exec with a server's credentials.
func attachExec(t *testing.T, s *harness.Server, image string, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), append([]string{"attach", image, "--exec"}, command...)...)
	cmd.Env = append(os.Environ(), "QUICKIMS_CREDENTIALS="+filepath.Join(s.Dir, "credentials.env"))
	return cmd
}

func attached(t *testing.T, s *harness.Server) int {
	t.Helper()
	var list struct{ Attachments []any }
	s.Get(t, harness.AttachmentsPath, &list)
	return len(list.Attachments)
}

// TestAttachExec: the command finds the disk, has our standard input and output, gets
// our signals, and gives us its status; nothing stays attached.
func TestAttachExec(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Options{NBD: true})
	put(t, s, "a.zvhd2", harness.Disk(51, 4))
	s.Import(t, harness.Request("web", "disks:a.zvhd2"))

	cmd := attachExec(t, s, "web", `nbdinfo --size "$NBD_URI"; cat; exit 9`)
	cmd.Stdin = strings.NewReader("from standard input")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	// A ZVHD2 disk has whole GiB.
	if want := fmt.Sprintf("%d\nfrom standard input", 1<<30); stdout.String() != want || cmd.ProcessState.ExitCode() != 9 || stderr.Len() > 0 {
		t.Errorf("%v, stdout %q, want %q; stderr %q", err, stdout.String(), want, stderr.String())
	}
	if n := attached(t, s); n != 0 {
		t.Errorf("%d attachments are left", n)
	}

	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		cmd := attachExec(t, s, "web", "sh", "-c", `trap 'echo trapped; exit 5' TERM INT HUP; echo ready; while :; do sleep 0.05; done`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("%v: %q", sig, lines.Text())
		}
		if n := attached(t, s); n != 1 {
			t.Errorf("%d attachments while the command runs", n)
		}
		cmd.Process.Signal(sig)
		if !lines.Scan() || lines.Text() != "trapped" {
			t.Errorf("%v: the command said %q", sig, lines.Text())
		}
		cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 5 {
			t.Errorf("%v: status %d, want the command's 5", sig, status)
		}
		if n := attached(t, s); n != 0 {
			t.Errorf("%v: %d attachments are left", sig, n)
		}
	}
}
