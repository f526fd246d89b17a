// Command servebench measures how fast quickims serves images as disks, beside
// nbdkit on the same objects in the same S3 server and on the same files, in one
// run: the first byte of a sparse TiB, random and sequential reads, and nbdcopy of a
// whole disk. It prints a table with verdicts, and the same as JSON.
//
// The disk is an ext4 file system of the machine's own files. What is compared takes
// turns on one client, each turn a fresh process; each figure is a median over the
// turns, and a verdict is the median of the turns' ratios. The S3 server is
// versitygw on this machine; everything shares its processors.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/quickims/quickims/internal/objectstore/storetest"
	"github.com/quickims/quickims/test/measure"
)

func main() {
	storetest.MaybeGateway() // the S3 server is this program again
	binary := flag.String("quickims", "bin/quickims", "the binary to measure")
	dir := flag.String("dir", "", "folder for the disks on the temporary folder's file system; disks in it are used again, whatever their size (default: a temporary one)")
	from := flag.String("from", "/usr", "where the disk's files come from")
	size := flag.Int64("disk", 2048, "MiB of the disk, half of them data")
	runs := flag.Int("runs", 5, "turns of each system")
	only := flag.String("rows", "", "measure only rows whose name holds this")
	out := flag.String("json", "", "file for the figures as JSON")
	flag.Parse()
	tb, err := measure.NewConsole("servebench")
	if err != nil {
		fmt.Fprintln(os.Stderr, "servebench:", err)
		os.Exit(1)
	}
	defer tb.Close()
	for _, name := range []string{"nbdkit", "nbdcopy", "mke2fs"} {
		if _, err := exec.LookPath(name); err != nil {
			tb.Fatalf("%v; install nbdkit, libnbd-bin and e2fsprogs", err)
		}
	}
	if out, err := exec.Command("nbdkit", "curl", "--dump-plugin").CombinedOutput(); err != nil {
		tb.Fatalf("nbdkit has no curl plugin: %v: %s", err, out)
	}
	abs, err := filepath.Abs(*binary)
	if err != nil {
		tb.Fatal(err)
	}
	os.Setenv("QUICKIMS_TEST_BINARY", abs)
	if *dir == "" {
		*dir = tb.TempDir()
	}
	if *dir, err = filepath.Abs(*dir); err != nil {
		tb.Fatal(err)
	}
	tb.Logf("making the disks …")
	d, err := makeDisks(*dir, *from, *size*measure.MiB)
	if err != nil {
		tb.Fatal(err)
	}
	b := &bench{tb: tb, disks: d, runs: *runs}
	b.start()
	b.firstByte(*only)
	for _, r := range b.rows() {
		if strings.Contains(r.name, *only) {
			b.measure(r)
		}
	}
	b.rep.Machine, b.rep.Load, b.rep.Runs = measure.Machine(), measure.Load(), *runs
	b.rep.print(os.Stdout)
	if err := measure.WriteJSON(*out, b.rep); err != nil {
		tb.Fatal(err)
	}
}
