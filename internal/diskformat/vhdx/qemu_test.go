package vhdx

import (
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/qemutest"
)

func openPath(t qemutest.TB, path string) *File {
	t.Helper()
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	st, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(r, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Disks that QEMU made, of dynamic and of fixed size.
func TestAgainstQEMU(t *testing.T) {
	qemutest.Judge(t, "vhdx", func(t *rapid.T, dir string) {
		kind := rapid.SampledFrom([]string{"dynamic", "dynamic", "fixed"}).Draw(t, "subformat")
		block := int64(1<<20) << rapid.IntRange(0, 8).Draw(t, "block")
		r := qemutest.Recipe{
			Format:  "vhdx",
			Options: []string{"subformat=" + kind, fmt.Sprintf("block_size=%d", block)},
			Size:    512 * rapid.Int64Range(1, 50_000).Draw(t, "sectors"),
			Convert: rapid.IntRange(0, 3).Draw(t, "convert") == 0,
		}
		// A chunk covers 4 GiB; its bitmap's entry lies between those of blocks.
		if kind == "dynamic" && rapid.Bool().Draw(t, "large") {
			r.Size += rapid.Int64Range(0, 20<<30).Draw(t, "more") &^ 511
		}
		if rapid.Bool().Draw(t, "states of zeros") && !r.Convert {
			r.Options = append(r.Options, "block_state_zero=off")
		}
		if rapid.Bool().Draw(t, "log") {
			r.Options = append(r.Options, "log_size=3M")
		}
		r.Ops = qemutest.DrawOps(t, r.Size, block, 5<<20, 8, qemutest.Write, qemutest.Plain, qemutest.Nothing)
		path := qemutest.Make(t, dir, "disk.vhdx", r)
		f := openPath(t, path)
		if f.BlockSize() != block || f.Fixed() != (kind == "fixed") || f.LogicalSector() != 512 || f.Replayed() != 0 {
			t.Fatalf("blocks of %d, fixed %v, sectors of %d, %d entries", f.BlockSize(), f.Fixed(), f.LogicalSector(), f.Replayed())
		}
		if err := qemutest.Check(f, qemutest.Raw(t, path, "vhdx"), rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}
