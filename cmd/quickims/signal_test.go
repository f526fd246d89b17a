package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestSignals: a command that a signal stopped ends by that signal, which shells show as
// 130 and 143, and says what it was doing.
func TestSignals(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		var stderr strings.Builder
		// The name makes this program the command; see TestMain.
		cmd := &exec.Cmd{Path: self, Args: []string{"quickims", "image", "list"}, Stderr: &stderr,
			Env: []string{"QUICKIMS_ENDPOINT=http://" + silent.Addr().String(), "QUICKIMS_TOKEN=t", "QUICKIMS_PROJECT_ID=p"}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		conn, err := silent.Accept() // it asks, and gets no answer
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		conn.Close()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != sig {
			t.Errorf("%v: %v", sig, cmd.ProcessState)
		}
		if text := stderr.String(); text != "quickims: list the images: interrupted\n" {
			t.Errorf("%v: %q", sig, text)
		}
	}
}
