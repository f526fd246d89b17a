// Command quickims is a self-hosted image service and the tools around it.
// "quickims --help" lists what it can do.
package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quickims/quickims/internal/cli"
)

// version is set by the linker in a build of the Makefile.
var version string

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	var got atomic.Int32
	go func() {
		sig := (<-signals).(syscall.Signal) // of Unix all are
		got.Store(int32(sig))
		// The first signal ends the command in order, a second one at once.
		signal.Reset(syscall.SIGINT, syscall.SIGTERM)
		stop()
	}()
	env := cli.OSEnv()
	env.Version = version
	status := cli.Main(ctx, os.Args[1:], env)
	if sig := syscall.Signal(got.Load()); sig != 0 && status == cli.StatusFailed {
		endBy(sig)
	}
	os.Exit(status)
}

// endBy ends the process by a signal, after the command has cleaned up: a shell's loop
// goes on after a command that exits, and stops after one that a signal ended. Shells
// say 130 for SIGINT and 143 for SIGTERM, and so does the status if the process can't
// be ended so.
func endBy(sig syscall.Signal) {
	_ = syscall.Kill(os.Getpid(), sig)
	time.Sleep(time.Second) // the signal comes before that
	os.Exit(128 + int(sig))
}
