package vhd_test

import (
	"bytes"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/quickims/quickims/internal/diskformat/qemutest"
	"github.com/quickims/quickims/internal/diskformat/vhd"
)

func anyRecipe(t *rapid.T) qemutest.Recipe {
	r := qemutest.Recipe{Format: "vpc"}
	sectors := int64(1 << 17) // 64 MiB
	if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
		sectors = 1 << 30 // 512 GiB
	}
	r.Size = 512 * rapid.Int64Range(1, sectors).Draw(t, "sectors")
	if r.Size <= 64<<20 && rapid.IntRange(0, 2).Draw(t, "fixed") == 0 {
		r.Options = []string{"subformat=fixed"}
	}
	if rapid.Bool().Draw(t, "force size") {
		r.Options = append(r.Options, "force_size=on")
	}
	r.Convert = rapid.IntRange(0, 3).Draw(t, "convert") == 0
	r.Ops = qemutest.DrawOps(t, r.Size, 2<<20, 4<<20, 10, qemutest.Write, qemutest.Write, qemutest.Plain, qemutest.Nothing, qemutest.Zero)
	return r
}

func openFile(t qemutest.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

// Whatever qemu-img and qemu-io make is read as qemu-img reads it, with the
// size that the geometry makes and with the one that was asked for.
func TestLikeQEMU(t *testing.T) {
	qemutest.Judge(t, "vpc", func(t *rapid.T, dir string) {
		r := anyRecipe(t)
		path := qemutest.Make(t, dir, "disk", r)
		f, size := openFile(t, path)
		img, err := vhd.Open(f, size)
		if err != nil {
			t.Fatal(err)
		}
		info := img.Info()
		if info.Dynamic != (len(r.Options) == 0 || r.Options[0] != "subformat=fixed") || info.NoFooter {
			t.Fatalf("%+v", info)
		}
		if forced := info.Creator == "qem2"; forced && info.Size != r.Size || !forced && info.Size < r.Size {
			t.Fatalf("%d bytes were asked for: %+v", r.Size, info)
		}
		raw := qemutest.Raw(t, path, "vpc")
		if err := qemutest.Check(img, raw, rapid.Uint64().Draw(t, "seed"), qemutest.Reads); err != nil {
			t.Fatal(err)
		}
	})
}

// A file that was cut is refused at opening, unless all that the disk needs is
// still there.
func TestCutFile(t *testing.T) {
	qemutest.Run(t, 2, func(t *rapid.T, dir string) {
		r := anyRecipe(t)
		r.Size = min(r.Size, 16<<20)
		r.Ops = append(r.Ops[:0:0], qemutest.Op{Kind: qemutest.Write, Off: 0, Len: r.Size})
		whole, size := openFile(t, qemutest.Make(t, dir, "disk", r))
		img, err := vhd.Open(whole, size)
		if err != nil {
			t.Fatal(err)
		}
		want, got := make([]byte, img.Size()), make([]byte, img.Size())
		if _, err := img.ReadAt(want, 0); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			cut := rapid.Int64Range(0, size-1).Draw(t, "cut")
			img, err := vhd.Open(whole, cut)
			if err != nil {
				continue
			}
			// Without its last byte, a footer looks like those of long ago.
			if !img.Info().NoFooter && cut != size-1 {
				t.Fatalf("cut at %d of %d: %+v", cut, size, img.Info())
			}
			if n, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got[:n], want) {
				t.Fatalf("cut at %d of %d: %v", cut, size, err)
			}
		}
	})
}
