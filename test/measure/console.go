package measure

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
)

// Console lets helpers of tests report to a person: it is a testing.TB without a
// test. What fails ends the process, after the cleanups.
type Console struct {
	testing.TB
	name    string
	dir     string
	cleanup []func()
	ctx     context.Context
	cancel  context.CancelFunc
}

// NewConsole makes a console for the command of that name, with a temporary folder.
func NewConsole(name string) (*Console, error) {
	dir, err := os.MkdirTemp("", "quickims-"+name+"-")
	if err != nil {
		return nil, err
	}
	c := &Console{name: name, dir: dir}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Helper implements testing.TB.
func (c *Console) Helper() {}

// Failed implements testing.TB.
func (c *Console) Failed() bool { return false }

// Name implements testing.TB.
func (c *Console) Name() string { return c.name }

// Context ends before the cleanups run.
func (c *Console) Context() context.Context { return c.ctx }

// Cleanup notes what Close does, last first.
func (c *Console) Cleanup(f func()) { c.cleanup = append(c.cleanup, f) }

// Logf writes a line to stderr.
func (c *Console) Logf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }

// Errorf writes a line to stderr and goes on.
func (c *Console) Errorf(format string, a ...any) { c.Logf(format, a...) }

// Fatal cleans up and ends the process.
func (c *Console) Fatal(a ...any) { c.Fatalf("%s", fmt.Sprint(a...)) }

// Fatalf cleans up and ends the process.
func (c *Console) Fatalf(format string, a ...any) {
	c.Close()
	c.Logf("%s: %s", c.name, fmt.Sprintf(format, a...))
	os.Exit(1)
}

// TempDir makes a folder that Close removes.
func (c *Console) TempDir() string {
	dir, err := os.MkdirTemp(c.dir, "")
	if err != nil {
		c.Fatal(err)
	}
	return dir
}

// Close runs the cleanups and removes the folders.
func (c *Console) Close() {
	c.cancel()
	cleanup := c.cleanup
	c.cleanup = nil
	for _, f := range slices.Backward(cleanup) {
		f()
	}
	os.RemoveAll(c.dir)
}
