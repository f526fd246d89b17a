// Package diskcheck answers one question about a system disk: is it ready for a
// quick import? A quick import changes nothing in the disk, so whatever a machine
// needs to start from it and to be reached must be in it already: a boot loader for
// the firmware, drivers for virtio, mounts that do not depend on how a disk is
// named, a network that asks for its address, keys for the SSH server and a way in.
// What the disk lacks counts together with what the programs on it will do at the
// first start: cloud-init, systemd, netplan, ifupdown, NetworkManager, growpart.
//
// [Check] reads the partition table, the boot loaders and the files of the
// system, without mounting, through package filesystem. It makes [Finding]s: what
// was found, why it matters, what to do. What can't be read is a finding too, of
// the severity Unknown; nothing is guessed.
//
// The bytes come from strangers. The total of what is read and unpacked is
// bounded, and so is each file; see budget and the limits at each check.
package diskcheck

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/filesystem"
)

// budget is how many bytes are read and unpacked for one disk. A usual disk takes
// a few hundred MiB, nearly all of it unpacking two initramfs; the largest that
// distributions make have 500 MiB unpacked.
const budget = 2 << 30

// Limits of the files that are read whole.
const (
	maxConfig = 256 << 10 // a configuration file
	maxList   = 4 << 20   // a list of a kernel's modules, a grub.cfg
	maxFiles  = 64        // configuration files of one folder
)

// Severity says how a finding bears on the import. Its text is stable.
type Severity string

// The severities.
const (
	OK      Severity = "ok"
	Warning Severity = "warning" // it starts, but may not do what its owner wants
	Error   Severity = "error"   // it does not start, or can't be reached
	Unknown Severity = "unknown" // it could not be found out
)

// Finding is the outcome of one check. Some checks have several findings.
type Finding struct {
	ID       ID // of the check; stable
	Severity Severity
	Found    string // what was found, with the names of files
	Why      string // why it matters, the same for all findings of a check
	Fix      string // what to do about it; empty when nothing must be done
}

// Partition is a part of the disk, or the whole disk when it has no partition
// table (Number 0).
type Partition struct {
	Number int
	Start  int64 // bytes
	Size   int64 // bytes
	Type   string
	Name   string // of GPT
	UUID   string // of the partition (PARTUUID), lower case
	Active bool   // marked bootable for BIOS

	Content string // what lies in it, as blkid names it, such as ext4; "" if nothing known
	FSUUID  string
	FSLabel string
	Mount   string // where the system mounts it; "" if it does not or that is not known
}

// Report is all that was found out about a disk. For the fields that go into an
// import request "" means: not known.
type Report struct {
	Size       int64 // bytes
	Table      diskformat.PartitionTable
	Partitions []Partition
	// TableNoted says that what is wrong with the partition table is what
	// [diskformat.ReadHints] tells, too: it is for other sectors or a larger disk.
	TableNoted bool

	OSType       string // Linux or Windows
	OSName       string // as the system calls itself
	OSVersion    string // the os_version to use
	Architecture string // the architecture to use, x86 or arm
	Firmware     string // the hw_firmware_type to use, bios or uefi

	Findings []Finding
}

// Count is the number of findings of a severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Verdict is what a report comes to.
type Verdict string

// The verdicts.
const (
	Ready     Verdict = "ready"     // it starts and can be reached
	NotReady  Verdict = "not ready" // something is found that keeps it from that
	Undecided Verdict = "undecided" // nothing is, but not all could be looked at
)

// Verdict is NotReady if there is an Error, else Undecided if something is Unknown.
func (r Report) Verdict() Verdict {
	switch {
	case r.Count(Error) > 0:
		return NotReady
	case r.Count(Unknown) > 0:
		return Undecided
	}
	return Ready
}

// Check looks at a disk of size bytes for a platform. An error is one of reading the
// disk, or the context's; the Report then holds what was found before. Nothing in the
// disk's bytes makes an error.
func Check(ctx context.Context, disk io.ReaderAt, size int64, platform Platform) (Report, error) {
	if size < 0 {
		return Report{}, fmt.Errorf("checking the disk: its size is %d", size)
	}
	c, release := newChecker(ctx, disk, size, platform)
	defer release()
	_, err := c.run(ctx, c.partitions, c.volumes, c.bootMode, c.findRoot, c.architecture, c.firmware, c.osVersion,
		c.bootConfig, c.fstab, c.kernels, c.readServices, c.cloudInit, c.growRoot, c.network, c.sshServer, c.access, c.machineID)
	if err != nil {
		err = fmt.Errorf("checking the disk: %w", err)
	}
	c.unread()
	order := IDs()
	slices.SortStableFunc(c.Findings, func(a, b Finding) int { return cmp.Compare(slices.Index(order, a.ID), slices.Index(order, b.ID)) })
	return c.Report, err
}

// Glance is what Check finds first, for a service that reads a disk over a network: the
// system, its version, and warnings and errors that show in the tables of the disk, its
// boot loader and its fstab. The first error of the disk or the context ends it, and so
// the disk may bound how much is read; the Report has what was certain before.
func Glance(ctx context.Context, disk io.ReaderAt, size int64) Report {
	c, release := newChecker(ctx, disk, size, OTC)
	defer release()
	report, _ := c.run(ctx, c.partitions, c.volumes, c.findRoot, c.architecture, c.osVersion, c.fstab, c.bootMode, c.firmware)
	report.Findings = slices.DeleteFunc(report.Findings, func(f Finding) bool { return f.Severity == OK || f.Severity == Unknown })
	return report
}

func newChecker(ctx context.Context, disk io.ReaderAt, size int64, platform Platform) (c *checker, release func()) {
	w := &watched{disk: disk}
	c = &checker{Report: Report{Size: size}, platform: platform, disk: w, src: filesystem.NewSource(ctx, w, size, budget)}
	c.services.c = c
	return c, c.src.Release
}

// run takes steps until the disk or the context has an error; whole is what the steps
// before that one found.
func (c *checker) run(ctx context.Context, steps ...func()) (whole Report, err error) {
	for _, step := range steps {
		c.before = c.trouble
		step()
		if err := cmp.Or(c.disk.err, context.Cause(ctx)); err != nil {
			return whole, err
		}
		whole = c.Report
	}
	return whole, nil
}

// watched notes the first error of the disk. The checks themselves need not tell
// it from what is wrong with the disk's content.
type watched struct {
	disk io.ReaderAt
	err  error
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.disk.ReadAt(p, off)
	if n < len(p) && w.err == nil {
		if w.err = err; err == nil || err == io.EOF {
			w.err = fmt.Errorf("it ends at byte %d, before its size: %w", off+int64(n), io.ErrUnexpectedEOF)
		}
	}
	return n, err
}

// checker is the state that the checks share, in the order in which they run.
type checker struct {
	Report
	disk *watched
	src  *filesystem.Source

	sectorSize int64    // of the GPT
	vols       []volume // one for each partition that was looked into
	containers []string // names of what hides further volumes
	uefi, bios bool     // what the boot loaders allow
	efiArch    string   // of the EFI boot loaders
	windows    bool     // there is a boot loader of Windows

	tree   *tree  // the system's files; nil when there is no root
	noRoot string // why there is none
	boot   place  // the folder of kernels and boot configuration
	bits   int    // of the programs, 32 or 64

	problems []string // what could not be read
	trouble  int      // how often that was so
	before   int      // trouble before the present check

	entries  []bootEntry
	platform Platform
	services services
	cloud    cloudState
	cloudCfg cloudConfig
	ssh      bool                // the SSH server will start
	sshd     map[string][]string // its settings
}

// place is a folder in a Tree.
type place struct {
	tree *tree
	dir  string
}

// add makes a finding. Found is formatted; fix is not.
func (c *checker) add(id ID, s Severity, fix, found string, args ...any) {
	reason := why(id)
	if reason == "" {
		panic("diskcheck: no text for " + string(id)) // a slip in this package
	}
	c.Findings = append(c.Findings, Finding{ID: id, Severity: s, Found: fmt.Sprintf(found, args...), Why: reason, Fix: fix})
}

// needRoot is false when there is no root, and makes an Unknown finding of that,
// but for Windows, where the check means nothing.
func (c *checker) needRoot(id ID) bool {
	if c.tree == nil && c.OSType != "Windows" {
		c.add(id, Unknown, "", "not looked at: %s", c.noRoot)
	}
	return c.tree != nil
}
