package harness

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// WaitStopped waits until a fault point has stopped the server.
func (s *Server) WaitStopped(tb testing.TB) {
	tb.Helper()
	Eventually(tb, "the server is stopped at its fault point", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Pid()))
		if err != nil {
			tb.Fatalf("the server ended:\n%s", s.Log())
		}
		// proc(5): the state is the field behind the command's closing bracket.
		i := bytes.LastIndexByte(stat, ')')
		return i > 0 && len(stat) > i+2 && stat[i+2] == 'T'
	})
}

// Continue lets a stopped server go on.
func (s *Server) Continue(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		tb.Fatal(err)
	}
}
