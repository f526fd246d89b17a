package cli

import (
	"bytes"
	"encoding/json"
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
		"warning  fstab\n", "  fix    use UUID=\n", "ok       1 more is in order (--all lists it)\n", "d.raw: ready for a quick import",
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
	doc.all = true
	if text := print(doc); !strings.Contains(text, "GRUB") || strings.Contains(text, "in order") {
		t.Errorf("with --all:\n%s", text)
	}
	report := sampleReport()
	report.Findings[1].Severity = diskcheck.Error
	if doc := newCheckDoc(report); doc.Ready || !strings.Contains(print(doc), "not ready for a quick import") {
		t.Error("an error is no obstacle")
	}
}

func TestCheckAsJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(newCheckDoc(sampleReport()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ready":true`, `"hw_firmware_type":"uefi"`, `"mount":"/"`, `{"id":"fstab","severity":"warning","found":"/dev/sda2 on /home","why":"names change","fix":"use UUID="}`} {
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
