// Command quickims is a self-hosted image service and the tools around it.
// "quickims --help" lists what it can do.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/quickims/quickims/internal/cli"
)

// version is set by the linker in a build of the Makefile.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the command in order, a second one at once.
	context.AfterFunc(ctx, stop)
	env := cli.OSEnv()
	env.Version = version
	os.Exit(cli.Main(ctx, os.Args[1:], env))
}
