package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/quickims/quickims/test/measure"
)

// tool is one command that is measured.
type tool struct {
	name string
	args []string
	out  string // what it writes; "": nothing
	sync bool   // sync out behind it
	once bool   // nobody reads out: it is removed at once
}

// sample is one run of a tool.
type sample struct{ wall, cpu, peak float64 }

// measured is a tool's runs, in the order in which the tools took turns.
type measured struct {
	figure
	runs []sample
}

// run runs the tool once. What it wrote before is removed.
func (t tool) run() (sample, error) {
	if t.out != "" {
		if err := os.Remove(t.out); err != nil && !errors.Is(err, os.ErrNotExist) {
			return sample{}, err
		}
	}
	cmd := exec.Command(t.args[0], t.args[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%s: %w: %s", strings.Join(t.args, " "), err, stderr.String())
	}
	if t.sync {
		if err := syncFile(t.out); err != nil {
			return sample{}, err
		}
	}
	wall := time.Since(began).Seconds()
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{wall, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), float64(usage.Maxrss) / 1024}, nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// ratio is the median over the runs of what a took to what b took, in the same turn
// each, which disturbances hit alike: by the clock and by processor time.
func ratio(a, b []sample) (wall, cpu float64) {
	pairs := make([]sample, len(a))
	for i := range a {
		pairs[i] = sample{wall: a[i].wall / b[i].wall, cpu: a[i].cpu / b[i].cpu}
	}
	return measure.MedianBy(pairs, func(s sample) float64 { return s.wall }), measure.MedianBy(pairs, func(s sample) float64 { return s.cpu })
}
