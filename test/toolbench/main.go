// Command toolbench measures quickims' image tools beside those that people use
// today, on the same file in one run: converting a RAW disk to ZVHD2 and back beside
// qemu-img and zstd, and making a bitmap beside reading the file. It prints a table,
// and the same as JSON.
//
// The disk is an ext4 file system of the machine's own files. What is compared takes
// turns, each figure is a median, and each ratio the median of the ratios within a
// turn. quickims leaves its output on the disk (fsync); the others are measured as
// they are, and again with a sync behind them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/quickims/quickims/test/measure"
)

// figure is what a tool took, medians over the runs.
type figure struct {
	Task    string  `json:"task"`
	Tool    string  `json:"tool"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // user and system
	PeakMiB float64 `json:"peak_memory_mib"`
	OutMiB  float64 `json:"output_mib,omitempty"`
	MiBs    float64 `json:"mib_per_second"` // of data
}

// verdict compares quickims with a peer.
type verdict struct {
	What   string  `json:"what"`
	Want   string  `json:"want"`
	Got    float64 `json:"got"`     // by the clock
	GotCPU float64 `json:"got_cpu"` // by processor time, which load disturbs less
	OK     bool    `json:"ok"`
}

type report struct {
	Machine  string    `json:"machine"`
	Load     string    `json:"load_average"`
	DiskMiB  int64     `json:"disk_mib"`
	DataMiB  int64     `json:"data_mib"`
	Runs     int       `json:"runs"`
	Figures  []figure  `json:"figures"`
	Verdicts []verdict `json:"verdicts"`
}

type bench struct {
	quickims, libzstd, dir string

	runs int
	data int64
	rep  report
}

func main() {
	binary := flag.String("quickims", "bin/quickims", "the binary to measure")
	libzstd := flag.String("libzstd", "", "a binary built with the tag libzstd, to measure beside it")
	levels := flag.Bool("levels", false, "convert at the other levels too")
	dir := flag.String("dir", "", "folder for the files, about 16 GiB; the disk in it is used again (default: a temporary one)")
	from := flag.String("from", "/usr", "where the disk's files come from")
	runs := flag.Int("runs", 5, "runs of each tool")
	out := flag.String("json", "", "file for the figures as JSON")
	flag.Parse()
	if err := run(*binary, *libzstd, *dir, *from, *out, *runs, *levels); err != nil {
		fmt.Fprintln(os.Stderr, "toolbench:", err)
		os.Exit(1)
	}
}

func run(binary, libzstd, dir, from, out string, runs int, levels bool) error {
	for _, name := range []string{"qemu-img", "zstd", "mke2fs"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w; install qemu-utils, zstd and e2fsprogs", err)
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "toolbench-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if libzstd != "" {
		if libzstd, err = filepath.Abs(libzstd); err != nil {
			return err
		}
	}
	b := &bench{quickims: binary, libzstd: libzstd, dir: dir, runs: runs}
	if err := b.prepare(from); err != nil {
		return err
	}
	parts := []func() error{b.toZVHD2, b.toRaw, b.mf, b.mfSparse}
	if levels {
		parts = append(parts, b.levels)
	}
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	b.rep.Load, b.rep.Machine, b.rep.Runs = measure.Load(), measure.Machine(), runs
	b.memory()
	b.rep.print(os.Stdout)
	return measure.WriteJSON(out, b.rep)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// prepare makes the disk, and a file of what of it is no hole.
func (b *bench) prepare(from string) error {
	disk, data := b.path("disk.raw"), b.path("data.bin")
	if _, err := os.Stat(disk); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "making the disk …")
		if err := measure.MakeDisk(disk, from, 8*measure.GiB, 2*measure.GiB); err != nil {
			return err
		}
	}
	var err error
	if b.data, err = squeeze(data, disk); err != nil {
		return err
	}
	b.rep.DiskMiB, b.rep.DataMiB = 8*measure.GiB/measure.MiB, b.data/measure.MiB
	f, err := os.Create(b.path("tib.raw"))
	if err != nil {
		return err
	}
	// 64 pieces of 1 MiB.
	piece := []byte(strings.Repeat("quickims", 1<<17))
	for i := range int64(64) {
		if _, err := f.WriteAt(piece, i*measure.TiB/64); err != nil {
			return err
		}
	}
	return errors.Join(f.Truncate(measure.TiB), f.Close())
}

// squeeze writes what of a file is no hole into another one.
func squeeze(to, from string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	err = measure.DataExtents(in, func(off, length int64) error {
		k, err := io.Copy(out, io.NewSectionReader(in, off, length))
		n += k
		return err
	})
	if err != nil {
		return n, err
	}
	return n, errors.Join(out.Sync(), out.Close())
}

// compare runs the tools in turn and notes the medians.
func (b *bench) compare(task string, data int64, tools ...tool) (map[string]measured, error) {
	found := make(map[string]measured)
	for _, t := range tools {
		found[t.name] = measured{figure: figure{Task: task, Tool: t.name}}
	}
	for run := range b.runs + 1 { // the first fills the page cache
		for _, t := range tools {
			fmt.Fprintf(os.Stderr, "%s: %s, run %d …\n", task, t.name, run)
			s, err := t.run()
			if err != nil {
				return nil, err
			}
			m := found[t.name]
			if run > 0 {
				m.runs = append(m.runs, s)
			}
			if t.out != "" {
				info, err := os.Stat(t.out)
				if err != nil {
					return nil, err
				}
				m.OutMiB = float64(info.Size()) / float64(measure.MiB)
			}
			if t.once {
				os.Remove(t.out)
			}
			found[t.name] = m
		}
	}
	for _, t := range tools {
		m := found[t.name]
		m.Seconds = measure.MedianBy(m.runs, func(s sample) float64 { return s.wall })
		m.CPU = measure.MedianBy(m.runs, func(s sample) float64 { return s.cpu })
		m.PeakMiB = measure.MedianBy(m.runs, func(s sample) float64 { return s.peak })
		m.MiBs = float64(data) / float64(measure.MiB) / m.Seconds
		found[t.name] = m
		b.rep.Figures = append(b.rep.Figures, m.figure)
	}
	return found, nil
}

// judge notes whether a ratio is as wanted. least: it must be at least that, else
// at most.
func (b *bench) judge(what string, least bool, bound float64, got, gotCPU float64) {
	v := verdict{What: what, Got: got, GotCPU: gotCPU, Want: fmt.Sprintf("at most %.2f", bound), OK: got <= bound}
	if least {
		v.Want, v.OK = fmt.Sprintf("at least %.2f", bound), got >= bound
	}
	b.rep.Verdicts = append(b.rep.Verdicts, v)
}

func (r report) print(out io.Writer) {
	fmt.Fprintf(out, "%s; load %s; a disk of %d MiB with %d MiB of data; medians of %d runs\n\n", r.Machine, r.Load, r.DiskMiB, r.DataMiB, r.Runs)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "task\ttool\tseconds\tCPU seconds\tMiB/s\toutput MiB\tpeak MiB")
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\n", f.Task, f.Tool, f.Seconds, f.CPU, f.MiBs, f.OutMiB, f.PeakMiB)
	}
	fmt.Fprintln(w, "\ncompared\twanted\tby the clock\tby CPU time\t")
	for _, v := range r.Verdicts {
		word := "missed"
		if v.OK {
			word = "kept"
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%s\n", v.What, v.Want, v.Got, v.GotCPU, word)
	}
	w.Flush()
}
