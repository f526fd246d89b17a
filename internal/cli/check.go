package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/diskformat"
)

// CheckCmd tells whether a system disk is ready for a quick import.
type CheckCmd struct {
	inputFlags
	Image string `arg:"" name:"image" help:"Disk file of any format that is read, or a block device."`
	All   bool   `short:"a" help:"List also what is in order."`
}

// Help shows the command's use.
func (CheckCmd) Help() string {
	return `A quick import changes nothing in a disk: whatever a machine needs to start from it must be in it already. The partition table, the boot loader and the files of the system are read, without mounting; nothing is written. The exit status is 0 unless a finding is an error.

Examples:

    quickims check disk.qcow2
    quickims check --json disk.raw
`
}

// checkDoc is what was found out. What is not known is absent.
type checkDoc struct {
	Path         string                    `json:"path"`
	Format       diskformat.Format         `json:"format"`
	Ready        bool                      `json:"ready"`
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

	all bool
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
	report, err := diskcheck.Check(ctx, src, src.OrigSize)
	if err == nil {
		err = src.unchanged()
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Image, interrupted(ctx, err))
	}
	doc := newCheckDoc(report)
	doc.Path, doc.Format, doc.all, doc.Seconds = c.Image, src.Format, c.All, s.now().Sub(began).Seconds()
	if err := s.result(doc, doc.print); err != nil {
		return err
	}
	if !doc.Ready {
		return fmt.Errorf("%s is not ready for a quick import: findings that are errors: %d", c.Image, report.Count(diskcheck.Error))
	}
	return nil
}

func newCheckDoc(r diskcheck.Report) checkDoc {
	doc := checkDoc{
		Ready: r.Ready(), DiskSize: r.Size, Table: r.Table,
		OSType: r.OSType, OSName: r.OSName, OSVersion: r.OSVersion, Architecture: r.Architecture, Firmware: r.Firmware,
		Partitions: []checkPartition{}, Findings: []checkFinding{},
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
	fine := 0
	for _, f := range doc.Findings {
		if f.Severity == diskcheck.OK && !doc.all {
			fine++
			continue
		}
		fmt.Fprintf(w, "%s\t%s\n", f.Severity, f.ID)
		texts := [][2]string{{"found", f.Found}, {"why", f.Why}, {"fix", f.Fix}}
		for _, text := range texts {
			if text[1] != "" {
				fmt.Fprintf(w, "  %s\t%s\n", text[0], strings.Join(wrap(text[1], wrapAt), "\n\t"))
			}
		}
	}
	if fine > 0 {
		more := "1 more is in order (--all lists it)"
		if fine != 1 {
			more = fmt.Sprintf("%d more are in order (--all lists them)", fine)
		}
		fmt.Fprintf(w, "ok\t%s\n", more)
	}
	ready := "ready for a quick import"
	if !doc.Ready {
		ready = "not ready for a quick import"
	}
	fmt.Fprintf(w, "\n%s: %s, %s\n", doc.Path, ready, seconds(doc.Seconds))
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
