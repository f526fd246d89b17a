package vmdk

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/internal/disktest"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

// openPath opens the disk at path, and the files beside it, until done.
func openPath(t qemutest.TB, path string) (f *File, done func()) {
	var open []*os.File
	done = func() {
		for _, f := range open {
			f.Close()
		}
	}
	opener := func(name string) (*os.File, int64, error) {
		f, err := os.Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return nil, 0, err
		}
		open = append(open, f)
		st, err := f.Stat()
		return f, st.Size(), err
	}
	r, size, err := opener(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	f, err = Open(r, size, func(name string) (io.ReaderAt, int64, error) { return opener(name) })
	if err != nil {
		done()
		t.Fatal(err)
	}
	return f, done
}

// Disks that QEMU made, of each kind that it makes.
func TestAgainstQEMU(t *testing.T) {
	qemutest.Judge(t, "vmdk", func(t *rapid.T, dir string) {
		kind := rapid.SampledFrom([]string{
			"monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
		}).Draw(t, "subformat")
		r := qemutest.Recipe{
			Format:  "vmdk",
			Options: []string{"subformat=" + kind},
			Size:    512 * rapid.Int64Range(1, 100_000).Draw(t, "sectors"),
			Convert: kind == "streamOptimized" || rapid.IntRange(0, 3).Draw(t, "convert") == 0,
		}
		// More than one file of 2 GiB, more than one page of grain tables.
		if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
			r.Size += rapid.Int64Range(0, 5<<30).Draw(t, "more") &^ 511
		}
		kinds := []qemutest.Kind{qemutest.Write, qemutest.Write, qemutest.Plain, qemutest.Nothing}
		if strings.HasSuffix(kind, "Sparse") {
			if rapid.Bool().Draw(t, "zeroed grains") {
				r.Options = append(r.Options, "zeroed_grain=on")
			}
			kinds = append(kinds, qemutest.Zero, qemutest.Unmap)
		}
		if rapid.Bool().Draw(t, "compat6") {
			r.Options = append(r.Options, "compat6=on")
		}
		r.Ops = qemutest.DrawOps(t, r.Size, 64<<10, 3<<20, 8, kinds...)
		path := qemutest.Make(t, dir, "disk.vmdk", r)
		f, done := openPath(t, path)
		defer done()
		if f.CreateType() != kind || f.Compressed() != (kind == "streamOptimized") || f.Unclean() {
			t.Fatalf("%s, compressed %v, unclean %v", f.CreateType(), f.Compressed(), f.Unclean())
		}
		if err := qemutest.Check(f, qemutest.Raw(t, path, "vmdk"), rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// Disks that these tests build, with footers and grains of many sizes: QEMU
// sees in them what we see.
func TestQEMUReadsWhatWeBuild(t *testing.T) {
	qemutest.Run(t, 8, func(t *rapid.T, dir string) {
		c := build{
			disk:       make([]byte, sectorSize*rapid.IntRange(1, 30_000).Draw(t, "sectors")),
			grain:      MinGrain << rapid.IntRange(0, 5).Draw(t, "grain"),
			stream:     rapid.Bool().Draw(t, "stream"),
			zeroGrains: rapid.Bool().Draw(t, "zero grains"),
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "pieces") {
			off := rapid.IntRange(0, len(c.disk)-1).Draw(t, "offset")
			n := min(rapid.IntRange(1, 1<<20).Draw(t, "length"), len(c.disk)-off)
			disktest.Fill(c.disk[off:][:n], rapid.Uint64().Draw(t, fmt.Sprint("piece ", i)))
		}
		path := filepath.Join(dir, "disk.vmdk")
		if err := os.WriteFile(path, c.file(), 0o600); err != nil {
			t.Fatal(err)
		}
		f, done := openPath(t, path)
		defer done()
		raw := qemutest.Raw(t, path, "vmdk")
		if b, err := os.ReadFile(raw); err != nil || string(b) != string(c.disk) {
			t.Fatalf("QEMU reads something else than was built: %v", err)
		}
		if err := qemutest.Check(f, raw, rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}
