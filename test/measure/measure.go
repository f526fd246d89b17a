// Package measure is what the benchmarks share: disks to measure with, medians, the
// machine's name, a process's memory and reads, and a testing.TB for the helpers of
// tests. It is for the commands below test alone.
package measure

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Median of the values, the mean of the two middle ones where their number is even.
// It is not a number when there are none.
func Median(of []float64) float64 {
	all := slices.Sorted(slices.Values(of))
	n := len(all)
	switch {
	case n == 0:
		return math.NaN()
	case n%2 == 0:
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[n/2]
}

// MedianBy is the median of what by says of each.
func MedianBy[T any](of []T, by func(T) float64) float64 {
	all := make([]float64, len(of))
	for i, v := range of {
		all[i] = by(v)
	}
	return Median(all)
}

// Percentile is the smallest of the values that p of them (0 to 1) do not exceed.
// It is not a number when there are none.
func Percentile(of []float64, p float64) float64 {
	if len(of) == 0 {
		return math.NaN()
	}
	all := slices.Sorted(slices.Values(of))
	return all[min(len(all)-1, max(0, int(math.Ceil(p*float64(len(all))))-1))]
}

// Machine says what the figures were taken on.
func Machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s/%s, %d CPUs, Linux %s, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version())
}

// Load is the load average, which says how far to trust the clock.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// WriteJSON writes a report to a file, or to stdout when path is empty.
func WriteJSON(path string, report any) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if path == "" {
		_, err = fmt.Printf("%s\n", text)
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// ResetPeak makes the kernel forget the process's peak memory (proc(5), clear_refs).
func ResetPeak(tb testing.TB, pid int) {
	tb.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		tb.Fatal(err)
	}
}

// Peak is the most resident memory of the process in MiB (VmHWM).
func Peak(tb testing.TB, pid int) float64 {
	tb.Helper()
	return procField(tb, pid, "status", "VmHWM:") / 1024
}

// BytesRead is what the process has read by read(2) and its kin, from files and
// pipes alike (rchar of proc(5), io).
func BytesRead(tb testing.TB, pid int) int64 {
	tb.Helper()
	return int64(procField(tb, pid, "io", "rchar:"))
}

// CPUSeconds is the processor time that the process has taken.
func CPUSeconds(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// The name, in parentheses, may hold spaces; user and system time are fields 14
	// and 15, in ticks of 10 ms (USER_HZ).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func procField(tb testing.TB, pid int, file, name string) float64 {
	tb.Helper()
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			v, _ := strconv.ParseFloat(f[1], 64)
			return v
		}
	}
	tb.Fatalf("%s has no %s", path, name)
	return 0
}
