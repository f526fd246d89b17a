package qemutest_test

import (
	"io"
	"iter"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// rawDisk is the reader that can't be wrong: the RAW file itself, with the
// faults that a test asks for.
type rawDisk struct {
	*os.File
	size    int64
	poke    int64 // the byte to read wrongly; -1: none
	allHole bool
}

func (d rawDisk) Size() int64 { return d.size }

func (d rawDisk) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.size {
		return 0, io.EOF
	}
	n, err := d.File.ReadAt(p, off)
	if off <= d.poke && d.poke < off+int64(n) {
		p[d.poke-off] ^= 1
	}
	return n, err
}

func (d rawDisk) Extents() iter.Seq[diskformat.Extent] {
	return func(yield func(diskformat.Extent) bool) {
		yield(diskformat.Extent{Length: d.size, Data: !d.allHole})
	}
}

func openRaw(t qemutest.TB, path string) rawDisk {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return rawDisk{File: f, size: st.Size(), poke: -1}
}

// QEMU's own conversions pass, and one wrong byte, one wrong extent or a wrong
// size does not.
func TestCheck(t *testing.T) {
	qemutest.Run(t, 4, func(t *rapid.T, dir string) {
		r := qemutest.Recipe{
			Format:  rapid.SampledFrom([]string{"raw", "qcow2"}).Draw(t, "format"),
			Size:    512 * rapid.Int64Range(1, 20000).Draw(t, "sectors"),
			Convert: rapid.Bool().Draw(t, "convert"),
		}
		kinds := []qemutest.Kind{qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Zero, qemutest.Unmap, qemutest.Discard}
		if r.Format == "qcow2" && !r.Convert {
			kinds = append(kinds, qemutest.Compress)
		}
		r.Ops = qemutest.DrawOps(t, r.Size, 64<<10, 300<<10, 5, kinds...)
		r.Ops = append(r.Ops, qemutest.Op{Kind: qemutest.Plain, Off: 0, Len: 512})
		raw := qemutest.Raw(t, qemutest.Make(t, dir, "disk", r), r.Format)
		seed := rapid.Uint64().Draw(t, "seed")

		d := openRaw(t, raw)
		defer d.Close()
		if err := qemutest.Check(d, raw, seed, qemutest.Reads); err != nil {
			t.Fatal(err)
		}
		wrong := func(name, words string, d rawDisk) {
			if err := qemutest.Check(d, raw, seed, qemutest.Reads); err == nil || !strings.Contains(err.Error(), words) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		poked, larger, hole := d, d, d
		for e, err := range sparse.Data(d.File, d.size) {
			if err != nil {
				t.Fatal(err)
			}
			poked.poke = e.Offset
		}
		wrong("a wrong byte", "QEMU says", poked)
		larger.size += 512
		wrong("a wrong size", "QEMU says", larger)
		hole.allHole = true
		wrong("a wrong hole", "called a hole", hole)
	})
}
