package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func runMain(t *testing.T, args ...string) string {
	t.Helper()
	var out, errors bytes.Buffer
	if status := Main(t.Context(), args, Env{Stdout: &out, Stderr: &errors, Getenv: func(string) string { return "" }}); status != 0 {
		t.Fatalf("%q: status %d: %s", args, status, errors.String())
	}
	return out.String()
}

// A shell that asks is told commands, subcommands and flags. Not parallel: a shell asks
// by way of the environment.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"quickims im":           "image import",
		"quickims image l":      "list",
		"quickims convert --le": "--level",
		"quickims nonsense x":   "",
	} {
		t.Setenv("COMP_LINE", line)
		t.Setenv("COMP_POINT", "100")
		got := strings.Fields(runMain(t, "quickims", "x", "y"))
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q; it must be %q", line, got, want)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := runMain(t, "completion", shell); !strings.Contains(out, "complete ") || !strings.Contains(out, "quickims") {
			t.Errorf("%s: %q", shell, out)
		}
	}
}

// The manual page has each command with its example, and no line that roff would take
// for a request.
func TestManual(t *testing.T) {
	t.Parallel()
	page := runMain(t, "man")
	for _, want := range []string{".SS import", ".SS account add", ".SS image list", `quickims convert disk.qcow2 disk.zvhd2`, `\fB\-\-level\fR`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	known := []string{".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi", ".B", ".I"}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, ".") && !slices.Contains(known, strings.Fields(line)[0]) || strings.HasPrefix(line, "'") {
			t.Errorf("the line %q", line)
		}
	}
}
