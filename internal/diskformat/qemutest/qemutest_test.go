package qemutest_test

import (
	"context"
	"iter"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/sparse"
)

// wrong is the reader that can't be wrong, the RAW file itself, with the faults
// that a test asks for.
type wrong struct {
	*qemutest.RawDisk
	poke    int64 // the byte to read wrongly; -1: none
	more    int64 // how much too large it says it is
	allHole bool
}

func (d wrong) Size() int64 { return d.RawDisk.Size() + d.more }

func (d wrong) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.RawDisk.ReadAt(p, off)
	if off <= d.poke && d.poke < off+int64(n) {
		p[d.poke-off] ^= 1
	}
	return n, err
}

func (d wrong) Map(ctx context.Context) iter.Seq2[diskformat.Extent, error] {
	if !d.allHole {
		return d.RawDisk.Map(ctx)
	}
	return func(yield func(diskformat.Extent, error) bool) {
		yield(diskformat.Extent{Length: d.Size()}, nil)
	}
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

		d := qemutest.OpenRaw(t, raw)
		if err := qemutest.Check(d, raw, seed, qemutest.Reads); err != nil {
			t.Fatal(err)
		}
		refused := func(words string, d wrong) {
			if err := qemutest.Check(d, raw, seed, qemutest.Reads); err == nil || !strings.Contains(err.Error(), words) {
				t.Fatalf("%+v: %v", d, err)
			}
		}
		poke := int64(-1)
		for e, err := range sparse.Data(d.File, d.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			poke = e.Offset
		}
		refused("QEMU says", wrong{RawDisk: d, poke: poke})
		refused("QEMU says", wrong{RawDisk: d, poke: -1, more: 512})
		refused("called a hole", wrong{RawDisk: d, poke: -1, allHole: true})
	})
}

// The packages' images are a hundred together, and two thousand in a long run.
func TestImages(t *testing.T) {
	t.Parallel()
	sum := 0
	for _, n := range qemutest.Images {
		sum += n
	}
	if sum < 100 {
		t.Errorf("%d images", sum)
	}
}
