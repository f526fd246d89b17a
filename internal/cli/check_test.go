package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/diskformat"
)

// sampleReport has a finding of each severity but error.
func sampleReport() diskcheck.Report {
	return diskcheck.Report{
		Size: 10 << 30, Table: diskformat.GPT, OSType: "Linux", OSName: "Debian GNU/Linux 12", OSVersion: "Debian GNU/Linux 12.0.0 64bit",
		Architecture: "x86", Firmware: "uefi",
		Partitions: []diskcheck.Partition{{Number: 1, Start: 1 << 20, Size: 9 << 30, Content: "ext4", FSLabel: "root", Mount: "/"}},
		Findings: []diskcheck.Finding{
			{ID: "boot-mode", Severity: diskcheck.OK, Found: "GRUB", Why: "w"},
			{ID: "fstab", Severity: diskcheck.Warning, Found: "/dev/sda2 on /home", Why: "names change", Fix: "use UUID="},
			{ID: "network", Severity: diskcheck.Unknown, Found: strings.Repeat("many words ", 30), Why: "w"},
		},
	}
}

func TestCheckPrintsWhatMatters(t *testing.T) {
	t.Parallel()
	print := func(doc checkDoc) string {
		var out bytes.Buffer
		w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
		doc.print(w)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	doc := newCheckDoc(sampleReport())
	doc.Path, doc.Format = "d.raw", diskformat.Raw
	text := print(doc)
	for _, want := range []string{
		"d.raw (raw, 10 GiB)", "os_version    Debian GNU/Linux 12.0.0 64bit\n", `9 GiB ext4 "root" on /`,
		"warning  fstab\n", "  fix    use UUID=\n", "ok       1 more is in order (--all lists it)\n",
		"unknown  could not be looked at: network; many words", "\nd.raw: nothing speaks against a quick import, but not all could be looked at (1 warning), ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "GRUB") {
		t.Errorf("what is in order is listed:\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 110 {
			t.Errorf("a long line: %q", line)
		}
	}
	doc.Findings = append(doc.Findings, doc.Findings[0])
	if text := print(doc); !strings.Contains(text, "ok       2 more are in order (--all lists them)\n") {
		t.Errorf("with two in order:\n%s", text)
	}
	if warning, unknown := strings.Index(text, "warning"), strings.Index(text, "unknown"); warning > unknown {
		t.Errorf("not by severity:\n%s", text)
	}
	doc.all = true
	if text := print(doc); !strings.Contains(text, "GRUB") || strings.Contains(text, "in order") {
		t.Errorf("with --all:\n%s", text)
	}
	report := sampleReport()
	report.Findings[1].Severity = diskcheck.Error
	if doc := newCheckDoc(report); doc.Ready || strings.Count(print(doc), "not ready for a quick import (1 error)") != 1 {
		t.Error("an error is no obstacle, or the verdict is not said once")
	}
}

func TestCheckAsJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(newCheckDoc(sampleReport()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"verdict":"undecided"`, `"ready":false`, `"hw_firmware_type":"uefi"`, `"mount":"/"`, `{"id":"fstab","severity":"warning","found":"/dev/sda2 on /home","why":"names change","fix":"use UUID="}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if text, _ := json.Marshal(newCheckDoc(diskcheck.Report{})); !strings.Contains(string(text), `"findings":[]`) {
		t.Errorf("no findings are %s", text)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	text := "a bb ccc dddd eeeeeeeeeeee f"
	for width := 1; width < 40; width++ {
		lines := wrap(text, width)
		if strings.Join(lines, " ") != text {
			t.Errorf("width %d: %q", width, lines)
		}
		for _, line := range lines {
			if len(line) > width && strings.Contains(line, " ") {
				t.Errorf("width %d: %q", width, line)
			}
		}
	}
	if got := wrap("", 10); len(got) != 1 {
		t.Errorf("of nothing: %q", got)
	}
}

// A disk that is not ready is told once and by the exit status; severities have colours
// on a terminal alone.
func TestCheckTellsOnce(t *testing.T) {
	t.Parallel()
	disk := t.TempDir() + "/disk.raw"
	must(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	status, stdout, stderr := run(t, "check", "-f", "raw", disk)
	if status != StatusFailed || stderr != "" || strings.Count(stdout, "not ready") != 1 || strings.Contains(stdout, "\x1b") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{{map[string]string{"TERM": "xterm"}, true}, {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false}} {
		_, text := seen(t, t.Context(), c.env, "check", "-f", "raw", disk)
		if strings.Contains(text, "\x1b[31merror\x1b[0m    partition-table") != c.want || strings.Contains(text, "\x1b[31mnot ready") != c.want {
			t.Errorf("%v: %q", c.env, text)
		}
		for line := range strings.Lines(text) {
			if line = colours.ReplaceAllString(line, ""); len([]rune(strings.TrimRight(line, "\r\n"))) > 60 && !strings.Contains(line, disk) {
				t.Errorf("wider than the terminal: %q", line)
			}
		}
	}
	if status, _, stderr := run(t, "check", "--for", "aws", disk); status != statusUsage || !strings.Contains(stderr, "otc") {
		t.Errorf("status %d, %q", status, stderr)
	}
	doc := newCheckDoc(sampleReport())
	if doc.Verdict != diskcheck.Undecided {
		t.Errorf("it is %s", doc.Verdict)
	}
}

var colours = regexp.MustCompile("\x1b\\[[0-9]*m")
