package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/diskformat"
)

// CheckCmd tells whether a system disk is ready for a quick import.
type CheckCmd struct {
	inputFlags
	Image string             `arg:"" name:"image" help:"Disk file of any format that is read, or a block device."`
	All   bool               `short:"a" help:"List also what is in order, and each thing that could not be looked at."`
	For   diskcheck.Platform `enum:"otc,openstack,kvm" default:"otc" placeholder:"PLATFORM" help:"Where the machine will run: otc (Open Telekom Cloud), openstack, or kvm (a host without a metadata service). Default: otc."`
}

// Help shows the command's use.
func (CheckCmd) Help() string {
	return `A quick import changes nothing in a disk: whatever a machine needs to start from it, and to be reached, must be in it already. The partition table, the boot loader and the files of the system are read, without mounting; nothing is written. The exit status is 0 if the disk is ready, 1 if a finding is an error, 3 if none is but not all could be looked at.

Examples:

    quickims check disk.qcow2
    quickims check --for kvm disk.qcow2
    quickims check --json disk.raw
`
}

// checkDoc is what was found out. What is not known is absent.
type checkDoc struct {
	Path         string                    `json:"path"`
	Format       diskformat.Format         `json:"format"`
	For          diskcheck.Platform        `json:"for"`
	Verdict      diskcheck.Verdict         `json:"verdict"`
	Ready        bool                      `json:"ready"`     // the verdict is ready
	DiskSize     int64                     `json:"disk_size"` // bytes
	Table        diskformat.PartitionTable `json:"partition_table"`
	OSType       string                    `json:"os_type,omitempty"`
	OSName       string                    `json:"os_name,omitempty"`
	OSVersion    string                    `json:"os_version,omitempty"`
	Architecture string                    `json:"architecture,omitempty"`
	Firmware     string                    `json:"hw_firmware_type,omitempty"`
	Partitions   []checkPartition          `json:"partitions"`
	Findings     []checkFinding            `json:"findings"`
	Seconds      float64                   `json:"seconds"`

	all    bool
	width  int // of the texts below a finding, in characters
	colour func(diskcheck.Severity, string) string
}

type checkPartition struct {
	Number  int    `json:"number"` // 0: the disk has no partition table
	Start   int64  `json:"start"`  // bytes
	Size    int64  `json:"size"`   // bytes
	Type    string `json:"type,omitempty"`
	Name    string `json:"name,omitempty"`
	UUID    string `json:"partuuid,omitempty"`
	Active  bool   `json:"active"`
	Content string `json:"content,omitempty"`
	FSUUID  string `json:"uuid,omitempty"`
	FSLabel string `json:"label,omitempty"`
	Mount   string `json:"mount,omitempty"`
}

type checkFinding struct {
	ID       diskcheck.ID       `json:"id"`
	Severity diskcheck.Severity `json:"severity"`
	Found    string             `json:"found"`
	Why      string             `json:"why"`
	Fix      string             `json:"fix,omitempty"`
}

// Run checks.
func (c *CheckCmd) Run(ctx context.Context, s *session) error {
	began := s.now()
	src, err := c.openDisk(c.Image)
	if err != nil {
		return err
	}
	defer src.Close()
	report, err := diskcheck.Check(ctx, src, src.OrigSize, c.For)
	if err == nil {
		err = src.unchanged()
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Image, interrupted(ctx, err))
	}
	doc := newCheckDoc(report)
	doc.Path, doc.Format, doc.For, doc.all, doc.Seconds = c.Image, src.Format, c.For, c.All, s.now().Sub(began).Seconds()
	doc.colour = func(severity diskcheck.Severity, text string) string {
		return s.coloured(s.Stdout, severityColours[severity], text)
	}
	if width := s.width(s.Stdout); width > 0 {
		doc.width = max(min(wrapAt, width-severityWidth), severityWidth)
	}
	if err := s.result(doc, doc.print); err != nil {
		return err
	}
	switch doc.Verdict {
	case diskcheck.NotReady:
		return &exitError{StatusFailed}
	case diskcheck.Undecided:
		return &exitError{statusUndecided}
	}
	return nil
}

// statusUndecided: nothing was found against the disk, but not all could be looked at.
const statusUndecided = 3

var severityColours = map[diskcheck.Severity]string{diskcheck.Error: red, diskcheck.Warning: yellow, diskcheck.Unknown: cyan, diskcheck.OK: green}

func newCheckDoc(r diskcheck.Report) checkDoc {
	doc := checkDoc{
		Verdict: r.Verdict(), Ready: r.Verdict() == diskcheck.Ready, DiskSize: r.Size, Table: r.Table,
		OSType: r.OSType, OSName: r.OSName, OSVersion: r.OSVersion, Architecture: r.Architecture, Firmware: r.Firmware,
		Partitions: []checkPartition{}, Findings: []checkFinding{},
		width: wrapAt, colour: func(_ diskcheck.Severity, text string) string { return text },
	}
	for _, p := range r.Partitions {
		doc.Partitions = append(doc.Partitions, checkPartition(p))
	}
	for _, f := range r.Findings {
		doc.Findings = append(doc.Findings, checkFinding(f))
	}
	return doc
}

// wrapAt is the width of the texts below a finding, in characters.
const wrapAt = 92

func (doc checkDoc) print(w io.Writer) {
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("File", fmt.Sprintf("%s (%s, %s)", doc.Path, doc.Format, size(doc.DiskSize)))
	row("System", doc.OSName)
	row("os_version", doc.OSVersion)
	row("architecture", doc.Architecture)
	row("firmware", doc.Firmware)
	for _, p := range doc.Partitions {
		text := fmt.Sprintf("%s %s", size(p.Size), p.Content)
		if p.FSLabel != "" {
			text += fmt.Sprintf(" %q", p.FSLabel)
		}
		if p.Mount != "" {
			text += " on " + p.Mount
		}
		name := fmt.Sprintf("Partition %d", p.Number)
		if p.Number == 0 {
			name = "Disk"
		}
		row(name, text)
	}
	fmt.Fprintln(w)
	line := func(severity diskcheck.Severity, name, text string) {
		margin := fmt.Sprintf("%-*s", severityWidth, name)
		if severity != "" {
			margin = doc.colour(severity, name) + strings.Repeat(" ", severityWidth-len(name))
		}
		fmt.Fprintf(w, "%s%s\n", margin, strings.Join(wrap(text, doc.width), "\n"+strings.Repeat(" ", severityWidth)))
	}
	full := func(f checkFinding) {
		line(f.Severity, string(f.Severity), string(f.ID))
		for _, text := range [][2]string{{"found", f.Found}, {"why", f.Why}, {"fix", f.Fix}} {
			if text[1] != "" {
				line("", "  "+text[0], text[1])
			}
		}
	}
	of := func(severity diskcheck.Severity) []checkFinding {
		return slices.DeleteFunc(slices.Clone(doc.Findings), func(f checkFinding) bool { return f.Severity != severity })
	}
	errs, warns, unknown, fine := of(diskcheck.Error), of(diskcheck.Warning), of(diskcheck.Unknown), of(diskcheck.OK)
	for _, f := range slices.Concat(errs, warns) {
		full(f)
	}
	if doc.all {
		for _, f := range slices.Concat(unknown, fine) {
			full(f)
		}
	} else {
		if len(unknown) > 0 {
			var names []string
			for _, f := range unknown {
				if !slices.Contains(names, string(f.ID)) {
					names = append(names, string(f.ID))
				}
			}
			line(diskcheck.Unknown, "unknown", fmt.Sprintf("could not be looked at: %s; %s (--all says more)", strings.Join(names, ", "), unknown[0].Found))
		}
		if len(fine) > 0 {
			line(diskcheck.OK, "ok", count(len(fine), "more is in order (--all lists it)", "more are in order (--all lists them)"))
		}
	}
	verdict := map[diskcheck.Verdict]string{
		diskcheck.Ready: "ready for a quick import", diskcheck.NotReady: "not ready for a quick import",
		diskcheck.Undecided: "nothing speaks against a quick import, but not all could be looked at",
	}[doc.Verdict]
	worst := map[diskcheck.Verdict]diskcheck.Severity{diskcheck.Ready: diskcheck.OK, diskcheck.NotReady: diskcheck.Error, diskcheck.Undecided: diskcheck.Unknown}[doc.Verdict]
	var counts []string
	if len(errs) > 0 {
		counts = append(counts, count(len(errs), "error", "errors"))
	}
	if len(warns) > 0 {
		counts = append(counts, count(len(warns), "warning", "warnings"))
	}
	if len(counts) > 0 {
		verdict += " (" + strings.Join(counts, ", ") + ")"
	}
	fmt.Fprintf(w, "\n%s: %s, %s\n", doc.Path, doc.colour(worst, verdict), seconds(doc.Seconds))
}

// severityWidth is that of the longest severity, and of the space behind it.
const severityWidth = 9

// count is a number with a word in the right form.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// wrap breaks a text into lines of at most width characters, where words allow.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
