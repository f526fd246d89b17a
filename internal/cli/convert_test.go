package cli

import (
	"runtime"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"512": 512, "10M": 10 << 20, "10m": 10 << 20, "10MiB": 10 << 20, "1MB": 1 << 20, "1G": 1 << 30, "1T": 1 << 40, "3K": 3 << 10, "7B": 7,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5G", "M", "1P", "10 M", "9999999999T", "99999999999999999999", "1MM", "0x10"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// However many cores there are, the blocks on their way stay within the memory.
func TestWorkersStayWithinMemory(t *testing.T) {
	t.Parallel()
	for level := 1; level <= 4; level++ {
		c := ConvertCmd{Level: &level}
		n := c.workers()
		if n < 1 || n > runtime.GOMAXPROCS(0) || n > 1 && n*memoryOf[c.level()] > memoryBudget {
			t.Errorf("level %d: %d workers", level, n)
		}
	}
}

func TestTargetFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ output, out, want, err string }{
		{"", "a.zvhd2", "zvhd2", ""}, {"", "a.RAW", "raw", ""}, {"", "a.img", "raw", ""}, {"", "a.zvhd", "zvhd", ""}, {"", "a", "", ""}, {"", "-", "", ""},
		{"raw", "a.qcow2", "raw", ""}, {"ZVHD2", "a.raw", "zvhd2", ""}, {"zvhd", "-", "zvhd", ""},
		{"", "a.qcow2", "", "not qcow2"}, {"qcow2", "a", "", "the formats are"},
	} {
		got, err := (&ConvertCmd{Output: c.output, Out: c.out}).target()
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("-O %q %s: %q, %v", c.output, c.out, got, err)
		}
	}
}
