package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/client"
)

// exitError is the status of a command that was run: it is ours too, and there is
// nothing to print.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("the command ended with status %d", e.status) }

// gone reports whether the service knows no such thing (any more).
func gone(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status == 404
}

// passed are the signals that a command gets which quickims gets.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// exec runs the command with the attachment's URI in its environment and detaches when
// it has ended, however it did.
func (c *AttachCmd) exec(ctx context.Context, s *session, service *client.Client, a client.Attachment) error {
	// From here on an interrupt is the command's, which decides when the end comes.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	defer c.detach(ctx, s, service, a)

	args := c.Command
	if len(args) == 1 {
		args = []string{"/bin/sh", "-c", args[0]}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NBD_URI="+a.URI)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.Stdin, s.Stdout, s.Stderr
	// Without a terminal the command leads a group of its own, so that a signal reaches
	// what a shell has started too. With one it stays where the terminal's keys are heard.
	pass := func(sig os.Signal) { _ = cmd.Process.Signal(sig) } // it may just have ended
	if !hasTerminal() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		pass = func(sig os.Signal) {
			if sig, ok := sig.(syscall.Signal); ok {
				_ = syscall.Kill(-cmd.Process.Pid, sig)
			}
		}
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			// The keys of a terminal reach everybody in its foreground; a second time
			// would mean more than the user meant.
			if fromKeys(sig) && inForeground() {
				continue
			}
			pass(sig)
		case err := <-done:
			return commandEnded(args[0], err)
		}
	}
}

// fromKeys reports whether a terminal sends the signal for a key.
func fromKeys(sig os.Signal) bool { return sig == syscall.SIGINT || sig == syscall.SIGQUIT }

// hasTerminal reports whether this process has a terminal that controls it.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return tty.Close() == nil
}

// inForeground reports whether this process is in the foreground of a terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// commandEnded turns the end of a command into ours: its status, or 128 and the number
// of the signal that ended it, as shells have it.
func commandEnded(name string, err error) error {
	if err == nil {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fmt.Errorf("run %s: %w", name, err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitError{128 + int(status.Signal())}
	}
	return &exitError{exit.ExitCode()}
}
